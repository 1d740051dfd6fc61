"""The index of a sharded directory: which file holds which tensor, as ``<name>.index.json`` says it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treeload._errors import SourceError
from treeload._files.at_once import at_once
from treeload._files.open import File, brief, look_at, look_beside, opened, read_bytes, some
from treeload._files.place import Place, Remote
from treeload._files.strict_json import parse_json

_SUFFIX = ".index.json"


_MOST_FAR = 2000  # files of one checkpoint, each of which takes requests


_MAX_INDEX = 32 << 20  # the largest real indices (100,000 tensors) take about 10 MB


# --- The index of a sharded directory --------------------------------------------------------------


@dataclass(frozen=True)
class ShardIndex:
    """Which file of a directory holds which tensor, as ``<name>.index.json`` says it.

    Attributes:
        file: the index itself.
        shards: file name → the file, in the order in which the index first names them.
        tensors: tensor → the name of its file, in the order of the index.
        metadata: what the index says besides.
    """

    file: File
    shards: Mapping[str, File]
    tensors: Mapping[str, str]
    metadata: Mapping[str, Any]

    def check(self, found: Mapping[str, Sequence[str]]) -> None:
        """Nothing, if each shard holds exactly the tensors that the index gives it.

        Args:
            found: file name → the tensors that the file really holds.

        Raises:
            SourceError: a tensor is lacking, is not in the index, or is in two shards.
        """
        holders: dict[str, list[str]] = {}
        for shard, tensors in found.items():
            for tensor in tensors:
                holders.setdefault(tensor, []).append(shard)
        for tensor, shard in self.tensors.items():
            if shard not in holders.get(tensor, ()):
                raise SourceError(
                    f"{self.shards[shard]} lacks {brief(tensor)}, which {self.file} finds there"
                )
        for tensor, shards in holders.items():
            if len(shards) > 1:
                raise SourceError(f"{self.file}: {brief(tensor)} is in {len(shards)} shards: {some(shards)}")
            if tensor not in self.tensors:
                unlisted = [name for name in found[shards[0]] if name not in self.tensors]
                raise SourceError(
                    f"{self.shards[shards[0]]} holds what {self.file} does not list: {some(unlisted)}"
                )


def first_shard(path: Place) -> Place | None:
    """The file that an index names first, by which the format of all is told; None where ``path`` is none.

    Told by its name, ``*.index.json``, since other JSON texts may be large; nothing of the shard is read.
    """
    if not path.name.endswith(_SUFFIX):
        return None
    try:
        tensors = _read(look_at(path))["weight_map"]
        return look_beside(path.parent, next(iter(tensors.values()))).path
    except (SourceError, StopIteration):  # whoever opens it will say why
        return None


def one_shard(path: Place) -> str:
    """What a file is that holds a part of a checkpoint, in words; empty where no index beside it says so.

    Of a server it is not asked: that takes requests.
    """
    match = _SHARD.search(path.name)
    if match is None or int(match[2]) < 2 or isinstance(path, Remote) or not path.is_file():
        return ""
    for index in sorted(path.parent.glob(f"*{_SUFFIX}")):
        try:
            tensors = _read(look_beside(path.parent, index.name))["weight_map"]
        except SourceError:  # whoever opens it will say why
            continue
        if path.name in tensors.values():
            return f"shard {int(match[1])} of {int(match[2])}; for all of them open {str(index)!r}"
    return ""


_SHARD = re.compile(r"-(\d{1,6})-of-(\d{1,6})\.\w+$", re.ASCII)


def read_index(directory: Place, filename: str) -> ShardIndex:
    """The index ``filename`` of ``directory``, its shards looked at but not read.

    The format: a JSON object with ``weight_map`` (tensor → file name beside the index) and ``metadata``
    (Hugging Face, "Sharded checkpoints").

    Raises:
        SourceError: it is no such index, or names a file that is missing or outside its directory.
    """
    file = look_beside(directory, filename)
    content = _read(file)
    metadata = content.get("metadata", {})
    if not isinstance(metadata, dict):
        raise SourceError(f"{file} is no valid index: its 'metadata' is no object")
    tensors = content["weight_map"]
    shards = tuple(dict.fromkeys(tensors.values()))
    if file.server is not None and len(shards) > _MOST_FAR:
        raise SourceError(f"{file} names {len(shards):,} files; of a server {_MOST_FAR:,} are opened at most")
    found = at_once(lambda shard: look_beside(directory, shard), shards, is_far=file.server is not None)
    return ShardIndex(
        file=file,
        shards=dict(zip(shards, found, strict=True)),
        tensors=tensors,
        metadata=metadata,
    )


def _read(file: File) -> dict[str, Any]:
    """The JSON of an index, with a ``weight_map`` of texts to texts."""
    if file.size > _MAX_INDEX:
        raise SourceError(f"{file} is no index: it has {file.size:,} bytes, and {_MAX_INDEX:,} are plenty")
    with opened(file) as descriptor:
        raw = read_bytes(descriptor, file.size, 0)
    try:
        content = parse_json(raw.decode("utf-8"))
    except ValueError as error:
        raise SourceError(f"{file} is no valid index: {error}") from error
    tensors = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(tensors, dict) or not _are_texts(tensors.values()):
        raise SourceError(f"{file} is no valid index: it has no 'weight_map' of tensors to file names")
    return content


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
