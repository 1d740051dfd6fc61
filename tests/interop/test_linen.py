"""Linen's variable collections, with and without boxes."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze

import treeload
from treeload import BIAS, From, Policy, Rename


class Net(nn.Module):
    bias: bool = True
    box: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_init = nn.initializers.lecun_normal()
        if self.box is not None:
            kernel_init = self.box(kernel_init, ("embed", "mlp"))
        x = nn.Dense(4, use_bias=self.bias, kernel_init=kernel_init, name="dense")(x)
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        return nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(x[None])[0]


def variables(seed: int = 0, **how: Any) -> Any:
    return Net(**how).init(jax.random.key(seed), jnp.ones((3, 2)))


def equal(first: Any, second: Any) -> bool:
    structure: Any = jax.tree.structure(first)
    return structure == jax.tree.structure(second) and all(
        map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second))
    )


def test_names_are_paths_of_the_collections() -> None:
    names = treeload.names(variables())
    assert set(names) == {"/".join(path) for path in flax.traverse_util.flatten_dict(variables())}
    assert "params/attention/value/kernel" in names and "batch_stats/norm/mean" in names


def test_variables_load_by_name() -> None:
    assert equal(treeload.load(variables(0), variables(1)), variables(1))
    assert equal(treeload.load(jax.eval_shape(variables), variables(1)), variables(1))


def test_frozen_and_plain_dicts_load_into_each_other() -> None:
    made = treeload.load(freeze(variables(0)), variables(1))
    assert equal(made, freeze(variables(1)))
    assert equal(treeload.load(variables(0), freeze(variables(1))), variables(1))


def test_the_state_dict_of_flax_loads() -> None:
    stored = flax.serialization.msgpack_restore(flax.serialization.to_bytes(variables(1)))
    assert equal(treeload.load(variables(0), stored), variables(1))


def test_a_flat_dict_loads_when_its_separator_is_named() -> None:
    flat = flax.traverse_util.flatten_dict(variables(1), sep="/")
    assert equal(treeload.load(variables(0), From(flat, separator="/")), variables(1))


@pytest.mark.parametrize("box", [nn.with_partitioning, nn.with_logical_partitioning])
def test_boxes_are_transparent_on_both_sides_and_kept_on_the_destinations(box: Any) -> None:
    boxed, plain = variables(0, box=box), variables(1)
    assert treeload.names(boxed) == treeload.names(plain)
    made = treeload.load(boxed, plain)
    structure: Any = jax.tree.structure(made)
    assert structure == jax.tree.structure(boxed)
    kernel = made["params"]["dense"]["kernel"]
    assert type(kernel) is type(boxed["params"]["dense"]["kernel"]) and kernel.names == ("embed", "mlp")
    assert equal(nn.meta.unbox(made), plain)
    assert equal(treeload.load(plain, made), plain)


def test_a_tree_stored_with_its_boxes_loads() -> None:
    """Orbax and msgpack write a box as a dict with the key ``value``; every leaf of it has one here."""
    boxed = variables(0, box=nn.with_partitioning)["params"]["dense"]["kernel"]
    stored = {"params": {"dense": {"kernel": {"value": np.ones((2, 4), np.float32)}}}}
    made = treeload.load({"params": {"dense": {"kernel": boxed}}}, stored)
    assert made["params"]["dense"]["kernel"].value[0, 0] == 1


def test_dense_without_bias_has_no_key_and_may_mean_zero() -> None:
    src = variables(1, bias=False)
    plan = treeload.plan(variables(0), src)
    assert [str(finding.name) for finding in plan.errors] == ["params/dense/bias"]
    made = treeload.load(variables(0), src, policy=Policy(absent_is_zero=BIAS))
    np.testing.assert_array_equal(made["params"]["dense"]["bias"], np.zeros(4))


def test_a_collection_is_loaded_alone() -> None:
    dst = variables(0)
    made = treeload.load(dst, variables(1), scope="params/**")
    assert equal(made["params"], variables(1)["params"]) and equal(made["batch_stats"], dst["batch_stats"])
    made = treeload.load(dst["params"], From(variables(1), subtree="params"))
    assert equal(made, variables(1)["params"])


def test_linen_weights_load_into_nnx() -> None:
    from flax import nnx

    stored = nn.Dense(4).init(jax.random.key(1), jnp.ones((1, 2)))
    m = nnx.Linear(2, 4, rngs=nnx.Rngs(0))
    treeload.update(m, stored, rules=Rename("params/{*rest}", "{*rest}"))
    np.testing.assert_array_equal(m.kernel[...], stored["params"]["kernel"])
