"""Ops that only move elements: ``Transpose`` and ``Reshape``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from treeload._errors import RuleError
from treeload._leaves.spec import Spec, make_spec, print_spec
from treeload._ops.op import Array, Op, integers


@dataclass(frozen=True, init=False)
class Transpose(Op):
    """Axes in another order, as ``numpy.transpose``; without axes, reversed.

    ``Transpose(1, 0)`` and ``Transpose((1, 0))`` are the same.

    Examples:
        >>> import jax, numpy as np
        >>> Transpose().infer(jax.ShapeDtypeStruct((2, 3), np.float32)).shape
        (3, 2)

    Raises:
        RuleError: axes that are no permutation, or another number of axes than the array has.
    """

    axes: tuple[int, ...] | None

    moves_only = on_host = traceable = True

    def __init__(self, *axes: int | tuple[int, ...]) -> None:
        if len(axes) == 1 and axes[0] is None:
            axes = ()
        given = integers(axes, "Transpose") if axes else None
        if given is not None:
            rank = len(given)
            if sorted(axis + rank if axis < 0 else axis for axis in given) != list(range(rank)):
                raise RuleError(f"Transpose{given} is no permutation of {rank} axes")
        object.__setattr__(self, "axes", given)

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        if self.axes is None:
            return make_spec(spec.shape[::-1], spec.dtype)
        if len(self.axes) != len(spec.shape):
            raise RuleError(f"{self} is for {len(self.axes)} axes, the leaf is {print_spec(spec)}")
        return make_spec(tuple(spec.shape[axis] for axis in self.axes), spec.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        return array.transpose(self.axes) if self.axes is not None else array.transpose()

    def inverse(self, spec: Spec | None = None) -> Op | None:
        if self.axes is None:
            return self
        rank = len(self.axes)
        positive = [axis % rank for axis in self.axes]
        return Transpose(tuple(positive.index(axis) for axis in range(rank)))

    def __repr__(self) -> str:
        return "Transpose(())" if self.axes == () else f"Transpose({', '.join(map(str, self.axes or ()))})"


@dataclass(frozen=True, init=False)
class Reshape(Op):
    """The same elements in C order under another shape; one size may be -1.

    ``Reshape(2, 3)`` and ``Reshape((2, 3))`` are the same; ``Reshape(())`` makes a scalar. It knows
    no way back, since it does not know the shape it came from; see ``Reshape(..., source=...)``.

    Args:
        shape: the shape of the result.
        source: the shape the leaf must have, which makes the op invertible.

    Examples:
        >>> import jax, numpy as np
        >>> Reshape(2, -1).infer(jax.ShapeDtypeStruct((6,), np.float32)).shape
        (2, 3)

    Raises:
        RuleError: sizes below -1, more than one -1, or another number of elements.
    """

    shape: tuple[int, ...]
    source: tuple[int, ...] | None

    moves_only = on_host = traceable = True

    def __init__(self, *shape: int | tuple[int, ...], source: tuple[int, ...] | None = None) -> None:
        given = integers(shape, "Reshape")
        if any(size < -1 for size in given) or given.count(-1) > 1:
            raise RuleError(f"Reshape{given}: sizes are 0 or more, and one at most is -1")
        object.__setattr__(self, "shape", given)
        object.__setattr__(self, "source", None if source is None else integers(tuple(source), "source"))

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        if self.source is not None and spec.shape != self.source:
            raise RuleError(f"{self} is for {list(self.source)}, the leaf is {print_spec(spec)}")
        total, known = math.prod(spec.shape), math.prod(size for size in self.shape if size != -1)
        if -1 in self.shape:
            fits = known > 0 and total % known == 0
            shape = tuple(total // known if size == -1 else size for size in self.shape) if fits else ()
        else:
            fits, shape = known == total, self.shape
        if not fits:
            raise RuleError(f"{self} does not fit the {total} elements of {print_spec(spec)}")
        return make_spec(shape, spec.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        return array.reshape(self.shape)

    def inverse(self, spec: Spec | None = None) -> Op | None:
        if spec is not None:
            return Reshape(spec.shape)
        if self.source is None:
            return None
        return Reshape(self.source, source=None if -1 in self.shape else self.shape)

    def __repr__(self) -> str:
        sizes = ", ".join(map(str, self.shape)) or "()"
        return f"Reshape({sizes})" if self.source is None else f"Reshape({sizes}, source={self.source})"
