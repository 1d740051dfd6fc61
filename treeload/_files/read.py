"""Leaves that lie in a file as plain bytes, read into buffers that JAX takes over without a copy.

Knows no format: where a leaf lies is told by the format's own file.

Reading is bounded by the first touch of fresh memory, not by the copy out of the page cache. So two
threads read ahead of the consumer, 16 MiB at a time, while it places what is there (``pieces``), and look at
what they read (``intact``). Small leaves that lie side by side are scattered by one ``preadv`` into buffers
of their own: none of them pins another's memory.

A file far away is read by more threads in smaller pieces, so that several requests are under way at once;
what lies near to each other comes by one. The bytes under way are those of the buffers, and no more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np

from treeload._errors import SourceError
from treeload._files.budget import in_flight
from treeload._files.digests import Digest
from treeload._files.gaps import with_gaps
from treeload._files.intact import check_leaves, look_at_segments
from treeload._files.open import File, check_unchanged, opened
from treeload._files.pieces import (
    ALIGNMENT,
    HOT,
    Leaf,
    Segment,
    Stored,
    aligned,
    batches,
    groups,
    on_host,
    prepared,
)
from treeload._files.place import Handle
from treeload._files.regions import Box, boxes_of, extents_of, is_spread, placed_together, slices_of
from treeload._files.request import check_requests
from treeload._leaves.spec import Spec, nbytes
from treeload._naming.name import Name, print_name

_AHEAD = 64 << 20  # bytes read ahead of the consumer, or one leaf if that is larger


# --- Leaves that lie in a file as plain bytes --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reading:
    """Leaves whose pieces threads are filling, and how many bytes that is."""

    leaves: Sequence[Leaf]
    futures: Sequence[Future[None]]
    size: int


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
            leaves = [prepared(name, stored[name], requests[name], digests.get(name)) for name in names]
            futures = [threads.submit(_fill, handle, file, batch) for batch in batches(leaves, handle)]
            return _Reading(leaves, futures, sum(nbytes(leaf.request) for leaf in leaves))

        coming = map(start, groups(stored))  # lazily: memory is taken and threads are fed at each next()
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
            check_leaves(current.leaves, file, handle)
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


def _fill(handle: Handle, file: File, batch: Sequence[Segment]) -> None:
    """Fills the segments and looks at them: those that follow each other in the file by one call.

    But no more of them than stay in the cache until they were looked at, where they have digests. A file far
    away is asked once for all.
    """
    if handle.is_far:
        _fill_run(handle, file, batch)
        return
    run: list[Segment] = []
    size = 0
    for segment in batch:
        follows = bool(run) and run[-1].offset + len(run[-1].buffer) == segment.offset
        is_checked = bool(segment.digests) or segment.leaf.checksum is not None
        if run and (not follows or (is_checked and size + len(segment.buffer) > HOT)):
            _fill_run(handle, file, run)
            run, size = [], 0
        run.append(segment)
        size += len(segment.buffer)
    _fill_run(handle, file, run)


def _fill_run(handle: Handle, file: File, run: Sequence[Segment]) -> None:
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
    look_at_segments(handle, file, run)


def _name_at(run: Sequence[Segment], offset: int) -> str:
    """Whose bytes ``offset`` is, or comes before."""
    ends = ((segment.offset + len(segment.buffer), segment) for segment in run)
    return print_name(next(segment for end, segment in ends if end > offset).leaf.name)


def _place(leaves: Sequence[Leaf]) -> deque[tuple[Name, Any]]:
    """The leaves as their requests want them: on the host, on one device, or spread over several."""
    values = placed_together([(leaf.request, _cutting(leaf)) for leaf in leaves])
    return deque(zip((leaf.name for leaf in leaves), values, strict=True))


def _cutting(leaf: Leaf) -> Callable[[Box], np.ndarray[Any, Any]]:
    if not is_spread(leaf.request.sharding):
        array = on_host(leaf.pieces[0], leaf.request.dtype)
        return lambda box: array
    return cutting(leaf.request, [(piece.box, on_host(piece, leaf.request.dtype)) for piece in leaf.pieces])


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
        if may_share and window.flags.c_contiguous and begins % ALIGNMENT == 0:
            return window
        part: np.ndarray[Any, Any] = aligned(window.nbytes).view(array.dtype).reshape(window.shape)
        part[...] = window
        return part

    return cut


def _is_within(box: Box, other: Box) -> bool:
    return all(a <= c and d <= b for (c, d), (a, b) in zip(box, other, strict=True))
