"""What a pickle of PyTorch's may describe: tensors over storages, numbers, and the containers that hold them.

Owns these descriptions, which are data and do nothing. Lists, tuples, numbers, texts, bytes and None are
Python's own; all else that is met in a pickle is one of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Keyed:
    """A dict: its keys and values side by side, since nothing that a file brings is to be hashed.

    Attributes:
        by_attributes: it stands for an object's attributes, which are set later.
    """

    __slots__ = ("by_attributes", "keys", "values")

    def __init__(self, *, by_attributes: bool = False) -> None:
        self.keys: list[Any] = []
        self.values: list[Any] = []
        self.by_attributes = by_attributes


@dataclass(frozen=True, slots=True)
class Other:
    """What is no leaf, such as a dtype, a device or a set; ``words`` say what it is."""

    words: str


@dataclass(frozen=True, slots=True)
class ElementType:
    """A dtype of PyTorch, or that of a typed storage.

    Attributes:
        name: what PyTorch calls it, ``"torch.float32"``.
        dtype: what it is here; bytes for a storage without a type.
    """

    name: str
    dtype: np.dtype[Any]


@dataclass(slots=True)
class NumpyType:
    """A dtype of NumPy: kind and size such as ``"f8"``, and the order of bytes, which is set later."""

    code: str
    order: str = field(default="=")


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements in a file, or a part of one.

    Attributes:
        key: which run it is.
        dtype: that of the elements.
        offset: where the part begins in the run, in bytes.
        size: how many bytes it has.
    """

    key: str
    dtype: np.dtype[Any]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage: ``offset`` and ``strides`` count elements."""

    storage: Storage
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
