"""A destination that is the same still need not be walked again, and one that is not is walked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import TreeloadError
from treeload._loading import load as _load
from treeload._trees.seen import seen
from treeload._trees.walk import walk


class Pair(NamedTuple):
    one: Any
    other: Any


@jax.tree_util.register_pytree_node_class
class Odd:
    """What it says of itself cannot be compared."""

    def __init__(self, leaf: Any) -> None:
        self.leaf = leaf

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.leaf,), np.ones(2)

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> Odd:
        return cls(*children)


def tree() -> dict[str, Any]:
    return {"b": np.zeros(2), "a": [jnp.ones(3), (1.5, Pair(np.ones(1), None))], "s": "text"}


def test_a_tree_that_nobody_touched_is_the_same() -> None:
    root = tree()
    noted = seen(walk(root))
    assert noted is not None and noted.is_seen_in(root)
    root["b"][0] = 5  # the array is the same
    assert noted.is_seen_in(root)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another array": lambda root: root.update(b=np.zeros(2)),
    "another key": lambda root: root.update(c=root.pop("b")),
    "one more": lambda root: root.update(c=np.zeros(2)),
    "one less": lambda root: root.pop("b"),
    "another text": lambda root: root.update(s="other"),
    "None no more": lambda root: root.update(a=[root["a"][0], (1.5, Pair(root["a"][1][1].one, np.ones(1)))]),
    "two changed places": lambda root: root.update(a=root["b"], b=root["a"]),
    "a list as a tuple": lambda root: root.update(a=tuple(root["a"])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_seen(change: str) -> None:
    root = tree()
    noted = seen(walk(root))
    assert noted is not None
    CHANGES[change](root)
    assert not noted.is_seen_in(root)


def test_what_jax_does_not_look_into_is_not_told_so() -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(jnp.zeros(2))

    shared = np.zeros(2)
    assert seen(walk(Model())) is None
    assert seen(walk({"a": shared, "b": shared})) is None  # a tie
    assert seen(walk({1: np.zeros(1), "a": np.zeros(1)})) is None  # which JAX refuses
    assert seen(walk({"a": jax.new_ref(jnp.zeros(2))})) is None


def test_a_class_that_cannot_be_compared_is_walked_again() -> None:
    root = {"a": Odd(np.zeros(2))}
    noted = seen(walk(root))
    assert noted is not None
    assert not noted.is_seen_in({"a": Odd(root["a"].leaf)})


def test_a_load_walks_again_what_changed_and_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = {"a": np.zeros(2), "b": np.zeros(3)}
    treeload.save(tmp_path / "x", {"a": np.ones(2), "b": np.ones(3)})
    plan = treeload.plan(root, tmp_path / "x", scope="a")
    walked: list[Any] = []

    def noted(root: Any) -> Any:
        walked.append(root)
        return walk(root)

    monkeypatch.setattr(_load, "walk", noted)
    assert plan.load()["b"].tolist() == [0, 0, 0]
    assert not walked
    root["b"] = np.full(3, 7.0)
    assert plan.load()["b"].tolist() == [7, 7, 7]
    assert len(walked) == 1
    root["c"] = root.pop("b")
    with pytest.raises(TreeloadError, match="changed since it was planned"):
        plan.load()
