"""PyTorch: a file of ``torch.save``, or a directory of shards with an index.

Owns which files are meant, how their leaves are named, and how each is read; what a file holds is told by
its container (``zipped``, ``legacy``). Refuses to own the reading of bytes (``_files``). A plan reads the
pickle and no storage; each leaf is read where it lies in its storage. Tensors that are one view of one
storage are ties.

Storages of the newer container are held against its CRC-32 where all of one is read, which is the rule; of a
part of a storage nothing can be told, and ``checksummed`` leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from treeload._errors import SourceError
from treeload._files.at_once import at_once
from treeload._files.beginning import beginning_of
from treeload._files.crc import Checksum
from treeload._files.index import ShardIndex, first_shard, read_index
from treeload._files.open import File, look_at, look_beside, opened, read_bytes, some
from treeload._files.pieces import Stored
from treeload._files.place import Place, Remote, names_in
from treeload._files.places import AnyPlace, place_of
from treeload._files.read import read_stored
from treeload._files.regions import placed, slices_of
from treeload._files.request import check_requests
from treeload._files.scattered import Scattered, is_row_major, read_scattered, spread
from treeload._files.zip import DEFLATED, first_member, read_directory
from treeload._files.zip import MAGIC as ZIP
from treeload._formats.pytorch import legacy
from treeload._formats.pytorch.container import Content, StoragePlace
from treeload._formats.pytorch.described import Tensor
from treeload._formats.pytorch.leaves import Leaves, leaves_of
from treeload._formats.pytorch.legacy import read_legacy
from treeload._formats.pytorch.zipped import read_zipped
from treeload._leaves.number import Number
from treeload._leaves.spec import Spec, make_spec
from treeload._naming.bounds import check_separator, name_from_file
from treeload._naming.name import Keys, Name
from treeload._sources.format import Format
from treeload._sources.separated import refuse_overlaps, split_name
from treeload._sources.source import Absent, Source, as_source_error
from treeload._trees.collector import no_collections

FILE = "pytorch_model.bin"
"""What transformers calls the file of a directory; others put a word before it."""


INDEX = ".bin.index.json"


_MEMBERS = ("data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", "constants.pkl")
"""Of which one is the first in an archive that PyTorch wrote, below a folder."""


# --- Which files are PyTorch's -----------------------------------------------------------------------


def recognises(path: Place) -> bool:
    """Whether ``path`` is a file of ``torch.save`` by its first bytes, an index, or their directory."""
    if path.is_dir():
        return any(_begins_as_one(path / name) or _indexes_some(path / name) for name in _files_in(path))
    return _begins_as_one(path) or _indexes_some(path)


def is_named(path: Place) -> bool:
    """Whether ``path`` bears a name of PyTorch's; a directory, whether a file in it does."""
    if path.is_dir():
        return bool(_files_in(path))
    return path.name.endswith((".pt", ".pth", ".pth.tar", INDEX))


def _indexes_some(path: Place) -> bool:
    shard = first_shard(path)
    return shard is not None and _begins_as_one(shard)


def _begins_as_one(path: Place) -> bool:
    found = beginning_of(path, len(legacy.MAGIC))
    if found is None:
        return False
    return found.first == legacy.MAGIC or (found.first.startswith(ZIP) and _is_archive(path))


def _is_archive(path: Place) -> bool:
    first = first_member(path)
    if not first:
        return False
    if first.rpartition("/")[2] in _MEMBERS and "/" in first:
        return True
    # Packed again by another program, its members may come in any order.
    return "/" in first and not first.endswith(".npy") and _has_pickle(path)


def _has_pickle(path: Place) -> bool:
    try:
        file = look_at(path)
        with opened(file) as handle:
            return any(name.endswith("/data.pkl") for name in read_directory(file, handle))
    except SourceError:
        return False


def _files_in(directory: Place) -> list[str]:
    """The one index or file of a directory that is its checkpoint; several where it cannot be told."""
    found = sorted(name for name in names_in(directory) if not name.startswith("."))
    stem = FILE.removesuffix(".bin")
    for ending in (INDEX, ".bin"):
        named = [name for name in found if name.endswith(stem + ending)]
        if stem + ending in named:
            return [stem + ending]
        if named:
            return named
    return []


