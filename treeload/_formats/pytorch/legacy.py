"""The container of PyTorch before 1.6: pickles one after the other, then the storages.

A number that is always the same; the protocol; what the machine was like; the pickle that describes; the keys
of the storages; then each storage, its count of elements (8 bytes) before its elements, little-endian.
``torch.serialization._legacy_save`` in PyTorch's source is its specification.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from treeload._errors import SourceError
from treeload._files.open import File, brief, opened, read_bytes
from treeload._files.place import Handle
from treeload._files.stream import Stream
from treeload._formats.pytorch.container import Content, StoragePlace, storage_of
from treeload._formats.pytorch.described import Keyed, Storage
from treeload._formats.pytorch.unpickle import unpickled

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""What a file begins with: the number, as a pickle of protocol 2."""


_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


_PROTOCOL = 1001


_AHEAD = 1 << 16  # bytes of pickles that are read at once


_COUNT = 8  # bytes before a storage that say how many elements it has


def read_legacy(file: File) -> Content:
    """What the file holds; its pickles are read, and no storage.

    Raises:
        SourceError: it has changed.
        ValueError: it is malformed.
    """
    roots: dict[str, Storage] = {}

    def storage(said: Any) -> Storage:
        found = storage_of(said, views=True)
        whole = storage_of((*said[:5],), views=False)
        if roots.setdefault(whole.key, whole) != whole:
            raise ValueError(f"its pickle says of the storage {brief(whole.key)} two types or sizes")
        return found

    with opened(file) as handle, io.BufferedReader(Stream(handle, 0, file.size), _AHEAD) as stream:
        _check_start(stream)
        tree = unpickled(stream, storage)
        keys = unpickled(stream, _no_storage)
        begins = stream.tell()
    offsets = _offsets(keys, roots, begins, file.size)
    return Content(
        file, tree, False, {}, False, lambda handle, asked: _places(file, handle, roots, offsets, asked)
    )


def _check_start(stream: BinaryIO) -> None:
    magic, protocol, system = (unpickled(stream, _no_storage, budget=1 << 20) for _ in range(3))
    if magic != _MAGIC_NUMBER:
        raise ValueError("it does not begin with PyTorch's number")
    if protocol != _PROTOCOL:
        raise ValueError(f"its protocol is not {_PROTOCOL}")
    said = zip(system.keys, system.values, strict=True) if type(system) is Keyed else ()
    if not any(key == "little_endian" and value is True for key, value in said):
        raise ValueError("it was written on a machine that is not little-endian")


def _no_storage(said: Any) -> Any:  # noqa: ARG001  # there is none that it could be
    raise ValueError("its pickle refers to a storage where there is none")


def _offsets(keys: Any, roots: Mapping[str, Storage], begins: int, size: int) -> dict[str, int]:
    """Where the elements of each storage begin; together the storages fill the file."""
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise ValueError("its list of storages is none")
    offsets: dict[str, int] = {}
    at = begins
    for key in keys:
        if key in offsets:
            raise ValueError(f"its storage {brief(key)} is there twice")
        if key not in roots:
            raise ValueError(f"its pickle does not say what its storage {brief(key)} is")
        offsets[key] = at + _COUNT
        at += _COUNT + roots[key].size
    if lacking := next((key for key in roots if key not in offsets), None):
        raise ValueError(f"it has no storage {brief(lacking)}, which its pickle refers to")
    if at != size:
        what = "is cut short" if at > size else "has more behind them"
        raise ValueError(f"its storages would end at byte {at:,} of {size:,}: it {what}")
    return offsets


def _places(
    file: File, handle: Handle, roots: Mapping[str, Storage], offsets: Mapping[str, int], keys: Iterable[str]
) -> Iterator[tuple[str, StoragePlace]]:
    """Where storages lie, each held against the count before it."""
    for key in keys:
        count = int.from_bytes(read_bytes(handle, _COUNT, offsets[key] - _COUNT), "little", signed=True)
        expected = roots[key].size // roots[key].dtype.itemsize
        if count != expected:
            raise SourceError(
                f"{file} is damaged: its storage {brief(key)} has {count:,} elements, and its pickle "
                f"says {expected:,}"
            )
        yield key, StoragePlace(offsets[key])
