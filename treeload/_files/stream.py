"""An open file as the seekable binary stream that other libraries read from.

Owns the bridge from ``opened``, whose reads say where they begin, to what zip and HDF5 readers expect. Reads
what is asked for and nothing ahead; whoever reads in small steps wraps it in ``io.BufferedReader``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from treeload._files.open import File, opened, read_bytes
from treeload._files.place import Handle


class Stream(io.RawIOBase):
    """Bytes ``start`` to ``stop`` of an open file, as a stream of their own; a position is all that it holds.

    Args:
        handle: what ``opened`` gave; it must stay open for as long as the stream is read.
        start: the first byte.
        stop: the byte behind the last.
    """

    def __init__(self, handle: Handle, start: int, stop: int) -> None:
        super().__init__()
        self._handle, self._start, self._size, self._at = handle, start, stop - start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a stream has no byte {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self._size - self._at), 0)
        found = read_bytes(self._handle, count, self._start + self._at)
        view[: len(found)] = found
        self._at += len(found)
        return len(found)


@contextmanager
def streamed(file: File, *, buffer: int = io.DEFAULT_BUFFER_SIZE) -> Iterator[BinaryIO]:
    """The whole of ``file`` as a buffered stream.

    Raises:
        SourceError: it is not the file that was looked at, or has changed.
    """
    with opened(file) as handle, io.BufferedReader(Stream(handle, 0, file.size), buffer) as stream:
        yield stream
