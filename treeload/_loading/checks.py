"""Checks of values, done before anything is changed: what must be zero, what must be equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from treeload._findings.finding import Finding
from treeload._leaves.spec import elements
from treeload._leaves.values import equal, nonzero
from treeload._loading.gather import Job, gather
from treeload._naming.name import print_name
from treeload._ops.expression import Leaf, evaluate
from treeload._plan import Plan
from treeload._plans.check import EqualCheck, ZeroCheck
from treeload._sources.source import as_source_error


def verify(plan: Plan) -> Plan:
    """The plan with its value checks done: what fails is a finding more, nothing is raised for it."""
    failed = dict(_failures(plan))
    passed = [finding for number, finding in sorted(failed.items())]
    return plan.with_findings(findings=(*plan.findings, *dict.fromkeys(passed)))


# Checks of values.


def _failures(plan: Plan) -> Iterator[tuple[int, Finding]]:
    """The findings of the checks that fail, each with the check's number."""
    needed = [
        tuple(check.value.leaves()) if isinstance(check, ZeroCheck)
        else tuple(leaf for _, value in check.values for leaf in value.leaves())
        for check in plan.checks
    ]  # fmt: skip
    jobs = [Job(leaves) for leaves in needed]
    for number, arrays in gather(plan.sources, jobs):
        check = plan.checks[number]
        with as_source_error(f"the values of {print_name(check.name)!r} could not be checked"):
            if isinstance(check, ZeroCheck):
                count, largest = nonzero(evaluate(check.value, arrays))
                if count:
                    yield number, _not_zero(check, count, largest)
            elif not _all_equal(check, arrays):
                yield number, check.finding


def _not_zero(check: ZeroCheck, count: int, largest: str) -> Finding:
    total = elements(check.value.spec)
    are = "element is" if total == 1 else "elements are"
    said = f"{count:,} of {total:,} {are} not zero, the largest {largest}"
    before = check.finding.message
    return replace(
        check.finding, message=f"{before}: {said}" if before else f"{said}; absent means zero here"
    )


def _all_equal(check: EqualCheck, arrays: dict[Leaf, Any]) -> bool:
    first, *others = (evaluate(value, arrays) for _, value in check.values)
    return all(equal(first, other) for other in others)
