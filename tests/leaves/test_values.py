"""Is every element zero, are two arrays one value: exactly, wherever they lie."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from treeload._leaves.values import _CHUNK, equal, nonzero

DENORMAL = np.float32(1e-45)
FLOATS = ("float16", "bfloat16", "float32", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2")


def sharded(array: Any) -> jax.Array:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("x",))
    return jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x")))


# Where an array may lie; sharded arrays are reduced on their devices.
PLACES: dict[str, Any] = {"host": np.asarray, "device": jnp.asarray, "sharded": sharded}
places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)

arrays = hnp.arrays(
    st.sampled_from([np.dtype("float32"), np.dtype("int32"), np.dtype("bool"), np.dtype("complex64")]),
    st.sampled_from([(), (1,), (3,), (2, 2)]),
)


@given(arrays)
def test_the_count_is_that_of_elements_unequal_to_zero(array: np.ndarray[Any, Any]) -> None:
    assert nonzero(array)[0] == np.count_nonzero(array != 0)


@given(arrays)
def test_an_array_equals_itself_whatever_it_holds(array: np.ndarray[Any, Any]) -> None:
    assert equal(array, array.copy())


@given(arrays, st.data())
def test_one_element_that_differs_is_enough(array: np.ndarray[Any, Any], data: st.DataObject) -> None:
    other = array.copy()
    at = data.draw(st.integers(0, array.size - 1))
    other.flat[at] = 1 if array.flat[at] != 1 else 0
    assert not equal(array, other)
    assert not equal(other, array)


@places
@pytest.mark.parametrize("dtype", FLOATS)
def test_both_zeros_are_zero(place: Any, dtype: str) -> None:
    assert nonzero(place(np.asarray([0.0, -0.0] * 4, dtype)))[0] == 0


@places
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_is_not_zero(place: Any, dtype: str) -> None:
    assert nonzero(place(np.asarray([0.0] * 7 + [np.nan], dtype))) == (1, "nan")


@places
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_smallest_number_is_not_zero(place: Any, dtype: str) -> None:
    smallest = ml_dtypes.finfo(np.dtype(dtype)).smallest_subnormal
    found = nonzero(place(np.asarray([0.0] * 7 + [-smallest]).astype(dtype)))
    assert found == (1, f"{float(smallest):.3g}")


@places
def test_the_largest_is_by_magnitude(place: Any) -> None:
    assert nonzero(place(np.asarray([1, 0, -3, 2, 0, 0, 0, 0], np.float32))) == (3, "3")
    assert nonzero(place(np.asarray([1, 0, -3, 2, 0, 0, 0, 0], np.int32))) == (3, "3")
    assert nonzero(place(np.asarray([3 - 4j] + [0] * 7, np.complex64))) == (1, "5")


@places
def test_infinity_is_said_to_be_the_largest(place: Any) -> None:
    assert nonzero(place(np.asarray([-np.inf] + [1] * 7, np.float32))) == (8, "inf")


@places
def test_booleans_count_where_they_are_true(place: Any) -> None:
    assert nonzero(place(np.asarray([True, False] * 4))) == (4, "1")


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2)])
def test_an_array_of_no_elements_is_all_zero_and_equals_its_like(shape: tuple[int, ...]) -> None:
    assert nonzero(np.ones(shape))[0] == 0
    assert nonzero(jnp.ones(shape))[0] == 0
    assert equal(np.ones(shape), jnp.zeros(shape))


@pytest.mark.parametrize("at", [0, _CHUNK - 1, _CHUNK, 2 * _CHUNK - 1, 2 * _CHUNK])
def test_chunks_hide_nothing(at: int) -> None:
    zeros = np.zeros(2 * _CHUNK + 1, np.float32)
    other = zeros.copy()
    other[at] = DENORMAL
    assert nonzero(other) == (1, "1.4e-45")
    assert not equal(zeros, other) and not equal(jnp.asarray(zeros), jnp.asarray(other))


def test_counts_and_the_largest_go_over_all_chunks() -> None:
    array = np.zeros(2 * _CHUNK + 1, np.float32)
    array[[0, _CHUNK, 2 * _CHUNK]] = 1, -5, 2
    assert nonzero(array) == (3, "5")
    array[0] = np.nan
    assert nonzero(array) == (3, "nan")


def test_strided_arrays_are_looked_at_element_by_element() -> None:
    grid = np.zeros((4, 6), np.float32)
    grid[1, 3] = DENORMAL
    assert nonzero(grid.T[3:, 1:])[0] == 1
    assert nonzero(grid[::2])[0] == 0
    assert equal(grid.T, np.ascontiguousarray(grid.T))


@places
def test_nan_equals_nan(place: Any) -> None:
    first = np.asarray([np.nan, 1] * 4, np.float32)
    other = np.asarray([np.nan, 2] * 4, np.float32)
    assert equal(place(first), place(first.copy()))
    assert not equal(place(first), place(other))
    assert not equal(place(first), place(np.nan_to_num(first)))


@places
def test_a_complex_nan_is_a_nan_in_either_part(place: Any) -> None:
    first = np.asarray([complex(np.nan, 1)] * 8, np.complex64)
    other = np.asarray([complex(1, np.nan)] * 8, np.complex64)
    assert equal(place(first), place(other))


@places
def test_zeros_of_both_signs_are_equal_and_numbers_of_both_signs_are_not(place: Any) -> None:
    assert equal(place(np.zeros(8, np.float32)), place(-np.zeros(8, np.float32)))
    assert not equal(place(np.ones(8, np.float32)), place(-np.ones(8, np.float32)))
    assert not equal(place(np.full(8, 1j, np.complex64)), place(np.full(8, -1j, np.complex64)))


@places
def test_denormals_differ(place: Any) -> None:
    one, two = np.full(8, DENORMAL), np.full(8, 2 * DENORMAL)
    assert not equal(place(one), place(two))
    assert not equal(place(one), place(np.zeros(8, np.float32)))


def test_shapes_are_never_broadcast() -> None:
    assert not equal(np.zeros(()), np.zeros((1,)))
    assert not equal(np.zeros((1, 3)), np.zeros((3,)))


@pytest.mark.parametrize(("first", "second"), [("float32", "bfloat16"), ("float32", "int32")])
def test_values_are_compared_across_dtypes(first: str, second: str) -> None:
    a, b = np.arange(8).astype(first), np.arange(8).astype(second)
    for place in PLACES.values():
        assert equal(place(a), place(b))
        assert not equal(place(a), place(b[::-1].copy()))


@places
def test_nan_equals_nan_across_dtypes(place: Any) -> None:
    nan = np.full(8, np.nan, np.float32)
    assert equal(place(nan), place(nan.astype(ml_dtypes.bfloat16)))
    assert not equal(place(nan), place(np.zeros(8, ml_dtypes.bfloat16)))


def test_arrays_in_different_places_are_compared() -> None:
    array = np.arange(8, dtype=np.float32)
    for here in PLACES.values():
        for there in PLACES.values():
            assert equal(here(array), there(array))
            assert not equal(here(array), there(array + 1))


def test_a_wide_integer_on_the_host_is_not_narrowed_to_be_compared() -> None:
    assert not equal(np.full(8, 2**32 + 1, np.int64), sharded(np.ones(8, np.int32)))


def test_two_meshes_are_no_obstacle() -> None:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:4]), ("x",))
    four = jax.device_put(np.arange(8.0), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x")))
    assert equal(four, sharded(np.arange(8.0)))


def test_keys_are_compared_by_what_they_hold() -> None:
    key = jax.random.key(0)
    assert equal(key, jax.random.key(0))
    assert not equal(key, jax.random.key(1))
    assert not equal(key, jax.random.key(0, impl="rbg"))
    assert not equal(key, np.zeros(()))
