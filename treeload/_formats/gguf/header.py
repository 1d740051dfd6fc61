"""The header of a GGUF file, parsed as a trust boundary: what it claims is checked before it is used.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: a magic number, a version, two counts, that many
keys with values of a type each, that many tensors with name, extents, type and place, then the data. The
library's own reader makes an object of every token of a vocabulary, maps a file into memory and believes
every count.

Extents are stored with the one that changes fastest first; here they are turned round, as NumPy has them.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from treeload._files.open import File, brief, opened
from treeload._files.stream import Stream
from treeload._naming.bounds import MOST_CHARACTERS

MAGIC = b"GGUF"


PLAIN: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {
        0: np.dtype("<f4"),
        1: np.dtype("<f2"),
        24: np.dtype("<i1"),
        25: np.dtype("<i2"),
        26: np.dtype("<i4"),
        27: np.dtype("<i8"),
        28: np.dtype("<f8"),
        30: np.dtype(ml_dtypes.bfloat16),
    }
)
"""The types of tensors that are arrays as they lie there; all others are quantised."""


_VERSIONS = (2, 3)


_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


_STRING, _ARRAY = 8, 9


_SIZED = {**{code: struct.calcsize(form) for code, form in _SCALARS.items()}, _STRING: 8, _ARRAY: 12}
"""How many bytes a value takes at least."""


_KEPT = 1024  # elements of an array, and characters of a text times 64, that are kept


_MOST_VALUES = 1 << 21  # texts and arrays within arrays: the largest vocabularies have 300,000


_DEEPEST = 4  # arrays in arrays


_MOST_DIMENSIONS = 64  # NumPy's limit


_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a file says of one tensor: its shape as NumPy has it, its type, and its place in the data."""

    shape: tuple[int, ...]
    code: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says. ``data`` is where the tensors' bytes begin; offsets count from there."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    data: int
    alignment: int


def read_header(file: File) -> Header:
    """What ``file`` says of itself; none of its tensors is read.

    Raises:
        ValueError: it is not what the format says.
    """
    with opened(file) as handle, io.BufferedReader(Stream(handle, 0, file.size), 1 << 17) as stream:
        return _Parser(stream, file.size).header()


@dataclass(slots=True)
class _Parser:
    """Reads a header from front to back. Every size is checked against what is left."""

    stream: BinaryIO
    size: int
    values: int = field(default=0)

    def header(self) -> Header:
        if self.bytes(4) != MAGIC:
            raise ValueError("it does not begin with 'GGUF'")
        version = self.number("<I")
        if version not in _VERSIONS:
            big = version in (each << 24 for each in _VERSIONS)
            raise ValueError(
                "it was written for a big-endian machine" if big else f"it is of version {version:,}"
            )
        tensors, keys = self.number("<Q"), self.number("<Q")
        self.check(13 * keys + 24 * tensors)  # what they take at least
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self.text(MOST_CHARACTERS)
            if key in metadata:
                raise ValueError(f"the key {brief(key)} is there twice")
            metadata[key] = self.value(self.number("<I"), 0)
        found: dict[str, Tensor] = {}
        for _ in range(tensors):
            name = self.text(MOST_CHARACTERS)
            if name in found:
                raise ValueError(f"the tensor {brief(name)} is there twice")
            found[name] = self.tensor(name)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise ValueError(f"its alignment {brief(str(alignment))} is no power of two")
        data = -(-self.stream.tell() // alignment) * alignment
        return Header(MappingProxyType(metadata), MappingProxyType(found), data, alignment)

    def tensor(self, name: str) -> Tensor:
        dimensions = self.number("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"the tensor {brief(name)} has {dimensions:,} dimensions")
        shape = tuple(self.number("<Q") for _ in range(dimensions))[::-1]
        # Python's integers do not overflow, NumPy's do: also where another axis is 0.
        if math.prod(extent or 1 for extent in shape) * 8 > _MOST:
            raise ValueError(
                f"the tensor {brief(name)} has a shape that is larger than any array, {list(shape)}"
            )
        return Tensor(shape, self.number("<I"), self.number("<Q"))

    def value(self, code: int, depth: int) -> Any:
        """One value of the metadata; of a long one, what it is in words."""
        if code in _SCALARS:
            return self.number(_SCALARS[code])
        if code == _STRING:
            return self.text(64 * _KEPT)
        if code != _ARRAY:
            raise ValueError(f"a value of type {code:,}, which the format has not")
        inner, count = self.number("<I"), self.number("<Q")
        if inner not in _SIZED or depth == _DEEPEST:
            raise ValueError(f"an array of type {inner:,} in {depth} others")
        self.check(count * _SIZED[inner])
        if inner in _SCALARS and count > _KEPT:
            self.stream.seek(count * _SIZED[inner], io.SEEK_CUR)
            return f"{count:,} numbers"
        if inner not in _SCALARS:
            self.values += count
            if self.values > _MOST_VALUES:
                raise ValueError(f"its metadata holds more than {_MOST_VALUES:,} texts and lists")
        kept = [self.value(inner, depth + 1) for _ in range(min(count, _KEPT))]
        if count <= _KEPT:
            return kept
        for _ in range(count - _KEPT):
            self.value(inner, depth + 1)
        return f"{count:,} {'texts' if inner == _STRING else 'lists'}"

    def text(self, most: int) -> str:
        """A text of up to ``most`` bytes; of a longer one, how long it is."""
        length = self.number("<Q")
        self.check(length)
        if length > most:
            if most <= MOST_CHARACTERS:
                raise ValueError(f"a name of {length:,} bytes: at most {most:,} are read")
            self.stream.seek(length, io.SEEK_CUR)
            return f"a text of {length:,} bytes"
        try:
            return self.bytes(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"a text that is none: {error.object[:60]!r}") from None

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]

    def bytes(self, count: int) -> bytes:
        self.check(count)
        read = self.stream.read(count)
        if len(read) < count:
            raise ValueError("it was cut short while it was read")
        return read

    def check(self, count: int) -> None:
        if self.stream.tell() + count > self.size:
            raise ValueError(f"it ends at byte {self.size:,}, in the middle of its header")
