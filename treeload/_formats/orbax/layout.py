"""Where in a directory an Orbax checkpoint keeps its tree, and what its metadata files say.

Owns the layouts (a tree's own directory, items, steps, Flax's ``checkpoint_N``) and the reading of the
JSON files, which are untrusted. Opens no array. ``source`` comes after and reads the arrays.

A tree's directory is one that holds ``_METADATA``, or is of the time before that (``early``). It is the
path itself (v0 handlers, Flax), or a child of a checkpoint (an item: v1's ``state``, the manager's
``default``), or below the latest step.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treeload._errors import SourceError
from treeload._files.msgpack_tree import Packed
from treeload._files.open import look_within, opened, read_bytes, resolved_within
from treeload._files.place import Identity, Place, Remote, identity_of, names_in
from treeload._files.replace import finish_dead_save
from treeload._files.steps import in_order, is_numbered, step_of
from treeload._files.strict_json import parse_json
from treeload._formats.orbax.direct import prefix_of
from treeload._formats.orbax.early import STRUCTURE_FILE, EarlyTree, is_early, read_early
from treeload._naming.bounds import name_from_file
from treeload._naming.name import Name, print_name

TREE_FILE = "_METADATA"


CHECKPOINT_FILE = "_CHECKPOINT_METADATA"


_INCOMPLETE = ".orbax-checkpoint-tmp"


_MOST_METADATA_BYTES = 1 << 29  # 20,000 leaves take 5 MB


@dataclass(frozen=True)
class Layout:
    """Where one tree lies: ``root`` is the checkpoint's directory, ``tree`` the tree's within it."""

    root: Place
    tree: Place
    step: int | float | None
    item: str | None


def recognises(path: Place) -> bool:
    """Whether ``path`` is an Orbax checkpoint, whole or broken; looks at file names alone."""
    if isinstance(path, Remote):
        return path.is_dir() and (is_checkpoint(path) or bool(_steps(path)))
    if is_incomplete(path.name) or _incomplete_beside(path):
        return True
    directory = finish_dead_save(path)
    if not directory.is_dir():
        return False
    return is_checkpoint(directory) or bool(_steps(directory)) or bool(_incomplete_in(directory))


def is_checkpoint(directory: Place) -> bool:
    """Whether ``directory`` is itself one complete checkpoint, and not a directory that holds some."""
    if _is_tree(directory) or (directory / CHECKPOINT_FILE).is_file():
        return True
    items = _items(directory)
    return bool(items) and not _are_steps(items)


def holds_steps(directory: Place) -> bool:
    """Whether ``directory`` holds one complete checkpoint for each step, as a manager's root does."""
    return bool(_steps(directory))


def _is_tree(directory: Place) -> bool:
    return (directory / TREE_FILE).is_file() or is_early(directory)


def locate(path: Place, item: str | None) -> Layout:
    """The directory of the tree that ``path`` (and ``item``) mean.

    Raises:
        SourceError: nothing there, nothing complete, or several items and no choice among them.
    """
    shown = repr(str(path))
    if is_incomplete(path.name):
        raise SourceError(f"{shown} is an incomplete Orbax checkpoint: its writer died before it was done")
    root = path if isinstance(path, Remote) else finish_dead_save(path)
    if not root.exists():
        if beside := _incomplete_beside(path):
            raise SourceError(f"{shown} does not exist; {str(beside)!r} beside it was never completed")
        raise SourceError(f"{shown} does not exist")
    if not root.is_dir():
        raise SourceError(f"{shown} is no directory, so no Orbax checkpoint")

    step: int | float | None = None
    if not is_checkpoint(root):
        step, root = _latest_step(root, shown)
    if _is_tree(root):
        if item is not None:
            raise SourceError(f"{str(root)!r} holds one tree and no items, so no item {item!r}")
        return Layout(root, root, step, None)
    return _choose_item(root, step, item)


