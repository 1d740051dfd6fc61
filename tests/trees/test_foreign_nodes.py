"""What a node of somebody else's raises leaves as an error of ours, its cause chained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import treeload
from treeload import TreeloadError


class Stubborn:
    """A node that opens, and closes, only while it is told to."""

    opens = closes = True

    def __init__(self, w: Any) -> None:
        self.w = w


def _flatten(node: Stubborn) -> tuple[tuple[Any], None]:
    if not Stubborn.opens:
        raise ZeroDivisionError("it does not open")
    return (node.w,), None


def _unflatten(_: None, children: Any) -> Stubborn:
    if not Stubborn.closes:
        raise ZeroDivisionError("it does not close")
    return Stubborn(*children)


jax.tree_util.register_pytree_node(Stubborn, _flatten, _unflatten)


def test_a_node_that_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"a": Stubborn(jnp.zeros(2))}
    monkeypatch.setattr(Stubborn, "opens", False)
    for verb in (treeload.names, treeload.state, lambda tree: treeload.plan(tree, tree)):
        with pytest.raises(TreeloadError, match="ZeroDivisionError: it does not open") as caught:
            verb(tree)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_node_that_does_not_close(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = treeload.plan({"a": Stubborn(jnp.zeros(2))}, {"a": {"0": jnp.ones(2)}}, rules=())
    plan.raise_for_errors()
    monkeypatch.setattr(Stubborn, "closes", False)
    with pytest.raises(TreeloadError, match="ZeroDivisionError: it does not close"):
        plan.load()


def test_the_last_leaves_that_do_not_reach_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from treeload._loading import deliver

    def full(arrays: Any) -> Any:
        raise ZeroDivisionError("no room on the device")

    treeload.save(tmp_path / "x", {"w": jnp.ones(2)})
    monkeypatch.setattr(deliver, "to_default_device", full)
    with pytest.raises(TreeloadError, match="last leaves could not be placed: ZeroDivisionError"):
        treeload.load({"w": jnp.zeros(2)}, tmp_path / "x")
