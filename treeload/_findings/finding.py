"""One disagreement between destination and source, as data."""

from __future__ import annotations

from dataclasses import dataclass

from treeload._leaves.spec import Spec
from treeload._naming.name import Name, print_name
from treeload._rules.rule import Rule
from treeload._sources.source import SourceLeaf


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement between destination and source.

    Attributes:
        kind: one of the kinds of ``Policy``: ``"missing"``, ``"shape"``, ...
        name: the destination-side name it is about.
        verdict: what the policy said: ``"error"``, ``"keep"``, ``"ignore"``, ``"first"``.
        expected: what the destination asks for: a spec, words, or None for nothing.
        found: what the source has, likewise.
        source: the source leaf concerned, under its own name; None where there is none.
        rule: the rule concerned, if any.
        message: what is wrong, in one sentence.
        remedy: what to write to go on.
        near: names on the other side that are nearly this one.
    """

    kind: str
    name: Name
    verdict: str
    expected: Spec | str | None = None
    found: Spec | str | None = None
    source: SourceLeaf | None = None
    rule: Rule | None = None
    message: str = ""
    remedy: str = ""
    near: tuple[Name, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {print_name(self.name)}: {self.message}"
