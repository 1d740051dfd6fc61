"""Ops that change the values, beyond what ``test_ops`` says of all ops."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Apply, Cast

FLOATS = ["float16", "float32", "float64", "bfloat16", "float8_e5m2"]


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


@given(st.lists(st.floats(-100, 100, width=16), max_size=5), st.sampled_from(FLOATS))
def test_casting_twice_is_casting_once(values: list[float], name: str) -> None:
    once = Cast(name).apply(np.array(values, np.float32))
    assert once.dtype == dtype_of(name)
    assert Cast(name).apply(once).tobytes() == once.tobytes()


@given(st.lists(st.integers(-128, 127), max_size=5), st.booleans())
def test_numpy_and_jax_arrays_are_cast_to_the_same_numbers(values: list[int], on_device: bool) -> None:
    array = np.array(values, np.int8)
    given_ = jnp.asarray(array) if on_device else array
    result = Cast("bfloat16").apply(given_)
    assert isinstance(result, jax.Array) is on_device
    assert np.asarray(result).tobytes() == array.astype(ml_dtypes.bfloat16).tobytes()


def test_a_cast_that_overflows_is_made_without_a_word() -> None:
    result = Cast("float16").apply(np.array([1e30, -1e30, np.nan], np.float32))
    np.testing.assert_array_equal(result, np.array([np.inf, -np.inf, np.nan], np.float16))
    Cast("int8").apply(np.array([np.nan, 1e30], np.float32))  # whatever comes of it: no warning


@pytest.mark.parametrize(
    ("source", "destination", "undone"),
    [
        ("bfloat16", "float32", True), ("float32", "bfloat16", False), ("int8", "int32", True),
        ("int32", "int8", False), ("float32", "complex64", False), ("complex64", "complex128", True),
        ("int32", "float32", False), ("int8", "float32", True), ("float32", "float32", True),
        ("float16", "bfloat16", False), ("bool", "int8", False),
    ],
)  # fmt: skip
def test_a_cast_is_undone_where_no_value_is_lost(source: str, destination: str, undone: bool) -> None:
    spec = jax.ShapeDtypeStruct((2,), dtype_of(source))
    assert Cast(destination).inverse(spec) == (Cast(source) if undone else None)


def test_what_a_function_is_not_traced_for_is_not_run() -> None:
    calls: list[Any] = []

    def noted(x: Any) -> Any:
        calls.append(x)
        return x

    Apply(noted).infer(jax.ShapeDtypeStruct((2,), np.float32))
    assert len(calls) == 1 and isinstance(calls[0], jax.core.Tracer)


def test_one_wide_array_among_several_keeps_all_of_them_wide() -> None:
    op = Apply(lambda a, b: a + b)
    wide, narrow = np.array([2**40]), np.array([1], np.int8)
    specs = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (wide, narrow)]
    assert op.infer(*specs).dtype == np.int64
    result = op.apply(wide, narrow)
    assert isinstance(result, np.ndarray) and result.tolist() == [2**40 + 1]
    assert not jax.config.jax_enable_x64  # type: ignore[attr-defined]  # as it was


def test_the_inverse_of_the_inverse_is_the_op_and_prints_its_own_function() -> None:
    op = Apply(jnp.exp, jnp.log)
    inverse = op.inverse()
    assert inverse is not None and inverse.inverse() == op
    assert (repr(op), repr(inverse)) == ("Apply(exp)", "Apply(log)")
