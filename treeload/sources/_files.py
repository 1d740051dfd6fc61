"""What the file formats share: files that are safe to open, and leaves read straight out of them.

Owns which files may be opened at all (regular ones; beside an index, no link out of its directory), the
index of a sharded directory, and the reading of leaves that lie in a file as plain bytes, into buffers
that JAX takes over without a copy. Knows no format: where a leaf lies is told by the format's own file.

Reading is bounded by the first touch of fresh memory, not by the copy out of the page cache. So two
threads read ahead of the consumer, 16 MiB at a time, while it places what is there; buffers are
uninitialised (NumPy asks for huge pages from 4 MiB on) and start on a 64-byte boundary, where
``jax.device_put`` on CPU takes a buffer over instead of copying it. Small leaves that lie side by side
are scattered by one ``preadv`` into buffers of their own: none of them pins another's memory.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from treeload._errors import SourceError
from treeload._names import Name, print_name
from treeload._specs import Spec, nbytes, print_spec

Bytes: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.uint8]]"
Box: TypeAlias = "tuple[tuple[int, int], ...]"  # start and stop along each axis

_MAX_INDEX = 32 << 20  # the largest real indices (100,000 tensors) take about 10 MB
_CHUNK = 16 << 20  # bytes that one thread reads at a time
_AHEAD = 64 << 20  # bytes read ahead of the consumer, or one leaf if that is larger
_SEGMENTS = 256  # buffers filled by one preadv; the systems' limit is 1024
_ALIGNMENT = 64  # where JAX on CPU takes a buffer over without a copy
_THREADS = 2


@dataclass(frozen=True)
class File:
    """A regular file as it was when it was looked at: reading refuses it once it has changed.

    Attributes:
        path: what the user calls it, for messages.
        real: what is opened, links resolved.
    """

    path: Path
    real: str
    size: int
    mtime_ns: int

    def __str__(self) -> str:
        return repr(str(self.path))


def look_at(path: Path) -> File:
    """The file at ``path``, which may be a link to anywhere: for paths that the user named.

    Raises:
        SourceError: it is missing, or no regular file.
    """
    return _look_at(path, _resolved(path))


def look_beside(directory: Path, filename: str) -> File:
    """The file ``filename`` of ``directory``: for names that were found in a file, and so are hostile.

    Raises:
        SourceError: the name has a path in it, or the file is missing, is no regular file, or is a link
            out of the directory (but to the ``blobs`` of the Hugging Face cache that it lies in).
    """
    if filename in ("", ".", "..") or any(character in filename for character in "/\\\0"):
        raise SourceError(f"{str(directory)!r}: {brief(filename)} is not the name of a file beside the index")
    home = Path(_resolved(directory))
    real = Path(_resolved(home / filename))
    if not (real.is_relative_to(home) or real.parent == _blobs_of(home)):
        raise SourceError(f"{str(directory / filename)!r} is a link out of its directory, to {str(real)!r}")
    return _look_at(directory / filename, str(real))


def _resolved(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:  # a NUL in the path
        raise SourceError(f"cannot open {str(path)!r}: {error}") from error


def _blobs_of(directory: Path) -> Path | None:
    """Where the links of a Hugging Face cache point to, for a directory in its ``snapshots/<revision>``."""
    for below in (directory, *directory.parents):
        if below.parent.name == "snapshots":
            return below.parent.parent / "blobs"
    return None


def _look_at(path: Path, real: str) -> File:
    with _opened(path, real) as descriptor:
        status = os.fstat(descriptor)
        return File(path, real, status.st_size, status.st_mtime_ns)


@contextmanager
def _opened(path: Path, real: str) -> Iterator[int]:
    try:
        # Looked at before it is opened, because opening alone moves some devices; and again after, because
        # it may have been exchanged. O_NONBLOCK: a pipe that nobody writes to must not hold us.
        _must_be_regular(path, os.stat(real, follow_symlinks=False))
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"cannot open {str(path)!r}: {error.strerror}") from error
    try:
        _must_be_regular(path, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def _must_be_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        # Links are resolved by now: one that is left leads nowhere.
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a link to itself", stat.S_IFIFO: "a pipe"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device or the like")
        raise SourceError(f"{str(path)!r} is {kind}, not a file")


@contextmanager
def opened(file: File) -> Iterator[int]:
    """A descriptor of ``file``, for reading.

    Raises:
        SourceError: it is not the file that was looked at: its size or its time of change differs.
    """
    with _opened(file.path, file.real) as descriptor:
        check_unchanged(file, descriptor)
        yield descriptor


def check_unchanged(file: File, descriptor: int) -> None:
    """Nothing, if the open file is still the one that was looked at; else a ``SourceError``."""
    status = os.fstat(descriptor)
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise SourceError(
            f"{file} has changed since it was opened (then {file.size:,} bytes, now {status.st_size:,}): "
            "open it again"
        )


def read_bytes(descriptor: int, count: int, offset: int) -> bytes:
    """Up to ``count`` bytes from ``offset`` on; fewer only where the file ends."""
    parts = []
    while count and (part := os.pread(descriptor, count, offset)):
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return b"".join(parts)


def brief(text: str, limit: int = 120) -> str:
    """A string out of a hostile file as messages quote it: printable, and not endless."""
    return ascii(text if len(text) <= limit else text[:limit] + "…")


def some(names: Sequence[str], limit: int = 20) -> str:
    """The first of many hostile names, and how many there are besides."""
    shown = ", ".join(map(brief, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"


# --- JSON ----------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """The value of a JSON text in which no object has a key twice and no number is NaN or infinite.

    Raises:
        ValueError: anything else, and what is nested too deeply to parse.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in members if keys.count(key) > 1)
        raise ValueError(f"the key {brief(twice)} is there twice")
    return members


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


