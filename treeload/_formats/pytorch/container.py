"""What both containers of PyTorch's give: a description, and where storages lie.

Owns what a persistent id says, by which a pickle refers to a storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from treeload._files.open import File, brief
from treeload._files.place import Handle
from treeload._files.zip import Member
from treeload._formats.pytorch.described import ElementType, Storage


@dataclass(frozen=True, slots=True)
class StoragePlace:
    """Where the bytes of a storage begin in the file.

    Attributes:
        offset: where; of a member that is compressed, nothing.
        member: the member of an archive that they are, if they are one.
    """

    offset: int
    member: Member | None = None


StoragePlaces: TypeAlias = "Callable[[Handle, Iterable[str]], Iterator[tuple[str, StoragePlace]]]"


@dataclass(frozen=True, slots=True)
class Content:
    """What one file holds.

    Attributes:
        file: the file.
        tree: what its pickle describes.
        swapped: the numbers of its storages are big-endian.
        members: of an archive, the members that are its storages, by their keys.
        checked: its pickle was held against a checksum.
        places: of an open file and keys of storages, where those lie; looked up when they are read.
    """

    file: File
    tree: Any
    swapped: bool
    members: Mapping[str, Member]
    checked: bool
    places: StoragePlaces


def storage_of(said: Any, *, views: bool) -> Storage:
    """The storage that a persistent id refers to: ``("storage", type, key, location, elements)``.

    Args:
        said: the id.
        views: a sixth part may say which part of the storage is meant: ``(key, offset, elements)``.

    Raises:
        ValueError: it is none.
    """
    if type(said) is not tuple or len(said) not in ((5, 6) if views else (5,)) or said[0] != "storage":
        what = " and " + brief(said[0]) if type(said) is tuple and said and type(said[0]) is str else ""
        raise ValueError(f"its pickle refers to what is no storage{what}")
    element, key, elements = said[1], said[2], said[4]
    if type(element) is not ElementType or type(key) is not str or not _is_count(elements):
        raise ValueError("its pickle refers to a storage without a type, a key or a size")
    itemsize = element.dtype.itemsize
    whole = Storage(key, element.dtype, 0, elements * itemsize)
    part = said[5] if len(said) == 6 else None
    if part is None:
        return whole
    if type(part) is not tuple or len(part) != 3 or not (_is_count(part[1]) and _is_count(part[2])):
        raise ValueError(f"its pickle refers to a part of the storage {brief(key)} that is none")
    if part[1] + part[2] > elements:
        raise ValueError(f"its pickle refers to a part of the storage {brief(key)} that reaches out of it")
    return Storage(key, element.dtype, part[1] * itemsize, part[2] * itemsize)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**60
