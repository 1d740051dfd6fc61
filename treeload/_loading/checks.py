"""Checks of values, done before anything is changed: what must be zero, what must be equal."""

from __future__ import annotations

from treeload._findings.finding import Finding
from treeload._loading.gather import Job, gather
from treeload._naming.name import print_name
from treeload._plans.decisions import Decisions
from treeload._sources.source import as_source_error


def failures(decisions: Decisions) -> list[Finding]:
    """What the checks find that are still to be done, each finding once, in the order of the checks.

    Raises:
        SourceError: a source could not be read.
    """
    failed: dict[int, Finding] = {}
    jobs = [Job(check.leaves()) for check in decisions.checks]
    for number, arrays in gather(decisions.sources, jobs):
        check = decisions.checks[number]
        with as_source_error(f"the values of {print_name(check.name)!r} could not be checked"):
            finding = check.failure(arrays)
        if finding is not None:
            failed[number] = finding
    return list(dict.fromkeys(finding for _, finding in sorted(failed.items())))
