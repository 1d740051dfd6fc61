"""Ops that only move elements, beyond what ``test_ops`` says of all ops."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Reshape, RuleError, Transpose

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def numbered(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.arange(math.prod(shape)).reshape(shape)


@given(st.integers(0, 5).flatmap(lambda rank: st.permutations(range(rank))), st.data())
def test_axes_may_be_counted_from_either_end(axes: list[int], data: st.DataObject) -> None:
    rank = len(axes)
    mixed = tuple(data.draw(st.sampled_from([axis, axis - rank])) for axis in axes)
    shape = tuple(range(1, rank + 1))
    op = Transpose(mixed)
    np.testing.assert_array_equal(op.apply(numbered(shape)), numbered(shape).transpose(axes))
    assert op.infer(jax.ShapeDtypeStruct(shape, np.int32)).shape == tuple(shape[axis] for axis in axes)


@given(st.integers(0, 5).flatmap(lambda rank: st.permutations(range(rank))))
def test_the_inverse_of_the_inverse_moves_as_the_op_itself(axes: list[int]) -> None:
    op = Transpose(tuple(axes))
    inverse = op.inverse()
    assert inverse is not None and inverse.inverse() == op


@given(SHAPES)
def test_moving_elements_makes_a_view_and_no_copy(shape: tuple[int, ...]) -> None:
    array = numbered(shape)
    for op in (Transpose(), Reshape(-1) if math.prod(shape) else Reshape(0)):
        result = op.apply(array)
        assert array.size == 0 or np.shares_memory(result, array)


@given(SHAPES, st.sampled_from(["float32", "int8", "bool"]))
def test_a_reshape_to_one_line_keeps_the_c_order_and_comes_back(shape: tuple[int, ...], dtype: str) -> None:
    spec = jax.ShapeDtypeStruct(shape, np.dtype(dtype))
    op = Reshape(math.prod(shape), source=shape)
    inverse = op.inverse()
    assert inverse is not None and inverse.infer(op.infer(spec)) == spec
    array = numbered(shape)
    np.testing.assert_array_equal(op.apply(array), array.ravel())
    np.testing.assert_array_equal(inverse.apply(op.apply(array)), array)


@pytest.mark.parametrize(
    ("op", "dtype"), [(Transpose(), "bool"), (Transpose(1, 0), "int8"), (Reshape(-1, 2), "float16")]
)
def test_the_dtype_stays(op: Any, dtype: str) -> None:
    assert op.infer(jax.ShapeDtypeStruct((2, 4), np.dtype(dtype))).dtype == np.dtype(dtype)


def test_without_axes_the_op_is_its_own_inverse() -> None:
    assert Transpose().inverse() == Transpose()
    assert Transpose(2, 0, 1).inverse() == Transpose(1, 2, 0)


def test_a_source_that_is_no_shape_is_a_rule_error() -> None:
    with pytest.raises(RuleError, match="source takes integers"):
        Reshape(6, source=(2.0, 3))  # type: ignore[arg-type]


def test_a_size_left_open_beside_no_elements_could_be_any() -> None:
    with pytest.raises(RuleError, match="does not fit the 0 elements"):
        Reshape(0, -1).infer(jax.ShapeDtypeStruct((0, 3), np.float32))
