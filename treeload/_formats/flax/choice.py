"""Which msgpack files a path means: one file, the latest of a directory of steps, or shards with their index.

Owns the names that Flax and transformers give to files, and the telling of a file by its first bytes. Reads
nothing else of them.

``flax.training.checkpoints.save_checkpoint`` writes ``<prefix><step>``, the prefix being ``checkpoint_``
unless another is given; transformers' ``save_pretrained`` writes ``flax_model.msgpack``, or shards beside
``flax_model.msgpack.index.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from treeload._errors import SourceError
from treeload._files.beginning import beginning_of
from treeload._files.index import ShardIndex, first_shard, read_index
from treeload._files.msgpack import begins_as_a_map, begins_as_a_tree
from treeload._files.open import File, look_at, look_beside, some
from treeload._files.place import Place
from treeload._files.steps import Step, in_order, is_numbered, step_of

SUFFIX = ".msgpack"


INDEX = ".msgpack.index.json"


_MODEL = "flax_model"


_PREFIX = "checkpoint_"
"""Flax's own name for steps, under which a directory may be a step too, written through Orbax."""


_SHARD = re.compile(r"-[0-9]+-of-[0-9]+")  # whose number says no step


@dataclass(frozen=True)
class Choice:
    """The files that are meant, and by what they were found.

    Attributes:
        files: file name → the file.
        step: the step that was chosen among several, or None.
        index: where it is said which of several files holds what; None where there is one.
    """

    files: Mapping[str, File]
    step: Step | None = None
    index: ShardIndex | None = None


# --- told before it is opened -----------------------------------------------------------------------


def recognises(path: Place) -> bool:
    """Whether ``path`` is Flax's msgpack by its bytes; a directory, by those of the files that are meant."""
    if not path.is_dir():
        return _is_tree(path) or _indexes_trees(path)
    models = _models(path)
    if models:
        return any(_is_tree(path / name) or _indexes_trees(path / name) for name in models)
    steps = _steps(path)
    try:
        latest = _latest(path, steps)
    except SourceError:  # which is the latest cannot be told: it is refused when it is opened
        return any(_is_named_map(path / name) for name in steps)
    return latest is not None and _is_named_map(path / latest)


def is_named(path: Place) -> bool:
    """Whether ``path`` bears a name of Flax's; a directory, whether a file in it does."""
    if path.is_dir():
        return bool(_models(path))
    return path.name.endswith((SUFFIX, INDEX))


def _is_tree(path: Place) -> bool:
    """Whether a file begins as a tree does; where its name says so, as a map does."""
    if path.name.endswith(SUFFIX) or _is_flaxs_own(path.name):
        return _is_named_map(path)
    return begins_as_a_tree(beginning_of(path))


def _is_named_map(path: Place) -> bool:
    return begins_as_a_map(beginning_of(path))


def _indexes_trees(path: Place) -> bool:
    shard = first_shard(path)
    return shard is not None and begins_as_a_map(beginning_of(shard))


# --- chosen -----------------------------------------------------------------------------------------


def choose(path: Place) -> Choice:
    """The files that ``path`` means.

    Raises:
        SourceError: there are none, or which are meant cannot be told.
    """
    if not path.is_dir():
        if path.name.endswith(".index.json") and not _is_named_map(path):
            return _indexed(path.parent, path.name)
        return Choice({path.name: look_at(path)})
    models, steps = _models(path), _steps(path)
    latest = _latest(path, steps)
    latest = latest if latest is not None and (path / latest).is_file() else None
    found = [*models, *([] if latest is None else [latest])]
    if len(found) > 1:
        raise SourceError(
            f"{str(path)!r} holds several msgpack checkpoints: {some(found)}; "
            "open one of them by its own path"
        )
    if models:
        (name,) = models
        return _indexed(path, name) if name.endswith(INDEX) else Choice({name: look_beside(path, name)})
    if latest is None:
        raise SourceError(f"{str(path)!r} does not exist, or holds no 'checkpoint_N' file")
    return Choice({latest: look_beside(path, latest)}, step=steps[latest])


def _indexed(directory: Place, filename: str) -> Choice:
    index = read_index(directory, filename)
    return Choice(index.shards, index=index)


def _models(directory: Place) -> list[str]:
    """What transformers writes into a directory: its file, or its index; both where both are there."""
    return [name for name in (_MODEL + SUFFIX, _MODEL + INDEX) if (directory / name).is_file()]


def _latest(directory: Place, steps: Mapping[str, Step | None]) -> str | None:
    return in_order(steps, repr(str(directory)))[-1][0] if steps else None


def _steps(directory: Place) -> dict[str, Step | None]:
    """The names of steps in a directory: of Flax's own series, else of those that have a file of its kind."""
    children = sorted(child for child in directory.iterdir() if child.is_file() or child.is_dir())
    numbered = {
        child: _step_of(child.name) for child in children if is_numbered(child.name.removesuffix(SUFFIX))
    }
    own = {child.name: step for child, step in numbered.items() if _is_flaxs_own(child.name)}
    if own or any(child.is_dir() for child in numbered):
        return own
    files = {child: step for child, step in numbered.items() if not _SHARD.search(child.name)}
    series = {step.series for child, step in files.items() if step is not None and _is_tree(child)}
    return {child.name: step for child, step in files.items() if step is not None and step.series in series}


def _is_flaxs_own(name: str) -> bool:
    return name.startswith(_PREFIX) and is_numbered(name)


def _step_of(name: str) -> Step | None:
    return step_of(name, SUFFIX if name.endswith(SUFFIX) else "")
