"""How each type of node opens, and what its children are called."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from treeload._errors import NameCollision
from treeload._trees.nodes import (
    BOX,
    DICT,
    GRAPH,
    NAMEDTUPLE,
    OTHER,
    REF,
    SCALAR,
    SEQUENCE,
    SHARED_ARRAY,
    UNKNOWN,
    VARIABLE,
    graph_children,
    how_walked,
    is_optional,
    is_pytree_object,
    key_segments,
    only_strings,
    open_one_level,
    refuse_two_of_one_name,
    segments,
    sorted_keys,
    variable_value,
)


class Point(NamedTuple):
    x: Any
    y: Any


class Net(nnx.Module):
    def __init__(self) -> None:
        self.b = nnx.Param(jnp.zeros(1))
        self.a = nnx.Param(jnp.ones(1))
        self.size = 3


class Plain(nnx.Pytree, pytree=False):
    def __init__(self) -> None:
        self.a = jnp.zeros(1)


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (dict, DICT), (list, SEQUENCE), (lambda: (), SEQUENCE), (lambda: Point(1, 2), NAMEDTUPLE),
        (lambda: OrderedDict(), OTHER), (lambda: flax.core.freeze({}), OTHER), (lambda: Net(), GRAPH),
        (lambda: nnx.Param(jnp.zeros(1)), VARIABLE), (lambda: jax.new_ref(jnp.zeros(1)), REF),
        (lambda: flax.core.meta.Partitioned(jnp.zeros(1), ("x",)), BOX),
        (lambda: np.zeros(1), SHARED_ARRAY), (lambda: jnp.zeros(1), SHARED_ARRAY), (lambda: 1.5, SCALAR),
    ],
)  # fmt: skip
def test_a_type_is_walked_one_way_and_again_the_same(make: Any, how: int) -> None:
    assert how_walked(make()) == how == how_walked(make())


# --- keys -------------------------------------------------------------------------------------------

KEYS = st.text(max_size=3) | st.integers(-3, 3) | st.tuples(st.text(max_size=2), st.integers(0, 3))


@given(st.dictionaries(st.text(max_size=3) | st.integers(), st.none(), max_size=6))
def test_the_keys_of_a_dict_have_one_order_whatever_the_order_of_the_dict(node: dict[Any, None]) -> None:
    assert sorted_keys(node) == sorted_keys(dict(reversed(node.items())))
    assert set(sorted_keys(node)) == set(node)


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=6))
def test_the_order_of_keys_is_that_of_jax(node: dict[str, int]) -> None:
    assert [node[key] for key in sorted_keys(node)] == jax.tree.leaves(node)
    assert only_strings(node)


@given(st.lists(KEYS, unique=True, max_size=5))
def test_two_keys_collide_exactly_where_they_have_one_name(keys: list[Any]) -> None:
    names = [segments(key) for key in keys]
    if len(set(names)) == len(names):
        refuse_two_of_one_name(keys, ("at",))
    else:
        with pytest.raises(NameCollision, match="at at have one name"):
            refuse_two_of_one_name(keys, ("at",))


def test_a_collision_names_both_keys_and_what_they_are_called() -> None:
    with pytest.raises(NameCollision, match=r"^the keys 1, '1' at the root have one name, '1'$"):
        refuse_two_of_one_name(["x", 1, "1"], ())
    with pytest.raises(
        NameCollision, match=r"^the keys \('a', 1\), \('a', '1'\) at n have one name, 'n/a/1'$"
    ):
        refuse_two_of_one_name([("a", 1), ("a", "1")], ("n",))


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("a/b", ("a/b",)), (3, ("3",)), (("a", 3), ("a", "3")), ((), ("()",)), (None, ("None",)),
        (("a", 1.5), ("('a', 1.5)",)), (("a", True), ("('a', True)",)), (True, ("True",)),
    ],
)  # fmt: skip
def test_a_key_is_its_text_and_a_path_each_of_its_parts(key: Any, keys: tuple[str, ...]) -> None:
    assert segments(key) == keys


def test_each_of_jaxs_keys_is_a_name() -> None:
    keys: list[Any] = [
        jax.tree_util.DictKey("a"), jax.tree_util.SequenceKey(3), jax.tree_util.GetAttrKey("b"),
        jax.tree_util.FlattenedIndexKey(4), jax.tree_util.DictKey(("c", 1)),
    ]  # fmt: skip
    assert list(map(key_segments, keys)) == [("a",), ("3",), ("b",), ("4",), ("c", "1")]
    assert key_segments("a key of somebody's own") == ("a key of somebody's own",)


def test_not_every_key_is_a_name_as_it_stands() -> None:
    assert only_strings({}) and only_strings({"a": 1})
    assert not only_strings({"a": 1, 2: 3}) and not only_strings({("a",): 1})


# --- opening ----------------------------------------------------------------------------------------


def test_a_node_is_opened_one_level_and_no_further() -> None:
    inner = {"deep": 1}
    children = open_one_level(OrderedDict(b=inner, a=2), ())
    assert [(child.keys, child.node) for child in children] == [(("b",), inner), (("a",), 2)]
    assert children[0].node is inner and not any(child.keyless or child.made_up for child in children)


def test_none_is_opened_and_is_empty_and_a_leaf_is_not_opened_at_all() -> None:
    assert open_one_level(None, ()) == [] and open_one_level(None, ()) is not UNKNOWN
    assert open_one_level(3, ()) is UNKNOWN and open_one_level(object(), ()) is UNKNOWN


def test_the_children_of_a_module_are_its_data_by_name() -> None:
    assert [key for key, _ in graph_children(Net())] == ["a", "b"]


def test_the_elements_of_a_list_come_by_number() -> None:
    children = graph_children(nnx.List([nnx.Param(jnp.full(1, n)) for n in range(12)]))
    assert [key for key, _ in children] == [str(n) for n in range(12)]


def test_an_object_that_is_no_pytree_is_data_altogether() -> None:
    assert is_pytree_object(Net()) and not is_pytree_object(Plain())
    assert [key for key, _ in graph_children(Plain())] == ["a"]


def test_a_spec_in_a_module_is_data() -> None:
    net: Any = nnx.eval_shape(Net)
    net.extra = jax.ShapeDtypeStruct((2,), np.float32)
    assert "extra" in dict(graph_children(net))


def test_what_a_variable_holds_is_read_without_its_hooks() -> None:
    class Loud(nnx.Param[Any]):
        def get_value(self, **options: Any) -> Any:
            raise AssertionError("the hook was run")

    value = jnp.zeros(2)
    assert variable_value(Loud(value)) is value
    ref = nnx.Param(jnp.ones(2), ref=True)
    assert variable_value(ref).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("cls", "optional"),
    [
        (nnx.Param, False),
        (nnx.BatchStat, False),
        (nnx.Cache, True),
        (nnx.RngKey, True),
        (nnx.Intermediate, True),
    ],
)
def test_a_checkpoint_may_lack_what_is_made_anew(cls: type, optional: bool) -> None:
    assert is_optional(cls) is optional
