"""The Hugging Face cache on the disk: which snapshot is meant by the folder of a repository.

``models--org--name`` holds ``snapshots/<revision>``, whose files are links to ``blobs``, and ``refs/main``,
the name of the revision that was downloaded last under it (https://huggingface.co/docs/huggingface_hub,
"Manage the cache"). Owns the choice among what is there; downloads nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from treeload._errors import SourceError
from treeload._files.beginning import beginning_of
from treeload._files.place import Place, Remote

_SHOWN = 6


_LONGEST_REVISION = 100  # bytes that are read of a file in ``refs``; a revision takes 40


def snapshot_of(path: Place) -> Place:
    """The snapshot that is meant where ``path`` is the folder of a repository; else ``path`` itself.

    That of ``main``, or the only one.

    Raises:
        SourceError: there is none, or there are several and none is that of ``main``.
    """
    if isinstance(path, Remote) or not is_repository(path):
        return path
    shown = f"{str(path)!r} is the folder of a repository in the Hugging Face cache"
    snapshots = sorted(entry for entry in (path / "snapshots").iterdir() if entry.is_dir())
    if not snapshots:
        raise SourceError(f"{shown}, and holds no snapshot: nothing was downloaded")
    refs = _refs(path / "refs")
    # Compared with what is there, and never joined: what a file says may lead anywhere.
    meant = [snapshot for snapshot in snapshots if snapshot.name == refs.get("main")] or snapshots
    if len(meant) == 1:
        return meant[0]
    said = []
    for snapshot in snapshots[:_SHOWN]:
        names = [name for name, revision in refs.items() if revision == snapshot.name]
        said.append(repr(str(snapshot)) + (f" ({', '.join(names)})" if names else ""))
    more = f" and {len(snapshots) - _SHOWN:,} more" if len(snapshots) > _SHOWN else ""
    raise SourceError(f"{shown}: open one of its snapshots, {', '.join(said)}{more}")


def is_repository(path: Path) -> bool:
    """Whether ``path`` is the folder of a repository in the cache, by its name and what is in it."""
    return path.name.startswith(("models--", "datasets--", "spaces--")) and (path / "snapshots").is_dir()


def _refs(directory: Path) -> dict[str, str]:
    """What a branch or a tag is called → the revision that it was."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return {}
    found = {name: beginning_of(directory / name, _LONGEST_REVISION) for name in names}
    return {
        name: ref.first.decode("ascii", "replace").strip() for name, ref in found.items() if ref is not None
    }