# --- The index of a sharded directory --------------------------------------------------------------


@dataclass(frozen=True)
class ShardIndex:
    """Which file of a directory holds which tensor, as ``<name>.index.json`` says it.

    Attributes:
        file: the index itself.
        shards: file name → the file, in the order in which the index first names them.
        tensors: tensor → the name of its file, in the order of the index.
        metadata: what the index says besides.
    """

    file: File
    shards: Mapping[str, File]
    tensors: Mapping[str, str]
    metadata: Mapping[str, Any]

    def check(self, found: Mapping[str, Sequence[str]]) -> None:
        """Nothing, if each shard holds exactly the tensors that the index gives it.

        Args:
            found: file name → the tensors that the file really holds.

        Raises:
            SourceError: a tensor is lacking, is not in the index, or is in two shards.
        """
        holders: dict[str, list[str]] = {}
        for shard, tensors in found.items():
            for tensor in tensors:
                holders.setdefault(tensor, []).append(shard)
        for tensor, shard in self.tensors.items():
            if shard not in holders.get(tensor, ()):
                raise SourceError(
                    f"{self.shards[shard]} lacks {brief(tensor)}, which {self.file} finds there"
                )
        for tensor, shards in holders.items():
            if len(shards) > 1:
                raise SourceError(f"{self.file}: {brief(tensor)} is in {len(shards)} shards: {some(shards)}")
            if tensor not in self.tensors:
                unlisted = [name for name in found[shards[0]] if name not in self.tensors]
                raise SourceError(
                    f"{self.shards[shards[0]]} holds what {self.file} does not list: {some(unlisted)}"
                )


