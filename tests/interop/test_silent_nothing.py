"""Failures that other libraries pass over in silence: what they do, and what treeload does, side by side.

Where a peer changes its ways, its half of a test fails, and the comparison in the docs is to be changed.
"""

from __future__ import annotations

import warnings
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as orbax
import pytest
from flax import nnx
from orbax.checkpoint import v1 as ocp

import treeload
from treeload import LoadError, Policy, SaveError

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own

ONE = jnp.ones(3)


def kinds(dst, src, **options):
    return [(finding.kind, str(finding.name)) for finding in treeload.plan(dst, src, **options).findings]


@pytest.fixture
def saved(tmp_path):
    def save(tree):
        ocp.save(tmp_path / "ckpt", tree)
        return tmp_path / "ckpt"

    return save


def spec(*shape, dtype=np.float32):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


# Orbax.


def test_a_partial_restore_whose_names_are_all_wrong_returns_the_init(tmp_path):
    checkpointer = orbax.PyTreeCheckpointer()
    checkpointer.save(tmp_path / "ckpt", {"encoder": {"w": ONE}})
    init = {"enc": {"w": jnp.zeros(3)}}
    restored = checkpointer.restore(
        tmp_path / "ckpt",
        item=init,
        transforms={},
        restore_args=orbax.checkpoint_utils.construct_restore_args(init),
    )
    assert restored["enc"]["w"].tolist() == [0, 0, 0], "nothing was loaded, and nothing was said"

    assert kinds(init, tmp_path / "ckpt") == [("missing", "enc/w"), ("unexpected", "encoder/w")]
    with pytest.raises(LoadError, match="missing +enc/w"):
        treeload.load(init, tmp_path / "ckpt")


def test_a_partial_load_leaves_what_is_missing_abstract(saved):
    path = saved({"a": ONE})
    with ocp.Context(
        pytree_options=ocp.options.PyTreeOptions(loading=ocp.options.PyTreeOptions.Loading(partial_load=True))
    ):
        restored = ocp.load(path, {"a": spec(3), "b": spec(3)})
    assert not isinstance(restored["b"], jax.Array), "a leaf of the result is no array"

    abstract = {"a": spec(3), "b": spec(3)}
    assert kinds(abstract, path) == [("missing", "b")]
    assert kinds(abstract, path, policy=Policy(missing="keep")) == [("missing", "b"), ("abstract", "b")]
    loaded = treeload.load(
        abstract, path, policy=Policy(missing="keep"), init=lambda: {"a": jnp.zeros(3), "b": jnp.full(3, 7.0)}
    )
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded)) and loaded["b"][0] == 7


def test_names_joined_with_a_dot_become_one_value(saved):
    tree = {"a.b": jnp.zeros(3), "a": {"b": ONE}}
    restored = ocp.load(saved(tree))
    assert np.array_equal(restored["a.b"], restored["a"]["b"]), "one of the two arrays is gone"


def test_names_that_orbax_would_confuse_are_refused_with_both_names(tmp_path):
    with pytest.raises(SaveError) as caught:
        treeload.save(tmp_path / "ckpt", {"a.b": jnp.zeros(3), "a": {"b": ONE}})
    assert "a.b" in str(caught.value) and "a/b" in str(caught.value) and not (tmp_path / "ckpt").exists()


def test_the_shape_of_a_numpy_target_is_not_looked_at(saved):
    path = saved({"w": ONE})
    restored = ocp.load(path, {"w": np.zeros((5, 5), np.float32)})
    assert restored["w"].shape == (3,), "asked for (5, 5)"

    assert kinds({"w": np.zeros((5, 5), np.float32)}, path) == [("shape", "w")]


def test_a_float_becomes_an_integer(saved):
    path = saved({"w": jnp.float32([1.9, 2.9])})
    restored = ocp.load(path, {"w": spec(2, dtype=np.int32)})
    assert restored["w"].tolist() == [1, 2], "cut off"

    assert kinds({"w": spec(2, dtype=np.int32)}, path) == [("dtype", "w")]
    unsafe = treeload.load({"w": spec(2, dtype=np.int32)}, path, policy=Policy(casting="unsafe"))
    assert unsafe["w"].tolist() == [1, 2]


def test_a_shape_error_names_no_path(saved):
    path = saved({"encoder": {"w": ONE}})
    with pytest.raises(Exception) as caught:  # of whatever type
        ocp.load(path, {"encoder": {"w": spec(5)}})
    peers = str(caught.value)

    with pytest.raises(LoadError) as ours:
        treeload.load({"encoder": {"w": spec(5)}}, path)
    assert (
        "encoder/w" in str(ours.value) and "float32[5]" in str(ours.value) and "float32[3]" in str(ours.value)
    )
    assert "encoder/w" not in peers


