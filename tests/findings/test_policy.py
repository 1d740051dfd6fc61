"""What is forgiven: a verdict for all names, or by pattern; nothing by default; never a typo."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from typing import Any

import pytest

from treeload import BIAS, Name, Policy, RuleError, TreeloadError
from treeload._findings.kinds import KINDS

# Section 5 of the design, the default first; ``absent`` and ``abstract`` can only be errors.
TABLE = {
    "missing": ("error", "keep"),
    "unexpected": ("error", "ignore"),
    "shape": ("error", "keep"),
    "dtype": ("error", "keep"),
    "casting": ("same_kind", "no", "equiv", "safe", "unsafe"),
    "structure": ("error", "keep"),
    "tie": ("error", "first"),
    "collision": ("error", "first"),
    "rule": ("error", "ignore"),
    "version": ("error", "ignore"),
}
WORDS = {"error", "keep", "ignore", "first", "same_kind", "no", "equiv", "safe", "unsafe", "Keep", "", "warn"}
ALLOWED = [(kind, verdict) for kind, verdicts in TABLE.items() for verdict in verdicts]
REFUSED = [(kind, word) for kind, verdicts in TABLE.items() for word in sorted(WORDS - {*verdicts})]


def test_every_kind_of_finding_has_its_verdicts() -> None:
    findings = {kind: verdicts for kind, verdicts in TABLE.items() if kind != "casting"}
    only = dict.fromkeys(("absent", "abstract", "values"), ("error",))
    assert {**findings, **only} == {kind: manner.verdicts for kind, manner in KINDS.items()}


def test_settings_and_defaults_are_those_of_the_design() -> None:
    settings = {field.name: field.default for field in dataclasses.fields(Policy) if field.init}
    assert settings == {kind: verdicts[0] for kind, verdicts in TABLE.items()} | {"absent_is_zero": ()}


@pytest.mark.parametrize("kind", [*TABLE, "absent", "abstract"])
def test_by_default_nothing_is_forgiven(kind: str) -> None:
    assert Policy().verdict(kind, "any/name") == TABLE.get(kind, ("error",))[0]
    assert not Policy().zero_if_absent("any/bias")


@pytest.mark.parametrize(("kind", "verdict"), ALLOWED)
def test_a_verdict_holds_for_every_name_or_for_those_of_a_pattern(kind: str, verdict: str) -> None:
    everywhere, somewhere = Policy(**{kind: verdict}), Policy(**{kind: {"head/**": verdict}})
    for name in ("", "head", "head/kernel", "trunk"):
        assert everywhere.verdict(kind, name) == verdict
        expected = verdict if name.startswith("head") else TABLE[kind][0]
        assert somewhere.verdict(kind, name) == expected


@pytest.mark.parametrize(("kind", "verdict"), ALLOWED)
def test_a_verdict_on_one_kind_leaves_the_others_alone(kind: str, verdict: str) -> None:
    policy = Policy(**{kind: verdict})
    assert all(policy.verdict(other, "x") == TABLE[other][0] for other in TABLE if other != kind)


@pytest.mark.parametrize(("kind", "word"), REFUSED)
def test_an_unknown_verdict_is_a_rule_error_when_the_policy_is_made(kind: str, word: str) -> None:
    for setting in (word, {"head/**": word}, {"a": TABLE[kind][1], "b": word}):
        with pytest.raises(RuleError, match=rf"Policy\({kind}=...\)") as raised:
            Policy(**{kind: setting})
        assert all(repr(verdict) in str(raised.value) for verdict in TABLE[kind])
        assert isinstance(raised.value, ValueError)
        assert isinstance(raised.value, TreeloadError)


@pytest.mark.parametrize("value", [None, True, False, 0, [], ("keep",), ["keep"], {"a": None}, {"a": True}])
def test_what_is_no_verdict_at_all_is_a_rule_error(value: Any) -> None:
    with pytest.raises(RuleError, match=r"Policy\(missing=...\) takes 'error', 'keep', or a mapping"):
        Policy(missing=value)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("layers/{i", "lone '{'"),
        ("a//b", "empty segment"),
        ("a**b", "stands alone"),
        ("a/", "ends in '/'"),
        ("{*}", "without a proper name"),
        (3, "a pattern is a string.*not 3"),
        (None, "a pattern is a string.*not None"),
        (re.compile(b"x"), "a regular expression of str"),
        ((1,), r"a pattern is a string.*not \(1,\)"),
    ],
)
def test_a_bad_pattern_is_a_rule_error_when_the_policy_is_made(pattern: Any, said: str) -> None:
    with pytest.raises(RuleError, match=said):
        Policy(missing={pattern: "keep"})
    with pytest.raises(RuleError, match=said):
        Policy(absent_is_zero=(pattern,))


def test_an_unknown_setting_is_a_type_error() -> None:
    for unknown in ("strict", "absent", "abstract", "mising"):
        with pytest.raises(TypeError, match=unknown):
            Policy(**{unknown: "error"})


def test_of_several_patterns_the_first_that_matches_wins() -> None:
    policy = Policy(missing={"head/bias": "error", "head/**": "keep", "**": "error"})
    assert policy.verdict("missing", "head/bias") == "error"
    assert policy.verdict("missing", "head/kernel") == "keep"
    assert policy.verdict("missing", "trunk/kernel") == "error"
    turned = Policy(missing={"**": "error", "head/**": "keep"})
    assert turned.verdict("missing", "head/kernel") == "error"


def test_casting_may_differ_by_name() -> None:
    policy = Policy(casting={"step": "unsafe", "**/scale": "no"})
    castings = [policy.verdict("casting", name) for name in ("step", "a/scale", "a")]
    assert castings == ["unsafe", "no", "same_kind"]


def test_a_pattern_may_be_an_expression_a_name_or_a_tuple() -> None:
    missing: dict[Any, str] = {re.compile("h.*"): "keep", Name(("a*", "b")): "keep", ("c/d",): "keep"}
    policy = Policy(missing=missing)
    assert [policy.verdict("missing", name) for name in ("head/x", "a*/b", "ax/b", r"c\/d", "c/d")] == [
        "keep", "keep", "error", "keep", "error"
    ]  # fmt: skip


def test_bias_is_the_usual_names_of_biases() -> None:
    assert BIAS == ("**/bias", "**/b")
    policy = Policy(absent_is_zero=BIAS)
    assert all(map(policy.zero_if_absent, ("bias", "b", "a/b/bias", "a/b")))
    assert not any(map(policy.zero_if_absent, ("", "biases", "bias/x", "b/kernel", "a/attn_bias")))


def test_absent_is_zero_takes_one_pattern_any_iterable_of_them_and_keeps_a_tuple() -> None:
    for patterns in ("**/bias", ["**/bias"], iter(["**/bias"]), {"**/bias"}, ("**/bias",)):
        policy = Policy(absent_is_zero=patterns)  # type: ignore[arg-type]
        assert policy.absent_is_zero == ("**/bias",)
        assert policy.zero_if_absent("a/bias")
    expression = re.compile(".*bias")
    assert Policy(absent_is_zero=expression).absent_is_zero == (expression,)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, True, 1, {"**/bias": True}, {"**/bias": False}])
def test_absent_is_zero_refuses_what_is_no_collection_of_patterns(value: Any) -> None:
    with pytest.raises(RuleError, match="absent_is_zero"):
        Policy(absent_is_zero=value)


@pytest.mark.parametrize("setting", ["missing", "absent_is_zero", "_compiled"])
def test_a_policy_is_frozen(setting: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Policy(), setting, "keep")


def test_the_mapping_is_copied() -> None:
    mine = {"head/**": "keep"}
    policy = Policy(missing=mine)
    mine["**"] = "keep"
    del mine["head/**"]
    assert policy.missing == {"head/**": "keep"}
    assert policy.verdict("missing", "head/x") == "keep"
    assert policy.verdict("missing", "x") == "error"


@pytest.mark.parametrize(
    "change",
    [
        lambda mapping: mapping.__setitem__("**", "keep"),
        lambda mapping: mapping.__delitem__("head/**"),
        lambda mapping: mapping.__ior__({"**": "keep"}),
        lambda mapping: mapping.update({"**": "keep"}),
        lambda mapping: mapping.setdefault("**", "keep"),
        lambda mapping: mapping.pop("head/**"),
        lambda mapping: mapping.popitem(),
        lambda mapping: mapping.clear(),
    ],
)
def test_the_mapping_that_a_policy_holds_does_not_change(change: Any) -> None:
    policy = Policy(missing={"head/**": "keep"})
    with pytest.raises(TypeError, match="does not change"):
        change(policy.missing)
    assert policy.missing == {"head/**": "keep"}


def test_equal_policies_are_equal_and_hash_alike() -> None:
    def make() -> Policy:
        missing: dict[Any, str] = {"a": "keep", re.compile("b"): "error"}
        return Policy(missing=missing, casting="no", absent_is_zero=BIAS)

    assert make() == make()
    assert hash(make()) == hash(make())
    assert make() not in (Policy(), Policy(absent_is_zero=BIAS), Policy(casting="no"), "error")
    assert Policy(absent_is_zero=BIAS) != Policy()
    assert len({Policy(), Policy(), make()}) == 2


def test_policies_whose_patterns_stand_in_another_order_are_different() -> None:
    assert Policy(missing={"a": "keep", "**": "error"}) != Policy(missing={"**": "error", "a": "keep"})


def test_a_policy_can_be_pickled_copied_and_replaced() -> None:
    policy = Policy(missing={"head/**": "keep"}, absent_is_zero=BIAS)
    for other in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy), copy.copy(policy)):
        assert other == policy
        assert other.verdict("missing", "head/x") == "keep"
        assert other.zero_if_absent("a/bias")
    other = dataclasses.replace(policy, shape="keep")
    assert (other.verdict("shape", "x"), other.verdict("missing", "head/x")) == ("keep", "keep")


def test_a_policy_prints_as_code_that_makes_it() -> None:
    policy = Policy(missing={"head/**": "keep"}, absent_is_zero=BIAS)
    assert eval(repr(policy)) == policy
