"""The ways to go on: what each says, code that can be pasted, and one way for many names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import Cast, Finding, Name, Policy, Rename, Transpose
from treeload._findings.kinds import Kind
from treeload._findings.remedy import (
    PLAINLY,
    Advice,
    CastAnyway,
    Forgive,
    Remedy,
    UseOps,
    Widening,
    Zeros,
    cast_anyway,
    if_zero,
    ignore_rule,
    keep_own,
    leave_out,
    leave_out_nonzero,
    looks_like_bias,
    take_first,
    zeros,
)
from treeload._reports.problems import problems
from treeload._reports.ways import ways

NAME = Name(("enc", "w"))
EVIL = Name(('a"b', "c\\d", "e/f", "{g}", "h*", "\x1b[31m", "; "))

SAID: list[tuple[Remedy, str, Any]] = [
    (Advice("correct the scope"), "correct the scope", None),
    (
        keep_own(Kind.SHAPE, NAME),
        'to keep the destination\'s own: Policy(shape={"enc/w": "keep"})',
        Policy(shape={"enc/w": "keep"}),
    ),
    (take_first(Kind.TIE, NAME), 'to take the first: Policy(tie={"enc/w": "first"})',
     Policy(tie={"enc/w": "first"})),
    (
        take_first(Kind.COLLISION, NAME, "the array", besides=", or rename one"),
        'to take the array: Policy(collision={"enc/w": "first"}), or rename one',
        Policy(collision={"enc/w": "first"}),
    ),
    (leave_out(NAME), 'to leave it out: Policy(unexpected={"enc/w": "ignore"})',
     Policy(unexpected={"enc/w": "ignore"})),
    (
        leave_out_nonzero(NAME),
        "to leave it out anyway: take the pattern for it out of absent_is_zero, and "
        'Policy(unexpected={"enc/w": "ignore"})',
        Policy(unexpected={"enc/w": "ignore"}),
    ),
    (
        ignore_rule("correct the rule", "layers/{i}"),
        'correct the rule, or Policy(rule={"layers/{i}": "ignore"})',
        Policy(rule={"layers/{i}": "ignore"}),
    ),
    (zeros(NAME), 'for zeros: Policy(absent_is_zero=("enc/w",))', Policy(absent_is_zero=("enc/w",))),
    (if_zero(NAME), 'if it must be zero: Policy(absent_is_zero=("enc/w",))',
     Policy(absent_is_zero=("enc/w",))),
    (cast_anyway(NAME), 'to cast anyway: Policy(casting={"enc/w": "unsafe"})',
     Policy(casting={"enc/w": "unsafe"})),
    (UseOps((Transpose(),), why="turned:"), "turned: Transpose() in a Rename", Transpose()),
    (
        UseOps((Transpose(1, 0),), ("enc/w",)),
        'to go on: Rename("enc/w", "enc/w", Transpose(1, 0))',
        Rename("enc/w", "enc/w", Transpose(1, 0)),
    ),
]  # fmt: skip

FOR_NAMES = [
    Forgive(Kind.MISSING, "keep", ("a",), "to keep it:", ", or not"),
    CastAnyway(("a",)),
    Zeros(("a",), "for zeros:"),
    UseOps((Cast("float16"),), ("a",), "smaller:"),
]


def evaluated(code: str) -> Any:
    return eval(code, {name: getattr(treeload, name) for name in treeload.__all__})


@pytest.mark.parametrize(("way", "text", "value"), SAID)
def test_a_way_is_words_and_code_that_means_what_they_say(way: Remedy, text: str, value: Any) -> None:
    assert str(way) == text
    assert f"{way.before} {way.code}".strip() + way.after == text
    assert (way.code == "") == (value is None)
    if value is not None:
        assert evaluated(way.code) == evaluated("\n".join(way.lines)) == value


@pytest.mark.parametrize("way", [way for way, _, _ in SAID])
def test_a_way_is_data(way: Remedy) -> None:
    assert way in {way} and replace(way) == way  # type: ignore[type-var]


@pytest.mark.parametrize("make", [lambda name: keep_own(Kind.MISSING, name), zeros, cast_anyway])
def test_a_way_for_a_name_is_for_no_other_whatever_its_keys_hold(make: Any) -> None:
    policy = evaluated(make(EVIL).code)
    there = (policy.verdict("missing", str(EVIL)), policy.verdict("casting", str(EVIL)))
    assert there != ("error", "same_kind") or policy.zero_if_absent(str(EVIL))
    other = str(Name((*EVIL[:4], "hx", *EVIL[5:])))
    assert (policy.verdict("missing", other), policy.verdict("casting", other)) == ("error", "same_kind")
    assert not policy.zero_if_absent(other)


@pytest.mark.parametrize("way", FOR_NAMES)
def test_a_way_for_many_names_is_one_piece_of_code(way: Remedy) -> None:
    merged = way.merged(["a", "layers/*/b"])
    assert merged.patterns == ("a", "layers/*/b")
    assert (merged.before, merged.after) == (way.before, way.after)
    assert type(merged) is type(way) and merged.merged(["a"]) == way
    assert evaluated(merged.code) == evaluated("\n".join(merged.lines))
    assert len(merged.lines) == 4  # where it begins, the two patterns, where it ends
    assert "..." in merged.outline and "layers" not in merged.outline


def test_what_many_names_are_for_means_each_of_them() -> None:
    patterns = ["a", "layers/*/b"]
    policy = evaluated(Forgive(Kind.MISSING, "keep", ("a",)).merged(patterns).code)
    assert [policy.verdict("missing", name) for name in ("a", "layers/3/b", "b")] == ["keep", "keep", "error"]
    policy = evaluated(Zeros(("a",)).merged(patterns).code)
    assert [policy.zero_if_absent(name) for name in ("a", "layers/3/b", "b")] == [True, True, False]


def test_an_op_for_many_names_is_a_rename_for_each_pattern_that_gives_every_name_back() -> None:
    rules = evaluated(UseOps((Transpose(),)).merged(["a", "x/*/**/b_*", r"st\*r/k"]).code)
    names = [("a",), ("x", "1", "y", "z", "b_2"), ("x", "1", "b_2"), ("st*r", "k")]
    assert [[rule.rename(name) for rule in rules if rule.rename(name)] for name in names] == [
        [name] for name in names
    ]
    assert all(rule.ops == (Transpose(),) for rule in rules)


def test_a_way_without_names_stays_what_it_is() -> None:
    advice = Advice("correct the scope")
    assert advice.merged(["a", "b"]) == advice.plainly() == advice and advice.patterns == ()
    assert UseOps((Transpose(),)).code == UseOps((Transpose(),)).outline == "Transpose()"


@pytest.mark.parametrize("way", FOR_NAMES)
def test_said_plainly_a_way_does_the_same(way: Remedy) -> None:
    plain = way.plainly()
    assert (plain.code, plain.patterns) == (way.code, way.patterns)
    assert plain == way or (plain.before, plain.after) == (PLAINLY, "")


def test_what_is_for_one_kind_may_be_for_a_subtree_and_what_is_not_may_not() -> None:
    assert [way.widening for way in FOR_NAMES] == [
        Widening.SUBTREE, Widening.SUBTREE, Widening.LAST_KEY, Widening.NONE,
    ]  # fmt: skip


def test_a_bias_is_known_by_its_last_key() -> None:
    vector = jax.ShapeDtypeStruct((3,), np.float32)
    assert all(looks_like_bias(name, vector) for name in [("a", "bias"), ("b",)])
    assert not any(looks_like_bias(name, vector) for name in [(), ("bias", "k"), ("attn_bias",)])


@pytest.mark.parametrize(("shape", "dtype"), [((1, 1, 4, 4), np.float32), ((4,), bool), ((4,), np.int32)])
def test_a_causal_mask_or_a_count_is_no_bias_whatever_it_is_called(shape, dtype) -> None:
    assert not looks_like_bias(("attn", "bias"), jax.ShapeDtypeStruct(shape, dtype))


def test_a_finding_prints_its_ways_one_after_another() -> None:
    finding = Finding(
        Kind.SHAPE, NAME, "error", remedies=(UseOps((Transpose(),), why="turned:"), Advice("wait"))
    )
    assert finding.remedy == "turned: Transpose() in a Rename; wait"
    assert Finding(Kind.SHAPE, NAME, "error").remedy == ""


# In reports.


def told(*findings: Finding) -> list[str]:
    """The ways to go on from these, as a report has them."""
    plan = treeload.plan({"w": np.zeros(2)}, {"w": np.zeros(2)}).with_findings(findings=findings)
    (same,) = problems(plan, plan.findings).values()
    return [f"{way.whole_before} {way.code.whole}".strip() + way.after for way in ways(same)]


def test_a_way_that_is_open_to_some_alone_says_to_whom() -> None:
    a = Finding(Kind.DTYPE, Name(("a",)), "error", message="x", remedies=(Advice("wait"),))
    b = Finding(Kind.DTYPE, Name(("b",)), "error", message="y")
    assert told(a, b) == ["for a: wait"]
    assert told(a, replace(b, remedies=a.remedies)) == ["wait"]


def test_a_way_that_is_said_otherwise_of_each_leaf_of_one_problem_is_said_plainly() -> None:
    names = [Name(("a", str(number))) for number in range(2)]
    same = [
        Finding(Kind.TIE, name, "error", remedies=(take_first(Kind.TIE, name, f"number {name[-1]}"),))
        for name in names
    ]
    assert told(*same) == ['to go on: Policy(tie={"a/*": "first"})']
    assert told(same[0]) == ['to take number 0: Policy(tie={"a/0": "first"})']


def test_a_way_that_one_leaf_of_a_problem_lacks_is_none_for_the_problem() -> None:
    bias, kernel = Name(("a", "bias")), Name(("a", "kernel"))
    assert told(
        Finding(Kind.MISSING, bias, "error", remedies=(zeros(bias), keep_own(Kind.MISSING, bias))),
        Finding(Kind.MISSING, kernel, "error", remedies=(keep_own(Kind.MISSING, kernel),)),
    ) == ['to keep the destination\'s own: Policy(missing={"a/**": "keep"})']


def test_rules_that_did_nothing_are_forgiven_in_one_piece_of_code() -> None:
    rules = [Rename("{i}/x", "a/{i}"), Rename("{i}/y", "b/{i}")]
    plan = treeload.plan({"w": np.zeros(2)}, {"w": np.zeros(2)}, rules=rules)
    assert told(*plan.findings) == [
        'correct the rule or leave it out, or Policy(rule={"a/{i}": "ignore", "b/{i}": "ignore"})'
    ]
    policy = evaluated(ways(problems(plan, plan.findings)[Kind.RULE])[0].code.whole)
    assert treeload.plan({"w": np.zeros(2)}, {"w": np.zeros(2)}, rules=rules, policy=policy).ok


def test_code_for_named_leaves_and_code_for_the_rules_of_others_are_two_ways() -> None:
    dst = {"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}
    src = {"a": np.zeros((3, 2)), "c": np.zeros((3, 2))}
    plan = treeload.plan(dst, src, rules=Rename("c", "b"))
    assert told(*plan.findings)[:2] == [
        "for b: they match if transposed: Transpose() in a Rename",
        'they match if transposed: Rename("a", "a", Transpose())',
    ]


def test_many_biases_are_told_by_their_last_key_and_many_kernels_by_their_subtree() -> None:
    words = ["one", "two", "three", "four", "five"]
    biases = [Name((word, "x", "bias")) for word in words]
    (for_zeros, keep) = told(
        *(
            Finding(Kind.MISSING, name, "error", message=name[0],
                    remedies=(zeros(name), keep_own(Kind.MISSING, name)))
            for name in biases
        )
    )  # fmt: skip
    assert for_zeros == 'for zeros: Policy(absent_is_zero=("**/bias",))'
    assert all(f'"{word}/x/bias": "keep"' in keep for word in words)


@dataclass(frozen=True)
class AskSomebody(Remedy):
    """A way that no file of treeload knows."""

    who: str
    patterns: tuple[str, ...] = ()

    widening = Widening.SUBTREE

    @property
    def before(self) -> str:
        return f"ask {self.who}:"

    def _parts(self) -> tuple[str, list[str], str]:
        return "Name((", [repr(pattern) for pattern in self.patterns], "))"

    def merged(self, patterns: Any) -> AskSomebody:
        return replace(self, patterns=tuple(patterns))


def test_a_new_way_touches_one_file() -> None:
    names = [Name(("a", str(number))) for number in range(2)] + [Name(("b",))]
    found = [
        Finding(Kind.RULE, name, "error", message="x", remedies=(AskSomebody("Ada", (str(name),)),))
        for name in names
    ]
    assert told(*found) == ["ask Ada: Name(('a/*', 'b'))"]
    assert found[0].remedy == "ask Ada: Name(('a/0'))"
    plan = treeload.plan({"w": np.zeros(2)}, {"w": np.zeros(2)}).with_findings(findings=found)
    assert "ask Ada: Name(('a/*', 'b'))" in str(plan) and "ask Ada" in plan._repr_html_()
    assert plan.to_dict()["findings"][2]["remedies"] == [
        {"before": "ask Ada:", "code": "Name(('b'))", "after": ""}
    ]
