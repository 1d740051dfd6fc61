"""What is known of a leaf without reading it: specs, kinds of slots, and which casts lose what.

Owns the ``Spec`` of a value, the question "is this an array, a number, absent or static?", and
``can_cast``. Refuses to own where leaves sit in a tree (``_trees``) and what a disagreement means
(``_matching``).
"""

from __future__ import annotations

import enum
import functools
import math
import types
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import ml_dtypes
import numpy as np

Spec: TypeAlias = jax.ShapeDtypeStruct


class SlotKind(enum.IntEnum):
    """What a slot of a tree holds."""

    ARRAY = 0  # jax or NumPy array, NumPy scalar, or an abstract ShapeDtypeStruct
    SCALAR = 1  # a Python int, float, complex, or True
    ABSENT = 2  # None or False
    STATIC = 3  # anything else: functions, strings, configuration; never loads


_PYTHON_NUMBERS: dict[type, np.dtype[Any]] = {
    bool: np.dtype(np.bool_),
    int: np.dtype(np.int64),
    float: np.dtype(np.float64),
    complex: np.dtype(np.complex128),
}


PYTHON_DTYPES = frozenset(_PYTHON_NUMBERS.values())
"""The dtypes that NumPy gives Python's own numbers."""


_ML_DTYPES = frozenset(
    np.dtype(getattr(ml_dtypes, name))
    for name in dir(ml_dtypes)
    if isinstance(getattr(ml_dtypes, name), type) and issubclass(getattr(ml_dtypes, name), np.generic)
)


def kind_of_type(cls: type) -> SlotKind | None:
    """The kind of every instance of ``cls``, or ``None`` where it depends on the instance."""
    if issubclass(cls, (jax.Array, jax.ShapeDtypeStruct)):
        return SlotKind.ARRAY
    if cls is type(None):
        return SlotKind.ABSENT
    if cls is bool:
        return None
    if cls in _PYTHON_NUMBERS:
        return SlotKind.SCALAR
    if issubclass(cls, np.generic):
        return SlotKind.ARRAY if is_numeric(np.dtype(cls)) else SlotKind.STATIC
    if issubclass(cls, np.ndarray) or hasattr(cls, "__array__"):
        return None
    return SlotKind.STATIC


def kind_of(value: Any) -> SlotKind:
    """The kind of one slot's value."""
    kind = kind_of_type(type(value))
    if kind is not None:
        return kind
    if isinstance(value, bool):
        return SlotKind.SCALAR if value else SlotKind.ABSENT
    dtype = getattr(value, "dtype", None)
    if hasattr(value, "shape") and isinstance(dtype, np.dtype) and is_numeric(dtype):
        return SlotKind.ARRAY
    return SlotKind.STATIC


def static_words(value: Any) -> str:
    """What a slot holds that never loads, in words: ``"a str"``, ``"a function"``."""
    if isinstance(value, type):
        return "a class"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    if isinstance(value, _FUNCTIONS) or (callable(value) and hasattr(value, "__wrapped__")):
        return "a function"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether JAX can hold arrays of ``dtype``: booleans, integers, floats, complex, and ml_dtypes."""
    return dtype.kind in "biufc" or dtype in _ML_DTYPES


def is_abstract(value: Any) -> bool:
    """Whether ``value`` is a shape and dtype with no array behind it."""
    return isinstance(value, jax.ShapeDtypeStruct)


def is_key(dtype: Any) -> bool:
    """Whether ``dtype`` is that of typed PRNG keys."""
    return not isinstance(dtype, np.dtype) and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def spec_of(value: Any) -> Spec:
    """The spec of an array, a number, or a spec; a Python number has NumPy's default dtype for it.

    Examples:
        >>> spec_of(3.0)
        ShapeDtypeStruct(shape=(), dtype=float64)
    """
    if isinstance(value, jax.ShapeDtypeStruct):
        return value
    dtype = _PYTHON_NUMBERS.get(type(value))
    if dtype is not None:
        return jax.ShapeDtypeStruct((), dtype)
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=getattr(value, "sharding", None))


def without_sharding(spec: Any) -> Spec:
    """``spec`` with shape and dtype alone, no sharding."""
    return make_spec(tuple(spec.shape), spec.dtype)


@lru_cache(maxsize=4096)
def make_spec(shape: tuple[int, ...], dtype: Any, sharding: Any = None) -> Spec:
    """A spec; one object for all equal leaves, since making one costs more than what is done with it."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def elements(spec: Any) -> int:
    """How many elements an array of this spec has."""
    return math.prod(spec.shape)


def size_of(value: Any) -> int:
    """How many elements an array, a number or a spec has."""
    return math.prod(getattr(value, "shape", ()))


def nbytes(spec: Any) -> int:
    """How many bytes an array of this spec takes; 4-bit types and smaller count whole bytes."""
    if is_key(spec.dtype):
        data = jax.eval_shape(jax.random.key_data, without_sharding(spec))
        return elements(data) * int(data.dtype.itemsize)
    return elements(spec) * int(spec.dtype.itemsize)


def print_spec(spec: Any) -> str:
    """A spec as reports print it.

    Examples:
        >>> print_spec(spec_of(np.zeros((3, 4), np.float32)))
        'float32[3,4]'
    """
    return f"{spec.dtype}[{','.join(map(str, spec.shape))}]"


def in_bytes(number: int) -> str:
    """A number of bytes as reports print it: ``"86.6 MB"``."""
    text = quantity(number)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def quantity(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size * 10 or (number >= size and unit != "k"):
            return f"{number / size:.1f} {unit}"
    return f"{number:,}"
