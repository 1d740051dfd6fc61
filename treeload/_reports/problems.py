"""Findings as a reader wants them: those that say the same thing once, with the code to go on.

Owns which findings are one problem, what of their facts is worth saying, and how the remedies of many
become one piece of code. Refuses to own how that is laid out (``text``, ``html``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from treeload._findings.finding import Finding
from treeload._findings.policy import VERDICTS
from treeload._inference.layouts import judge
from treeload._leaves.spec import Spec, print_spec
from treeload._naming.name import Name
from treeload._naming.pattern import quote
from treeload._plan import Plan
from treeload._reports.groups import Group, group, print_names, siblings
from treeload._reports.page import Code
from treeload._sources.source import SourceLeaf

_INLINE = ("missing", "unexpected", "abstract")  # said in one line: a name, and what one side has there


_SAID_IN_WORDS = ("collision", "tie")  # their message says what both sides have


_OWN_WORDS = ("collision", "tie", "absent")  # their message differs from leaf to leaf


_NEAR = 3  # near names shown for one problem


_PATTERNS = 4  # patterns in one piece of code, before they are taken together


@dataclass(frozen=True)
class Problem:
    """Findings of one kind with equal facts. A text is empty where there is nothing to say.

    Attributes:
        kind: the kind of finding.
        group: their names.
        findings: themselves, in the group's order.
        spec: what one side has, for kinds where the other has nothing.
        expected, found: what the destination and the source have, for the others.
        source_name: the names in the source, where they are other names.
        source: which source, where there are several.
        rule: the rule that brought them there.
        said: what else is wrong, in words.
        near: names on the other side that are nearly these.
    """

    kind: str
    group: Group
    findings: tuple[Finding, ...]
    spec: str = ""
    expected: str = ""
    found: str = ""
    source_name: str = ""
    source: str = ""
    rule: str = ""
    said: str = ""
    near: str = ""

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
class Remedy:
    """One way to go on: words, code, and more words; the code may be empty."""

    before: str
    code: Code
    after: str

    def __str__(self) -> str:
        return f"{self.before} {self.code.whole}".strip() + self.after


def problems(plan: Plan, findings: Sequence[Finding]) -> dict[str, list[Problem]]:
    """The problems of each kind, in the order of reports; every finding is in exactly one."""
    specs = {(f.kind, f.name): _spec(f) for f in plan.findings if f.kind in ("missing", "unexpected")}
    many = len(plan.sources) > 1
    found: dict[str, list[Problem]] = {}
    for kind in VERDICTS:
        same = [finding for finding in findings if finding.kind == kind]
        if same:
            groups = _grouped(same)
            most = _NEAR if len(groups) <= _NEAR else 1  # where much is wrong, the nearest has to do
            found[kind] = [
                _problem(kind, each, [same[m] for m in each.members], specs, many=many, most=most)
                for each in groups
            ]
    return found


def _grouped(findings: Sequence[Finding]) -> list[Group]:
    """Those with equal facts as one; siblings that one side lacks, whatever they are, too."""
    groups = group([(finding.name, _facts(finding)) for finding in findings])
    if findings[0].kind not in _INLINE:
        return groups
    return siblings([(each, _family(findings[each.members[0]])) for each in groups])


def _facts(finding: Finding) -> tuple[Hashable, ...]:
    if finding.kind in _SAID_IN_WORDS:
        return _family(finding)
    return (_key(finding.expected), _key(finding.found), *_family(finding))


def _family(finding: Finding) -> tuple[Hashable, ...]:
    """What findings must share to be said in one line."""
    message = "" if finding.kind in _OWN_WORDS else finding.message
    source = finding.source.source if finding.source is not None else ""
    rule = repr(finding.rule) if finding.rule is not None else ""
    return (finding.verdict, message, source, rule)


def _problem(
    kind: str, found: Group, findings: list[Finding], specs: Mapping[tuple[str, Name], Spec | None],
    *, many: bool, most: int,
) -> Problem:  # fmt: skip
    first = findings[0]
    inline = kind in _INLINE
    leaves = [finding.source for finding in findings if finding.source is not None]
    in_words = inline or kind in _SAID_IN_WORDS
    several = many and kind not in _SAID_IN_WORDS
    return Problem(
        kind, found, tuple(findings),
        spec=_specs_in_line(kind, findings) if inline else "",
        expected="" if in_words or kind == "absent" else _side(first.expected),
        found="" if in_words else _side(first.found),
        source_name="" if kind in _SAID_IN_WORDS else _source_names(findings, leaves),
        source=" and ".join(dict.fromkeys(leaf.source for leaf in leaves)) if several else "",
        rule=repr(first.rule) if first.rule is not None and repr(first.rule) not in first.message else "",
        said=_said(kind, findings),
        near=_near(kind, findings, specs, most),
    )  # fmt: skip


def _side(side: Spec | str | None) -> str:
    return print_spec(side) if isinstance(side, Spec) else side or ""


def _key(side: Spec | str | None) -> Hashable:
    """What tells one side from another: to print a dtype takes ten times as long."""
    return (side.shape, side.dtype) if isinstance(side, Spec) else side


def _spec(finding: Finding) -> Spec | None:
    side = finding.expected if finding.kind == "missing" else finding.found
    return None if isinstance(side, str) else side


def _specs_in_line(kind: str, findings: Sequence[Finding]) -> str:
    """``float32[10], float32[768,10]``: one for each sibling, or one for all."""
    sides = [finding.found if kind == "unexpected" else finding.expected for finding in findings]
    distinct = {_key(side): side for side in sides if side is not None}
    return ", ".join(map(_side, distinct.values()))


def _source_names(findings: Sequence[Finding], leaves: Sequence[SourceLeaf]) -> str:
    """The names in the source, where they are not the names in the destination."""
    own = [leaf.name for leaf in leaves]
    return "" if own == [finding.name for finding in findings] else print_names(own, most=3)


def _said(kind: str, findings: Sequence[Finding]) -> str:
    """The words of the message that the name, the specs and the kind do not say already."""
    first = findings[0]
    if (first.found if kind == "missing" else first.expected) is None and kind in ("missing", "unexpected"):
        return ""
    if kind == "shape":
        return first.message.partition("; ")[2]  # behind the two shapes, which have lines of their own
    if len({finding.message for finding in findings}) > 1:
        return f"for instance {first.name}: {first.message}"
    return first.message


def _near(
    kind: str, findings: Sequence[Finding], specs: Mapping[tuple[str, Name], Spec | None], most: int
) -> str:
    other = "unexpected" if kind == "missing" else "missing"
    pairs = [
        (name, _difference(kind, finding, name, specs.get((other, name))))
        for finding in findings
        for name in (finding.near[: most if len(findings) == 1 else 1])
    ]
    return print_names([name for name, _ in pairs], most=_NEAR, facts=[said for _, said in pairs])


def _difference(kind: str, finding: Finding, near: Name, other: Spec | None) -> str:
    one = _spec(finding)
    if one is None or other is None:
        return ""
    if one.shape != other.shape:
        here, there = (near, other), (finding.name, one)
        change = judge(*here, *there).change if kind == "missing" else judge(*there, *here).change
        return f"matches if {change.words}" if change is not None else "shapes differ"
    return "dtypes differ" if one.dtype != other.dtype else ""


# Remedies.

_OWN = "\0"  # stands for a finding's own name, as a pattern in code


_POLICY = re.compile(r'Policy\((?:"(?:[^"\\]|\\.)*"|[^()"]|\((?:"(?:[^"\\]|\\.)*"|[^()"])*\))*\)')


_PLACE = re.compile(rf'(?P<mapping>\{{{_OWN}: (?P<verdict>"\w+")\}})|\({_OWN},\)')


def remedies(same: Sequence[Problem]) -> list[Remedy]:
    """The ways to go on from problems of one kind, each said once, with the names that it is open to."""
    ways: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in same:
        for way in _common_ways(problem.findings):
            ways.setdefault(way, []).append(problem)
    return [_remedy(way, open_to, to_all=len(open_to) == len(same)) for way, open_to in ways.items()]


def _common_ways(findings: Sequence[Finding]) -> list[tuple[str, str, str]]:
    """The ways that are open to all of these; to fill a bias with zeros is none without its kernel."""
    distinct = dict.fromkeys(_ways(f.remedy.replace(_literal(quote(f.name)), _OWN)) for f in findings)
    first, *others = [
        {policy or before: (before, policy, after) for before, policy, after in ways} for ways in distinct
    ]
    return [
        way if all(each[key] == way for each in others) else ("to go on:", key, "")
        for key, way in first.items() if all(key in each for each in others)
    ]  # fmt: skip


@lru_cache(maxsize=1024)
def _ways(remedy: str) -> tuple[tuple[str, str, str], ...]:
    """Each way as words, code and words; the code may be empty."""
    ways = []
    for way in filter(None, remedy.split("; ")):
        found = _POLICY.search(way)
        if found is None:
            ways.append((way, "", ""))
        else:
            ways.append((way[: found.start()].strip(), found[0], way[found.end() :]))
    return tuple(ways)


def _literal(pattern: str) -> str:
    """A pattern as it stands in code; also what the matcher writes into remedies."""
    return json.dumps(pattern, ensure_ascii=False)


def _remedy(way: tuple[str, str, str], open_to: Sequence[Problem], *, to_all: bool) -> Remedy:
    before, policy, after = way
    place = _PLACE.search(policy)
    if place is None:
        if not to_all:  # the code does not say whom it is for
            before = f"for {', '.join(problem.group.title for problem in open_to)}: {before}"
        return Remedy(before, Code(policy, (policy,)), after)
    start, end = policy[: place.start()], policy[place.end() :]
    mapping = place["mapping"] is not None
    left, right = "{}" if mapping else "()"
    patterns = _by_subtree(open_to) if mapping else _by_last_key(open_to)
    if len(patterns) > 2 * _PATTERNS:
        shown = f"{start}{left}...{right}{end}"
        return Remedy(f"{before} a pattern for each in", Code(shown, (shown,)), after)
    items = [_literal(pattern) + (f": {place['verdict']}" if mapping else "") for pattern in patterns]
    comma = "," if len(items) == 1 and not mapping else ""
    broken = (start + left, *(f"    {item}," for item in items), right + end)
    return Remedy(before, Code(f"{start}{left}{', '.join(items)}{comma}{right}{end}", broken), after)


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


def _by_last_key(open_to: Sequence[Problem]) -> list[str]:
    """Patterns of no other name than these; where there are many, one for each last key, as ``**/bias``."""
    names = [finding.name for problem in open_to for finding in problem.findings]
    patterns = list(dict.fromkeys(each.pattern for each in group([(name, None) for name in names])))
    if len(patterns) <= _PATTERNS:
        return patterns
    return list(dict.fromkeys(f"**/{quote(name[-1:])}" for name in names if name))
