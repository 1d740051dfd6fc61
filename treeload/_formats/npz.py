"""NumPy's archives: ``.npz``, of ``numpy.savez`` and ``numpy.savez_compressed``, whatever they are called.

Owns what a member of such an archive is: one array (``.npy``), whose name is the member's, cut at ``/``. The
archive itself is ``_files.zip``'s to read. A plan reads the directory and the first bytes of each member.
Stored members are read as plain bytes; compressed ones are unpacked to the size that their header says and no
further. All are held against the archive's CRC-32. Nothing is unpickled: Python objects are refused.

NumPy writes dtypes that it does not know as bare bytes. Two of them are bfloat16; one may be any of the types
of 8 bits, and is refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from treeload._errors import SourceError
from treeload._files.crc import Checksum, crc32
from treeload._files.npy import MAGIC, MOST_HEADER, read_npy_header
from treeload._files.open import File, brief, look_at, opened
from treeload._files.pieces import Stored
from treeload._files.place import Handle, Place
from treeload._files.places import AnyPlace, place_of
from treeload._files.read import read_stored
from treeload._files.request import check_requests
from treeload._files.scattered import Scattered, read_scattered, row_major
from treeload._files.unpack import start_of
from treeload._files.zip import STORED, Head, Member, first_member, read_directory, read_heads
from treeload._leaves.spec import Spec, is_numeric
from treeload._naming.bounds import check_separator, joined_name_from_file
from treeload._naming.name import Keys, Name
from treeload._sources.format import Format
from treeload._sources.separated import refuse_overlaps
from treeload._sources.source import Source, as_source_error

SUFFIX = ".npz"


_ARRAY = ".npy"


_USUAL = 20 + 128
"""Bytes behind a member's name that NumPy writes before the data: zip64's sizes, and the array's header."""


_TEXTS = "SUMm"  # kinds of dtypes that are no numbers and need no pickle: texts and times


def recognises(path: Place) -> bool:
    """Whether ``path`` is a zip archive of arrays, by its first member's name; an empty one by its own."""
    first = first_member(path) if path.is_file() else None
    return first is not None and (first.endswith(_ARRAY) or (not first and path.suffix == SUFFIX))


class NpzSource(Source):
    """The arrays of an ``.npz`` file.

    Args:
        path: the file.
        separator: where names are cut; ``None`` leaves them in one piece.

    Raises:
        SourceError: it is no such archive, or a member of it is no array of numbers or text, before any array
            is read. The message names the file and the member.
    """

    gives_away = True
    checks_digests = True

    def __init__(self, path: AnyPlace, *, separator: str | None = "/") -> None:
        check_separator(separator)
        path = place_of(path)
        self.label = f"{str(path)!r} (npz)"
        self._checks = True
        file = look_at(path)
        found: dict[Name, Stored | Scattered | None] = {}
        with as_source_error(f"{file} could not be read"), opened(file) as handle:
            members = read_directory(file, handle)
            heads = dict(read_heads(file, handle, _arrays(file, members), first=_USUAL))
            # In the order in which they were written, which is that of the directory.
            names = {each: _name(file, each, separator) for each in members.values() if each in heads}
            refuse_overlaps(((name, (each.name,)) for each, name in names.items()), str(file))
            found = {name: _place(file, handle, each, heads[each]) for each, name in names.items()}
        self._texts = frozenset(tuple(name) for name, place in found.items() if place is None)
        self._places = {name: place for name, place in found.items() if place is not None}
        self._specs = MappingProxyType({name: place.spec for name, place in self._places.items()})

    def specs(self) -> Mapping[Name, Spec]:
        """Shape and dtype of every array of numbers, in the order of the archive."""
        return self._specs

    def statics(self) -> frozenset[Keys]:
        """The arrays of text and of times."""
        return self._texts

    def checksummed(self) -> frozenset[Name]:
        return frozenset(self._places) if self._checks else frozenset()

    def unchecked(self) -> Source:
        source = self.with_digests({})
        assert isinstance(source, NpzSource)
        source._checks = False
        return source

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        """The leaves asked for: first those that lie there as plain bytes, in their order in the file."""
        check_requests(requests, self._specs, self.label)
        asked = {name: self._places[name] for name in requests}
        plain = {name: place for name, place in asked.items() if isinstance(place, Stored)}
        rest = {name: place for name, place in asked.items() if isinstance(place, Scattered)}
        if not self._checks:
            plain = {name: replace(place, checksum=None) for name, place in plain.items()}
            rest = {name: replace(place, check=False) for name, place in rest.items()}
        yield from read_stored(plain, {name: requests[name] for name in plain}, self.label, self.leaf_digests)
        yield from read_scattered(rest, requests, self.label, self.leaf_digests)


