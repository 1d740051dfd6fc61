"""The CRC-32 of the whole from those of its parts."""

from __future__ import annotations

import random
import zlib

import pytest

from treeload._files.crc import combined


@pytest.mark.parametrize(
    "sizes", [(0, 0), (1, 0), (0, 7), (5, 5), (1000, 1), (3, 70_001), (1 << 16, 1 << 17)]
)
def test_two_sums_make_that_of_both(sizes: tuple[int, int]) -> None:
    rng = random.Random(0)
    one, other = rng.randbytes(sizes[0]), rng.randbytes(sizes[1])
    assert combined(zlib.crc32(one), zlib.crc32(other), len(other)) == zlib.crc32(one + other)
