"""GGUF as a source: a file, or all the files of a model that was split.

Owns which files, and the leaves: an array that is stored as such has its own dtype and is read as in every
other format; a quantised one is float32, made of its bytes when it is read, by the library that the extra
``gguf`` installs. Shapes are NumPy's, rows first: the reverse of what ggml calls ``ne``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from treeload._errors import SourceError
from treeload._files.beginning import beginning_of
from treeload._files.digests import check_whole
from treeload._files.open import File, brief, check_unchanged, look_at, look_beside, opened, read_bytes
from treeload._files.pieces import Stored
from treeload._files.place import Handle, Place
from treeload._files.places import AnyPlace, place_of
from treeload._files.read import read_stored
from treeload._files.regions import Box, placed, slices_of, whole_box
from treeload._files.request import check_requests
from treeload._formats.gguf.header import MAGIC, PLAIN, Header, Tensor, read_header
from treeload._leaves.spec import Spec, elements, nbytes, print_spec
from treeload._naming.bounds import check_separator, joined_name_from_file
from treeload._naming.name import Name, print_name
from treeload._sources.format import Format
from treeload._sources.source import Source, as_source_error

_SUFFIX = ".gguf"


_SPLIT = re.compile(r"(.*)-[0-9]{5}-of-([0-9]{5})\.gguf")


_NOT_INSTALLED = (
    "{name} in {file} is quantised, and what it stands for is told by the gguf library, which is not "
    'installed here: pip install "treeload[gguf]"'
)


def recognises(path: Place) -> bool:
    """Whether ``path`` begins as a GGUF file does."""
    found = beginning_of(path, len(MAGIC))
    return found is not None and found.first == MAGIC


def is_named(path: Place) -> bool:
    """Whether ``path`` is a file that is called as these are."""
    return path.suffix == _SUFFIX and path.is_file()


@dataclass(frozen=True, slots=True)
class _Quantised:
    """Where a quantised tensor lies, and how many numbers are in how many bytes of it."""

    file: File
    offset: int
    spec: Spec
    code: int
    block: int
    size: int


class GgufSource(Source):
    """The tensors of a GGUF file, or of all the files of a model that was split.

    Args:
        path: the file, or one of them.
        separator: where the format's joined names are split; ``None`` leaves them in one piece.

    Attributes:
        metadata: what the file says of its model. Of arrays of more than 1,024 elements, such as a
            vocabulary, only how long they are.

    Raises:
        SourceError: anything in the header that is not as the format says, before any tensor is read; or a
            tensor is quantised, and the ``gguf`` library is not installed.
    """

    gives_away = True
    checks_digests = True

    def __init__(self, path: AnyPlace, *, separator: str | None = ".") -> None:
        check_separator(separator)
        path = place_of(path)
        files = _files(look_at(path))
        several = f", {len(files)} files" if len(files) > 1 else ""
        self.label = f"{str(path)!r} (GGUF{several})"
        self.metadata = next(iter(files.values())).metadata
        self._places: dict[Name, Stored | _Quantised] = {}
        for file, header in files.items():
            places = {
                _name(file, key, separator): _place(file, header, key, tensor)
                for key, tensor in header.tensors.items()
            }
            _check_apart(file, places)
            twice = next((name for name in places if name in self._places), None)
            if twice is not None:
                raise SourceError(f"{file}: the tensor {print_name(twice)!r} is in two files")
            self._places.update(places)
        self._specs = MappingProxyType({name: place.spec for name, place in self._places.items()})

    def specs(self) -> Mapping[Name, Spec]:
        """Shape and dtype of every tensor, in the order of the file."""
        return self._specs

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        check_requests(requests, self._specs, self.label)
        places = {name: self._places[name] for name in requests}
        plain = {name: place for name, place in places.items() if isinstance(place, Stored)}
        asked = {name: requests[name] for name in plain}
        yield from read_stored(plain, asked, self.label, self.leaf_digests)
        for name, place in places.items():
            if isinstance(place, _Quantised):
                with as_source_error(f"{self.label}: cannot read {print_name(name)!r}"):
                    value = self._dequantised(name, place, requests[name])
                yield name, value

    def _dequantised(self, name: Name, place: _Quantised, request: Spec) -> Any:
        known = self.leaf_digests.get(name)
        with opened(place.file) as handle:
            if known is None:
                value = placed(request, lambda box: _box(handle, place, box))
            else:
                array = _box(handle, place, whole_box(request.shape))
                check_whole(array, known, f"{place.file}: {print_name(name)!r}")
                value = placed(request, lambda box: array[slices_of(box)])
            check_unchanged(place.file, handle)
        return value


def _box(handle: Handle, place: _Quantised, box: Box) -> np.ndarray[Any, Any]:
    """One box of a quantised tensor: the rows that it lies in are read, and nothing else."""
    from treeload._formats.gguf.quants import dequantised

    shape = place.spec.shape
    (start, stop), row = box[0], math.prod(shape[1:]) // place.block * place.size
    if len(shape) == 1:  # one row: its blocks are what can be read alone
        row = place.size
        start, stop = start // place.block, -(-stop // place.block)
    count = (stop - start) * row
    raw = read_bytes(handle, count, place.offset + start * row)
    if len(raw) < count:
        raise SourceError(f"{place.file} was cut short while it was read")
    floats = dequantised(np.frombuffer(raw, np.uint8), place.code)
    if len(shape) == 1:
        first = start * place.block
        return floats[box[0][0] - first : box[0][1] - first]
    rows = floats.reshape(stop - start, *shape[1:])
    return np.ascontiguousarray(rows[(slice(None), *slices_of(box[1:]))])


def _name(file: File, key: str, separator: str | None) -> Name:
    try:
        return joined_name_from_file(key, separator)
    except ValueError as error:
        raise SourceError(f"{file}: the tensor {brief(key)} has {error}") from error


def _place(file: File, header: Header, key: str, tensor: Tensor) -> Stored | _Quantised:
    try:
        return _where(file, header, key, tensor)
    except ValueError as error:
        raise SourceError(f"{file}: the tensor {brief(key)} cannot be read: {error}") from error


def _where(file: File, header: Header, key: str, tensor: Tensor) -> Stored | _Quantised:
    """Where a tensor lies, if all of it does so in the file."""
    if tensor.offset % header.alignment:
        raise ValueError(f"it begins at byte {tensor.offset:,}, which is no multiple of {header.alignment}")
    offset = header.data + tensor.offset
    dtype = PLAIN.get(tensor.code)
    place: Stored | _Quantised
    if dtype is not None:
        place = Stored(file, offset, jax.ShapeDtypeStruct(tensor.shape, dtype))
    else:
        kind, block, bytes_of_block = _sizes(file, key, tensor.code)
        if not tensor.shape or tensor.shape[-1] % block:
            raise ValueError(f"{kind} has blocks of {block} numbers, and its shape is {list(tensor.shape)}")
        spec = jax.ShapeDtypeStruct(tensor.shape, np.dtype(np.float32))
        place = _Quantised(file, offset, spec, tensor.code, block, bytes_of_block)
    size = _bytes_of(place)
    if offset + size > file.size:
        raise ValueError(
            f"{print_spec(place.spec)} ends at byte {offset + size:,}, and the file has {file.size:,}: it is "
            "truncated"
        )
    return place


def _sizes(file: File, key: str, code: int) -> tuple[str, int, int]:
    try:
        from treeload._formats.gguf.quants import sizes_of
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise SourceError(_NOT_INSTALLED.format(name=brief(key), file=file)) from error
    return sizes_of(code)


def _bytes_of(place: Stored | _Quantised) -> int:
    """How many bytes a tensor takes in its file."""
    if isinstance(place, Stored):
        return nbytes(place.spec)
    return elements(place.spec) // place.block * place.size


def _check_apart(file: File, places: Mapping[Name, Stored | _Quantised]) -> None:
    """No byte belongs to two tensors: else a short file makes a model of any size."""
    end, before = 0, ""
    for name, place in sorted(places.items(), key=lambda each: each[1].offset):
        if place.offset < end and _bytes_of(place):
            raise SourceError(f"{file}: the tensor {print_name(name)!r} overlaps {before!r}")
        if place.offset + _bytes_of(place) > end:
            end, before = place.offset + _bytes_of(place), print_name(name)


# --- Which files -----------------------------------------------------------------------------------


def _files(first: File) -> dict[File, Header]:
    """The headers of a file, and of those that are parts of the same model."""
    header = _header(first)
    count = header.metadata.get("split.count", 1)
    if type(count) is not int or count <= 1:
        return {first: header}
    match = _SPLIT.fullmatch(first.path.name)
    if match is None or int(match[2]) != count:
        raise SourceError(
            f"{first} is one of {count:,} files of a model, and not called NAME-00001-of-{count:05d}.gguf, "
            "by which the others are found"
        )
    found: dict[File, Header] = {}
    for number in range(1, count + 1):
        file = look_beside(first.path.parent, f"{match[1]}-{number:05d}-of-{count:05d}.gguf")
        found[file] = _header(file)
        said = found[file].metadata.get("split.no"), found[file].metadata.get("split.count")
        if said != (number - 1, count):
            raise SourceError(f"{file} is no file {number} of {count}: it says {said[0]} and {said[1]}")
    total, tensors = (
        header.metadata.get("split.tensors.count"),
        sum(len(each.tensors) for each in found.values()),
    )
    if total is not None and total != tensors:
        raise SourceError(f"{first}: its files hold {tensors:,} tensors, and it says {total:,}")
    return found


def _header(file: File) -> Header:
    try:
        return read_header(file)
    except ValueError as error:
        raise SourceError(f"{file} is no valid GGUF file: {error}") from error


FORMAT = Format(
    name="gguf",
    words="GGUF: a file of llama.cpp, or the files of a split model",
    recognises=recognises,
    opens=GgufSource,
    is_named=is_named,
    options=frozenset({"separator"}),
    magic=MAGIC,
)
