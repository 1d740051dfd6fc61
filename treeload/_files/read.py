"""Leaves that lie in a file as plain bytes, read into buffers that JAX takes over without a copy.

Knows no format: where a leaf lies is told by the format's own file.

Reading is bounded by the first touch of fresh memory, not by the copy out of the page cache. So two
threads read ahead of the consumer, 16 MiB at a time, while it places what is there; buffers are
uninitialised (NumPy asks for huge pages from 4 MiB on) and start on a 64-byte boundary, where
``jax.device_put`` on CPU takes a buffer over instead of copying it. Small leaves that lie side by side
are scattered by one ``preadv`` into buffers of their own: none of them pins another's memory.

A file far away is read by more threads in smaller pieces, so that several requests are under way at once;
what lies near to each other comes by one. The bytes under way are those of the buffers, and no more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from treeload._errors import SourceError
from treeload._files.budget import in_flight
from treeload._files.crc import Checksum, combined, crc32, damaged_member
from treeload._files.digests import Digest, covers, damaged, digest, is_intact, ranges
from treeload._files.gaps import Gaps, with_gaps
from treeload._files.open import File, check_unchanged, opened
from treeload._files.place import Handle
from treeload._files.regions import (
    Box,
    boxes_of,
    extents_of,
    first_element,
    is_contiguous,
    is_spread,
    placed_together,
    slices_of,
    whole_box,
)
from treeload._files.request import check_requests
from treeload._leaves.spec import Spec, nbytes, print_spec
from treeload._naming.name import Name, print_name

Bytes: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.uint8]]"


_CHUNK = 16 << 20  # bytes that one thread reads at a time


_AHEAD = 64 << 20  # bytes read ahead of the consumer, or one leaf if that is larger


_HOT = 4 << 20  # bytes that are still in the cache after they were read


_SEGMENTS = 256  # buffers filled by one preadv; the systems' limit is 1024


_ALIGNMENT = 64  # where JAX on CPU takes a buffer over without a copy


# --- Leaves that lie in a file as plain bytes --------------------------------------------------------


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
class _Piece:
    """A box of a leaf that is contiguous in the file, and the buffer that it is read into."""

    box: Box
    offset: int
    buffer: Bytes


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A leaf on its way: its pieces are being read, or lie there."""

    name: Name
    request: Spec
    pieces: tuple[_Piece, ...]
    known: Digest | None
    checksum: Checksum | None
    sums: dict[int, int] = field(default_factory=dict)  # where a segment begins → its CRC-32


@dataclass(frozen=True, slots=True)
class _Reading:
    """Leaves whose pieces threads are filling, and how many bytes that is."""

    leaves: Sequence[_Leaf]
    futures: Sequence[Future[None]]
    size: int


@dataclass(frozen=True, slots=True)
class _Segment:
    """What is read in one go: where it is in the file, what it fills, whose it is, and what it must give."""

    offset: int
    buffer: Bytes
    leaf: _Leaf
    digests: Sequence[tuple[int, int, str]] = ()  # of bytes of it, from and to


def read_stored(
    stored: Mapping[Name, Stored],
    requests: Mapping[Name, Spec],
    label: str,
    digests: Mapping[Name, Digest] = MappingProxyType({}),
) -> Iterator[tuple[Name, Any]]:
    """The leaves asked for, file by file and in the order in which they lie there, as ``Source.read`` says.

    Held at any time: what is being yielded (a leaf, or small ones of 16 MiB together), and ahead 64 MiB,
    or what the load's budget says, or one leaf. Of a leaf that is spread over several hosts, its part of it
    is read, and what lies in the same blocks, so that all of it can be verified.

    Args:
        stored: where the leaves lie.
        requests: as ``Source.read`` has them.
        label: what holds the leaves, for messages.
        digests: what the bytes of leaves must give, where that is known.

    Raises:
        SourceError: a request that no leaf answers to; a file that has changed, ends early, or cannot be
            read; bytes that are not those of the digest; a boolean that is neither 0 nor 1; not enough
            memory.
    """
    check_requests(requests, {name: stored[name].spec for name in requests if name in stored}, label)
    in_order = sorted(requests, key=lambda name: (stored[name].file.real, stored[name].offset))
    for _, names in groupby(in_order, key=lambda name: stored[name].file.real):
        yield from _read_file({name: stored[name] for name in names}, requests, digests)


