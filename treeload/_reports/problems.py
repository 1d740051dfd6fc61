"""Findings as a reader wants them: those that say the same thing once, with the code to go on.

Owns which findings are one problem, what of their facts is worth saying, and for which names a way
to go on is open. Refuses to own how that is laid out (``text``, ``html``) and what the ways are
(``_findings``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice

from treeload._findings.finding import Facts, Finding, Noted, facts, side, written
from treeload._findings.kinds import KINDS, Kind, Manner, Side
from treeload._inference.layouts import judge
from treeload._leaves.spec import Spec, print_spec
from treeload._naming.name import Keys, Name, print_name
from treeload._naming.pattern import compile_pattern
from treeload._plans.decisions import Decisions
from treeload._reports.groups import Group, group, join, print_names, siblings
from treeload._sources.source import SourceLeaf

_NEAR = 3  # near names shown for one problem


_WRITTEN = 500  # findings of one problem that are written, where most are noted only


_TOLD_APART = 1_000  # groups of names of one kind: a report shows a page of them


_LOOKED_AT = 30_000  # findings of one kind, in their order; the others are counted


@dataclass(frozen=True)
class Sound:
    """The leaves of a plan, on either side, that have no finding."""

    plan: Decisions

    @cached_property
    def names(self) -> tuple[Keys, ...]:
        """Their names."""
        plan, wrong = self.plan, {noted.name for noted in self.plan.found}
        leaves = (name for name, line in zip(plan.tree.names, plan.lines, strict=True) if line is not None)
        unused = (leaf.at for leaf in plan.left)
        return tuple(name for name in (*leaves, *unused) if not any(node in wrong for node in nodes(name)))

    @cached_property
    def printed(self) -> tuple[str, ...]:
        """Their names, printed."""
        return tuple(map(print_name, self.names))

    def without(self, kind: Kind, names: Collection[Keys]) -> list[Keys]:
        """Their names, and those of the findings of a kind that are not among ``names``."""
        same = (one.name for one in self.plan.found if one.kind == kind)
        return [*self.names, *(name for name in same if name not in names)]

    def are_matched_by(self, text: str) -> bool:
        """Whether a pattern, written as this text, matches any of them."""
        pattern = compile_pattern(text)
        return "*" in text and any(map(pattern.matches, self.printed))


def nodes(name: Keys) -> Iterator[Keys]:
    """A name and those of the nodes above it."""
    return (name[:depth] for depth in range(len(name) + 1))


@dataclass(frozen=True)
class Problem:
    """Findings of one kind with equal facts. A text is empty where there is nothing to say.

    Attributes:
        kind: the kind of finding.
        group: their names.
        noted: the findings, in the group's order.
        findings: they, written; of very many that are noted only some, from everywhere among them.
        spec: what one side has, for kinds where the other has nothing.
        expected, found: what the destination and the source have, for the others.
        source_name: the names in the source, where they are other names.
        source: which source, where there are several.
        rule: the rule that brought them there.
        said: what else is wrong, in words.
    """

    kind: Kind
    group: Group
    noted: tuple[Noted, ...]
    findings: tuple[Finding, ...]
    spec: str = ""
    expected: str = ""
    found: str = ""
    source_name: str = ""
    source: str = ""
    rule: str = ""
    said: str = ""
    sound: Sound | None = field(default=None, repr=False, compare=False)
    """The leaves that nothing is wrong with, which no way to go on may touch."""
    look_up: Callable[[], str] = field(default=str, repr=False, compare=False)
    """Finds the near names: a report shows a page of problems, and they are dear."""

    @cached_property
    def near(self) -> str:
        """Names on the other side that are nearly these."""
        return self.look_up()

    @property
    def count(self) -> int:
        """How many findings they are."""
        return len(self.noted)

    @property
    def verdict(self) -> str:
        """What the policy said to all of them."""
        return self.noted[0].verdict

    @property
    def is_whole(self) -> bool:
        """Whether those are all."""
        return len(self.findings) == len(self.noted)

    @property
    def facts(self) -> Iterator[tuple[str, str]]:
        """What there is to say in columns: a label, and its text."""
        for label, text in (
            ("destination", self.expected), ("source", self.found), ("source name", self.source_name),
            ("from", self.source), ("by rule", self.rule),
        ):  # fmt: skip
            if text:
                yield label, text


@dataclass(frozen=True)
class Problems:
    """All problems of one kind.

    Attributes:
        listed: the problems; where names differ in thousands of ways, or there are tens of thousands, the
            first of them.
        count: how many findings there are in all.
    """

    listed: Sequence[Problem]
    count: int

    @property
    def is_whole(self) -> bool:
        """Whether every finding is in a problem."""
        return sum(problem.count for problem in self.listed) == self.count


def problems(plan: Decisions, findings: Iterable[Noted]) -> dict[Kind, Problems]:
    """The problems of each kind, in the order of reports; no finding is in two."""
    by_kind: dict[Kind, list[Noted]] = {kind: [] for kind in KINDS}
    for noted in findings:
        by_kind[noted.kind].append(noted)
    others, sound = _Others(plan), Sound(plan)
    found: dict[Kind, Problems] = {}
    for kind, same in by_kind.items():
        if same:
            groups = _grouped(same)
            most = _NEAR if len(groups) <= _NEAR else 1  # where much is wrong, the nearest has to do
            listed = [_problem(kind, each, [same[m] for m in each.members], others, most) for each in groups]
            found[kind] = Problems([replace(each, sound=sound) for each in listed], len(same))
    return found


def _grouped(findings: Sequence[Noted]) -> list[Group]:
    """Those with equal facts as one; siblings that one side lacks, whatever they are, too."""
    manner = KINDS[findings[0].kind]
    looked_at = ((noted.name, _facts(noted, manner)) for noted in islice(findings, _LOOKED_AT))
    groups = group(looked_at, most=_TOLD_APART)
    if manner.inline is None:
        return _joined(groups, findings)
    return siblings([(each, _family(facts(findings[each.members[0]]), manner)) for each in groups])


def _joined(groups: list[Group], findings: Sequence[Noted]) -> list[Group]:
    """Those as one, whatever they are called, of which the same is to be done for all at once."""
    by_way: dict[str, list[Group]] = {}
    for each in groups:
        first = findings[each.members[0]]
        if isinstance(first, Finding) and any(way.is_for_all for way in first.remedies):
            by_way.setdefault(first.message, []).append(each)
    joined = [join(several) for several in by_way.values()]
    alone = [each for each in groups if not any(each in several for several in by_way.values())]
    return sorted((*alone, *joined), key=lambda each: each.members[0])


def _facts(noted: Noted, manner: Manner) -> Hashable:
    said = facts(noted)
    return _family(said, manner) if manner.in_words or manner.own_words else said


def _family(said: Facts, manner: Manner) -> tuple[Hashable, ...]:
    """What findings must share to be said in one line."""
    sides = () if manner.in_words or manner.inline is not None else (said.expected, said.found)
    return (*sides, said.verdict, "" if manner.own_words else said.message, said.source, said.rule)


def _some(noted: Sequence[Noted]) -> tuple[Finding, ...]:
    """The findings, written; of very many that are not yet written only some.

    Siblings are as many of each, one kind after the other, so some of all of them are among these.
    """
    if len(noted) <= _WRITTEN or all(isinstance(one, Finding) for one in noted):
        return tuple(map(written, noted))
    return tuple(map(written, noted[:: len(noted) // _WRITTEN]))


class _Others:
    """What the other side has under a name that is near."""

    def __init__(self, plan: Decisions) -> None:
        self._plan = plan

    def spec(self, kind: Kind, name: Name) -> Spec | None:
        """The spec that the finding of this kind at this name speaks of; None where there is none."""
        noted = self._noted.get((kind, name))
        return _spec(written(noted)) if noted is not None else None

    @cached_property
    def _noted(self) -> dict[tuple[Kind, Keys], Noted]:
        return {(one.kind, one.name): one for one in self._plan.found}

    @property
    def are_of_several_sources(self) -> bool:
        """Whether it has to be said which source is meant."""
        return len(self._plan.sources) > 1


def _problem(kind: Kind, found: Group, noted: Sequence[Noted], others: _Others, most: int) -> Problem:
    findings = _some(noted)
    first, manner, whole = findings[0], KINDS[kind], len(findings) == len(noted)
    leaves = [finding.source for finding in findings if finding.source is not None]
    several = others.are_of_several_sources and not manner.in_words
    return Problem(
        kind, found, tuple(noted), findings,
        spec=_specs_in_line(manner.inline, findings) if manner.inline is not None else "",
        expected=_column([one.expected for one in findings]) if "expected" in manner.columns else "",
        found=_column([one.found for one in findings]) if "found" in manner.columns else "",
        source_name="" if manner.in_words else _source_names(findings, leaves, whole=whole),
        source=" and ".join(dict.fromkeys(leaf.source for leaf in leaves)) if several else "",
        rule=repr(first.rule) if first.rule is not None and repr(first.rule) not in first.message else "",
        said=_said(kind, findings),
        look_up=partial(_near, kind, findings, others, most) if whole else str,
    )  # fmt: skip


def _side(side: Spec | str | None) -> str:
    return print_spec(side) if isinstance(side, Spec) else side or ""


def _column(sides: Sequence[Spec | str | None]) -> str:
    """One side of findings; their dtypes, where the shapes differ."""
    if len({*map(side, sides)}) == 1 or not all(isinstance(each, Spec) for each in sides):
        return _side(sides[0])
    return ", ".join(dict.fromkeys(str(each.dtype) for each in sides if isinstance(each, Spec)))


def _spec(finding: Finding) -> Spec | None:
    """The spec on the side that is said in line; None where words are."""
    side = finding.expected if KINDS[finding.kind].inline == "expected" else finding.found
    return None if isinstance(side, str) else side


def _specs_in_line(inline: Side, findings: Sequence[Finding]) -> str:
    """``float32[10], float32[768,10]``: one for each sibling, or one for all."""
    sides = [finding.expected if inline == "expected" else finding.found for finding in findings]
    distinct = {side(each): each for each in sides if each is not None}
    return ", ".join(map(_side, distinct.values()))


def _source_names(findings: Sequence[Finding], leaves: Sequence[SourceLeaf], *, whole: bool) -> str:
    """The names in the source, where they are not the names in the destination."""
    own = [leaf.name for leaf in leaves]
    if not own or own == [finding.name for finding in findings]:
        return ""
    return print_names(own, most=3) if whole else f"for instance {own[0]}"


def _said(kind: Kind, findings: Sequence[Finding]) -> str:
    """The words of the message that the name, the specs and the kind do not say already."""
    first = findings[0]
    manner = KINDS[kind]
    if manner.told_by_sides and _side(first.expected) != _side(first.found):
        return ""
    if (
        manner.counterpart is not None
        and (first.found if manner.inline == "expected" else first.expected) is None
    ):
        return ""  # there is nothing on the other side
    if len({finding.message for finding in findings}) > 1:
        return f"for instance {first.name}: {first.message}"
    return first.message


def _near(kind: Kind, findings: Sequence[Finding], others: _Others, most: int) -> str:
    other = KINDS[kind].counterpart
    if other is None:
        return ""
    pairs = [
        (name, _difference(kind, finding, name, spec))
        for finding in findings
        for name in (finding.near[: most if len(findings) == 1 else 1])
        for spec in (others.spec(other, name),)
        if not _is_of_another_sort(finding, name, spec)
    ]
    return print_names([name for name, _ in pairs], most=_NEAR, facts=[said for _, said in pairs])


def _is_of_another_sort(finding: Finding, near: Name, other: Spec | None) -> bool:
    """Whether one is a number and the other an array, under another last key: a count and a moment."""
    one = _spec(finding)
    if one is None or other is None or near[-1:] == finding.name[-1:]:
        return False
    return bool(one.shape) != bool(other.shape)


def _difference(kind: Kind, finding: Finding, near: Name, other: Spec | None) -> str:
    one = _spec(finding)
    if one is None or other is None:
        return ""
    if one.shape != other.shape:
        here, there = (near, other), (finding.name, one)
        of_destination = KINDS[kind].inline == "expected"
        change = judge(*here, *there).change if of_destination else judge(*there, *here).change
        return f"matches if {change.words}" if change is not None else "shapes differ"
    return "dtypes differ" if one.dtype != other.dtype else ""
