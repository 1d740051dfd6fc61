"""Digests: how a leaf is cut into blocks, which of them cover a part, and that no damage goes unnoticed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._errors import SourceError
from treeload._files import digests
from treeload._files.digests import (
    Digest,
    block_of,
    block_within,
    blocks_from_json,
    blocks_to_json,
    check_whole,
    checked_parts,
    covers,
    digest,
    digests_of,
    digests_within,
    is_intact,
    of_blocks,
    ranges,
)
from treeload._files.regions import Box, extents_of, slices_of, whole_box

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


@pytest.fixture(autouse=True, scope="module")
def _small() -> Any:
    """Blocks of 32 bytes instead of 4 MB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "BLOCK_BYTES", 32)
        patch.setattr(digests, "_LEAST_PART", 8)
        yield


def _array(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


@st.composite
def _boxes(draw: Any, shape: tuple[int, ...]) -> Box:
    starts = [draw(st.integers(0, size - 1)) for size in shape]
    return tuple(
        (start, draw(st.integers(start + 1, size))) for start, size in zip(starts, shape, strict=True)
    )


def _volume(box: Box) -> int:
    return math.prod(extents_of(box))


@given(st.data(), shapes)
def test_every_byte_of_every_part_is_verified_and_nothing_outside_of_what_is_read(
    data: Any, shape: tuple[int, ...]
) -> None:
    array = _array(shape)
    part = data.draw(st.none() | st.just(tuple(data.draw(st.integers(1, size)) for size in shape)))
    known = digests_of(array, part)
    boxes = data.draw(st.lists(_boxes(shape), min_size=1, max_size=3))
    read = covers(boxes, shape, known)
    for box in boxes:
        assert any(all(a <= c and d <= b for (a, b), (c, d) in zip(each, box, strict=True)) for each in read)
    counted = np.zeros(shape, int)
    for each in read:
        counted[slices_of(each)] += 1
    assert counted.max() == 1  # no two of them overlap
    assert checked_parts([(each, array[slices_of(each)]) for each in read], shape, known)
    at = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    array[at] += 1
    is_intact = checked_parts([(each, array[slices_of(each)]) for each in read], shape, known)
    assert is_intact is not bool(counted[at])


@given(shapes)
def test_a_block_holds_no_more_than_it_may_and_one_row_at_least(shape: tuple[int, ...]) -> None:
    block = block_of(shape, 4)
    if block is None:
        assert math.prod(shape) * 4 <= 32
    else:
        assert math.prod(block) * 4 <= 32
        assert all(1 <= step <= size for step, size in zip(block, shape, strict=True))
        assert 2 * math.prod(block) * 4 > 32 or block[0] == 1  # and not much less


def test_a_small_part_of_a_large_leaf_takes_a_few_blocks() -> None:
    known = digests_of(_array((100, 4)))
    assert known.block == (2, 4)
    assert covers([((3, 4), (0, 1))], (100, 4), known) == (((2, 4), (0, 4)),)
    assert covers([((0, 2), (0, 4)), ((98, 100), (0, 4))], (100, 4), known) == (
        ((0, 2), (0, 4)), ((98, 100), (0, 4)),
    )  # fmt: skip


def test_blocks_lie_within_the_parts_that_a_leaf_was_saved_in() -> None:
    known = digests_of(_array((16, 8)), (16, 2))
    assert known.block == (4, 2)
    assert covers([((0, 16), (2, 4))], (16, 8), known) == (((0, 16), (2, 4)),)
    assert block_of((16, 8), 4, (1, 1)) == (1, 8)  # parts too small to be worth digests of their own


def test_without_blocks_a_part_takes_the_whole_and_without_a_digest_nothing_more() -> None:
    box = ((0, 1), (0, 2))
    assert covers([box], (100, 4), Digest("0")) == (whole_box((100, 4)),)
    assert covers([box, box], (100, 4), None) == (box,)


@given(shapes)
def test_digests_come_back_from_json(shape: tuple[int, ...]) -> None:
    known = digests_of(_array(shape))
    assert blocks_from_json(known.whole, blocks_to_json(known), shape) == known


@pytest.mark.parametrize(
    "said",
    [
        {"extents": [2], "digests": ["0", "0"]}, {"extents": [0, 4], "digests": []},
        {"extents": [1, 4], "digests": ["0"]}, {"extents": [2.0, 4], "digests": ["0", "0"]},
        {"extents": [2, 4], "digests": ["0", 0]}, {"extents": [-2, 4], "digests": ["0", "0"]},
        {"extents": [True, 4], "digests": ["0"] * 4},
    ],
)  # fmt: skip
def test_blocks_that_are_not_of_such_a_leaf_are_refused(said: Any) -> None:
    with pytest.raises(ValueError, match="blocks"):
        blocks_from_json("0", said, (4, 4))


def test_a_whole_leaf_is_checked_where_its_digest_is_known() -> None:
    array = _array((4,))
    check_whole(array, None, "'w'")
    check_whole(array, Digest(digest(array)), "'w'")
    with pytest.raises(SourceError, match="^'w' is damaged: its bytes are not those of its digest$"):
        check_whole(array, Digest(digest(array[:3])), "'w'")


# --- of which each process has a part -----------------------------------------------------------------


@given(st.data(), shapes)
def test_the_digests_of_parts_are_those_of_a_leaf(data: Any, part: tuple[int, ...]) -> None:
    """Of a grid of parts each gives the digests of its own blocks; together they tell of any damage."""
    grid = [data.draw(st.integers(1, 3)) for _ in part]
    shape = tuple(size * count for size, count in zip(part, grid, strict=True))
    array, block = _array(shape), block_within(part, 4)
    assert all(size % extent == 0 for size, extent in zip(part, block, strict=True))
    assert math.prod(block) * 4 <= 32 or math.prod(block) == 1
    found: dict[int, str] = {}
    for at in np.ndindex(*grid):
        box = tuple((index * size, (index + 1) * size) for index, size in zip(at, part, strict=True))
        here = digests_within(array[slices_of(box)], box, shape, block)
        assert not here.keys() & found.keys()
        found |= here
    known = of_blocks(block, found, shape)
    assert known is not None and known.is_of_blocks
    check_whole(array, known, "it")
    assert known == blocks_from_json(known.whole, blocks_to_json(known), shape)
    box = data.draw(_boxes(shape))
    flat = array.reshape(-1)
    flat[data.draw(st.integers(0, flat.size - 1))] += 1
    assert not is_intact(array, whole_box(shape), shape, known)
    assert all(
        is_intact(_array(shape)[slices_of(each)], each, shape, known) for each in covers([box], shape, known)
    )
    assert ranges(whole_box(shape), shape, known) is None or len(
        ranges(whole_box(shape), shape, known) or ()
    ) == len(found)


def test_of_parts_that_lack_there_is_no_digest() -> None:
    assert of_blocks((2,), {0: "a"}, (4,)) is None
    assert of_blocks((2,), {0: "a", 1: "b"}, (4,)) is not None
    with pytest.raises(ValueError, match="digest of blocks, and no blocks"):
        blocks_from_json("blocks:abc", None, (4,))
