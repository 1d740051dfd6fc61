"""What Orbax stores: planned, loaded and saved, beside its v1 and its v0."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as v0
from orbax.checkpoint import v1

import treeload
from tests.benchmarks.measuring import Measure, Result, Row, by_turns, fresh, in_fresh_processes
from tests.benchmarks.trees import large, small, specs


def _quietly(act: Callable[..., Any]) -> Callable[..., Any]:
    def done(*arguments: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return act(*arguments)

    return done


save_v1 = _quietly(v1.save)
load_v1 = _quietly(v1.load)


@_quietly
def save_v0(path: Path, tree: Any) -> None:
    with v0.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


@_quietly
def load_v0(path: Path) -> Any:
    """v0 is given the folder of the tree, of which v1 makes one among others."""
    with v0.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(path / "state")


# --- many small leaves -------------------------------------------------------------------------------


def plan_small(folder: Path, turns: int, share: float) -> Result:
    tree = small(share)
    save_v1(folder / "x", tree)
    wanted = specs(tree)
    return by_turns(
        lambda: treeload.plan(wanted, folder / "x"), lambda: v1.metadata(folder / "x"), turns
    )  # fmt: skip


def load_small(save: Callable[[Path, Any], Any], theirs: Callable[[Path], Any]) -> Measure:
    def measure(folder: Path, turns: int, share: float) -> Result:
        tree = small(share)
        save(folder / "x", tree)
        wanted = specs(tree)
        return by_turns(lambda: treeload.load(wanted, folder / "x"), lambda: theirs(folder / "x"), turns)

    return measure


def _save(tree: Any, theirs: Callable[[Path, Any], Any], folder: Path, turns: int) -> Result:
    def clear() -> None:
        shutil.rmtree(folder / "x", ignore_errors=True)

    return by_turns(
        lambda: treeload.save(folder / "x", tree), lambda: theirs(folder / "x", tree), turns, before=clear
    )


def save_small(theirs: Callable[[Path, Any], Any]) -> Measure:
    return lambda folder, turns, share: _save(small(share), theirs, folder, turns)


def by_scope(folder: Path, turns: int, share: float) -> Result:
    tree = small(share)
    treeload.save(folder / "x", tree)
    part = treeload.plan(tree, folder / "x", scope=[f"block_{at}/**" for at in range(len(tree) // 100)])
    whole = treeload.plan(tree, folder / "x")
    return by_turns(part.load, whole.load, turns)


# --- few large leaves --------------------------------------------------------------------------------


def load_large(folder: Path, turns: int, share: float) -> Result:
    layers = large(share)
    tree = layers.arrays()
    save_v1(folder / "theirs", jax.tree.map(jax.device_put, tree))
    treeload.save(folder / "ours", tree)
    return in_fresh_processes(
        layers.planned("plan.load()", folder / "ours"),
        fresh("from orbax.checkpoint import v1", "v1.load(sys.argv[1])", folder / "theirs"),
        turns, layers.nbytes,
    )  # fmt: skip


def save_large(folder: Path, turns: int, share: float) -> Result:
    return _save(jax.tree.map(jax.device_put, large(share).arrays()), save_v1, folder, turns)


ROWS = (
    Row("plan a stored Orbax checkpoint, 20,000 leaves", "`ocp.metadata`", 0.06, plan_small),
    Row("load 20,000 small leaves that Orbax wrote", "`ocp.load`", 0.12, load_small(save_v1, load_v1)),
    Row("load 20,000 small leaves that treeload wrote", "`ocp.load`", 0.10,
        load_small(treeload.save, load_v1)),
    Row("load 20,000 small leaves that treeload wrote", "Orbax v0, `PyTreeCheckpointer`", None,
        load_small(treeload.save, load_v0)),
    Row("save 20,000 small leaves", "`ocp.save`", 0.22, save_small(save_v1)),
    Row("save 20,000 small leaves", "Orbax v0, `PyTreeCheckpointer`", None, save_small(save_v0)),
    Row("load 1 % of 20,000 leaves by `scope`", "all of them", 0.03, by_scope),
    Row("load 1 GB, 150 leaves", "`ocp.load` of `ocp.save`'s", 0.2, load_large, 1.05),
    Row("save 1 GB, 150 leaves", "`ocp.save`", 0.3, save_large),
)  # fmt: skip
