"""Which casts lose what: ``numpy.can_cast`` made honest.

Owns the question whether values of one dtype may become another, and which of them do not fit there. What a
dtype is, is in ``spec``; whole arrays are looked through in ``values``.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import jax
import ml_dtypes
import numpy as np

from treeload._leaves.spec import is_key

Casting: TypeAlias = Literal["no", "equiv", "safe", "same_kind", "unsafe"]


CASTINGS: tuple[str, ...] = get_args(Casting)


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
    if not _rank(dtype):
        return False
    dtype = real_part(dtype)
    if isinstance(number, int) and jax.dtypes.issubdtype(dtype, np.integer):
        low, high = safe_range(dtype)
        return not low <= number <= high
    try:
        parts = [number.real, number.imag] if isinstance(number, complex) else [float(number)]
    except OverflowError:  # an int beyond every float
        return True
    return bool(overflown(np.asarray(parts, np.float64), dtype).any())


# What overflows. Complex numbers are looked at by their parts.


@lru_cache
def may_overflow(source: Any, destination: Any) -> bool:
    """Whether any finite value of dtype ``source`` overflows ``destination``."""
    if source == destination or is_key(source) or is_key(destination):
        return False
    if not (_rank(source) and _rank(destination)):  # booleans fit anywhere, and nothing else becomes one
        return False
    low, high = safe_range(real_part(source))
    safe_low, safe_high = safe_range(real_part(destination))
    return low < safe_low or high > safe_high


@lru_cache
def real_part(dtype: Any) -> Any:
    """The dtype of the parts of a complex one; of any other, itself."""
    if _rank(dtype) < 3:
        return dtype
    return np.dtype("bfloat16" if dtype.name == "bcomplex32" else f"float{dtype.itemsize * 4}")


@lru_cache
def safe_range(dtype: Any) -> tuple[float, float]:
    """The smallest and the largest finite value of a real dtype: what lies between them is only rounded."""
    if jax.dtypes.issubdtype(dtype, np.integer):
        whole = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]  # not annotated there
        return int(whole.min), int(whole.max)
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return float(info.min), float(info.max)


@lru_cache
def overflow_edge(dtype: Any) -> float:
    """The smallest magnitude that a real float dtype rounds to no finite value of its own.

    Half a step beyond its largest value: there IEEE's rounding ends, and a dtype without an infinity gives
    NaN or, which nobody would see, its largest value (``float4_e2m1fn``).
    """
    largest = safe_range(dtype)[1]
    step = 2.0 ** (math.frexp(largest)[1] - 1 - ml_dtypes.finfo(dtype).nmant)  # type: ignore[no-untyped-call]
    edge = largest + step / 2
    # Between two values rounding goes to the even one, which may be the largest itself (448 of e4m3fn).
    return (
        edge
        if _saturates(dtype) or not _is_finite(edge, dtype)
        else float(np.nextafter(np.float32(edge), np.inf))
    )


def overflown(values: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
    """Which of some real numbers overflow a real dtype; NaN and infinities stay what they are.

    ``values`` are of a dtype of NumPy's own that no comparison makes narrower: 32 bits or more.
    """
    if jax.dtypes.issubdtype(dtype, np.integer):
        low, high = safe_range(dtype)
        beyond: np.ndarray[Any, Any] = (values < low) | (values > high)
        return beyond
    found = ~_finite(values, dtype)
    if _saturates(dtype):
        edge = overflow_edge(dtype)
        found |= (values >= edge) | (values <= -edge)
    found &= np.isfinite(values)
    return found


def _finite(values: Any, dtype: Any) -> np.ndarray[Any, Any]:
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        return np.isfinite(np.asarray(values).astype(dtype).astype(np.float64))


def _is_finite(value: float, dtype: Any) -> bool:
    return bool(_finite(np.float64(value), dtype))


@lru_cache
def _saturates(dtype: Any) -> bool:
    """Whether an overflow gives the largest value."""
    return _is_finite(np.inf, dtype)
