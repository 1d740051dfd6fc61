"""The order in which rules take leaves, beyond what ``test_rename`` says of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Concat, Name, Rename, Tie, Transpose, Unstack
from treeload._naming.name import Keys
from treeload._naming.pattern import Pattern, compile_pattern
from treeload._ops.expression import Leaf
from treeload._rules.apply import RuleFailure, apply_rules, rename_empty
from treeload._rules.rule import Made, Matched, Rule


def values(*names: str, shape: tuple[int, ...] = (2, 3)) -> list[tuple[Keys, Any]]:
    spec = jax.ShapeDtypeStruct(shape, np.float32)
    return [(name, Leaf(0, name, spec)) for name in map(Name.parse, names)]


@dataclass(frozen=True)
class Own(Rule):
    """A rule that takes by any patterns and answers for some of what it took."""

    texts: tuple[str, ...]
    answers: int = 1000
    seen: list[Any] = field(default_factory=list, compare=False, repr=False)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return tuple(map(compile_pattern, self.texts))

    def give(self, taken: Sequence[Matched]) -> Iterable[Made]:
        self.seen.extend(taken)
        return [Made(("new", *leaf.name), leaf.value, (leaf.name,)) for leaf in taken[: self.answers]]


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)
RULES = st.lists(
    st.sets(st.sampled_from("abcdef"), min_size=1).map(lambda ts: Own(tuple(sorted(ts)))), max_size=4
)


@given(NAMES, RULES)
def test_every_leaf_goes_to_the_first_rule_that_takes_it_and_to_no_other(
    names: list[str], rules: list[Own]
) -> None:
    rules = [Own(rule.texts) for rule in rules]
    fed, failures = apply_rules(values(*names), rules)
    assert sorted(arrival.taken for _, arrival in fed) == sorted((name,) for name in map(Name.parse, names))
    for number, rule in enumerate(rules):
        earlier = {text for other in rules[:number] for text in other.texts}
        took = {one.taken[0][0] for _, one in fed if one.rule is rule}
        assert took == (set(rule.texts) & set(names)) - earlier
    assert all(failure.taken == () for failure in failures)


@given(NAMES, RULES)
def test_what_no_rule_took_keeps_its_name_and_comes_last(names: list[str], rules: list[Own]) -> None:
    fed, _ = apply_rules(values(*names), rules)
    kept = [name for name, arrival in fed if arrival.rule is None]
    claimed = {text for rule in rules for text in rule.texts}
    assert kept == [(name,) for name in names if name not in claimed]
    assert [name for name, _ in fed][len(fed) - len(kept) :] == kept


def test_a_rule_is_told_which_of_its_patterns_matched_first() -> None:
    rule = Own(("a/{i}", "**", "b"))
    apply_rules(values("b", "a/3"), [rule])
    assert [(leaf.name, leaf.pattern) for leaf in rule.seen] == [(("b",), 1), (("a", "3"), 0)]
    assert rule.seen[1].match["i"] == "3"


def test_leaves_that_a_rule_says_nothing_of_are_named_up_to_five() -> None:
    _, (failure,) = apply_rules(values(*(f"w{n}" for n in range(8))), [Own(("**",), answers=1)])
    assert failure.name is None and len(failure.taken) == 7
    assert failure.message.endswith(
        "took w1, w2, w3, w4, w5 and 2 more and says nothing of what becomes of it"
    )
    assert [leaf.name for leaf in failure.leaves] == [(f"w{n}",) for n in range(1, 8)]


def test_just_five_leaves_are_all_named() -> None:
    _, (failure,) = apply_rules(values(*"abcde"), [Own(("*",), answers=0)])
    assert "took a, b, c, d, e and says" in failure.message


def test_a_failure_knows_the_leaves_it_is_about_and_no_others() -> None:
    fed, failures = apply_rules(values("a", "b"), [Rename("{x}", "new/{x}", Transpose(0, 1, 2))])
    assert [[leaf.name for leaf in failure.leaves] for failure in failures] == [[("a",)], [("b",)]]
    assert [failure.destination_text for failure in failures] == ["new/a", "new/b"]
    assert all(arrival.value is None for _, arrival in fed)


def test_a_rule_that_took_nothing_says_whether_another_had_it_all() -> None:
    rules = [Rename("a", "b"), Rename("a", "c"), Rename("zzz", "d")]
    _, (second, third) = apply_rules(values("a"), rules)
    assert second.message.endswith("matched only leaves that an earlier rule had taken")
    assert third.message.endswith("matched nothing: no leaf of the source is called 'zzz'")


def test_a_rule_without_patterns_is_not_blamed_for_taking_nothing() -> None:
    fed, failures = apply_rules(values("a"), [Tie("x", "y")])
    assert failures == [] and [name for name, _ in fed] == [("a",)]


def test_a_failure_without_a_name_stands_at_the_rules_destination_below_where_it_goes() -> None:
    rule = Rename("a/{x}", "b/{x}")
    assert RuleFailure(rule, None, (), "why").destination_text == "b/{x}"
    assert RuleFailure(rule, None, (), "why", into=("p/q", "r")).destination_text == r"p\/q/r/b/{x}"
    assert RuleFailure(rule, ("b", "1"), (), "why", into=("p",)).destination_text == "b/1"


@pytest.mark.parametrize(
    ("rule", "names", "made"),
    [
        (Concat(["{i}/q", "{i}/k"], "{i}/qk", axis=0), ["1/k", "0/q", "0/k", "1/q"], ["1/qk", "0/qk"]),
        (Unstack("w", "layers/{i}", axis=0), ["w"], ["layers/0", "layers/1"]),
    ],
)
def test_many_for_one_and_one_for_many_know_what_they_took(
    rule: Rule, names: list[str], made: list[str]
) -> None:
    fed, failures = apply_rules(values(*names), [rule])
    assert failures == []
    assert [str(Name(name)) for name, _ in fed] == made
    assert all(arrival.rule is rule for _, arrival in fed)
    assert {name for _, arrival in fed for name in arrival.taken} == set(map(Name.parse, names))


def test_an_empty_slot_goes_with_the_first_rule_that_takes_it() -> None:
    rules = [Own(("a",)), Rename("a", "b"), Rename("a", "c")]
    assert rename_empty(("a",), rules) == [("b",)]
    assert rename_empty(("z",), rules) == [("z",)]
    assert rename_empty(("a",), ()) == [("a",)]
