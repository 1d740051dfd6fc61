"""Any pytree as named leaves, and back with other values in it."""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any, NamedTuple

import flax.core
import flax.linen as nn
import flax.struct
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import meta
from flax.training.train_state import TrainState
from hypothesis import assume, given
from pytrees import structure_of

import treeload
from treeload import NameCollision
from treeload._leaves.spec import SlotKind
from treeload._trees.rebuild import rebuild
from treeload._trees.tree import nested
from treeload._trees.walk import walk

Pair = namedtuple("Pair", ["second", "first"])


class Stats(NamedTuple):
    mean: Any
    count: Any = None


@functools.partial(jax.tree_util.register_dataclass, data_fields=["w", "b"], meta_fields=["name"])
@dataclasses.dataclass
class Layer:
    w: Any
    b: Any
    name: str = "layer"


@flax.struct.dataclass
class Struct:
    w: Any
    b: Any
    act: Any = flax.struct.field(pytree_node=False, default=len)


class Keyless:
    """A node whose type was registered without keys."""

    def __init__(self, *children: Any) -> None:
        self.children = children


jax.tree_util.register_pytree_node(Keyless, lambda node: (node.children, None), lambda _, c: Keyless(*c))


def array(fill: float = 0.0) -> np.ndarray[Any, Any]:
    return np.full(2, fill, np.float32)


def adam() -> Any:
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(optax.constant_schedule(0.1)))
    return optimizer.init({"w": jnp.zeros(2), "b": jnp.zeros(1)})


def train_state() -> TrainState:
    return TrainState.create(apply_fn=len, params={"w": jnp.zeros(2)}, tx=optax.sgd(0.1, momentum=0.9))


