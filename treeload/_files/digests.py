"""Digests: by which it is told that a leaf's bytes are those that were written.

Owns what a digest is, how a large leaf is cut into blocks that have each their own, and which blocks cover a
part of it. What is done with a bad one is the reader's; where digests are kept is the format's, or the
sidecar's (``_sources.sidecar``).

A digest is the xxh3-128 (https://github.com/Cyan4973/xxHash, "XXH3 128-bit") of the bytes of an array in C
order. It finds damage, not malice: whoever can write a checkpoint can write its digests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xxhash

from treeload._errors import SourceError
from treeload._files.regions import (
    Box,
    extents_of,
    first_element,
    is_contiguous,
    slices_of,
    whole_box,
)

BLOCK_BYTES = 4 << 20
"""What a block holds at most, unless one element is larger; a leaf of no more has no blocks."""


_OF_BLOCKS = "blocks:"


_LEAST_PART = 256 << 10  # smaller parts would have more digests than they are worth


@dataclass(frozen=True, slots=True)
class Digest:
    """What the bytes of one leaf must give.

    Attributes:
        whole: the digest of all of it; of a leaf that no process had whole when it was saved, ``blocks:`` and
            the digest of its blocks' digests.
        block: the extents of a block, the last ones of an axis being shorter; None where there are none.
        blocks: the digests of the blocks, in C order of where they lie.
    """

    whole: str
    block: tuple[int, ...] | None = None
    blocks: tuple[str, ...] = ()

    @property
    def is_of_blocks(self) -> bool:
        """Whether only its blocks tell whether the leaf is intact."""
        return self.whole.startswith(_OF_BLOCKS)


def digest(array: np.ndarray[Any, Any]) -> str:
    """The xxh3-128, in hexadecimal, of an array's bytes in C order."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return xxhash.xxh3_128_hexdigest(flat.view(np.uint8).data)


def check_whole(array: np.ndarray[Any, Any], known: Digest | None, what: str) -> None:
    """Nothing, if a whole leaf is what was written, or that is not known.

    Raises:
        SourceError: it is not; ``what`` says where it lies.
    """
    if known is not None and not is_intact(array, whole_box(array.shape), array.shape, known):
        raise damaged(what)


def damaged(what: str) -> SourceError:
    return SourceError(f"{what} is damaged: its bytes are not those of its digest")


def digests_of(array: np.ndarray[Any, Any], part: Sequence[int] | None = None) -> Digest:
    """The digests of a leaf; ``part``: the extents of the parts that it will be read in, if that is known."""
    block = block_of(array.shape, array.dtype.itemsize, part)
    if block is None:
        return Digest(digest(array))
    blocks = tuple(
        digest(array[slices_of(box)]) for _, box in _blocks(whole_box(array.shape), array.shape, block)
    )
    return Digest(digest(array), block, blocks)


