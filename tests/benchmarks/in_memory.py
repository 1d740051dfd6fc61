"""What is in memory already: planned, loaded, set into models."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, serialization

import treeload
from tests.benchmarks.measuring import Measure, Result, Row, by_turns
from tests.benchmarks.trees import nested, on_device, on_host


def by_hand(dst: Any, src: Any) -> list[tuple[str, Any, Any]]:
    """What one writes oneself: both sides by the names that JAX prints."""
    ours, theirs = (
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(each)[0]}
        for each in (dst, src)
    )
    return [(name, leaf, theirs[name]) for name, leaf in ours.items() if name in theirs]


def plan(theirs: Callable[[Any, Any], Any], make: Callable[[int], Callable[[int], Any]] = on_host) -> Measure:
    def measure(folder: Path, turns: int, share: float) -> Result:
        dst, src = (nested(int(100_000 * share), make(2)) for _ in range(2))
        return by_turns(lambda: treeload.plan(dst, src), lambda: theirs(dst, src), turns)

    return measure


def load(folder: Path, turns: int, share: float) -> Result:
    dst, src = (nested(int(20_000 * share), on_device(2)) for _ in range(2))
    plan = treeload.plan(dst, src)
    return by_turns(plan.load, lambda: jax.tree.map(lambda ours, theirs: theirs, dst, src), turns)


# --- NNX models --------------------------------------------------------------------------------------


class Wide(nnx.Module):
    """Ten Params: what a Param costs."""

    def __init__(self) -> None:
        for at in range(10):
            setattr(self, f"param_{at}", nnx.Param(jax.device_put(np.zeros(2, np.float32))))


def wide(params: int) -> nnx.Module:
    return nnx.List([Wide() for _ in range(params // 10)])


def linear(params: int) -> nnx.Module:
    """A Module of a dozen settings for every two Params: what a Module costs."""
    return nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(0)) for _ in range(params // 2)])


def update(
    make: Callable[[int], nnx.Module], params: int, source_of: Callable[[Any], Any] = lambda state: state
) -> Measure:
    def measure(folder: Path, turns: int, share: float) -> Result:
        model = make(int(params * share))
        # Two, so that each time there is something to change.
        states = [jax.tree.map(jnp.copy, nnx.state(model)) for _ in range(2)]
        sources = cycle(map(source_of, states))
        return by_turns(
            lambda: treeload.update(model, next(sources)), lambda: nnx.update(model, next(sources)), turns
        )

    return measure


BY_HAND = "by hand: `keystr`, joined in a dict"

ROWS = (
    Row("plan 100,000 leaves in memory", "`flax.serialization.from_state_dict`", 2.5,
        plan(serialization.from_state_dict)),
    Row("plan 100,000 leaves in memory", BY_HAND, 0.5, plan(by_hand)),
    Row("plan 100,000 leaves of `jax.Array`", BY_HAND, 0.5, plan(by_hand, on_device)),
    Row("load 20,000 leaves from memory, planned", "`jax.tree.map`", 4, load),
    Row("update an NNX model of 2,000 Params", "`nnx.update`", 1.3, update(wide, 2_000)),
    Row("update an NNX model of 10,000 Params", "`nnx.update`", 1.3, update(wide, 10_000)),
    Row("update an NNX model of 2,000 Params from a dict", "`nnx.update`", 2.5,
        update(wide, 2_000, nnx.to_pure_dict)),
    Row("update 1,000 `nnx.Linear`", "`nnx.update`", 2.5, update(linear, 2_000)),
    Row("update 1,000 `nnx.Linear` from a dict", "`nnx.update`", 2.5,
        update(linear, 2_000, nnx.to_pure_dict)),
)  # fmt: skip