# Every kind of tree that section 4 of the design names, and the names of its leaves.
KINDS: dict[str, tuple[Any, list[str]]] = {
    "array": (lambda: array(), [""]),
    "dict": (lambda: {"b": array(), "a": {"c": array()}}, ["a/c", "b"]),
    "dict of numbers": (lambda: {10: array(), 9: array()}, ["9", "10"]),
    "OrderedDict": (lambda: OrderedDict(b=array(), a=array()), ["b", "a"]),
    "defaultdict": (lambda: defaultdict[str, Any](list, b=array(), a=array()), ["a", "b"]),
    "list": (lambda: [array() for _ in range(11)], [*map(str, range(11))]),
    "tuple": (lambda: (array(), (array(),)), ["0", "1/0"]),
    "namedtuple": (lambda: Pair(array(), array()), ["second", "first"]),
    "typed namedtuple": (lambda: Stats(array()), ["mean"]),
    "dataclass": (lambda: Layer(array(), array()), ["w", "b"]),
    "flax.struct": (lambda: Struct(array(), {"x": array()}), ["w", "b/x"]),
    "FrozenDict": (lambda: flax.core.freeze({"b": array(), "a": {"c": array()}}), ["a/c", "b"]),
    "without keys": (lambda: Keyless(array(), {"x": array()}), ["0", "1/x"]),
    "Partitioned": (lambda: {"w": nn.Partitioned(array(), ("x",))}, ["w"]),
    "LogicallyPartitioned": (lambda: {"w": nn.LogicallyPartitioned(array(), ("x",))}, ["w"]),
    "box in a box": (lambda: {"w": nn.Partitioned(meta.Partitioned(array(), ("x",)), ("x",))}, ["w"]),
    "optax": (adam, ["1/0/count", "1/0/mu/b", "1/0/mu/w", "1/0/nu/b", "1/0/nu/w", "1/2/count"]),
    "TrainState": (train_state, ["step", "params/w", "opt_state/0/trace/w"]),
    "nnx.State": (lambda: nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0))), ["bias", "kernel"]),
    "Variable": (lambda: nnx.Param(jnp.zeros(2)), [""]),
    "Variable of a tree": (
        lambda: {"v": nnx.Variable({"b": jnp.zeros(2), "a": jnp.zeros(1)})},
        ["v/a", "v/b"],
    ),
    "sequence in a dict": (
        lambda: {"layers": [{"w": array()}, {"w": array()}]},
        ["layers/0/w", "layers/1/w"],
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def leaves_of(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree)


@kinds
def test_names_are_as_expected(kind: str) -> None:
    make, names = KINDS[kind]
    assert list(treeload.names(make())) == names


@kinds
def test_the_order_is_that_of_jax(kind: str) -> None:
    tree = KINDS[kind][0]()
    values = [value for _, value in walk(tree).leaves()]
    theirs = leaves_of(tree)
    assert len(values) == len(theirs)
    assert all(ours is one for ours, one in zip(values, theirs, strict=True))


@kinds
def test_a_tree_is_rebuilt_with_types_and_structure(kind: str) -> None:
    tree = KINDS[kind][0]()
    walked = walk(tree)
    made = rebuild(walked, walked.values)
    assert type(made) is type(tree)
    assert structure_of(made) == structure_of(tree)
    assert all(a is b for a, b in zip(leaves_of(made), leaves_of(tree), strict=True))


@kinds
def test_a_load_gives_the_values_and_leaves_the_destination_alone(kind: str) -> None:
    make = KINDS[kind][0]
    dst, before = make(), make()
    count = iter(range(1, 100))
    src = jax.tree.map(lambda leaf: leaf + next(count), dst)
    made = treeload.load(dst, src)
    assert structure_of(made) == structure_of(dst)
    for got, theirs in zip(leaves_of(made), leaves_of(src), strict=True):
        assert type(got) is type(theirs)
        np.testing.assert_array_equal(got, theirs)
    for now, then in zip(leaves_of(dst), leaves_of(before), strict=True):
        np.testing.assert_array_equal(now, then)
    assert made is not dst or kind == "array"


@kinds
def test_what_orbax_would_make_of_it_loads_into_it(kind: str) -> None:
    """Nested dicts with numbered keys, as a restore without a target gives them."""
    make, names = KINDS[kind]
    plain = nested(dict(walk(make()).leaves()))
    assert treeload.plan(make(), plain).ok
    assert treeload.plan(plain, make()).ok
    assert list(treeload.names(treeload.state(make()))) == sorted(names, key=plain_order)


def plain_order(name: str) -> list[str]:
    return name.split("/")


def test_a_defaultdict_keeps_its_factory_and_a_dict_its_order() -> None:
    made = treeload.load(defaultdict(list, w=array()), {"w": array(1)})
    assert made["other"] == []
    assert list(treeload.load({"b": array(), "a": array()}, {"a": array(1), "b": array(2)})) == ["b", "a"]


def test_statics_are_the_destinations_own() -> None:
    dst = {
        "act": jax.nn.relu,
        "layer": Layer(array(), array(), name="mine"),
        "text": "x",
        "struct": Struct(array(), 1.0),
    }
    src = {
        "act": jax.nn.gelu,
        "layer": Layer(array(1), array(1), name="theirs"),
        "text": "y",
        "struct": Struct(array(2), 2.0),
    }
    made = treeload.load(dst, src)
    assert made["act"] is jax.nn.relu and made["text"] == "x" and made["layer"].name == "mine"
    assert made["struct"].b == 2.0 and made["struct"].act is len


@pytest.mark.parametrize(
    "empty", [{}, (), [], None, optax.EmptyState(), optax.MaskedNode(), flax.core.freeze({})]
)
@pytest.mark.parametrize("other", [{}, (), None, optax.EmptyState(), "no key"])
def test_empty_nodes_hold_nothing_and_equal_each_other(empty: Any, other: Any) -> None:
    dst = {"w": array(), "x": empty}
    src = {"w": array(1)} if isinstance(other, str) else {"w": array(1), "x": other}
    assert treeload.names(dst) == ("w",)
    made = treeload.load(dst, src)
    assert type(made["x"]) is type(empty)
    assert treeload.state(made).keys() == {"w"}


def test_slots_are_of_four_kinds() -> None:
    tree = {
        "a": jnp.ones(1),
        "b": 1.5,
        "c": True,
        "d": False,
        "e": None,
        "f": len,
        "g": np.array(["x"]),
        "h": np.float16(1),
    }
    walked = walk(tree)
    kinds_found = dict(zip((name[0] for name in walked.names), walked.kinds, strict=True))
    array_, scalar, absent, static = SlotKind
    assert kinds_found == {
        "a": array_, "b": scalar, "c": scalar, "d": absent, "e": absent, "f": static, "g": static,
        "h": array_,
    }  # fmt: skip


# Names that print alike.


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({1: array(), "1": array()}, "the keys 1, '1' at the root"),
        ({"x": {0: array(), "0": None}}, "the keys 0, '0' at x have one name, 'x/0'"),
        ({True: array(), "True": array()}, "the keys True, 'True' at the root"),
        ({None: array(), "None": array()}, "the keys None, 'None' at the root"),
    ],
)
def test_two_keys_that_print_alike_collide(tree: Any, said: str) -> None:
    for act in (
        treeload.names,
        treeload.state,
        lambda t: treeload.plan(t, {}),
        lambda t: treeload.plan({}, t),
    ):
        with pytest.raises(NameCollision, match=said):
            act(tree)


def test_keys_of_mixed_types_are_names_where_they_differ() -> None:
    tree = {1: array(), "b": array(), None: array()}
    assert sorted(treeload.names(tree)) == ["1", "None", "b"]
    made = treeload.load(tree, tree)
    assert list(made) == [1, "b", None]


