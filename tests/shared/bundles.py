"""Bundles as TensorFlow writes them, and as it never would: what the tests of that format read.

Written from the format's description alone and not from the reader, whose checksum is another algorithm.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

CODES = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "complex64": 8, "int64": 9,
    "bool": 10, "bfloat16": 14, "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22, "uint64": 23,
    "float8_e5m2": 24, "float8_e4m3fn": 25, "float8_e4m3fnuz": 26, "float8_e4m3b11fnuz": 27,
    "float8_e5m2fnuz": 28,
}  # fmt: skip


MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


def _byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = [_byte(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value: int) -> bytes:
    value %= 1 << 64
    made = b""
    while value >= 0x80:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def header(shards: int = 1, **fields: Any) -> bytes:
    version = field(1, 1) + (field(2, fields["min_consumer"]) if "min_consumer" in fields else b"")
    return field(1, shards) + field(2, fields.get("endianness", 0)) + field(3, version)


def shape(sizes: Iterable[int]) -> bytes:
    return b"".join(field(2, field(1, size)) for size in sizes)


def entry(
    dtype: int, sizes: Iterable[int], raw: bytes, offset: int, shard: int = 0, /, **changed: Any
) -> bytes:
    """A ``BundleEntryProto``; ``changed`` are fields that lie, or further ones as bytes in ``more``."""
    return (
        field(1, changed.get("dtype", dtype))
        + field(2, changed.get("shape", shape(sizes)))
        + field(3, changed.get("shard", shard))
        + field(4, changed.get("offset", offset))
        + field(5, changed.get("size", len(raw)))
        + varint(6 << 3 | 5)
        + changed.get("crc", masked(raw))
        + changed.get("more", b"")
    )


def block(pairs: Sequence[tuple[bytes, bytes]], *, restart: int = 16, kind: int = 0) -> bytes:
    """A block with its trailer; keys are cut where they begin as the one before."""
    made, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number % restart == 0:
            restarts.append(len(made))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        made += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    made += b"".join(struct.pack("<I", each) for each in restarts or [0])
    return sealed(made + struct.pack("<I", len(restarts or [0])), kind)


def sealed(contents: bytes, kind: int = 0) -> bytes:
    contents += bytes([kind])
    return contents + masked(contents)


def handle(offset: int, block: bytes) -> bytes:
    return varint(offset) + varint(len(block) - 5)


def table(pairs: Sequence[tuple[bytes, bytes]], *, most: int = 40, kind: int = 0) -> bytes:
    """A table whose blocks hold ``most`` entries each."""
    blocks = [block(pairs[at : at + most], kind=kind) for at in range(0, len(pairs), most)]
    return of_blocks(blocks, [pairs[min(at + most, len(pairs)) - 1][0] for at in range(0, len(pairs), most)])


def of_blocks(blocks: Sequence[bytes], keys: Sequence[bytes], offsets: Sequence[int] | None = None) -> bytes:
    made, found = b"", []
    for each in blocks:
        found.append(len(made))
        made += each
    meta, at = block([]), len(made)
    made += meta
    where = found if offsets is None else list(offsets)
    index = block(
        [(key, handle(at, each)) for key, at, each in zip(keys, where, blocks, strict=True)], restart=1
    )
    footer = handle(at, meta) + handle(len(made), index)
    return made + index + footer.ljust(40, b"\0") + MAGIC


def dtype_code(dtype: Any) -> int:
    return CODES[str(np.dtype(dtype))]


def write(
    prefix: Path,
    tensors: Mapping[str, Any],
    *,
    shards: int = 1,
    more: Mapping[str, bytes] | None = None,
    changed: Mapping[str, Mapping[str, Any]] | None = None,
    said: bytes | None = None,
) -> Path:
    """Writes a bundle; ``more`` are further entries as bytes, ``changed`` says what lies of a tensor's."""
    data = [b""] * shards
    entries = {b"": header(shards) if said is None else said}
    for number, name in enumerate(sorted(tensors)):
        array = np.asarray(tensors[name])
        raw, shard = array.tobytes(), number % shards
        lies = dict((changed or {}).get(name, {}))
        entries[name.encode()] = entry(
            dtype_code(array.dtype), array.shape, raw, len(data[shard]), shard, **lies
        )
        data[shard] += raw
    entries |= {key.encode(): value for key, value in (more or {}).items()}
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(sorted(entries.items())))
    for shard, raw in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(raw)
    return prefix


def array_of(values: Sequence[Any], dtype: str) -> np.ndarray[Any, Any]:
    return np.asarray(values).astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