def _find(path: Place) -> tuple[ShardIndex | None, Mapping[str, File]]:
    """The index, if there is one, and the files that hold the tensors, by their names."""
    directory, filename = path.parent, path.name
    if path.is_dir():
        names = _files_in(path)
        if len(names) != 1:
            raise SourceError(
                f"{str(path)!r} holds {len(names)} PyTorch files: {some(names)}; open one by its own path"
            )
        directory, filename = path, names[0]
    elif not path.name.endswith(".index.json") or _begins_as_one(path):
        return None, {path.name: look_at(path)}
    if not filename.endswith(".index.json"):
        return None, {filename: look_beside(directory, filename)}
    index = read_index(directory, filename)
    return index, index.shards


# --- The source --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Held:
    """A tensor, and the content of the file that it is in."""

    tensor: Tensor
    content: Content


class PyTorchSource(Source):
    """What ``torch.save`` wrote to a file, or to the shards of a directory.

    Of a directory, ``pytorch_model.bin.index.json`` is read, or ``pytorch_model.bin``, or the only file whose
    name ends so. Numbers beside the weights are leaves, texts and the like are statics.

    Args:
        path: the file, its index, or the directory.
        separator: where keys are split, as PyTorch joins names of modules; ``None`` leaves them in one piece.

    Raises:
        SourceError: what is not as the format says, or needs a global that is not known, before any storage
            is read. The message names the file.
    """

    gives_away = True
    checks_digests = True

    def __init__(self, path: AnyPlace, *, separator: str | None = ".") -> None:
        check_separator(separator)
        path = place_of(path)
        index, files = _find(path)
        self.label = f"{str(path)!r} (PyTorch{f', {len(files)} shards' if index else ''})"
        self._checks = True
        read = at_once(_read, files.values(), is_far=isinstance(path, Remote))
        contents = dict(zip(files, read, strict=True))
        if index is not None:
            index.check(
                {
                    filename: [".".join(keys) for keys in found.names()]
                    for filename, (_, found) in contents.items()
                }
            )
            self.metadata = MappingProxyType(dict(index.metadata))
        with as_source_error(f"{self.label} could not be read"):
            self._take(list(contents.values()), separator)

    def _take(self, contents: Sequence[tuple[Content, Leaves]], separator: str | None) -> None:
        """The leaves under the names that they have here."""
        names: dict[Keys, Name] = {}

        def named(keys: Keys) -> Name:
            names[keys] = name_from_file(keys if separator is None else split_name(keys, separator))
            return names[keys]

        self._held: dict[Name, _Held] = {}
        self._numbers: dict[Name, Number] = {}
        self._checked_numbers: list[Name] = []
        self._absent: dict[Name, Absent] = {}
        statics: set[Keys] = set()
        with no_collections():
            for content, found in contents:
                self._held |= {named(keys): _Held(each, content) for keys, each in found.tensors.items()}
                numbers = {named(keys): Number(value) for keys, value in found.numbers.items()}
                self._numbers |= numbers
                self._checked_numbers += numbers if content.checked else ()
                self._absent |= dict.fromkeys(map(named, found.absent))
                statics |= {tuple(named(keys)) for keys in found.statics}
            refuse_overlaps(((name, keys) for keys, name in names.items()), self.label)
        self._statics = frozenset(statics)
        self._specs: Mapping[Name, Spec] = MappingProxyType(
            {
                **{
                    name: make_spec(held.tensor.shape, held.tensor.dtype) for name, held in self._held.items()
                },
                **{name: make_spec((), number.dtype) for name, number in self._numbers.items()},
            }
        )

    def specs(self) -> Mapping[Name, Spec]:
        """Shape and dtype of every tensor, in the order of the file, then of every number."""
        return self._specs

    def ties(self) -> Mapping[Name, Name]:
        """Tensors that are the same view of the same storage as one before them."""
        return self._ties

    @cached_property
    def _ties(self) -> Mapping[Name, Name]:
        first: dict[Any, Name] = {}
        ties: dict[Name, Name] = {}
        for name, held in self._held.items():
            canonical = first.setdefault((held.content.file.real, held.tensor), name)
            if canonical != name:
                ties[name] = canonical
        return ties

    def absent(self) -> Mapping[Name, Absent]:
        return self._absent

    def statics(self) -> frozenset[Keys]:
        return self._statics

    def numbers(self) -> frozenset[tuple[str, ...]]:
        return frozenset(
            name for name, number in self._numbers.items() if not isinstance(number.value, np.generic)
        )

    def unchecked(self) -> Source:
        source = self.with_digests({})
        assert isinstance(source, PyTorchSource)
        source._checks = False
        return source

    def checksummed(self) -> frozenset[Name]:
        """The tensors that are all of a storage, or nearly; and the numbers, which lie in the pickle."""
        if not self._checks:
            return frozenset()
        checked = (name for name, held in self._held.items() if _is_checked(held))
        return frozenset((*checked, *self._checked_numbers))

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        """The leaves asked for: first those that lie there as plain bytes, in their order in the files."""
        check_requests(requests, self._specs, self.label)
        where = self._where([name for name in requests if name in self._held])
        plain = {name: place for name, place in where.items() if isinstance(place, Stored)}
        rest = {name: place for name, place in where.items() if isinstance(place, Scattered)}
        yield from read_stored(plain, {name: requests[name] for name in plain}, self.label, self.leaf_digests)
        yield from read_scattered(rest, requests, self.label, self.leaf_digests)
        for name in requests:
            if name in self._numbers:
                array = self._numbers[name].array()
                yield name, placed(requests[name], lambda box: array[slices_of(box)])  # noqa: B023  # called at once

    def _where(self, names: Sequence[Name]) -> dict[Name, Stored | Scattered]:
        """Where each tensor lies, looked up file by file."""
        by_file: dict[str, list[Name]] = {}
        for name in names:
            by_file.setdefault(self._held[name].content.file.real, []).append(name)
        found: dict[Name, Stored | Scattered] = {}
        for several in by_file.values():
            content = self._held[several[0]].content
            keys = dict.fromkeys(self._held[name].tensor.storage.key for name in several)
            with opened(content.file) as handle:
                places = dict(content.places(handle, keys))
            for name in several:
                held = self._held[name]
                found[name] = _lies(held, places[held.tensor.storage.key], self._checks)
        return found


