"""The loaders that can be installed beside treeload, each run on one input, and what was seen of it.

Owns how each is called, the words of the comparisons (``error``, ``silent``, ``said``, ``right``) and how a
table of a page is read. The README's inputs are here, since both tables have them; the others are in
``test_comparison.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, serialization
from orbax.checkpoint import v1 as ocp

import treeload

Load = Callable[[Any, Any, Path], Any]
"""Loads a source into a destination, with a folder for files: the result."""

ERROR, SILENT, SAID, RIGHT = "error", "**silent**", "said", "right"


# What was seen.


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a loader did: the word of the tables, and the error, the warnings or the report that it gave."""

    word: str
    said: str


@dataclasses.dataclass(frozen=True)
class Reported:
    """A result, and what the loader's report says of what did not load."""

    result: Any
    report: str


def observe(load: Callable[[], Any], is_right: Callable[[Any], bool]) -> Seen:
    """Runs a loader: an error, the right result, or another one, with or without a word about it."""
    with noted() as notes:
        try:
            result = load()
        except Exception as error:  # noqa: BLE001  # of whatever type: it is what the loader says
            return Seen(ERROR, "\n".join(causes(error)))
    if isinstance(result, Reported):
        notes += [result.report] if result.report else []
        result = result.result
    word = RIGHT if is_right(result) else SAID if notes else SILENT
    return Seen(word, "\n".join(notes))


def causes(error: BaseException | None) -> Iterator[str]:
    """What an error says, and what those say that it comes from."""
    while error is not None:
        yield f"{type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__


NOISE = (
    "Sharding info not provided",  # Orbax, of a load without a target
    "Passing direct option objects",  # Orbax, of the way that its options are given below
    "[process=",  # Orbax's threads, of a save that has failed before
    "coroutine '",  # Python, of what Orbax left behind when it refused
)


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """All that is warned or logged as a warning meanwhile, by whomever, but for what is about no leaf."""
    notes: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    keep = Keep(logging.WARNING)
    loggers = [logging.getLogger(), logging.getLogger("absl")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # comes whenever something is collected
        for logger in loggers:
            logger.addHandler(keep)
        try:
            yield notes
        finally:
            for logger in loggers:
                logger.removeHandler(keep)
            notes += [str(one.message) for one in caught]
            notes[:] = [note for note in dict.fromkeys(notes) if not note.startswith(NOISE)]


def same_as(expected: Any) -> Callable[[Any], bool]:
    """Whether a result is this tree: its structure, its dtypes and its values."""

    def is_same(result: Any) -> bool:
        structures: list[Any] = [jax.tree.structure(tree) for tree in (result, expected)]
        if structures[0] != structures[1]:
            return False
        pairs = zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)
        return all(
            np.asarray(leaf).dtype == np.asarray(want).dtype and np.array_equal(leaf, want)
            for leaf, want in pairs
        )

    return is_same


def never(result: Any) -> bool:
    """No result is right: the destination cannot hold what the source has, or lacks."""
    return False


# The loaders.


def with_treeload(destination: Any, source: Any, folder: Path) -> Any:
    plan = treeload.plan(destination, source)
    return Reported(plan.load(), "\n".join(f"{leaf.at}: {leaf.why}" for leaf in plan.unused))


def with_treeload_saved(destination: Any, source: Any, folder: Path) -> Any:
    treeload.save(folder / "checkpoint", source)
    return with_treeload(destination, folder / "checkpoint", folder)


def with_orbax(destination: Any, source: Any, folder: Path, partial: bool = False) -> Any:
    ocp.save(folder / "checkpoint", source)
    with orbax_options(partial):
        return ocp.load(folder / "checkpoint", destination)


def with_orbax_partial(destination: Any, source: Any, folder: Path) -> Any:
    return with_orbax(destination, source, folder, partial=True)


def orbax_options(partial: bool) -> Any:
    loading = ocp.options.PyTreeOptions.Loading(partial_load=partial)
    return ocp.Context(pytree_options=ocp.options.PyTreeOptions(loading=loading))


def with_nnx_update(destination: Any, source: Any, folder: Path) -> Any:
    module = as_module(destination)
    nnx.update(module, source)
    return as_dict(module, destination)


