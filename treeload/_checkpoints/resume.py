"""Where a training goes on: its latest complete checkpoint, or the pretrained values it starts from.

Owns which checkpoint that is, and the rule that a training which has checkpoints is never started anew by
mistake. Refuses to own what a checkpoint's layout is (``_formats``) and how it is loaded (``_loading``).

``directory`` is a checkpoint itself (one that each save replaces), or holds one for each step: of an Orbax
``CheckpointManager``, of ``treeload.save``, or of Flax. What was never completed is no checkpoint. A training
is new where the directory is missing or empty; what is not understood is never taken for nothing. What is
complete but cannot be read is an error, unless skipping was asked for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from treeload._errors import SourceError
from treeload._files.replace import finish_dead_save, saved_to
from treeload._files.steps import Step, in_order, is_numbered, step_of
from treeload._formats import recognising
from treeload._formats.orbax.layout import is_checkpoint, is_incomplete
from treeload._leaves.spec import spec_of
from treeload._plan import Plan
from treeload._sources.source import as_source_error
from treeload._trees.rebuild import updatable
from treeload._trees.tree import PyTree
from treeload._trees.walk import walk

_LOG = logging.getLogger("treeload")


def resume(
    directory: Path,
    *,
    plan: Callable[[Path], Plan],
    start: Callable[[], PyTree],
    skip_unreadable: bool,
) -> tuple[PyTree, int | float | None]:
    """The training's latest state and its step; what ``start`` gives, and None, where it has none.

    ``plan`` plans the load of one of its checkpoints.
    """
    for path, step in checkpoints(directory):
        try:
            made = plan(path)
            made.raise_for_errors()
            # What NNX may lack elsewhere (RNG state, caches) is part of a training's state.
            tree = made.require(kept=()).load()
        except SourceError as error:
            if not skip_unreadable:
                raise
            _LOG.warning("a checkpoint that cannot be read is skipped: %s", error)
        else:
            return tree, _said_step(made, tree) if step is None else step
    return start(), None


def start_from(otherwise: Any, load: Callable[[Any], PyTree]) -> PyTree:
    """The state that a new training starts in: ``otherwise``, as ``load`` puts it into place."""
    if isinstance(otherwise, Plan):
        return load(otherwise.load())
    return load(otherwise() if _is_function(otherwise) else otherwise)


def _is_function(given: Any) -> bool:
    """Whether it is to be called; a model, which can be called too, is a tree."""
    return callable(given) and not updatable(given) and jax.tree_util.all_leaves([given])


def checkpoints(directory: Path) -> Iterator[tuple[Path, int | float | None]]:
    """The checkpoints of a training, the latest first, each with the step that its name says.

    Raises:
        SourceError: it cannot be told which of those that are there is the latest.
    """
    shown = repr(str(directory))
    with as_source_error(f"{shown} could not be looked through"):
        root = finish_dead_save(directory)
        if not root.exists():
            return
        if not root.is_dir() or is_checkpoint(root):
            yield directory, None  # its own name may hold any number
            return
        steps, others, unknown = _inside(root)
    if others and not steps:
        raise SourceError(
            f"{shown} holds checkpoints whose names say no step: {', '.join(map(repr, others))}; "
            "give the path of the one that the training saves"
        )
    if unknown and not steps:
        raise SourceError(
            f"{shown} holds no checkpoint that treeload knows, but {', '.join(map(repr, unknown))}: "
            "a training is new only where its directory is missing or empty, so give its checkpoints a "
            "directory of their own"
        )
    for name, step in reversed(in_order(steps, shown)):
        yield root / name, step.number


def _inside(root: Path) -> tuple[dict[str, Step | None], list[str], list[str]]:
    """The steps in a directory and what their names say; checkpoints that say none; what is neither."""
    steps: dict[str, Step | None] = {}
    files: dict[str, Step | None] = {}
    damaged: dict[str, Step] = {}
    others: list[str] = []
    names = _names(root)
    for name in names:
        path = root / name
        suffix = path.suffix if path.suffix[1:].isalpha() and path.is_file() else ""
        step = step_of(name, suffix)
        whole = _is_whole(path, step)
        if whole and not is_numbered(name.removesuffix(suffix)):
            others.append(name)
        elif whole:
            (files if path.is_file() else steps)[name] = step
        elif step is not None:
            damaged[name] = step
    # Beside steps that are directories, only files of the same series, as Flax has it, are steps.
    series = {step.series for step in steps.values() if step is not None}
    steps |= {
        name: step for name, step in files.items() if not steps or step is None or step.series in series
    }
    # What is no checkpoint is a damaged one only where its name says so: the series of those that are
    # whole, or where none is, a number alone, as the CheckpointManager has it.
    series = {step.series for step in steps.values() if step is not None} or {"*"}
    steps |= {name: step for name, step in damaged.items() if step.series in series}
    unknown = [name for name in names if name not in steps and name not in others and name[0] != "."]
    return steps, others, unknown


def _is_whole(path: Path, step: Step | None) -> bool:
    """Whether it is a checkpoint; a file of Flax's is one by its name, and then may be damaged."""
    if not path.is_file():
        return is_checkpoint(finish_dead_save(path))
    if path.name.startswith("checkpoint_") and is_numbered(path.name):
        return True
    return step is not None and recognising(path) is not None


def _names(root: Path) -> list[str]:
    """What lies in a directory, but for what is still being written, or never was completed."""
    names: dict[str, None] = {}
    for name in sorted(os.listdir(root)):
        saving = saved_to(name)
        if saving is not None:
            if os.path.lexists(finish_dead_save(root / saving)):  # a save that died between its renames
                names[saving] = None
        elif is_incomplete(name):
            _LOG.warning("%r in %r was never completed: it is no checkpoint", name, str(root))
        else:
            names[name] = None
    return list(names)


def _said_step(plan: Plan, tree: PyTree) -> int:
    """The step of a checkpoint whose name does not say it: by its metadata, else by its leaves ``step``."""
    for source in plan.sources:
        said = source.metadata.get("step")
        if isinstance(said, (int, str)) and str(said).isdecimal():
            return int(said)
    steps = {
        int(value) for name, value in walk(tree).leaves() if name[-1:] == ("step",) and _is_integer(value)
    }
    if len(steps) != 1:
        raise SourceError(
            f"{plan.sources[0].label} does not say its step: save it with metadata={{'step': ...}}, "
            "or in a directory whose name is the step"
        )
    return steps.pop()


def _is_integer(value: Any) -> bool:
    spec = spec_of(value)
    return spec.shape == () and jax.dtypes.issubdtype(spec.dtype, np.integer)
