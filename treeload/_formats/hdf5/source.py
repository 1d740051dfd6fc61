"""HDF5 as a source: ``.weights.h5`` and ``.h5`` of Keras, any file of numbers, and ``.keras``, which holds
one.

Owns which bytes are the HDF5 file (a ``.keras`` is a zip archive in which it lies as it is), what the
leaves are called, and who reads them: what lies in the file as plain bytes is read as in every other
format, a part of it alone where a device wants no more; what is compressed or in chunks goes through h5py,
which the extra ``h5`` installs. The description of the model (``config.json``, attributes) is never looked
at.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from treeload._errors import SourceError
from treeload._files.beginning import beginning_of
from treeload._files.digests import check_whole
from treeload._files.open import File, check_unchanged, look_at, opened, read_bytes
from treeload._files.pieces import Stored
from treeload._files.place import Handle, Place
from treeload._files.places import AnyPlace, place_of
from treeload._files.read import read_stored
from treeload._files.regions import Box, placed, slices_of, whole_box
from treeload._files.request import check_requests
from treeload._files.stream import Stream
from treeload._formats.hdf5.pages import Pages
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, Name, print_name
from treeload._sources.format import Format
from treeload._sources.source import Source, as_source_error

MAGIC = b"\x89HDF\r\n\x1a\n"


_ZIP = b"PK\x03\x04"


_MEMBER = "model.weights.h5"


_FIRST_MEMBERS = (b"metadata.json", b"config.json", _MEMBER.encode())
"""What an archive of Keras' begins with, whichever version wrote it."""


_SUFFIXES = (".h5", ".hdf5", ".keras")


_NOT_INSTALLED = (
    "{path} is an HDF5 file, which is read with h5py, and that is not installed here: "
    'pip install "treeload[h5]"'
)


def recognises(path: Place) -> bool:
    """Whether ``path`` begins as an HDF5 file does, or as one of Keras' archives."""
    found = beginning_of(path, 64)
    return found is not None and (found.first.startswith(MAGIC) or _is_archive(found.first))


def is_named(path: Place) -> bool:
    """Whether ``path`` is a file that is called as these are."""
    return path.suffix in _SUFFIXES and path.is_file()


def _is_archive(first: bytes) -> bool:
    name = first[30 : 30 + int.from_bytes(first[26:28], "little")]
    return first.startswith(_ZIP) and name in _FIRST_MEMBERS


class Hdf5Source(Source):
    """The datasets of an HDF5 file, by their paths in it.

    Raises:
        SourceError: h5py is not installed; or anything in the file that is not as the format says, that leads
            out of it, or that is no array of numbers. The message names the file and the dataset.
    """

    gives_away = True
    checks_digests = True

    def __init__(self, path: AnyPlace) -> None:
        path = place_of(path)
        self._part = _find(path)
        self.label = f"{str(path)!r} ({'Keras' if self._part.start else 'HDF5'})"
        datasets = _h5py(path)
        with as_source_error(f"{self.label} could not be read"), self._part.stream() as stream:
            found = datasets.look(stream, self._part.stop - self._part.start)
        names = _without_outputs(found.datasets)
        self._datasets = {names[name]: dataset for name, dataset in found.datasets.items()}
        self._ties = {names[alias]: names[name] for alias, name in found.ties.items()}
        self._texts = frozenset(found.texts)
        self._stored = {
            name: Stored(self._part.file, self._part.start + dataset.offset, dataset.spec)
            for name, dataset in self._datasets.items()
            if dataset.offset is not None
        }
        self._specs = MappingProxyType({name: dataset.spec for name, dataset in self._datasets.items()})

    def specs(self) -> Mapping[Name, Spec]:
        return self._specs

    def ties(self) -> Mapping[Name, Name]:
        return self._ties

    def statics(self) -> frozenset[Keys]:
        return self._texts

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        check_requests(requests, self._specs, self.label)
        plain = {name: request for name, request in requests.items() if name in self._stored}
        yield from read_stored(self._stored, plain, self.label, self.leaf_digests)
        rest = {name: request for name, request in requests.items() if name not in self._stored}
        if not rest:
            return
        with as_source_error(f"{self.label} could not be read"), self._part.reader() as reader:
            for name, request in rest.items():
                with as_source_error(f"{self.label}: cannot read {print_name(name)!r}"):
                    value = self._read_leaf(reader, name, request)
                yield name, value

    def _read_leaf(self, reader: Any, name: Name, request: Spec) -> Any:
        """A dataset that is compressed or in chunks; a part of it, where no digest is of the whole."""
        dataset, known = self._datasets[name], self.leaf_digests.get(name)
        if known is None:
            return placed(request, lambda box: reader.box(dataset, box))
        array = reader.box(dataset, whole_box(request.shape))
        check_whole(array, known, f"{self.label}: {print_name(name)!r}")

        def cut(box: Box) -> Any:
            return array[slices_of(box)]

        return placed(request, cut)


