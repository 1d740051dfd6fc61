"""One file a format; ``open_source`` asks each in turn which of them a path is.

``FORMATS`` says who is asked first. Each is a module with ``recognises(path) -> bool``, which looks at
names and first bytes only, and a class that opens what it recognised. A module is imported when it is
asked, so that importing treeload imports no format's library.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treeload._errors import SourceError
from treeload._formats import unknown
from treeload._sources.separated import SeparatedSource
from treeload._sources.source import Source, as_source_error

FORMATS: tuple[tuple[str, str, str], ...] = (
    ("safetensors.source", "SafetensorsSource", "safetensors: a file, or a directory of them with its index"),
    ("flax", "MsgpackSource", "Flax msgpack: a file, or a directory of checkpoint_N files"),
    ("equinox", "EqxSource", "Equinox: a file of tree_serialise_leaves, loaded by position"),
    ("orbax.source", "OrbaxSource", "Orbax: a checkpoint, a step directory, or a manager's root"),
)
"""Module, class and words of each format; the first that recognises a path opens it."""


def open_source(
    path: str | os.PathLike[str], *, item: str | None = None, separator: str | None = None
) -> Source:
    """The source at ``path``, whatever its format.

    Raises:
        SourceError: there is nothing at ``path``, it is no checkpoint that treeload knows, or it is
            incomplete or malformed.
    """
    where = Path(os.path.expanduser(os.fspath(path)))
    with as_source_error(f"{str(where)!r} could not be opened"):
        if not where.exists() and not _unfinished(where):
            near = _nearest_that_exists(where)
            raise SourceError(f"{str(where)!r} does not exist{near}")
        for module_name, class_name, _ in FORMATS:
            module = _module(module_name)
            if module.recognises(where):
                options = _options(where, class_name, item, separator)
                with _by_another_name(where, getattr(module, "MAGIC", None)):
                    source: Source = getattr(module, class_name)(where, **options)
                if separator is None or "separator" in options:
                    return source
                return SeparatedSource(source, separator)
        is_whole = _module("orbax.layout").is_checkpoint
        said = unknown.what_is(where, opens=_opens, is_whole=is_whole)
        if said:
            raise SourceError(f"{str(where)!r} {said}")
        known = "\n".join(f"  {words}" for _, _, words in FORMATS)
        raise SourceError(f"{str(where)!r} is no checkpoint that treeload knows. It knows\n{known}")


def _module(name: str) -> Any:
    return importlib.import_module(f"treeload._formats.{name}")


def _opens(path: Path) -> bool:
    return any(_module(name).recognises(path) for name, _, _ in FORMATS)


@contextmanager
def _by_another_name(path: Path, magic: bytes | None) -> Iterator[None]:
    """What a file is that bears a format's name and is not of it: more use than where its parser stumbled."""
    try:
        yield
    except SourceError as error:
        if path.is_dir():
            found = unknown.not_downloaded_in(path)
            said = "" if found is None else f"cannot be opened: {found[0]!r} in it {found[1]}"
        else:
            said = unknown.content_of(path, magic=magic)
        if not said:
            raise
        raise SourceError(f"{str(path)!r} {said}") from error


def _options(where: Path, class_name: str, item: str | None, separator: str | None) -> dict[str, Any]:
    """What was asked for, where the format has it."""
    if item is not None and class_name != "OrbaxSource":
        raise SourceError(f"{str(where)!r} is no Orbax checkpoint, so it has no item {item!r}")
    # Its own names are joined, so that another separator takes the place of the usual one.
    asked = {"item": item, "separator": separator if class_name == "SafetensorsSource" else None}
    return {name: value for name, value in asked.items() if value is not None}


def _unfinished(path: Path) -> bool:
    """Whether a save that replaced a checkpoint at ``path`` died halfway, so that it lies beside."""
    return bool(_module("orbax.source").recognises(path))


def _nearest_that_exists(path: Path) -> str:
    for parent in path.parents:
        if parent.is_dir():
            names = sorted(entry.name for entry in os.scandir(parent))[:8]
            holds = f"; {str(parent)!r} holds {', '.join(names)}" if names else f"; {str(parent)!r} is empty"
            return holds
    return ""