def _choose_item(root: Place, step: int | float | None, item: str | None) -> Layout:
    items = _items(root)
    listed = ", ".join(repr(name) for name in items)
    if item is not None:
        if item not in items:
            there = f"has the items {listed}" if items else "has no item that holds a tree"
            raise SourceError(f"{str(root)!r} has no item {item!r} that holds a tree; it {there}")
        return Layout(root, root / item, step, item)
    if not items:
        raise SourceError(f"{str(root)!r} holds no tree: {TREE_FILE!r} is neither in it nor in a child of it")
    if len(items) > 1:
        raise SourceError(f"{str(root)!r} holds several items: {listed}; choose one with From(..., item=...)")
    return Layout(root, root / items[0], step, None)


def _latest_step(root: Place, shown: str) -> tuple[int | float, Place]:
    steps = _steps(root)
    if not steps:
        if not any(root.iterdir()):
            raise SourceError(f"{shown} is an empty directory")
        if left := _incomplete_in(root):
            raise SourceError(f"{shown} holds no complete checkpoint, only {', '.join(map(repr, left))}")
        if (root / STRUCTURE_FILE).is_file():
            raise SourceError(
                f"{shown} may be of an early Orbax, which wrote no {TREE_FILE!r}, but its file "
                f"{STRUCTURE_FILE!r} is not what that wrote"
            )
        raise SourceError(f"{shown} is no Orbax checkpoint: no {TREE_FILE!r}, no item, no step in it")
    name, step = in_order({name: step_of(name) for name in steps}, shown)[-1]
    return step.number, root / name


def _steps(directory: Place) -> list[str]:
    """The complete steps in ``directory``, unless what lies latest there is Flax's msgpack file."""
    found: list[str] = []
    latest_file = -math.inf
    for entry in _children(directory):
        if not is_numbered(entry.name):
            continue
        if entry.is_dir():
            if is_checkpoint(directory / entry.name):
                found.append(entry.name)
        elif entry.is_file() and (step := step_of(entry.name)) and step.series == "checkpoint_*":
            latest_file = max(latest_file, step.number)
    steps = map(step_of, found)
    return found if any(step is None or step.number > latest_file for step in steps) else []


def _items(directory: Place) -> list[str]:
    """The children that hold a tree, in order."""
    return sorted(
        entry.name for entry in _children(directory) if entry.is_dir() and _is_tree(directory / entry.name)
    )


def _are_steps(items: list[str]) -> bool:
    return all(map(is_numbered, items))


def _children(directory: Place) -> Sequence[os.DirEntry[str] | Remote]:
    if isinstance(directory, Remote):
        return [entry for entry in directory.iterdir() if not is_incomplete(entry.name)]
    with os.scandir(directory) as entries:
        return [entry for entry in entries if not is_incomplete(entry.name)]


def is_incomplete(name: str) -> bool:
    """Whether a directory of this name is one that Orbax has not completed."""
    return _INCOMPLETE in name


def _incomplete_in(directory: Place) -> list[str]:
    return sorted(name for name in names_in(directory) if is_incomplete(name))


def _incomplete_beside(path: Place) -> Path | None:
    if isinstance(path, Remote):
        return None
    beside = path.with_name(path.name + _INCOMPLETE) if path.name else path
    return beside if not path.exists() and beside != path and beside.is_dir() else None


# --- what the metadata files say -------------------------------------------------------------------


@dataclass(frozen=True)
class StoredLeaf:
    """One leaf on disk: its name in the tree, the name that Orbax joined from it, and who wrote it.

    ``kind`` is what Orbax calls what its handler wrote, such as ``np.ndarray``, or ``scalar`` of a number.
    """

    name: Name
    stored: str
    kind: str = "jax.Array"


@dataclass(frozen=True)
class TreeMetadata:
    """What ``_METADATA`` says: which leaves are arrays, which slots are None, and how they are stored.

    Of an early tree, what stands in its place, and the leaves whose values are in the file of its structure.
    ``is_known``: it lists its leaves as Orbax does today; else nothing is known of them here.
    """

    leaves: tuple[StoredLeaf, ...]
    nones: tuple[Name, ...]
    zarr3: bool
    stores_fill: bool  # every chunk was written, so one that lacks is damage
    custom: dict[str, Any]
    packed: Mapping[Name, Packed] = field(default_factory=dict)
    is_known: bool = True


