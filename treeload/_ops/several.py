"""Ops that join several arrays into one, and that take one piece out of an array.

Owns ``StackArrays`` (along a new axis), ``ConcatArrays`` (along an axis that is there), ``TakeRange`` (a
range of an axis) and ``TakeIndex`` (one of an axis): what ``Stack``, ``Concat``, ``Split`` and ``Unstack`` do
to arrays. Which leaves belong together is decided by those rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import jax
import jax.numpy as jnp
import numpy as np

from treeload._errors import RuleError
from treeload._leaves.spec import Spec, is_key, make_spec, print_spec
from treeload._ops.op import Array, Op, Region


@dataclass(frozen=True)
class StackArrays(Op):
    """Arrays of one shape along new axes, in C order of ``counts``; as ``numpy.stack``, over several indices.

    Attributes:
        counts: how many along each new axis.
        axis: where the first new axis is in the result; the others follow it.
    """

    counts: tuple[int, ...]
    axis: int

    takes_several = moves_only = on_host = traceable = True

    def infer(self, *specs: Spec) -> Spec:
        first = specs[0]
        for spec in specs:
            if spec.shape != first.shape or spec.dtype != first.dtype:
                raise RuleError(f"leaves to be stacked are {print_spec(first)} and {print_spec(spec)}")
        rank = len(first.shape)
        at = place_of(self.axis, rank + len(self.counts), len(self.counts))
        if at is None:
            raise RuleError(f"axis={self.axis} is no place for a new axis of {print_spec(first)}")
        return make_spec((*first.shape[:at], *self.counts, *first.shape[at:]), first.dtype)

    def apply(self, *arrays: Array) -> Array:
        shape = arrays[0].shape
        at = place_of(self.axis, len(shape) + len(self.counts), len(self.counts))
        assert at is not None  # infer said so
        rows = [array.reshape((*shape[:at], 1, *shape[at:])) for array in arrays]
        return _concatenated(rows, at).reshape((*shape[:at], *self.counts, *shape[at:]))

    def regions(self, *specs: Spec) -> tuple[Region, ...]:
        whole = self.infer(*specs)
        pieces = (TakeIndex(at, self.axis, self.counts) for at in np.ndindex(self.counts))
        return tuple(piece.region(whole) for piece in pieces)

    def __repr__(self) -> str:
        return f"stacked {'×'.join(map(str, self.counts))} on axis {self.axis}"


def place_of(axis: int, rank: int, count: int) -> int | None:
    """Where ``count`` new axes begin in a result of ``rank`` axes; None where ``axis`` lies outside.

    A negative axis is counted from the result's end: the last of the new axes is that axis.
    """
    at = axis if axis >= 0 else rank + axis - count + 1
    return at if 0 <= at <= rank - count else None


@dataclass(frozen=True)
class TakeIndex(Op):
    """One of the arrays that were stacked: what ``StackArrays`` put at ``indices``.

    Attributes:
        indices: which, one number for each stacked axis.
        axis: the first stacked axis, as in ``StackArrays``.
        counts: how many there are along each.
    """

    indices: tuple[int, ...]
    axis: int
    counts: tuple[int, ...]

    moves_only = on_host = traceable = True

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        at = place_of(self.axis, len(spec.shape), len(self.counts))
        if at is None or spec.shape[at : at + len(self.counts)] != self.counts:
            raise RuleError(f"{print_spec(spec)} is not stacked {self.counts} on axis {self.axis}")
        return make_spec((*spec.shape[:at], *spec.shape[at + len(self.counts) :]), spec.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        return array[self.region(array)]

    def region(self, spec: Spec) -> Region:
        at = place_of(self.axis, len(spec.shape), len(self.counts))
        assert at is not None  # infer said so
        return (*(slice(None),) * at, *self.indices, ...)  # "...": an array also where one element is left

    def __repr__(self) -> str:
        return f"number {', '.join(map(str, self.indices))} of axis {self.axis}"


@dataclass(frozen=True)
class ConcatArrays(Op):
    """Arrays one after the other along an axis they have, as ``numpy.concatenate``.

    Attributes:
        axis: the axis.
        sizes: what each must have along it; None for whatever they have.
    """

    axis: int
    sizes: tuple[int, ...] | None = None

    takes_several = moves_only = on_host = traceable = True

    def infer(self, *specs: Spec) -> Spec:
        first = specs[0]
        axis = axis_of(self.axis, first)
        for spec in specs:
            rest = spec.shape[:axis] + spec.shape[axis + 1 :]
            if len(spec.shape) != len(first.shape) or rest != first.shape[:axis] + first.shape[axis + 1 :]:
                raise RuleError(
                    f"leaves to be joined on axis {self.axis} are {print_spec(first)} and {print_spec(spec)}"
                )
            if spec.dtype != first.dtype:
                raise RuleError(f"leaves to be joined are {print_spec(first)} and {print_spec(spec)}")
        found = tuple(spec.shape[axis] for spec in specs)
        if self.sizes is not None and found != self.sizes:
            raise RuleError(f"leaves to be joined have sizes {found} on axis {self.axis}, not {self.sizes}")
        return make_spec((*first.shape[:axis], sum(found), *first.shape[axis + 1 :]), first.dtype)

    def apply(self, *arrays: Array) -> Array:
        return _concatenated(arrays, self.axis)

    def regions(self, *specs: Spec) -> tuple[Region, ...]:
        axis = axis_of(self.axis, specs[0])
        ends = list(accumulate((spec.shape[axis] for spec in specs), initial=0))
        before = (slice(None),) * axis
        return tuple((*before, slice(start, stop)) for start, stop in pairwise(ends))

    def __repr__(self) -> str:
        return f"joined on axis {self.axis}"


@dataclass(frozen=True)
class TakeRange(Op):
    """A range of one axis.

    Attributes:
        axis: the axis.
        start, stop: the range.
        total: the size the axis must have.
    """

    axis: int
    start: int
    stop: int
    total: int

    moves_only = on_host = traceable = True

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        axis = axis_of(self.axis, spec)
        if spec.shape[axis] != self.total:
            raise RuleError(f"{print_spec(spec)} has not {self.total} on axis {self.axis}")
        shape = (*spec.shape[:axis], self.stop - self.start, *spec.shape[axis + 1 :])
        return make_spec(shape, spec.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        return array[self.region(array)]

    def region(self, spec: Spec) -> Region:
        return (*(slice(None),) * (self.axis % len(spec.shape)), slice(self.start, self.stop))

    def __repr__(self) -> str:
        return f"{self.start}:{self.stop} of axis {self.axis}"


_AT_ONCE = 64  # arrays in one call of XLA, whose time to compile grows with their number squared


def _concatenated(arrays: Sequence[Array], axis: int) -> Array:
    if not any(isinstance(array, jax.Array) for array in arrays):
        return np.concatenate(arrays, axis=axis)
    if all(_lies_with_numpy(array) for array in arrays):
        return jnp.asarray(np.concatenate(arrays, axis=axis))  # thousands of them in a fraction of the time
    while len(arrays) > 1:
        groups = [arrays[start : start + _AT_ONCE] for start in range(0, len(arrays), _AT_ONCE)]
        arrays = [jnp.concatenate(group, axis=axis) for group in groups]
    return arrays[0]


def _lies_with_numpy(array: Array) -> bool:
    """Whether NumPy can look at the array where it lies, without a copy."""
    if not isinstance(array, jax.Array):
        return True
    return (
        not isinstance(array, jax.core.Tracer)
        and not is_key(array.dtype)
        and len(array.devices()) == 1
        and next(iter(array.devices())).platform == "cpu"
        and not array.committed
    )


def axis_of(axis: int, spec: Spec) -> int:
    """``axis`` counted from the front.

    Raises:
        RuleError: the array has no such axis.
    """
    rank = len(spec.shape)
    if not -rank <= axis < rank:
        raise RuleError(f"{print_spec(spec)} has no axis {axis}")
    return axis % rank
