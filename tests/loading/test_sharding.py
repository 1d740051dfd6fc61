"""Loading onto many devices: from a checkpoint of another topology, with checks and zeros where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import BIAS, LoadError, Policy, Rename, Transpose

P = jax.sharding.PartitionSpec


def mesh(rows: int, columns: int) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.asarray(jax.devices()[: rows * columns]).reshape(rows, columns), ("x", "y"))


def over(rows: int, columns: int, *axes: str | None) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh(rows, columns), P(*axes))


WEIGHTS = np.arange(32, dtype=np.float32).reshape(8, 4)

LAYOUTS = {
    "rows of eight": over(8, 1, "x"),
    "a grid": over(2, 4, "x", "y"),
    "columns of four": over(1, 4, None, "y"),
    "on every device": over(2, 4),
    "one device": jax.sharding.SingleDeviceSharding(jax.devices()[5]),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def test_there_are_eight_devices() -> None:
    assert jax.device_count() == 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sharded") / "saved"
    stored = jax.device_put(WEIGHTS, over(4, 2, "x", "y"))
    treeload.save(path, {"w": stored, "bias": jax.device_put(np.zeros(8, np.float32), over(8, 1, "x"))})
    return path


@layouts
@pytest.mark.parametrize("concrete", [True, False])
def test_a_checkpoint_is_resharded_as_the_destination_has_it(
    checkpoint: Path, layout: str, concrete: bool
) -> None:
    sharding = LAYOUTS[layout]
    w: Any = jax.ShapeDtypeStruct((8, 4), np.float32, sharding=sharding)
    if concrete:
        w = jax.device_put(np.zeros((8, 4), np.float32), sharding)
    made = treeload.load({"w": w, "bias": jnp.ones(8)}, checkpoint)
    assert made["w"].sharding == sharding and made["w"].committed
    assert not made["bias"].committed and made["bias"].devices() == {jax.devices()[0]}
    np.testing.assert_array_equal(made["w"], WEIGHTS)


@layouts
def test_a_layout_with_ops_and_a_cast(checkpoint: Path, layout: str) -> None:
    sharding = LAYOUTS[layout]
    dst = {"v": jax.ShapeDtypeStruct((8, 4), jnp.bfloat16, sharding=sharding)}
    src = {"w": WEIGHTS.T}
    made = treeload.load(dst, src, rules=Rename("w", "v", Transpose()))
    assert made["v"].sharding == sharding and made["v"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(made["v"], WEIGHTS.astype(jnp.bfloat16))


@layouts
@pytest.mark.parametrize("other", LAYOUTS)
def test_arrays_in_memory_are_resharded(layout: str, other: str) -> None:
    src = jax.device_put(WEIGHTS, LAYOUTS[other])
    made = treeload.load({"w": jax.device_put(jnp.zeros((8, 4)), LAYOUTS[layout])}, {"w": src})
    assert made["w"].sharding == LAYOUTS[layout]
    np.testing.assert_array_equal(made["w"], WEIGHTS)


@layouts
def test_zeros_are_made_where_they_lie(layout: str) -> None:
    bias = jax.device_put(np.ones((8, 4), np.float32), LAYOUTS[layout])
    made = treeload.load({"bias": bias}, {}, policy=Policy(absent_is_zero=BIAS))["bias"]
    assert made.sharding == bias.sharding and made.committed
    np.testing.assert_array_equal(made, np.zeros((8, 4)))


@layouts
@pytest.mark.parametrize("value", [1.0, 1e-45, np.nan])
def test_one_element_on_one_device_fails_the_zero_check(layout: str, value: float) -> None:
    bias = np.zeros((8, 4), np.float32)
    sharding = LAYOUTS[layout]
    policy = Policy(absent_is_zero=BIAS)
    treeload.load({"bias": None}, {"bias": jax.device_put(-bias, sharding)}, policy=policy)
    bias[7, 3] = value
    with pytest.raises(LoadError, match="1 of 32 elements"):
        treeload.load({"bias": None}, {"bias": jax.device_put(bias, sharding)}, policy=policy)


@layouts
def test_tied_leaves_are_compared_across_layouts(layout: str) -> None:
    shared = jnp.zeros((8, 4))
    dst = {"a": shared, "b": shared}
    here, there = (jax.device_put(WEIGHTS, LAYOUTS[name]) for name in (layout, "a grid"))
    made = treeload.load(dst, {"a": here, "b": there})
    assert made["a"] is made["b"] and not made["a"].committed
    with pytest.raises(LoadError, match="tie"):
        treeload.load(dst, {"a": here, "b": there + 1})


def test_an_nnx_module_is_filled_shard_by_shard(checkpoint: Path) -> None:
    m = nnx.Linear(8, 4, use_bias=False, rngs=nnx.Rngs(0))
    m.kernel[...] = jax.device_put(m.kernel[...], LAYOUTS["a grid"])
    policy = Policy(absent_is_zero=BIAS)
    treeload.update(m, checkpoint, rules=Rename("w", "kernel"), policy=policy)
    assert m.kernel.get_raw_value().sharding == LAYOUTS["a grid"]
    np.testing.assert_array_equal(m.kernel[...], WEIGHTS)


def test_donation_frees_every_shard() -> None:
    old = jax.device_put(jnp.zeros((8, 4)), LAYOUTS["a grid"])
    made = treeload.load({"w": old}, {"w": WEIGHTS}, donate=True)
    assert old.is_deleted()
    np.testing.assert_array_equal(made["w"], WEIGHTS)


def test_donation_keeps_shards_that_a_kept_leaf_shares() -> None:
    whole = jax.device_put(jnp.ones((8, 4)), LAYOUTS["on every device"])
    shard = whole.addressable_shards[3].data  # the memory of one device's copy
    dst = {"a": whole, "b": shard}
    made = treeload.load(dst, {"a": WEIGHTS}, policy=Policy(missing="keep"), donate=True)
    np.testing.assert_array_equal(made["b"], np.ones((8, 4)))
    np.testing.assert_array_equal(made["a"], WEIGHTS)


def test_init_is_sharded_as_the_destination_is() -> None:
    dst = {"w": jax.ShapeDtypeStruct((8, 4), np.float32, sharding=LAYOUTS["a grid"])}
    made = treeload.load(dst, {}, policy=Policy(missing="keep"), init=lambda: {"w": jnp.asarray(WEIGHTS)})
    assert made["w"].sharding == LAYOUTS["a grid"]
    np.testing.assert_array_equal(made["w"], WEIGHTS)
