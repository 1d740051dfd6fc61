"""Files and directories brought to the disk, so that a power cut finds what a rename promised.

Owns which of them that takes: a file's bytes are not on the disk because it was closed, nor is its name
because they are. What is synced is what has to outlive the machine: ``replace`` asks, before it gives up an
old checkpoint for a new one.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

_CANNOT = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # file systems that do not sync directories


def sync_tree(path: Path) -> None:
    """Nothing; every file and directory from ``path`` down is on the disk afterwards.

    Raises:
        OSError: something there cannot be read or, on a full or broken disk, not be written.
    """
    if not path.is_dir():
        sync_file(path)
        return
    for folder, _, names in os.walk(path, topdown=False, onerror=_raise):
        for name in names:
            sync_file(Path(folder, name))
        sync_directory(Path(folder))


def sync_file(path: Path) -> None:
    """Nothing; the bytes of this one file are on the disk afterwards."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Nothing; the names in this directory are on the disk afterwards, where its file system can do that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> None:
    """Nothing; ``path`` and all above it are directories, those that are new with their names on the disk."""
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_directory(folder.parent)


def _raise(error: OSError) -> None:
    raise error
