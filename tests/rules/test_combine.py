"""Which leaves belong together, and what is said where one lacks or is there twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Name, RuleError
from treeload._naming.name import print_name
from treeload._naming.pattern import compile_pattern
from treeload._naming.template import compile_template
from treeload._ops.expression import Leaf, derive
from treeload._ops.several import ConcatArrays
from treeload._rules.combine import join_parts, same_captures, say_once
from treeload._rules.rule import Made, Matched

SOURCES = same_captures(["{i}/q", "{i}/k", "{i}/v"], "Concat")
DESTINATION = compile_template("out/{i}", SOURCES[0])


def matched(*names: str, patterns: Sequence[Any] = SOURCES) -> list[Matched]:
    taken = []
    for text in names:
        name = Name.parse(text)
        which = next(number for number, pattern in enumerate(patterns) if pattern.matches(text))
        match = patterns[which].match(print_name(name))
        taken.append(Matched(which, match, name, Leaf(0, name, jax.ShapeDtypeStruct((2,), np.float32))))
    return taken


def joined(taken: list[Matched]) -> list[Made]:
    return list(join_parts(taken, SOURCES, DESTINATION, lambda name, parts: derive(ConcatArrays(0), *parts)))


@given(st.lists(st.sampled_from("abc"), unique=True), st.data())
def test_parts_come_in_the_order_of_the_rule_whatever_the_sources(
    groups: list[str], data: st.DataObject
) -> None:
    names = data.draw(st.permutations([f"{group}/{part}" for group in groups for part in "qkv"]))
    made = {each.name: each for each in joined(matched(*names))}
    assert set(made) == {("out", group) for group in groups}
    for group in groups:
        each = made[("out", group)]
        assert each.taken == tuple((group, part) for part in "qkv") and each.fault is None
        assert each.value is not None and [leaf.name for leaf in each.value.leaves()] == list(each.taken)


@given(st.sets(st.sampled_from([f"{group}/{part}" for group in "ab" for part in "qkv"])))
def test_every_leaf_is_answered_for_once_also_where_a_part_lacks(names: set[str]) -> None:
    made = joined(matched(*sorted(names)))
    taken = [name for each in made for name in each.taken]
    assert sorted(map(print_name, taken)) == sorted(names)
    assert all((each.fault is None) == (len(each.taken) == 3) for each in made)


def test_what_lacks_is_named_beside_what_is_there() -> None:
    (made,) = joined(matched("0/q", "0/v"))
    assert made.value is None
    assert made.fault == "out/0 lacks a part: nothing is called '{i}/k' beside 0/q"
    (made,) = joined(matched("0/k"))
    assert made.fault == "out/0 lacks a part: nothing is called '{i}/q' or '{i}/v' beside 0/k"


def test_two_leaves_of_one_pattern_under_one_name_are_the_same_part() -> None:
    patterns = same_captures(["**/q/{i}", "**/k/{i}"], "Concat")
    taken = matched("a/q/0", "b/q/0", "a/k/0", patterns=patterns)
    template = compile_template("out/{i}", patterns[0])
    (made,) = join_parts(taken, patterns, template, lambda name, parts: parts[0])
    assert made.fault == "a/q/0 and b/q/0 are the same part of out/0"
    assert len(made.taken) == 3


def test_parts_that_do_not_fit_are_a_fault_of_their_own_name_alone() -> None:
    taken = matched("0/q", "0/k", "0/v", "1/q", "1/k", "1/v")
    odd = Leaf(0, Name(taken[0].name), jax.ShapeDtypeStruct((2,), np.int8))
    taken[0] = Matched(0, taken[0].match, taken[0].name, odd)
    first, second = joined(taken)
    assert first.fault is not None and "leaves to be joined are" in first.fault
    assert second.fault is None


def test_the_name_is_given_to_what_makes_the_value() -> None:
    seen: list[Any] = []
    taken = matched("0/q", "0/k", "0/v")

    def first(name: Any, parts: Any) -> Any:
        seen.append(name)
        return parts[0]

    list(join_parts(taken, SOURCES, DESTINATION, first))
    assert seen == [("out", "0")]


# --- patterns that belong together ------------------------------------------------------------------


def test_captures_may_stand_in_another_order() -> None:
    assert [each.text for each in same_captures(["{i}/{j}/q", "{j}/{i}/k"], "R")] == [
        "{i}/{j}/q",
        "{j}/{i}/k",
    ]


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        ([], "^R takes at least one part$"),
        (["{i}/q", "{j}/k"], r"^R: '\{i\}/q' and '\{j\}/k' have different captures"),
        (["{i}/q", "k"], "have different captures"),
        ([re.compile("q")], "not a compiled re.Pattern"),
        (["a//b"], "empty segment"),
    ],
)
def test_leaves_that_cannot_be_told_to_belong_together_are_refused(patterns: Any, says: str) -> None:
    with pytest.raises(RuleError, match=says):
        same_captures(patterns, "R")


def test_without_captures_there_is_one_group() -> None:
    patterns = same_captures(["q", "k"], "R")
    made = list(
        join_parts(
            matched("q", "k", patterns=patterns),
            patterns,
            compile_template("out", compile_pattern("q")),
            lambda name, parts: parts[1],
        )
    )
    assert [each.name for each in made] == [("out",)]


# --- saying once ------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([None, "a", "b"])))
def test_a_fault_is_said_at_its_first_piece_and_no_piece_is_lost(faults: list[str | None]) -> None:
    pieces = [Made((str(n),), None, ((str(n),),), fault) for n, fault in enumerate(faults)]
    said = list(say_once(pieces))
    assert [piece.name for piece in said] == [piece.name for piece in pieces]
    assert [piece.fault for piece in said if piece.fault] == list(dict.fromkeys(filter(None, faults)))
    firsts = {fault: faults.index(fault) for fault in faults if fault}
    assert all(said[at].fault == fault for fault, at in firsts.items())
