"""What the index of a tensor bundle says of each tensor, held against the data files before it is believed.

TensorFlow's ``core/protobuf/tensor_bundle.proto`` and ``util/tensor_bundle/tensor_bundle.h``: the value of
the empty key is the header, each other one an entry with dtype, shape, data file, place and checksum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import ml_dtypes
import numpy as np

from treeload._errors import SourceError
from treeload._files.open import File, brief, look_beside, opened, read_bytes
from treeload._files.pieces import Stored
from treeload._formats.tensorflow import wire
from treeload._formats.tensorflow.table import entries
from treeload._leaves.spec import print_spec
from treeload._naming.bounds import MOST_CHARACTERS

INDEX = ".index"


DTYPES: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {
        1: np.dtype("<f4"),
        2: np.dtype("<f8"),
        3: np.dtype("<i4"),
        4: np.dtype("<u1"),
        5: np.dtype("<i2"),
        6: np.dtype("<i1"),
        8: np.dtype("<c8"),
        9: np.dtype("<i8"),
        10: np.dtype(np.bool_),
        14: np.dtype(ml_dtypes.bfloat16),
        17: np.dtype("<u2"),
        18: np.dtype("<c16"),
        19: np.dtype("<f2"),
        22: np.dtype("<u4"),
        23: np.dtype("<u8"),
        24: np.dtype(ml_dtypes.float8_e5m2),
        25: np.dtype(ml_dtypes.float8_e4m3fn),
        26: np.dtype(ml_dtypes.float8_e4m3fnuz),
        27: np.dtype(ml_dtypes.float8_e4m3b11fnuz),
        28: np.dtype(ml_dtypes.float8_e5m2fnuz),
    }
)
"""``DataType`` of ``types.proto`` → the dtype here."""


_NO_ARRAYS = {7: "DT_STRING", 20: "DT_RESOURCE", 21: "DT_VARIANT"}


_REFUSED = {
    11: "DT_QINT8", 12: "DT_QUINT8", 13: "DT_QINT32", 15: "DT_QINT16", 16: "DT_QUINT16",
    29: "DT_INT4", 30: "DT_UINT4", 31: "DT_INT2", 32: "DT_UINT2",
}  # fmt: skip


_NEWEST = 1  # kTensorBundleVersion


_MOST_BYTES = 64 << 20  # of an index: 100,000 tensors take about 10 MB


_MOST_SHARDS = 100_000  # their names have five digits


_MOST_DIMENSIONS = 64  # NumPy's limit


_MOST = 2**63 - 1


_SLICE = b"\0"  # what the keys of a partitioned variable's slices begin with


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies, and the masked CRC-32C of its bytes."""

    stored: Stored
    checksum: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """What an index says.

    Attributes:
        tensors: key → where the tensor lies, in the order of the keys.
        others: the keys of what is no array: strings, such as the graph of objects, and resources.
        shards: how many data files there are.
    """

    tensors: Mapping[str, Tensor]
    others: tuple[str, ...]
    shards: int


def read_bundle(index: File) -> Bundle:
    """What the index says; of the data files, whether they are there and how long they are.

    Raises:
        SourceError: anything in it that is not as the format says, or that the data files cannot hold.
    """
    if index.size > _MOST_BYTES:
        raise _malformed(index, f"it has {index.size:,} bytes, and {_MOST_BYTES:,} are plenty")
    with opened(index) as handle:
        raw = read_bytes(handle, index.size, 0)
    shards: dict[int, File] = {}
    tensors: dict[str, Tensor] = {}
    others: list[str] = []
    count = None
    try:
        for key, value in entries(raw):
            if count is None:
                if key:
                    raise ValueError("its first key is not the header's")
                count = _shards(value)
                continue
            if key.startswith(_SLICE):  # of a partitioned variable, which comes later and is refused by name
                continue
            name = _text(key)
            entry = _entry(name, value, count)
            if entry is None:
                others.append(name)
                continue
            if entry.shard not in shards:
                shards[entry.shard] = look_beside(index.path.parent, _data_file(index, entry.shard, count))
            tensors[name] = _placed(name, entry, shards[entry.shard])
    except ValueError as error:
        raise _malformed(index, str(error)) from error
    if count is None:
        raise _malformed(index, "it holds nothing, not even the header")
    _check_apart(index, tensors)
    return Bundle(MappingProxyType(tensors), tuple(others), count)


