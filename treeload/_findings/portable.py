"""Findings that cross to another process, as an error does on its way out of a pool of them.

Owns what becomes of what does not pickle: a rule, a remedy or a spec that holds a function of the user's, or
the devices of this machine. It goes as what it prints as: whatever is read of it is the same, and it does
nothing any more. Findings that pickle as they are go as they are.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from treeload._findings.finding import Finding
from treeload._findings.remedy import Remedy
from treeload._leaves.spec import Spec, without_sharding
from treeload._naming.pattern import Pattern
from treeload._rules.rule import Made, Matched, Rule


@dataclass(frozen=True, repr=False)
class PrintedRule(Rule):
    """A rule that prints as the one that was left behind, and takes nothing."""

    text: str
    destination: str

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return ()

    def give(self, taken: Sequence[Matched]) -> Iterable[Made]:
        return ()

    def destination_text(self) -> str:
        return self.destination

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PrintedRemedy(Remedy):
    """A way to go on that says what the one said that was left behind."""

    words: str
    pasted: str
    rest: str

    @property
    def before(self) -> str:
        return self.words

    @property
    def code(self) -> str:
        return self.pasted

    @property
    def after(self) -> str:
        return self.rest


def portable(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings, such that they pickle."""
    return tuple(findings) if _pickles(findings) else tuple(map(_portable, findings))


def _portable(finding: Finding) -> Finding:
    if _pickles(finding):
        return finding
    rule = finding.rule
    return replace(
        finding,
        expected=_portable_side(finding.expected),
        found=_portable_side(finding.found),
        rule=rule if rule is None or _pickles(rule) else PrintedRule(repr(rule), rule.destination_text()),
        remedies=tuple(
            way if _pickles(way) else PrintedRemedy(way.before, way.code, way.after)
            for way in finding.remedies
        ),
        source=None
        if finding.source is None
        else replace(finding.source, spec=without_sharding(finding.source.spec)),
    )


def _portable_side(side: Spec | str | None) -> Spec | str | None:
    return side if side is None or isinstance(side, str) else without_sharding(side)


def _pickles(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001  # whatever the classes of a user raise
        return False
    return True
