"""A stream that keeps what it has read: HDF5 looks at few bytes here and there, and again at the same ones.

Owns a number of pages, so that a plan takes few and large reads, also where each of them is a request to
a server. What is larger than some pages is data, and is read past them.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import Any

from treeload._files.stream import Stream

_PAGE = 1 << 16  # bytes


_MOST = 256  # pages, 16 MiB in all


class Pages(io.RawIOBase):
    """The bytes of a stream of ``size`` bytes, by pages that are kept; a position besides."""

    def __init__(self, stream: Stream, size: int) -> None:
        super().__init__()
        self._stream, self._size, self._at = stream, size, 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max({os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As many bytes as there are, up to what the buffer holds: never fewer."""
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self._size - self._at), 0)
        done = 0
        if count > 16 * _PAGE:
            self._stream.seek(self._at)
            done = self._stream.readinto(view[:count])
            self._at += done
            return done
        while done < count:
            page = self._page(self._at // _PAGE)
            part = page[self._at % _PAGE :][: count - done]
            if not part:  # it was cut short
                break
            view[done : done + len(part)] = part
            done, self._at = done + len(part), self._at + len(part)
        return done

    def _page(self, number: int) -> bytes:
        page = self._kept.get(number)
        if page is None:
            self._stream.seek(number * _PAGE)
            page = self._stream.read(_PAGE) or b""
            self._kept[number] = page
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return page
