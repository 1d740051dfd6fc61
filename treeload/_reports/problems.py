"""Findings as a reader wants them: those that say the same thing once, with the code to go on.

Owns which findings are one problem, what of their facts is worth saying, and for which names a way
to go on is open. Refuses to own how that is laid out (``text``, ``html``) and what the ways are
(``_findings``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice
from typing import TypeAlias

from treeload._findings.finding import Facts, Finding, Noted, facts, side, written
from treeload._findings.kinds import KINDS, Kind, Manner, Side
from treeload._findings.remedy import Remedy, Widening
from treeload._inference.layouts import judge
from treeload._leaves.spec import Spec, print_spec
from treeload._naming.name import Keys, Name, print_name
from treeload._naming.pattern import compile_pattern, quote
from treeload._plans.decisions import Decisions
from treeload._reports.groups import Group, group, print_names, siblings
from treeload._reports.page import Code
from treeload._sources.source import SourceLeaf

_NEAR = 3  # near names shown for one problem


_PATTERNS = 4  # patterns in one piece of code, before they are taken together


_WRITTEN = 500  # findings of one problem that are written, where most are noted only


_TOLD_APART = 1_000  # groups of names of one kind: a report shows a page of them


_LOOKED_AT = 30_000  # findings of one kind, in their order; the others are counted


@dataclass(frozen=True)
class Sound:
    """The leaves of a plan, on either side, that have no finding."""

    plan: Decisions

    @cached_property
    def printed(self) -> tuple[str, ...]:
        """Their names."""
        plan, wrong = self.plan, {noted.name for noted in self.plan.found}
        leaves = (name for name, line in zip(plan.tree.names, plan.lines, strict=True) if line is not None)
        unused = (leaf.at for leaf in plan.left)
        sound = (name for name in (*leaves, *unused) if not any(node in wrong for node in _nodes(name)))
        return tuple(map(print_name, sound))

    def are_matched_by(self, text: str) -> bool:
        """Whether a pattern, written as this text, matches any of them."""
        pattern = compile_pattern(text)
        return "*" in text and any(map(pattern.matches, self.printed))


def _nodes(name: Keys) -> Iterator[Keys]:
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
class Way:
    """One way to go on, for all whom it is open to: words, code, and more words; the code may be empty."""

    before: str
    code: Code
    after: str


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
        return groups
    return siblings([(each, _family(facts(findings[each.members[0]]), manner)) for each in groups])


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
        expected=_side(first.expected) if "expected" in manner.columns else "",
        found=_side(first.found) if "found" in manner.columns else "",
        source_name="" if manner.in_words else _source_names(findings, leaves, whole=whole),
        source=" and ".join(dict.fromkeys(leaf.source for leaf in leaves)) if several else "",
        rule=repr(first.rule) if first.rule is not None and repr(first.rule) not in first.message else "",
        said=_said(kind, findings),
        look_up=partial(_near, kind, findings, others, most) if whole else str,
    )  # fmt: skip


def _side(side: Spec | str | None) -> str:
    return print_spec(side) if isinstance(side, Spec) else side or ""


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
        (name, _difference(kind, finding, name, others.spec(other, name)))
        for finding in findings
        for name in (finding.near[: most if len(findings) == 1 else 1])
    ]
    return print_names([name for name, _ in pairs], most=_NEAR, facts=[said for _, said in pairs])


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


# Ways to go on.

_Open: TypeAlias = "list[tuple[Problem, list[Remedy]]]"
"""The problems that a way is open to, each with its findings' own remedies of that way."""


def ways(of_kind: Problems, *, forgiving: bool = True) -> list[Way]:
    """The ways to go on from problems of one kind, each said once, with the names that it is open to.

    ``forgiving``: those too by which nothing more would load.
    """
    found: dict[tuple[Remedy, bool], _Open] = {}
    for problem in of_kind.listed:
        for way, own in _common_ways(problem.findings):
            if way.leaves_out and not forgiving:
                continue
            # What names its leaves, and what leaves them to the reader, are not one piece of code.
            found.setdefault((way, bool(own[0].patterns)), []).append((problem, own))
    return [_way(way, open_to, of_kind) for (way, _), open_to in found.items()]


