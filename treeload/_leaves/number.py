"""A Python number as the 0-d array that it loads as.

Owns ``Number``, by which a tree in memory shows its numbers to the matcher.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treeload._leaves.spec import spec_of


class Number:
    """A Python number that looks like the 0-d array it loads as.

    An integer that 64 bits do not hold looks like a float: only a float has room for it.
    """

    __slots__ = ("dtype", "value")
    shape = ()

    def __init__(self, value: bool | int | float | complex) -> None:
        self.value = value
        self.dtype = spec_of(value).dtype
        if type(value) is int and not -(1 << 63) <= value < 1 << 63:
            self.dtype = np.dtype("uint64" if 0 < value < 1 << 64 else "float64")

    def array(self) -> np.ndarray[Any, Any]:
        try:
            return np.asarray(self.value, self.dtype)
        except OverflowError:
            return np.asarray(self.value, object)  # beyond every float: there is no leaf that takes it


def number_of(value: Any) -> Any:
    """The Python number behind a value of ``shaped()``, or None where it is an array."""
    return value.value if isinstance(value, Number) else None
