"""Which names are nearly a given one, for any names; examples of findings are in ``test_name``."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._naming.name import print_name
from treeload._naming.near import NearNames, likeness

NAMES = st.lists(st.sampled_from(["head", "heads", "kernel", "bias", "block", "a/b"]), max_size=3).map(tuple)
MANY = [(f"block{n}", "attn", key) for n in range(40) for key in ("query", "value")]


def as_texts(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    return difflib.SequenceMatcher(None, print_name(a), print_name(b), autojunk=False).ratio()


@given(st.lists(NAMES, unique=True, max_size=20), NAMES, st.integers(1, 5))
def test_what_is_near_is_one_of_the_names_and_the_best_come_first(
    names: list[tuple[str, ...]], name: tuple[str, ...], count: int
) -> None:
    found = NearNames(names).near(name, count=count)
    assert len(found) <= count and len(set(found)) == len(found) and set(found) <= set(names)
    ratios = [likeness(name, each) for each in found]
    assert ratios == sorted(ratios, reverse=True)
    assert all(ratio >= 0.6 or each[-1:] == name[-1:] for ratio, each in zip(ratios, found, strict=True))


@given(st.lists(NAMES.filter(bool), unique=True, min_size=1, max_size=20), st.data())
def test_a_name_that_is_there_is_nearest_to_itself(names: list[tuple[str, ...]], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names))
    assert NearNames(names).near(name)[0] == name


def test_names_may_be_given_only_once_as_an_iterator() -> None:
    assert NearNames(iter([("kernel",)])).near(("kernl",)) == [("kernel",)]


def test_among_many_names_only_those_that_share_a_key_are_compared() -> None:
    near = NearNames(MANY)
    assert near.near(("block7", "attn", "qurey"))[0] == ("block7", "attn", "query")
    assert near.near(("blokc7", "atn", "qurey")) == []  # nearly one of them, but it shares no key


def test_a_last_key_that_hardly_another_name_has_is_near_by_itself() -> None:
    names = [*MANY, ("some", "very", "different", "module", "relative_position_bias")]
    name = ("x", "relative_position_bias")
    assert likeness(name, names[-1]) < 0.7
    assert NearNames(names).near(name) == [names[-1]]


def test_a_last_key_that_three_names_have_says_nothing_by_itself() -> None:
    names = [(f"some-quite-different-module-{n}", "w") for n in range(3)]
    assert NearNames(names).near(("x", "w")) == []
    assert NearNames(names[:2]).near(("x", "w")) == names[:2]


def test_the_root_is_near_to_nothing() -> None:
    assert NearNames(MANY).near(()) == []
    assert NearNames([("a",)]).near(()) == []


def test_a_key_twice_in_a_name_counts_once() -> None:
    names = [("a", "a", "a", "kernel"), *MANY]
    assert NearNames(names).near(("a", "a", "kernel"))[0] == names[0]


@given(NAMES, NAMES)
def test_likeness_is_a_share_and_all_of_it_for_one_name_alone(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    assert 0 <= likeness(one, other) <= 1
    assert (likeness(one, other) == 1) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("encoder", "layers", "3", "kernel"), ("encoder", "layers", "3", "kernal")),
        (("encoder", "layers", "3", "kernel"), ("params", "encoder", "layers", "3", "kernel")),
        (("encoder", "layers", "3", "kernel"), ("encoder", "block", "3", "weight")),
        (("head", "kernel"), ("classifier", "bias")),
        (("a/b", "c"), ("a", "b", "c")),
        (("kernel",), ()),
        ((), ()),
    ],
)
def test_likeness_by_keys_is_nearly_that_of_the_texts(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert likeness(one, other) == pytest.approx(as_texts(one, other), abs=0.1)


def test_of_very_long_names_the_keys_that_differ_are_compared_in_pairs() -> None:
    one, other = (tuple(f"{word}{number}" for number in range(500)) for word in ("block", "blokc"))
    assert 0.02 < likeness(one, other) < 0.1  # the first of them: to compare all of it as text takes seconds
    assert likeness((*one, "kernel"), (*one, "kernal")) > 0.99
