"""Several source values for one destination leaf: a collision is a fault, a tie is to be looked at."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from noted import findings_of, unused_of

from treeload import From, Policy, Rename, Transpose
from treeload._matching.ledger import Feed, Ledger
from treeload._matching.offers import offered
from treeload._matching.parts import opened_parts
from treeload._matching.rivals import refuse_collisions, tie_checks
from treeload._matching.sides import Sides
from treeload._plans.check import Check, EqualCheck, ZeroCheck
from treeload._trees.walk import walk

NAMES = (("a",), ("b",), ("c",))


def one() -> Any:
    return np.ones((2, 2), np.float32)


def sides(src: Any, *rules: Any, policy: Policy = Policy()) -> Sides:  # noqa: B008
    shared = one()
    return Sides(
        walk({"a": shared, "b": shared, "c": shared}), offered(opened_parts(src, "plan"), rules), policy, None
    )


def collisions(both: Sides, *names: tuple[str, ...]) -> tuple[bool, Ledger]:
    lines = Ledger(both, [None])
    return refuse_collisions(both, lines, names or NAMES), lines


def checks(both: Sides) -> list[Check]:
    feeds = [Feed(name, value, rule) for name in NAMES for value, rule in both.offers.values_at(name)]
    return list(tie_checks(both, NAMES, feeds))


# Collisions.


def test_a_name_that_is_fed_once_or_not_at_all_is_no_collision() -> None:
    refused, lines = collisions(sides({"a": one()}))
    assert not refused and not lines.findings and not lines.unused


@pytest.mark.parametrize(("verdict", "refused"), [("error", True), ("first", False)])
def test_a_collision_is_refused_unless_the_policy_takes_the_first(verdict: str, refused: bool) -> None:
    src = {"a": one(), "b": one()}
    was, lines = collisions(sides(src, Rename("b", "a"), policy=Policy(collision=verdict)))
    assert was is refused and [finding.verdict for finding in findings_of(lines)] == [verdict]
    assert [(str(left.name), left.why) for left in unused_of(lines)] == [
        ("a", "b feeds its destination leaf")
    ]
    assert (
        findings_of(lines)[0].message == "it is fed by b and a"
        and findings_of(lines)[0].found == "2 source leaves"
    )


def test_of_several_sources_each_is_said_with_its_own() -> None:
    _, lines = collisions(sides([From({"a": one()}), From({"a": one()})]))
    assert findings_of(lines)[0].message == "it is fed by a of a tree in memory and a of a tree in memory"


def test_each_name_of_a_leaf_has_a_collision_of_its_own() -> None:
    tree = {"a": one(), "b": one()}
    policy = Policy(collision={"a": "first"})
    both = sides([From(tree), From(tree)], policy=policy)
    refused, lines = collisions(both)
    assert refused and [(str(f.name), f.verdict) for f in findings_of(lines)] == [
        ("a", "first"),
        ("b", "error"),
    ]
    assert not collisions(both, ("a",))[0]
    assert collisions(both, ("b",), ("a",))[0]


# Ties.


@given(st.lists(st.sampled_from("abc"), max_size=3, unique=True))
def test_one_array_under_any_of_the_names_needs_no_look(names: list[str]) -> None:
    array = one()
    assert not checks(sides(dict.fromkeys(names, array)))


@given(st.lists(st.sampled_from("abc"), max_size=3, unique=True))
def test_arrays_that_may_differ_are_compared_each_once(names: list[str]) -> None:
    found = checks(sides({name: one() for name in names}))
    assert [len(check.leaves()) for check in found] == ([len(names)] if len(names) > 1 else [])


def test_what_is_known_to_be_one_array_is_compared_under_its_first_name() -> None:
    array = one()
    (check,) = checks(sides({"a": array, "b": one(), "c": array}))
    assert isinstance(check, EqualCheck) and [name for name, _ in check.values] == [("a",), ("b",)]
    assert check.finding.message == "one array in the destination, different values in the source: a, b, c"
    assert check.finding.found == "2 values" and check.finding.kind == "tie"


def test_a_shared_variable_of_the_source_is_one_array() -> None:
    variable = nnx.Param(jnp.ones((2, 2)))
    assert not checks(sides({"a": variable, "b": variable}))


def test_one_array_after_other_ops_is_another_value() -> None:
    array = one()
    assert len(checks(sides({"a": array, "b": array}, Rename("b", "b", Transpose())))) == 1
    assert not checks(sides({"a": array, "b": array}, Rename("{x}", "{x}", Transpose())))


@pytest.mark.parametrize("nothing", [None, False])
def test_beside_an_alias_that_is_absent_the_others_must_be_zero_where_that_is_what_it_means(
    nothing: Any,
) -> None:
    src = {"a": one(), "b": nothing}
    assert not checks(sides(src))
    (check,) = checks(sides(src, policy=Policy(absent_is_zero="b")))
    assert isinstance(check, ZeroCheck) and check.finding.found == f"an array and {nothing}"
    assert "b is absent, which means zero, and a is not zero" in check.finding.message


def test_every_distinct_value_beside_an_absence_must_be_zero() -> None:
    found = checks(sides({"a": one(), "b": None, "c": one()}, policy=Policy(absent_is_zero="**")))
    assert [type(check) for check in found] == [EqualCheck, ZeroCheck, ZeroCheck]


def test_a_key_beside_an_absence_is_never_compared_with_zero() -> None:
    src = {"a": jax.random.key(0), "b": None}
    assert not checks(sides(src, policy=Policy(absent_is_zero="**")))