def _text(key: bytes) -> str:
    if len(key) > 4 * MOST_CHARACTERS:
        raise ValueError(f"a key of {len(key):,} bytes")
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"the key {key[:80]!r} is no text") from None


def _shards(value: bytes) -> int:
    """How many data files the header says there are."""
    header = wire.parse(value)
    if wire.number(header, 2):
        raise ValueError("it was written on a big-endian machine, whose arrays treeload does not read")
    for version in wire.messages(header, 3):
        needed = wire.number(wire.parse(version), 2)
        if needed > _NEWEST:
            raise ValueError(f"it is of a newer TensorFlow: it needs a reader of version {needed}")
    count = wire.number(header, 1)
    if not 1 <= count <= _MOST_SHARDS:
        raise ValueError(f"it says that there are {count:,} data files")
    return count


@dataclass(frozen=True, slots=True)
class _Entry:
    spec: jax.ShapeDtypeStruct
    shard: int
    offset: int
    size: int
    checksum: int


def _entry(name: str, value: bytes, shards: int) -> _Entry | None:
    """What one entry says, if it agrees with itself; None where it is no array."""
    try:
        fields = wire.parse(value)
        code = wire.number(fields, 1)
        if code in _NO_ARRAYS:
            return None
        if wire.messages(fields, 7):
            raise ValueError("it is a partitioned variable, whose slices treeload does not join")
        dtype = DTYPES.get(code)
        if dtype is None:
            raise ValueError(f"its dtype {_REFUSED.get(code, f'number {code}')} cannot be read")
        spec = jax.ShapeDtypeStruct(_shape(wire.messages(fields, 2), dtype.itemsize), dtype)
        shard, offset, size = (wire.number(fields, field) for field in (3, 4, 5))
        expected = math.prod(spec.shape) * dtype.itemsize
        if size != expected:
            raise ValueError(f"{print_spec(spec)} takes {expected:,} bytes, and it has {size:,}")
        if not 0 <= shard < shards:
            raise ValueError(f"it lies in data file {shard:,} of {shards:,}")
        if offset < 0:
            raise ValueError(f"it begins at byte {offset:,}")
        return _Entry(spec, shard, offset, size, wire.number(fields, 6))
    except ValueError as error:
        raise ValueError(f"{brief(name)}: {error}") from error


def _shape(said: list[bytes], itemsize: int) -> tuple[int, ...]:
    shape = wire.parse(b"".join(said))  # a message that is there twice is one, as the format says
    if wire.number(shape, 3):
        raise ValueError("its shape is not known")
    dimensions = wire.messages(shape, 2)
    if len(dimensions) > _MOST_DIMENSIONS:
        raise ValueError(f"its shape has {len(dimensions):,} dimensions")
    sizes = tuple(wire.number(wire.parse(each), 1) for each in dimensions)
    # Python's integers do not overflow, NumPy's do: also where another axis is 0.
    if min(sizes, default=0) < 0 or math.prod(size or 1 for size in sizes) * itemsize > _MOST:
        raise ValueError(f"its shape {list(sizes)} is none that an array can have")
    return sizes


def _data_file(index: File, shard: int, count: int) -> str:
    return f"{index.path.name.removesuffix(INDEX)}.data-{shard:05d}-of-{count:05d}"


def _placed(name: str, entry: _Entry, file: File) -> Tensor:
    if entry.offset + entry.size > file.size:
        raise SourceError(
            f"{file} is cut short: it has {file.size:,} bytes, and {brief(name)} ends at byte "
            f"{entry.offset + entry.size:,}"
        )
    return Tensor(Stored(file, entry.offset, entry.spec), entry.checksum)


def _check_apart(index: File, tensors: Mapping[str, Tensor]) -> None:
    """No byte belongs to two tensors: else a short index makes a checkpoint of any size."""
    end: dict[str, tuple[int, str]] = {}
    in_order = sorted(tensors.items(), key=lambda each: (each[1].stored.file.real, each[1].stored.offset))
    for name, tensor in in_order:
        stored = tensor.stored
        size = math.prod(stored.spec.shape) * stored.spec.dtype.itemsize
        before, other = end.get(stored.file.real, (0, ""))
        if size and stored.offset < before:
            raise _malformed(index, f"{brief(name)} overlaps {brief(other)} in its data file")
        if size:
            end[stored.file.real] = (stored.offset + size, name)


def _malformed(index: File, why: str) -> SourceError:
    return SourceError(f"{index} is no valid index of a TensorFlow checkpoint: {why}")
