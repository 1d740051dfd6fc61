"""Msgpack with arrays in it, as Flax and early Orbax write it: its values, and where its arrays lie.

Owns a parser that walks such a file and remembers where its arrays lie, so that specs are known without
reading arrays, and each array is read alone. ``flax.serialization`` reads the whole file into memory at
once and believes every size in it. Nothing is executed, no size is allocated before it is checked. What the
values are called is decided in ``msgpack_tree``.

The format (https://github.com/msgpack/msgpack/blob/master/spec.md) with Flax's three extension types:
1 is an array and 3 a NumPy scalar, both ``[shape, dtype name, bytes]`` in msgpack again; 2 is a complex
number, ``[real, imaginary]``; and with Orbax's fourth, a tuple. Arrays above 1 GiB are dictionaries of flat
pieces.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from treeload._files.beginning import Beginning
from treeload._files.open import File, opened, read_bytes
from treeload._files.place import Handle
from treeload._leaves.spec import is_numeric

_SIZE_BYTES = {0xDE: 2, 0xDF: 4}  # of maps of more than 15 keys


_TEXT_SIZE_BYTES = {0xD9: 1, 0xDA: 2, 0xDB: 4}  # of texts of more than 31 bytes


_DEEPEST = 200


_MOST_TEXT_BYTES = 1 << 24


_BLOCK = 8192  # bytes read at a time: what lies between arrays is short


def begins_as_a_map(beginning: Beginning | None) -> bool:
    """Whether a file's first byte begins a map of msgpack: enough beside a name that says so."""
    return beginning is not None and _map_of(beginning.first) is not None


def begins_as_a_tree(beginning: Beginning | None) -> bool:
    """Whether a file begins as a map of msgpack whose first key is a text: enough without its name."""
    key = None if beginning is None else _map_of(beginning.first)
    if not key or beginning is None or beginning.first[0] == 0x80:  # an empty map, and a pickle, begin so
        return False
    if 0xA0 <= key[0] <= 0xBF:
        start, size = 1, key[0] & 0x1F
    elif key[0] in _TEXT_SIZE_BYTES:
        start = 1 + _TEXT_SIZE_BYTES[key[0]]
        size = int.from_bytes(key[1:start], "big")
    else:
        return False
    text = key[start : start + size]
    if len(text) < size:
        return beginning.size > len(beginning.first)
    return _is_text(text)


def _map_of(first: bytes) -> bytes | None:
    """What follows the size of the map that ``first`` begins; None where it begins none."""
    if not first or not (0x80 <= first[0] <= 0x8F or first[0] in _SIZE_BYTES):
        return None
    return first[1 + _SIZE_BYTES.get(first[0], 0) :]


def _is_text(text: bytes) -> bool:
    try:
        return text.decode().isprintable()
    except UnicodeDecodeError:
        return False


