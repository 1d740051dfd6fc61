"""Parts of sources, grafted somewhere; several sources at once; and what happens where they collide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treeload
from treeload import BIAS, From, LoadError, Policy, Rename, Reshape, RuleError, SourceError, Transpose


def full(value, *shape):
    return np.full(shape or (2,), value, np.float32)


def found(plan):
    return [(finding.kind, str(finding.name)) for finding in plan.findings]


def test_each_source_feeds_the_subtree_it_is_grafted_into():
    dst = {"encoder": {"w": full(0)}, "decoder": {"w": full(0)}}
    plan = treeload.plan(dst, [From({"w": full(1)}, into="encoder"), From({"w": full(2)}, into="decoder")])
    assert plan.ok and not plan.unused
    loaded = plan.load()
    assert loaded["encoder"]["w"][0] == 1 and loaded["decoder"]["w"][0] == 2


def test_subtree_then_its_own_rules_then_into_then_the_plans_rules():
    src = From(
        {"model": {"old": full(1, 2, 3)}, "optimizer": {"old": full(2)}},
        subtree="model",
        rules=Rename("old", "mid", Transpose()),
        into="net",
    )
    plan = treeload.plan({"top": {"new": full(0, 3, 2)}}, src, rules=Rename("net/mid", "top/new"))
    entry = plan["top/new"]
    assert plan.ok and str(entry.sources[0].name) == "model/old" and entry.ops == (Transpose(),)
    assert entry.rule == Rename("net/mid", "top/new")
    assert plan.load()["top"]["new"].shape == (3, 2)


def test_what_lies_outside_the_subtree_is_not_looked_at():
    plan = treeload.plan({"w": full(0)}, From({"a": {"w": full(1)}, "b": full(2), "c": None}, subtree="a"))
    assert plan.ok and not plan.unused


def test_findings_show_both_names():
    plan = treeload.plan(
        {"enc": {"w": full(0)}}, From({"m": {"w": full(1), "v": full(1, 3)}}, subtree="m", into="enc")
    )
    (finding,) = plan.findings
    assert finding.source is not None
    assert (finding.kind, str(finding.name), str(finding.source.name)) == ("unexpected", "enc/v", "m/v")
    assert "enc/v" in str(plan) and "m/v" in str(plan)


def test_policies_look_at_the_destinations_names():
    dst, src = {"enc": {"w": full(0)}}, From({"w": full(1), "v": full(1)}, into="enc")
    assert treeload.plan(dst, src, policy=Policy(unexpected={"enc/v": "ignore"})).ok
    assert not treeload.plan(dst, src, policy=Policy(unexpected={"v": "ignore"})).ok


def test_a_graft_carries_absences_statics_and_numbers_along():
    src = From({"m": {"bias": None, "act": "relu", "n": 3}}, subtree="m", into="x")
    dst = {"x": {"bias": full(7), "act": full(7), "n": 0}}
    plan = treeload.plan(dst, src, policy=Policy(absent_is_zero=BIAS))
    assert plan["x/bias"].action == "zero" and plan["x/n"].action == "load"
    assert found(plan) == [("structure", "x/act")]


def test_a_rule_that_renames_an_absent_slot_is_of_use():
    plan = treeload.plan(
        {"new": {"bias": None}}, {"old": {"bias": None}}, rules=Rename("old/bias", "new/bias")
    )
    assert not plan.findings
    src = From({"old": {"bias": None}, "w": full(1)}, rules=Rename("old/bias", "new/bias"))
    assert not treeload.plan({"new": {"bias": None}, "w": full(0)}, src).findings
    zeroed = treeload.plan(
        {"new": {"bias": full(7)}}, {"old": {"bias": None}}, rules=Rename("old/bias", "new/bias"),
        policy=Policy(absent_is_zero=BIAS),
    )  # fmt: skip
    assert zeroed["new/bias"].action == "zero" and zeroed.ok


# Collisions.


def test_two_sources_for_one_leaf_collide_and_the_first_wins_where_the_policy_says_so():
    sources = [From({"w": full(1)}), From({"w": full(2)})]
    plan = treeload.plan({"w": full(0)}, sources)
    assert found(plan) == [("collision", "w")] and plan["w"].action == "keep" and plan.coverage == 0
    with pytest.raises(LoadError) as caught:
        plan.load()
    assert caught.value.findings == plan.errors
    forgiven = treeload.plan({"w": full(0)}, sources, policy=Policy(collision={"w": "first"}))
    assert forgiven.ok and forgiven.load()["w"][0] == 1
    assert [leaf.why for leaf in forgiven.unused] == ["w feeds its destination leaf"]


FIRST = Policy(collision="first")


def winner(src, *rules, dst="w"):
    return float(treeload.load({dst: full(0)}, src, rules=rules, policy=FIRST)[dst][0])


def test_the_first_is_in_the_order_of_sources_then_rules_then_names():
    one, two = From({"a": full(1)}, rules=Rename("a", "w")), From({"w": full(2)})
    assert winner([one, two]) == 1 and winner([two, one]) == 2
    src = {"a": full(1), "b": full(2)}
    assert winner(src, Rename("a", "w"), Rename("b", "w")) == 1
    assert winner(src, Rename("b", "w"), Rename("a", "w")) == 2
    assert winner({"w": full(1), "x": full(2)}, Rename("x", "w")) == 2, "a rule is before no rule"
    indexed = {"layers": [full(index) for index in range(12)]}
    assert winner(indexed, Rename("layers/{i}", "w")) == 0
    assert winner({"layers": indexed["layers"][2:]}, Rename("layers/{i}", "w")) == 2
    text = {"layer": {str(index): full(index) for index in (10, 9)}}
    assert winner(text, Rename("layer/{i}", "w")) == 9, "indices sort as numbers"


def test_the_plans_rules_are_before_those_of_a_from():
    src = From({"a": full(1), "b": full(2)}, rules=Rename("a", "w"))
    assert winner(src, Rename("b", "w")) == 2


def test_a_collision_where_the_destination_has_nothing_is_unexpected_twice():
    plan = treeload.plan({"w": full(0)}, [From({"w": full(1), "x": full(1)}), From({"x": full(2)})])
    assert found(plan) == [("unexpected", "x"), ("unexpected", "x"), ("rule", "")]
    zero = Policy(absent_is_zero="x")
    two = treeload.plan(
        {"w": full(0)}, [From({"w": full(1), "x": full(0)}), From({"x": full(2)})], policy=zero
    )
    assert [f.kind for f in two.verify().findings] == ["absent"]


def test_a_collision_is_said_beside_what_else_is_wrong_with_the_leaf():
    plan = treeload.plan({"w": full(0)}, [From({"w": full(1, 3)}), From({"w": full(2)})])
    assert found(plan) == [("shape", "w"), ("collision", "w")]


def test_swapped_names_do_not_collide():
    rules = [Rename("a", "b"), Rename("b", "a")]
    loaded = treeload.load({"a": full(0), "b": full(0)}, {"a": full(1), "b": full(2)}, rules=rules)
    assert loaded["a"][0] == 2 and loaded["b"][0] == 1


# A From that feeds nothing.


@pytest.mark.parametrize(
    "idle",
    [
        From({"w": full(1)}, subtree="params"),
        From({"w": full(1)}, into="encoder"),
        From({}),
        From({"w": full(1)}, rules=Rename("w", "encoder/w")),
    ],
)
def test_a_from_that_feeds_nothing_is_a_rule_finding(idle):
    plan = treeload.plan({"v": full(0)}, [From({"v": full(1)}), idle], policy=Policy(unexpected="ignore"))
    (finding,) = plan.errors
    assert finding.kind == "rule" and "feeds no leaf" in finding.message
    assert tuple(finding.name) == tuple(idle.into)


def test_its_message_says_what_the_source_has_instead_of_the_subtree():
    (finding,) = treeload.plan({}, From({"model": {"w": full(1)}}, subtree="params")).findings
    assert "'params'" in finding.message and "the source has model" in finding.message


@pytest.mark.parametrize(
    ("dst", "second"),
    [
        ({"v": full(0), "w": full(0)}, From({"w": full(1, 3)})),
        ({"v": full(0), "w": full(0)}, From({"v": full(1)})),
        ({"v": full(0)}, From({"bias": full(0)})),
        ({"v": full(0), "bias": None}, From({"bias": full(0)})),
        ({"v": full(0), "w": full(0)}, From({"x": full(1)}, rules=Rename("x", "w", Reshape(7)))),
    ],
)
def test_a_from_whose_leaf_has_a_finding_or_a_check_of_its_own_is_not_idle(dst, second):
    plan = treeload.plan(
        dst, [From({"v": full(1)}), second], policy=Policy(missing="keep", absent_is_zero=BIAS)
    )
    assert not any("feeds no leaf" in finding.message for finding in plan.findings)


def test_a_from_outside_the_scope_is_not_idle_and_one_that_is_idle_is_said_all_the_same():
    sources = [From({"v": full(1)}), From({"w": full(1)}), From({})]
    plan = treeload.plan({"v": full(0), "w": full(0)}, sources, scope="v")
    assert len(plan.findings) == 1
    assert treeload.plan({"v": full(0), "w": full(0)}, sources[:2], scope="v").ok


# Rules that fail, among several sources.


def test_a_failed_rule_names_the_leaf_of_the_right_source():
    sources = [
        From({"w": full(1)}, into="a"),
        From({"w": full(2, 5)}, rules=Rename("w", "w", Reshape(2)), into="b"),
    ]
    (finding,) = treeload.plan({"a": {"w": full(0)}, "b": {"w": full(0)}}, sources).findings
    found: Any = finding.found
    assert (finding.kind, str(finding.name), found.shape) == ("rule", "b/w", (5,))


def test_a_failed_rules_name_is_the_destinations_also_after_the_plans_rules():
    src = From({"w": full(1, 5)}, rules=Rename("w", "v", Reshape(2)), into="b")
    policy = Policy(rule={"c/v": "ignore"}, missing={"c/v": "keep"})
    plan = treeload.plan({"c": {"v": full(0)}}, src, rules=Rename("b/{*rest}", "c/{*rest}"), policy=policy)
    assert ("rule", "c/v") in found(plan) and plan["c/v"].action == "keep"


def test_a_rule_of_a_from_that_matched_nothing_is_named_below_into():
    src = From({"w": full(1)}, rules=Rename("x", "y"), into="enc")
    (finding,) = treeload.plan({"enc": {"w": full(0)}}, src).findings
    assert (finding.kind, str(finding.name)) == ("rule", "enc/y")
    assert treeload.plan({"enc": {"w": full(0)}}, src, policy=Policy(rule={"enc/*": "ignore"})).ok


def test_a_leaf_whose_rule_failed_is_unused_and_neither_missing_nor_unexpected():
    plan = treeload.plan({"w": full(0)}, {"x": full(1)}, rules=Rename("x", "w", Reshape(7)))
    assert found(plan) == [("rule", "w")]
    assert [(str(leaf.name), str(leaf.at), leaf.why) for leaf in plan.unused] == [
        ("x", "w", "its rule could not be applied")
    ]


# How sources are written.


def test_sources_may_be_trees_sources_and_froms_side_by_side(tmp_path):
    treeload.save(tmp_path / "a", {"a": full(1)})
    dst = {"a": full(0), "b": full(0)}
    for sources in (
        [From(tmp_path / "a"), From({"b": full(2)})],
        [treeload.open(tmp_path / "a"), From({"b": full(2)})],
    ):
        assert [float(leaf[0]) for leaf in treeload.load(dst, sources).values()] == [1, 2]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: From(From({})), "not of another From"),
        (lambda: From({}, separator=""), r"separator=''\) splits nothing"),
        (lambda: From({}, rules=["a"]), r"From\(rules=...\) takes rules, such as Rename\(...\), not 'a'"),  # type: ignore[list-item]
        (lambda: From({}, into="a//b"), "empty segment"),
    ],
)
def test_a_from_that_cannot_mean_anything_is_refused(make, said):
    with pytest.raises(RuleError, match=said):
        make()


def test_a_separator_splits_the_names_of_a_flat_dict():
    assert treeload.load({"a": {"b": full(0)}}, From({"a.b": full(1)}, separator="."))["a"]["b"][0] == 1


class Broken(treeload.Source):
    label = "a broken source"

    def specs(self):
        raise OSError("the disk is gone")

    def read(self, requests):
        yield from ()


@pytest.mark.parametrize("src", [Broken(), From(Broken()), [From({}), From(Broken(), into="x")]])
def test_a_source_that_cannot_say_what_it_holds_is_a_source_error_with_its_cause(src):
    with pytest.raises(SourceError, match="a broken source.*the disk is gone") as caught:
        treeload.plan({"w": full(0)}, src)
    assert isinstance(caught.value.__cause__, OSError)
