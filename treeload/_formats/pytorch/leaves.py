"""What a pickle describes, as named leaves.

Owns the walk over dicts and lists, what becomes of what is no tensor, and whether each tensor lies in its
storage. Names are the keys on the way; at which separator they are cut is the source's to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treeload._files.open import brief
from treeload._files.scattered import spread
from treeload._formats.pytorch.described import Keyed, Storage, Tensor
from treeload._naming.bounds import MOST_KEYS
from treeload._naming.name import Keys, print_name

_MOST_LEAVES = 1 << 20


_MOST_NODES = 1 << 21  # that are walked over: what is shared counts each time


_MOST_REPEATED = 64 << 20  # bytes of a view that shows elements of its storage more than once


@dataclass(frozen=True)
class Leaves:
    """What one file holds, by the keys as they are in it.

    Attributes:
        tensors: its tensors; a storage by itself is one of all its elements.
        numbers: Python's numbers and NumPy's.
        absent: where None is.
        statics: all else: texts, bytes, dtypes, devices, sets.
    """

    tensors: dict[Keys, Tensor] = field(default_factory=dict)
    numbers: dict[Keys, Any] = field(default_factory=dict)
    absent: set[Keys] = field(default_factory=set)
    statics: set[Keys] = field(default_factory=set)

    def names(self) -> Iterator[Keys]:
        """Of everything that has one."""
        yield from self.tensors
        yield from self.numbers
        yield from self.absent
        yield from self.statics


def leaves_of(tree: Any) -> Leaves:
    """The leaves of what a pickle describes.

    Raises:
        ValueError: names that are none, twice, too deep or too many; a tensor that is not in its storage.
    """
    found = Leaves()
    seen: set[Keys] = set()
    for keys, value in _walk(tree):
        if keys in seen:
            raise ValueError(f"it has two leaves of the name {print_name(keys)!r}")
        seen.add(keys)
        if len(seen) > _MOST_LEAVES:
            raise ValueError(f"it has more than {_MOST_LEAVES:,} leaves")
        if type(value) is Storage:
            value = Tensor(value, value.dtype, 0, (value.size // value.dtype.itemsize,), (1,))
        if type(value) is Tensor:
            _check(value, keys)
            found.tensors[keys] = value
        elif value is None:
            found.absent.add(keys)
        elif type(value) in (bool, float) or isinstance(value, np.generic) or _fits(value):
            found.numbers[keys] = value
        else:
            found.statics.add(keys)
    return found


def _fits(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 64


def _walk(tree: Any) -> Iterator[tuple[Keys, Any]]:
    """Every leaf and its keys, in the file's order. Without recursion: what it says may refer to itself."""
    ways: list[Iterator[tuple[Keys, Any]]] = [iter([((), tree)])]
    left = _MOST_NODES
    while ways:
        step = next(ways[-1], None)
        if step is None:
            ways.pop()
            continue
        left -= 1
        if left < 0:
            raise ValueError(f"it has more than {_MOST_NODES:,} values")
        keys, value = step
        if len(keys) > MOST_KEYS:
            raise ValueError(f"it is nested more than {MOST_KEYS} levels deep, or within itself")
        if type(value) is Keyed:
            ways.append(_items(keys, value))
        elif type(value) in (list, tuple):
            ways.append(_elements(keys, value))
        else:
            yield keys, value


def _items(keys: Keys, value: Keyed) -> Iterator[tuple[Keys, Any]]:
    for key, child in zip(value.keys, value.values, strict=True):
        yield (*keys, _key(key, keys)), child


def _elements(keys: Keys, value: Any) -> Iterator[tuple[Keys, Any]]:
    for index, child in enumerate(value):
        yield (*keys, str(index)), child


def _key(key: Any, above: Keys) -> str:
    if type(key) is str:
        if not key.isascii() and any("\ud800" <= character <= "\udfff" for character in key):
            raise ValueError(f"its key {brief(key)} is no Unicode text")
        return key
    if key is None or type(key) in (int, float, bool) or isinstance(key, np.generic):
        return str(key)
    raise ValueError(f"it has a key at {print_name(above)!r} that is neither text nor a number")


def _check(tensor: Tensor, keys: Keys) -> None:
    """Nothing, where all elements of a tensor lie in its storage."""
    itemsize = tensor.dtype.itemsize
    what = f"its tensor {print_name(keys)!r}"
    if math.prod(size or 1 for size in tensor.shape) * itemsize > 2**63 - 1:
        raise ValueError(f"{what}, of shape {list(tensor.shape)}, is larger than any")
    count = tensor.storage.size // itemsize
    if tensor.offset + spread(tensor.shape, tensor.strides) > count:
        raise ValueError(
            f"{what}, of shape {list(tensor.shape)} with strides {list(tensor.strides)} from element "
            f"{tensor.offset:,} on, reaches out of its storage of {count:,}"
        )
    size = math.prod(tensor.shape) * itemsize
    if size > max(tensor.storage.size, _MOST_REPEATED):
        raise ValueError(
            f"{what}, of shape {list(tensor.shape)}, shows the {tensor.storage.size:,} bytes of its storage "
            f"again and again, as {size:,}"
        )
