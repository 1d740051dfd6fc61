"""What becomes of source leaves that no destination slot took."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from noted import findings_of, unused_of

from treeload import From, Policy, Rename
from treeload._leaves.selection import Within
from treeload._matching.ledger import Ledger
from treeload._matching.leftovers import decide_leftovers
from treeload._matching.offers import offered
from treeload._matching.parts import opened_parts
from treeload._matching.sides import Sides
from treeload._matching.slots import decide
from treeload._plans.check import ZeroCheck
from treeload._trees.walk import walk


def one() -> Any:
    return np.ones(2, np.float32)


def left(
    dst: Any, src: Any, *rules: Any, policy: Policy = Policy(), scope: Any = None  # noqa: B008
) -> Ledger:  # fmt: skip
    """The lines once every slot and then every leftover is decided."""
    sides = Sides(walk(dst), offered(opened_parts(src, "plan"), rules), policy, Within.of(scope))
    lines = Ledger(sides, [None] * len(sides.tree.names))
    for index in range(len(sides.tree.names)):
        decide(sides, lines, index)
    decide_leftovers(sides, lines, sides.offers.shaped)
    return lines


def said(lines: Ledger) -> list[tuple[str, str]]:
    return [(str(finding.kind), str(finding.name)) for finding in findings_of(lines)]


def unused(lines: Ledger) -> list[tuple[str, str]]:
    return [(str(leaf.name), leaf.why) for leaf in unused_of(lines)]


def test_where_all_was_taken_nothing_is_left() -> None:
    lines = left({"a": one()}, {"a": one()})
    assert not lines.findings and not lines.unused


@pytest.mark.parametrize(("verdict", "why"), [("error", "unexpected"), ("ignore", "ignored by the policy")])
def test_a_leaf_without_a_place_is_unexpected(verdict: str, why: str) -> None:
    lines = left({}, {"a": one()}, policy=Policy(unexpected=verdict))
    assert said(lines) == [("unexpected", "a")] and unused(lines) == [("a", why)]
    assert findings_of(lines)[0].message == "the destination has nothing here"


@pytest.mark.parametrize("held", [None, False])
def test_what_meets_an_absence_says_so_and_offers_that_it_means_zero(held: Any) -> None:
    lines = left({"a": held}, {"a": one()})
    assert findings_of(lines)[0].expected == str(held) and "absent_is_zero" in findings_of(lines)[0].remedy


def test_that_absence_means_zero_is_offered_for_a_bias_and_for_nothing_else() -> None:
    for src, offered_ in ({"bias": one()}, True), ({"w": one()}, False), ({"bias": jax.random.key(0)}, False):
        assert ("absent_is_zero" in findings_of(left({}, src))[0].remedy) is offered_


def test_where_absence_means_zero_the_values_are_looked_at_later() -> None:
    lines = left({}, {"bias": one()}, policy=Policy(absent_is_zero="bias"))
    (check,) = lines.checks
    assert isinstance(check, ZeroCheck) and check.name == ("bias",) and check.finding.kind == "absent"
    assert not lines.findings and unused(lines) == [("bias", "absent in the destination; must be all zero")]


def test_a_key_is_never_zero() -> None:
    lines = left({}, {"a": jax.random.key(0)}, policy=Policy(absent_is_zero="**"))
    assert said(lines) == [("unexpected", "a")] and not lines.checks


def test_outside_the_scope_a_leaf_is_left_without_a_word() -> None:
    lines = left({}, {"a": one(), "b": one()}, scope="a", policy=Policy(absent_is_zero="**"))
    assert [check.name for check in lines.checks] == [("a",)] and ("b", "outside the scope") in unused(lines)


def test_of_a_collision_without_a_place_each_value_is_unexpected() -> None:
    lines = left({}, {"a": one(), "b": one()}, Rename("b", "a"))
    assert said(lines) == [("unexpected", "a")] * 2 and [name for name, _ in unused(lines)] == ["b", "a"]


def test_what_is_unexpected_names_its_rule_and_its_own_name() -> None:
    rule = Rename("a", "new/a")
    (finding,) = findings_of(left({}, {"a": one()}, rule))
    assert finding.source is not None and (str(finding.source.name), finding.rule) == ("a", rule)


# Leaves against subtrees.


@pytest.mark.parametrize(("held", "wanted"), [("relu", "a static"), (3, None)])
def test_leaves_below_a_leaf_of_the_destination_are_one_finding_there(held: Any, wanted: Any) -> None:
    lines = left({"a": held}, {"a": {"w": one(), "b": one()}})
    assert said(lines) == [("structure", "a")] and findings_of(lines)[0].found == "a subtree of 2 leaves"
    assert {why for _, why in unused(lines)} == {"below a, which is a leaf in the destination"}
    assert wanted is None or findings_of(lines)[0].expected == wanted


def test_leaves_below_an_absence_are_unexpected() -> None:
    assert said(left({"a": None}, {"a": {"w": one()}})) == [("unexpected", "a/w")]


def test_leaves_below_a_leaf_that_loads_from_elsewhere_are_unexpected() -> None:
    lines = left({"a": one()}, {"x": one(), "a": {"w": one()}}, Rename("x", "a"))
    assert said(lines) == [("unexpected", "a/w")]


def test_a_leaf_above_leaves_that_load_from_elsewhere_is_structure() -> None:
    rules = Rename("x", "a"), Rename("y", "a/w")
    lines = left({"a": {"w": one()}}, {"x": one(), "y": one()}, *rules)
    assert said(lines) == [("structure", "a")] and unused(lines) == [("x", "a subtree in the destination")]


def test_a_leaf_at_the_root_is_above_everything() -> None:
    lines = left({"a": one()}, one())
    assert said(lines) == [("structure", "")]


# Other names of what loads.


def tied() -> dict[str, Any]:
    variable = nnx.Param(jnp.ones(2))
    return {"a": variable, "b": variable}


def test_another_name_of_what_loads_is_unused_and_no_finding() -> None:
    lines = left({"a": jnp.zeros(2)}, tied())
    assert not lines.findings and unused(lines) == [("b", "an alias of a, which loads")]


def test_another_name_of_what_feeds_nothing_is_unexpected() -> None:
    assert said(left({}, tied())) == [("unexpected", "a"), ("unexpected", "b")]


def test_an_alias_of_another_source_is_another_leaf() -> None:
    lines = left({"a": jnp.zeros(2)}, [From({"a": one()}), From(tied(), into="n")])
    assert said(lines) == [("unexpected", "n/a"), ("unexpected", "n/b")]


def test_two_keys_of_a_dict_that_hold_one_array_are_two_leaves() -> None:
    array = one()
    assert said(left({"a": one()}, {"a": array, "b": array})) == [("unexpected", "b")]
