"""The fast pass: what simply agrees, and nothing that a slower look would judge otherwise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import treeload
from treeload import From, Policy
from treeload._matching.agree import Agreement, take_what_agrees
from treeload._matching.offers import offered
from treeload._matching.parts import opened_parts
from treeload._naming.name import print_name
from treeload._plans.entry import SAME_NAME
from treeload._trees.walk import walk

values = st.sampled_from([
    np.zeros(2, np.float32), np.zeros(3, np.float32), np.zeros(2, np.int8), jnp.zeros(2),
    jax.ShapeDtypeStruct((2,), np.float32), None, False, True, 3, "relu",
])  # fmt: skip
trees = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


def agreement(dst: Any, src: Any) -> Agreement:
    return take_what_agrees(walk(dst), offered(opened_parts(src, "plan")))


def agreeing(dst: Any, src: Any) -> set[str]:
    rows = agreement(dst, src).rows
    return {print_name(name) for name, row in zip(walk(dst).names, rows, strict=True) if row is SAME_NAME}


# Laws.


@given(trees, trees)
def test_what_agrees_and_the_rest_are_all_slots_each_once(dst: Any, src: Any) -> None:
    found = agreement(dst, src)
    assert [row is None for row in found.rows] == [index in found.rest for index in range(len(found.rows))]


@given(trees, trees)
def test_what_agrees_has_one_name_one_shape_and_one_dtype_on_both_sides(dst: Any, src: Any) -> None:
    for name in agreeing(dst, src):
        assert (dst[name].shape, dst[name].dtype) == (src[name].shape, src[name].dtype)


@given(trees, trees)
def test_a_plan_loads_what_agrees_and_has_no_word_about_it(dst: Any, src: Any) -> None:
    fine = agreeing(dst, src)
    plan = treeload.plan(dst, src, policy=Policy(absent_is_zero="**"))
    assert all(plan[name].action == "load" and not plan[name].reason for name in fine)
    assert not fine & {str(finding.name) for finding in plan.findings if finding.kind != "rule"}


@given(trees, trees)
def test_only_where_nothing_is_left_is_the_source_said_to_have_no_more(dst: Any, src: Any) -> None:
    found = agreement(dst, src)
    if found.nothing_left:
        assert not found.rest and walk(dst).names == list(opened_parts(src, "plan")[0].source.specs())


@given(trees, trees)
def test_a_source_with_rules_of_its_own_is_looked_at_leaf_by_leaf(dst: Any, src: Any) -> None:
    found = agreement(dst, From(src, into="net"))
    assert not any(found.rows) and list(found.rest) == list(range(len(walk(dst).names)))


# Columns.


def test_two_trees_of_arrays_of_the_same_names_leave_nothing() -> None:
    found = agreement({"a": jnp.zeros(2), "b": np.zeros(1)}, {"a": jnp.ones(2), "b": np.ones(1)})
    assert found.nothing_left and found.rest == () and list(found.rows) == [SAME_NAME, SAME_NAME]


def test_an_empty_destination_and_an_empty_source_leave_nothing() -> None:
    assert agreement({}, {}) == Agreement([], (), nothing_left=True)


def test_a_source_with_one_leaf_more_leaves_that_one() -> None:
    found = agreement({"a": np.zeros(1)}, {"a": np.ones(1), "b": np.ones(1)})
    assert found.rest == () and not found.nothing_left


def test_a_bare_array_agrees_with_a_bare_array() -> None:
    assert agreement(np.zeros(2), np.ones(2)).nothing_left


@pytest.mark.parametrize("other", [jnp.zeros(3), jnp.zeros(2, jnp.int8), np.zeros(3, np.float32)])
def test_one_leaf_that_differs_is_the_only_one_that_is_left(other: Any) -> None:
    found = agreement({"a": jnp.zeros(2), "b": jnp.zeros(2)}, {"a": jnp.ones(2), "b": other})
    assert list(found.rows) == [SAME_NAME, None] and list(found.rest) == [1]


def test_arrays_that_differ_in_weakness_alone_agree() -> None:
    weak = jnp.asarray(1.0)
    assert weak.weak_type and not jnp.zeros(()).weak_type
    assert agreeing({"a": jnp.zeros(())}, {"a": weak}) == {"a"}


# What is never taken here.


def test_a_python_number_is_left_even_where_its_spec_is_the_same() -> None:
    assert agreeing({"a": np.zeros((), np.int64), "b": np.zeros(1)}, {"a": 3, "b": np.zeros(1)}) == {"b"}


@pytest.mark.parametrize("held", [3, True, None, False, "relu"])
def test_a_slot_that_is_no_array_is_left(held: Any) -> None:
    found = agreement({"a": held, "b": np.zeros(1)}, {"a": held, "b": np.ones(1)})
    assert list(found.rows) == [None, SAME_NAME] and list(found.rest) == [0]


def test_an_abstract_leaf_that_jax_would_make_narrower_is_left() -> None:
    spec = jax.ShapeDtypeStruct
    dst = {"n": spec((), np.float32), "w": spec((2,), np.float64)}
    src = {"n": np.zeros((), np.float32), "w": np.zeros(2, np.float64)}
    assert agreeing(dst, src) == {"n"}
    with jax.enable_x64(True):
        assert agreeing(dst, src) == {"n", "w"}


def test_a_concrete_leaf_of_a_wide_dtype_is_taken_beside_an_abstract_one() -> None:
    dst = {"n": jax.ShapeDtypeStruct((), np.float32), "w": np.zeros(2, np.float64)}
    assert agreeing(dst, {"n": np.zeros((), np.float32), "w": np.ones(2)}) == {"n", "w"}


def test_a_tied_leaf_is_left() -> None:
    shared = np.zeros(2)
    assert agreeing({"a": shared, "b": shared, "c": np.zeros(2)}, {"a": shared, "c": shared}) == {"c"}


class Keyless:
    def __init__(self, *children: Any) -> None:
        self.children = children

    __slots__ = ("children",)


jax.tree_util.register_pytree_node(Keyless, lambda node: (node.children, None), lambda _, c: Keyless(*c))


def test_a_leaf_whose_name_is_a_mere_number_is_left() -> None:
    dst = {"k": Keyless(np.zeros(2)), "w": np.zeros(1)}
    assert walk(dst).made_up
    assert agreeing(dst, {"k": [np.ones(2)], "w": np.ones(1)}) == {"w"}


def test_variables_agree_as_what_they_hold() -> None:
    model, state = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Linear(2, 2, rngs=nnx.Rngs(1))
    assert agreeing(model, state) == {"kernel", "bias"}


def test_what_cannot_be_placed_is_decided_by_itself() -> None:
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    src = {"a": np.zeros((8, 3), np.float32), "b": np.zeros((6, 3), np.float32)}
    dst = {name: jax.ShapeDtypeStruct(one.shape, one.dtype, sharding=over) for name, one in src.items()}
    assert [str(finding.name) for finding in treeload.plan(dst, src).findings] == ["b"]
