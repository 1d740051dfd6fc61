"""Findings that are noted and not written: a report of them says the same, and writes hardly any."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import failing_plans
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import From, Policy
from treeload._findings.finding import Finding, facts
from treeload._matching.apart import Missing, Unexpected
from treeload._plans.repairs import LEAVES


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


def layers(count: int, text: str, *keys: str) -> dict[str, Any]:
    return {text.format(i): {key: {"w": spec(4, 4), "b": spec(4)} for key in keys} for i in range(count)}


_PLANS = dict(failing_plans.plans())


@pytest.mark.parametrize("name", sorted(_PLANS))
def test_a_report_is_the_same_whether_its_findings_are_written_or_noted(name: str) -> None:
    noted = _PLANS[name]
    assert any(not isinstance(one, Finding) for one in noted.found)  # or nothing is shown here
    told = noted.with_findings(noted.findings)
    assert str(told) == str(noted)
    assert told._repr_html_() == noted._repr_html_() and told.to_html() == noted.to_html()


@pytest.mark.parametrize("name", sorted(_PLANS))
def test_what_is_noted_has_the_facts_of_what_is_written(name: str) -> None:
    for one in _PLANS[name].found:
        if not isinstance(one, Finding):
            assert one.facts() == facts(one.finding())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[type]:
    """How many findings are written of each class."""
    count: Counter[type] = Counter()

    def watch(of: type[Missing] | type[Unexpected]) -> None:
        write = of.finding

        def finding(self: Any) -> Finding:
            count[of] += 1
            return write(self)

        monkeypatch.setattr(of, "finding", finding)

    watch(Missing)
    watch(Unexpected)
    return count


COUNT = 3_000  # layers of eight leaves: more than a report tries to repair


def test_a_report_of_very_many_findings_writes_few_of_them(counted: Counter[type]) -> None:
    plan = treeload.plan(layers(COUNT, "layers_{}", *"qkvo"), layers(COUNT, "h{}x", "aq", "ak", "av", "ao"))
    assert len(plan.noted_errors) == 16 * COUNT > LEAVES
    text, small, page = str(plan), plan._repr_html_(), plan.to_html()
    assert (
        f"missing     layers_{{0..{COUNT - 1}}}/k/{{b,w}} ×{2 * COUNT:,}   float32[4], float32[4,4]" in text
    )
    assert f"unexpected  h{{0..{COUNT - 1}}}x/aq/{{b,w}} ×{2 * COUNT:,}" in text
    assert f"keep  {8 * COUNT:,} leaves because of problems above" in text
    assert f"×{2 * COUNT:,}" in small and f"×{2 * COUNT:,}" in page
    # Of four groups in four reports, since a page holds the text, too; of its leaves none is written.
    assert 0 < max(counted.values()) <= 4 * 4 * 550


def test_names_that_have_nothing_in_common_are_listed_for_a_page_and_counted(counted: Counter[type]) -> None:
    rng = np.random.default_rng(0)

    def words(count: int) -> dict[str, Any]:
        letters = rng.choice(list("abcdefghij"), (count, 9))
        return {"".join(word): {"w": spec(4, 4)} for word in letters}

    plan = treeload.plan(words(LEAVES), words(LEAVES))
    listed = [line for line in str(plan).splitlines() if re.match(r"  (missing|unexpected) ", line)]
    rest = re.findall(r"… and ([\d,]+) more; plan.findings", str(plan))
    assert len(listed) == 2 * 22
    assert sum(int(number.replace(",", "")) for number in rest) + len(listed) == len(plan.noted_errors)
    assert max(counted.values()) < 5_000


def test_what_is_not_looked_at_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treeload._reports.problems._LOOKED_AT", 80)
    text = str(treeload.plan(layers(100, "layers_{}", *"qkvo"), {"x": spec(2)}))
    assert "missing     layers_{0,1,10..17}/k/{b,w} ×20" in text
    assert "… and 720 more; plan.findings" in text


@pytest.mark.parametrize("forgiven", [False, True])
def test_what_is_forgiven_is_all_of_them_and_nobody_else(forgiven: bool) -> None:
    """Of so many only some are written; the patterns that are printed are for all the same."""
    same = {"head": {"w": jnp.ones((4, 4))}}
    dst = {**same, **{f"layers_{i}": {k: {"w": i} for k in "qkvo"} for i in range(COUNT)}}
    policy = Policy(missing={"layers_*/k/**": "keep"}) if forgiven else Policy()
    plan = treeload.plan(dst, same, policy=policy)
    assert len(plan.noted_errors) == (3 if forgiven else 4) * COUNT
    code = re.search(r"Policy\(missing=\{.*?\}\)", str(plan), re.DOTALL)
    assert code is not None
    printed: Policy = eval(code[0], {"Policy": Policy})
    left = {
        finding.name for finding in treeload.plan({**dst, "new": jnp.ones(3)}, same, policy=printed).errors
    }
    assert left == {("new",)} | {(f"layers_{i}", "k", "w") for i in range(COUNT) if forgiven}


def test_several_sources_are_told_apart_where_most_is_only_noted() -> None:
    parts = [From(layers(COUNT, "a{}", "q"), into="one"), From(layers(COUNT, "b{}", "q"), into="two")]
    text = str(treeload.plan({"one": layers(COUNT, "c{}", *"qk"), "two": {}}, parts))
    assert f"one/a{{0..{COUNT - 1}}}/q/{{b,w}} ×{2 * COUNT:,}" in text
    assert f"two/b{{0..{COUNT - 1}}}/q/{{b,w}} ×{2 * COUNT:,}" in text
    assert "for instance a0/q/b" in text
