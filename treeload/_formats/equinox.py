"""Equinox's ``tree_serialise_leaves``: a stream of arrays without names, in the order of a tree's leaves.

Owns the parsing of the stream: ``.npy`` records one after the other, as Equinox's default filter writes
them, for arrays and for Python numbers alike (https://docs.kidger.site/equinox/api/serialisation/; a record
is https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). The leaves are named by their
numbers and load by position only. Nothing is unpickled.

Before the records there may be one line of JSON: the hyperparameters, in the way that Equinox's documentation
saves them beside the weights. They are the source's ``metadata``.

NumPy writes dtypes it does not know as bare bytes: two of them are bfloat16, the one such type in use.
"""

from __future__ import annotations

import math
import tokenize
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO

import jax
import ml_dtypes
import numpy as np

from treeload._errors import SourceError
from treeload._files.beginning import beginning_of
from treeload._files.open import look_at
from treeload._files.pieces import Stored
from treeload._files.place import Place
from treeload._files.places import AnyPlace, place_of
from treeload._files.read import read_stored
from treeload._files.stream import streamed
from treeload._files.strict_json import parse_json
from treeload._leaves.spec import PYTHON_DTYPES, Spec, is_numeric, print_spec
from treeload._naming.name import Name
from treeload._sources.format import Format
from treeload._sources.source import Source, as_source_error

SUFFIX = ".eqx"


MAGIC = b"\x93NUMPY"


_MAX_HEADER = 1 << 14  # bytes of one record's header: some hundred are usual


_MAX_LEAVES = 1 << 20


_MAX_LINE = 1 << 20


def recognises(path: Place) -> bool:
    """Whether a file begins with a NumPy array, or with a line of JSON and then one.

    A file of one array, and ``numpy.save``'s, are the same but for their names.
    """
    if path.suffix == ".npy":
        return False
    found = beginning_of(path)
    if found is None or found.first[:1] not in (b"{", b"["):
        return found is not None and found.first.startswith(MAGIC)
    if len(found.first.partition(b"\n")[2]) < len(MAGIC) and found.size > len(found.first):
        found = beginning_of(path, _MAX_LINE + len(MAGIC))
    return found is not None and found.first.partition(b"\n")[2].startswith(MAGIC)


def is_named(path: Place) -> bool:
    """Whether ``path`` is called as Equinox's files are."""
    return path.suffix == SUFFIX


class EqxSource(Source):
    """The arrays of a file that ``equinox.tree_serialise_leaves`` wrote.

    Args:
        path: the file.

    Raises:
        SourceError: no regular file, or records that are cut short, hold objects, or are none. The message
            names the file and the record.
    """

    positional = True
    counts_numbers = True
    gives_away = True
    checks_digests = True

    def __init__(self, path: AnyPlace) -> None:
        self.label = f"{str(path)!r} (Equinox)"
        self._stored: dict[Name, Stored] = {}
        with as_source_error(f"{self.label} could not be read"):
            file = look_at(place_of(path))
            with streamed(file) as stream:
                self.metadata = MappingProxyType(_hyperparameters(stream, self.label))
                for number, (spec, offset) in enumerate(_records(stream, file.size, self.label)):
                    self._stored[Name((str(number),))] = Stored(file, offset, spec)

    def specs(self) -> Mapping[Name, Spec]:
        return {name: stored.spec for name, stored in self._stored.items()}

    def numbers(self) -> frozenset[tuple[str, ...]]:
        # What Equinox writes for a number is what NumPy makes of it; of JAX's arrays few look so.
        specs = self.specs().items()
        return frozenset(name for name, spec in specs if not spec.shape and spec.dtype in PYTHON_DTYPES)

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        return read_stored(self._stored, requests, self.label, self.leaf_digests)


def _hyperparameters(stream: BinaryIO, label: str) -> dict[str, Any]:
    """What the first line says, where it is JSON; the records begin after it."""
    if stream.read(1) not in (b"{", b"["):
        stream.seek(0)
        return {}
    stream.seek(0)
    line = stream.readline(_MAX_LINE)
    try:
        if not line.endswith(b"\n"):
            raise ValueError(f"it has no end within {_MAX_LINE:,} bytes")
        said = parse_json(line.decode())
    except ValueError as error:
        raise SourceError(f"{label}: its first line is no JSON of hyperparameters: {error}") from error
    return said if isinstance(said, dict) else {"hyperparameters": said}


def _records(stream: BinaryIO, size: int, label: str) -> Iterator[tuple[Spec, int]]:
    """Shape, dtype and place of each array; no array is read."""
    number = 0
    while stream.tell() < size:
        if number >= _MAX_LEAVES:
            raise SourceError(f"{label} holds more than {_MAX_LEAVES:,} records")
        yield _record(stream, size, f"{label}: record {number}")
        number += 1
    if not number:
        raise SourceError(f"{label} is empty: it holds no record")


def _record(stream: BinaryIO, size: int, what: str) -> tuple[Spec, int]:
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_column, dtype = read_header(stream, max_header_size=_MAX_HEADER)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise SourceError(f"{what} is no NumPy array: {error}") from error
    if dtype == np.dtype("V2"):
        dtype = np.dtype(ml_dtypes.bfloat16)
    if not is_numeric(dtype):
        raise SourceError(f"{what} has dtype {dtype}, which is no number's")
    if not dtype.isnative or (by_column and len(shape) > 1):
        raise SourceError(f"{what} is stored column by column or big-endian, which Equinox never does")
    start, length = stream.tell(), math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or start + length > size:
        spec = print_spec(jax.ShapeDtypeStruct(shape, dtype))
        raise SourceError(f"{what} is said to be {spec}, more than the file holds")
    stream.seek(start + length)
    return jax.ShapeDtypeStruct(shape, dtype), start


FORMAT = Format(
    name="equinox",
    words="Equinox: a file of tree_serialise_leaves, loaded by position",
    recognises=recognises,
    is_named=is_named,
    opens=EqxSource,
    magic=MAGIC,
)
