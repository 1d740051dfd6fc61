"""A report of one's own: Markdown for a pull request, made of what a plan says, through public names."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import treeload
from treeload import Plan, Policy, Rename


def markdown(plan: Plan) -> str:
    """A plan as Markdown: a verdict, a table of counts, a task for each finding with what to write."""
    counts = Counter(str(entry.action) for entry in plan.entries)
    lines = [f"## {'Loads' if plan.ok else 'Does not load'}", "", "| action | leaves |", "|---|---|"]
    lines += [f"| {action} | {count} |" for action, count in sorted(counts.items())]
    for finding in plan.findings:
        done = " " if finding.verdict == "error" else "x"
        lines += [f"- [{done}] **{finding.kind}** `{cell(finding.name)}`: {cell(finding.message)}"]
        lines += [f"  - {cell(remedy)}" for remedy in finding.remedies]
    lines += [
        f"- unused: `{cell(leaf.name)}` {leaf.spec.dtype}{list(leaf.spec.shape)}" for leaf in plan.unused
    ]
    return "\n".join(lines) + "\n"


def cell(value: Any) -> str:
    """On one line, and no mark of Markdown but those that the report writes."""
    return str(value).replace("\n", " ").replace("|", "\\|").replace("`", "'")


DST: dict[str, Any] = {
    "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "body": {"kernel": jnp.ones((2, 2))},
}
SRC: dict[str, Any] = {"head": {"kernel": np.ones((2, 5), np.float32)}, "corps": {"kernel": np.ones((2, 2))}}


def test_it_reads_as_it_is_meant_to() -> None:
    assert markdown(treeload.plan(DST, SRC, policy=Policy(missing={"head/bias": "keep"}))) == (
        """\
## Does not load

| action | leaves |
|---|---|
| keep | 3 |
- [ ] **missing** `body/kernel`: the source has nothing here
  - to keep the destination's own: Policy(missing={"body/kernel": "keep"})
- [x] **missing** `head/bias`: the source has nothing here
  - for zeros: Policy(absent_is_zero=("head/bias",))
  - to keep the destination's own: Policy(missing={"head/bias": "keep"})
- [ ] **unexpected** `corps/kernel`: the destination has nothing here
  - to leave it out: Policy(unexpected={"corps/kernel": "ignore"})
- [ ] **shape** `head/kernel`: shapes differ: [2, 3] in the destination, [2, 5] in the source
  - to keep the destination's own: Policy(shape={"head/kernel": "keep"})
- unused: `head/kernel` float32[2, 5]
- unused: `corps/kernel` float64[2, 2]
"""
    )


def test_what_a_plan_says_of_itself_is_enough_to_say_that_all_is_well() -> None:
    src = {"head": DST["head"], "corps": DST["body"]}
    plan = treeload.plan(DST, src, rules=[Rename("corps/{*rest}", "body/{*rest}")])
    assert markdown(plan) == "## Loads\n\n| action | leaves |\n|---|---|\n| load | 3 |\n"


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_name_breaks_it(ours: str, theirs: str) -> None:
    plan = treeload.plan({ours: np.ones(2)}, {theirs: np.ones(2)})
    report = markdown(plan)
    found = [each for each in report.split("\n") if each.startswith("- [")]
    assert len(found) == len(plan.findings) == (0 if ours == theirs else 2)
    assert report.split("\n")[0] == ("## Loads" if plan.ok else "## Does not load")


def test_what_it_prints_to_be_pasted_is_code() -> None:
    plan = treeload.plan(DST, SRC)
    codes = [remedy.code for finding in plan.findings for remedy in finding.remedies if remedy.code]
    policies = [eval(code, {"Policy": Policy}) for code in codes]
    assert len(policies) >= 4 and all(isinstance(policy, Policy) for policy in policies)
