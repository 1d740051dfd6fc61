"""Checks of values: which fail, in which order, and that each is said once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import Op, Policy, Rename, SourceError
from treeload._loading.checks import failures

ZERO = np.zeros(2, np.float32)


def one() -> Any:
    return np.ones(2, np.float32)


def plan(src: Any, *rules: Any, dst: Any = None) -> treeload.Plan:
    return treeload.plan({} if dst is None else dst, src, rules=rules, policy=Policy(absent_is_zero="**"))


def test_a_plan_without_checks_reads_nothing() -> None:
    assert failures(plan({}, dst={"a": one()})) == []


def test_only_checks_that_fail_are_said_and_in_their_order() -> None:
    found = failures(plan({"c": one(), "a": ZERO, "b": one()}))
    assert [(str(finding.kind), str(finding.name)) for finding in found] == [("absent", "b"), ("absent", "c")]


def test_leaves_that_are_tied_are_compared_and_the_first_policy_forgives() -> None:
    shared = np.zeros(2, np.float32)
    dst, src = {"a": shared, "b": shared}, {"a": one(), "b": one() + 1}
    (finding,) = failures(plan(src, dst=dst))
    assert (finding.kind, finding.verdict) == ("tie", "error")
    assert not failures(plan(src | {"b": one()}, dst=dst))


def test_one_finding_of_several_checks_is_said_once() -> None:
    decisions = plan({"a": one()})
    twice = treeload.Plan.of(decisions)
    object.__setattr__(twice, "checks", decisions.checks * 2)
    assert len(failures(twice)) == 1


def test_what_is_abstract_cannot_be_looked_at() -> None:
    with pytest.raises(SourceError, match="'a' in a tree in memory is abstract"):
        failures(plan({"a": jax.ShapeDtypeStruct((2,), np.float32)}))


@dataclass(frozen=True)
class Broken(Op):
    def infer(self, *specs: Any) -> Any:
        return specs[0]

    def apply(self, *arrays: Any) -> Any:
        raise ValueError("no such value")


def test_an_op_that_fails_on_the_values_says_whose_they_were() -> None:
    with pytest.raises(
        SourceError, match="the values of 'a' could not be checked: ValueError: no such value"
    ):
        failures(plan({"old": one()}, Rename("old", "a", Broken())))