_EMPTY = ("Dict", "List", "Tuple", "NamedTuple", "None")


def read_tree_metadata(layout: Layout) -> TreeMetadata:
    """What the tree's ``_METADATA`` says, or what is there in its place.

    Raises:
        SourceError: it is no JSON of that form, or two of its leaves are stored under one name.
    """
    file = layout.tree / TREE_FILE
    early = read_early(layout.root, layout.tree) if is_early(layout.tree) else EarlyTree()
    if not (file.exists() if isinstance(file, Remote) else os.path.lexists(file)):
        listed = [StoredLeaf(name, ".".join(name)) for name in early.stored]
        return TreeMetadata(_apart(listed, layout.tree), early.absent, False, False, {}, early.packed)
    data = read_json(file, layout.root, allow_nan=True)  # it holds metadata of the user's, as below
    is_known = isinstance(data.get("tree_metadata"), dict)
    leaves, nones = _read_entries(data["tree_metadata"], file) if is_known else ({}, {})
    strange = next((name for name in early.packed if name not in leaves), None)
    if strange is not None:
        raise SourceError(
            f"{str(file)!r} lists no leaf {print_name(strange)!r}, and {STRUCTURE_FILE!r} beside it holds one"
        )
    nones |= {name: None for name in early.absent if name in leaves}
    elsewhere = {*early.packed, *early.absent, *early.statics}
    custom = data.get("custom_metadata")
    return TreeMetadata(
        leaves=_apart([leaf for leaf in leaves.values() if leaf.name not in elsewhere], file),
        nones=tuple(nones),
        zarr3=data.get("use_zarr3") is True,
        stores_fill=data.get("store_array_data_equal_to_fill_value") is True,
        custom=custom if isinstance(custom, dict) else {},
        packed=early.packed,
        is_known=is_known,
    )


def _read_entries(entries: Mapping[str, Any], file: Place) -> tuple[dict[Name, StoredLeaf], dict[Name, None]]:
    """The leaves that the tree's metadata lists, and the slots that hold None."""
    leaves: dict[Name, StoredLeaf] = {}
    nones: dict[Name, None] = {}
    for key, entry in entries.items():
        name, value_type = _read_entry(key, entry, file)
        if name in leaves or name in nones:
            raise SourceError(f"{str(file)!r} lists the leaf {print_name(name)!r} twice")
        if value_type == "None":
            nones[name] = None
        elif value_type not in _EMPTY and value_type != "string":
            leaves[name] = StoredLeaf(name, ".".join(name), value_type)
    return leaves, nones


def _apart(leaves: Sequence[StoredLeaf], where: Place) -> tuple[StoredLeaf, ...]:
    """The leaves, if each is stored under a name of its own."""
    by_stored: dict[str, Name] = {}
    for leaf in leaves:
        other = by_stored.setdefault(prefix_of(leaf.stored), leaf.name)
        if other != leaf.name:
            raise SourceError(
                f"{str(where)!r}: the leaves {print_name(other)!r} and {print_name(leaf.name)!r} "
                f"are both stored as {leaf.stored!r}, so that one has overwritten the other"
            )
    return tuple(leaves)


def _read_entry(key: str, entry: Any, file: Place) -> tuple[Name, str]:
    try:
        name = name_from_file(str(part["key"]) for part in entry["key_metadata"])
        value = entry["value_metadata"]
        return name, str(value["value_type"])
    except (KeyError, TypeError) as error:
        raise SourceError(f"{str(file)!r}: the entry {key[:100]!r} is malformed") from error
    except ValueError as error:
        raise SourceError(f"{str(file)!r}: the entry {key[:100]!r} has {error}") from error


