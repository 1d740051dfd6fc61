"""Which files may be opened at all: regular ones; beside an index, no link out of its directory.

Owns the opening of files and the words for what is found in them. Knows no format.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from treeload._errors import SourceError

Identity: TypeAlias = "tuple[int, ...]"


def identity_of(status: os.stat_result) -> Identity:
    """What tells a file or a directory from another one in its place, and from itself once it has changed.

    Device and inode, since size and time of change may be made alike; and the time of the last change of the
    inode, which no program can set.
    """
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class File:
    """A regular file as it was when it was looked at: reading refuses it once it has changed.

    Attributes:
        path: what the user calls it, for messages.
        real: what is opened, links resolved.
        identity: by which another file, or the same one changed, is told apart (``identity_of``).
    """

    path: Path
    real: str
    size: int
    identity: Identity

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
    return look_within(directory, directory / filename)


def look_within(root: Path, file: Path) -> File:
    """The file ``file`` somewhere below ``root``: for what lies in a checkpoint that is a directory.

    Raises:
        SourceError: it is missing, is no regular file, or is a link out of ``root`` (but to the ``blobs``
            of the Hugging Face cache that it lies in).
    """
    return _look_at(file, resolved_within(root, file))


def resolved_within(root: Path, path: Path) -> str:
    """Where ``path``, which lies below ``root``, really is.

    Raises:
        SourceError: outside of ``root``, and not in the Hugging Face cache that it lies in.
    """
    home, real = Path(_resolved(root)), Path(_resolved(path))
    if not (real.is_relative_to(home) or real.parent == _blobs_of(home)):
        raise SourceError(f"{str(path)!r} is a link out of its directory: it leads out to {str(real)!r}")
    return str(real)


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
        return File(path, real, status.st_size, identity_of(status))


@contextmanager
def _opened(path: Path, real: str) -> Iterator[int]:
    descriptor = -1
    try:  # from before it is opened: an interrupt may come on any line
        try:
            # Looked at before it is opened, because opening alone moves some devices; and again after, as it
            # may have been exchanged. O_NONBLOCK: a pipe that nobody writes to must not hold us.
            _must_be_regular(path, os.stat(real, follow_symlinks=False))
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"cannot open {str(path)!r}: {error.strerror}") from error
        _must_be_regular(path, os.fstat(descriptor))
        yield descriptor
    finally:
        if descriptor >= 0:
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
        SourceError: it is not the file that was looked at, or that has changed.
    """
    with _opened(file.path, file.real) as descriptor:
        check_unchanged(file, descriptor)
        yield descriptor


def check_unchanged(file: File, descriptor: int) -> None:
    """Nothing, if the open file is still the one that was looked at; else a ``SourceError``."""
    status = os.fstat(descriptor)
    if identity_of(status) != file.identity:
        raise SourceError(
            f"{file} has changed since it was opened (then {file.size:,} bytes, now {status.st_size:,}): "
            "open it again",
            changed=True,
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