# Flax.


class Net(nnx.Module):
    a: nnx.Param[jax.Array]
    b: nnx.Param[jax.Array]

    def __init__(self, fill=0.0, *, names=("a", "b")):
        for number, name in enumerate(names):
            setattr(self, name, nnx.Param(jnp.full(3, fill + number)))


def test_nnx_update_assigns_wrong_shapes_invents_attributes_and_misses_nothing():
    model = Net()
    state = nnx.State({"a": nnx.Param(jnp.ones((5, 5))), "new": nnx.Param(ONE)})
    nnx.update(model, state)
    assert model.a.shape == (5, 5) and hasattr(model, "new") and model.b[0] == 1

    fresh = Net()
    assert kinds(fresh, state) == [("missing", "b"), ("unexpected", "new"), ("shape", "a")]
    with pytest.raises(LoadError, match="3 problems"):
        treeload.update(fresh, state)
    assert fresh.a.shape == (3,) and not hasattr(fresh, "new")


def test_nnx_merge_matches_by_position_and_swaps_weights():
    graphdef, _ = nnx.split(Net())
    renamed = {"b": nnx.Param(jnp.full(3, 1.0)), "c": nnx.Param(jnp.full(3, 2.0))}
    merged: Any = nnx.merge(graphdef, renamed)
    assert (merged.a[0], merged.b[0]) == (1, 2), "what was called b is a now"

    assert kinds(Net(), renamed) == [("missing", "a"), ("unexpected", "c")]
    assert treeload.plan(Net(), renamed)["b"].action == "load"


def test_nnx_update_with_a_wider_dtype_changes_the_model():
    model = Net()
    nnx.update(model, nnx.State({"a": nnx.Param(jnp.ones(3, jnp.int8))}))
    assert model.a.dtype == jnp.int8, "a float parameter no more"

    fresh = Net()
    treeload.update(fresh, {"a": jnp.ones(3, jnp.int8), "b": ONE})
    assert fresh.a.dtype == jnp.float32


def test_from_state_dict_checks_no_shape():
    loaded = flax.serialization.from_state_dict({"w": jnp.zeros(3)}, {"w": jnp.ones((5, 5))})
    assert loaded["w"].shape == (5, 5)
    assert kinds({"w": jnp.zeros(3)}, {"w": jnp.ones((5, 5))}) == [("shape", "w")]


def test_from_bytes_checks_no_dtype():
    loaded = flax.serialization.from_bytes(
        {"w": np.zeros(2, np.int32)}, flax.serialization.to_bytes({"w": np.ones(2, np.float64)})
    )
    assert loaded["w"].dtype == np.float64
    assert kinds({"w": np.zeros(2, np.int32)}, {"w": np.ones(2, np.float64)}) == [("dtype", "w")]


# What nobody checks: an accidental abstract leaf in a result.


def test_an_abstract_leaf_never_reaches_a_result():
    abstract = nnx.eval_shape(Net)
    nnx.update(abstract, nnx.State({"a": nnx.Param(ONE)}))
    assert isinstance(
        abstract.b[...] if abstract.b is None else abstract.b.get_raw_value(), jax.ShapeDtypeStruct
    )

    with pytest.raises(LoadError, match="abstract"):
        treeload.load(nnx.eval_shape(Net), {"a": ONE}, policy=Policy(missing="keep"))
    loaded = treeload.load(nnx.eval_shape(Net), {"a": ONE}, policy=Policy(missing="keep"), init=Net)
    assert isinstance(loaded.b[...], jax.Array) and loaded.b[0] == 1


def test_none_and_a_zero_bias_are_strangers_to_nnx():
    with_bias, without = (nnx.Linear(2, 2, use_bias=use, rngs=nnx.Rngs(0)) for use in (True, False))
    nnx.update(with_bias, nnx.state(without))
    assert with_bias.bias is not None
    with_bias.bias[...] = jnp.ones(2)
    nnx.update(with_bias, nnx.state(without))
    assert with_bias.bias[...].tolist() == [1, 1], "an absent bias left the old one in place"

    policy = Policy(absent_is_zero=treeload.BIAS)
    treeload.update(with_bias, without, policy=policy)
    assert with_bias.bias[...].tolist() == [0, 0]
    with_bias.bias[...] = jnp.ones(2)
    with warnings.catch_warnings(), pytest.raises(LoadError, match="absent"):
        treeload.update(without, with_bias, policy=policy)