@dataclass(frozen=True)
class Array:
    """An array in the file: where its bytes lie, as (offset, size), in order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: tuple[tuple[int, int], ...]


class Static:
    """A value that is no leaf: bytes."""


def parse_msgpack(file: File) -> Any:
    """The value of a whole file: dicts, lists, numbers, texts, None, ``Array`` and ``Static``.

    Raises:
        ValueError: it is not, to its last byte, what Flax or Orbax writes; whoever calls adds the file.
        SourceError: the file has changed.
    """
    with opened(file) as handle:
        return _Parser(handle, file.size).parse()


_FIXED = {  # first byte → struct format of the value that follows
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip


_SIZED = {  # first byte → (what, struct format of the size that follows)
    0xC4: ("bin", ">B"), 0xC5: ("bin", ">H"), 0xC6: ("bin", ">I"),
    0xC7: ("ext", ">B"), 0xC8: ("ext", ">H"), 0xC9: ("ext", ">I"),
    0xD9: ("str", ">B"), 0xDA: ("str", ">H"), 0xDB: ("str", ">I"),
    0xDC: ("array", ">H"), 0xDD: ("array", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip


class _Parser:
    """Reads msgpack, and skips what arrays hold. Every size is checked against what is left."""

    def __init__(self, handle: Handle, size: int) -> None:
        self._handle, self._end = handle, size
        self._at = 0
        self._block, self._block_start = b"", 0

    def parse(self) -> Any:
        value = self._value(0)
        if self._at != self._end:
            raise ValueError(f"{self._end - self._at} bytes follow the end of the tree")
        return value

    def _value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f"its tree is deeper than {_DEEPEST} levels")
        what, value = self._head()
        if what == "value":
            return value
        if what == "map":
            return self._map(value, depth)
        if what == "array":
            self._check(value)  # each element takes a byte at least
            return [self._value(depth + 1) for _ in range(value)]
        if what == "str":
            return self._text(value)
        if what == "bin":
            self._skip(value)
            return Static()
        return self._extension(value, depth)

    def _head(self) -> tuple[str, Any]:
        """What comes next, and its value where it has one, else its size."""
        first = self._bytes(1)[0]
        if first <= 0x7F:
            return "value", first
        if first >= 0xE0:
            return "value", first - 0x100
        if first <= 0x8F:
            return "map", first & 0x0F
        if first <= 0x9F:
            return "array", first & 0x0F
        if first <= 0xBF:
            return "str", first & 0x1F
        if first in (0xC0, 0xC2, 0xC3):
            return "value", {0xC0: None, 0xC2: False, 0xC3: True}[first]
        if first in _FIXED:
            return "value", self._number(_FIXED[first])
        if first in _SIZED:
            what, form = _SIZED[first]
            return what, self._number(form)
        if 0xD4 <= first <= 0xD8:
            return "ext", 1 << (first - 0xD4)
        raise ValueError(f"byte {self._at - 1} is 0x{first:02x}, which begins no msgpack value")

    def _map(self, size: int, depth: int) -> dict[str, Any]:
        self._check(2 * size)
        result: dict[str, Any] = {}
        for _ in range(size):
            what, value = self._head()
            if what == "str":
                key = self._text(value)
            elif what == "value" and type(value) is int:
                key = str(value)
            else:
                raise ValueError(f"byte {self._at}: a key that is neither text nor a number")
            if key in result:
                raise ValueError(f"the key {key!r} is there twice")
            result[key] = self._value(depth + 1)
        return result

    def _extension(self, size: int, depth: int) -> Any:
        (code,) = struct.unpack(">b", self._bytes(1))
        self._check(size)
        end = self._at + size
        if code in (1, 3):
            value: Any = self._array()
        elif code == 2:
            parts = self._value(_DEEPEST - 1)
            if not (isinstance(parts, list) and len(parts) == 2 and all(type(p) is float for p in parts)):
                raise ValueError("a complex number that is not two floats")
            value = complex(*parts)
        elif code == 4:  # Orbax's: a tuple, as an array
            value = self._value(depth + 1)
            if not isinstance(value, list):
                raise ValueError("a tuple that is no array of values")
        else:
            raise ValueError(f"an extension of type {code}, which Flax does not write")
        if self._at != end:
            raise ValueError(f"an extension whose size ({size} bytes) is not that of what it holds")
        return value

    def _array(self) -> Array:
        what, size = self._head()
        if (what, size) != ("array", 3):
            raise ValueError("an array that is not [shape, dtype, bytes]")
        shape = self._value(_DEEPEST - 1)
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"an array of shape {shape!r}")
        what, size = self._head()
        if what not in ("str", "bin"):
            raise ValueError("an array whose dtype is no text")
        dtype = _dtype(self._text(size))
        what, size = self._head()
        if what != "bin" or size != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"an array of shape {shape} and dtype {dtype} with {size} bytes")
        offset = self._at
        self._skip(size)
        return Array(tuple(shape), dtype, ((offset, size),))

    def _text(self, size: int) -> str:
        if size > _MOST_TEXT_BYTES:
            raise ValueError(f"a text of {size} bytes")
        return self._bytes(size).decode()

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _bytes(self, size: int) -> bytes:
        self._check(size)
        start = self._at - self._block_start
        if start < 0 or start + size > len(self._block):
            self._block, self._block_start = read_bytes(self._handle, max(size, _BLOCK), self._at), self._at
            start = 0
            if len(self._block) < size:
                raise ValueError("it was cut short while it was read")
        self._at += size
        return self._block[start : start + size]

    def _skip(self, size: int) -> None:
        self._check(size)
        self._at += size

    def _check(self, size: int) -> None:
        if self._at + size > self._end:
            raise ValueError(f"it ends at byte {self._end}, in the middle of a value")


def _dtype(name: str) -> np.dtype[Any]:
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    if not is_numeric(dtype):
        raise ValueError(f"an array of dtype {name!r}")
    return dtype
