"""A tie feeds one destination leaf from what feeds another. Loads with ties are in ``tests/behaviour``."""

from __future__ import annotations

import re
from typing import Any

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Apply, Cast, Name, RuleError, Tie, Transpose

KEYS = st.lists(st.text(min_size=1, max_size=4), max_size=4).map(tuple)
MEAN = Apply(lambda a, b: (a + b) / 2)


@given(KEYS, KEYS, KEYS)
def test_a_tie_of_two_names_ties_the_first_alone(
    name: tuple[str, ...], of: tuple[str, ...], other: tuple[str, ...]
) -> None:
    tie = Tie(Name(name), Name(of))
    assert tie.targets(name) == (of,)
    assert other == name or tie.targets(other) == ()


@given(KEYS)
def test_captures_go_from_one_name_to_the_other(keys: tuple[str, ...]) -> None:
    tie = Tie("decoder/{*rest}", "encoder/{*rest}")
    assert tie.targets(("decoder", *keys)) == (("encoder", *keys),)
    assert tie.targets(("encoder", *keys)) == ()


def test_a_leaf_that_is_made_of_several_has_as_many_targets_in_order() -> None:
    tie = Tie("mean/{i}", ["b/{i}", "a/{i}"], MEAN)
    assert tie.targets(("mean", "3")) == (("b", "3"), ("a", "3"))


def test_a_tie_takes_no_leaf_of_the_source_and_gives_none() -> None:
    tie = Tie("a", "b")
    assert tie.patterns == ()
    assert list(tie.give([])) == []
    assert tie.rename(("a",)) is None
    assert tie.inverse() is None


def test_its_findings_belong_to_its_destination() -> None:
    assert Tie("head/{i}", "embed/{i}").destination_text() == "head/{i}"


@pytest.mark.parametrize(
    ("tie", "code"),
    [
        (Tie("a", "b"), "Tie('a', 'b')"),
        (
            Tie("a/{i}", "b/{i}", Transpose(), Cast("int8")),
            "Tie('a/{i}', 'b/{i}', Transpose(), Cast('int8'))",
        ),
        (Tie("m", ["a", "b"], Apply(jnp.maximum)), "Tie('m', ['a', 'b'], Apply(maximum))"),
        (Tie(Name(("a*",)), "b"), r"Tie('a\\*', 'b')"),
    ],
    ids=repr,
)
def test_a_tie_prints_as_it_is_written(tie: Tie, code: str) -> None:
    assert repr(tie) == code


def test_a_tie_is_a_value() -> None:
    assert Tie("a", "b", Transpose()) == Tie("a", "b", Transpose()) != Tie("a", "b")
    assert len({Tie("a", "b"), Tie("a", "b"), Tie("b", "a")}) == 2


@pytest.mark.parametrize("ops", [(), (Transpose(),)])
@pytest.mark.parametrize("of", [["a", "b"], ["a"], []])
def test_several_leaves_need_a_function_of_them(of: list[str], ops: Any) -> None:
    with pytest.raises(RuleError, match="needs an Apply that makes one array of them"):
        Tie("m", of, *ops)


def test_no_leaf_at_all_feeds_none_not_even_by_a_function() -> None:
    with pytest.raises(RuleError, match="needs an Apply"):
        Tie("m", [], MEAN)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Tie("a", "b/{i}"), "does not capture"),
        (lambda: Tie("a/*", "b/*"), "a wildcard cannot be filled in"),
        (lambda: Tie("a//b", "c"), "empty segment"),
        (lambda: Tie("a", "b", Transpose), "Tie takes ops"),  # type: ignore[arg-type]
        (lambda: Tie(3, "b"), "a pattern is a string"),  # type: ignore[arg-type]
        (lambda: Tie("a", 3), "the right side of a rule is a string or a Name"),  # type: ignore[arg-type]
        (lambda: Tie(re.compile("a"), r"\1"), "does not fit the expression"),
    ],
)
def test_a_tie_that_cannot_mean_anything_is_refused_when_it_is_written(make: Any, says: str) -> None:
    with pytest.raises(RuleError, match=says):
        make()
