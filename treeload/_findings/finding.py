"""One disagreement between destination and source, as data; and one that is put into words later.

A tree with 100,000 wrong names has 200,000 findings, of which a report shows a page. So a finding may be
noted before it is written (``LaterFinding``), and the names that are near to it are looked up when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from treeload._findings.kinds import Kind
from treeload._findings.remedy import Remedy
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, Name, print_name
from treeload._rules.rule import Rule
from treeload._sources.source import SourceLeaf

Near: TypeAlias = "tuple[Name, ...] | Callable[[], tuple[Name, ...]]"
"""Names, or how they are looked up."""


class _WhenAsked:
    """An attribute that may be given as a function: it is called once, when somebody looks."""

    def __get__(self, finding: Finding | None, owner: Any = None) -> tuple[Name, ...]:
        if finding is None:
            return ()  # the default
        held: Near = finding.__dict__["near"]
        if callable(held):
            held = finding.__dict__["near"] = held()
        return held

    def __set__(self, finding: Finding, near: Near) -> None:
        finding.__dict__["near"] = near


@dataclass(frozen=True)
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
        near: names on the other side that are nearly this one, the nearest first; they may be given as a
            function, which is called when they are first asked for. A plan looks them up for the first
            1,000 findings of a kind; the others have none.

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
    near: _WhenAsked = _WhenAsked()  # a descriptor, which is one for all

    def __post_init__(self) -> None:
        if type(self.kind) is not Kind:
            object.__setattr__(self, "kind", Kind(self.kind))

    def __getstate__(self) -> dict[str, Any]:
        # Near names go as names: how they are looked up holds all names of both sides.
        return {**self.__dict__, "near": self.near}

    @property
    def remedy(self) -> str:
        """The ways to go on, in words and code."""
        return "; ".join(map(str, self.remedies))

    def __str__(self) -> str:
        return f"{self.kind} {print_name(self.name)}: {self.message}"


class LaterFinding(Protocol):
    """A finding that is noted, and written when somebody looks: what, where and how bad is known before."""

    @property
    def kind(self) -> Kind:
        """What is wrong."""

    @property
    def name(self) -> Keys:
        """The destination-side name that it is about."""

    @property
    def verdict(self) -> str:
        """What the policy said."""

    def facts(self) -> Facts:
        """What ``facts`` gives of the finding."""

    def finding(self) -> Finding:
        """The finding, written."""


Noted: TypeAlias = Finding | LaterFinding
"""A finding, written or not."""


class Facts(NamedTuple):
    """All that a finding says but its name, what is near to it and what it is called in the source.

    Findings of one kind with equal facts say the same of other leaves.

    Attributes:
        expected, found: the sides: of a spec its shape and dtype.
        verdict, message: the finding's own.
        source: the label of the source concerned; empty for none.
        rule: the rule concerned, printed; empty for none.
    """

    expected: Hashable
    found: Hashable
    verdict: str
    message: str
    source: str
    rule: str


def written(noted: Noted) -> Finding:
    """The finding itself."""
    return noted if isinstance(noted, Finding) else noted.finding()


def facts(noted: Noted) -> Facts:
    """What the finding says but for names."""
    if not isinstance(noted, Finding):
        return noted.facts()
    source = noted.source.source if noted.source is not None else ""
    rule = repr(noted.rule) if noted.rule is not None else ""
    return Facts(side(noted.expected), side(noted.found), noted.verdict, noted.message, source, rule)


def side(of: Any) -> Hashable:
    """What tells one side of a finding from another: of a spec, or an array, its shape and dtype."""
    return of if of is None or isinstance(of, str) else (tuple(of.shape), of.dtype)
