"""One disagreement between destination and source, as data."""

from __future__ import annotations

from dataclasses import dataclass

from treeload._findings.kinds import Kind
from treeload._findings.remedy import Remedy
from treeload._leaves.spec import Spec
from treeload._naming.name import Name, print_name
from treeload._rules.rule import Rule
from treeload._sources.source import SourceLeaf


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement between destination and source.

    Attributes:
        kind: what is wrong: ``"missing"``, ``"shape"``, ...; a text is taken for the kind of that name.
        name: the destination-side name it is about.
        verdict: what the policy said: ``"error"``, ``"keep"``, ``"ignore"``, ``"first"``.
        expected: what the destination asks for: a spec, words, or None for nothing.
        found: what the source has, likewise.
        source: the source leaf concerned, under its own name; None where there is none.
        rule: the rule concerned, if any.
        message: what is wrong, in one sentence.
        remedies: the ways to go on, each with words (``before``, ``after``) and ``code``.
        near: names on the other side that are nearly this one.

    Raises:
        RuleError: a kind that there is not.
    """

    kind: Kind
    name: Name
    verdict: str
    expected: Spec | str | None = None
    found: Spec | str | None = None
    source: SourceLeaf | None = None
    rule: Rule | None = None
    message: str = ""
    remedies: tuple[Remedy, ...] = ()
    near: tuple[Name, ...] = ()

    def __post_init__(self) -> None:
        if type(self.kind) is not Kind:
            object.__setattr__(self, "kind", Kind(self.kind))

    @property
    def remedy(self) -> str:
        """The ways to go on, in words and code."""
        return "; ".join(map(str, self.remedies))

    def __str__(self) -> str:
        return f"{self.kind} {print_name(self.name)}: {self.message}"
