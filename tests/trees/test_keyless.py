"""Names where JAX has only numbers (A1), keys that are paths (A12), named tuples of their own (A13)."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from pytrees import structure_of

import treeload
from treeload import NameCollision
from treeload._trees.walk import walk


def array(fill: float = 0.0) -> np.ndarray[Any, Any]:
    return np.full(2, fill, np.float32)


class Turned:
    """Its children are flattened in another order than its attributes were set in."""

    def __init__(self, first: Any, second: Any, third: Any = None) -> None:
        self.first, self.second, self.third = first, second, third


jax.tree_util.register_pytree_node(
    Turned, lambda x: ((x.second, x.third, x.first), None), lambda _, c: Turned(c[2], c[0], c[1])
)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a, b


jax.tree_util.register_pytree_node(Slotted, lambda x: ((x.b, x.a), None), lambda _, c: Slotted(c[1], c[0]))


class Strict:
    """It refuses what is no array, so it cannot be made of marks: JAX would have it otherwise."""

    def __init__(self, a: Any, b: Any) -> None:
        if not all(hasattr(each, "shape") for each in (a, b)):
            raise TypeError("arrays only")
        self.a, self.b = a, b


jax.tree_util.register_pytree_node(Strict, lambda x: ((x.b, x.a), None), lambda _, c: Strict(c[1], c[0]))


class Bag:
    """Its children are no attributes: their names cannot be told."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)


jax.tree_util.register_pytree_node(Bag, lambda x: (tuple(x.items), None), lambda _, c: Bag(*c))


# A1: a child that is an attribute has its name.


@pytest.mark.parametrize("make", [Turned, Slotted, Strict])
def test_a_child_that_is_an_attribute_has_the_attributes_name(make: Any) -> None:
    walked = walk({"node": make(array(1), array(2))})
    held = {name[-1]: value[0] for name, value in walked.leaves()}
    first, second = ("first", "second") if make is Turned else ("a", "b")
    assert held == {first: 1, second: 2}
    assert not walked.made_up
    assert set(walked.keyless) == {("node",)}


def test_attributes_that_hold_one_object_are_told_apart() -> None:
    spec = jax.ShapeDtypeStruct((2,), np.float32)
    made = treeload.load(Turned(spec, spec), {"first": array(1), "second": array(2)})
    assert (made.first[0], made.second[0], made.third) == (1, 2, None)


def test_equal_objects_of_a_class_that_cannot_be_made_of_marks_have_no_name() -> None:
    spec = jax.ShapeDtypeStruct((2,), np.float32)
    walked = walk(Strict(spec, spec))
    assert walked.names == [("0",), ("1",)] and walked.made_up == {("0",), ("1",)}


def test_a_made_up_name_is_remembered_as_one() -> None:
    walked = walk({"bag": Bag(array(), {"w": array()}), "w": array()})
    assert walked.names == [("bag", "0"), ("bag", "1", "w"), ("w",)]
    assert walked.made_up == {("bag", "0"), ("bag", "1")}
    assert [walked.is_made_up(name) for name in walked.names] == [True, True, False]
    assert walked.keyless == {("bag",): (("0",), ("1",))}
    assert not walk([array(), (array(),)]).made_up  # a list's numbers are its names


def test_a_partial_names_its_arguments() -> None:
    partial = jax.tree_util.Partial(len, array(), scale=array())
    assert treeload.names(partial) == ("args/0", "keywords/scale")


class Normed(eqx.Module):
    one: eqx.nn.BatchNorm
    two: eqx.nn.BatchNorm
    layers: list[Any]

    def __init__(self) -> None:
        self.one, self.two = (eqx.nn.BatchNorm(3, "x", mode="batch") for _ in range(2))
        self.layers = [eqx.nn.StateIndex(jnp.zeros(2))]


class Swapped(eqx.Module):
    layers: list[Any]
    two: eqx.nn.BatchNorm
    one: eqx.nn.BatchNorm

    def __init__(self) -> None:
        self.one, self.two = (eqx.nn.BatchNorm(3, "x", mode="batch") for _ in range(2))
        self.layers = [eqx.nn.StateIndex(jnp.zeros(2))]


