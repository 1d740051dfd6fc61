"""How steps are put together, and that they stand for what they give; more is in ``test_ops``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Apply, Cast, Name, Reshape, RuleError, Transpose, TreeloadError
from treeload._leaves.spec import without_sharding
from treeload._ops.expression import (
    Derived,
    Expression,
    Leaf,
    chain,
    combine,
    derive,
    evaluate,
    fills_from_destination,
    ops_of,
)
from treeload._ops.op import Op
from treeload._ops.several import ConcatArrays, StackArrays


def leaf_of(key: str, *shape: int, dtype: Any = np.float32) -> Leaf:
    return Leaf(0, Name((key,)), jax.ShapeDtypeStruct(shape, np.dtype(dtype)))


def numbers(leaf: Leaf, start: int = 0) -> np.ndarray[Any, Any]:
    count = int(np.prod(leaf.spec.shape))
    return (np.arange(count) + start).reshape(leaf.spec.shape).astype(leaf.spec.dtype)


@dataclass(frozen=True)
class First(Op):
    """The first rows of the destination are replaced."""

    onto_destination = True

    def infer(self, *specs: Any) -> Any:
        return jax.ShapeDtypeStruct((4, *specs[0].shape[1:]), specs[0].dtype)

    def apply(self, *arrays: Any) -> Any:
        raise AssertionError("it is applied onto a destination")

    def apply_onto(self, array: Any, destination: Any) -> Any:
        return np.concatenate([array, destination[len(array) :]])


@st.composite
def expressions(draw: st.DrawFn) -> tuple[Expression, dict[Leaf, Any], Any]:
    """An expression of square leaves, the arrays of its leaves, and what plain NumPy makes of them."""
    arrays: dict[Leaf, Any] = {}

    def made(depth: int) -> tuple[Expression, Any]:
        if depth == 0 or draw(st.booleans()):
            leaf = leaf_of(f"k{len(arrays)}", 2, 2)
            arrays[leaf] = numbers(leaf, len(arrays))
            return leaf, arrays[leaf]
        parts = [made(depth - 1) for _ in range(draw(st.integers(1, 3)))]
        shapes = {array.shape for _, array in parts}
        op: Op = StackArrays((len(parts),), 0) if len(shapes) == 1 else Transpose()
        if isinstance(op, Transpose):
            value, array = parts[0]
            return derive(op, value), array.T
        return derive(op, *(value for value, _ in parts)), np.stack([array for _, array in parts])

    value, expected = made(3)
    return value, arrays, expected


@given(expressions())
def test_an_expression_stands_for_what_numpy_makes_of_its_leaves(drawn: Any) -> None:
    value, arrays, expected = drawn
    result = evaluate(value, arrays)
    np.testing.assert_array_equal(result, expected)
    assert (value.spec.shape, value.spec.dtype) == (result.shape, result.dtype)


@given(expressions())
def test_its_leaves_are_those_it_needs_and_no_others(drawn: Any) -> None:
    value, arrays, _ = drawn
    leaves = list(value.leaves())
    assert len(leaves) == len(set(leaves)) and set(leaves) <= set(arrays)
    evaluate(value, {leaf: arrays[leaf] for leaf in leaves})
    with pytest.raises(KeyError):
        evaluate(value, {leaf: arrays[leaf] for leaf in leaves[1:]})


@given(st.lists(st.sampled_from([Transpose(), Cast("int8"), Reshape(2, 3), Reshape(6, 1)]), max_size=4))
def test_steps_run_from_left_to_right(ops: list[Op]) -> None:
    leaf = leaf_of("w", 2, 3)
    expected = numbers(leaf)
    for op in ops:
        expected = op.apply(expected)
    value = chain(leaf, ops)
    assert ops_of(value) == tuple(ops)
    np.testing.assert_array_equal(evaluate(value, {leaf: numbers(leaf)}), expected)
    assert without_sharding(value.spec) == jax.ShapeDtypeStruct(expected.shape, expected.dtype)


def test_one_value_takes_all_ops_in_turn_and_several_are_made_one_by_the_first() -> None:
    a, b = leaf_of("a", 2), leaf_of("b", 2)
    assert combine((Transpose(), Cast("int8")), [a]) == chain(a, (Transpose(), Cast("int8")))
    join = ConcatArrays(0)
    assert combine((join, Cast("int8")), [a, b]) == derive(Cast("int8"), derive(join, a, b))


def test_several_values_that_cannot_be_joined_are_refused_when_they_are_put_together() -> None:
    with pytest.raises(RuleError, match="leaves to be joined"):
        combine((ConcatArrays(0),), [leaf_of("a", 2), leaf_of("b", 2, dtype=np.int8)])
    with pytest.raises(RuleError, match="fails for"):
        combine((Apply(lambda x, y: x @ y),), [leaf_of("a", 2), leaf_of("b", 3)])


def test_putting_steps_together_computes_nothing() -> None:
    class Untouched(Transpose):
        def apply(self, *arrays: Any) -> Any:
            raise AssertionError("it was computed")

    assert derive(Untouched(), leaf_of("w", 2, 3)).spec.shape == (3, 2)


def test_a_leaf_alone_is_its_own_array_and_is_not_copied() -> None:
    leaf = leaf_of("w", 2)
    array = numbers(leaf)
    assert evaluate(leaf, {leaf: array}) is array
    assert list(leaf.leaves()) == [leaf]


# --- what is taken from the destination -------------------------------------------------------------


def test_only_a_last_op_that_says_so_fills_from_the_destination() -> None:
    leaf = leaf_of("w", 2, 3)
    assert fills_from_destination(derive(First(), leaf))
    assert not fills_from_destination(leaf)
    assert not fills_from_destination(derive(Transpose(), derive(First(), leaf)))


def test_what_is_filled_up_has_the_destinations_dtype() -> None:
    leaf = leaf_of("w", 2, 3)
    destination = np.full((4, 3), 7, np.float16)
    result = evaluate(derive(First(), leaf), {leaf: numbers(leaf)}, destination=destination)
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, [[0, 1, 2], [3, 4, 5], [7, 7, 7], [7, 7, 7]])
    assert (destination == 7).all()


@dataclass(frozen=True)
class Liar(Op):
    """An op that gives something else than it says."""

    dtype: str
    size: int

    def infer(self, *specs: Any) -> Any:
        return jax.ShapeDtypeStruct((2,), np.float32)

    def apply(self, *arrays: Any) -> Any:
        return np.zeros(self.size, self.dtype)


@pytest.mark.parametrize(("dtype", "size"), [("int8", 2), ("float32", 3)])
def test_another_shape_or_dtype_than_was_said_is_an_error_that_names_every_leaf(
    dtype: str, size: int
) -> None:
    leaves = [leaf_of(key, 2) for key in "ab"]
    value = Derived(Liar(dtype, size), tuple(leaves), leaves[0].spec)
    says = rf"was to give float32\[2\] and gave {dtype}\[{size}\] for a, b$"
    with pytest.raises(TreeloadError, match=says):
        evaluate(value, {leaf: numbers(leaf) for leaf in leaves})