def _arrays(file: File, members: Mapping[str, Member]) -> list[Member]:
    """The members that are arrays, which is all of them, but for folders."""
    arrays = []
    for name, member in members.items():
        if name.endswith(_ARRAY):
            arrays.append(member)
        elif not (name.endswith("/") and not member.size):
            raise SourceError(f"{file} is no valid npz file: its member {brief(name)} is no array ({_ARRAY})")
    return arrays


def _name(file: File, member: Member, separator: str | None) -> Name:
    text = member.name.removesuffix(_ARRAY)
    try:
        return joined_name_from_file(text, separator)
    except ValueError as error:
        raise SourceError(f"{file}: its member {brief(member.name)} has {error}") from error


def _place(file: File, handle: Handle, member: Member, head: Head) -> Stored | Scattered | None:
    """Where a member's array lies; None where it holds texts or times."""
    what = f"{file} is no valid npz file: its member {brief(member.name)}"
    try:
        start = _header_of(file, handle, member, head)
        stream = io.BytesIO(start)
        header = read_npy_header(stream)
    except ValueError as error:
        raise SourceError(f"{what} is no NumPy array: {error}") from error
    dtype, offset = header.dtype, stream.tell()
    if dtype.hasobject:
        raise SourceError(
            f"{what} holds Python objects, which only pickle reads, and that can run any code: save its "
            "numbers as arrays of numbers"
        )
    if dtype == np.dtype("V1"):
        raise SourceError(
            f"{what} has a dtype of one byte that NumPy does not know, such as float8_e4m3fn or int4, and it "
            "did not write which: save it as safetensors, or as a wider type"
        )
    native = dtype.newbyteorder("=")
    if dtype.kind not in _TEXTS and not is_numeric(native):
        raise SourceError(f"{what} has dtype {brief(str(dtype))}, which is no number's")
    count = int(np.prod(header.shape, dtype=object)) * dtype.itemsize
    if offset + count != member.size:
        raise SourceError(
            f"{what} is damaged: an array of shape {header.shape} and dtype {brief(str(dtype))} takes "
            f"{count:,} bytes, and it has {member.size - offset:,}"
        )
    if dtype.kind in _TEXTS:
        return None
    spec = jax.ShapeDtypeStruct(header.shape, native)
    if member.method == STORED and dtype.isnative and not header.by_column:
        checksum = None if member.crc is None else Checksum(member.crc, crc32(start[:offset]))
        return Stored(file, head.data + offset, spec, checksum)
    strides = row_major(header.shape[::-1])[::-1] if header.by_column else row_major(header.shape)
    return Scattered(file, member, offset, spec, strides, swapped=not dtype.isnative)


def _header_of(file: File, handle: Handle, member: Member, head: Head) -> bytes:
    """A member from its first byte to the end of its array's header."""
    start = start_of(file, handle, member, head, 128)
    if not start.startswith(MAGIC) or len(start) < 12:
        raise ValueError("it does not begin as one")
    begins = 10 if start[6] == 1 else 12
    length = begins + int.from_bytes(start[8:begins], "little")
    if length > MOST_HEADER:
        raise ValueError(f"its header would have {length:,} bytes")
    return start if length <= len(start) else start_of(file, handle, member, head, length)


FORMAT = Format(
    name="npz",
    words="NumPy: an archive of arrays (.npz)",
    recognises=recognises,
    opens=NpzSource,
    is_named=lambda path: path.suffix == SUFFIX,
    options=frozenset({"separator"}),
    magic=b"PK",
)
