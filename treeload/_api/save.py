"""A tree to a path: ``save`` in our own way, ``export`` in the way of the source that it came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from treeload._checkpoints import export as _export
from treeload._checkpoints.history import History
from treeload._checkpoints.left_out import left_out, warn_of_left_out
from treeload._checkpoints.provenance import provenance_of
from treeload._errors import RuleError, SaveError
from treeload._files.places import is_url
from treeload._files.put import put_in_place
from treeload._formats.orbax import write as _save
from treeload._formats.safetensors.source import SUFFIX
from treeload._leaves.spec import SlotKind
from treeload._naming.name import Name
from treeload._naming.printable import printable
from treeload._plan import Plan
from treeload._rules.rule import Rule, as_rules
from treeload._sources import given
from treeload._sources.stamp import UNSTAMPED
from treeload._trees.tree import PyTree
from treeload._versions.version import checked_history


def save(
    path: str | os.PathLike[str],
    tree: PyTree,
    *,
    metadata: Mapping[str, Any] | None = None,
    history: History | None = None,
    provenance: Any = None,
    overwrite: bool = False,
    compression: bool = False,
    check_finite: bool = False,
) -> None:
    """Writes ``state(tree)`` through Orbax, so that ``open``, ``load`` and plain Orbax read it.

    Tied leaves are written once and their aliases recorded; so are absent slots, arrays of size zero,
    and a digest of every leaf. What is no array and no number (a text, a function) cannot be stored:
    ``inspect`` shows its name, and a ``TreeloadWarning`` says it, but for a module's own configuration; as
    it does of a state or a module in which nothing is to be saved.

    Args:
        path: the directory to make. Relative paths and missing parents are fine.
        tree: any tree of concrete arrays.
        metadata: JSON-like data kept with the checkpoint; ``open(path).metadata`` gives it back.
        history: how the code's parameters changed so far: its newest version is recorded, of the whole and of
            each scope, so that later code knows which steps the checkpoint has not seen.
        provenance: what tells where the leaves came from, to be kept with them: the ``Plan`` by which the
            tree was loaded, the list of the sources that it is an average of, or the ``provenance`` of a
            source. ``open(path).provenance`` gives it back, and ``inspect`` shows it.
        overwrite: replace a checkpoint at ``path``, once the new one is on the disk; and nothing else.
        compression: compress with zstd: on float weights a few per cent smaller, and 3–4 times slower.
        check_finite: refuse leaves that hold NaN or infinity.

    Raises:
        SaveError: ``path`` exists and ``overwrite`` was not asked for, or is no checkpoint; a leaf cannot be
            stored, or two names are one for Orbax: all of it said at once, before a byte is written; or
            ``path`` is a URL, or ends as a file of another format does (``.safetensors``).
        NameCollision: two leaves have one name.
        RuleError: ``history`` is no ``History``.
        TypeError: ``path`` is no path, or ``tree`` no tree.
    """
    known = checked_history(history)
    given.path(path, "save")
    if is_url(path):
        raise SaveError(
            f"{printable(str(path))!r} is a URL, where a checkpoint of many files cannot be put in place "
            "as a whole: save it on this machine, and copy it"
        )
    walked = given.read_only(tree, "save", error=SaveError)
    if walked.names == [()] and walked.kinds[0] <= SlotKind.SCALAR:
        raise SaveError("a single array has no name to be saved under; save a dict, {'array': array}")
    absent = {Name(name): value for name, value, kind in walked.slots() if kind == SlotKind.ABSENT and name}
    aliases = {Name(alias): Name(name) for name, others in walked.aliases.items() for alias in others}
    warn_of_left_out(walked, stacklevel=2)  # before a byte is written, for whom it is an error
    leaves = {Name(name): value for name, value in walked.leaves()}
    version = UNSTAMPED if known is None else known.newest
    came_from = provenance_of(provenance, tuple(leaves))
    beside = _save.Beside(aliases, absent, version, left_out(walked), came_from)
    _save.write(
        Path(os.fspath(path)), leaves, beside=beside,
        metadata=metadata, overwrite=overwrite, how=_save.How(compression, check_finite),
    )  # fmt: skip


def export(
    path: str | os.PathLike[str],
    tree: PyTree,
    *,
    like: Plan | None = None,
    rules: Rule | Iterable[Rule] = (),
) -> None:
    """Writes ``tree`` in the names and the layout of the source that it was loaded from.

    ``path`` ends in ``.safetensors`` for such a file, with the source's metadata; else it is an Orbax
    checkpoint. A leaf that was loaded and exported again is the same bit for bit. Leaves that came from
    no source leaf (a new head) keep their own names. What the source keeps of where its leaves came from
    (``save(provenance=...)``) goes with them: into the metadata of a safetensors file.

    Args:
        path: where to write; nothing may be there. The URL of an object store (``s3://``, ``gs://``) too, for
            a safetensors file: it is written here, and put there as a whole.
        tree: a concrete tree of the plan's destination's structure.
        like: the plan by which it was loaded: it knows every source leaf's shape and dtype, so more
            can be undone.
        rules: without a plan, the rules by which it was loaded; each must have an inverse. A ``Tie``'s
            leaf is left out, once it is checked to be tied still.

    Raises:
        SaveError: something cannot be undone, said by name before a byte is written; or the path
            exists, or the file system refuses.
    """
    given.path(path, "export")
    given.read_only(tree, "export", error=SaveError)
    if like is not None and not isinstance(like, Plan):
        raise TypeError(
            f"export(like=...) takes the Plan by which the tree was loaded, not a {type(like).__name__}"
        )
    if like is not None and rules:
        raise RuleError("export takes a plan or rules, not both: the plan knows its rules")
    asked = as_rules(rules, "rules=...")
    if not is_url(path):
        _export.export(Path(os.path.expanduser(os.fspath(path))), tree, like=like, rules=asked)
        return
    with put_in_place(str(path), SUFFIX) as file:
        _export.export(file, tree, like=like, rules=asked)
