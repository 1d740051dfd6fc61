"""The ways to go on from problems, each said once, as code that does nothing to any other leaf.

Owns for which names a way is written: as they are, or as few patterns. Refuses to own what the ways are
(``_findings``) and layout (``text``, ``html``).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from treeload._findings.finding import Finding
from treeload._findings.remedy import Remedy, Widening
from treeload._inference.parts import is_of_optimizer
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import compile_pattern, quote
from treeload._reports.groups import Group, group
from treeload._reports.page import Code
from treeload._reports.problems import Problem, Problems, Sound, nodes

_PATTERNS = 4  # patterns in one piece of code, before they are taken together


@dataclass(frozen=True)
class Way:
    """One way to go on, for all whom it is open to: words, code, and more words; the code may be empty.

    Attributes:
        before, code, after: the three.
        alone: the only one of several problems that it is for, where its code does not say so.
    """

    before: str
    code: Code
    after: str
    alone: Problem | None = None

    @property
    def whole_before(self) -> str:
        """The words before the code, with whom it is for."""
        return self.before if self.alone is None else f"for {self.alone.group.title}: {self.before}"


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
    made = [_way(way, open_to, of_kind) for (way, _), open_to in found.items()]
    return sorted(made, key=lambda way: way.alone is None)


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
    patterns, alone = _patterns(way.widening, open_to), None
    if len(patterns) > 2 * _PATTERNS or (patterns and not of_kind.is_whole):
        shown = way.merged(patterns).outline
        return Way(f"{way.before} a pattern for each in", Code(shown, (shown,)), way.after)
    before = way.before
    if not patterns and len(open_to) < len(of_kind.listed):  # the code does not say whom it is for
        if len(open_to) == 1:
            ((alone, _),) = open_to
        else:
            before = f"for {', '.join(problem.group.title for problem, _ in open_to)}: {before}"
    way = way.merged(patterns)
    return Way(before, Code(way.code, way.lines), way.after, alone)


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
    names = list(dict.fromkeys(_names(named)))
    too_wide = sound is not None and any(map(sound.are_matched_by, found))
    if (
        sound is not None
        and named
        and widening == Widening.SUBTREE
        and (too_wide or len(found) > 2 * _PATTERNS or (len(found) > 1 and any(map(is_of_optimizer, names))))
    ):
        short = _short(named, names, sound)
        if len({*short, *others}) <= 2 * _PATTERNS:
            return list(dict.fromkeys((*short, *others)))
    if sound is not None and widening == Widening.LAST_KEY and not too_wide:
        too_wide = _match_any(found, sound.without(open_to[0][0].kind, set(names)))
    # A way for these leaves would else be one for others too.
    return list(dict.fromkeys(chain(map(quote, names), others))) if too_wide else found


def _short(named: Sequence[Problem], names: Sequence[Keys], sound: Sound) -> list[str]:
    """Few patterns of these names, which match no other leaf that a way of theirs could act on."""
    others = sound.without(named[0].kind, set(names))
    of_all = _whole_nodes(names, others)
    if len(of_all) <= 2 or len(named) > 2 * _PATTERNS:
        return of_all
    of_each: list[str] = []
    for problem in named:
        pattern, own = problem.group.pattern, list(_names([problem]))
        fits = not problem.group.joined and not _match_any([pattern], others)
        of_each += [pattern] if fits else _whole_nodes(own, sound.without(problem.kind, set(own)))
    return min(of_each, of_all, key=len)


def _whole_nodes(names: Sequence[Keys], others: Iterable[Keys]) -> list[str]:
    """A pattern for each highest node that holds names of these alone, down to where those part."""
    mixed = {node for name in others for node in nodes(name)}
    held: dict[Keys, list[Keys]] = {}
    for name in names:
        depth = next((d for d in range(1, len(name)) if name[:d] not in mixed), len(name))
        held.setdefault(name[:depth], []).append(name)
    return [quote(each[0]) if len(each) == 1 else f"{quote(_common(each))}/**" for each in held.values()]


def _common(names: Sequence[Keys]) -> Keys:
    """The node that holds several names, the lowest there is."""
    first, last = min(names), max(names)
    most = min(len(first), len(last)) - 1
    return first[: next((at for at in range(most) if first[at] != last[at]), most)]


def _match_any(patterns: Sequence[str], names: Iterable[Keys]) -> bool:
    """Whether one of the patterns that have a wildcard matches one of the names."""
    wide = [compile_pattern(text) for text in patterns if "*" in text]
    return bool(wide) and any(pattern.matches(text) for text in map(print_name, names) for pattern in wide)


def _by_subtree(open_to: Sequence[Problem]) -> list[str]:
    """A pattern for each problem; where there are many, one for the subtree that some of them share.

    That forgives no more: the policy for a kind acts on findings of this kind alone, and all of them
    below that subtree are among the problems.
    """
    groups = list({each.pattern: each for problem in open_to for each in problem.group.parts}.values())
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
