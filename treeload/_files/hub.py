"""Repositories of the Hugging Face Hub: ``hf://org/name[@revision][/file]``.

Owns what a repository is: its revision is pinned to a commit when it is opened, so that all that is read is
of one moment; what lies in the local cache at that commit is read there, all else from the Hub by ranges
(``web``). Where there is no Hub, what the cache has of the revision is all that there is. Endpoint, token,
cache and ``HF_HUB_OFFLINE`` are those of ``huggingface_hub``.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

from treeload._errors import SourceError
from treeload._files import patience
from treeload._files.place import Handle, Remote, Server, Status
from treeload._files.web import WebServer
from treeload._naming.printable import printable

_KINDS = MappingProxyType({"datasets": "dataset", "spaces": "space"})


_URL = re.compile(
    r"hf://(?:(?P<kind>datasets|spaces)/)?(?P<repository>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/pr/[0-9]+|refs/convert/[\w.-]+|[^/]+))?(?:/(?P<file>.*))?"
)


_COMMIT = re.compile(r"[0-9a-f]{40}")


def place_of(url: str) -> Remote:
    """The place that an ``hf://`` URL means.

    Raises:
        SourceError: it names no repository, or ``huggingface_hub`` is not installed.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise SourceError(
            f"{printable(url, 200)!r} names no repository: write hf://org/name[@revision][/file]"
        )
    _library()
    kind = _KINDS.get(match["kind"] or "", "model")
    revision = unquote(match["revision"] or "main")
    return Remote(Hub(match["repository"], kind, revision), f"/{match['file'] or ''}".rstrip("/"))


def _library() -> Any:
    """``huggingface_hub``, imported where it is needed first.

    Raises:
        SourceError: it is not installed.
    """
    try:
        for part in ("constants", "errors"):
            importlib.import_module(f"huggingface_hub.{part}")
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise SourceError('hf:// needs the library huggingface_hub: pip install "treeload[hub]"') from error


def _endpoint(library: Any) -> str:
    return str(os.environ.get("HF_ENDPOINT") or library.constants.ENDPOINT).rstrip("/")


@dataclass(frozen=True)
class _Pinned:
    """A commit, and the files in it."""

    commit: str
    files: frozenset[str]
    is_online: bool


class Hub(Server):
    """One repository at one commit; paths begin with ``/``.

    Args:
        repository: ``org/name``.
        kind: ``model``, ``dataset`` or ``space``.
        revision: a branch, a tag, or a commit.
    """

    def __init__(self, repository: str, kind: str, revision: str) -> None:
        self.repository, self.kind, self.revision = repository, kind, revision

    @cached_property
    def _pinned(self) -> _Pinned:
        """The commit that the revision is now, asked for once."""
        library = _library()
        if library.constants.HF_HUB_OFFLINE:
            return self._cached("HF_HUB_OFFLINE is set")
        try:
            found = library.HfApi(endpoint=_endpoint(library)).repo_info(
                self.repository, repo_type=self.kind, revision=self.revision, timeout=patience.PATIENCE.answer
            )
        except (library.errors.RepositoryNotFoundError, library.errors.RevisionNotFoundError) as error:
            raise SourceError(
                f"{self._named!r} does not exist on the Hub, or is private and wants a token (hf auth login)"
            ) from error
        except Exception as error:  # of whichever library it speaks HTTP with
            return self._cached(f"the Hub does not answer: {printable(str(error), 200)}", error)
        files = frozenset(sibling.rfilename for sibling in found.siblings or ())
        if not _COMMIT.fullmatch(found.sha or ""):
            raise SourceError(f"{self._named!r}: the Hub names no commit")
        return _Pinned(str(found.sha), files, is_online=True)

    def _cached(self, why: str, error: Exception | None = None) -> _Pinned:
        """What the cache on this machine has of the revision.

        Raises:
            SourceError: nothing.
        """
        library = _library()
        try:
            snapshot = Path(
                library.snapshot_download(
                    self.repository, repo_type=self.kind, revision=self.revision, local_files_only=True
                )
            )
        except Exception as missing:
            raise SourceError(f"{self._named!r} is not in the cache of this machine, and {why}") from (
                error or missing
            )
        files = frozenset(
            str(Path(folder, name).relative_to(snapshot))
            for folder, _, names in os.walk(snapshot)
            for name in names
        )
        return _Pinned(snapshot.name, files, is_online=False)

    @cached_property
    def _web(self) -> WebServer:
        library = _library()
        endpoint = _endpoint(library)
        prefix = "" if self.kind == "model" else f"{self.kind}s/"
        token = library.get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return WebServer(
            f"{endpoint}/{prefix}{self.repository}/resolve/{self._pinned.commit}", headers=headers
        )

    def __getstate__(self) -> Mapping[str, Any]:
        # The commit goes along, and nothing that would have to be asked of the Hub.
        commit = self._pinned.commit if "_pinned" in vars(self) else self.revision
        return {"repository": self.repository, "kind": self.kind, "revision": commit}

    # --- names ---

    @property
    def _named(self) -> str:
        prefix = "" if self.kind == "model" else f"{self.kind}s/"
        return printable(f"hf://{prefix}{self.repository}@{self.revision}")

    def shown(self, path: str) -> str:
        if "_pinned" not in vars(self):
            return f"{self._named}{printable(path)}"
        return f"{self._named.rpartition('@')[0]}@{self._pinned.commit}{printable(path)}"

    def is_directory(self, path: str) -> bool:
        below = f"{path.strip('/')}/".lstrip("/")
        return not below or any(name.startswith(below) for name in self._pinned.files)

    def names(self, path: str) -> list[str]:
        below = f"{path.strip('/')}/".lstrip("/")
        found = (name.removeprefix(below) for name in self._pinned.files if name.startswith(below))
        return list(dict.fromkeys(name.partition("/")[0] for name in sorted(found)))

    # --- files ---

    def find(self, path: str) -> Status | None:
        file = path.lstrip("/")
        if file not in self._pinned.files:
            return None
        cached = _library().try_to_load_from_cache(
            self.repository, file, revision=self._pinned.commit, repo_type=self.kind
        )
        if isinstance(cached, str):
            status = os.stat(cached)
            return Status(status.st_size, (), os.path.realpath(cached))
        if not self._pinned.is_online:
            raise SourceError(
                f"{self.shown(path)!r} is not in the cache of this machine, and there is no Hub"
            )
        return self._web.find(quote(path))

    def opened(self, path: str, known: Status) -> AbstractContextManager[Handle]:
        return self._web.opened(quote(path), known)
