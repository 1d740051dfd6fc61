"""Leaves that lie in a file as plain bytes, cut into what one thread reads at a time.

Owns how large that is: small enough that several threads have something to do and that bytes are looked at
while they are in the cache, and large enough that a call is worth its while. Reads nothing (``read``), and
judges nothing (``intact``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from treeload._errors import SourceError
from treeload._files.budget import in_flight
from treeload._files.crc import Checksum
from treeload._files.digests import Digest, covers, ranges
from treeload._files.gaps import Gaps
from treeload._files.open import File
from treeload._files.place import Handle
from treeload._files.regions import (
    Box,
    boxes_of,
    extents_of,
    first_element,
    is_contiguous,
    is_spread,
    whole_box,
)
from treeload._leaves.spec import Spec, nbytes, print_spec
from treeload._naming.name import Name, print_name

Bytes: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.uint8]]"


CHUNK = 16 << 20  # bytes that one thread reads at a time


HOT = 4 << 20  # bytes that are still in the cache after they were read


SEGMENTS = 256  # buffers filled by one preadv; the systems' limit is 1024


ALIGNMENT = 64  # where JAX on CPU takes a buffer over without a copy


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a leaf lies: contiguous, row-major, little-endian, uncompressed, from ``offset`` on.

    Attributes:
        checksum: what its bytes give together, where the file says so. A leaf that has one, and no digest, is
            read whole, since no part of it can be told to be intact.
    """

    file: File
    offset: int
    spec: Spec
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of a leaf that is contiguous in the file, and the buffer that it is read into."""

    box: Box
    offset: int
    buffer: Bytes


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf on its way: its pieces are being read, or lie there."""

    name: Name
    request: Spec
    pieces: tuple[Piece, ...]
    known: Digest | None
    checksum: Checksum | None
    sums: dict[int, int] = field(default_factory=dict)  # where a segment begins → its CRC-32


@dataclass(frozen=True, slots=True)
class Segment:
    """What is read in one go: where it is in the file, what it fills, whose it is, and what it must give."""

    offset: int
    buffer: Bytes
    leaf: Leaf
    digests: Sequence[tuple[int, int, str]] = ()  # of bytes of it, from and to


def groups(stored: Mapping[Name, Stored]) -> Iterator[list[Name]]:
    """The names in order, small leaves together: what is read, placed and yielded at once."""
    group: list[Name] = []
    size = 0
    for name, leaf in stored.items():
        group.append(name)
        size += nbytes(leaf.spec)
        if size >= min(CHUNK, in_flight(CHUNK)) or len(group) == SEGMENTS:
            yield group
            group, size = [], 0
    if group:
        yield group


def prepared(name: Name, stored: Stored, request: Spec, known: Digest | None = None) -> Leaf:
    """The leaf with buffers for the parts of it that the request's sharding has on this host."""
    shape, itemsize = request.shape, request.dtype.itemsize
    checksum = stored.checksum if known is None else None
    boxes: Sequence[Box] = (whole_box(shape),)
    if is_spread(request.sharding) and not checksum:
        boxes = covers(boxes_of(request), shape, known)
        if not all(is_contiguous(box, shape) for box in boxes):
            rows = (min(box[0][0] for box in boxes), max(box[0][1] for box in boxes))
            boxes = ((rows, *whole_box(shape[1:])),)
    try:
        pieces = tuple(
            Piece(
                box=box,
                offset=stored.offset + first_element(box, shape) * itemsize,
                buffer=aligned(math.prod(extents_of(box)) * itemsize),
            )
            for box in sorted(boxes)
        )
    except MemoryError as error:
        raise SourceError(
            f"{print_name(name)} ({print_spec(request)}, {nbytes(request):,} bytes) in {stored.file}: "
            "not enough memory"
        ) from error
    return Leaf(name, request, pieces, known, checksum)


def aligned(count: int) -> Bytes:
    """Uninitialised bytes that start where ``jax.device_put`` on CPU takes them over without a copy."""
    buffer = np.empty(count + ALIGNMENT, np.uint8)
    start = -buffer.__array_interface__["data"][0] % ALIGNMENT
    return buffer[start : start + count]


def batches(leaves: Sequence[Leaf], handle: Handle) -> Iterator[list[Segment]]:
    """What one thread is given at a time: at most 16 MiB, in at most 256 buffers.

    Of a file far away, only what is worth one request.
    """
    batch: list[Segment] = []
    size, end, gaps = 0, 0, Gaps()
    most = min(CHUNK, handle.piece)
    for leaf in leaves:
        for segment in (each for piece in leaf.pieces for each in _segments(leaf, piece, most)):
            count = len(segment.buffer)
            fits = size + count <= most and len(batch) < SEGMENTS
            if batch and not (fits and (not handle.is_far or gaps.bridges(segment.offset - end, count))):
                yield batch
                batch, size, gaps = [], 0, Gaps()
            if not batch:
                gaps.bridges(0, count)
            batch.append(segment)
            size, end = size + count, segment.offset + count
    if batch:
        yield batch


def _segments(leaf: Leaf, piece: Piece, chunk: int) -> Iterator[Segment]:
    """A piece in parts of ``chunk`` bytes, or with the digests of all that each holds where it has any.

    Those are of 4 MiB, so that the bytes are still in the cache when they are looked at: nearly for nothing.
    """
    known = None if leaf.known is None else ranges(piece.box, leaf.request.shape, leaf.known)
    if known is None or not piece.buffer.size:
        most = chunk if leaf.checksum is None else min(chunk, HOT)
        for start in range(0, len(piece.buffer), most):
            yield Segment(piece.offset + start, piece.buffer[start : start + most], leaf)
        return
    itemsize, most = leaf.request.dtype.itemsize, min(chunk, HOT)
    start, digests = 0, []
    for at, end, expected in known:
        digests.append((at * itemsize - start, end * itemsize - start, expected))
        if end * itemsize - start >= most or end == known[-1][1]:
            stop = end * itemsize
            yield Segment(piece.offset + start, piece.buffer[start:stop], leaf, digests)
            start, digests = stop, []


def on_host(piece: Piece, dtype: Any) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = piece.buffer.view(dtype).reshape(extents_of(piece.box))
    return array
