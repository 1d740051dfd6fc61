"""The header of an array as NumPy's ``.npy`` has it: what lies behind it, and in which order.

Owns its parsing, of which nothing is unpickled. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import tokenize
from dataclasses import dataclass
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

MAGIC = b"\x93NUMPY"


MOST_HEADER = 1 << 14
"""Bytes of a header that is read; some hundred are usual."""


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a header says.

    Attributes:
        shape: the array's.
        dtype: the array's, in the order of bytes in which it lies there.
        by_column: the first index runs fastest (Fortran's order), where that makes a difference.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_column: bool


_READ = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


_OTHERS = (KeyError, EOFError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError)
"""What NumPy's parser raises besides."""


def read_npy_header(stream: BinaryIO) -> NpyHeader:
    """The header that begins where ``stream`` is, which is left behind it.

    NumPy writes dtypes that it does not know as bare bytes: two of them are bfloat16, the one in use.

    Raises:
        ValueError: it is none, or says what cannot be.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version == (3, 0):
            raise ValueError("its dtype has names, so that it is no number's")
        shape, by_column, dtype = _READ[version](stream, max_header_size=MOST_HEADER)
    except (
        KeyError,
        EOFError,
        SyntaxError,
        TypeError,
        RecursionError,
        MemoryError,
        tokenize.TokenError,
    ) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"an array of shape {shape!r}")
    if math.prod(size or 1 for size in shape) * max(dtype.itemsize, 1) > 2**63 - 1 or len(shape) > 64:
        raise ValueError(f"an array of shape {shape!r} is larger than any")
    if dtype == np.dtype("V2"):
        dtype = np.dtype(ml_dtypes.bfloat16)
    return NpyHeader(tuple(shape), dtype, bool(by_column) and sum(size != 1 for size in shape) > 1)
