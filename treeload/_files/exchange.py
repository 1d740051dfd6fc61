"""The moment in which new contents take their place: in one step, and on the disk before the old ones go.

Owns that step for a directory that may replace one, and for a file that replaces nothing. Where the new
contents are written, and what becomes of the old ones, is in ``replace``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from treeload._files.sync import sync_directory, sync_tree


def put_in_place(new: Path, path: Path) -> None:
    """Makes ``new`` the directory at ``path``; what was there lies beside ``new`` afterwards, or is ``new``.

    One system call where there is one (``renameat2``), so that ``path`` is never missing. All of ``new`` is
    on the disk before, and the names are before this returns, so that what was there can go. A directory
    that is replaced hands on its permissions.

    Raises:
        OSError: the file system refuses; what was at ``path`` is there.
    """
    if os.path.lexists(path):
        _hand_on_permissions(path, new)
    sync_tree(new)
    sync_directory(new.parent)
    aside = _exchange(new, path)
    try:
        sync_directory(path.parent)
        sync_directory(new.parent)
    except OSError:
        _exchange_back(new, path, aside)
        raise


def publish(new: Path, path: Path) -> None:
    """Gives the complete file ``new`` the name ``path``, at which nothing may be; on the disk afterwards.

    Raises:
        OSError: something is there, or the file system refuses.
    """
    sync_tree(new)
    try:
        os.link(new, path)  # fails where somebody was faster, which a rename would not
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise
        os.rename(new, path)
    sync_directory(path.parent)


def _exchange(new: Path, path: Path) -> Path | None:
    """Where what was at ``path`` lies now; None where nothing was."""
    if not os.path.lexists(path):
        os.rename(new, path)
        return None
    if _swap(new, path):
        return new
    old = new.parent / "old"
    os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(old, path)
        raise
    return old


def _exchange_back(new: Path, path: Path, aside: Path | None) -> None:
    if aside == new:
        _swap(new, path)
        return
    os.rename(path, new)
    if aside is not None:
        os.rename(aside, path)


def _hand_on_permissions(path: Path, new: Path) -> None:
    """Gives ``new`` the permissions of ``path``, and its group where that is allowed."""
    status = os.stat(path)
    if os.stat(new).st_gid != status.st_gid:
        with suppress(OSError):
            os.chown(new, -1, status.st_gid)
    os.chmod(new, stat.S_IMODE(status.st_mode))


_AT_FDCWD = -100


_RENAME_EXCHANGE = 2


def _swap(one: Path, other: Path) -> bool:
    """Whether the two names were exchanged in one step; False where the system has no such step."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library without it
        return False
    # flags is unsigned int, the descriptors are int: ctypes' default for Python ints fits them all.
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # the kernel, or this file system, cannot
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