def _common_ways(findings: Sequence[Finding]) -> Iterator[tuple[Remedy, list[Remedy]]]:
    """The ways that are open to all of these; to fill a bias with zeros is none without its kernel.

    Each for nobody in particular, with the findings' own.
    """
    if len(findings) == 1:  # as many are, where much is wrong
        yield from ((way.merged(()), [way]) for way in findings[0].remedies)
        return
    first, *others = [{_deed(way): way for way in finding.remedies} for finding in findings]
    for deed, way in first.items():
        own = [way, *(each[deed] for each in others if deed in each)]
        if len(own) == len(findings):
            said = {each.merged(()) for each in own}
            yield (way.plainly() if len(said) > 1 else way).merged(()), own


def _deed(way: Remedy) -> Hashable:
    """What a way does, however it is said and whomever it is for."""
    return way.plainly().merged(()), bool(way.patterns)


def _way(way: Remedy, open_to: _Open, of_kind: Problems) -> Way:
    patterns = _patterns(way.widening, open_to)
    if len(patterns) > 2 * _PATTERNS or (patterns and not of_kind.is_whole):
        shown = way.merged(patterns).outline
        return Way(f"{way.before} a pattern for each in", Code(shown, (shown,)), way.after)
    before = way.before
    if not patterns and len(open_to) < len(of_kind.listed):  # the code does not say whom it is for
        before = f"for {', '.join(problem.group.title for problem, _ in open_to)}: {before}"
    way = way.merged(patterns)
    return Way(before, Code(way.code, way.lines), way.after)


def _patterns(widening: Widening, open_to: _Open) -> list[str]:
    """For whom a way is: as they are, or where they are many as widely as the way allows."""
    named: list[Problem] = []  # those whose remedies are each for its finding's own name
    others: list[str] = []
    for problem, own in open_to:
        pairs = zip(own, problem.findings, strict=True)
        if all(way.patterns == (quote(finding.name),) for way, finding in pairs):
            named.append(problem)
        else:
            others += (pattern for way in own for pattern in way.patterns)
    found = _by_subtree(named) if widening == Widening.SUBTREE else _by_name(named)
    if widening == Widening.LAST_KEY and len(found) > _PATTERNS:
        found = [f"**/{quote(name[-1:])}" for name in _names(named) if name]
    found = list(dict.fromkeys((*found, *others)))
    sound = open_to[0][0].sound if open_to else None
    if sound is None or not any(map(sound.are_matched_by, found)):
        return found
    # Too wide: a way for these leaves would be one for others too.
    return list(dict.fromkeys(chain(map(quote, _names(named)), others)))


def _by_subtree(open_to: Sequence[Problem]) -> list[str]:
    """A pattern for each problem; where there are many, one for the subtree that some of them share.

    That forgives no more: the policy for a kind acts on findings of this kind alone, and all of them
    below that subtree are among the problems.
    """
    groups = list({problem.group.pattern: problem.group for problem in open_to}.values())
    if len(groups) <= _PATTERNS:
        return [each.pattern for each in groups]
    trees: dict[str, list[Group]] = {}
    for each in groups:
        trees.setdefault(each.pattern_of(0), []).append(each)
    return [_shared(several) for several in trees.values()]


def _shared(groups: Sequence[Group]) -> str:
    if len(groups) == 1:
        return groups[0].pattern
    least = min(len(each.segments) for each in groups)
    depth = 0
    while depth + 1 < least and len({each.pattern_of(depth) for each in groups}) == 1:
        depth += 1
    while depth > 1 and groups[0].pattern_of(depth - 1) == "*":
        depth -= 1  # ``layers/*/**`` is ``layers/**``
    return "/".join([*map(groups[0].pattern_of, range(depth)), "**"])


def _by_name(open_to: Sequence[Problem]) -> list[str]:
    """Patterns of no other name than these."""
    return list(dict.fromkeys(each.pattern for each in group([(name, None) for name in _names(open_to)])))


def _names(of: Iterable[Problem]) -> Iterator[Keys]:
    """The names of all their findings."""
    return (noted.name for problem in of for noted in problem.noted)
