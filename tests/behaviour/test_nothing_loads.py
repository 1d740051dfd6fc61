"""A load that loads nothing never says "no problems", whatever is forgiven (cases A8)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treeload
from treeload import From, LoadError, Policy

FORGIVING = Policy(missing="keep", unexpected="ignore")


def tree(prefix: str, value: float) -> dict[str, Any]:
    return {prefix: {"a": np.full(2, value), "b": {"c": np.full(3, value)}}}


@pytest.mark.parametrize(
    "give", [lambda src: src, From, lambda src: [From(src)]], ids=["tree", "From", "list"]
)
def test_a_wrong_prefix_that_is_forgiven_is_an_error_all_the_same(give: Any) -> None:
    plan = treeload.plan(tree("model", 0.0), give(tree("params", 1.0)), policy=FORGIVING)
    assert [(finding.kind, finding.verdict) for finding in plan.errors] == [("rule", "error")]
    assert "feeds no leaf of the destination" in plan.errors[0].message
    with pytest.raises(LoadError, match="feeds no leaf"):
        plan.load()


def test_the_policies_that_the_report_prints_do_not_load_random_weights() -> None:
    dst, src = tree("model", 0.0), tree("params", 1.0)
    code = [way.code for finding in treeload.plan(dst, src).errors for way in finding.remedies if way.code]
    settings: dict[str, dict[str, str]] = {}
    for policy in (eval(each, {"Policy": dict}) for each in code):
        for kind, patterns in policy.items():
            settings.setdefault(kind, {}).update(patterns)
    plan = treeload.plan(dst, src, policy=Policy(**settings))
    assert not plan.ok and "no problems" not in plan.summary()


def test_one_leaf_that_loads_is_enough() -> None:
    src = {**tree("params", 1.0), "model": {"a": np.ones(2)}}
    assert treeload.plan(tree("model", 0.0), src, policy=FORGIVING).ok


def test_one_source_of_several_that_feeds_nothing_is_named() -> None:
    good, bad = From(tree("model", 1.0)), From({"x": np.ones(1)})
    plan = treeload.plan(tree("model", 0.0), [good, bad], policy=FORGIVING)
    assert [finding.kind for finding in plan.errors] == ["rule"]


def test_a_source_that_is_all_outside_of_the_scope_was_not_asked() -> None:
    src = {"x": np.ones(1)}
    plan = treeload.plan(tree("model", 0.0), src, policy=FORGIVING, scope="model/b/**")
    assert not plan.ok or plan.coverage == 0
