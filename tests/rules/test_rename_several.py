"""Several source leaves that become one by a function: ``Rename([...], name, Apply(fn))``."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import Apply, Cast, Concat, Policy, Rename, RuleError, Transpose

MERGE = Apply(lambda kernel, a, b: kernel + a @ b)
PARTS = ["{*p}/kernel", "{*p}/lora_a", "{*p}/lora_b"]


def adapted(*names: str) -> dict:
    leaves = {"kernel": np.ones((3, 2), np.float32), "lora_a": np.ones((3, 1), np.float32)}
    leaves["lora_b"] = np.full((1, 2), 2, np.float32)
    return {name: dict(leaves) for name in names}


def plain(*names: str) -> dict:
    return {name: {"kernel": jnp.zeros((3, 2))} for name in names}


def test_each_group_becomes_one_leaf_of_the_functions_value() -> None:
    plan = treeload.plan(plain("x", "y"), adapted("x", "y"), rules=Rename(PARTS, "{*p}/kernel", MERGE))
    assert [str(leaf) for leaf in plan["y/kernel"].sources] == ["y/kernel", "y/lora_a", "y/lora_b"]
    assert (plan.load()["x"]["kernel"] == 3).all()


def test_further_ops_follow() -> None:
    rule = Rename(PARTS, "{*p}/kernel", MERGE, Transpose(), Cast("bfloat16"))
    dst = {"x": {"kernel": jnp.zeros((2, 3), jnp.bfloat16)}}
    assert treeload.load(dst, adapted("x"), rules=rule)["x"]["kernel"].shape == (2, 3)


def test_a_part_that_lacks_is_one_finding_that_names_it() -> None:
    source = adapted("x", "y")
    del source["y"]["lora_b"]
    (finding,) = treeload.plan(plain("x", "y"), source, rules=Rename(PARTS, "{*p}/kernel", MERGE)).errors
    assert (finding.kind, str(finding.name)) == ("rule", "y/kernel")
    assert "lora_b" in finding.message


def test_two_leaves_that_are_one_part_are_a_finding() -> None:
    rule = Rename(["{p}_*/a", "{p}_*/b"], "{p}", Apply(lambda a, b: a + b))
    source = {"m_1": {"a": np.ones(1), "b": np.ones(1)}, "m_2": {"a": np.ones(1)}}
    (finding,) = treeload.plan({"m": jnp.zeros(1)}, source, rules=rule).errors
    assert finding.kind == "rule" and "same part" in finding.message


def test_a_function_that_does_not_fit_is_a_finding() -> None:
    source = adapted("x")
    source["x"]["lora_a"] = np.ones((5, 1), np.float32)
    (finding,) = treeload.plan(plain("x"), source, rules=Rename(PARTS, "{*p}/kernel", MERGE)).errors
    assert (finding.kind, str(finding.name)) == ("rule", "x/kernel")


def test_an_ignored_fault_leaves_the_leaf_missing() -> None:
    source = adapted("x")
    del source["x"]["lora_b"]
    rule = Rename(PARTS, "{*p}/kernel", MERGE)
    plan = treeload.plan(plain("x"), source, rules=rule, policy=Policy(rule="ignore"))
    assert [finding.kind for finding in plan.errors] == ["missing"]


def test_it_prints_as_it_is_written_and_has_no_inverse() -> None:
    rule = Rename(["a", "b"], "c", Apply(max))
    assert repr(rule) == "Rename(['a', 'b'], 'c', Apply(max))"
    assert rule.inverse() is None and rule.rename(("a",)) is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Rename(["a", "b"], "c"), "needs an Apply"),
        (lambda: Rename(["a", "b"], "c", Transpose()), "needs an Apply"),
        (lambda: Rename([], "c", Apply(max)), "at least one part"),
        (lambda: Rename(["{i}/a", "b"], "c", Apply(max)), "different captures"),
        (lambda: Rename([re.compile("a"), "b"], "c", Apply(max)), "not a compiled re.Pattern"),  # type: ignore[arg-type]
        (lambda: Concat([], "c"), "at least one part"),
    ],
    ids=["no op", "no function", "no parts", "captures differ", "regex", "empty concat"],
)
def test_what_cannot_mean_anything_is_refused(make, said: str) -> None:
    with pytest.raises(RuleError, match=said):
        make()


def test_suggestions_of_a_plan_come_after_its_own_rules() -> None:
    dst = {"up": {"kernel": jnp.zeros((2, 3))}, "down": {"kernel": jnp.zeros((3, 2))}}
    src = {
        "m": {"up": {"weight": np.ones((3, 2), np.float32)}, "down": {"weight": np.ones((2, 3), np.float32)}}
    }
    mine = Rename("m/up/weight", "up/kernel", Transpose())
    rules = treeload.plan(dst, src, rules=mine).suggest()
    assert rules[0] == mine and len(rules) == 2
    assert treeload.plan(dst, src, rules=rules).ok


def test_suggestions_see_the_names_that_a_from_gives() -> None:
    dst = {"enc": {"up": {"kernel": jnp.zeros((2, 3))}}}
    source = treeload.From({"m": {"up": {"weight": np.ones((3, 2), np.float32)}}}, subtree="m", into="enc")
    rules = treeload.plan(dst, source).suggest()
    assert treeload.plan(dst, source, rules=rules).ok


def test_a_plan_without_problems_has_nothing_to_suggest_or_to_diagnose() -> None:
    plan = treeload.plan({"a": jnp.zeros(1)}, {"a": np.ones(1)})
    assert plan.suggest() == () and plan.diagnosis == ()
