"""Replacing one directory by another so that a kill at any moment loses neither.

Owns the folder beside a path in which a new checkpoint is written, the exchange that puts it in place,
and what has to be done when a process died on the way. Knows nothing of what the directories hold.

Beside ``ckpts/vit`` lies, while it is being saved, ``ckpts/.vit.treeload-save/``:

    new   is being written, or is complete and waits, or is what the exchange put aside
    old   only where the system cannot exchange two names at once: what ``path`` was, between two renames

``path`` always wins where it exists. Only between the two renames does it not; ``old`` and ``new`` then
both lie beside it, ``new`` is complete, and ``finish_dead_save`` finishes. All else that is found beside a
path is litter of a dead process, and the next save removes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where two savers at once are not told apart
    fcntl = None  # type: ignore[assignment]


_BESIDE = re.compile(r"\.(?P<name>.+)\.treeload-save")  # as ``beside`` calls it


def beside(path: Path) -> Path:
    """The folder in which a save of ``path`` works; on the same file system, so that renames are whole."""
    return path.parent / f".{path.name}.treeload-save"


def saved_to(name: str) -> str | None:
    """The name of the path whose save works in a folder of this name; None where it is no such folder."""
    match = _BESIDE.fullmatch(name)
    return match["name"] if match else None


def finish_dead_save(path: Path) -> Path:
    """Where the checkpoint of ``path`` lies now: ``path``, once a save that died half-way is finished.

    Does nothing where nothing died. Where the directory cannot be written, the complete checkpoint is
    left beside and its place there is returned.
    """
    path = Path(os.path.realpath(path))
    folder = beside(path)
    for _ in range(20):
        if os.path.lexists(path) or not _is_between_renames(folder):
            return path
        with _lock(folder) as mine:
            if mine and not os.path.lexists(path) and _is_between_renames(folder):
                try:
                    os.rename(folder / "new", path)
                except OSError:
                    return folder / "new"
                shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)  # a living save is between its renames: they are microseconds apart
    return path if os.path.lexists(path) else folder / "new"


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write its new contents to; it, and what is left there, goes at the end.

    Raises:
        BlockingIOError: another process is saving to the same path.
        OSError: the folder cannot be made, or litter of a dead save cannot be removed.
    """
    folder = beside(path)
    while True:
        folder.mkdir(exist_ok=True)
        with _lock(folder) as mine:
            if not mine:
                raise BlockingIOError(errno.EWOULDBLOCK, "another process is saving there", str(path))
            if not _is_same(folder, mine):
                continue  # the one before us removed it between our mkdir and our lock
            for left in list(folder.iterdir()):
                _remove(left)
            try:
                yield folder / "new"
            finally:
                # Never what a failed way back could not put back: it is looked for there.
                if os.path.lexists(path) or not (folder / "old").exists():
                    shutil.rmtree(folder, ignore_errors=True)
            return


def put_in_place(new: Path, path: Path) -> None:
    """Makes ``new`` the directory at ``path``; what was there lies in the workspace afterwards.

    One system call where there is one (``renameat2``), so that ``path`` is never missing.
    """
    if not os.path.lexists(path):
        os.rename(new, path)
        return
    if _swap(new, path):
        return
    old = new.parent / "old"
    os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(old, path)
        raise


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


def _is_between_renames(folder: Path) -> bool:
    return (folder / "old").is_dir() and (folder / "new").is_dir()


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """A descriptor that holds ``folder`` for this process until it ends or dies; None if another does."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            except OSError:
                pass  # a file system without locks: work without
        yield descriptor
    finally:
        os.close(descriptor)


def _is_same(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
