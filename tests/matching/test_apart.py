"""Leaves of which the other side has nothing: what is said of them is what would be said one by one."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import From, Policy, Rename, Tie
from treeload._findings.finding import Finding
from treeload._findings.kinds import Kind
from treeload._matching import match as matching
from treeload._matching.apart import Apart, Neighbours, missing_words, unexpected_words
from treeload._plans.entry import MISSING

ONE = np.ones(2, np.float32)
SPEC = jax.ShapeDtypeStruct((2,), np.float32)
DST = {"net": {"a": ONE, "bias": ONE.copy()}, "n": 3, "none": None, "head": {"w": ONE.copy()}, "f": True}
SRC = {
    "new": {"a": ONE, "bias": ONE},
    "m": 4,
    "none": ONE,
    "head": ONE,
    "net": {"a": {"deep": ONE}},
    "f": False,
}
TIED = dict.fromkeys(("a", "b"), ONE)
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "names of all kinds": (DST, SRC, {}),
    "a policy": (DST, SRC, {"policy": Policy(missing={"net/*": "keep"}, unexpected={"new/*": "ignore"})}),
    "zeros": (DST, SRC, {"policy": Policy(absent_is_zero=("**/bias", "m", "n"))}),
    "a scope": (DST, SRC, {"scope": "net/**"}),
    "rules": (DST, SRC, {"rules": [Rename("new/{x}", "old/{x}"), Rename("nothing", "else")]}),
    "a tie": (DST, SRC, {"rules": Tie("n", "net/a")}),
    "ties": ({"x": TIED, "y": ONE.copy()}, {"z": TIED, "a": {"b": ONE}}, {}),
    "several sources": (DST, [From(SRC, into="net"), From({"w": ONE}), From({"w": ONE})], {}),
    "abstract": ({"a": SPEC, "b": SPEC}, {"c": SPEC}, {"policy": Policy(missing={"a": "keep"})}),
    "a leaf alone": (ONE, {"a": ONE}, {}),
    "a subtree in place of it": ({"a": ONE}, {"a": {"b": ONE}, "b": ONE}, {}),
    "a leaf in place of a subtree": ({"a": {"b": ONE}, "b": ONE}, {"a": ONE, "c": ONE}, {}),
}


def planned(case: str) -> treeload.Plan:
    dst, src, how = CASES[case]
    return treeload.plan(dst, src, **how)


@pytest.mark.parametrize("case", CASES)
def test_a_plan_says_the_same_as_one_decided_leaf_by_leaf(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned(case)
    for name in ("missing", "unexpected"):
        monkeypatch.setattr(Apart, name, lambda self, leaf: None)
    slowly = planned(case)
    assert not any(row is MISSING for row in slowly.lines)
    assert found.findings == slowly.findings and found.entries == slowly.entries
    assert found.unused == slowly.unused and found.to_dict() == slowly.to_dict()
    assert str(found) == str(slowly) and str(found.suggest()) == str(slowly.suggest())
    assert found.pending == slowly.pending and found.abstract_kept == slowly.abstract_kept


def test_findings_of_wrong_names_are_written_when_somebody_looks() -> None:
    plan = treeload.plan({"a": ONE, "b": {"c": ONE.copy()}}, {"x": ONE, "y": {"z": ONE}})
    assert not any(isinstance(one, Finding) for one in plan.found) and not plan.ok
    assert plan.summary().endswith("2 kept; 4 problems")
    assert all(line is MISSING for line in plan.lines)
    assert all(isinstance(one, Finding) for one in plan.findings) and plan.findings is plan.findings


def test_what_is_decided_one_by_one_is_asked_for_only_where_it_must_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(matching, "decide", lambda sides, ledger, index: asked.append(index))
    treeload.plan({"a": ONE, "b": {"c": ONE.copy()}, "d": ONE.copy()}, {"x": ONE, "b": ONE, "d": ONE[:1]})
    assert asked == [1, 2]


def test_a_plan_whose_findings_are_not_written_is_pickled_with_them() -> None:
    plan = treeload.plan({"head": {"kernel": ONE}}, {"head": {"kernal": ONE}})
    assert pickle.loads(pickle.dumps(plan)).findings == plan.findings
    assert plan.findings[0].near == (("head", "kernal"),)


# Near names.


def test_near_names_are_looked_up_when_they_are_asked_for() -> None:
    neighbours = Neighbours()
    later: Any = neighbours.note(Kind.MISSING, ("head", "kernel"))
    finding = Finding(Kind.MISSING, treeload.Name(("head", "kernel")), "error", near=later)
    neighbours.note(Kind.UNEXPECTED, ("head", "kernal"))
    assert finding.near == (("head", "kernal"),) and finding.near is finding.near


def test_only_so_many_findings_of_a_kind_have_near_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Neighbours, "_LOOKED_UP", 2)
    dst, src = ({key: {word: ONE.copy()} for key in "abc"} for word in ("kernel", "kernal"))
    near = [finding.near for finding in treeload.plan(dst, src).findings]
    assert [bool(names) for names in near] == [True, True, False] * 2


def test_kinds_without_a_counterpart_have_no_near_names() -> None:
    assert Neighbours().note(Kind.SHAPE, ("a",)) == ()


def test_among_too_many_names_none_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = {"kernel": ONE, "x": ONE}, {"kernle": ONE.copy(), "y": ONE.copy()}
    assert treeload.plan(there, here).findings[0].near == (("kernle",),)
    monkeypatch.setattr(Neighbours, "_LOOKED_AMONG", 1)
    assert treeload.plan(there, here).findings[0].near == ()


@pytest.mark.parametrize(
    "name",
    [
        "opt_state/0/mu/head/bias", "0/nu/head/bias", "mu/head/bias", "trace/bias", "params_ema/head/bias",
        "ema/head/bias", "exp_avg_sq/head/bias",
    ],
)  # fmt: skip
def test_zeros_are_not_spoken_of_for_what_is_kept_about_a_bias(name: str) -> None:
    spec = jax.ShapeDtypeStruct((2,), np.float32)
    for words in (missing_words, unexpected_words):
        for held in (None, "None"):
            assert "absent_is_zero" not in " ".join(map(str, words(tuple(name.split("/")), spec, held)[1]))
        assert "absent_is_zero" in " ".join(map(str, words(("head", "bias"), spec, None)[1]))
