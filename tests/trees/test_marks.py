"""A mark for every array, in the structure in which optax is given the tree."""

from __future__ import annotations

from typing import Any

import flax.core
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from pytrees import structure_of

from treeload._trees.marks import as_optax_sees, holds_nnx, marked, places
from treeload._trees.walk import walk


class Net(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.ones(2))
        self.stat = nnx.BatchStat(jnp.zeros(1))


TREES = st.recursive(
    st.integers(0, 3).map(jnp.zeros),
    lambda inner: (
        st.dictionaries(st.text("ab", max_size=2), inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=6,
)


@given(TREES)
def test_a_plain_tree_is_marked_leaf_by_leaf_with_the_names_of_the_walk(tree: Any) -> None:
    made = marked(tree, lambda names: names)
    expected = [(name,) for name in walk(tree, arrays_tie=False).names]
    assert jax.tree.leaves(made, is_leaf=lambda node: node in expected) == expected or not expected
    assert structure_of(marked(tree, lambda names: True)) == structure_of(tree)


def test_a_mark_stands_for_a_whole_variable_or_box() -> None:
    box: Any = flax.core.meta.Partitioned(jnp.zeros(1), ("x",))
    tree = {"box": box, "v": nnx.Param(jnp.zeros(1))}
    names, _ = places(tree)
    assert names == [(("box",),), (("v",),)]


def test_a_variable_that_holds_a_tree_has_all_of_its_names_below_one_mark() -> None:
    names, _ = places({"v": nnx.Param({"a": jnp.zeros(1), "b": jnp.zeros(1)})})
    assert names == [(("v", "a"), ("v", "b"))]


def test_a_module_is_given_to_optax_as_the_state_that_a_filter_selects() -> None:
    net = Net()
    assert nnx.to_pure_dict(marked(net, lambda names: names[0])) == {"stat": ("stat",), "w": ("w",)}
    params = marked(net, lambda names: True, nnx.Param)
    assert list(params) == ["w"]
    assert list(as_optax_sees(nnx.state(net), nnx.BatchStat)) == ["stat"]


def test_a_mask_of_marks_fits_what_optax_is_given() -> None:
    net = Net()
    mask = marked(net, lambda names: True, nnx.Param)
    optimizer = optax.masked(optax.sgd(0.1), mask)
    optimizer.init(nnx.state(net, nnx.Param))


def test_a_state_is_given_as_it_is() -> None:
    state = nnx.state(Net())
    assert as_optax_sees(state) is state
    tree = {"a": jnp.zeros(1)}
    assert as_optax_sees(tree) is tree


def test_a_filter_for_a_tree_without_variables_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="wrt= selects NNX variables; a dict holds none"):
        marked({"a": jnp.zeros(1)}, lambda names: True, nnx.Param)


def test_an_nnx_object_is_found_wherever_it_is() -> None:
    assert holds_nnx({"deep": [Net()]}) and holds_nnx(Net())
    assert not holds_nnx({"a": jnp.zeros(1)}) and not holds_nnx(None)