def block_of(
    shape: Sequence[int], itemsize: int, part: Sequence[int] | None = None
) -> tuple[int, ...] | None:
    """The extents of the blocks that a leaf is cut into: whole rows of it, or of each part of it.

    A row is all that lies behind the first axis at which it is no larger than a block.

    Examples:
        >>> block_of((50_000, 1024), 4)
        (1024, 1024)
        >>> block_of((12, 2048, 2048), 4)
        (1, 512, 2048)
        >>> block_of((50_000, 1024), 4, part=(50_000, 128))
        (8192, 128)
        >>> block_of((1024,), 4) is None
        True
    """
    if math.prod(shape) * itemsize <= BLOCK_BYTES:
        return None
    extents = tuple(shape)
    if part is not None and math.prod(part) * itemsize >= _LEAST_PART:
        extents = tuple(part)
    axis = 0
    while math.prod(extents[axis + 1 :]) * itemsize > BLOCK_BYTES:
        axis += 1
    rows = max(1, BLOCK_BYTES // (math.prod(extents[axis + 1 :]) * itemsize))
    return (*[1] * axis, min(rows, extents[axis]), *extents[axis + 1 :])


# --- A leaf of which each process has a part ---------------------------------------------------------


def block_within(part: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """The extents of the blocks of a leaf that lies in parts of these: none is in two parts.

    Examples:
        >>> block_within((512, 4096), 4)
        (256, 4096)
        >>> block_within((3, 500, 4096), 4)
        (1, 250, 4096)
    """
    extents = block_of(part, itemsize) or tuple(part)
    return tuple(
        next(rows for rows in range(extent, 0, -1) if size % rows == 0)
        for size, extent in zip(part, extents, strict=True)
    )


def digests_within(
    array: np.ndarray[Any, Any], box: Box, shape: Sequence[int], block: Sequence[int]
) -> dict[int, str]:
    """The number and the digest of each block of a part; ``box`` is where it lies in the leaf."""
    return {
        number: digest(
            array[tuple(slice(a - at, b - at) for (a, b), (at, _) in zip(inner, box, strict=True))]
        )
        for number, inner in _blocks(box, shape, block)
    }


def of_blocks(block: Sequence[int], found: Mapping[int, str], shape: Sequence[int]) -> Digest | None:
    """The digests of a leaf whose blocks have these; None where one lacks."""
    count = math.prod(-(-size // step) for size, step in zip(shape, block, strict=True))
    if sorted(found) != list(range(count)):
        return None
    blocks = tuple(found[number] for number in range(count))
    return Digest(_OF_BLOCKS + xxhash.xxh3_128_hexdigest("".join(blocks).encode()), tuple(block), blocks)


# --- Which blocks a part is in -----------------------------------------------------------------------


def covers(boxes: Iterable[Box], shape: Sequence[int], known: Digest | None) -> tuple[Box, ...]:
    """What has to be read so that every byte of ``boxes`` can be verified: no two of them overlap.

    Without a digest that is the boxes themselves; with one of the whole alone, the whole.
    """
    boxes = tuple(dict.fromkeys(boxes))
    if known is None:
        return boxes
    if known.block is None:
        return (whole_box(shape),)
    apart: list[Box] = []
    for box in boxes:
        grown = _grown(box, shape, known.block)
        while touching := [other for other in apart if _overlap(grown, other)]:
            for other in touching:
                apart.remove(other)
                grown = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(grown, other, strict=True))
        apart.append(grown)
    return tuple(sorted(apart))


def is_intact(array: np.ndarray[Any, Any], box: Box, shape: Sequence[int], known: Digest) -> bool:
    """Whether what was read of one of ``covers`` is what was written."""
    if box == whole_box(shape) and not known.is_of_blocks:
        return digest(array) == known.whole
    assert known.block is not None  # else the whole is its only cover
    for number, inner in _blocks(box, shape, known.block):
        window = tuple(slice(a - at, b - at) for (a, b), (at, _) in zip(inner, box, strict=True))
        if digest(array[window]) != known.blocks[number]:
            return False
    return True


def ranges(box: Box, shape: Sequence[int], known: Digest) -> list[tuple[int, int, str]] | None:
    """What each range of one of ``covers``, as it lies in memory in C order, must give: start, stop, digest.

    In elements, one after the other. None where blocks lie there in pieces: then only ``is_intact`` can tell.

    Examples:
        >>> ranges(((2, 4), (0, 3)), (6, 3), Digest("whole", (1, 3), tuple("abcdef")))
        [(0, 3, 'c'), (3, 6, 'd')]
    """
    if known.block is None:
        return [(0, math.prod(shape), known.whole)]
    found: list[tuple[int, int, str]] = []
    end, extents = 0, extents_of(box)
    for number, inner in _blocks(box, shape, known.block):
        within = tuple((a - at, b - at) for (a, b), (at, _) in zip(inner, box, strict=True))
        start, end = end, end + math.prod(extents_of(within))
        if not is_contiguous(within, extents) or first_element(within, extents) != start:
            return None
        found.append((start, end, known.blocks[number]))
    return found


def _grown(box: Box, shape: Sequence[int], block: Sequence[int]) -> Box:
    """The box with its edges moved out to those of blocks."""
    return tuple(
        (start - start % step, min(size, -(-stop // step) * step))
        for (start, stop), size, step in zip(box, shape, block, strict=True)
    )


def _overlap(one: Box, other: Box) -> bool:
    return all(a < d and c < b for (a, b), (c, d) in zip(one, other, strict=True))


def _blocks(box: Box, shape: Sequence[int], block: Sequence[int]) -> Iterator[tuple[int, Box]]:
    """The blocks in a box whose edges are theirs: the number of each, and where it lies."""
    counts = [-(-size // step) for size, step in zip(shape, block, strict=True)]
    ranges = [range(start // step, -(-stop // step)) for (start, stop), step in zip(box, block, strict=True)]
    for at in product(*ranges):
        number = 0
        for index, count in zip(at, counts, strict=True):
            number = number * count + index
        yield (
            number,
            tuple(
                (index * step, min(size, (index + 1) * step))
                for index, step, size in zip(at, block, shape, strict=True)
            ),
        )


# --- As it is written down ---------------------------------------------------------------------------


def blocks_to_json(known: Digest) -> dict[str, Any] | None:
    """The blocks' digests as JSON; None where there are none."""
    return None if known.block is None else {"extents": list(known.block), "digests": list(known.blocks)}


def blocks_from_json(whole: str, said: Any, shape: Sequence[int]) -> Digest:
    """The digests of a leaf of this shape, out of a file that may be hostile.

    Raises:
        ValueError: they are not of such a leaf.
    """
    if said is None:
        if whole.startswith(_OF_BLOCKS):
            raise ValueError("it has the digest of blocks, and no blocks")
        return Digest(whole)
    block, blocks = tuple(said["extents"]), tuple(said["digests"])
    if len(block) != len(shape) or not all(type(step) is int and step > 0 for step in block):
        raise ValueError(f"blocks of {list(block)} are not of an array of shape {list(shape)}")
    count = math.prod(-(-size // step) for size, step in zip(shape, block, strict=True))
    if len(blocks) != count or not all(isinstance(each, str) for each in blocks):
        raise ValueError(f"it has the digests of {len(blocks)} blocks, not of {count}")
    return Digest(whole, block, blocks)


def checked_parts(
    parts: Iterable[tuple[Box, np.ndarray[Any, Any]]], shape: Sequence[int], known: Digest | None
) -> bool:
    """Whether every one of these covers is intact; without a digest there is nothing to say."""
    return known is None or all(is_intact(array, box, shape, known) for box, array in parts)
