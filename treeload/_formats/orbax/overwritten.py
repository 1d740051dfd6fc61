"""What a save may replace: one Orbax checkpoint, and nothing of anybody else's that lies in it.

Owns the recognition of every file that Orbax puts into a checkpoint, in any of its layouts. It is asked
before a byte is written, and again before the old checkpoint goes. What is not recognised is taken for the
user's own, so that it is refused and not lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeAlias

from treeload._errors import SaveError, SourceError
from treeload._files.replace import finish_dead_save, saved_to
from treeload._formats.orbax.layout import (
    CHECKPOINT_FILE,
    TREE_FILE,
    holds_steps,
    is_checkpoint,
    is_incomplete,
    read_json,
)

_SHOWN = 5


_MARKS = frozenset(("commit_success.txt", "orbax.checkpoint"))


_ROOT_FILES = _MARKS | {CHECKPOINT_FILE, "descriptor", "metadata", "metrics", "checkpoint"}


_TREE_FILES = _MARKS | {
    TREE_FILE, CHECKPOINT_FILE, "_sharding", "_strings.json", "_PYTREE_PROCESS_METADATA", "checkpoint",
}  # fmt: skip


_ITEM_FILES = _MARKS | {"metadata", "metrics", "descriptor", "checkpoint"}
"""Of an item that holds no tree: JSON, a protocol buffer, the state of a random generator."""


_RANDOM_STATE = re.compile(r"(np|jax)_random_key(_metadata)?")


_STORE_FILE = re.compile(r"manifest\.ocdbt(\.__lock)?")


_DATA_FILE = re.compile(r"[0-9a-f]{32}(\.__lock)?")


_PROCESS_STORE = re.compile(r"ocdbt\.process_.+")


_PROCESS_FILE = re.compile(r"process_\d+")


_ARRAY_HEADERS = (".zarray", "zarr.json")


_ARRAY_FILES = frozenset((*_ARRAY_HEADERS, ".zattrs", ".zgroup"))


_CHUNK = re.compile(r"c|\d+(\.\d+)*")


def check_target(target: Path, *, overwrite: bool) -> None:
    """Nothing, where ``target`` is free, or is a checkpoint that may be replaced.

    Raises:
        SaveError: it is not; or its name says that it is a save's own, or was never completed.
    """
    if is_incomplete(target.name):
        raise SaveError(
            f"{str(target)!r} cannot be the name of a checkpoint: Orbax marks by it what it has not completed"
        )
    if saved_to(target.name) is not None:
        raise SaveError(f"{str(target)!r} cannot be the name of a checkpoint: a save works under such a name")
    target = finish_dead_save(target)
    if not os.path.lexists(target):
        return
    if not is_replaceable(target):
        raise SaveError(f"{str(target)!r} exists and {_what_it_is(target)}")
    if not overwrite:
        raise SaveError(f"{str(target)!r} exists: pass overwrite=True to replace that checkpoint")
    entries = _foreign_in_tree(target) if (target / TREE_FILE).is_file() else _foreign_in_root(target)
    foreign = sorted(entries)
    if len(foreign) == 1:
        raise SaveError(
            f"{foreign[0]!r} is no part of the checkpoint that it lies in and would be lost: move it away"
        )
    if foreign:
        more = f" and {len(foreign) - _SHOWN:,} more" if len(foreign) > _SHOWN else ""
        raise SaveError(
            f"{', '.join(map(repr, foreign[:_SHOWN]))}{more} are no part of the checkpoint that they lie in "
            "and would be lost: move them away"
        )


def is_replaceable(target: Path) -> bool:
    """Whether a checkpoint of today's Orbax lies at ``target``; what else lies in it is not looked at."""
    return any((target / mark).is_file() for mark in (CHECKPOINT_FILE, TREE_FILE))


