"""What all rules have in common: what they take, what they make, and how they print."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest

from treeload import Apply, Name, Rename, RuleError, Tie, Transpose
from treeload._naming.pattern import Pattern, compile_pattern
from treeload._naming.template import compile_template
from treeload._ops.expression import Leaf, derive
from treeload._rules.rule import (
    Made,
    Matched,
    Rule,
    as_rules,
    checked_axis,
    is_invertible,
    plain_pattern,
    print_rule,
    set_fields,
)

LEAF = Leaf(0, Name("w"), jax.ShapeDtypeStruct((2, 3), np.float32))


@dataclass(frozen=True)
class Least(Rule):
    """A rule that says no more than it must."""

    pattern: Pattern

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return (self.pattern,)

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        yield from (Made(leaf.name, leaf.value, (leaf.name,)) for leaf in taken)


# --- what a rule makes ------------------------------------------------------------------------------


def test_what_is_made_stands_under_its_name() -> None:
    made = Made.of(("v",), (("w",),), lambda: derive(Transpose(), LEAF))
    assert (made.name, made.taken, made.fault) == (("v",), (("w",),), None)
    assert made.value is not None and made.value.spec.shape == (3, 2)


def test_what_cannot_be_made_is_a_fault_at_its_name() -> None:
    made = Made.of(("v",), (("w",),), lambda: derive(Transpose(0, 1, 2), LEAF))
    assert made.value is None and made.taken == (("w",),)
    assert made.fault == "Transpose(0, 1, 2) is for 3 axes, the leaf is float32[2,3]"


def test_a_mistake_of_ours_is_no_fault_of_the_rule() -> None:
    def broken() -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Made.of(("v",), (), broken)


# --- what a rule answers where it says nothing ------------------------------------------------------


def test_a_rule_that_says_nothing_has_no_way_back_and_moves_no_empty_slot() -> None:
    rule = Least(compile_pattern("a/{i}"))
    assert rule.inverse() is None
    assert rule.rename(("a", "0")) is None
    assert rule.destination_text() == "a/{i}"


def test_a_rule_must_say_what_it_takes_and_gives() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Rule()  # type: ignore[abstract]


def test_a_rule_may_stand_alone_or_among_others() -> None:
    one, other = Rename("a", "b"), Rename("c", "d")
    assert as_rules(one, "load") == (one,)
    assert as_rules([one, other], "load") == as_rules(iter((one, other)), "load") == (one, other)
    assert as_rules((), "load") == ()


@pytest.mark.parametrize("given", ["a", None, Transpose(), [Rename("a", "b"), "a"], Rename, {"a": "b"}])
def test_what_is_no_rule_is_refused_with_what_to_write(given: Any) -> None:
    with pytest.raises(RuleError, match=r"^load takes rules, such as Rename\(\.\.\.\), not "):
        as_rules(given, "load")


# --- the way back -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "destination", "invertible"),
    [
        ("a", "b", True),
        ("a/{i}", "b/{i}", True),
        ("{*p}/{i}", "{i}/{*p}", True),
        ("a/{i}/{j}", "b/{i}", False),
        ("a/*", "b", False),
        ("**/a", "b", False),
        (re.compile("a(?P<i>.)"), r"b\g<i>", False),
    ],
)
def test_a_name_is_told_from_its_new_one_where_nothing_is_lost(
    source: Any, destination: str, invertible: bool
) -> None:
    pattern = compile_pattern(source)
    assert is_invertible(pattern, compile_template(destination, pattern)) is invertible


def test_a_capture_that_is_an_index_may_be_on_one_side_alone() -> None:
    pattern = compile_pattern("a/{i}/{j}")
    template = compile_template("b/{i}", pattern)
    assert is_invertible(pattern, template, but=("j",))
    assert not is_invertible(pattern, template, but=("i",))


# --- what a rule is written with --------------------------------------------------------------------


def test_a_pattern_whose_captures_are_filled_in_is_no_expression() -> None:
    assert plain_pattern("a/{i}", "Stack").captures == ("i",)
    with pytest.raises(RuleError, match=r"^Stack takes patterns with named captures in braces"):
        plain_pattern(re.compile("a/(?P<i>.*)"), "Stack")
    with pytest.raises(RuleError, match="empty segment"):
        plain_pattern("a//b", "Stack")


@pytest.mark.parametrize("axis", [0, -1, 5])
def test_an_axis_is_an_integer(axis: int) -> None:
    assert checked_axis(axis) == axis


@pytest.mark.parametrize("axis", [True, 1.0, "0", None, (0,)])
def test_what_is_no_axis_is_named(axis: Any) -> None:
    with pytest.raises(RuleError, match="^axis is an integer, not "):
        checked_axis(axis)


def test_a_rule_prints_its_names_its_ops_and_the_options_that_were_given() -> None:
    rule = Rename("x", "y")
    pattern = compile_pattern("a/{i}")
    template = compile_template("b/{i}", pattern)
    assert print_rule(rule, (pattern, template), ()) == "Rename('a/{i}', 'b/{i}')"
    assert (
        print_rule(rule, ((pattern, pattern), template), (Transpose(), Apply(abs)), axis=0, sizes=None)
        == "Rename(['a/{i}', 'a/{i}'], 'b/{i}', Transpose(), Apply(abs), axis=0)"
    )


def test_an_expression_prints_as_one() -> None:
    assert repr(Rename(re.compile("a(.)"), r"b\1")) == r"Rename(re.compile('a(.)'), 'b\\1')"


def test_a_frozen_rule_is_set_only_while_it_is_made() -> None:
    rule: Any = Tie("a", "b")
    with pytest.raises(AttributeError):
        rule.destination = None
    set_fields(rule, ops=(Transpose(),))
    assert rule == Tie("a", "b", Transpose())