def _read_file(
    stored: Mapping[Name, Stored], requests: Mapping[Name, Spec], digests: Mapping[Name, Digest]
) -> Iterator[tuple[Name, Any]]:
    file = next(iter(stored.values())).file
    # The threads are left before the descriptor is closed: none of them reads from one that is reused.
    with opened(file) as handle, reading_threads(handle) as threads:

        def start(names: Sequence[Name]) -> _Reading:
            leaves = [_prepare(name, stored[name], requests[name], digests.get(name)) for name in names]
            futures = [threads.submit(_fill, handle, file, batch) for batch in _batches(leaves, handle)]
            return _Reading(leaves, futures, sum(nbytes(leaf.request) for leaf in leaves))

        coming = map(start, _groups(stored))  # lazily: memory is taken and threads are fed at each next()
        ahead: deque[_Reading] = deque()
        bytes_ahead = 0
        current = next(coming, None)
        while current is not None:
            while bytes_ahead < in_flight(_AHEAD) and (reading := next(coming, None)) is not None:
                ahead.append(reading)
                bytes_ahead += reading.size
            for future in current.futures:
                future.result()
            if not ahead:
                check_unchanged(file, handle)  # before the last leaves go: whoever reads all sees it
            _verify(current.leaves, file, handle)
            placed = _place(current.leaves)
            current = reading = ahead.popleft() if ahead else None
            bytes_ahead -= current.size if current is not None else 0
            while placed:  # let go of one by one, so that the caller can free them
                yield placed.popleft()


@contextmanager
def reading_threads(handle: Handle) -> Iterator[ThreadPoolExecutor]:
    """As many threads as a file is read by; they are let go, and have ended, once the body ends."""
    threads = ThreadPoolExecutor(handle.threads, thread_name_prefix="treeload-read")
    try:
        yield threads
    finally:
        handle.stop()  # whoever still waits for a server waits for nobody
        threads.shutdown(wait=True, cancel_futures=True)