def read_index(directory: Path, filename: str) -> ShardIndex:
    """The index ``filename`` of ``directory``, its shards looked at but not read.

    The format: a JSON object with ``weight_map`` (tensor → file name beside the index) and ``metadata``
    (Hugging Face, "Sharded checkpoints").

    Raises:
        SourceError: it is no such index, or names a file that is missing or outside its directory.
    """
    file = look_beside(directory, filename)
    if file.size > _MAX_INDEX:
        raise SourceError(f"{file} is no index: it has {file.size:,} bytes, and {_MAX_INDEX:,} are plenty")
    with opened(file) as descriptor:
        raw = read_bytes(descriptor, file.size, 0)
    try:
        content = parse_json(raw.decode("utf-8"))
    except ValueError as error:
        raise SourceError(f"{file} is no valid index: {error}") from error
    tensors = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(shard, str) for shard in tensors.values()):
        raise SourceError(f"{file} is no valid index: it has no 'weight_map' of tensors to file names")
    metadata = content.get("metadata", {})
    if not isinstance(metadata, dict):
        raise SourceError(f"{file} is no valid index: its 'metadata' is no object")
    return ShardIndex(
        file=file,
        shards={shard: look_beside(directory, shard) for shard in dict.fromkeys(tensors.values())},
        tensors=tensors,
        metadata=metadata,
    )


# --- Leaves that lie in a file as plain bytes --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a leaf lies: contiguous, row-major, little-endian, uncompressed, from ``offset`` on."""

    file: File
    offset: int
    spec: Spec


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


@dataclass(frozen=True, slots=True)
class _Reading:
    """Leaves whose pieces threads are filling, and how many bytes that is."""

    leaves: Sequence[_Leaf]
    futures: Sequence[Future[None]]
    size: int


_Segment: TypeAlias = "tuple[int, Bytes, _Leaf]"  # where in the file, what it fills, whose it is