def _what_it_is(target: Path) -> str:
    """What lies there and is never replaced, and where to save instead."""
    never, inside = "it is never replaced", f"save to a path in it, {str(target / 'NAME')!r}"
    if not target.is_dir():
        return f"is no Orbax checkpoint: {never}"
    if is_checkpoint(target):
        return f"is a checkpoint of an older Orbax: {never}; save to another path"
    if holds_steps(target):
        return f"holds checkpoints, one for each step: {never}; {inside}"
    return f"is no Orbax checkpoint: {never}; {inside}"


# Each of these gives the paths of what is foreign in one kind of directory.

_Foreign: TypeAlias = "Iterator[str]"


def _foreign_in_root(root: Path) -> _Foreign:
    """Of a checkpoint that holds items."""
    items = _named_items(root)
    for entry in _entries(root):
        if _is_directory(entry):
            is_item = entry.name in items or os.path.isfile(os.path.join(entry.path, TREE_FILE))
            yield from _foreign_in_item(Path(entry.path)) if is_item else (entry.path,)
        elif not _is_file(entry, _ROOT_FILES):
            yield entry.path


def _named_items(root: Path) -> Collection[str]:
    try:
        handlers = read_json(root / CHECKPOINT_FILE, root, allow_nan=True).get("item_handlers")
    except SourceError:
        return ()
    return handlers if isinstance(handlers, dict) else ()


def _foreign_in_item(item: Path) -> _Foreign:
    if (item / TREE_FILE).is_file():
        yield from _foreign_in_tree(item)
        return
    for entry in _entries(item):
        if _is_directory(entry) and _RANDOM_STATE.fullmatch(entry.name):
            yield from _foreign_in_item(Path(entry.path))
        elif not _is_file(entry, _ITEM_FILES):
            yield entry.path


def _foreign_in_tree(tree: Path) -> _Foreign:
    for entry in _entries(tree):
        path = Path(entry.path)
        if not _is_directory(entry):
            if not (_is_file(entry, _TREE_FILES) or _matches(entry, _STORE_FILE)):
                yield entry.path
        elif entry.name == "array_metadatas":
            yield from _all_but(path, _PROCESS_FILE)
        elif entry.name == "d" and _is_store(tree):
            yield from _all_but(path, _DATA_FILE)
        elif _PROCESS_STORE.fullmatch(entry.name):
            yield from _foreign_in_store(path)
        else:  # without OCDBT a tree has a directory an array, under any name
            yield from _foreign_in_arrays(path)


def _foreign_in_store(store: Path) -> _Foreign:
    for entry in _entries(store):
        if _is_directory(entry) and entry.name == "d":
            yield from _all_but(Path(entry.path), _DATA_FILE)
        elif not _matches(entry, _STORE_FILE):
            yield entry.path


def _foreign_in_arrays(folder: Path) -> _Foreign:
    """Of an array's directory, or of one that holds such directories only."""
    if any((folder / header).is_file() for header in _ARRAY_HEADERS):
        yield from _foreign_in_chunks(folder)
        return
    entries = _entries(folder)
    if not entries or not all(map(_is_directory, entries)):
        yield str(folder)
        return
    for entry in entries:
        yield from _foreign_in_arrays(Path(entry.path))


def _foreign_in_chunks(folder: Path) -> _Foreign:
    for entry in _entries(folder):
        if _is_directory(entry) and _CHUNK.fullmatch(entry.name):
            yield from _foreign_in_chunks(Path(entry.path))
        elif not (_is_file(entry, _ARRAY_FILES) or _matches(entry, _CHUNK)):
            yield entry.path


def _all_but(folder: Path, allowed: re.Pattern[str]) -> _Foreign:
    return (entry.path for entry in _entries(folder) if not _matches(entry, allowed))


def _is_store(tree: Path) -> bool:
    return (tree / "manifest.ocdbt").is_file()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_file(entry: os.DirEntry[str], names: frozenset[str]) -> bool:
    return entry.name in names and entry.is_file(follow_symlinks=False)


def _matches(entry: os.DirEntry[str], names: re.Pattern[str]) -> bool:
    return names.fullmatch(entry.name) is not None and entry.is_file(follow_symlinks=False)
