"""Ranges of a file far away that lie near each other: read at once, with what lies between them.

Owns how much may be read for nothing. Each request has its price, and so has each byte: what lies between is
at most a part of what is wanted, so that a load of a few leaves stays one.
"""

from __future__ import annotations

from collections.abc import Iterable

_WANTED_FOR_ONE = 32  # bytes that must be wanted for each that is read for nothing


class Gaps:
    """What is wanted in one read so far, and what of it is read for nothing."""

    def __init__(self) -> None:
        self._wanted = self._wasted = 0

    def bridges(self, gap: int, count: int) -> bool:
        """Whether ``count`` bytes are read along that begin ``gap`` bytes behind the last; if so, they are.

        Examples:
            >>> gaps = Gaps()
            >>> gaps.bridges(0, 3200), gaps.bridges(90, 320), gaps.bridges(90, 320)
            (True, True, False)
        """
        if gap < 0 or (self._wasted + gap) * _WANTED_FOR_ONE > self._wanted + count:
            return False
        self._wanted, self._wasted = self._wanted + count, self._wasted + gap
        return True


def with_gaps(ranges: Iterable[tuple[int, memoryview]]) -> list[memoryview]:
    """The buffers of ranges in order, and others that take what lies between them."""
    buffers: list[memoryview] = []
    end: int | None = None
    for offset, buffer in ranges:
        if end is not None and offset > end:
            buffers.append(memoryview(bytearray(offset - end)))
        buffers.append(buffer)
        end = offset + len(buffer)
    return buffers
