"""Ops that change the values: ``Cast`` and ``Apply``."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from treeload._errors import RuleError
from treeload._leaves.casts import can_cast
from treeload._leaves.spec import Spec, is_key, is_numeric, make_spec, print_spec
from treeload._ops.op import Array, Op, says_itself


@dataclass(frozen=True, init=False)
class Cast(Op):
    """Another dtype, asked for by name: the policy's ``casting`` is not consulted for it.

    So it casts as ``casting="unsafe"`` does, also values that overflow the dtype.

    Examples:
        >>> import jax, numpy as np
        >>> Cast("bfloat16").infer(jax.ShapeDtypeStruct((2,), np.float32)).dtype
        dtype(bfloat16)

    Raises:
        RuleError: an unknown dtype, or a leaf of PRNG keys.
    """

    dtype: np.dtype[Any]

    moves_only = elementwise = on_host = True

    def __init__(self, dtype: Any) -> None:
        try:
            given = jnp.dtype(dtype)
        except TypeError as error:
            raise RuleError(f"Cast takes a dtype, not {dtype!r}") from error
        if dtype is None or not is_numeric(given):  # NumPy reads None as float64
            raise RuleError(f"Cast takes a dtype that JAX has, not {given}")
        object.__setattr__(self, "dtype", given)

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        if is_key(spec.dtype):
            raise RuleError(f"{self} cannot be applied to PRNG keys, {print_spec(spec)}")
        return make_spec(spec.shape, self.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        if isinstance(array, jax.Array) and jax.dtypes.canonicalize_dtype(self.dtype) != self.dtype:
            array = np.asarray(array)  # JAX would make 32 bits of 64 without a word
        if not isinstance(array, jax.Array) and not np.can_cast(array.dtype, self.dtype, "unsafe"):
            array = array.astype(np.float32)  # NumPy has no direct way between some of the smallest dtypes
        with np.errstate(over="ignore", invalid="ignore"):  # asked for by name
            return array.astype(self.dtype)

    def inverse(self, spec: Spec | None = None) -> Op | None:
        # Only what was made wider comes back bit for bit. NumPy alone calls float8 -> float4 safe as well.
        if spec is None or not can_cast(spec.dtype, self.dtype, "safe"):
            return None
        real_to_complex = self.dtype.kind == "c" and spec.dtype.kind != "c"
        wider = self.dtype.itemsize > spec.dtype.itemsize and not real_to_complex
        return Cast(spec.dtype) if wider or self.dtype == spec.dtype else None

    def __repr__(self) -> str:
        return f"Cast({str(self.dtype)!r})"


@dataclass(frozen=True, init=False)
class Apply(Op):
    """Any JAX-traceable function of one array; of several as the first op of a rule of a list of leaves.

    ``Rename([...], name, Apply(fn))``, ``Copy([...], name, Apply(fn))`` and ``Tie(name, [...], Apply(fn))``
    give it one array for each pattern of the list, in its order. Everywhere else it has one: a ``Stack`` or a
    ``Concat`` applies it to each leaf by itself.

    Args:
        fn: the function of ``jax.Array``s. At plan time ``jax.eval_shape`` traces it, which tells the
            result's shape and dtype; at load it runs op by op, with ``jax.enable_x64`` where a leaf has 64
            bits.
        inverse: the function that undoes ``fn`` where that takes one array, for exports; that it does so is
            not checked.

    Examples:
        >>> import jax, numpy as np
        >>> Apply(lambda x: x.sum(0)).infer(jax.ShapeDtypeStruct((2, 3), np.float32)).shape
        (3,)

    Raises:
        RuleError: something that cannot be called. A function that cannot be traced with the leaves' specs,
            or gives no single array, is a ``rule`` finding of the plan.
    """

    fn: Callable[..., Array]
    undo: Callable[..., Array] | None

    takes_several = True

    def __init__(self, fn: Callable[..., Array], inverse: Callable[..., Array] | None = None) -> None:
        if not callable(fn) or not (inverse is None or callable(inverse)):
            raise RuleError(f"Apply takes functions, not {fn!r} and {inverse!r}")
        object.__setattr__(self, "fn", fn)
        object.__setattr__(self, "undo", inverse)

    def infer(self, *specs: Spec) -> Spec:
        try:
            with jax.enable_x64(True) if _is_wide(*specs) else contextlib.nullcontext():
                result = jax.eval_shape(self.fn, *(make_spec(spec.shape, spec.dtype) for spec in specs))
        except Exception as error:
            given = ", ".join(map(print_spec, specs))
            raise RuleError(f"{self} fails for {given}: {type(error).__name__}: {error}") from error
        if not isinstance(result, jax.ShapeDtypeStruct):
            raise RuleError(f"{self} gives a {type(result).__name__}, not one array")
        return make_spec(result.shape, result.dtype)

    def apply(self, *arrays: Array) -> Array:
        if not _is_wide(*arrays):
            return self.fn(*map(jnp.asarray, arrays))
        with jax.enable_x64(True):
            return np.asarray(self.fn(*map(jnp.asarray, arrays)))

    def inverse(self, spec: Spec | None = None) -> Op | None:
        return None if self.undo is None else Apply(self.undo, self.fn)

    def __repr__(self) -> str:
        return f"Apply({_called(self.fn)})"


def _called(fn: Any) -> str:
    """What a function is called; never by its address, so that reports and locks are the same each time."""
    if isinstance(fn, functools.partial):
        return f"partial({_called(fn.func)})"
    return str(getattr(fn, "__name__", repr(fn) if says_itself(fn) else type(fn).__name__))


def _is_wide(*values: Any) -> bool:
    """Whether JAX, as it is set up, would make 32 bits of 64 of any of them without a word."""
    return any(jax.dtypes.canonicalize_dtype(v.dtype, allow_extended_dtype=True) != v.dtype for v in values)
