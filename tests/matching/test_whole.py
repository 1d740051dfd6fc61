"""What can only be said once every leaf is decided: of rules, sources and the scope as a whole."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
import pytest

from treeload import From, Policy, Rename, Transpose
from treeload._matching.match import match
from treeload._matching.parts import opened_parts
from treeload._plans.decisions import Decisions
from treeload._rules import apply
from treeload._trees.walk import walk

SPEC = jax.ShapeDtypeStruct((2,), np.float32)


def one(size: int = 2) -> Any:
    return np.ones(size, np.float32)


def matched(
    dst: Any, src: Any, *rules: Any, policy: Policy = Policy(), scope: Any = None  # noqa: B008
) -> Decisions:  # fmt: skip
    return match(walk(dst), opened_parts(src, "plan"), rules=rules, policy=policy, scope=scope)


def said(found: Decisions) -> list[tuple[str, str]]:
    return [(str(finding.kind), str(finding.name)) for finding in found.findings]


# Rules.


@pytest.mark.parametrize(("text", "name"), [("new/{*r}", "new/{*r}"), ("new", "new")])
def test_a_rule_that_matched_nothing_is_a_finding_where_it_was_to_lead(text: str, name: str) -> None:
    found = matched({"a": one()}, {"a": one()}, Rename("old/{*r}" if "{" in text else "old", text))
    assert said(found) == [("rule", name)] and "matched nothing" in found.findings[0].message
    assert found.findings[0].source is None


def test_a_rule_that_matched_nothing_is_ignored_by_the_place_it_was_to_lead_to() -> None:
    part = From({"a": one()}, rules=Rename("old", "new"), into="n")
    policy = Policy(rule={"n/new": "ignore"}, unexpected="ignore")
    found = matched({"n": {"a": one()}}, part, policy=policy)
    assert said(found) == [("rule", "n/new")] and found.ok


def test_a_rule_that_could_not_be_applied_names_its_leaf_which_is_then_unused() -> None:
    found = matched({"a": one()}, {"old": one()}, Rename("old", "a", Transpose(2, 1, 0)))
    (finding,) = found.findings
    assert (finding.kind, str(finding.name), finding.found) == ("rule", "a", SPEC)
    assert finding.source is not None and str(finding.source) == "old"
    assert [(str(leaf.name), str(leaf.at), leaf.why) for leaf in found.unused] == [
        ("old", "a", "its rule could not be applied")
    ]


# Scopes.


def test_each_pattern_of_a_scope_that_is_no_leafs_is_a_finding() -> None:
    found = matched({"a": one()}, {"a": one()}, scope=["a", "x/**", "y"])
    assert said(found) == [("rule", "x/**"), ("rule", "y")]


def test_a_pattern_that_matches_a_leaf_of_the_source_alone_is_of_use() -> None:
    assert not matched(
        {"a": one()}, {"a": one(), "b": one()}, scope=["a", "b"], policy=Policy(unexpected="ignore")
    ).errors


def test_a_predicate_that_holds_nothing_is_no_finding() -> None:
    assert not matched({"a": one()}, {"a": one()}, scope=lambda name, spec: False).findings


def test_an_expression_that_makes_no_name_is_named_by_its_text() -> None:
    (finding,) = matched({"a": one()}, {"a": one()}, scope=re.compile("//+")).findings
    assert tuple(finding.name) == ("//+",)


# Froms.


def idle(found: Decisions) -> list[str]:
    return [finding.message for finding in found.findings if "feeds no leaf" in finding.message]


def test_a_source_that_feeds_nothing_is_a_finding_whatever_is_forgiven() -> None:
    policy = Policy(missing="keep", unexpected="ignore")
    assert idle(matched({"a": one()}, From({"b": one()}), policy=policy)) == [
        "From(a tree in memory) feeds no leaf of the destination"
    ]
    assert idle(matched({"a": one()}, {"b": one()}, policy=policy)) == [
        "a tree in memory feeds no leaf of the destination"
    ]
    assert not idle(matched({"a": one()}, {"b": one()}))  # its missing and unexpected leaves say it
    for src, way in (({"b": one()}, "write rules"), (From({"b": one()}), "leave the From out")):
        (found,) = (
            each for each in matched({"a": one()}, src, policy=policy).findings if each.kind == "rule"
        )
        assert way in found.remedy


def test_a_subtree_that_is_not_there_is_named_with_what_the_source_has() -> None:
    src = From({"x": {"a": one()}, "y": one()}, subtree="z")
    (message,) = idle(matched({"a": one()}, src, policy=Policy(missing="keep")))
    assert message.startswith("From(subtree 'z' of a tree in memory)")
    assert message.endswith("; the source has x, y")


@pytest.mark.parametrize(
    "src",
    [
        From({"a": one()}),
        From({"a": one(3)}),
        From({"a": {"w": one()}}, rules=Rename("a/w", "a")),
        From({"x": one()}, rules=Rename("x", "a", Transpose(2, 1, 0))),
        From({"act": 3}),
        From({"on": False}),
    ],
)
def test_a_from_whose_leaf_came_to_its_place_is_not_idle(src: Any) -> None:
    dst = {"a": one(), "act": "relu", "on": True}
    assert not idle(matched(dst, src, policy=Policy(missing="keep", unexpected="ignore")))


def test_a_from_that_is_all_outside_the_scope_is_not_idle_and_an_empty_one_is() -> None:
    dst = {"a": one(), "b": one()}
    src = [From({"a": one()}), From({"b": one()})]
    assert not idle(matched(dst, src, scope="a"))
    assert len(idle(matched(dst, [*src, From({})], scope="a"))) == 1


def test_a_from_that_loses_every_collision_is_not_idle() -> None:
    src = [From({"a": one()}), From({"a": one()})]
    assert not idle(matched({"a": one()}, src, policy=Policy(collision="first")))


def test_a_miscount_by_position_is_one_finding_and_no_idle_from() -> None:
    found = matched({"n": {"a": one(), "b": one(3)}}, From([one()], into="n", by_position=True))
    assert said(found) == [("rule", "n")] and found.findings[0].expected == "2 arrays"
    assert found.findings[0].found == "1 array" and "2 leaves below n" in found.findings[0].message


# What is kept and holds nothing.


def test_a_leaf_that_is_kept_and_abstract_is_a_finding_with_why_it_is_kept() -> None:
    found = matched({"a": SPEC}, {}, policy=Policy(missing="keep"))
    assert said(found) == [("missing", "a"), ("abstract", "a")]
    assert "it is to be kept (missing in the source)" in found.findings[1].message


def test_its_own_error_or_one_above_it_comes_first() -> None:
    assert said(matched({"a": SPEC}, {})) == [("missing", "a")]
    assert said(matched({"n": {"a": SPEC}}, {"n": one()})) == [("structure", "n")]


def test_a_concrete_leaf_that_is_kept_has_a_value() -> None:
    assert said(matched({"a": one()}, {}, policy=Policy(missing="keep"))) == [("missing", "a")]


# Near names.


def test_what_is_missing_and_what_is_left_over_know_each_other() -> None:
    found = matched({"enc": {"kernel": one()}}, {"encoder": {"kernel": one()}})
    near = {str(finding.kind): [str(name) for name in finding.near] for finding in found.findings}
    assert near == {"missing": ["encoder/kernel"], "unexpected": ["enc/kernel"]}


def test_where_one_side_has_no_finding_there_is_nothing_near() -> None:
    found = matched({"enc": {"kernel": one()}, "a": one()}, {"a": one(3)})
    assert all(not finding.near for finding in found.findings)


# Rules in the wrong order.

GENERAL = Rename("encoder/{*r}", "enc/{*r}")
SPECIAL = Rename("encoder/weight", "enc/kernel", Transpose())
ENCODER = {"encoder": {"weight": np.ones((3, 2), np.float32), "bias": one(3)}}
WANTED = {"enc": {"kernel": np.ones((2, 3), np.float32), "bias": one(3)}}


def about_rules(found: Decisions) -> list[str]:
    return [finding.remedy for finding in found.findings if finding.kind == "rule"]


@pytest.mark.parametrize("inside", [False, True])
def test_a_rule_whose_leaves_an_earlier_one_takes_is_to_be_put_before_it(inside: bool) -> None:
    def made(*rules: Any) -> Decisions:
        if inside:
            return matched({"m": WANTED}, From(ENCODER, rules=rules, into="m"))
        return matched(WANTED, ENCODER, *rules)

    (said,) = about_rules(made(GENERAL, SPECIAL))
    assert (
        said.startswith("put it before Rename('encoder/{*r}', 'enc/{*r}'); to ignore") and "Copy" not in said
    )
    assert made(SPECIAL, GENERAL).ok


@pytest.mark.parametrize(
    "rules",
    [
        (GENERAL, Rename("encoder/weight", "enc/kernal", Transpose())),  # leads nowhere there either
        (Rename("encoder/bias", "enc/bias"), Rename("encoder/bias", "enc/kernel")),  # that one would be idle
        (GENERAL, Rename("encoder/bias", "enc/kernel")),  # what loads now would not any more
        (GENERAL, Rename("encoder/weight", "enc/kernel", Transpose(2, 1, 0))),  # cannot be applied
    ],
    ids=["typo", "idle", "loses", "fault"],
)
def test_an_order_that_helps_nothing_is_not_spoken_of(rules: tuple[Any, ...]) -> None:
    (said,) = about_rules(matched(WANTED, ENCODER, *rules))
    assert "put it before" not in said and "as a Copy" in said


def test_among_very_many_leaves_no_order_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "_TRIED", 3)
    (said,) = about_rules(matched(WANTED, ENCODER, GENERAL, SPECIAL))
    assert "as a Copy" in said
