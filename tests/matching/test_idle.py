"""Rules and patterns that nothing came of, and what was meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treeload
from treeload import Apply, Concat, From, Policy, Rename, Rule, Stack, Tie, Transpose
from treeload._plans.entry import IdlePattern


def f32(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


SRC = {"blocks": {str(i): {"kernel": f32(2, 3), "bias": f32(3)} for i in range(4)}, "norm": {"scale": f32(3)}}
DST = {"layers": SRC["blocks"], "norm": SRC["norm"]}


def said(rule: Rule, src: Any = SRC) -> list[str]:
    """The ways to go on from a rule that does nothing, but for the last, which leaves it out."""
    (finding,) = [f for f in treeload.plan(DST, src, rules=[rule]).errors if f.rule == rule]
    return list(map(str, finding.remedies[:-1]))


@pytest.mark.parametrize(
    ("rule", "instead"),
    [
        (
            Rename("blocks", "layers"),
            "it names a subtree; for its 8 leaves: Rename('blocks/{*rest}', 'layers/{*rest}')",
        ),
        (
            Rename("blocks/{rest}", "layers/{rest}"),
            "it names a subtree; for its 8 leaves: "
            "Rename('blocks/{rest}/{*below}', 'layers/{rest}/{*below}')",
        ),
        (
            Rename("layers/{*rest}", "blocks/{*rest}"),
            "rules go from source to destination; turned round it matches 8: "
            "Rename('blocks/{*rest}', 'layers/{*rest}')",
        ),
        (
            Rename("layers/{i}/kernel", "blocks/{i}/kernel", Transpose()),
            "rules go from source to destination; turned round it matches 4: "
            "Rename('blocks/{i}/kernel', 'layers/{i}/kernel', Transpose())",
        ),
        (Rename("block/{*rest}", "layers/{*rest}"), "`blocks/{*rest}` matches 8 leaves of the source"),
        (Rename("norm/scaling", "norm/scale"), "near: norm/scale"),
    ],
    ids=repr,
)
def test_a_rule_that_matches_nothing_says_what_was_meant(rule: Rule, instead: str) -> None:
    assert said(rule) == [instead]


@pytest.mark.parametrize(
    "rule",
    [
        Rename("zzz/{*q}", "q/{*q}"),
        Rename(["zzz/{i}", "yyy/{i}"], "q/{i}", Apply(lambda a, b: a)),
        Concat(["zzz/q", "zzz/k"], "fused"),
    ],
    ids=["rename", "several", "concat"],
)
def test_where_nothing_is_near_nothing_is_said(rule: Rule) -> None:
    assert said(rule) == []


def test_a_stack_the_wrong_way_round_is_turned() -> None:
    src = {"layers": {"kernel": f32(4, 2, 3)}}
    (way,) = said(Stack("layers/{i}/kernel", "layers/kernel"), src)
    assert "turned round it matches 1: Unstack(" in way


def test_a_rule_whose_leaves_another_took_is_not_near_anything() -> None:
    plan = treeload.plan(
        DST, SRC, rules=[Rename("blocks/{*r}", "layers/{*r}"), Rename("blocks/{*r}", "b/{*r}")]
    )
    (finding,) = plan.errors
    assert "an earlier rule had taken" in finding.message
    assert not any("near" in str(way) or "matches" in str(way) for way in finding.remedies)


def test_what_the_rules_of_a_part_see_is_not_known() -> None:
    plan = treeload.plan(DST, From(SRC, rules=[Rename("blocks", "layers")]))
    (finding,) = [each for each in plan.errors if each.rule is not None]
    assert len(finding.remedies) == 1


def test_the_printed_rule_in_place_of_the_other_loads() -> None:
    plan = treeload.plan(DST, SRC, rules=[Rename("blocks", "layers")])
    (finding,) = [each for each in plan.errors if each.rule is not None]
    instead = eval(finding.remedies[0].code, {"Rename": Rename})
    assert treeload.plan(DST, SRC, rules=[instead]).ok


@pytest.mark.parametrize(
    ("policy", "idle"),
    [
        (Policy(missing={"head.*": "keep"}), ("missing", "head.*", "head/**")),
        (Policy(missing={"head": "keep"}), ("missing", "head", "head/**")),
        (Policy(casting={"haed/**": "unsafe"}), ("casting", "haed/**", "head/**")),
        (Policy(absent_is_zero=["bias"]), ("absent_is_zero", "bias", "**/bias")),
        (Policy(unexpected={"old/**": "ignore"}), ("unexpected", "old/**", None)),
    ],
    ids=["dot", "subtree", "typo", "zero", "nothing near"],
)
def test_a_pattern_of_the_policy_that_matches_no_name_is_told(
    policy: Policy, idle: tuple[str, str, str | None]
) -> None:
    dst = {"head": {"kernel": f32(2), "bias": f32(2)}, "w": f32(1)}
    plan = treeload.plan(dst, {"w": f32(1)}, policy=policy)
    (found,) = plan.idle()
    assert (found.setting, found.text, found.meant and found.meant.text) == idle
    assert isinstance(found, IdlePattern)
    written = f'{found.setting}={{"{found.text}": ...}}'
    if found.setting == "absent_is_zero":
        written = f'"{found.text}" in absent_is_zero'
    assert f"{written} of the policy matches no name" in " ".join(str(plan).split())


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(missing="keep"),
        Policy(missing={"head/**": "keep"}),
        Policy(absent_is_zero=treeload.BIAS),
        Policy(unexpected={"extra": "ignore"}),
        Policy(rule={"nowhere": "ignore"}),
        Policy(tie={"tied/b": "first"}),
    ],
)
def test_patterns_that_match_something_are_not(policy: Policy) -> None:
    shared = f32(2)
    dst = {"head": {"kernel": f32(2)}, "tied": {"a": shared, "b": shared}}
    src = {"extra": f32(1), "tied": {"a": f32(2)}}
    plan = treeload.plan(
        dst, src, rules=[Rename("nothing", "nowhere"), Tie("head/b", "tied/a")], policy=policy
    )
    assert plan.idle() == ()


def test_what_a_scope_was_to_be_is_said() -> None:
    dst = {"encoder": {"w": f32(2)}, "head": {"w": f32(2)}}
    for scope, way in {
        "encoder": 'names are matched whole: scope="encoder/**" matches 1 name',
        "zzz/**": "names are matched whole, so a subtree is 'encoder/**'; they begin with encoder, head",
    }.items():
        (finding,) = treeload.plan(dst, dst, scope=scope).errors
        assert finding.remedy == way
