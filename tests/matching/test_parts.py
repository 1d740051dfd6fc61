"""What users give as sources becomes opened parts, and under which name a part looks at a leaf."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treeload
from treeload import From, Rename, RuleError, Source, SourceError
from treeload._leaves.spec import Spec, spec_of
from treeload._matching.parts import OpenedPart, opened_parts, opened_source
from treeload._naming.name import Name
from treeload._sources.memory import MemorySource
from treeload._sources.separated import SeparatedSource

ONE = np.ones(2, np.float32)
names = st.lists(st.sampled_from("ab"), max_size=4).map(tuple)
Pair = namedtuple("Pair", "one two")


class Held(Source):
    label = "a held source"

    def __init__(self, *, positional: bool = False) -> None:
        self.positional = positional

    def specs(self) -> Mapping[Name, Spec]:
        return {Name(("a.b",)): spec_of(ONE)}

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        raise AssertionError("an array was read")


def sizes(src: Any) -> list[tuple[str, bool]]:
    return [(type(part.source).__name__, part.explicit) for part in opened_parts(src, "plan")]


# Which name a leaf has within its part.


@given(names, names)
def test_a_leaf_below_the_subtree_loses_it_and_any_other_has_no_name(subtree: Any, own: Any) -> None:
    within = OpenedPart(Held(), subtree=subtree).name_within(own)
    assert within == (own[len(subtree) :] if own[: len(subtree)] == subtree else None)


@given(names, names)
def test_what_is_called_otherwise_goes_by_that_name(own: Any, other: Any) -> None:
    assert OpenedPart(Held(), called={own: other}).name_within(own) == other
    assert OpenedPart(Held(), called={}).name_within(own) == own


@given(names, names)
def test_by_position_only_what_was_given_a_place_has_a_name(own: Any, other: Any) -> None:
    assert OpenedPart(Held(), by_position=True).name_within(own) is None
    assert OpenedPart(Held(), by_position=True, called={}).name_within(own) is None
    assert OpenedPart(Held(), by_position=True, called={own: other}).name_within(own) == other


def test_what_is_called_otherwise_outside_the_subtree_is_outside_all_the_same() -> None:
    assert OpenedPart(Held(), subtree=("s",), called={("t",): ("x",)}).name_within(("t",)) is None


@pytest.mark.parametrize(
    "how", [{"subtree": "a"}, {"into": "a"}, {"rules": Rename("a", "b")}, {"by_position": True}]
)
def test_a_from_that_changes_anything_does_not_keep_names(how: dict[str, Any]) -> None:
    (part,) = opened_parts(From({"a": ONE}, **how), "plan")
    assert not part.keeps_names


def test_a_plain_from_keeps_names_until_a_leaf_is_called_otherwise() -> None:
    assert opened_parts(From({"a": ONE}), "plan")[0].keeps_names and OpenedPart(Held(), called={}).keeps_names
    assert not OpenedPart(Held(), called={("a",): ("b",)}).keeps_names


# What users give.


def test_a_from_becomes_a_part_with_all_that_it_says() -> None:
    (part,) = opened_parts(From({"x": ONE}, subtree="x", into="n/m", rules=Rename("a", "b")), "plan")
    assert (part.subtree, part.into, part.rules) == (("x",), ("n", "m"), (Rename("a", "b"),))
    assert part.explicit and not part.by_position and part.called is None and not part.numbered


@pytest.mark.parametrize(
    ("src", "found"),
    [
        ({"a": ONE}, [("MemorySource", False)]),
        ([ONE, ONE], [("MemorySource", False)]),
        ([], [("MemorySource", False)]),
        ((), [("MemorySource", False)]),
        (Held(), [("Held", False)]),
        (From(Held()), [("Held", True)]),
        ([Held(), {"a": ONE}], [("Held", True), ("MemorySource", True)]),
        ((From({"a": ONE}), Held()), [("MemorySource", True), ("Held", True)]),
    ],
)
def test_one_source_is_one_part_and_several_are_as_many(src: Any, found: Any) -> None:
    assert sizes(src) == found


def test_a_named_tuple_of_trees_is_one_tree() -> None:
    assert sizes(Pair(ONE, ONE)) == [("MemorySource", False)]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str], Path]:
    def save(name: str) -> Path:
        treeload.save(tmp_path / name, {"a": ONE})
        return tmp_path / name

    return save


def test_paths_are_opened_each_as_its_own_source(saved: Callable[[str], Path]) -> None:
    one, two = saved("one"), saved("two")
    assert len(opened_parts([str(one), two], "plan")) == 2 and len(opened_parts(one, "plan")) == 1
    assert all(part.explicit for part in opened_parts((one, two), "plan"))


def test_a_list_of_a_path_and_an_array_is_a_tree_with_a_static_in_it() -> None:
    (part,) = opened_parts(["not/a/path", ONE], "plan")
    assert list(part.source.specs()) == [("1",)] and part.source.statics() == {("0",)}


def test_a_path_where_nothing_lies_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        opened_parts(tmp_path / "nowhere", "plan")


def test_arrays_without_names_are_asked_for_by_position() -> None:
    with pytest.raises(RuleError, match="a held source holds arrays without names: From.*by_position=True"):
        opened_parts(Held(positional=True), "plan")
    (part,) = opened_parts(From(Held(positional=True), by_position=True), "plan")
    assert part.by_position


# One source.


def test_a_source_is_itself_and_splits_at_a_separator() -> None:
    held = Held()
    assert opened_source(held, "plan") is held
    split = opened_source(held, "plan", separator=".")
    assert isinstance(split, SeparatedSource) and list(split.specs()) == [("a", "b")]


def test_a_tree_splits_at_a_separator_too() -> None:
    found = opened_source({"a.b": ONE}, "plan", separator=".")
    assert isinstance(found, MemorySource) and list(found.specs()) == [("a", "b")]


def test_an_item_is_for_a_path_alone() -> None:
    for src in (Held(), {"a": ONE}):
        with pytest.raises(RuleError, match="item='params'"):
            opened_source(src, "plan", item="params")


def test_what_is_no_source_is_said_with_the_verb() -> None:
    with pytest.raises(TypeError, match="compare's source is None"):
        opened_source(None, "compare")