def _read(file: File) -> tuple[Content, Leaves]:
    """What one file holds."""
    with as_source_error(f"{file} could not be read"):
        with opened(file) as handle:
            start = read_bytes(handle, len(legacy.MAGIC), 0)
        try:
            if start == legacy.MAGIC:
                content = read_legacy(file)
            elif start.startswith(ZIP):
                content = read_zipped(file)
            else:
                raise ValueError("it does not begin as one")
            return content, leaves_of(content.tree)
        except ValueError as error:
            raise SourceError(f"{file} cannot be read as a PyTorch file: {error}") from error


# --- Where a tensor lies -----------------------------------------------------------------------------


def _is_plain(held: _Held) -> bool:
    """Whether its elements lie in its storage as they are wanted."""
    tensor = held.tensor
    swapped = held.content.swapped and tensor.dtype.itemsize > 1
    return not swapped and is_row_major(tensor.shape, tensor.strides)


def _extent(tensor: Tensor) -> int:
    """Bytes of its storage from its first element to its last."""
    return spread(tensor.shape, tensor.strides) * tensor.dtype.itemsize


def _is_checked(held: _Held) -> bool:
    """Whether reading it reads all of a storage that has a checksum."""
    member = held.content.members.get(held.tensor.storage.key)
    if member is None or member.crc is None:
        return False
    if member.method == DEFLATED:
        return True
    extent = _extent(held.tensor)
    return extent == member.size if _is_plain(held) else 2 * extent >= member.size


def _lies(held: _Held, place: StoragePlace, check: bool) -> Stored | Scattered:
    tensor, content, member = held.tensor, held.content, place.member
    file, spec = content.file, make_spec(tensor.shape, tensor.dtype)
    start = tensor.storage.offset + tensor.offset * tensor.dtype.itemsize
    swapped = content.swapped and tensor.dtype.itemsize > 1
    if _is_plain(held) and (member is None or member.method != DEFLATED):
        crc = member.crc if member is not None and check and _is_checked(held) else None
        return Stored(file, place.offset + start, spec, None if crc is None else Checksum(crc))
    if member is not None and (member.method == DEFLATED or _is_checked(held)):
        return Scattered(file, member, start, spec, tensor.strides, swapped, check)
    return Scattered(file, None, place.offset + start, spec, tensor.strides, swapped)


FORMAT = Format(
    name="pytorch",
    words="PyTorch: a file of torch.save, or a directory of its shards with their index",
    recognises=recognises,
    opens=PyTorchSource,
    is_named=is_named,
    options=frozenset({"separator"}),
    magic=(b"PK", legacy.MAGIC),
)