def read_stored(stored: Mapping[Name, Stored], requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
    """The leaves asked for, file by file and in the order in which they lie there, as ``Source.read`` says.

    Held at any time: what is being yielded (a leaf, or small ones of 16 MiB together), and 64 MiB or one
    leaf ahead of it.

    Raises:
        SourceError: a request that no leaf answers to; a file that has changed, ends early, or cannot be
            read; a boolean that is neither 0 nor 1; not enough memory.
    """
    _check(stored, requests)
    in_order = sorted(requests, key=lambda name: (stored[name].file.real, stored[name].offset))
    for _, names in groupby(in_order, key=lambda name: stored[name].file.real):
        yield from _read_file({name: stored[name] for name in names}, requests)


def _check(stored: Mapping[Name, Stored], requests: Mapping[Name, Spec]) -> None:
    for name, request in requests.items():
        if name not in stored:
            raise SourceError(f"there is no leaf {print_name(name)} here")
        spec = stored[name].spec
        if (request.shape, request.dtype) != (spec.shape, spec.dtype):
            raise SourceError(
                f"{print_name(name)} is {print_spec(spec)} in {stored[name].file}, "
                f"and was asked for as {print_spec(request)}"
            )
        # device_put would make 32 bits of 64 without a word.
        if request.sharding is not None and jax.dtypes.canonicalize_dtype(spec.dtype) != spec.dtype:
            raise SourceError(
                f"{print_name(name)} is {print_spec(spec)} in {stored[name].file}, which JAX puts on a "
                "device only with jax_enable_x64: ask for it without a sharding"
            )


def _read_file(stored: Mapping[Name, Stored], requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
    file = next(iter(stored.values())).file
    # The threads are left before the descriptor is closed: none of them reads from one that is reused.
    with opened(file) as descriptor, _reading_threads() as threads:

        def start(names: Sequence[Name]) -> _Reading:
            leaves = [_prepare(name, stored[name], requests[name]) for name in names]
            futures = [threads.submit(_fill, descriptor, file, batch) for batch in _batches(leaves)]
            return _Reading(leaves, futures, sum(nbytes(leaf.request) for leaf in leaves))

        coming = map(start, _groups(stored))  # lazily: memory is taken and threads are fed at each next()
        ahead: deque[_Reading] = deque()
        bytes_ahead = 0
        current = next(coming, None)
        while current is not None:
            while bytes_ahead < _AHEAD and (reading := next(coming, None)) is not None:
                ahead.append(reading)
                bytes_ahead += reading.size
            for future in current.futures:
                future.result()
            if not ahead:
                check_unchanged(file, descriptor)  # before the last leaves go: whoever reads all sees it
            placed = _place(current.leaves)
            current = reading = ahead.popleft() if ahead else None
            bytes_ahead -= current.size if current is not None else 0
            while placed:  # let go of one by one, so that the caller can free them
                yield placed.popleft()


@contextmanager
def _reading_threads() -> Iterator[ThreadPoolExecutor]:
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="treeload-read")
    try:
        yield threads
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def _groups(stored: Mapping[Name, Stored]) -> Iterator[list[Name]]:
    """The names in order, small leaves together: what is read, placed and yielded at once."""
    group: list[Name] = []
    size = 0
    for name, leaf in stored.items():
        group.append(name)
        size += nbytes(leaf.spec)
        if size >= _CHUNK or len(group) == _SEGMENTS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _prepare(name: Name, stored: Stored, request: Spec) -> _Leaf:
    """The leaf with buffers for the parts of it that the request's sharding has on this host."""
    shape, itemsize = request.shape, request.dtype.itemsize
    boxes: Sequence[Box] = (_whole(shape),)
    if _is_spread(request.sharding):
        boxes = tuple(_devices_by_box(request))
        if not all(_is_contiguous(box, shape) for box in boxes):
            rows = (min(box[0][0] for box in boxes), max(box[0][1] for box in boxes))
            boxes = ((rows, *_whole(shape[1:])),)
    try:
        pieces = tuple(
            _Piece(
                box=box,
                offset=stored.offset + _first_element(box, shape) * itemsize,
                buffer=aligned(math.prod(_extents(box)) * itemsize),
            )
            for box in sorted(boxes)
        )
    except MemoryError as error:
        raise SourceError(
            f"{print_name(name)} ({print_spec(request)}, {nbytes(request):,} bytes) in {stored.file}: "
            "not enough memory"
        ) from error
    return _Leaf(name, request, pieces)


def aligned(count: int) -> Bytes:
    """Uninitialised bytes that start where ``jax.device_put`` on CPU takes them over without a copy."""
    buffer = np.empty(count + _ALIGNMENT, np.uint8)
    start = -buffer.__array_interface__["data"][0] % _ALIGNMENT
    return buffer[start : start + count]


def _batches(leaves: Sequence[_Leaf]) -> Iterator[list[_Segment]]:
    """What one thread reads at a time: at most 16 MiB, in at most 256 buffers."""
    batch: list[_Segment] = []
    size = 0
    for leaf in leaves:
        for piece in leaf.pieces:
            for start in range(0, len(piece.buffer), _CHUNK):
                segment = piece.buffer[start : start + _CHUNK]
                if batch and (size + len(segment) > _CHUNK or len(batch) == _SEGMENTS):
                    yield batch
                    batch, size = [], 0
                batch.append((piece.offset + start, segment, leaf))
                size += len(segment)
    if batch:
        yield batch


def _fill(descriptor: int, file: File, batch: Sequence[_Segment]) -> None:
    """Fills the segments, with one call for those that follow each other in the file."""
    run: list[_Segment] = []
    for segment in batch:
        if run and run[-1][0] + len(run[-1][1]) != segment[0]:
            _fill_run(descriptor, file, run)
            run = []
        run.append(segment)
    _fill_run(descriptor, file, run)
    for _, filled, leaf in batch:
        if leaf.request.dtype == np.bool_ and filled.max() > 1:
            raise SourceError(f"{print_name(leaf.name)} in {file} holds a boolean that is neither 0 nor 1")


def _fill_run(descriptor: int, file: File, run: Sequence[_Segment]) -> None:
    offset = run[0][0]
    left = deque(run)
    unfilled = [buffer.data for _, buffer, _ in run]
    while unfilled:
        name = print_name(left[0][2].name)
        try:
            count = os.preadv(descriptor, unfilled, offset)
        except OSError as error:
            raise SourceError(f"cannot read {name} from {file}: {error.strerror}") from error
        if count == 0:
            raise SourceError(f"{file} ends before {name} does: it was cut short while it was read")
        offset += count
        while unfilled and count >= len(unfilled[0]):
            count -= len(unfilled.pop(0))
            left.popleft()
        if count:
            unfilled[0] = unfilled[0][count:]


def _place(leaves: Sequence[_Leaf]) -> deque[tuple[Name, Any]]:
    """The leaves as their requests want them: on the host, on one device, or spread over several."""
    on_one_device = [
        leaf for leaf in leaves if leaf.request.sharding is not None and not _is_spread(leaf.request.sharding)
    ]
    placed: dict[Name, Any] = {}
    if on_one_device:  # together, because device_put costs less for a list than for each alone
        arrays = jax.device_put(
            [_on_host(leaf.pieces[0], leaf.request.dtype) for leaf in on_one_device],
            [leaf.request.sharding for leaf in on_one_device],
        )
        placed = dict(zip((leaf.name for leaf in on_one_device), arrays, strict=True))
    for leaf in leaves:
        if leaf.request.sharding is None:
            placed[leaf.name] = _on_host(leaf.pieces[0], leaf.request.dtype)
        elif leaf.name not in placed:
            placed[leaf.name] = _spread(leaf)
    return deque((leaf.name, placed[leaf.name]) for leaf in leaves)


def _on_host(piece: _Piece, dtype: Any) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = piece.buffer.view(dtype).reshape(_extents(piece.box))
    return array


def _spread(leaf: _Leaf) -> jax.Array:
    """The leaf over several devices, each given the part that is its own."""
    sharding, dtype = leaf.request.sharding, leaf.request.dtype
    parts, places = [], []
    for box, devices in _devices_by_box(leaf.request).items():
        part = _part(leaf.pieces, box, dtype)
        for device in devices:
            parts.append(part)
            places.append(jax.sharding.SingleDeviceSharding(device, memory_kind=sharding.memory_kind))
    arrays = jax.device_put(parts, places)
    return jax.make_array_from_single_device_arrays(leaf.request.shape, sharding, arrays, dtype=dtype)


def _part(pieces: Sequence[_Piece], box: Box, dtype: Any) -> np.ndarray[Any, Any]:
    for piece in pieces:
        if piece.box == box:
            return _on_host(piece, dtype)
    (piece,) = pieces  # the box is no contiguous part of the file: it is cut out of the rows that hold it
    part: np.ndarray[Any, Any] = (
        aligned(math.prod(_extents(box)) * dtype.itemsize).view(dtype).reshape(_extents(box))
    )
    origins = [origin for origin, _ in piece.box]
    window = (slice(start - at, stop - at) for (start, stop), at in zip(box, origins, strict=True))
    part[...] = _on_host(piece, dtype)[tuple(window)]
    return part


def _is_spread(sharding: Any) -> bool:
    return sharding is not None and len(sharding.device_set) > 1


def _devices_by_box(request: Spec) -> dict[Box, list[jax.Device]]:
    """Which devices of this host hold which part of the leaf; replicas share a part."""
    devices: dict[Box, list[jax.Device]] = {}
    for device, index in request.sharding.addressable_devices_indices_map(request.shape).items():
        box = tuple(part.indices(size)[:2] for part, size in zip(index, request.shape, strict=True))
        devices.setdefault(box, []).append(device)
    return devices


def _whole(shape: Sequence[int]) -> Box:
    return tuple((0, size) for size in shape)


def _extents(box: Box) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in box)


def _is_contiguous(box: Box, shape: Sequence[int]) -> bool:
    """Whether the box is one range of the row-major array: whole behind the first axis longer than 1."""
    extents = _extents(box)
    first = next((axis for axis, extent in enumerate(extents) if extent > 1), len(extents))
    return extents[first + 1 :] == tuple(shape[first + 1 :])


def _first_element(box: Box, shape: Sequence[int]) -> int:
    element = 0
    for (start, _), size in zip(box, shape, strict=True):
        element = element * size + start
    return element
