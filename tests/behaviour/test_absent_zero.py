"""Absent and zero mean the same, where the policy says so, and nowhere else; and it is proved on values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import treeload
from treeload import BIAS, LoadError, Policy

ZERO = Policy(absent_is_zero=BIAS)
OLD = np.full(3, 7, np.float32)

elements = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0, np.nan, np.inf])
arrays = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3), elements=elements
)


@given(arrays, st.booleans(), st.sampled_from([{}, {"bias": None}, {"bias": False}, {"bias": {}}]))
def test_a_source_array_may_go_exactly_when_every_element_is_zero(array, on_device, dst):
    src = {"bias": jnp.asarray(array) if on_device else array}
    plan = treeload.plan(dst, src, policy=ZERO)
    all_zero = all(float(x) == 0.0 for x in array.reshape(-1))
    assert plan.ok and [str(name) for name in plan.pending] == ["bias"]
    assert plan.verify().ok == all_zero
    if all_zero:
        assert plan.load() == dst
    else:
        with pytest.raises(LoadError, match="not zero"):
            plan.load()


@pytest.mark.parametrize("src", [{}, {"bias": None}, {"bias": False}, {"bias": ()}])
@pytest.mark.parametrize(
    "old", [OLD, jnp.asarray(OLD), np.float32(7), True, jax.ShapeDtypeStruct((3,), np.float32)]
)
def test_an_absent_source_sets_the_leaf_to_zero(src, old):
    plan = treeload.plan({"bias": old}, src, policy=ZERO)
    loaded = plan.load()["bias"]
    wanted = old.dtype if hasattr(old, "dtype") else np.asarray(old).dtype
    assert not np.any(np.asarray(loaded)) and np.asarray(loaded).dtype == wanted
    assert isinstance(loaded, jax.Array if isinstance(old, jax.ShapeDtypeStruct) else type(old))
    if src != {"bias": False} or not isinstance(old, bool):
        assert plan["bias"].action == "zero" and plan.coverage == 0.0


def test_a_python_number_is_not_absent_where_the_source_has_false():
    assert [f.kind for f in treeload.plan({"b": 7.0}, {"b": False}, policy=ZERO).findings] == ["dtype"]
    assert treeload.load({"b": True}, {"b": False}, policy=ZERO) == {"b": False}


def test_an_absent_subtree_zeroes_leaf_by_leaf():
    dst = {"head": {"bias": OLD, "inner": {"bias": OLD.copy()}}}
    plan = treeload.plan(dst, {"head": None}, policy=ZERO)
    assert [entry.action for entry in plan.entries] == ["zero", "zero"]
    assert "absent" in plan.entries[0].reason and "zeroed" in plan.summary()
    assert not any(map(np.any, jax.tree.leaves(plan.load())))


@pytest.mark.parametrize("leaf", ["scale", "kernel", "var"])
def test_absence_never_means_zero_for_another_leaf(leaf):
    assert [f.kind for f in treeload.plan({leaf: OLD}, {}, policy=ZERO).findings] == ["missing"]
    assert [f.kind for f in treeload.plan({}, {leaf: OLD * 0}, policy=ZERO).findings] == ["unexpected"]


def test_both_absent_is_nothing_to_say():
    dst: dict[str, Any]
    src: dict[str, Any]
    for dst in ({}, {"bias": None}, {"bias": False}, {"bias": {}}):
        for src in ({}, {"bias": None}, {"bias": False}, {"bias": {}}):
            for policy in (Policy(), ZERO):
                plan = treeload.plan(dst, src, policy=policy)
                assert not plan.findings and not plan.entries and not plan.pending and plan.load() == dst


def test_the_finding_says_how_many_and_how_large():
    bias: Any = [0, -3, 0.5, -0.0]
    (finding,) = treeload.plan({}, {"bias": np.float32(bias)}, policy=ZERO).verify().findings
    assert finding.kind == "absent" and "2 of 4 elements are not zero, the largest 3" in finding.message
    bias = [np.nan]
    (one,) = treeload.plan({}, {"bias": np.float32(bias)}, policy=ZERO).verify().findings
    assert "1 of 1 element is not zero, the largest nan" in one.message


def test_a_check_that_passes_leaves_nothing_pending():
    plan = treeload.plan({"w": OLD}, {"w": OLD, "bias": OLD * 0}, policy=ZERO)
    verified = plan.verify()
    assert plan.pending and not verified.pending and verified.ok and verified.verify() is verified
    assert plan.pending, "a plan does not change"
    assert [leaf.why for leaf in plan.unused] == ["absent in the destination; must be all zero"]


def test_a_zero_size_array_is_an_array_and_no_absence():
    empty = np.zeros((0, 3), np.float32)
    assert [f.kind for f in treeload.plan({"w": empty}, {}).findings] == ["missing"]
    assert [f.kind for f in treeload.plan({}, {"w": empty}).findings] == ["unexpected"]
    assert treeload.load({"w": empty}, {"w": empty})["w"].shape == (0, 3)
    assert treeload.load({}, {"bias": empty}, policy=ZERO) == {}


def test_a_destination_that_jax_would_narrow_is_a_finding_also_where_it_would_be_zero():
    dst = {"bias": jax.ShapeDtypeStruct((3,), np.float64)}
    assert [f.kind for f in treeload.plan(dst, {}, policy=ZERO).findings] == ["dtype"]


def test_the_check_sees_the_value_after_the_rules_ops():
    rules = treeload.Rename("b", "bias", treeload.Apply(lambda x: x - 1))
    assert treeload.plan({}, {"b": np.ones(2, np.float32)}, rules=rules, policy=ZERO).verify().ok
    assert not treeload.plan({}, {"b": np.zeros(2, np.float32)}, rules=rules, policy=ZERO).verify().ok


def test_a_linear_without_bias_takes_one_with_a_zero_bias_and_refuses_another():
    def linear(use_bias):
        return nnx.Linear(2, 3, use_bias=use_bias, rngs=nnx.Rngs(0))

    with_bias, without = linear(True), linear(False)
    treeload.update(without, with_bias, policy=ZERO)
    assert without.bias is None
    with_bias.bias[...] = jnp.ones(3)
    with pytest.raises(LoadError, match="absent"):
        treeload.update(without, with_bias, policy=ZERO)
    treeload.update(with_bias, without, policy=ZERO)
    assert not jnp.any(with_bias.bias[...])


def test_a_sharded_bias_is_checked_where_it_lies():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), "x")
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    bias = jax.device_put(np.float32([0, 0, 0, 1e-45]), sharding)  # type: ignore[arg-type]
    assert not treeload.plan({}, {"bias": bias}, policy=ZERO).verify().ok
    bias = jax.device_put(np.float32([0, 0, 0, -0.0]), sharding)  # type: ignore[arg-type]
    assert treeload.plan({}, {"bias": bias}, policy=ZERO).verify().ok
