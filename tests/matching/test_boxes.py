"""Which segments of stored names were made by a box, and which were meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Rename, Source, SourceError
from treeload._matching.boxes import open_boxes, without_boxes
from treeload._matching.parts import OpenedPart
from treeload._naming.name import Keys, Name, prefixes_of
from treeload._sources.memory import MemorySource

ONE = np.ones(2, np.float32)


def leaves_of_a_tree(names: set[Keys]) -> set[Keys]:
    """Those names that are no node above another."""
    nodes = {node for name in names for node in prefixes_of(name)}
    return names - nodes


plain = st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple), max_size=6).map(
    leaves_of_a_tree
)
mixed = st.sets(
    st.lists(st.sampled_from(["a", "b", "value", "raw_value"]), min_size=1, max_size=4).map(tuple), max_size=6
).map(leaves_of_a_tree)


def names(*printed: str) -> list[Keys]:
    return [tuple(Name.parse(one)) for one in printed]


def opened(*printed: str, wanted: tuple[str, ...] = (), nodes: tuple[str, ...] = ()) -> dict[str, str]:
    found = without_boxes(names(*printed), set(names(*wanted)), set(names(*nodes)))
    return {str(Name(name)): str(Name(without)) for name, without in found.items()}


# Laws.


@given(plain, st.sampled_from(["value", "raw_value"]))
def test_what_boxes_put_around_every_leaf_is_taken_off_again(tree: set[Keys], box: str) -> None:
    assert without_boxes({(*name, box) for name in tree}) == {(*name, box): name for name in tree}


@given(plain, plain)
def test_a_tree_without_boxes_keeps_every_name(tree: set[Keys], wanted: set[Keys]) -> None:
    assert without_boxes(tree, wanted) == {}


@given(mixed, mixed)
def test_a_name_that_is_wanted_is_left_as_it_is(tree: set[Keys], wanted: set[Keys]) -> None:
    assert not without_boxes(tree, wanted).keys() & wanted


@given(mixed, mixed)
def test_only_segments_of_boxes_are_left_out(tree: set[Keys], wanted: set[Keys]) -> None:
    for name, without in without_boxes(tree, wanted).items():
        left = list(name)
        for key in without:
            left.remove(key)
        assert left and set(left) <= {"value", "raw_value"}


@given(mixed, mixed)
def test_what_comes_out_is_a_tree_of_as_many_leaves(tree: set[Keys], wanted: set[Keys]) -> None:
    new = without_boxes(tree, wanted)
    now = [new.get(name, name) for name in tree]
    assert len(set(now)) == len(tree) and leaves_of_a_tree(set(now)) == set(now)


@given(st.data(), mixed, mixed)
def test_the_order_of_the_names_does_not_matter(data: Any, tree: set[Keys], wanted: set[Keys]) -> None:
    some, others = data.draw(st.permutations(sorted(tree))), data.draw(st.permutations(sorted(tree)))
    assert without_boxes(some, wanted) == without_boxes(others, wanted)


# Which segments are boxes.


def test_an_empty_source_has_no_boxes() -> None:
    assert opened() == {}


def test_a_box_is_opened_where_the_name_without_it_is_wanted() -> None:
    assert opened("a/value", "b", wanted=("a",)) == {"a/value": "a"}


def test_a_lone_boxed_leaf_beside_others_is_opened_only_where_it_is_wanted() -> None:
    assert opened("a/value", "b") == {}


def test_a_lone_boxed_leaf_that_is_the_whole_source_is_opened() -> None:
    assert opened("a/value") == {"a/value": "a"}


def test_two_boxed_leaves_are_a_subtree_of_boxes() -> None:
    assert opened("s/a/value", "s/b/value", "step") == {"s/a/value": "s/a", "s/b/value": "s/b"}


def test_a_leaf_between_the_boxes_shows_that_they_are_none() -> None:
    assert opened("s/a/value", "s/b/value", "s/c") == {}


def test_a_leaf_beside_one_whose_box_is_wanted_open_is_opened_too() -> None:
    assert opened("s/a/value", "s/b/c/value", "t", wanted=("s/a",)) == {
        "s/a/value": "s/a",
        "s/b/c/value": "s/b/c",
    }


def test_a_node_with_another_child_is_no_box() -> None:
    assert opened("attn/value", "attn/query", wanted=("attn",)) == {}


def test_the_root_alone_is_never_the_name_of_a_leaf_that_nobody_wants() -> None:
    assert opened("value") == {}
    assert opened("value", wanted=("",)) == {"value": ""}


def test_a_boxed_tree_inside_a_box_loses_the_box_around_the_leaf_alone() -> None:
    assert opened("attn/value/kernel/value", "attn/value/bias/value") == {
        "attn/value/kernel/value": "attn/value/kernel",
        "attn/value/bias/value": "attn/value/bias",
    }


def test_a_box_with_a_tree_inside_is_opened_where_its_leaves_are_wanted() -> None:
    assert opened("p/value/w", "p/value/b", "step", wanted=("p/w",)) == {
        "p/value/w": "p/w",
        "p/value/b": "p/b",
    }


def test_a_box_in_a_box_is_opened_as_far_as_it_is_wanted_the_innermost_first() -> None:
    assert opened("a/value/value", wanted=("a",)) == {"a/value/value": "a"}
    assert opened("a/value/value", wanted=("a", "a/value")) == {"a/value/value": "a/value"}
    assert opened("a/value/value") == {"a/value/value": "a/value"}
    assert opened("a/raw_value/b/value", wanted=("a/raw_value/b", "a/b")) == {
        "a/raw_value/b/value": "a/raw_value/b"
    }


def test_a_box_never_takes_the_place_of_a_node_of_the_destination() -> None:
    assert opened("gate/value", nodes=("", "gate")) == {}


def test_what_the_destination_has_as_it_stands_is_no_box_even_among_boxes() -> None:
    assert opened("gate/value", "a/value", "b/value", wanted=("gate/value",)) == {
        "a/value": "a",
        "b/value": "b",
    }


def test_a_name_that_would_fall_together_with_another_is_left() -> None:
    assert opened("a/value", "a", wanted=("a",)) == {}  # a leaf above a leaf: stored names may be anything


def test_a_leaf_without_its_box_takes_no_place_above_another_leaf() -> None:
    assert opened("value/value", "value/a/value/b", wanted=("value",)) == {"value/a/value/b": "value/a/b"}


# Of a part.


def part(tree: Any, **how: Any) -> OpenedPart:
    return OpenedPart(MemorySource(tree), **how)


def called(part: OpenedPart) -> dict[str, str]:
    return {str(Name(own)): str(Name(new)) for own, new in (part.called or {}).items()}


def test_a_part_without_boxes_is_itself() -> None:
    given = part({"a": ONE})
    assert open_boxes(given, names("a")) is given


def test_a_part_by_position_is_itself() -> None:
    given = part({"a": {"value": ONE}}, by_position=True)
    assert open_boxes(given) is given


def test_wanted_names_are_looked_at_below_into_and_boxes_below_the_subtree() -> None:
    given = part({"s": {"a": {"value": ONE}, "b": ONE}, "t": ONE}, subtree=("s",), into=("net",))
    assert called(open_boxes(given, names("net/a"))) == {"s/a/value": "a"}
    assert called(open_boxes(given, names("other/a"))) == {}
    assert called(open_boxes(given, names("a"))) == {}


def test_a_box_that_holds_nothing_and_one_that_holds_a_static_are_boxes_too() -> None:
    given = part({"a": {"value": None}, "b": {"value": "relu"}, "c": {"value": ONE}})
    assert called(open_boxes(given)) == {"c/value": "c", "a/value": "a", "b/value": "b"}


def test_a_node_of_the_destination_says_that_a_value_is_a_parameter() -> None:
    assert called(open_boxes(part({"gate": {"value": ONE}}), names("gate/other"))) == {}


@pytest.mark.parametrize("mine", [True, False])
def test_a_rule_that_names_the_boxed_leaf_says_that_it_is_no_box(mine: bool) -> None:
    rules = (Rename("a/value", "x"),)
    given = part({"a": {"value": ONE}, "b": {"value": ONE}}, rules=rules if mine else ())
    assert called(open_boxes(given, rules=() if mine else rules)) == {"b/value": "b"}


def test_a_rule_that_matches_either_name_says_nothing() -> None:
    given = part({"a": {"value": ONE}, "b": {"value": ONE}})
    assert called(open_boxes(given, rules=[Rename("a/**", "x"), Rename("b", "y")])) == {
        "a/value": "a",
        "b/value": "b",
    }


def test_the_rules_of_the_plan_see_the_names_below_into_and_a_parts_own_do_not() -> None:
    tree = {"a": {"value": ONE}}
    rules = [Rename("net/a/value", "x")]
    assert called(open_boxes(part(tree, into=("net",)), rules=rules)) == {}
    own = part(tree, into=("net",), rules=(Rename("a", "x"),))
    assert called(open_boxes(own, rules=rules)) == {"a/value": "a"}


class Silent(Source):
    label = "a silent source"

    def specs(self) -> Mapping[Name, Any]:
        raise OSError("the disk is gone")

    def read(self, requests: Any) -> Any:
        raise AssertionError


def test_a_source_that_does_not_say_what_it_holds_is_a_source_error() -> None:
    with pytest.raises(SourceError, match="a silent source does not say what it holds: OSError: the disk"):
        open_boxes(OpenedPart(Silent()))
