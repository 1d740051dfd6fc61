"""Leaves that are packed one by one, or that were found with their names: unpacked by several threads.

Owns how a frame of zstd becomes a buffer that JAX takes over: never more bytes of it than the leaf has.
Frames that lie side by side in a file are read together. Knows no format: where a frame lies is told by its
own.

Zstandard: RFC 8878, by the library ``zstandard``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from types import MappingProxyType
from typing import Any

import numpy as np

from treeload._errors import SourceError
from treeload._files.budget import in_flight
from treeload._files.digests import Digest, check_whole
from treeload._files.open import File, check_unchanged, opened, read_bytes
from treeload._files.pieces import Bytes, aligned
from treeload._files.place import Handle
from treeload._files.read import reading_threads
from treeload._files.regions import Box, placed_together, slices_of
from treeload._leaves.spec import Spec, nbytes, print_spec
from treeload._naming.name import Name, print_name

try:
    import zstandard
except ImportError:  # on a machine for which nobody has built it
    zstandard = None  # type: ignore[assignment]

CAN_UNPACK = zstandard is not None
"""Whether there is what frames are unpacked with."""


_RUN = 4 << 20  # bytes of frames that are read together


_FRAMES = 256  # frames of one run


_AHEAD = 16 << 20  # bytes of runs on their way, beside the one whose leaves are being taken


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the bytes of a leaf lie, in C order and little-endian.

    Attributes:
        spec: its shape and dtype.
        is_packed: they are a frame of zstd.
        held: they themselves; else they lie in a file.
        file, offset, length: where.
    """

    spec: Spec
    is_packed: bool
    held: bytes | None = None
    file: File | None = None
    offset: int = 0
    length: int = 0


def read_frames(
    frames: Mapping[Name, Frame],
    requests: Mapping[Name, Spec],
    label: str,
    digests: Mapping[Name, Digest] = MappingProxyType({}),
) -> Iterator[tuple[Name, Any]]:
    """The leaves asked for, each unpacked whole, as ``Source.read`` says.

    Held at any time: what is being yielded, and some runs of frames of 4 MiB (or one leaf) ahead of it.

    Args:
        frames: where those lie that are asked for.
        requests: as ``Source.read`` has them; they are known to be these leaves' own.
        label: what holds the leaves, for messages.
        digests: what the bytes of leaves must give, where that is known.

    Raises:
        SourceError: what is read is damaged, or there is not enough memory.
    """
    held = {name: frames[name] for name in requests if frames[name].held is not None}
    unpacker = _Unpacker(label, digests)
    for run in _runs(held):
        yield from _placed(
            [(name, unpacker.array(name, frame, frame.held or b"")) for name, frame in run], requests
        )
    in_files = sorted(
        (name for name in requests if frames[name].held is None),
        key=lambda name: (_file(frames[name]).real, frames[name].offset),
    )
    for _, several in groupby(in_files, key=lambda name: _file(frames[name]).real):
        yield from _read_file({name: frames[name] for name in several}, requests, label, digests)


def _file(frame: Frame) -> File:
    assert frame.file is not None  # as nothing is held
    return frame.file


