"""Ops that change how much there is: vocabulary rows, position embeddings.

Owns ``Pad``, ``Slice`` and ``Resize``. They are for the few leaves whose size is a matter of choice; where
sizes differ by mistake, that is a finding and no op.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from treeload._errors import RuleError
from treeload._leaves.casts import cast_loses_kind, overflows
from treeload._leaves.spec import Spec, is_key, make_spec, print_spec
from treeload._ops.op import Array, Op, integers
from treeload._ops.several import axis_of

Grid = tuple[int, ...]


@dataclass(frozen=True)
class Pad(Op):
    """More along one axis: what is there comes first, then the filling. A vocabulary made larger.

    Args:
        size: the size of the result along ``axis``.
        axis: the axis.
        fill: a number for the new rows, or ``"destination"`` for the rows that the destination has
            there; then it is the last op of its rule, and the destination must be concrete.

    Examples:
        >>> import jax, numpy as np
        >>> Pad(5).infer(jax.ShapeDtypeStruct((3, 2), np.float32)).shape
        (5, 2)

    Raises:
        RuleError: the leaf is larger than ``size`` already.
    """

    size: int
    axis: int = 0
    fill: float | Literal["destination"] = 0

    on_host = adds = True

    def __post_init__(self) -> None:
        integers((self.size, self.axis), "Pad")
        if self.fill != "destination" and not isinstance(self.fill, (bool, int, float, complex, np.generic)):
            raise RuleError(f"Pad(fill=...) is a number or 'destination', not {self.fill!r}")

    @property
    def onto_destination(self) -> bool:
        """Whether the new rows are the destination's own."""
        return self.fill == "destination"

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        axis = axis_of(self.axis, spec)
        if spec.shape[axis] > self.size:
            raise RuleError(
                f"{self!r} makes {print_spec(spec)} no larger; Slice({self.size}, axis={self.axis}) cuts it"
            )
        if is_key(spec.dtype):
            raise RuleError(f"{self!r} cannot be applied to PRNG keys, {print_spec(spec)}")
        if not isinstance(self.fill, str) and not _can_hold(spec.dtype, self.fill):
            raise RuleError(f"{self!r}: {print_spec(spec)} cannot hold {self.fill!r}")
        return make_spec((*spec.shape[:axis], self.size, *spec.shape[axis + 1 :]), spec.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        assert not self.onto_destination  # the executor calls ``apply_onto``
        axis = self.axis % array.ndim
        widths = [(0, self.size - array.shape[axis] if each == axis else 0) for each in range(array.ndim)]
        xp: Any = np if isinstance(array, np.ndarray) else jnp
        return xp.pad(array, widths, constant_values=np.asarray(self.fill).astype(array.dtype))

    def apply_onto(self, array: Array, destination: Array) -> Array:
        """The destination's array with ``array`` in its first rows; on the host."""
        result = np.array(destination).astype(array.dtype)
        axis = self.axis % array.ndim
        result[(*(slice(None),) * axis, slice(array.shape[axis]))] = np.asarray(array)
        return result

    def inverse(self, spec: Spec | None = None) -> Op | None:
        return None if spec is None else Slice(spec.shape[axis_of(self.axis, spec)], axis=self.axis)

    def __repr__(self) -> str:
        axis = "" if self.axis == 0 else f", axis={self.axis}"
        fill = "" if self.fill == 0 else f", fill={self.fill!r}"
        return f"Pad({self.size}{axis}{fill})"


def _can_hold(dtype: Any, fill: float) -> bool:
    given = np.asarray(fill)
    if jnp.issubdtype(dtype, jnp.inexact):
        return not cast_loses_kind(given.dtype, dtype) and not overflows(given.item(), dtype)
    with np.errstate(invalid="ignore"):
        return given.dtype.kind != "c" and bool(given.astype(dtype) == given)


@dataclass(frozen=True, init=False)
class Slice(Op):
    """A range along one axis, as ``x[start:stop]``; ``Slice(stop)`` is the first ``stop``.

    It loses what is cut off, so it has no inverse.

    Examples:
        >>> import jax, numpy as np
        >>> Slice(2).infer(jax.ShapeDtypeStruct((3, 2), np.float32)).shape
        (2, 2)

    Raises:
        RuleError: the leaf is smaller than ``stop``, or nothing would be left.
    """

    start: int
    stop: int
    axis: int

    moves_only = on_host = traceable = True

    def __init__(self, start: int, stop: int | None = None, *, axis: int = 0) -> None:
        if stop is None:
            start, stop = 0, start
        integers((start, stop, axis), "Slice")
        if not 0 <= start < stop:
            raise RuleError(f"Slice({start}, {stop}) holds nothing; bounds are counted from the front")
        for name, value in (("start", start), ("stop", stop), ("axis", axis)):
            object.__setattr__(self, name, value)

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        axis = axis_of(self.axis, spec)
        if spec.shape[axis] < self.stop:
            raise RuleError(f"{self!r} asks for more than {print_spec(spec)} has")
        return make_spec((*spec.shape[:axis], self.stop - self.start, *spec.shape[axis + 1 :]), spec.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        return array[(*(slice(None),) * (self.axis % array.ndim), slice(self.start, self.stop))]

    def __repr__(self) -> str:
        start = "" if self.start == 0 else f"{self.start}, "
        axis = "" if self.axis == 0 else f", axis={self.axis}"
        return f"Slice({start}{self.stop}{axis})"


@dataclass(frozen=True)
class Resize(Op):
    """Position embeddings for another number of positions, interpolated by ``jax.image.resize``.

    The positions may be those of a grid (a ViT's patches): then they are interpolated in two
    dimensions. The first ``keep`` (class tokens) are not positions of the grid and stay as they are.

    Args:
        size: the number of positions of the result, kept ones included.
        axis: the axis of the positions.
        keep: how many of the first positions stay as they are.
        grid: ``"square"`` for square grids, ``None`` for a line of positions, or a pair of grid
            shapes, the source's and the result's: ``((14, 14), (24, 18))``.
        method: as in ``jax.image.resize``.
        antialias: as in ``jax.image.resize``.

    Examples:
        >>> import jax, numpy as np
        >>> Resize(577, axis=1, keep=1).infer(jax.ShapeDtypeStruct((1, 197, 8), np.float32)).shape
        (1, 577, 8)

    Raises:
        RuleError: the positions are no square grid, or not of the grids given.
    """

    size: int
    axis: int = -2
    keep: int = 0
    grid: Literal["square"] | None | tuple[Grid, Grid] = "square"
    method: str = "bicubic"
    antialias: bool = True

    def __post_init__(self) -> None:
        integers((self.size, self.axis, self.keep), "Resize")
        if not 0 <= self.keep < self.size:
            raise RuleError(f"Resize({self.size}, keep={self.keep}): some positions must be left to resize")
        if self.grid is not None and self.grid != "square":
            try:
                old, new = (integers(tuple(shape), "Resize(grid=...)") for shape in self.grid)
            except (TypeError, ValueError) as error:
                raise RuleError(
                    f"Resize(grid=...) is 'square', None or two grid shapes, not {self.grid!r}"
                ) from error
            object.__setattr__(self, "grid", (old, new))
        try:
            jax.image.ResizeMethod.from_string(self.method)
        except ValueError as error:
            raise RuleError(f"Resize(method=...): {error}") from error

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        axis = axis_of(self.axis, spec)
        if not jnp.issubdtype(spec.dtype, jnp.floating):
            raise RuleError(f"{self!r} interpolates floats, the leaf is {print_spec(spec)}")
        self._grids(spec.shape[axis])
        return make_spec((*spec.shape[:axis], self.size, *spec.shape[axis + 1 :]), spec.dtype)

    def _grids(self, positions: int) -> tuple[Grid, Grid]:
        """The grids of the source and of the result."""
        old, new = positions - self.keep, self.size - self.keep
        if self.grid is None:
            return (old,), (new,)
        if self.grid == "square":
            sides = math.isqrt(max(old, 0)), math.isqrt(new)
            if old < 1 or sides[0] ** 2 != old or sides[1] ** 2 != new:
                raise RuleError(
                    f"{self!r}: {old} and {new} positions are not both square grids; give "
                    "grid=((rows, columns), (rows, columns)), or grid=None for a line of positions"
                )
            return (sides[0],) * 2, (sides[1],) * 2
        first, second = self.grid
        if math.prod(first) != old or math.prod(second) != new or len(first) != len(second):
            raise RuleError(f"{self!r}: the grids do not have {old} and {new} positions")
        return first, second

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        axis = self.axis % array.ndim
        old, new = self._grids(array.shape[axis])
        xp: Any = np if isinstance(array, np.ndarray) else jnp
        x = xp.moveaxis(array, axis, 0)
        kept, rest = x[: self.keep], x[self.keep :]
        # Half precision would be interpolated in half precision: the rounding is done once, at the end.
        wide = jnp.asarray(rest, jnp.float32 if x.dtype.itemsize < 4 else None).reshape((*old, *x.shape[1:]))
        made = jax.image.resize(wide, (*new, *x.shape[1:]), self.method, antialias=self.antialias)
        made = xp.asarray(made).reshape((-1, *x.shape[1:])).astype(x.dtype)
        return xp.moveaxis(xp.concatenate([kept, made]), 0, axis)

    def __repr__(self) -> str:
        parts = [str(self.size), f"axis={self.axis}"]
        parts += [f"keep={self.keep}"] if self.keep else []
        parts += [] if self.grid == "square" else [f"grid={self.grid}"]
        parts += [] if self.method == "bicubic" else [f"method={self.method!r}"]
        parts += [] if self.antialias else ["antialias=False"]
        return f"Resize({', '.join(parts)})"
