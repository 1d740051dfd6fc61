"""A tree made again, or filled in place, with other values. That any tree comes back is in ``test_walk``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from treeload._errors import TreeloadError
from treeload._trees.rebuild import assign, rebuild, updatable
from treeload._trees.walk import walk


class Pair(NamedTuple):
    left: Any
    right: Any


class Block(nnx.Module):
    def __init__(self, value: float) -> None:
        self.w = nnx.Param(jnp.full(2, value))
        self.raw = nnx.data(jnp.full(3, value))
        self.many = nnx.List([nnx.Param(jnp.zeros(1)), nnx.Param(jnp.ones(1))])


class Net(nnx.Module):
    def __init__(self) -> None:
        self.first = Block(1.0)
        self.second = Block(2.0)
        self.second.w = self.first.w


TREES = st.recursive(
    st.floats(0, 1).map(lambda x: np.full(1, x)),
    lambda inner: (
        st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
        | st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(Pair, inner, inner)
        | st.builds(nnx.Param, st.just(jnp.zeros(1)))
    ),
    max_leaves=10,
)


@given(TREES)
def test_each_slot_gets_its_own_value(tree: Any) -> None:
    walked = walk(tree)
    values = [np.full(2, number) for number in range(len(walked.names))]
    again = walk(rebuild(walked, values))
    assert again.names == walked.names and again.aliases == walked.aliases
    assert [value[0] for value in again.values] == list(range(len(values)))


@given(TREES)
def test_the_tree_that_was_walked_is_as_before(tree: Any) -> None:
    walked = walk(tree)
    before = jax.tree.leaves(tree)
    rebuild(walked, [np.zeros(1)] * len(walked.names))
    assert all(a is b for a, b in zip(jax.tree.leaves(tree), before, strict=True))


def test_values_go_by_name_where_the_dicts_order_is_another() -> None:
    tree = {"b": 1.0, "a": 2.0}
    made = rebuild(walk(tree), ["first in order", "second in order"])
    assert list(made.items()) == [("b", "second in order"), ("a", "first in order")]


def test_one_array_in_two_places_stays_one() -> None:
    shared = np.zeros(2)
    made = rebuild(walk({"a": shared, "b": [shared]}), [np.ones(2)])
    assert made["a"] is made["b"][0]


def test_one_variable_in_two_places_stays_one_and_is_a_new_one() -> None:
    shared = nnx.Param(jnp.zeros(2))
    made = rebuild(walk({"a": shared, "b": shared}), [jnp.ones(2)])
    assert made["a"] is made["b"] and made["a"] is not shared
    assert made["a"][...].tolist() == [1, 1] and shared[...].tolist() == [0, 0]


def test_a_module_is_made_again_with_its_sharing_and_the_old_one_stays() -> None:
    net = Net()
    walked = walk(net)
    made = rebuild(walked, [jnp.full_like(value, 9) for value in walked.values])
    assert made is not net and made.first.w is made.second.w
    assert all((leaf == 9).all() for leaf in walk(made).values)
    assert net.first.w[...].tolist() == [1, 1] and net.second.raw.tolist() == [2, 2, 2]


def test_a_variable_shared_by_a_module_and_the_tree_around_it_stays_shared() -> None:
    block = Block(1.0)
    walked = walk({"block": block, "w": block.w})
    made = rebuild(walked, [value + 1 for value in walked.values])
    assert made["w"] is made["block"].w and made["w"][...].tolist() == [2, 2]


def test_a_ref_in_two_places_becomes_one_new_ref() -> None:
    ref = jax.new_ref(jnp.zeros(2))
    made = rebuild(walk([ref, ref]), [jnp.ones(2)])
    assert made[0] is made[1] and made[0] is not ref
    assert ref[...].tolist() == [0, 0]


# --- in place ---------------------------------------------------------------------------------------


def test_values_are_put_into_the_very_object() -> None:
    net = Net()
    w, second = net.first.w, net.second
    walked = walk(net)
    assign(walked, [jnp.full_like(value, 5) for value in walked.values])
    assert net.first.w is w and net.second is second and net.second.w is w
    assert all((leaf == 5).all() for leaf in walk(net).values)


def test_a_value_that_stays_is_not_touched() -> None:
    net = Net()
    walked = walk(net)
    assign(walked, walked.values)
    assert all(a is b for a, b in zip(walk(net).values, walked.values, strict=True))


def test_an_object_that_refuses_one_value_keeps_all_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    walked = walk(net)
    before = list(walked.values)
    set_raw, calls = nnx.Param.set_raw_value, []

    def refusing(self: Any, value: Any, **options: Any) -> None:
        calls.append(value)
        if len(calls) == 3:
            raise ValueError("not this one")
        set_raw(self, value, **options)

    monkeypatch.setattr(nnx.Param, "set_raw_value", refusing)
    with pytest.raises(TreeloadError, match="the Net refused its new values: not this one") as raised:
        assign(walked, [value + 1 for value in walked.values])
    assert isinstance(raised.value.__cause__, ValueError) and len(calls) == 3
    assert all(a is b for a, b in zip(walk(net).values, before, strict=True))


@pytest.mark.parametrize(
    ("make", "may"),
    [
        (lambda: Net(), True),
        (lambda: nnx.Param(jnp.zeros(1)), True),
        (lambda: jax.new_ref(jnp.zeros(1)), True),
        (lambda: {"a": [jax.new_ref(jnp.zeros(1))]}, True),
        (lambda: {"a": jax.new_ref(jnp.zeros(1)), "b": jnp.zeros(1)}, False),
        (lambda: {"a": Net()}, False),
        (lambda: {"a": jnp.zeros(1)}, False),
        (dict, False),
        (lambda: None, False),
    ],
)
def test_only_what_can_be_written_into_is_updatable(make: Any, may: bool) -> None:
    assert updatable(make()) is may
