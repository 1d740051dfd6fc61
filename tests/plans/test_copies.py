"""A plan that is copied or pickled is the same plan (A17)."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization
from safetensors.numpy import save

import treeload


def ways() -> Any:
    return pytest.mark.parametrize(
        "again", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))],
        ids=["copy", "deepcopy", "pickle"],
    )  # fmt: skip


def plan_from(where: str, tmp_path: Any) -> treeload.Plan:
    src: Any = {"w": np.ones(2, np.float32), "v": {"old": np.ones(3, np.float32)}, "done": False, "n": 3}
    if where == "disk":
        treeload.save(tmp_path / "ckpt", src, metadata={"step": 1})
        src = tmp_path / "ckpt"
    dst = {"w": jnp.zeros(2), "v": {"new": jnp.zeros(3)}, "done": True, "n": 1, "bias": jnp.ones(2)}
    return treeload.plan(
        dst, src, rules=treeload.Rename("v/old", "v/new"), policy=treeload.Policy(absent_is_zero="bias")
    )


@ways()
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_copy_says_and_loads_the_same(again: Any, where: str, tmp_path: Any) -> None:
    plan = plan_from(where, tmp_path)
    other = again(plan)
    assert other.ok and other.entries == plan.entries and str(other) == str(plan)
    made, expected = other.load(), plan.load()
    assert jax.tree.map(np.asarray, made)["v"]["new"].tolist() == [1, 1, 1]
    assert treeload.diff(made, expected).equal


@ways()
@pytest.mark.parametrize("ending", ["safetensors", "msgpack"])
def test_a_copy_for_a_file_loads_the_file(again: Any, ending: str, tmp_path: Any) -> None:
    path, leaves = tmp_path / f"w.{ending}", {"w": np.ones(2, np.float32)}
    path.write_bytes(save(leaves) if ending == "safetensors" else serialization.msgpack_serialize(leaves))
    plan = treeload.plan({"w": jnp.zeros(2), "b": jnp.zeros(1)}, path, policy=treeload.Policy(missing="keep"))
    other = again(plan)
    assert str(other) == str(plan) and other.load()["w"].tolist() == [1, 1]


@ways()
def test_a_copy_of_findings_is_the_same(again: Any) -> None:
    plan = treeload.plan({"w": jnp.zeros(2), "b": jnp.zeros(1)}, {"w": jnp.zeros(3), "c": jnp.zeros(1)})
    assert again(plan).findings == plan.findings and again(plan).unused == plan.unused


@ways()
def test_a_copy_for_a_module_loads_the_module(again: Any) -> None:
    plan = treeload.plan(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Linear(2, 2, rngs=nnx.Rngs(1)))
    assert treeload.diff(again(plan).load(), plan.load()).equal


def test_what_cannot_be_pickled_is_refused_with_words() -> None:
    plan = treeload.plan(
        {"w": jnp.zeros(2)}, {"v": jnp.zeros(2)}, rules=treeload.Rename("v", "w", treeload.Apply(lambda x: x))
    )
    with pytest.raises(Exception, match="lambda"):
        pickle.dumps(plan)