@pytest.mark.parametrize("key", ["a/b", "", "a\\", ".", "a.b", "é", "\n", "*", "{i}"])
def test_a_key_is_never_split(key: str) -> None:
    tree = {key: {"w": array()}, "other": array()}
    assert treeload.Name((key, "w")) in {treeload.Name.parse(name) for name in treeload.names(tree)}
    np.testing.assert_array_equal(
        treeload.load(tree, {key: {"w": array(3)}, "other": array()})[key]["w"], array(3)
    )


# Ties.


def test_one_array_object_in_two_places_is_one_leaf() -> None:
    shared = jnp.zeros(2)
    dst = {"a": shared, "b": [shared, jnp.ones(1)], "c": shared}
    assert treeload.names(dst) == ("a", "b/1")
    assert walk(dst).aliases == {("a",): [("b", "0"), ("c",)]}
    made = treeload.load(dst, {"b": [np.full(2, 5.0, np.float32), np.zeros(1, np.float32)]})
    assert made["a"] is made["b"][0] is made["c"]
    np.testing.assert_array_equal(made["a"], [5, 5])


def test_numpy_arrays_tie_and_stay_one_copy() -> None:
    shared = array()
    made = treeload.load({"a": shared, "b": shared}, {"a": array(4)})
    assert made["a"] is made["b"] is not shared


def test_scalars_never_tie() -> None:
    one = np.float32(1)
    assert treeload.names({"a": one, "b": one, "c": 1000, "d": 1000, "e": 1.5, "f": 1.5}) == (*"abcdef",)


def test_specs_and_views_are_no_ties() -> None:
    spec, whole = jax.ShapeDtypeStruct((2,), np.float32), array()
    assert treeload.names({"a": spec, "b": spec, "c": whole, "d": whole[:]}) == (*"abcd",)


def test_a_source_that_holds_an_array_twice_feeds_two_leaves() -> None:
    shared = jnp.ones(2)
    made = treeload.load({"a": array(), "b": array()}, {"a": shared, "b": shared})
    assert made["a"] is not made["b"] and not np.shares_memory(made["a"], made["b"])


def test_state_lists_a_tie_once() -> None:
    shared = jnp.zeros(2)
    assert set(treeload.state({"a": shared, "b": shared})) == {"a"}


# Laws.

leaves = st.sampled_from([1.5, 2, True, None, False, len]) | st.builds(array)
trees = st.recursive(
    leaves,
    lambda children: (
        st.dictionaries(st.text("ab/0", max_size=2), children, max_size=3)
        | st.lists(children, max_size=3)
        | st.lists(children, max_size=3).map(tuple)
        | st.builds(Stats, children, children)
        | st.dictionaries(st.text("ab", min_size=1), children, max_size=2).map(flax.core.freeze)
        | st.builds(Layer, children, children)
        | st.dictionaries(st.text("ab", min_size=1), children, max_size=2).map(OrderedDict)
    ),
    max_leaves=12,
)


def is_a_tree(tree: Any) -> bool:
    """Whether it may be a destination: None, False and a function alone are refused as such."""
    return tree is not None and tree is not False and not callable(tree)


@given(trees)
def test_any_tree_is_rebuilt_as_it_was(tree: Any) -> None:
    walked = walk(tree)
    made = rebuild(walked, walked.values)
    assert structure_of(made) == structure_of(tree)
    assert all(a is b for a, b in zip(leaves_of(made), leaves_of(tree), strict=True))


@given(trees)
def test_slots_are_jax_leaves_and_absences(tree: Any) -> None:
    ours = [id(value) for value in walk(tree).values if value is not None]
    assert ours == list(map(id, leaves_of(tree)))


@given(trees)
def test_every_tree_loads_from_itself_and_from_its_state(tree: Any) -> None:
    assume(is_a_tree(tree))
    for src in (tree, treeload.state(tree)):
        plan = treeload.plan(tree, src)
        assert plan.errors == ()
        assert tuple(str(entry.name) for entry in plan.entries) == treeload.names(tree)
        made = plan.load()
        assert structure_of(made) == structure_of(tree)
        for got, given_ in zip(leaves_of(made), leaves_of(tree), strict=True):
            assert type(got) is type(given_)
            assert got is given_ if callable(given_) else np.array_equal(got, given_)


@given(trees)
def test_no_array_of_a_result_is_one_of_the_source_or_the_destination(tree: Any) -> None:
    assume(is_a_tree(tree))
    made = treeload.load(tree, tree)
    given_ = {id(leaf) for leaf in leaves_of(tree) if isinstance(leaf, np.ndarray)}
    assert not given_ & {id(leaf) for leaf in leaves_of(made)}


def test_planning_holds_no_opinion_about_classes_it_does_not_know() -> None:
    class Config:
        pass

    config = Config()
    made = treeload.load({"w": array(), "config": config}, {"w": array(1), "config": Config()})
    assert made["config"] is config
