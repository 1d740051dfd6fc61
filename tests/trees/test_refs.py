"""``jax.Ref`` in a tree is a leaf (A11): read, saved, loaded anew, and updated in place."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload


def ref(fill: float = 0.0) -> Any:
    return jax.new_ref(jnp.full(2, fill))


def values(given: Any) -> list[float]:
    return np.asarray(given[...]).tolist()


def test_a_ref_is_a_leaf_with_a_name() -> None:
    assert treeload.names({"r": ref(), "w": jnp.zeros(1)}) == ("r", "w")
    assert treeload.state({"r": ref(3)})["r"].tolist() == [3, 3]


def test_a_load_gives_a_new_ref_and_leaves_the_old_one_alone() -> None:
    old = ref()
    made = treeload.load({"r": old, "again": old}, {"r": np.ones(2, np.float32)})
    assert isinstance(made["r"], jax.Ref) and made["r"] is made["again"]
    assert values(made["r"]) == [1, 1] and values(old) == [0, 0]


def test_a_ref_is_a_source() -> None:
    assert treeload.load({"r": jnp.zeros(2)}, {"r": ref(2)})["r"].tolist() == [2, 2]


def test_a_ref_is_saved_and_loaded(tmp_path: Any) -> None:
    treeload.save(tmp_path / "ckpt", {"r": ref(4)})
    assert values(treeload.load({"r": ref()}, tmp_path / "ckpt")["r"]) == [4, 4]


class Model(nnx.Module):
    def __init__(self, fill: float = 0.0) -> None:
        self.r, self.w = ref(fill), nnx.Param(jnp.full(2, fill))


def test_an_update_writes_into_the_ref_itself() -> None:
    tree, model = {"r": ref()}, Model()
    held = tree["r"], model.r
    treeload.update(tree, {"r": np.ones(2, np.float32)})
    treeload.update(model, Model(2))
    assert (tree["r"], model.r) == held
    assert values(tree["r"]) == [1, 1] and values(model.r) == [2, 2] and values(model.w) == [2, 2]


def test_a_load_of_a_module_writes_into_no_ref_of_it() -> None:
    model = Model()
    made = treeload.load(model, Model(2))
    assert values(model.r) == [0, 0] and values(made.r) == [2, 2] and made.r is not model.r


def test_an_update_that_fails_leaves_the_ref_as_it_was() -> None:
    model = Model()
    with pytest.raises(treeload.LoadError):
        treeload.update(model, {"r": np.ones(2, np.float32)})
    assert values(model.r) == [0, 0]
