"""What a step's policy forgives: only what is due to that step, at whatever name the leaf has today."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import BIAS, From, History, Plan, Policy, Rename, Stack, Version


def f32(*shape: int, start: int = 1) -> Any:
    return np.arange(start, start + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def planned(dst: Any, src: Any, *versions: Version, version: Any = 1, **how: Any) -> Plan:
    return treeload.plan(dst, From(src, version=version), history=History(*versions), **how)


BROUGHT = Version(2, policy=Policy(missing={"scale": "keep"}))


def test_a_field_that_a_version_brought_keeps_the_destinations_value_in_an_older_source_alone() -> None:
    dst, src = {"w": f32(2), "scale": f32(2)}, {"w": f32(2)}
    plan = planned(dst, src, BROUGHT)
    assert plan.ok and plan["scale"].action == "keep"
    assert plan["scale"].reason == "missing in the source, by version 1 → 2"
    assert [finding.kind for finding in planned(dst, src, BROUGHT, version=2).errors] == ["missing"]


@pytest.mark.parametrize(
    "later",
    [
        [Version(3, rules=[Rename("scale", "norm/gain")])],
        [Version(3, rules=[Rename("scale", "x")]), Version(4, rules=[Rename("x", "norm/gain")])],
    ],
)
def test_it_is_forgiven_under_the_name_that_later_versions_gave_it(later: list[Version]) -> None:
    later = [Version(v.number, rules=v.rules, policy=Policy(rule="ignore")) for v in later]
    dst = {"w": f32(2), "norm": {"gain": f32(2)}}
    assert planned(dst, {"w": f32(2)}, BROUGHT, *later).ok
    assert not planned(dst, {"w": f32(2)}, BROUGHT, *later, version=2).ok


def test_it_is_forgiven_where_later_versions_stack_it_and_rules_of_the_load_move_it() -> None:
    brought = Version(2, policy=Policy(missing={"layers/*/scale": "keep"}))
    stacked = Version(3, rules=[Stack("layers/{i}/{*r}", "layers/{*r}")])
    src = {"layers": [{"w": f32(2)} for _ in range(2)]}
    dst = {"net": {"layers": {"w": f32(2, 2), "scale": f32(2, 2)}}}
    history = History(brought, stacked)
    by_rule = treeload.plan(dst, From(src, version=1), history=history, rules=[Rename("{*r}", "net/{*r}")])
    assert by_rule.ok and by_rule["net/layers/scale"].action == "keep"
    assert treeload.plan(dst, From(src, version=1, into="net"), history=history).ok


def test_what_a_step_does_not_name_stays_an_error() -> None:
    plan = planned({"w": f32(2), "scale": f32(2), "b": f32(2)}, {"w": f32(2), "old": f32(1)}, BROUGHT)
    assert [(finding.kind, str(finding.name)) for finding in plan.errors] == [
        ("missing", "b"),
        ("unexpected", "old"),
    ]


def test_what_a_version_dropped_is_ignored_in_an_older_source_alone() -> None:
    dropped = Version(2, policy=Policy(unexpected={"old": "ignore"}))
    plan = planned({"w": f32(2)}, {"w": f32(2), "old": f32(1)}, dropped)
    assert plan.ok and [leaf.why for leaf in plan.unused] == ["ignored by version 1 → 2"]
    assert not planned({"w": f32(2)}, {"w": f32(2), "old": f32(1)}, dropped, version=2).ok
    user = planned({"w": f32(2)}, {"w": f32(2), "old": f32(1)}, dropped, policy=Policy(unexpected="ignore"))
    assert [leaf.why for leaf in user.unused] == ["ignored by the policy"]


def test_a_leaf_that_came_back_with_another_meaning_is_not_fed_by_the_one_that_went() -> None:
    gone = Version(2, policy=Policy(unexpected={"scale": "ignore"}))
    back = Version(3, policy=Policy(missing={"scale": "keep"}))
    plan = planned({"w": f32(2), "scale": f32(2) * 7}, {"w": f32(2), "scale": f32(2)}, gone, back)
    assert plan.ok and plan["scale"].action == "keep"
    assert [leaf.why for leaf in plan.unused] == [
        "version 2 has it no longer; the leaf of this name is a later one"
    ]
    np.testing.assert_array_equal(plan.load()["scale"], f32(2) * 7)
    zeroed = Version(3, policy=Policy(absent_is_zero=("scale",)))
    assert (
        planned({"scale": f32(2), "w": f32(2)}, {"w": f32(2), "scale": f32(2)}, gone, zeroed)["scale"].action
        == "zero"
    )


def test_what_is_forgiven_for_all_names_alike_drops_nothing_that_has_a_place() -> None:
    gone, back = Version(2, policy=Policy(unexpected="ignore")), Version(3, policy=Policy(missing="keep"))
    plan = planned({"w": f32(2)}, {"w": f32(2)}, gone, back)
    assert plan["w"].action == "load"


def test_a_version_may_bring_a_bias_that_is_zero_before_it() -> None:
    step = Version(2, policy=Policy(absent_is_zero=BIAS))
    dst, src = {"a": {"bias": f32(2), "w": f32(1)}}, {"a": {"w": f32(1)}}
    plan = planned(dst, src, step)
    assert plan["a/bias"].reason == "absent in the source, which means zero here, by version 1 → 2"
    np.testing.assert_array_equal(plan.load()["a"]["bias"], np.zeros(2))
    user = planned(dst, src, step, policy=Policy(absent_is_zero=BIAS))
    assert user["a/bias"].reason == "absent in the source, which means zero here"


def test_a_leaf_of_another_shape_is_kept_where_the_step_says_so() -> None:
    step = Version(2, rules=[Rename("head", "out")], policy=Policy(shape={"out": "keep"}))
    later = Version(3, rules=[Rename("out", "top")])
    plan = planned({"top": f32(3)}, {"head": f32(2)}, step, later)
    assert plan.ok and plan["top"].reason == "shapes differ, by version 1 → 3"
    assert not planned({"top": f32(3)}, {"out": f32(2)}, step, later, version=2).ok


def test_a_policy_of_a_scope_is_over_names_relative_to_its_nodes() -> None:
    step = Version(2, scope="**/norm", policy=Policy(missing={"scale": "keep"}))
    src = {"a": {"norm": {"b": f32(1)}}, "c": {"norm": {"b": f32(1)}}}
    dst = {name: {"norm": {"b": f32(1), "scale": f32(1)}} for name in "ac"}
    plan = planned(dst, src, step)
    assert plan.ok and plan["c/norm/scale"].reason == "missing in the source, by version 1 → 2 of **/norm"
    assert not planned({**dst, "scale": f32(1)}, src, step).ok


def test_a_step_may_allow_a_cast() -> None:
    step = Version(2, policy=Policy(casting={"ids": "unsafe"}))
    dst, src = {"ids": np.zeros(2, np.int32)}, {"ids": f32(2)}
    assert planned(dst, src, step).ok and not planned(dst, src, step, version=2).ok


def test_of_several_sources_only_those_with_steps_forgive() -> None:
    dst = {"a": {"w": f32(1), "scale": f32(1)}, "b": {"w": f32(1), "scale": f32(1)}}
    old, new = From({"w": f32(1)}, into="a", version=1), From({"w": f32(1)}, into="b", version=2)
    plan = treeload.plan(dst, [old, new], history=History(BROUGHT))
    assert [str(finding.name) for finding in plan.errors] == ["b/scale"]


def test_no_step_forgives_that_the_version_of_another_source_is_not_known() -> None:
    step = Version(2, policy=Policy(version="ignore"))
    parts = [From({"a": {"w": f32(1)}}, version=1), From({"w": f32(1)}, into="b")]
    plan = treeload.plan({"a": {"w": f32(1)}, "b": {"w": f32(1)}}, parts, history=History(step))
    assert [(finding.kind, str(finding.name)) for finding in plan.errors] == [("version", "b")]


def test_a_check_needs_no_values_for_what_is_kept() -> None:
    spec = jax.ShapeDtypeStruct((2,), np.float32)
    checked = History(BROUGHT).check({"w": spec}, {"w": spec, "scale": spec})
    assert checked.ok and checked["scale"].action == "keep"
    assert not History(BROUGHT).check({"w": spec}, {"w": spec, "scale": spec}, version=2).ok
