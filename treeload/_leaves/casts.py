"""Which casts lose what: ``numpy.can_cast`` made honest.

Owns the question whether values of one dtype may become another, and whether one number fits. What a dtype
is, is in ``spec``.
"""

from __future__ import annotations

import warnings
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
