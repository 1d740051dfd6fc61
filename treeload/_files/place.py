"""Places: a path of this machine, or a URL; and what is asked of a server, whichever it is.

Owns the seam between formats, which know names and bytes, and those who fetch them (``web``, ``hub``,
``store``). A ``Remote`` is what a format uses of a path, and no ``pathlib.Path``, which would join the
slashes of a URL. Refuses to own what may be opened (``open``) and which server a URL means (``places``).
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from treeload._errors import SourceError

Identity: TypeAlias = "tuple[int | str | None, ...]"
"""By what a file is told from another one in its place, and from itself once it has changed."""


class Refused(SourceError):
    """A server does not say what lies at a place, since it does not know who asks."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a file without reading it.

    Attributes:
        size: bytes.
        identity: by which another file in its place is noticed.
        local: where on this machine it lies, for what is far away and has been fetched before.
    """

    size: int
    identity: Identity
    local: str | None = None


class Handle(abc.ABC):
    """An open file: whoever reads says where.

    Attributes:
        threads: how many may read at once with profit.
        piece: at most so many bytes are read at a time.
        is_far: each read has its price, so that what lies near to each other is read at once.
    """

    threads: int
    piece: int
    is_far: bool = False

    @abc.abstractmethod
    def read(self, count: int, offset: int) -> bytes:
        """Up to ``count`` bytes from ``offset`` on; fewer only where the file ends."""

    @abc.abstractmethod
    def fill(self, buffers: Sequence[memoryview], offset: int) -> int:
        """How many bytes from ``offset`` on were put into ``buffers``, one after the other: 0 at the end."""

    @abc.abstractmethod
    def now(self) -> Status:
        """What is known of the file by now."""

    def stop(self) -> None:  # noqa: B027  # on this machine nobody waits for long
        """Nothing; who reads meanwhile is let go with an error, because nobody waits for it any more."""


class Descriptor(Handle):
    """A file of this machine, by its descriptor; ``known``: it can only be what it was."""

    threads = 2
    piece = 16 << 20

    __slots__ = ("_descriptor", "_known")

    def __init__(self, descriptor: int, known: Status | None = None) -> None:
        self._descriptor, self._known = descriptor, known

    def read(self, count: int, offset: int) -> bytes:
        parts = []
        while count and (part := os.pread(self._descriptor, count, offset)):
            parts.append(part)
            count, offset = count - len(part), offset + len(part)
        return b"".join(parts)

    def fill(self, buffers: Sequence[memoryview], offset: int) -> int:
        return os.preadv(self._descriptor, buffers, offset)

    def now(self) -> Status:
        if self._known is not None:
            return self._known
        status = os.fstat(self._descriptor)
        return Status(status.st_size, identity_of(status))


def identity_of(status: os.stat_result) -> Identity:
    """What tells a file or a directory from another one in its place, and from itself once it has changed.

    Device and inode, since size and time of change may be made alike; and the time of the last change of the
    inode, which no program can set.
    """
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def changed(file: object, then: int, now: int) -> SourceError:
    """What is said of a file that is another one by now."""
    return SourceError(
        f"{file} has changed since it was opened (then {then:,} bytes, now {now:,}): open it again",
        changed=True,
    )


class Server(abc.ABC):
    """Whoever has files that are not on this machine; a path is the server's own spelling, split at ``/``.

    One is made for each opening, so that what it has said once is not asked again meanwhile.
    """

    @abc.abstractmethod
    def shown(self, path: str) -> str:
        """The URL of a path as messages show it: without passwords and tokens."""

    @abc.abstractmethod
    def find(self, path: str) -> Status | None:
        """What is known of the file at ``path``; None where there is no file.

        Raises:
            SourceError: the server does not answer, or does not say.
        """

    @abc.abstractmethod
    def opened(self, path: str, known: Status) -> AbstractContextManager[Handle]:
        """The file at ``path``; every answer is held against what is ``known`` of it."""

    @abc.abstractmethod
    def is_directory(self, path: str) -> bool:
        """Whether ``path`` is a directory, or what the server has in its place."""

    @abc.abstractmethod
    def names(self, path: str) -> list[str]:
        """What lies in a directory.

        Raises:
            SourceError: the server does not say.
        """

    def files_below(self, path: str) -> Mapping[str, Status]:
        """Each file in a directory and in those in it, as it is now.

        Raises:
            SourceError: the server does not say.
        """
        raise SourceError(f"{self.shown(path)!r} is on a server that does not say all that is in a directory")

    def kvstore(self, path: str) -> dict[str, Any] | None:
        """TensorStore's own way to what lies below ``path``, where it has one."""
        return None

    def spelt(self, name: str) -> str:
        """A name as it stands in a path."""
        return name

    def named(self, spelt: str) -> str:
        """What ``spelt`` gives back a name for."""
        return spelt


@dataclass(frozen=True)
class Remote:
    """A place on a server: what formats use of a path."""

    server: Server
    path: str

    def __str__(self) -> str:
        return self.server.shown(self.path)

    def __lt__(self, other: Remote) -> bool:
        return self.path < other.path

    def __truediv__(self, name: str) -> Remote:
        return Remote(self.server, f"{self.path.rstrip('/')}/{self.server.spelt(name)}")

    @property
    def name(self) -> str:
        return self.server.named(self.path.rstrip("/").rpartition("/")[2])

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.name)[1]

    @property
    def parent(self) -> Remote:
        return Remote(self.server, self.path.rstrip("/").rpartition("/")[0])

    def with_name(self, name: str) -> Remote:
        return self.parent / name

    def is_dir(self) -> bool:
        return self.server.is_directory(self.path)

    def is_file(self) -> bool:
        return not self.is_dir() and self.server.find(self.path) is not None

    def exists(self) -> bool:
        return self.is_dir() or self.server.find(self.path) is not None

    def iterdir(self) -> Iterator[Remote]:
        return (self / name for name in self.server.names(self.path))


Place: TypeAlias = "Path | Remote"
"""Where a checkpoint may lie. Formats ask no more of it than a ``Remote`` has."""


def names_in(directory: Place) -> list[str]:
    """The names of what lies in a directory, in no order.

    Raises:
        SourceError: it cannot be listed.
    """
    if isinstance(directory, Remote):
        return directory.server.names(directory.path)
    try:
        return os.listdir(directory)
    except OSError as error:
        raise SourceError(f"cannot list {str(directory)!r}: {error.strerror}") from error