def with_nnx_state(destination: Any, source: Any, folder: Path) -> Any:
    """As ``with_nnx_update``, from what ``nnx.state`` takes of a module that holds the source."""
    return with_nnx_update(destination, nnx.state(as_module(source)), folder)


def as_module(tree: dict[str, Any]) -> Any:
    """A Module that holds this: arrays as parameters, a dict with a kernel as a Linear, all else as it is."""
    module = nnx.Module()
    for name, value in tree.items():
        if type(value) is dict and "kernel" in value:
            inputs, outputs = value["kernel"].shape
            linear = nnx.Linear(inputs, outputs, use_bias="bias" in value, rngs=nnx.Rngs(0))
            for field, array in value.items():
                setattr(linear, field, nnx.Param(array))
            setattr(module, name, linear)
        elif type(value) is dict:
            setattr(module, name, as_module(value))
        else:
            setattr(module, name, nnx.Param(value) if isinstance(value, (jax.Array, np.ndarray)) else value)
    return module


def as_dict(module: Any, like: dict[str, Any]) -> dict[str, Any]:
    """What a module holds at the names of ``like``."""
    read = {}
    for name, value in like.items():
        held = getattr(module, name)
        if type(value) is dict:
            held = as_dict(held, value)
        read[name] = held.get_raw_value() if isinstance(held, nnx.Variable) else held
    return read


def with_from_state_dict(destination: Any, source: Any, folder: Path) -> Any:
    return serialization.from_state_dict(destination, serialization.to_state_dict(source))


def with_from_bytes(destination: Any, source: Any, folder: Path) -> Any:
    return serialization.from_bytes(destination, serialization.to_bytes(source))


def with_equinox(destination: Any, source: Any, folder: Path) -> Any:
    eqx.tree_serialise_leaves(folder / "checkpoint.eqx", source)
    return eqx.tree_deserialise_leaves(folder / "checkpoint.eqx", destination)


LOADERS: dict[str, Load] = {
    "treeload": with_treeload,
    "Orbax": with_orbax,
    "Orbax, partial": with_orbax_partial,
    "`nnx.update`": with_nnx_update,
    "`from_state_dict`": with_from_state_dict,
    "`from_bytes`": with_from_bytes,
    "`tree_deserialise_leaves`": with_equinox,
}


# One thing wrong with a checkpoint: the rows that the README has too.


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """A destination and a source that do not fit, and what is right where anything is."""

    text: str
    destination: Any
    source: Any
    is_right: Callable[[Any], bool] = never


KERNEL, BIAS = jnp.full((2, 3), 1.5), jnp.ones(3)
DENSE = {"dense": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}}
NO_BIAS = {"dense": {"kernel": jnp.zeros((2, 3))}}
INTEGERS = {"dense": {"kernel": jnp.zeros((2, 3), jnp.int32), "bias": jnp.zeros(3)}}

DISAGREEMENTS = [
    Disagreement(
        "a name is misspelt",
        DENSE,
        {"dense": {"krenel": KERNEL, "bias": BIAS}},
        same_as({"dense": {"kernel": KERNEL, "bias": BIAS}}),
    ),
    Disagreement("a leaf is missing", DENSE, {"dense": {"kernel": KERNEL}}),
    Disagreement("a leaf is left over", DENSE, {"dense": {"kernel": KERNEL, "bias": BIAS, "more": BIAS}}),
    Disagreement("a shape differs", DENSE, {"dense": {"kernel": jnp.ones((5, 5)), "bias": BIAS}}),
    Disagreement("fractions for an integer leaf", INTEGERS, {"dense": {"kernel": KERNEL, "bias": BIAS}}),
    Disagreement(
        "a bias that is not zero, for a layer without one",
        NO_BIAS,
        {"dense": {"kernel": KERNEL, "bias": BIAS}},
    ),
]


# The tables of pages.


def table(page: Path) -> dict[str, dict[str, str]]:
    """The page's table of what is wrong: the cells of each row, by the name of their column."""
    lines = page.read_text("utf-8").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| what is wrong"))
    end = next(at for at in range(start, len(lines) + 1) if at == len(lines) or not lines[at].startswith("|"))
    head, _, *rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[start:end]]
    assert all(len(row) == len(head) for row in rows)
    assert len({row[0] for row in rows}) == len(rows), "one row says one thing"
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
