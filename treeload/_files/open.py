"""Which files may be opened at all: regular ones; beside an index, no link out of its directory.

Owns the opening of files and the words for what is found in them. Knows no format.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from treeload._errors import SourceError
from treeload._files.place import (
    Descriptor,
    Handle,
    Identity,
    Place,
    Remote,
    Server,
    Status,
    changed,
    identity_of,
)


@dataclass(frozen=True)
class File:
    """A regular file as it was when it was looked at: reading refuses it once it has changed.

    Attributes:
        path: what the user calls it, for messages.
        real: what is opened, links resolved; the path on its server, where it has one.
        size: bytes.
        identity: by which another file, or the same one changed, is told apart.
        server: who has it; None for a file of this machine.
    """

    path: Place
    real: str
    size: int
    identity: Identity
    server: Server | None = None

    def __str__(self) -> str:
        return repr(str(self.path))


def look_at(path: Place) -> File:
    """The file at ``path``, which may be a link to anywhere: for paths that the user named.

    Raises:
        SourceError: it is missing, or no regular file; or its server does not say.
    """
    return _look_far(path) if isinstance(path, Remote) else _look_at(path, _resolved(path))


def look_beside(directory: Place, filename: str) -> File:
    """The file ``filename`` of ``directory``: for names that were found in a file, and so are hostile.

    Raises:
        SourceError: the name has a path in it, or the file is missing, is no regular file, or is a link
            out of the directory (but to the ``blobs`` of the Hugging Face cache that it lies in).
    """
    if filename in ("", ".", "..") or any(character in filename for character in "/\\\0"):
        raise SourceError(f"{str(directory)!r}: {brief(filename)} is not the name of a file beside the index")
    return look_within(directory, directory / filename)


def look_within(root: Place, file: Place) -> File:
    """The file ``file`` somewhere below ``root``: for what lies in a checkpoint that is a directory.

    Raises:
        SourceError: it is missing, is no regular file, or is a link out of ``root`` (but to the ``blobs``
            of the Hugging Face cache that it lies in).
    """
    if isinstance(file, Remote):  # of the same server, by construction, and servers have no links
        return _look_far(file)
    return _look_at(file, resolved_within(root, file))


def resolved_within(root: Place, path: Path) -> str:
    """Where ``path``, which lies below ``root``, really is.

    Raises:
        SourceError: outside of ``root``, and not in the Hugging Face cache that it lies in.
    """
    home, real = Path(_resolved(root)), Path(_resolved(path))
    if not (real.is_relative_to(home) or real.parent == _blobs_of(home)):
        raise SourceError(f"{str(path)!r} is a link out of its directory: it leads out to {str(real)!r}")
    return str(real)


def _resolved(path: Place) -> str:
    try:
        return os.path.realpath(str(path))
    except (OSError, ValueError) as error:  # a NUL in the path
        raise SourceError(f"cannot open {str(path)!r}: {error}") from error


def _blobs_of(directory: Path) -> Path | None:
    """Where the links of a Hugging Face cache point to, for a directory in its ``snapshots/<revision>``."""
    for below in (directory, *directory.parents):
        if below.parent.name == "snapshots":
            return below.parent.parent / "blobs"
    return None


def _look_far(path: Remote) -> File:
    found = path.server.find(path.path)
    if found is None:
        kind = "is a directory, not a file" if path.is_dir() else "does not exist"
        raise SourceError(f"{str(path)!r} {kind}")
    if found.local is not None:
        return _look_at(path, found.local)
    return File(path, path.path, found.size, found.identity, path.server)


def _look_at(path: Place, real: str) -> File:
    with _opened(path, real) as descriptor:
        status = os.fstat(descriptor)
        return File(path, real, status.st_size, identity_of(status))


@contextmanager
def _opened(path: Place, real: str) -> Iterator[int]:
    descriptor = -1
    try:  # from before it is opened: an interrupt may come on any line
        try:
            try:
                # Looked at before it is opened, because opening alone moves some devices; and again after, as
                # it may have been exchanged. O_NONBLOCK: a pipe that nobody writes to must not hold us.
                _must_be_regular(path, os.stat(real, follow_symlinks=False))
                descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                raise SourceError(f"cannot open {str(path)!r}: {error.strerror}") from error
            _must_be_regular(path, os.fstat(descriptor))
            yield descriptor
        finally:
            descriptor = _closed(descriptor)
    finally:  # it may come there, too: before the file is closed, or just after
        with suppress(OSError):
            _closed(descriptor)


def _closed(descriptor: int) -> int:
    """-1, once the descriptor is closed; in one line, so that it is never closed and still taken for open."""
    return -1 if descriptor < 0 else (os.close(descriptor), -1)[1]  # type: ignore[func-returns-value]


def _must_be_regular(path: Place, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        # Links are resolved by now: one that is left leads nowhere.
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a link to itself", stat.S_IFIFO: "a pipe"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device or the like")
        raise SourceError(f"{str(path)!r} is {kind}, not a file")


@contextmanager
def opened(file: File) -> Iterator[Handle]:
    """``file``, for reading: on this machine by its descriptor, else by asking its server.

    Raises:
        SourceError: it is not the file that was looked at, or that has changed.
    """
    if file.server is not None:
        with file.server.opened(file.real, Status(file.size, file.identity)) as handle:
            yield handle
        return
    with _opened(file.path, file.real) as descriptor:
        handle = Descriptor(descriptor)
        check_unchanged(file, handle)
        yield handle


def check_unchanged(file: File, handle: Handle) -> None:
    """Nothing, if the open file is still the one that was looked at; else a ``SourceError``."""
    now = handle.now()
    if now.identity != file.identity:
        raise changed(file, file.size, now.size)


def read_bytes(handle: Handle, count: int, offset: int) -> bytes:
    """Up to ``count`` bytes from ``offset`` on; fewer only where the file ends."""
    return handle.read(count, offset)


def brief(text: str, limit: int = 120) -> str:
    """A string out of a hostile file as messages quote it: printable, and not endless."""
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def some(names: Sequence[str], limit: int = 20) -> str:
    """The first of many hostile names, and how many there are besides."""
    shown = ", ".join(map(brief, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"
