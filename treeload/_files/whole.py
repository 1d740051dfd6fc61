"""All of a file that a server does not give in parts, in a temporary file that has no name.

Owns where it is kept and that it is no longer than was said. Nothing is left behind, however a process ends.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable

from treeload._errors import SourceError

_CHUNK = 1 << 20


class Download:
    """A temporary file of ``size`` bytes, as long as somebody holds this.

    Args:
        size: how many there will be.
        shown: where they come from, for messages.

    Raises:
        SourceError: the disk has not that much left.
    """

    def __init__(self, size: int, shown: str) -> None:
        self._size, self._shown = size, shown
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if size > free:
            raise SourceError(
                f"{shown!r} has {size:,} bytes, and {folder!r} has {free:,} left to download it to"
            )
        self._file = tempfile.TemporaryFile(prefix="treeload-")  # noqa: SIM115  # it lives as long as this
        weakref.finalize(self, self._file.close)

    @property
    def descriptor(self) -> int:
        return self._file.fileno()

    def restart(self) -> None:
        """Nothing; the file is empty again."""
        self._file.seek(0)
        self._file.truncate()

    def take(self, read_into: Callable[[memoryview], int]) -> None:
        """All that ``read_into`` gives, which must be as much as was said.

        Raises:
            ConnectionError: it gives less.
            SourceError: it gives more; or the disk refuses.
        """
        buffer, taken = memoryview(bytearray(_CHUNK)), 0
        while count := read_into(buffer):
            taken += count
            if taken > self._size:
                raise SourceError(f"{self._shown!r} has more than the {self._size:,} bytes that were said")
            try:
                self._file.write(buffer[:count])
            except OSError as error:
                raise SourceError(f"{self._shown!r} cannot be downloaded: {error.strerror}") from error
        if taken < self._size:
            raise ConnectionError("its answer broke off")
        self._file.flush()
