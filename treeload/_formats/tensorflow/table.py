"""A sorted table of keys and values, in blocks that are all checked: LevelDB's, which TensorFlow uses.

https://github.com/google/leveldb/blob/main/doc/table_format.md and TensorFlow's ``lib/io/format.cc``. A
footer of 48 bytes says where the block is that says where the other blocks are. Each ends in a byte, 0
where it is not compressed, and its checksum. A key is stored as how much of the one before it begins with,
and the rest.

Owns the bytes of the table. What keys and values mean is in ``bundle``. Whatever is wrong is a ValueError
here; whoever calls it adds the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from treeload._files.crc32c import masked_crc32c
from treeload._formats.tensorflow.wire import varint

FOOTER = 48


MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
"""What a table ends in."""


_TRAILER = 5  # of a block: how it is compressed, and its checksum


_COMPRESSED = {1: "snappy", 2: "zlib", 4: "zstd"}


_MOST_KEYS = 64 << 20  # bytes of all keys together, of which a short table may make very many


def entries(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every key and its value, in the order of the keys.

    Raises:
        ValueError: the bytes are no such table, a block is damaged or compressed, or keys are not in order.
    """
    if len(raw) < FOOTER or not raw.endswith(MAGIC):
        raise ValueError("it does not end as a table does: it was cut short, or is something else")
    footer = raw[-FOOTER:]
    more, at = _handle(footer, 0)
    index, _ = _handle(footer, at)
    _block(raw, more)  # it says nothing to us; that it is whole does
    before, end, taken = None, 0, 0
    for _, value in _in_block(_block(raw, index)):
        where, _ = _handle(value, 0)
        if where[0] < end:  # else a short table could have a large block many times
            raise ValueError(f"its block at byte {where[0]:,} overlaps the one before it")
        end = where[0] + where[1]
        for key, held in _in_block(_block(raw, where)):
            if before is not None and key <= before:
                raise ValueError(f"its keys are not in order: {key[:80]!r} follows {before[:80]!r}")
            taken += len(key)
            if taken > _MOST_KEYS:
                raise ValueError(f"its keys take more than {_MOST_KEYS:,} bytes")
            yield key, held
            before = key


def _handle(raw: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Where a block lies: its first byte, and how many there are; and where the handle ends."""
    offset, at = varint(raw, at)
    size, at = varint(raw, at)
    return (offset, size), at


def _block(raw: bytes, where: tuple[int, int]) -> bytes:
    offset, size = where
    stop = offset + size + _TRAILER
    if stop > len(raw) - FOOTER:
        raise ValueError(f"its block of {size:,} bytes at byte {offset:,} ends behind it")
    said = int.from_bytes(raw[stop - 4 : stop], "little")
    if masked_crc32c(raw[offset : stop - 4]) != said:
        raise ValueError(f"its block at byte {offset:,} is damaged: its checksum is another one")
    how = raw[stop - _TRAILER]
    if how:
        by = _COMPRESSED.get(how, f"method {how}")
        raise ValueError(
            f"its block at byte {offset:,} is compressed ({by}), which TensorFlow never does in an index"
        )
    return raw[offset : offset + size]


def _in_block(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise ValueError("a block without its end")
    restarts = int.from_bytes(block[-4:], "little")  # where whole keys are: of use to a search alone
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise ValueError("a block whose restarts begin before it")
    block, at, key = block[:end], 0, b""
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or own + size > end - at:
            raise ValueError(f"an entry that says more than there is, behind {key[:80]!r}")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + size]
        at += size
