"""Arrays of an Orbax store that are one chunk each, as they lie in its files: read without TensorStore.

Owns which arrays those are, by their headers, and where the bytes of each lie, by the store's index. Whatever
is cut, padded, or packed in another way than plain or zstd is left to TensorStore (``tensors``).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from treeload._files.crc32c import crc32c
from treeload._leaves.spec import Spec

INDEX = 20
"""Bytes of the index of a shard of one chunk: offset, length, and their crc32c."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The one chunk that is all of an array, row-major and little-endian.

    Attributes:
        key: below the array's.
        is_packed: it is a frame of zstd.
        behind: bytes that follow it under that key.
    """

    key: str
    is_packed: bool
    behind: int


def only_chunk(header: Mapping[str, Any], spec: Spec, zarr3: bool) -> Chunk | None:
    """How an array lies in its store, if all of it is one chunk that can be read without TensorStore.

    https://zarr-specs.readthedocs.io, v2 "Metadata", v3 "Array metadata" and "Sharding codec".
    """
    shape = list(spec.shape)
    return _of_zarr3(header, shape) if zarr3 else _of_zarr2(header, shape)


def _of_zarr3(header: Mapping[str, Any], shape: Sequence[int]) -> Chunk | None:
    grid, keys = header["chunk_grid"], header.get("chunk_key_encoding")
    separator = (keys or {}).get("configuration", {}).get("separator", "/")
    is_plain = grid["name"] == "regular" and keys is not None and keys["name"] == "default"
    if not is_plain or grid["configuration"]["chunk_shape"] != shape or header.get("storage_transformers"):
        return None
    codecs, behind = header["codecs"], 0
    if codecs and codecs[0]["name"] == "sharding_indexed":
        shard = codecs[0]["configuration"]
        index = shard["index_codecs"]
        known = _is_little(index[0]) and [codec["name"] for codec in index] == ["bytes", "crc32c"]
        if len(codecs) > 1 or shard["chunk_shape"] != shape or not known:
            return None
        if shard.get("index_location", "end") != "end":
            return None
        codecs, behind = shard["codecs"], INDEX
    names = [codec["name"] for codec in codecs]
    if names not in (["bytes"], ["bytes", "zstd"]) or not _is_little(codecs[0]):
        return None
    return Chunk(separator.join(["c", *["0"] * len(shape)]), len(names) == 2, behind)


def _is_little(codec: Mapping[str, Any]) -> bool:
    endian = codec.get("configuration", {}).get("endian", "little")
    return bool(codec["name"] == "bytes" and endian == "little")


def _of_zarr2(header: Mapping[str, Any], shape: Sequence[int]) -> Chunk | None:
    compressor = header.get("compressor")
    if (
        header["chunks"] != shape
        or header.get("order") != "C"
        or header.get("filters")
        or not isinstance(header["dtype"], str)
        or header["dtype"].startswith(">")
        or (compressor is not None and compressor.get("id") != "zstd")
    ):
        return None
    separator = header.get("dimension_separator", ".")
    return Chunk(separator.join("0" * max(1, len(shape))), compressor is not None, 0)


def prefix_of(key: str) -> str:
    """Where in the store an array lies, as TensorStore makes a directory of its key.

    Examples:
        >>> prefix_of("a.b"), prefix_of("a/"), prefix_of(""), prefix_of("/")
        ('a.b/', 'a/', '', '')
    """
    if key in ("", "/"):
        return ""
    return key if key.endswith("/") else f"{key}/"


@lru_cache(4096)
def shard_index(count: int) -> bytes:
    """What follows the one chunk of a shard: that it begins at 0 and has so many bytes, and their crc32c.

    A chunk that was moved or cut is told by it, though nothing is said of its bytes.
    """
    none, *bits = _crc_of_bits()
    crc = none
    for bit in range(count.bit_length()):
        if count >> bit & 1:
            crc ^= bits[bit]
    return struct.pack("<QQI", 0, count, crc)


@cache
def _crc_of_bits() -> tuple[int, ...]:
    """The crc32c of an index of nothing, and what each bit of the length changes in it: a CRC is linear."""
    none = crc32c(bytes(16))
    return none, *(crc32c(struct.pack("<QQ", 0, 1 << bit)) ^ none for bit in range(64))