def filled(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    filled_ = [jnp.full_like(x, i) if eqx.is_array(x) else x for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, filled_)


def by_name(tree: Any) -> dict[str, Any]:
    return {"/".join(name): np.asarray(value).tolist() for name, value in walk(tree).leaves()}


@pytest.mark.parametrize("stored", [False, True])
def test_an_equinox_state_has_the_paths_of_its_layers(stored: bool, tmp_path: Any) -> None:
    model, state = eqx.nn.make_with_state(Normed)()
    state = filled(state)
    assert {"one/batch_counter", "two/batch_state_index/1", "layers/0"} <= set(treeload.names(state))
    src: Any = (model, state)
    if stored:
        src = tmp_path / "ckpt"
        treeload.save(src, (model, state))
    _, other = made = treeload.load(eqx.nn.make_with_state(Swapped)(), src)
    assert by_name(other) == by_name(state)
    assert structure_of(made) == structure_of(eqx.nn.make_with_state(Swapped)())


def test_a_path_that_cannot_be_read_is_one_name() -> None:
    state = eqx.nn.make_with_state(lambda: {"a.b['x]": eqx.nn.StateIndex(jnp.zeros(2))})()[1]
    ((name, _),) = walk(state).leaves()
    assert len(name) == 1 and "a.b['x]" in name[0]
    state = eqx.nn.make_with_state(lambda: {"a.b/c": eqx.nn.StateIndex(jnp.zeros(2))})()[1]
    assert walk(state).names == [("a.b/c",)]


def test_a_mask_knows_the_same_names() -> None:
    dst = {"node": Turned(array(), array()), "flat": {("x", "y"): array()}, "bag": Bag(array())}
    src = {"node": {"first": array(1)}, "flat": {"x": {"y": array(1)}}}
    mask = treeload.plan(dst, src, policy=treeload.Policy(missing="keep")).mask()
    assert (mask["node"].first, mask["node"].second) == (True, False)
    assert mask["flat"] == {("x", "y"): True} and mask["bag"].items == [False]


# A12: keys that are tuples, and FlatState.


def test_a_key_that_is_a_tuple_is_a_path() -> None:
    nested = {"enc": {"0": {"w": array(1)}, "1": {"w": array(2)}}, "head": array(3)}
    flat = flax.traverse_util.flatten_dict(nested)
    assert set(treeload.names(flat)) == set(treeload.names(nested))
    made = treeload.load(flat, nested)
    assert {key: value[0] for key, value in made.items()} == {
        ("enc", "0", "w"): 1, ("enc", "1", "w"): 2, ("head",): 3,
    }  # fmt: skip
    assert treeload.load(nested, flat)["enc"]["1"]["w"][0] == 2
    assert treeload.state(flat).keys() == {"enc", "head"}


def test_a_number_in_a_path_is_its_text() -> None:
    assert treeload.names({("layers", 0): array(), ("layers", 10): array()}) == ("layers/0", "layers/10")
    assert treeload.names({(): array(), (1.5, "a"): array()}) == ("()", "(1.5, 'a')")


def test_a_flat_state_has_its_paths() -> None:
    state = nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    flat = nnx.to_flat_state(state)
    assert treeload.names(flat) == treeload.names(state)
    made = treeload.load(flat, {"bias": array(1), "kernel": np.ones((2, 2), np.float32)})
    assert type(made) is type(flat) and dict(made)["bias",][...].tolist() == [1, 1]


@pytest.mark.parametrize(
    "tree",
    [
        {("a", "b"): array(), "a": {"b": array()}},
        {("a", "b"): array(), "a": array()},
        {("a", "1"): array(), ("a", 1): array()},
        {"x": {("a", "b", "c"): array(), ("a", "b"): array()}},
        {("a",): array(), "a": array()},
    ],
)
def test_paths_that_meet_collide(tree: Any) -> None:
    for act in (treeload.names, treeload.state, lambda t: treeload.plan({"w": array()}, t)):
        with pytest.raises(NameCollision):
            act(tree)


keys = st.text("ab", min_size=1, max_size=2)


@given(st.recursive(st.builds(array), lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=3)))
def test_flattened_and_nested_dicts_have_one_set_of_names(tree: Any) -> None:
    if isinstance(tree, dict):
        flat = flax.traverse_util.flatten_dict(tree)
        assert sorted(treeload.names(flat)) == sorted(treeload.names(tree))
        assert treeload.plan(tree, flat).ok and treeload.plan(flat, tree).ok


# A13: JAX's registry is asked first.


class Own(NamedTuple):
    values: Any
    step: Any


jax.tree_util.register_pytree_node(Own, lambda x: ((x.values,), x.step), lambda step, c: Own(c[0], step))


def test_a_named_tuple_that_is_registered_its_own_way_is_opened_so() -> None:
    made = treeload.load({"o": Own(array(), 3)}, {"o": Own(array(1), 7)})
    assert treeload.names(Own(array(), 3)) == ("values",)
    assert made["o"].values[0] == 1 and made["o"].step == 3 and type(made["o"]) is Own
