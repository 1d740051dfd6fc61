"""What is known of a leaf without reading it: specs, kinds of slots, and which casts lose what.

Owns the ``Spec`` of a value, the question "is this an array, a number, absent or static?", and
``can_cast``. Refuses to own where leaves sit in a tree (``_trees``) and what a disagreement means
(``_match``).
"""

from __future__ import annotations

import enum
import math
import warnings
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import jax
import ml_dtypes
import numpy as np

Spec: TypeAlias = jax.ShapeDtypeStruct
Casting: TypeAlias = Literal["no", "equiv", "safe", "same_kind", "unsafe"]
CASTINGS: tuple[str, ...] = get_args(Casting)


class Kind(enum.IntEnum):
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

_ML_DTYPES = frozenset(
    np.dtype(getattr(ml_dtypes, name))
    for name in dir(ml_dtypes)
    if isinstance(getattr(ml_dtypes, name), type) and issubclass(getattr(ml_dtypes, name), np.generic)
)


def kind_of_type(cls: type) -> Kind | None:
    """The kind of every instance of ``cls``, or ``None`` where it depends on the instance."""
    if issubclass(cls, (jax.Array, jax.ShapeDtypeStruct)):
        return Kind.ARRAY
    if cls is type(None):
        return Kind.ABSENT
    if cls is bool:
        return None
    if cls in _PYTHON_NUMBERS:
        return Kind.SCALAR
    if issubclass(cls, np.generic):
        return Kind.ARRAY if is_numeric(np.dtype(cls)) else Kind.STATIC
    if issubclass(cls, np.ndarray) or hasattr(cls, "__array__"):
        return None
    return Kind.STATIC


def kind_of(value: Any) -> Kind:
    """The kind of one slot's value."""
    kind = kind_of_type(type(value))
    if kind is not None:
        return kind
    if isinstance(value, bool):
        return Kind.SCALAR if value else Kind.ABSENT
    dtype = getattr(value, "dtype", None)
    if hasattr(value, "shape") and isinstance(dtype, np.dtype) and is_numeric(dtype):
        return Kind.ARRAY
    return Kind.STATIC


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


def bare(spec: Any) -> Spec:
    """``spec`` with shape and dtype alone, no sharding."""
    return make_spec(tuple(spec.shape), spec.dtype)


@lru_cache(maxsize=4096)
def make_spec(shape: tuple[int, ...], dtype: Any) -> Spec:
    """A spec; one object for all equal leaves, since making one costs more than what is done with it."""
    return jax.ShapeDtypeStruct(shape, dtype)


def elements(spec: Any) -> int:
    """How many elements an array of this spec has."""
    return math.prod(spec.shape)


def nbytes(spec: Any) -> int:
    """How many bytes an array of this spec takes; 4-bit types and smaller count whole bytes."""
    if is_key(spec.dtype):
        data = jax.eval_shape(jax.random.key_data, bare(spec))
        return elements(data) * int(data.dtype.itemsize)
    return elements(spec) * int(spec.dtype.itemsize)


def print_spec(spec: Any) -> str:
    """A spec as reports print it.

    Examples:
        >>> print_spec(spec_of(np.zeros((3, 4), np.float32)))
        'float32[3,4]'
    """
    return f"{spec.dtype}[{','.join(map(str, spec.shape))}]"


def _rank(dtype: np.dtype[Any]) -> int:
    """Boolean 0, integer 1, real 2, complex 3: the kinds a strict load never goes down."""
    if dtype.kind == "b":
        return 0
    if jax.dtypes.issubdtype(dtype, np.integer):
        return 1
    return 3 if dtype.kind in "cW" else 2  # "W": the complex dtypes of ml_dtypes


def can_cast(source: Any, destination: Any, casting: str) -> bool:
    """Whether values of dtype ``source`` may become ``destination``: ``numpy.can_cast``, made honest.

    Short of ``"unsafe"``, float → int, complex → real and boolean → number are never allowed, also
    where ``numpy.can_cast`` says yes because a dtype of ml_dtypes is concerned. PRNG keys are cast
    to nothing but themselves.

    Examples:
        >>> can_cast(np.dtype("float32"), np.dtype("float16"), "same_kind")
        True
        >>> can_cast(np.dtype("complex64"), np.dtype(ml_dtypes.bfloat16), "same_kind")
        False
    """
    if source == destination:
        return True
    if is_key(source) or is_key(destination):
        return False
    if casting != "unsafe" and cast_loses_kind(source, destination):
        return False
    return bool(np.can_cast(source, destination, casting=casting))  # type: ignore[arg-type]  # validated by Policy


def cast_loses_kind(source: Any, destination: Any, *, exact: bool = False) -> bool:
    """Whether a cast goes from complex to real, from float to integer, or between booleans and numbers.

    ``exact``: any change of kind counts, from integer to float too.
    """
    if is_key(source) or is_key(destination):
        return bool(source != destination)
    down, up = _rank(source), _rank(destination)
    return down != up if exact or down == 0 else up < down


def overflows(number: bool | int | float | complex, dtype: Any) -> bool:
    """Whether a Python number lies outside what ``dtype`` can hold; rounding is no overflow."""
    if isinstance(number, int) and jax.dtypes.issubdtype(dtype, np.integer):
        info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]  # not annotated there
        return not int(info.min) <= number <= int(info.max)
    try:
        value = np.asarray(number if isinstance(number, complex) else float(number))
    except OverflowError:  # an int beyond every float
        return True
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        cast = value.astype(dtype)
    return bool(np.isfinite(value) and not np.isfinite(cast.astype(np.complex128)))