def _h5py(path: Place) -> Any:
    """What reads HDF5: imported when a file is opened, since few have it.

    Raises:
        SourceError: it is not installed.
    """
    try:
        from treeload._formats.hdf5 import datasets
    except ModuleNotFoundError as error:
        if error.name != "h5py":
            raise
        raise SourceError(_NOT_INSTALLED.format(path=repr(str(path)))) from error
    return datasets


def _without_outputs(names: Mapping[Name, Any]) -> dict[Name, Name]:
    """Each name without the ``:0`` of TensorFlow's variables, unless another one is called so."""
    shorter = {name: Name((*name[:-1], name[-1].removesuffix(":0"))) for name in names if name}
    return {name: name if shorter[name] in names else shorter[name] for name in names}


# --- Which bytes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """The bytes of a file that are the HDF5 file."""

    file: File
    start: int
    stop: int

    @contextmanager
    def stream(self) -> Iterator[Pages]:
        with (
            opened(self.file) as handle,
            Pages(Stream(handle, self.start, self.stop), self.stop - self.start) as stream,
        ):
            yield stream
            check_unchanged(self.file, handle)

    @contextmanager
    def reader(self) -> Iterator[Any]:
        with self.stream() as stream, _h5py(self.file.path).Reader(stream) as reader:
            yield reader


def _find(path: Place) -> _Part:
    file = look_at(path)
    with opened(file) as handle:
        first = read_bytes(handle, 64, 0)
        if not first.startswith(_ZIP):
            if not first.startswith(MAGIC):
                raise SourceError(f"{file} is no HDF5 file: it does not begin as one")
            return _Part(file, 0, file.size)
        with as_source_error(f"{file} is no archive of Keras'"):
            return _Part(file, *_member(handle, file))


def _member(handle: Handle, file: File) -> tuple[int, int]:
    """Where the weights lie in an archive, as they are.

    Raises:
        ValueError: there are none, or they are compressed.
    """
    with zipfile.ZipFile(io.BufferedReader(Stream(handle, 0, file.size))) as archive:
        found = [member for member in archive.infolist() if member.filename == _MEMBER]
    if len(found) != 1:
        raise ValueError(f"it holds {len(found)} files called {_MEMBER!r}")
    (member,) = found
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(
            f"its {_MEMBER!r} is compressed or encrypted, which Keras never does: unpack it first"
        )
    header = read_bytes(handle, 30, member.header_offset)
    if not header.startswith(_ZIP) or len(header) < 30:
        raise ValueError(f"its {_MEMBER!r} is not where it says")
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = member.header_offset + 30 + names
    if start + member.file_size > file.size or member.compress_size != member.file_size:
        raise ValueError(f"its {_MEMBER!r} ends behind it")
    if read_bytes(handle, len(MAGIC), start) != MAGIC:
        raise ValueError(f"its {_MEMBER!r} is no HDF5 file")
    return start, start + member.file_size


FORMAT = Format(
    name="hdf5",
    words="HDF5: .weights.h5, .h5 and .keras of Keras, and others of arrays alone",
    recognises=recognises,
    opens=Hdf5Source,
    is_named=is_named,
    magic=(MAGIC, _ZIP),
)
