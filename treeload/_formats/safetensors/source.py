"""safetensors: one file, or a directory of shards with an index.

Owns the format's header, parsed here and not by the safetensors library: to read single leaves into
buffers that JAX takes over needs their offsets, and the library's own checks let duplicate names pass.
Refuses to own the reading (``_files``). Every byte of a header is taken for hostile until it has been
checked against the size of the file; nothing is allocated for a leaf before that.

The format (github.com/huggingface/safetensors, README, "Format"): 8 bytes, the length N of the header,
little-endian; N bytes of JSON in UTF-8 that begin with ``{`` and may end in spaces, a map of a tensor's
name to its ``dtype``, ``shape`` and ``data_offsets`` (from, to; counted from the end of the header), and
of ``__metadata__`` to a map of strings to strings; then the data, little-endian and row-major, without
holes. No key may be there twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from treeload._errors import SourceError
from treeload._files.at_once import at_once
from treeload._files.beginning import beginning_of
from treeload._files.index import ShardIndex, first_shard, read_index
from treeload._files.open import File, brief, look_at, look_beside, some
from treeload._files.pieces import Stored
from treeload._files.place import Place, Remote, names_in
from treeload._files.places import AnyPlace, place_of
from treeload._files.read import read_stored
from treeload._files.strict_json import parse_json
from treeload._formats.safetensors.header import PROVENANCE, read_header
from treeload._leaves.spec import Spec
from treeload._naming.bounds import check_separator, joined_name_from_file
from treeload._naming.name import Name, print_name
from treeload._sources.format import Format
from treeload._sources.provenance import read_provenance
from treeload._sources.source import Source, as_source_error

SUFFIX = ".safetensors"


INDEX = ".safetensors.index.json"


def recognises(path: Place) -> bool:
    """Whether ``path`` is safetensors by its bytes; a directory, by those of the files that are called so."""
    if not path.is_dir():
        return begins_as_one(path) or _indexes_some(path)
    files, indices = _files_in(path, SUFFIX), _files_in(path, INDEX)
    return any(begins_as_one(path / name) for name in files) or any(
        _indexes_some(path / name) for name in indices
    )


def is_named(path: Place) -> bool:
    """Whether ``path`` bears a name of safetensors; a directory, whether a file in it does."""
    if not path.is_dir():
        return path.name.endswith((SUFFIX, INDEX))
    return any(_files_in(path, suffix) for suffix in (INDEX, SUFFIX))


def begins_as_one(path: Place) -> bool:
    """Whether the file at ``path`` begins with the length of a header that it can hold, and with JSON."""
    found = beginning_of(path, 9)
    if found is None or found.first[8:] != b"{":
        return False
    return int.from_bytes(found.first[:8], "little") <= found.size - 8


def _indexes_some(path: Place) -> bool:
    shard = first_shard(path)
    return shard is not None and begins_as_one(shard)


class SafetensorsSource(Source):
    """The tensors of a ``.safetensors`` file, or of a directory of such files with an index.

    Of a directory, ``model.safetensors.index.json`` is read, or its only ``*.safetensors.index.json``,
    or its only ``.safetensors`` file.

    Args:
        path: the file, its index, or the directory.
        separator: where the format's joined names are split; ``None`` leaves them in one piece.

    Attributes:
        metadata: ``__metadata__`` of the file; of shards, what the index says, and beside it what every
            shard that has metadata says the same.
        provenance: where the tensors came from, where ``treeload.export`` kept it in the metadata.

    Raises:
        SourceError: anything in the headers or the index that is not as the format says, before any
            tensor is read. The message names the file and the leaf.
    """

    gives_away = True
    checks_digests = True

    def __init__(self, path: AnyPlace, *, separator: str | None = ".") -> None:
        check_separator(separator)
        path = place_of(path)
        index, files = _find(path)
        headers = dict(
            zip(files, at_once(read_header, files.values(), is_far=isinstance(path, Remote)), strict=True)
        )
        self.label = f"{str(path)!r} (safetensors{f', {len(files)} shards' if index else ''})"
        if index is None:
            ((file, header),) = zip(files.values(), headers.values(), strict=True)
            self.metadata = MappingProxyType(header.metadata)
            places = [(tensor, file, header) for tensor in header.tensors]
        else:
            index.check({filename: tuple(header.tensors) for filename, header in headers.items()})
            agreed = _agreed([header.metadata for header in headers.values() if header.metadata])
            self.metadata = MappingProxyType({**agreed, **index.metadata})
            places = [(tensor, files[shard], headers[shard]) for tensor, shard in index.tensors.items()]
        self._take_provenance(separator)
        self._stored = {
            _name(file, tensor, separator): Stored(file, header.data + header.tensors[tensor].start, spec)
            for tensor, file, header in places
            for spec in (header.tensors[tensor].spec,)
        }
        self._specs = MappingProxyType({name: stored.spec for name, stored in self._stored.items()})

    def _take_provenance(self, separator: str | None) -> None:
        """What the metadata keeps of where the tensors came from, under the names that they have here."""
        metadata = dict(self.metadata)
        said = metadata.pop(PROVENANCE, None)
        if said is None:
            return
        with as_source_error(f"{self.label}: its record of provenance is malformed"):
            known = parse_json(said)
            if not isinstance(known, dict):
                raise ValueError("it is no mapping of tensors")
            named = {print_name(_split(tensor, separator)): link for tensor, link in known.items()}
            self.provenance = MappingProxyType(dict(read_provenance(named)))
        self.metadata = MappingProxyType(metadata)

    def specs(self) -> Mapping[Name, Spec]:
        """Shape and dtype of every tensor, in the order of the header or of the index."""
        return self._specs

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        """The leaves asked for, in the order in which they lie in their files."""
        return read_stored(self._stored, requests, self.label, self.leaf_digests)


def _name(file: File, tensor: str, separator: str | None) -> Name:
    try:
        return joined_name_from_file(tensor, separator)
    except ValueError as error:
        raise SourceError(f"{file}: the tensor {brief(tensor)} has {error}") from error


def _split(tensor: str, separator: str | None) -> tuple[str, ...]:
    return (tensor,) if separator is None else tuple(tensor.split(separator))


def _agreed(metadatas: list[Mapping[str, str]]) -> dict[str, str]:
    if not metadatas:
        return {}
    return {key: value for key, value in metadatas[0].items() if all(m.get(key) == value for m in metadatas)}


# --- Which files -----------------------------------------------------------------------------------


def _find(path: Place) -> tuple[ShardIndex | None, Mapping[str, File]]:
    """The index, if there is one, and the files that hold the tensors, by their names."""
    if not path.is_dir():
        if not path.name.endswith(".index.json") or begins_as_one(path):
            return None, {path.name: look_at(path)}
        directory, filename = path.parent, path.name
    else:
        directory, filename = path, _choose(path)
        if not filename.endswith(INDEX):
            return None, {filename: look_beside(directory, filename)}
    index = read_index(directory, filename)
    return index, index.shards


def _choose(directory: Place) -> str:
    indices, files = _files_in(directory, INDEX), _files_in(directory, SUFFIX)
    if "model" + INDEX in indices:
        return "model" + INDEX
    for found, what in ((indices, "indices"), (files, "files without an index")):
        if len(found) == 1:
            return found[0]
        if found and (shards := _shards(found)):
            raise SourceError(
                f"{str(directory)!r} holds {shards} of a checkpoint and not their index, 'NAME{INDEX}': "
                f"download that too, or give the paths of the shards as a list, [{some(found, 3)}]"
            )
        if found:
            raise SourceError(
                f"{str(directory)!r} holds {len(found)} safetensors {what}: {some(found)}; "
                "open one of them by its own path"
            )
    raise SourceError(f"{str(directory)!r} holds no {SUFFIX} file")


def _shards(names: Sequence[str]) -> str:
    """Which shards of how many these files are, in words; empty where they are not shards of one."""
    matches = [_SHARD.search(name) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    totals = {match[2] for match in matches if match}
    if len(numbers) < len(names) or len(totals) != 1:
        return ""
    of = int(totals.pop())
    missing = sorted(set(range(1, of + 1)) - set(numbers))
    return f"all {of:,} shards" if not missing else f"{len(numbers):,} of {of:,} shards"


_SHARD = re.compile(r"-(\d{1,6})-of-(\d{1,6})\.safetensors$")


def _files_in(directory: Place, suffix: str) -> list[str]:
    return sorted(name for name in names_in(directory) if name.endswith(suffix) and not name.startswith("."))


FORMAT = Format(
    name="safetensors",
    words="safetensors: a file, or a directory of them with its index",
    recognises=recognises,
    is_named=is_named,
    opens=SafetensorsSource,
    options=frozenset({"separator"}),
)
