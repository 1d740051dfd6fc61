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

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import ml_dtypes
import numpy as np

from treeload._errors import RuleError, SourceError
from treeload._names import Name
from treeload._specs import Spec, print_spec
from treeload.sources._base import Source
from treeload.sources._files import (
    File,
    ShardIndex,
    Stored,
    brief,
    look_at,
    look_beside,
    opened,
    parse_json,
    read_bytes,
    read_index,
    read_stored,
    some,
)

SUFFIX = ".safetensors"
INDEX = ".safetensors.index.json"

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "U8": np.dtype("<u1"),
        "I8": np.dtype("<i1"),
        "U16": np.dtype("<u2"),
        "I16": np.dtype("<i2"),
        "U32": np.dtype("<u4"),
        "I32": np.dtype("<i4"),
        "U64": np.dtype("<u8"),
        "I64": np.dtype("<i8"),
        "F16": np.dtype("<f2"),
        "F32": np.dtype("<f4"),
        "F64": np.dtype("<f8"),
        "C64": np.dtype("<c8"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
        "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
        "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
        "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
        "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    }
)
_PACKED = ("F4", "F6_E2M3", "F6_E3M2")  # several values in a byte: no NumPy array has such bytes

_MAX_HEADER = 100_000_000  # the format's own limit
_MAX_ENTRY = 4096  # characters that describe one tensor; 64 dimensions of 19 digits take 1,280
_MAX_DIMENSIONS = 64  # NumPy's limit
_MAX_BYTES = 2**63 - 1


