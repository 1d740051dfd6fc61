"""Trees of early Orbax: their structure in a msgpack file, with values in it, or in no file at all.

Owns what stood where ``_METADATA`` stands today. Until Orbax 0.2 there was none of it: the structure was
kept in a msgpack file, ``checkpoint``, in which ``PLACEHOLDER://`` stands for an array that is stored beside
it, or was told by the names of the arrays' directories alone. Until Flax 0.8 that file held values too: those
of small arrays and of numbers (``save_args_from_target``), also beside a ``_METADATA``. Reads no array; where
a checkpoint's tree lies is decided in ``layout``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from treeload._errors import SourceError
from treeload._files.beginning import beginning_of
from treeload._files.msgpack import begins_as_a_map
from treeload._files.msgpack_tree import Packed, read_tree
from treeload._files.open import brief, look_within
from treeload._files.place import Place, Remote, names_in
from treeload._naming.bounds import name_from_file
from treeload._naming.name import Name, print_name

STRUCTURE_FILE = "checkpoint"


_PLACEHOLDERS = ("PLACEHOLDER://", "AGGREGATED://")


_HEADER = ".zarray"


_LATER = ("_METADATA", "_CHECKPOINT_METADATA", "_sharding", "array_metadatas", ".zgroup")
"""What no tree has whose structure only its directories tell: where one is, ``_METADATA`` was lost."""


@dataclass(frozen=True)
class EarlyTree:
    """What such a tree holds.

    Attributes:
        stored: the leaves that are arrays of their own, stored under their keys joined with ``.``.
        packed: the leaves whose values are in the msgpack file.
        absent: the slots that hold None.
        statics: the slots that hold a text.
    """

    stored: tuple[Name, ...] = ()
    packed: Mapping[Name, Packed] = field(default_factory=dict)
    absent: tuple[Name, ...] = ()
    statics: tuple[Name, ...] = ()


def has_structure(directory: Place) -> bool:
    """Whether ``directory`` holds a msgpack file of its structure."""
    file = directory / STRUCTURE_FILE
    return file.is_file() and begins_as_a_map(beginning_of(file))  # the first is cheap: most have none


def is_early(directory: Place) -> bool:
    """Whether ``directory`` holds a tree as early Orbax wrote it; looks at a name or two and first bytes."""
    if isinstance(directory, Remote):  # where a look costs more than a name
        return STRUCTURE_FILE in names_in(directory) and has_structure(directory)
    if has_structure(directory):
        return True
    if any(os.path.lexists(directory / later) for later in _LATER):
        return False
    try:
        with os.scandir(directory) as entries:
            first = next((entry for entry in entries if entry.is_dir() and entry.name[0] != "."), None)
    except OSError:  # a neighbour that may not be looked into
        return False
    return first is not None and os.path.isfile(os.path.join(first.path, _HEADER))


def read_early(root: Place, tree: Place) -> EarlyTree:
    """The tree in the directory ``tree`` of the checkpoint at ``root``.

    Raises:
        SourceError: its structure is malformed, or contradicts itself.
    """
    return _of_file(root, tree / STRUCTURE_FILE) if has_structure(tree) else _of_directories(tree)


def _of_file(root: Place, path: Place) -> EarlyTree:
    file = look_within(root, path)
    try:
        found = read_tree(file)
    except (ValueError, TypeError) as error:
        raise SourceError(f"{file} is no structure of an Orbax checkpoint: {error}") from error
    stored = tuple(name for name, text in found.texts.items() if text.startswith(_PLACEHOLDERS))
    statics = tuple(name for name in found.texts if name not in set(stored))
    return EarlyTree(stored, found.leaves, tuple(found.absent), statics)


def _of_directories(tree: Place) -> EarlyTree:
    """Each directory is an array, called by its keys joined with ``.``."""
    names: dict[Name, None] = {}
    found = sorted(name for name in names_in(tree) if (tree / name).is_dir())
    for stored in found:
        if not (tree / stored / _HEADER).is_file():
            if stored[0] == ".":  # what other programs leave; a key that is empty gives such a name too
                continue
            raise SourceError(
                f"{str(tree)!r} is of an early Orbax, in which each directory is an array, and "
                f"{brief(stored)} is none"
            )
        try:
            names[name_from_file(stored.split("."))] = None
        except ValueError as error:
            raise SourceError(f"{str(tree)!r}: the array {brief(stored)} has {error}") from error
    for name in names:
        above = next((name[:depth] for depth in range(1, len(name)) if name[:depth] in names), None)
        if above is not None:
            raise SourceError(
                f"{str(tree)!r}: the array {print_name(name)!r} lies below another one, {print_name(above)!r}"
            )
    return EarlyTree(tuple(names))