def _groups(stored: Mapping[Name, Stored]) -> Iterator[list[Name]]:
    """The names in order, small leaves together: what is read, placed and yielded at once."""
    group: list[Name] = []
    size = 0
    for name, leaf in stored.items():
        group.append(name)
        size += nbytes(leaf.spec)
        if size >= min(_CHUNK, in_flight(_CHUNK)) or len(group) == _SEGMENTS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _prepare(name: Name, stored: Stored, request: Spec, known: Digest | None = None) -> _Leaf:
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
            _Piece(
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
    return _Leaf(name, request, pieces, known, checksum)


def aligned(count: int) -> Bytes:
    """Uninitialised bytes that start where ``jax.device_put`` on CPU takes them over without a copy."""
    buffer = np.empty(count + _ALIGNMENT, np.uint8)
    start = -buffer.__array_interface__["data"][0] % _ALIGNMENT
    return buffer[start : start + count]


def _batches(leaves: Sequence[_Leaf], handle: Handle) -> Iterator[list[_Segment]]:
    """What one thread is given at a time: at most 16 MiB, in at most 256 buffers.

    Of a file far away, only what is worth one request.
    """
    batch: list[_Segment] = []
    size, end, gaps = 0, 0, Gaps()
    most = min(_CHUNK, handle.piece)
    for leaf in leaves:
        for segment in (each for piece in leaf.pieces for each in _segments(leaf, piece, most)):
            count = len(segment.buffer)
            fits = size + count <= most and len(batch) < _SEGMENTS
            if batch and not (fits and (not handle.is_far or gaps.bridges(segment.offset - end, count))):
                yield batch
                batch, size, gaps = [], 0, Gaps()
            if not batch:
                gaps.bridges(0, count)
            batch.append(segment)
            size, end = size + count, segment.offset + count
    if batch:
        yield batch


def _segments(leaf: _Leaf, piece: _Piece, chunk: int) -> Iterator[_Segment]:
    """A piece in parts of ``chunk`` bytes, or with the digests of all that each holds where it has any.

    Those are of 4 MiB, so that the bytes are still in the cache when they are looked at: nearly for nothing.
    """
    known = None if leaf.known is None else ranges(piece.box, leaf.request.shape, leaf.known)
    if known is None or not piece.buffer.size:
        most = chunk if leaf.checksum is None else min(chunk, _HOT)
        for start in range(0, len(piece.buffer), most):
            yield _Segment(piece.offset + start, piece.buffer[start : start + most], leaf)
        return
    itemsize, most = leaf.request.dtype.itemsize, min(chunk, _HOT)
    start, digests = 0, []
    for at, end, expected in known:
        digests.append((at * itemsize - start, end * itemsize - start, expected))
        if end * itemsize - start >= most or end == known[-1][1]:
            stop = end * itemsize
            yield _Segment(piece.offset + start, piece.buffer[start:stop], leaf, digests)
            start, digests = stop, []


def _fill(handle: Handle, file: File, batch: Sequence[_Segment]) -> None:
    """Fills the segments and looks at them: those that follow each other in the file by one call.

    But no more of them than stay in the cache until they were looked at, where they have digests. A file far
    away is asked once for all.
    """
    if handle.is_far:
        _fill_run(handle, file, batch)
        return
    run: list[_Segment] = []
    size = 0
    for segment in batch:
        follows = bool(run) and run[-1].offset + len(run[-1].buffer) == segment.offset
        is_checked = bool(segment.digests) or segment.leaf.checksum is not None
        if run and (not follows or (is_checked and size + len(segment.buffer) > _HOT)):
            _fill_run(handle, file, run)
            run, size = [], 0
        run.append(segment)
        size += len(segment.buffer)
    _fill_run(handle, file, run)


def _look_at(handle: Handle, file: File, run: Sequence[_Segment]) -> None:
    for segment in run:
        for start, stop, expected in segment.digests:
            if digest(segment.buffer[start:stop]) != expected:
                check_unchanged(file, handle)  # a file that is written meanwhile is not damaged
                raise damaged(f"{file}: {print_name(segment.leaf.name)!r}")
        if segment.leaf.checksum is not None:
            is_first = segment.offset == segment.leaf.pieces[0].offset
            before = segment.leaf.checksum.before if is_first else 0
            segment.leaf.sums[segment.offset] = crc32(segment.buffer.data, before)
        if segment.leaf.request.dtype == np.bool_ and segment.buffer.max() > 1:
            name = print_name(segment.leaf.name)
            raise SourceError(f"{name} in {file} holds a boolean that is neither 0 nor 1")


def _fill_run(handle: Handle, file: File, run: Sequence[_Segment]) -> None:
    """Fills segments that follow each other in the file, or nearly so, and looks at them."""
    offset = run[0].offset
    unfilled = with_gaps((segment.offset, segment.buffer.data) for segment in run)
    while unfilled:
        try:
            count = handle.fill(unfilled, offset)
        except OSError as error:
            name = _name_at(run, offset)
            raise SourceError(f"cannot read {name} from {file}: {error.strerror}") from error
        if count == 0:
            name = _name_at(run, offset)
            raise SourceError(f"{file} ends before {name} does: it was cut short while it was read")
        offset += count
        while unfilled and count >= len(unfilled[0]):
            count -= len(unfilled.pop(0))
        if count:
            unfilled[0] = unfilled[0][count:]
    _look_at(handle, file, run)


def _name_at(run: Sequence[_Segment], offset: int) -> str:
    """Whose bytes ``offset`` is, or comes before."""
    ends = ((segment.offset + len(segment.buffer), segment) for segment in run)
    return print_name(next(segment for end, segment in ends if end > offset).leaf.name)


def _verify(leaves: Sequence[_Leaf], file: File, handle: Handle) -> None:
    """Nothing, if those leaves are intact of which no segment could tell.

    Their blocks do not lie in the file as they lie in the leaf, or there is but one checksum of them all.
    """
    for leaf in leaves:
        known, shape = leaf.known, leaf.request.shape
        if leaf.checksum is not None and _sum(leaf, leaf.checksum) != leaf.checksum.value:
            check_unchanged(file, handle)
            raise damaged_member(f"{file}: {print_name(leaf.name)!r}")
        if known is None:
            continue
        for piece in leaf.pieces:
            if ranges(piece.box, shape, known) is None and not is_intact(
                _on_host(piece, leaf.request.dtype), piece.box, shape, known
            ):
                check_unchanged(file, handle)
                raise damaged(f"{file}: {print_name(leaf.name)!r}")


def _sum(leaf: _Leaf, checksum: Checksum) -> int:
    """The CRC-32 of all that was read of a leaf, from those of its segments."""
    starts = [*sorted(leaf.sums), leaf.pieces[0].offset + len(leaf.pieces[0].buffer)]
    total = leaf.sums.get(starts[0], checksum.before)
    for start, stop in pairwise(starts[1:]):
        total = combined(total, leaf.sums[start], stop - start)
    return total


def _place(leaves: Sequence[_Leaf]) -> deque[tuple[Name, Any]]:
    """The leaves as their requests want them: on the host, on one device, or spread over several."""
    values = placed_together([(leaf.request, _cutting(leaf)) for leaf in leaves])
    return deque(zip((leaf.name for leaf in leaves), values, strict=True))


def _cutting(leaf: _Leaf) -> Callable[[Box], np.ndarray[Any, Any]]:
    if not is_spread(leaf.request.sharding):
        array = _on_host(leaf.pieces[0], leaf.request.dtype)
        return lambda box: array
    return cutting(leaf.request, [(piece.box, _on_host(piece, leaf.request.dtype)) for piece in leaf.pieces])


def _on_host(piece: _Piece, dtype: Any) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = piece.buffer.view(dtype).reshape(extents_of(piece.box))
    return array


def cutting(
    request: Spec, parts: Sequence[tuple[Box, np.ndarray[Any, Any]]]
) -> Callable[[Box], np.ndarray[Any, Any]]:
    """What gives each of ``boxes_of(request)``, cut out of that one of the parts read that it lies in.

    Without a copy where it is that part; and where it is one range of it that JAX takes over as it is, unless
    it would keep alive what nobody asked for.
    """
    asked = sum(math.prod(extents_of(box)) for box in boxes_of(request))
    may_share = 2 * asked >= sum(array.size for _, array in parts)

    def cut(box: Box) -> np.ndarray[Any, Any]:
        where, array = next(each for each in parts if _is_within(box, each[0]))
        if where == box:
            return array
        window = array[slices_of(tuple((c - a, d - a) for (a, _), (c, d) in zip(where, box, strict=True)))]
        begins = window.__array_interface__["data"][0]
        if may_share and window.flags.c_contiguous and begins % _ALIGNMENT == 0:
            return window
        part: np.ndarray[Any, Any] = aligned(window.nbytes).view(array.dtype).reshape(window.shape)
        part[...] = window
        return part

    return cut


def _is_within(box: Box, other: Box) -> bool:
    return all(a <= c and d <= b for (c, d), (a, b) in zip(box, other, strict=True))