def recognises(path: Path) -> bool:
    """Whether ``path`` is safetensors: a file or an index by its name, a directory by what is in it."""
    if not path.is_dir():
        return path.name.endswith((SUFFIX, INDEX))
    return any(_files_in(path, suffix) for suffix in (INDEX, SUFFIX))


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

    Raises:
        SourceError: anything in the headers or the index that is not as the format says, before any
            tensor is read. The message names the file and the leaf.
    """

    def __init__(self, path: str | os.PathLike[str], *, separator: str | None = ".") -> None:
        if separator == "":
            raise RuleError("separator='' splits nothing: write None to leave names in one piece")
        path = Path(path)
        index, files = _find(path)
        headers = {filename: _read_header(file) for filename, file in files.items()}
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
        self._stored = {
            Name(_split(tensor, separator)): Stored(file, header.data + header.tensors[tensor].start, spec)
            for tensor, file, header in places
            for spec in (header.tensors[tensor].spec,)
        }
        self._specs = MappingProxyType({name: stored.spec for name, stored in self._stored.items()})

    def specs(self) -> Mapping[Name, Spec]:
        """Shape and dtype of every tensor, in the order of the header or of the index."""
        return self._specs

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        """The leaves asked for, in the order in which they lie in their files."""
        return read_stored(self._stored, requests)


def _split(tensor: str, separator: str | None) -> tuple[str, ...]:
    return (tensor,) if separator is None else tuple(tensor.split(separator))


def _agreed(metadatas: list[Mapping[str, str]]) -> dict[str, str]:
    if not metadatas:
        return {}
    return {key: value for key, value in metadatas[0].items() if all(m.get(key) == value for m in metadatas)}


# --- Which files -----------------------------------------------------------------------------------


def _find(path: Path) -> tuple[ShardIndex | None, Mapping[str, File]]:
    """The index, if there is one, and the files that hold the tensors, by their names."""
    if not path.is_dir():
        if not path.name.endswith(INDEX):
            return None, {path.name: look_at(path)}
        directory, filename = path.parent, path.name
    else:
        directory, filename = path, _choose(path)
        if not filename.endswith(INDEX):
            return None, {filename: look_beside(directory, filename)}
    index = read_index(directory, filename)
    return index, index.shards


def _choose(directory: Path) -> str:
    indices, files = _files_in(directory, INDEX), _files_in(directory, SUFFIX)
    if "model" + INDEX in indices:
        return "model" + INDEX
    for found, what in ((indices, "indices"), (files, "files without an index")):
        if len(found) == 1:
            return found[0]
        if found:
            raise SourceError(
                f"{str(directory)!r} holds {len(found)} safetensors {what}: {some(found)}; "
                "open one of them by its own path"
            )
    raise SourceError(f"{str(directory)!r} holds no {SUFFIX} file")


def _files_in(directory: Path, suffix: str) -> list[str]:
    try:
        found = os.listdir(directory)
    except OSError as error:
        raise SourceError(f"cannot list {str(directory)!r}: {error.strerror}") from error
    return sorted(name for name in found if name.endswith(suffix) and not name.startswith("."))


# --- The header ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tensor:
    spec: Spec
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Header:
    """What a file says of its tensors. ``data`` is where their bytes begin; offsets count from there."""

    tensors: Mapping[str, _Tensor]
    metadata: Mapping[str, str]
    data: int


def _read_header(file: File) -> _Header:
    with opened(file) as descriptor:
        if file.size < 8:
            raise _malformed(file, f"it has {file.size} bytes, and a header takes 8 at least")
        length = int.from_bytes(read_bytes(descriptor, 8, 0), "little")
        if length > _MAX_HEADER:
            raise _malformed(
                file, f"its header would have {length:,} bytes; at most {_MAX_HEADER:,} are allowed"
            )
        if length > file.size - 8:
            raise _malformed(file, f"its header would have {length:,} bytes; the file has {file.size:,}")
        raw = read_bytes(descriptor, length, 8)
    if len(raw) < length:
        raise _malformed(file, "it was cut short while it was read")
    try:
        header = _parse_header(file, raw.decode("utf-8"), 8 + length)
    except ValueError as error:  # JSON and UTF-8; what is about a tensor names it already
        raise _malformed(file, f"its header is not what the format says: {error}") from error
    _check_layout(file, header)
    return header


def _parse_header(file: File, text: str, data: int) -> _Header:
    # Tensor by tensor and not json.loads on the whole: a header that lies is refused where it begins to,
    # and 100 MB of brackets never become 2 GB of lists.
    tensors: dict[str, _Tensor] = {}
    metadata: dict[str, str] = {}
    keys: set[str] = set()

    def member(key: str, at: int) -> int:
        _add(keys, key)
        if key == "__metadata__":
            return _members(text, at, text_of_metadata)
        tensors[key], at = _parse_tensor(file, key, text, at)
        return at

    def text_of_metadata(key: str, at: int) -> int:
        if key in metadata:
            raise ValueError(f"the key {brief(key)} of its __metadata__ is there twice")
        metadata[key], at = _string(text, at)
        return at

    if not text.startswith("{"):
        raise ValueError("it does not begin with '{'")
    end = _members(text, 0, member)
    if _SPACE.match(text, end).end() != len(text):  # type: ignore[union-attr]  # it matches everywhere
        raise ValueError(f"something follows its end at character {end:,}")
    return _Header(tensors, metadata, data)


def _add(keys: set[str], key: str) -> None:
    if key in keys:
        raise ValueError(f"the name {brief(key)} is there twice")
    keys.add(key)


_SPACE = re.compile(r"[ \t\r\n]*")
_ENTRY = re.compile(rf"\{{[^{{}}]{{0,{_MAX_ENTRY}}}\}}")
_JSON = json.JSONDecoder()


def _members(text: str, at: int, member: Callable[[str, int], int]) -> int:
    """The end of the JSON object at ``at``; ``member(key, at)`` takes each value and gives back its end."""
    at = _skip(text, at, "{")
    if text.startswith("}", _space(text, at)):
        return _space(text, at) + 1
    while True:
        key, at = _string(text, _space(text, at))
        at = member(key, _space(text, _skip(text, _space(text, at), ":")))
        at = _space(text, at)
        if text.startswith("}", at):
            return at + 1
        at = _skip(text, at, ",")


def _space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches everywhere


def _skip(text: str, at: int, character: str) -> int:
    if not text.startswith(character, at):
        raise ValueError(f"{character!r} is expected at character {at:,}, not {brief(text[at : at + 20])}")
    return at + 1


def _string(text: str, at: int) -> tuple[str, int]:
    if not text.startswith('"', at):
        raise ValueError(f"a string is expected at character {at:,}, not {brief(text[at : at + 20])}")
    string, end = _JSON.raw_decode(text, at)
    if not string.isascii() and any("\ud800" <= character <= "\udfff" for character in string):
        raise ValueError(f"the string {brief(string)} is no Unicode text")
    return string, end


def _parse_tensor(file: File, tensor: str, text: str, at: int) -> tuple[_Tensor, int]:
    match = _ENTRY.match(text, at)
    if match is None:
        raise _malformed(file, f"{brief(tensor)} is not described by 'dtype', 'shape' and 'data_offsets'")
    try:
        return _tensor(parse_json(match.group())), match.end()
    except ValueError as error:
        raise _malformed(file, f"{brief(tensor)}: {error}") from error


def _tensor(entry: Mapping[str, Any]) -> _Tensor:
    """What one tensor's entry says, if it agrees with itself; other fields are not ours and are ignored."""
    for field in ("dtype", "shape", "data_offsets"):
        if field not in entry:
            raise ValueError(f"it has no {field!r}")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = DTYPES.get(code) if isinstance(code, str) else None
    if dtype is None:
        why = "packs several values into a byte" if code in _PACKED else "is not known"
        raise ValueError(f"its dtype {brief(str(code))} {why}, so it cannot be read")
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"its shape {brief(str(shape))} is no list of at most {_MAX_DIMENSIONS} sizes")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"its data_offsets {brief(str(offsets))} are no range of bytes")
    # Python's integers do not overflow, NumPy's do: also where another axis is 0.
    if math.prod(size or 1 for size in shape) * dtype.itemsize > _MAX_BYTES:
        raise ValueError(f"its shape {brief(str(shape))} is larger than any array")
    spec = jax.ShapeDtypeStruct(tuple(shape), dtype)
    expected = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != expected:
        raise ValueError(
            f"{print_spec(spec)} takes {expected:,} bytes, "
            f"and its data_offsets {brief(str(offsets))} give it {offsets[1] - offsets[0]:,}"
        )
    return _Tensor(spec, offsets[0], offsets[1])


def _are_counts(value: Any) -> bool:
    # type(), because True is an int.
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MAX_BYTES for n in value)


def _check_layout(file: File, header: _Header) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    at, before = 0, "the header"
    for tensor, place in sorted(header.tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if place.start != at:
            what = "overlaps" if place.start < at else f"leaves a hole of {place.start - at:,} bytes behind"
            raise _malformed(file, f"{brief(tensor)} {what} {before}")
        at, before = place.stop, brief(tensor)
    size = file.size - header.data
    if at > size:
        raise _malformed(
            file, f"{before} ends at byte {header.data + at:,} of {file.size:,}: it is truncated"
        )
    if at < size:
        raise _malformed(file, f"{size - at:,} bytes follow {before}, which no tensor claims")


def _malformed(file: File, why: str) -> SourceError:
    return SourceError(f"{file} is no valid safetensors file: {why}")
