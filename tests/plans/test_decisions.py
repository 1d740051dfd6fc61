"""Decisions as data: every question a plan answers by looking at itself."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Name, Policy, Rename
from treeload._findings.finding import Finding
from treeload._findings.kinds import KINDS, Kind
from treeload._matching.match import match
from treeload._matching.parts import opened_parts
from treeload._plans.decisions import Decisions, percent
from treeload._plans.entry import SAME_NAME, Action
from treeload._trees.walk import walk

SPEC = jax.ShapeDtypeStruct((2,), np.float32)


def one(size: int = 2) -> Any:
    return np.ones(size, np.float32)


def decisions(dst: Any, src: Any, *rules: Any, scope: Any = None, **policy: Any) -> Decisions:
    return match(walk(dst), opened_parts(src, "plan"), rules=rules, policy=Policy(**policy), scope=scope)


@given(st.permutations(list(Kind)))
def test_findings_are_ordered_by_kind_and_otherwise_stay_in_order(kinds: list[Kind]) -> None:
    findings = [Finding(kind, Name((name,)), "error") for name in "ba" for kind in kinds]
    found = decisions({}, {}).with_findings(findings).findings
    assert [(f.kind, str(f.name)) for f in found] == [(kind, name) for kind in KINDS for name in "ba"]


@given(st.floats(0, 1))
def test_a_share_that_is_not_all_never_prints_as_all(share: float) -> None:
    assert (percent(share) == "100 %") is (share == 1)


def test_a_leaf_that_agreed_has_an_entry_like_any_other() -> None:
    found = decisions({"a": one()}, {"a": one()})
    line = found["a"]
    assert list(found.lines) == [SAME_NAME] and (line.action, line.spec) == (Action.LOAD, SPEC)
    assert [(leaf.source, str(leaf)) for leaf in line.sources] == [("a tree in memory", "a")]


def test_the_root_is_found_by_the_empty_name() -> None:
    assert decisions(one(), one())[""].name == () and "" in decisions(one(), one())


@pytest.mark.parametrize(
    ("dst", "src", "coverage"),
    [
        ({}, {}, 1.0),
        ({}, {"a": one()}, 0.0),
        ({"a": one(0)}, {}, 1.0),
        ({"a": one(), "b": one(6)}, {"a": one()}, 0.25),
    ],
)
def test_coverage_is_the_share_of_elements_that_load(dst: Any, src: Any, coverage: float) -> None:
    assert decisions(dst, src).coverage == coverage


def test_a_destination_without_leaves_says_so() -> None:
    assert decisions({}, {"a": one()}).summary().startswith("the destination has no leaves; ")


def test_what_is_kept_and_abstract_is_left_to_init() -> None:
    found = decisions({"a": SPEC, "b": one(), "c": SPEC}, {"c": one()}, missing="keep")
    assert found.abstract_kept == [0] and not found.errors_despite_init and not found.ok
    assert [finding.kind for finding in found.errors] == ["abstract"]


def test_a_name_with_two_checks_is_pending_once() -> None:
    shared = one()
    found = decisions(
        {"a": shared, "b": shared, "c": shared}, {"a": one(), "b": None, "c": one()}, absent_is_zero="b"
    )
    assert len(found.checks) == 3 and found.pending == (("a",),)


def test_verified_decisions_have_nothing_pending_and_the_old_ones_stay() -> None:
    shared = one()
    before = decisions({"a": shared, "b": shared}, {"a": one(), "b": one()})
    after = before.verified([Finding(Kind.TIE, Name(("a",)), "error")])
    assert before["a"].needs_values and not after["a"].needs_values
    assert before.ok and not after.ok and after.checks == () and after.done == before.checks


def test_what_rules_took_is_no_part_of_the_diagnosis_and_where_all_is_well_there_is_none() -> None:
    found = decisions({"a": one(), "b": one(3)}, {"x": one(), "y": one(3)}, Rename("x", "a"))
    destination, source = found.without_rules
    assert list(destination) == [("b",)] and list(source) == [("y",)]
    assert decisions({"a": one()}, {"a": one()}).diagnosis == ()
