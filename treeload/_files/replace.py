"""A place beside a path for its new contents, so that a kill or a power cut at any moment loses neither.

Owns the folder in which new contents are written, and what has to be done when a process died on the way.
How they take their place is in ``exchange``. Knows nothing of what the contents are.

Beside ``ckpts/vit`` lies, while it is being saved, ``ckpts/.vit.treeload-save/``, locked by who saves, and in
it a workspace under a name that nobody can guess (32 hexadecimal digits):

    new   is being written, or is complete and waits, or is what the exchange put aside
    old   only where the system cannot exchange two names at once: what ``path`` was, between two renames

``path`` always wins where it exists. Only between the two renames does it not; ``old`` and ``new`` then
both lie in the workspace, ``new`` is complete, and ``finish_dead_save`` finishes. All other workspaces, where
nobody holds the lock, are litter of a dead process, and the next save removes them. What else lies in the
folder is somebody's, and stays. A folder that is a link, or was made by somebody who could not have made
``path`` either, is never touched.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from treeload._files.interrupts import held_back
from treeload._files.sync import sync_directory

try:
    import fcntl
except ImportError:  # not on Windows, where two savers at once are not told apart
    fcntl = None  # type: ignore[assignment]


_BESIDE = re.compile(r"\.(?P<name>.+)\.treeload-save", re.DOTALL)  # as ``beside`` calls it


NAME_LENGTH = 32
"""Of the name of a workspace, in hexadecimal digits."""


_WORKSPACE = re.compile(f"[0-9a-f]{{{NAME_LENGTH}}}")


PATTERN_SIGNS = "*?[]"
"""What a writer may take for a pattern where it stands in a path."""


def beside(path: Path) -> Path:
    """The folder in which a save of ``path`` works; on the same file system, so that renames are whole.

    Its own name holds no pattern signs: they are written as in a URL.
    """
    name = "".join(quote(sign) if sign in f"%{PATTERN_SIGNS}" else sign for sign in path.name)
    return path.parent / f".{name}.treeload-save"


def saved_to(name: str) -> str | None:
    """The name of the path whose save works in a folder of this name; None where it is no such folder."""
    match = _BESIDE.fullmatch(name)
    return unquote(match["name"], errors="surrogateescape") if match else None


def finish_dead_save(path: Path) -> Path:
    """Where the checkpoint of ``path`` lies now: ``path``, once a save that died half-way is finished.

    Does nothing where nothing died. Where the directory cannot be written, the complete checkpoint is
    left beside and its place there is returned.
    """
    path = Path(os.path.realpath(path))
    folder = beside(path)
    left: Path | None = None
    for _ in range(20):
        if os.path.lexists(path) or (left := _between_renames(folder)) is None:
            return path
        with suppress(OSError), _lock(folder) as mine:
            if mine is not None and not os.path.lexists(path) and left == _between_renames(folder):
                try:
                    os.rename(left / "new", path)
                except OSError:
                    return left / "new"
                with suppress(OSError):  # what cannot be synced can be read all the same
                    sync_directory(path.parent)
                    _clear(folder, mine, left.name)
        time.sleep(0.05)  # a living save is between its renames: they are microseconds apart
    return path if os.path.lexists(path) or left is None else left / "new"


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write its new contents to; it, and what is left there, goes at the end.

    Raises:
        BlockingIOError: another process, or another thread of this one, is saving to the same path.
        OSError: the folder cannot be made, is a link, or is somebody else's.
    """
    claim: _Claim | None = None
    try:
        with held_back():
            claim = _claim(path)
        yield claim.folder / claim.name / "new"
    finally:
        if claim is not None:
            with held_back():
                claim.give_up(path)


@dataclass(frozen=True)
class _Claim:
    """A folder beside a path that this save has locked, by its descriptor, and its own workspace there."""

    folder: Path
    descriptor: int
    name: str

    def give_up(self, path: Path) -> None:
        try:
            # Never what a failed way back could not put back: it is looked for there.
            if os.path.lexists(path) or not (self.folder / self.name / "old").exists():
                _clear(self.folder, self.descriptor, self.name)
        finally:
            os.close(self.descriptor)


def _claim(path: Path) -> _Claim:
    folder = beside(path)
    while True:
        with suppress(FileExistsError):
            os.mkdir(folder)
        with _lock(folder) as descriptor:
            if descriptor is None or not _is_same(folder, descriptor):
                continue  # the save before us removed it between our mkdir and our lock
            if not os.path.lexists(path) and _between_renames(folder) is not None:
                raise FileExistsError(errno.EEXIST, "a dead save left it, and cannot be finished", str(path))
            for left in _workspaces(descriptor):
                _remove(descriptor, left)
            name = secrets.token_hex(NAME_LENGTH // 2)
            _make(descriptor, name, path)
            return _Claim(folder, os.dup(descriptor), name)


def _make(folder: int, name: str, path: Path) -> None:
    """A directory that is as open to others as what lies at ``path``: what is written in it replaces that."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode) | stat.S_IRWXU
    except FileNotFoundError:
        os.mkdir(name, dir_fd=folder)
        return
    os.mkdir(name, 0o700, dir_fd=folder)
    os.chmod(name, mode, dir_fd=folder)


# What lies beside.


def _between_renames(folder: Path) -> Path | None:
    """The workspace of a save that is, or died, between its two renames."""
    try:
        descriptor = _open(folder)
    except OSError:
        return None
    try:
        for name in _workspaces(descriptor):
            if (folder / name / "old").is_dir() and (folder / name / "new").is_dir():
                return folder / name
        return None
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    """A descriptor of the folder itself, never of what a link leads to.

    Raises:
        OSError: it is not there, is no directory, or is of somebody who could not have made the path.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owner = os.fstat(descriptor).st_uid
        if owner not in (os.geteuid(), 0, os.stat(folder.parent).st_uid):
            raise PermissionError(errno.EPERM, "it belongs to another user: move it away", str(folder))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _workspaces(folder: int) -> list[str]:
    """The names of the workspaces in a folder: directories, under names that only ``_claim`` gives."""
    return [
        name
        for name in sorted(os.listdir(folder))
        if _WORKSPACE.fullmatch(name)
        and stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    ]


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """A descriptor that holds ``folder`` until it is closed or this process dies; None where it is gone.

    Raises:
        BlockingIOError: another one holds it.
        OSError: it is no folder of ours.
    """
    try:
        descriptor = _open(folder)
    except FileNotFoundError:
        yield None
        return
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(
                    error.errno, "another process or thread is saving there", str(folder)
                ) from error
            except OSError:
                pass  # a file system without locks: work without
        yield descriptor
    finally:
        os.close(descriptor)


def _is_same(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _clear(folder: Path, descriptor: int, name: str) -> None:
    """Removes a workspace, and the folder where nothing else lies in it."""
    with suppress(OSError):
        _remove(descriptor, name)
    with suppress(OSError):
        os.rmdir(folder)


def _remove(folder: int, name: str) -> None:
    """Removes a workspace; again where a thread of a failed writer put something there meanwhile.

    Raises:
        OSError: it is still there.
    """
    for attempt in range(20):
        try:
            shutil.rmtree(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError:
            if attempt == 19:
                raise
            time.sleep(0.05)