def read_custom_metadata(layout: Layout) -> dict[str, Any]:
    """The custom metadata of the whole checkpoint; empty where it has none."""
    file = layout.root / CHECKPOINT_FILE
    if not file.exists():
        return {}
    # What users and managers put in, such as a loss that is NaN, is written by Python as it is.
    custom = read_json(file, layout.root, allow_nan=True).get("custom_metadata")
    return custom if isinstance(custom, dict) else {}


def read_key_impls(layout: Layout) -> dict[str, str]:
    """Stored name → PRNG implementation, for the leaves that are typed keys."""
    impls: dict[str, str] = {}
    directory = layout.tree / "array_metadatas"
    if not directory.is_dir():
        return impls
    for file in (directory / name for name in sorted(names_in(directory))):
        for entry in read_json(file, layout.root).get("array_metadatas") or ():
            try:
                described = entry["array_metadata"]
                extra = described["ext_metadata"]
                if extra and "random_key_impl" in extra:
                    impls[str(described["param_name"])] = str(extra["random_key_impl"])
            except (KeyError, TypeError) as error:
                raise SourceError(f"{str(file)!r} is malformed") from error
    return impls


def read_json(file: Place, root: Place, *, allow_nan: bool = False) -> dict[str, Any]:
    """The JSON object in ``file``, which must be a regular file of the checkpoint at ``root``."""
    found = look_within(root, file)
    if found.size > _MOST_METADATA_BYTES:
        raise SourceError(f"{found} is too large for a metadata file: {found.size:,} bytes")
    with opened(found) as descriptor:
        raw = read_bytes(descriptor, found.size, 0)
    try:
        data = parse_json(raw.decode(), allow_nan=allow_nan)
    except ValueError as error:
        raise SourceError(f"{found} is no JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(data, dict):
        raise SourceError(f"{found} is no JSON object")
    return data


# --- nothing but regular files, nothing outside ----------------------------------------------------


@dataclass(frozen=True)
class Files:
    """The files of a tree as they were: how many bytes, and by what each is known again."""

    total: int
    identities: Mapping[str, Identity]


def check_files(layout: Layout) -> Files:
    """The files of the tree, once each is known to be one that may be opened.

    Raises:
        SourceError: a pipe, socket or device (opening one could hang), or a link that leads out.
    """
    if isinstance(layout.tree, Remote):
        there = layout.tree.server.files_below(layout.tree.path)
        return Files(
            sum(each.size for each in there.values()), {path: each.identity for path, each in there.items()}
        )
    found: dict[str, Identity] = {}
    total = 0
    todo = [layout.tree]
    _check_directory(layout.tree, layout.root)
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(Path(entry.path))
                elif entry.is_symlink() and entry.is_dir():
                    _check_directory(Path(entry.path), layout.root)
                elif entry.is_symlink():
                    file = look_within(layout.root, Path(entry.path))
                    total += file.size
                    found[entry.path] = file.identity
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    total += status.st_size
                    found[entry.path] = identity_of(status)
                else:
                    raise SourceError(f"{entry.path!r} is no regular file")
    return Files(total, found)


def _check_directory(path: Path, root: Place) -> None:
    if not os.path.isdir(resolved_within(root, path)):
        raise SourceError(f"{str(path)!r} is no directory")


# --- one checkpoint, not half of the next ----------------------------------------------------------


def identity(directory: Place) -> Identity | None:
    """By what a directory is known again; None where there is none, as on a server: its files tell there."""
    if isinstance(directory, Remote):
        return None
    try:
        return identity_of(os.stat(directory))
    except OSError:
        return None


@contextmanager
def of_one_moment(directory: Place, known: Identity | None, label: str) -> Iterator[None]:
    """Lets nothing pass that was read while another directory took this one's place, as ``save`` does it.

    Raises:
        SourceError: that happened; what else went wrong is its cause.
    """
    try:
        yield
    except Exception as error:
        if identity(directory) != known:
            raise changed(label) from error
        raise
    if identity(directory) != known:
        raise changed(label)


def changed(label: str) -> SourceError:
    return SourceError(f"{label} changed while it was read: read it again", changed=True)
