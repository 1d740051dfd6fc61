"""Entries and findings as JSON-like data."""

from __future__ import annotations

from typing import Any

from treeload._findings.finding import Finding
from treeload._leaves.spec import Spec, nbytes
from treeload._plans.entry import Entry
from treeload._sources.source import SourceLeaf
from treeload._versions.version import Dated


def _spec_dict(spec: Spec | str | None) -> Any:
    if spec is None or isinstance(spec, str):
        return spec
    return {"shape": list(spec.shape), "dtype": str(spec.dtype), "bytes": nbytes(spec)}


def leaf_dict(leaf: SourceLeaf) -> dict[str, Any]:
    return {"source": leaf.source, "name": str(leaf.name), "spec": _spec_dict(leaf.spec)}


def dated_dict(dated: Dated | None) -> dict[str, Any] | None:
    """Between which versions a source stands, and the steps that it takes; None where it is not known."""
    if dated is None:
        return None
    return {"from": dict(dated.before), "to": dict(dated.after), "steps": list(map(repr, dated.steps))}


def entry_dict(entry: Entry) -> dict[str, Any]:
    return {
        "name": str(entry.name),
        "action": str(entry.action),
        "spec": _spec_dict(entry.spec),
        "sources": [leaf_dict(leaf) for leaf in entry.sources],
        "ops": [repr(op) for op in entry.ops],
        "cast": entry.cast,
        "on_overflow": str(entry.on_overflow),
        "rule": None if entry.rule is None else repr(entry.rule),
        "reason": entry.reason,
        "aliases": [str(alias) for alias in entry.aliases],
        "optional": entry.optional,
        "needs_values": entry.needs_values,
        "by_position": entry.by_position,
    }


def finding_dict(finding: Finding) -> dict[str, Any]:
    return {
        "kind": str(finding.kind),
        "name": str(finding.name),
        "verdict": finding.verdict,
        "expected": _spec_dict(finding.expected),
        "found": _spec_dict(finding.found),
        "source": None if finding.source is None else leaf_dict(finding.source),
        "rule": None if finding.rule is None else repr(finding.rule),
        "message": finding.message,
        "remedy": finding.remedy,
        "remedies": [
            {"before": each.before, "code": each.code, "after": each.after} for each in finding.remedies
        ],
        "near": [str(name) for name in finding.near],
    }
