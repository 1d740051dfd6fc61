"""Object stores and whatever else ``fsspec`` knows: ``s3://``, ``gs://`` and the like.

Owns the way there and that a file stays what it was. Each scheme's library brings its own settings, keys and
retries; it is asked for single ranges, by as many threads as ``read`` has.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from treeload._errors import SourceError, TreeloadError
from treeload._files.place import Handle, Refused, Remote, Server, Status, changed
from treeload._naming.printable import printable

_EXTRAS = MappingProxyType({"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"})


_TAGS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "mtime", "created")
"""What the libraries say of a file that changes with it; the first counts that is there.

One only, since some say more of a file that they are asked for than of one in a list.
"""


def place_of(scheme: str, url: str) -> Remote:
    """The place that a URL of an object store means; raises as ``store_of``."""
    return Remote(*store_of(scheme, url))


def store_of(scheme: str, url: str) -> tuple[Store, str]:
    """The store that a URL is of, and the path there.

    Raises:
        SourceError: the scheme is not known, or its library is not installed.
    """
    shown = printable(url, 200)
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise SourceError(f"{shown!r} needs the library fsspec: {_install(scheme)}") from error
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise SourceError(f"{shown!r} needs a library that is not installed: {_install(scheme)}") from error
    except Exception as error:
        raise SourceError(
            f"{shown!r} is of no kind that treeload can read: {printable(str(error), 200)}"
        ) from error
    return Store(files, scheme), str(path)


def _install(scheme: str) -> str:
    return f'pip install "treeload[{_EXTRAS.get(scheme, "remote")}]"'


class Store(Server):
    """A file system of ``fsspec``.

    Args:
        files: the file system.
        scheme: what its URLs begin with.
    """

    def __init__(self, files: Any, scheme: str) -> None:
        self.files, self.scheme = files, scheme
        self._known: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "scheme": self.scheme, "_known": {}}

    def shown(self, path: str) -> str:
        return printable(f"{self.scheme}://{path.lstrip('/')}", 500)

    def _info(self, path: str, *, again: bool = False) -> dict[str, Any] | None:
        if again:
            self.files.invalidate_cache()
        if again or path not in self._known:
            with _ours(self.shown(path)):
                try:
                    self._known[path] = self.files.info(path)
                except (FileNotFoundError, NotADirectoryError):
                    self._known[path] = None
        known: dict[str, Any] | None = self._known[path]
        return known

    def find(self, path: str) -> Status | None:
        info = self._info(path)
        return None if info is None or info.get("type") == "directory" else self._status(path, info)

    def _status(self, path: str, info: dict[str, Any]) -> Status:
        if not isinstance(info.get("size"), int):
            raise SourceError(f"{self.shown(path)!r} does not say how large it is")
        said = next((str(info[tag]) for tag in _TAGS if info.get(tag) is not None), None)
        return Status(info["size"], (info["size"], said))

    def is_directory(self, path: str) -> bool:
        info = self._info(path)
        return info is not None and info.get("type") == "directory"

    def names(self, path: str) -> list[str]:
        with _ours(self.shown(path)):
            found = self.files.ls(path, detail=False)
        names = (str(each).rstrip("/").rpartition("/")[2] for each in found if str(each).rstrip("/") != path)
        return [name for name in names if name]

    def files_below(self, path: str) -> dict[str, Status]:
        self.files.invalidate_cache()
        with _ours(self.shown(path)):
            found = self.files.find(path, detail=True)
        return {str(each): self._status(str(each), info) for each, info in found.items()}

    def kvstore(self, path: str) -> dict[str, Any] | None:
        bucket, _, key = path.lstrip("/").partition("/")
        if self.scheme in ("gs", "gcs"):
            return {"driver": "gcs", "bucket": bucket, "path": f"{key}/"}
        if self.scheme not in ("s3", "s3a"):
            return None
        at = getattr(self.files, "endpoint_url", None) or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        where = {"endpoint": at, "aws_region": region or "us-east-1"} if at else {}
        return {"driver": "s3", "bucket": bucket, "path": f"{key}/", **where}

    @contextmanager
    def opened(self, path: str, known: Status) -> Iterator[Handle]:
        handle = _StoreHandle(self, path, known)
        self.must_be(path, known, handle.now())
        yield handle

    def must_be(self, path: str, known: Status, now: Status) -> None:
        if now.identity != known.identity:
            raise changed(repr(self.shown(path)), known.size, now.size)

    def range(self, path: str, start: int, stop: int) -> bytes:
        with _ours(self.shown(path)):
            found = bytes(self.files.cat_file(path, start=start, end=stop))
        if len(found) != stop - start:
            raise SourceError(f"{self.shown(path)!r} gave {len(found):,} bytes, not {stop - start:,}")
        return found

    def put(self, file: Path, path: str) -> None:
        """Nothing; what ``file`` holds is at ``path``."""
        with _ours(self.shown(path)):
            self.files.put_file(str(file), path)

    def now(self, path: str) -> Status:
        info = self._info(path, again=True)
        return Status(0, ()) if info is None else self._status(path, info)


class _StoreHandle(Handle):
    """A file that is read by ranges; what it is by now is asked before and after."""

    threads = 8
    piece = 4 << 20
    is_far = True

    def __init__(self, store: Store, path: str, known: Status) -> None:
        self._store, self._path, self._known = store, path, known

    def read(self, count: int, offset: int) -> bytes:
        count = max(min(count, self._known.size - offset), 0)
        return self._store.range(self._path, offset, offset + count) if count else b""

    def fill(self, buffers: Sequence[memoryview], offset: int) -> int:
        wanted = sum(map(len, buffers))
        found = memoryview(self.read(wanted, offset))
        at = 0
        for buffer in buffers:
            part = found[at : at + len(buffer)]
            buffer[: len(part)] = part
            at += len(buffer)
        return len(found)

    def now(self) -> Status:
        return self._store.now(self._path)


@contextmanager
def _ours(shown: str) -> Iterator[None]:
    """Whatever a store's library raises leaves as a ``SourceError`` that names the place."""
    try:
        yield
    except TreeloadError:
        raise
    except PermissionError as error:
        raise Refused(f"{shown!r} is not given to everybody: {printable(str(error), 200)}") from error
    except Exception as error:
        reason = printable(str(error), 200) or type(error).__name__
        raise SourceError(f"{shown!r} cannot be read: {reason}") from error
