"""Python flags (A16): a state loads as its tree does, and a flag that is set counts, true or false."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treeload
from treeload._plans.entry import Action


def sources(tree: Any, tmp_path: Any) -> list[Any]:
    treeload.save(tmp_path / "ckpt", tree)
    treeload.save(tmp_path / "state", treeload.state(tree))
    return [tree, treeload.state(tree), tmp_path / "ckpt", tmp_path / "state"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_a_flag_loads_from_a_tree_as_from_its_state_and_from_disk(
    old: bool, new: bool, tmp_path: Any
) -> None:
    for src in sources({"done": new, "w": np.ones(2, np.float32)}, tmp_path):
        made = treeload.load({"done": old, "w": np.zeros(2, np.float32)}, src)
        assert made["done"] is new and made["w"].tolist() == [1, 1]


@pytest.mark.parametrize("wrap", [lambda src: src, lambda src: treeload.From({"x": src}, subtree="x")])
def test_a_flag_that_turned_false_is_loaded_and_counts(wrap: Any) -> None:
    plan = treeload.plan({"done": True}, wrap({"done": False}))
    assert plan["done"].action == Action.LOAD and plan.coverage == 1
    assert plan.summary() == "1 of 1 leaf loads (100 % of 1 elements); no problems"
    assert plan.load() == {"done": False}
    assert plan.mask() == {"done": True}


def test_a_flag_that_turned_true_is_loaded_and_counts() -> None:
    plan = treeload.plan({"done": False}, {"done": True})
    assert plan["done"].action == Action.LOAD and plan.coverage == 1


@pytest.mark.parametrize("dst", [jax.ShapeDtypeStruct((), bool), jnp.asarray(True), np.bool_(True)])
@pytest.mark.parametrize("new", [False, True])
def test_a_flag_loads_into_a_boolean_of_no_axes(dst: Any, new: bool) -> None:
    """As ``jax.eval_shape`` makes one of a flag."""
    made = treeload.load({"done": dst}, {"done": new})["done"]
    assert bool(made) is new and made.dtype == bool and made.shape == ()
    assert treeload.plan({"done": dst}, {"done": new})["done"].action == Action.LOAD


def test_an_array_of_false_is_no_absence_either() -> None:
    assert treeload.load({"done": True}, {"done": jnp.asarray(False)}) == {"done": False}


def test_against_an_array_false_is_absent_all_the_same() -> None:
    def kinds(dst: Any, src: Any) -> list[str]:
        return [finding.kind for finding in treeload.plan(dst, src).findings]

    assert kinds({"w": np.zeros(2)}, treeload.state({"w": False})) == ["missing"]
    assert kinds({"w": np.zeros(())}, {"w": False}) == ["missing"]
    assert kinds({"w": np.zeros(2), "x": None}, {"w": np.zeros(2), "x": False}) == []
    assert kinds({"w": np.zeros(2)}, treeload.state({"w": np.zeros(2), "x": False})) == []


class Dropout(eqx.Module):
    inference: bool
    w: Any


def test_a_flag_that_is_configuration_is_not_in_a_state() -> None:
    assert treeload.state(Dropout(False, jnp.ones(1))).keys() == {"w"}


flags = st.dictionaries(st.sampled_from("abc"), st.booleans() | st.none() | st.builds(lambda: np.ones(1)))


@given(flags, flags)
def test_a_state_loads_as_its_tree(dst: Any, src: Any) -> None:
    one, other = (
        treeload.plan(dst, each, policy=treeload.Policy(missing="keep", unexpected="ignore"))
        for each in (src, treeload.state(src))
    )
    assert [(e.name, e.action) for e in one.entries] == [(e.name, e.action) for e in other.entries]
    assert [f.kind for f in one.findings] == [f.kind for f in other.findings]
    if one.ok:
        assert one.load() == other.load()
