"""Where a value goes: host or device, dtype, sharding, each as the destination has it."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import treeload
from treeload import Policy
from treeload._leaves.placement import cast, to_device, to_host, zeros


def mesh(count: int = 8) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.asarray(jax.devices()[:count]), ("x",))


def split(count: int = 8) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh(count), jax.sharding.PartitionSpec("x"))


def last_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[-1])


VALUES = np.arange(8, dtype=np.float32)

# What a destination leaf may be, and what must hold of the result besides its values.
DESTINATIONS: dict[str, Any] = {
    "uncommitted": lambda: jnp.zeros(8),
    "committed to the first device": lambda: jax.device_put(np.zeros(8, np.float32), jax.devices()[0]),
    "committed to the last device": lambda: jax.device_put(np.zeros(8, np.float32), last_device()),
    "sharded": lambda: jax.device_put(np.zeros(8, np.float32), split()),
    "abstract": lambda: jax.ShapeDtypeStruct((8,), np.float32),
    "abstract and sharded": lambda: jax.ShapeDtypeStruct((8,), np.float32, sharding=split()),
    "abstract on the last device": lambda: jax.ShapeDtypeStruct((8,), np.float32, sharding=last_device()),
    "numpy": lambda: np.zeros(8, np.float32),
}
SOURCES: dict[str, Any] = {
    "numpy": lambda: VALUES.copy(),
    "uncommitted": lambda: jnp.asarray(VALUES),
    "committed to the first device": lambda: jax.device_put(VALUES, jax.devices()[0]),
    "committed to the last device": lambda: jax.device_put(VALUES, last_device()),
    "sharded": lambda: jax.device_put(VALUES, split()),
    "sharded over half": lambda: jax.device_put(VALUES, split(4)),
}


def as_wanted(result: Any, like: Any) -> bool:
    if isinstance(like, np.ndarray):
        return type(result) is np.ndarray
    sharding = getattr(like, "sharding", None)
    if isinstance(like, jax.Array) and not like.committed:
        sharding = None
    if sharding is None:
        return not result.committed and result.devices() == {jax.devices()[0]}
    return result.committed and result.sharding == sharding


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("destination", DESTINATIONS)
def test_the_destination_decides_the_placement(destination: str, source: str) -> None:
    like = DESTINATIONS[destination]()
    result = treeload.load({"w": like}, {"w": SOURCES[source]()})["w"]
    assert as_wanted(result, like)
    np.testing.assert_array_equal(result, VALUES)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("destination", DESTINATIONS)
def test_a_cast_changes_nothing_about_the_placement(destination: str, source: str) -> None:
    like = DESTINATIONS[destination]()
    wide = jax.tree.map(lambda array: array.astype(jnp.bfloat16), SOURCES[source]())
    result = treeload.load({"w": like}, {"w": wide})["w"]
    assert as_wanted(result, like)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, VALUES)


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_zeros_lie_where_the_destination_does(destination: str) -> None:
    like = DESTINATIONS[destination]()
    result = treeload.load({"bias": like}, {}, policy=Policy(absent_is_zero=treeload.BIAS))["bias"]
    assert as_wanted(result, like)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.zeros(8))


@pytest.mark.parametrize("sharding", [None, last_device()])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_are_placed_like_arrays(sharding: jax.sharding.Sharding | None, impl: str) -> None:
    stored = jax.device_put(jax.random.key(7, impl=impl), jax.devices()[3])
    like = jax.random.key(0, impl=impl)
    like = like if sharding is None else jax.device_put(like, sharding)
    result = treeload.load({"key": like}, {"key": stored})["key"]
    assert as_wanted(result, like)
    assert result.dtype == stored.dtype
    np.testing.assert_array_equal(jax.random.key_data(result), jax.random.key_data(stored))


# Casts.


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_casts_keep_denormals(place: Any) -> None:
    tiny = place(np.asarray([1e-45, -1e-40, 0.0], np.float32))
    assert np.count_nonzero(np.asarray(cast(tiny, np.dtype(ml_dtypes.bfloat16)))) == 1
    tiny = place(np.asarray([6e-8], np.float16))
    assert float(np.asarray(cast(tiny, np.dtype(np.float32)))[0]) == float(np.float16(6e-8))


def test_a_denormal_survives_a_load_onto_a_device() -> None:
    tiny = np.asarray([6e-8], np.float16)
    result = treeload.load({"w": jnp.zeros(1, jnp.float32)}, {"w": tiny})["w"]
    assert np.asarray(result)[0] == np.float32(tiny[0])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.asarray([np.nan, 1e30], np.float32), np.int8),
        (np.asarray([1e30], np.float32), np.float16),
        (np.asarray([1 + 2j], np.complex64), np.float32),
        (np.asarray([1 + 2j], np.complex64), ml_dtypes.bfloat16),
    ],
)
def test_an_unsafe_cast_that_was_asked_for_warns_of_nothing(values: Any, dtype: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for place in (np.asarray, jnp.asarray):
            assert cast(place(values), np.dtype(dtype)).dtype == dtype


def test_a_cast_to_the_same_dtype_is_the_same_array() -> None:
    array = np.ones(2)
    assert cast(array, np.dtype("float64")) is array


# Host leaves.


def test_a_numpy_leaf_is_writable_and_nobody_elses() -> None:
    array = np.arange(3.0)
    kept = to_host(array, np.zeros(3), own=False)
    assert not np.shares_memory(kept, array)
    assert to_host(array, np.zeros(3), own=True) is array
    array.flags.writeable = False
    assert to_host(array, np.zeros(3), own=True).flags.writeable
    assert to_host(jnp.arange(3.0), np.zeros(3), own=True).flags.writeable


@pytest.mark.parametrize("like", [1, 1.0, True, 1j, np.float32(1), np.int8(1)])
def test_scalars_keep_the_destinations_type(like: Any) -> None:
    loaded = treeload.load({"n": like}, {"n": np.ones((), np.asarray(like).dtype)})["n"]
    assert type(loaded) is type(like) and loaded == 1
    assert type(zeros(like)) is type(like)
    assert zeros(like) == 0


def test_an_array_that_lies_right_is_not_copied() -> None:
    array = jnp.ones(3)
    assert to_device(array, jnp.zeros(3)) is array
    assert to_device(array, jax.ShapeDtypeStruct((3,), np.float32)) is array
    there = jax.device_put(array, split(1))
    assert to_device(there, jax.ShapeDtypeStruct((3,), np.float32, sharding=split(1))) is there


def test_large_and_small_leaves_go_to_the_device_alike() -> None:
    sizes = [0, 1, 3, 100_000, 9_000_000] + [2] * 1100
    src = {f"w{number}": np.full(size, number, np.float32) for number, size in enumerate(sizes)}
    result = treeload.load(jax.eval_shape(lambda: jax.tree.map(jnp.zeros_like, src)), src)
    assert all(not array.committed for array in result.values())
    for name, array in src.items():
        np.testing.assert_array_equal(result[name], array)