def _read_file(
    frames: Mapping[Name, Frame],
    requests: Mapping[Name, Spec],
    label: str,
    digests: Mapping[Name, Digest],
) -> Iterator[tuple[Name, Any]]:
    file = _file(next(iter(frames.values())))
    with opened(file) as handle, reading_threads(handle) as threads:
        coming = (threads.submit(_unpack, handle, file, run, label, digests) for run in _runs(frames))
        ahead: deque[Future[list[tuple[Name, Any]]]] = deque(
            islice(coming, max(1, in_flight(_AHEAD) // _RUN))
        )
        while ahead:
            arrays = ahead.popleft().result()
            ahead.extend(islice(coming, 1))
            if not ahead:
                check_unchanged(file, handle)
            yield from _placed(arrays, requests)


def _runs(frames: Mapping[Name, Frame]) -> Iterator[list[tuple[Name, Frame]]]:
    """The frames in their order, as many together as are unpacked at once: in a file, one after the other."""
    run: list[tuple[Name, Frame]] = []
    size, end = 0, 0
    for name, frame in frames.items():
        most = max(frame.length, nbytes(frame.spec))
        follows = frame.held is not None or frame.offset == end
        if run and (not follows or size + most > min(_RUN, in_flight(_RUN)) or len(run) == _FRAMES):
            yield run
            run, size = [], 0
        run.append((name, frame))
        size, end = size + most, frame.offset + frame.length
    if run:
        yield run


def _unpack(
    handle: Handle,
    file: File,
    run: Sequence[tuple[Name, Frame]],
    label: str,
    digests: Mapping[Name, Digest],
) -> list[tuple[Name, Any]]:
    first = run[0][1].offset
    count = run[-1][1].offset + run[-1][1].length - first
    raw = memoryview(read_bytes(handle, count, first))
    if len(raw) < count:
        raise SourceError(
            f"{file} ends before {print_name(run[-1][0])} does: it was cut short while it was read"
        )
    unpacker = _Unpacker(label, digests)
    try:
        return [
            (
                name,
                unpacker.array(name, frame, raw[frame.offset - first : frame.offset - first + frame.length]),
            )
            for name, frame in run
        ]
    except SourceError:
        check_unchanged(file, handle)  # a file that is written meanwhile is not damaged
        raise


class _Unpacker:
    """What makes arrays of frames, in one thread."""

    def __init__(self, label: str, digests: Mapping[Name, Digest]) -> None:
        self._label, self._digests = label, digests
        self._zstd = zstandard.ZstdDecompressor() if CAN_UNPACK else None

    def array(self, name: Name, frame: Frame, raw: bytes | memoryview) -> np.ndarray[Any, Any]:
        """The leaf, on the host.

        Raises:
            SourceError: the frame does not have its bytes, or they are not those of its digest.
        """
        try:
            buffer = aligned(nbytes(frame.spec))
        except MemoryError as error:
            size = f"{print_spec(frame.spec)}, {nbytes(frame.spec):,} bytes"
            raise SourceError(f"{self._label}: {print_name(name)!r} ({size}): not enough memory") from error
        if frame.is_packed:
            self._unpack(name, raw, buffer)
        elif len(raw) != len(buffer):
            raise self._wrong(name, f"it has {len(raw):,} bytes, not {len(buffer):,}")
        else:
            buffer[...] = np.frombuffer(raw, np.uint8)
        if frame.spec.dtype == np.bool_ and buffer.size and buffer.max() > 1:
            raise self._wrong(name, "it holds a boolean that is neither 0 nor 1")
        found: np.ndarray[Any, Any] = buffer.view(frame.spec.dtype).reshape(frame.spec.shape)
        check_whole(found, self._digests.get(name), f"{self._label}: {print_name(name)!r}")
        return found

    def _unpack(self, name: Name, raw: bytes | memoryview, buffer: Bytes) -> None:
        assert self._zstd is not None  # or there are no such frames
        view, at = memoryview(buffer), 0  # type: ignore[arg-type]
        try:
            with self._zstd.stream_reader(raw) as frame:
                while at < len(view) and (count := frame.readinto(view[at:])):
                    at += count
                ends = not frame.read(1)
        except zstandard.ZstdError as error:
            raise self._wrong(name, str(error)) from error
        if at != len(view) or not ends:
            raise self._wrong(name, f"its frame does not hold {len(view):,} bytes")

    def _wrong(self, name: Name, what: str) -> SourceError:
        return SourceError(f"{self._label}: {print_name(name)!r} is damaged: {what}")


def _placed(
    arrays: Sequence[tuple[Name, np.ndarray[Any, Any]]], requests: Mapping[Name, Spec]
) -> Iterator[tuple[Name, Any]]:
    """The arrays where their requests want them, one by one."""
    names = [name for name, _ in arrays]
    values = deque(placed_together([(requests[name], partial(_cut, array)) for name, array in arrays]))
    del arrays
    for name in names:
        yield name, values.popleft()


def _cut(array: np.ndarray[Any, Any], box: Box) -> np.ndarray[Any, Any]:
    return array[slices_of(box)] if box else array
