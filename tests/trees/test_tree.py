"""A walked tree, as data."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from treeload._trees.tree import Tree, nested, printed_names
from treeload._trees.walk import walk

SHARED = np.zeros(2)
DICTS = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(st.text("ab/", max_size=2), inner, min_size=1, max_size=3),
    max_leaves=10,
)


@given(DICTS)
def test_the_nested_dict_of_a_dicts_leaves_is_the_dict(tree: Any) -> None:
    assert nested(dict(walk(tree).leaves())) == tree


def test_nothing_nested_is_an_empty_dict_and_the_root_is_the_whole() -> None:
    assert nested({}) == {}
    assert nested({(): 3}) == 3


def test_leaves_are_arrays_and_numbers_and_slots_are_all() -> None:
    walked = walk({"a": jnp.zeros(1), "n": 3, "none": None, "off": False, "on": True, "s": len})
    assert [name for name, _ in walked.leaves()] == [("a",), ("n",), ("on",)]
    assert len(list(walked.slots())) == 6
    assert printed_names(walked) == ("a", "n", "on")


def test_flags_that_are_off_are_told_from_what_is_none() -> None:
    assert list(walk({"none": None, "off": False, "on": True}).flags_off()) == [("off",)]


def test_a_tied_leaf_is_there_under_each_of_its_names() -> None:
    walked = walk({"a": SHARED, "b": {"c": SHARED}, "d": 1})
    assert walked.names_of(("a",)) == (("a",), ("b", "c"))
    assert walked.names_of(("d",)) == (("d",),)
    assert list(walked.by_name()) == [("a",), ("b", "c"), ("d",)]
    assert walked.by_name()[("b", "c")] is SHARED


def test_a_name_is_made_up_where_one_of_its_prefixes_or_it_itself_is() -> None:
    tree = Tree(None, made_up={("a", "0")})
    assert tree.is_made_up(("a", "0")) and tree.is_made_up(("a", "0", "w"))
    assert not tree.is_made_up(("a",)) and not tree.is_made_up(("a", "1")) and not tree.is_made_up(())
    assert not Tree(None).is_made_up(("a", "0"))


def test_names_print_with_their_escapes() -> None:
    assert printed_names(walk({"a/b": 1, "": 2})) == ("\\e", "a\\/b")
