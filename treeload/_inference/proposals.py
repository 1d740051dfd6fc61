"""From decisions to rules that read well: one rule for many leaves wherever the names allow it.

Owns the spelling: captures for indices, ``{*p}`` for what two names have in common, and the order in which
rules stand (the first that matches a leaf takes it). Refuses to own the decisions (``suggest``).

A proposal is a rule for one template. Proposals that differ only in a common part become one rule, if that
rule takes the leaves of those proposals and of no other.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from treeload._inference.relayouts import Fit, moved_index
from treeload._inference.templates import CAPTURES, HOLE, Leaves, fill
from treeload._naming.name import Keys, print_name, split
from treeload._naming.pattern import Pattern
from treeload._ops.op import Op
from treeload._rules.rename import Rename
from treeload._rules.rule import Rule
from treeload._rules.stack import Stack, Unstack

Example: TypeAlias = str  # the printed name of one leaf, standing for all of its template


@dataclass(frozen=True)
class Proposal:
    """A rule in the making.

    Attributes:
        rule: the rule.
        takes: examples of what it takes: one of each template, or every leaf.
        count: how many leaves it gives.
        certain: see ``pairing``.
        reasons: why, in words; each once.
        core: what is left of the two templates when a common part is taken out; None where they have none.
        instead: rules that may be meant in its place, likeliest first.
    """

    rule: Rule
    takes: tuple[Example, ...]
    count: int
    certain: bool
    reasons: tuple[str, ...]
    core: Core | None = None
    instead: tuple[Rule, ...] = ()

    @property
    def reason(self) -> str:
        """One text for all of it."""
        leaves = f"{self.count:,} {'leaf' if self.count == 1 else 'leaves'}"
        return "; ".join([("certain: " if self.certain else "likely: ") + leaves, *self.reasons])


@dataclass(frozen=True)
class Core:
    """Two templates without their common part: ``head + part + tail`` on each side, and what is done."""

    heads: tuple[Keys, Keys]
    tails: tuple[Keys, Keys]
    fit: tuple[str, int, int]
    ops: tuple[Op, ...]
    certain: bool
    instead: tuple[tuple[Op, ...], ...] = ()


def examples(leaves: Leaves, *, every: bool = False) -> tuple[Example, ...]:
    """The printed name of one leaf of a template; ``every``: of each."""
    return tuple(print_name(name) for name in itertools.islice(leaves.members, None if every else 1))


@dataclass(frozen=True)
class Verdict:
    """What is to be done to the leaves of one pair of templates, and how sure that is."""

    ops: tuple[Op, ...]
    certain: bool
    reasons: tuple[str, ...]
    instead: tuple[tuple[Op, ...], ...] = ()


def proposals(
    source: Leaves, destination: Leaves, fit: Fit, verdict: Verdict, *, every: bool = False
) -> Iterator[Proposal]:
    """The rule for one pair of templates; several where indices have other numbers.

    ``every``: each leaf stands for itself, as it must where rules name single indices.
    """
    ops, certain, reasons = verdict.ops, verdict.certain, verdict.reasons
    if fit.moved:
        for index in sorted(source.shapes):
            numbers = [map(str, index), map(str, moved_index(source, destination, index))]
            here, there = (
                _numbered(leaves.template, run)
                for leaves, run in zip((source, destination), numbers, strict=True)
            )
            core = _core(here, there, fit, verdict)
            instead: tuple[Rule, ...] = tuple(Rename(here, there, *other) for other in verdict.instead)
            takes: tuple[Example, ...] = (print_name(here),)
            rule: Rule = Rename(here, there, *ops)
            yield Proposal(rule, takes, 1, certain, reasons, core, instead)
        return
    captures = CAPTURES[: max(len(source.ranges), len(destination.ranges))]
    kept = "".join(captures[at] for at in fit.holes)
    sides = (kept, captures) if fit.how == "unstack" else (captures, kept)
    pattern, template = source.text(sides[0]), destination.text(sides[1])
    rule = _rule(fit.how, pattern, template, ops, fit.axis, fit.first)
    instead = tuple(
        _rule(fit.how, pattern, template, other, fit.axis, fit.first) for other in verdict.instead
    )
    plain = fit.how != "rename" or list(fit.holes) == sorted(fit.holes)
    core = _core(source.template, destination.template, fit, verdict) if plain else None
    takes = examples(source, every=every)
    yield Proposal(rule, takes, len(destination.shapes), certain, reasons, core, instead)


def _rule(how: str, here: str, there: str, ops: Sequence[Op], axis: int, first: int) -> Rule:
    if how == "rename":
        return Rename(here, there, *ops)
    return (Stack if how == "stack" else Unstack)(here, there, *ops, axis=axis, first=first)


def _numbered(template: Keys, numbers: Iterable[str]) -> Keys:
    run = iter(numbers)
    return tuple(key.replace(HOLE, next(run)) if HOLE in key else key for key in template)


def _core(here: Keys, there: Keys, fit: Fit, verdict: Verdict) -> Core | None:
    match = difflib.SequenceMatcher(None, here, there, autojunk=False).find_longest_match()
    if match.size == 0:
        return None
    heads = here[: match.a], there[: match.b]
    tails = here[match.a + match.size :], there[match.b + match.size :]
    if fit.how == "rename" and any(_holes(one) != _holes(other) for one, other in (heads, tails)):
        return None
    if fit.how != "rename" and _holes(tails[0]) != _holes(tails[1]):
        return None
    # Only holes that come first may be the stacked ones: else it is not plain which capture is which.
    if fit.how != "rename" and min(_holes(heads[0]), _holes(heads[1])) > 0:
        return None
    how = (fit.how, fit.axis, fit.first)
    return Core(heads, tails, how, verdict.ops, verdict.certain, verdict.instead)


def _holes(keys: Keys) -> int:
    return sum(key.count(HOLE) for key in keys)


# One rule for many.


def gathered(singles: Sequence[Proposal], others: Sequence[Example]) -> list[Proposal]:
    """The same as few proposals, in the order in which their rules must stand.

    Args:
        singles: one proposal for each template.
        others: examples of the templates that no proposal takes, and that no rule may take.
    """
    clusters: dict[Core, list[Proposal]] = defaultdict(list)
    for proposal in singles:
        if proposal.core is not None:
            clusters[proposal.core].append(proposal)
    owner = {name: proposal for proposal in singles for name in proposal.takes}
    clustered = {
        name for each in clusters.values() if len(each) > 1 for proposal in each for name in proposal.takes
    }
    general: list[Proposal] = []
    taken: set[Example] = set()
    named = Named((*owner, *others))
    # The more a rule says, the earlier it stands.
    for core, members in sorted(clusters.items(), key=lambda item: -_length(item[0])):
        if len(members) < 2:
            continue
        proposal = _general(core, members)
        own = set(proposal.takes)
        reach = named.matched_by(proposal.rule.patterns[0])
        # It may reach what an earlier rule takes; a certain one, what an earlier certain one takes, since the
        # certain rules may be used without the others.
        may = all(
            name in owner and (name in taken or name not in clustered)
            and owner[name].certain >= proposal.certain
            for name in reach - own
        )  # fmt: skip
        if may and own <= reach:
            general.append(proposal)
            taken |= own
    left = [proposal for proposal in singles if not set(proposal.takes) <= taken]
    return sorted(left, key=_generality) + general


class Named:
    """Printed names by the keys that they hold: of a great many, a pattern is asked only for a few."""

    def __init__(self, names: Iterable[Example]) -> None:
        self._all = list(names)
        self._holding: dict[str, list[Example]] = defaultdict(list)
        for name in self._all:
            for key in dict.fromkeys(split(name) if "\\" in name else name.split("/")):
                self._holding[key].append(name)

    def matched_by(self, pattern: Pattern) -> set[Example]:
        """Those of the names that a pattern matches: they hold each of its keys that is no wildcard."""
        keys = [] if pattern.opaque or not pattern.text else split(pattern.text)
        holding = [self._holding.get(key, []) for key in keys if _LITERAL.fullmatch(key)]
        asked: list[Example] = min(holding, key=len, default=self._all)
        return {name for name in asked if pattern.matches(name)}


_LITERAL = re.compile(r"[^\\*{}]+")


def _generality(proposal: Proposal) -> tuple[int, int]:
    """A name without captures before a pattern that would take it too; ``conv{i}_BN`` before ``conv{i}``."""
    patterns = proposal.rule.patterns
    captures = sum(len(each.captures) for each in patterns)
    return captures, -sum(len(each.text) for each in patterns) if captures else 0


def _length(core: Core) -> int:
    return 10 * sum(map(len, (core.heads[0], core.tails[0]))) + _holes(core.heads[0])


def _general(core: Core, members: Sequence[Proposal]) -> Proposal:
    how, axis, first = core.fit
    (head, target_head), (tail, target_tail) = core.heads, core.tails
    rest = "rest" if not tail else "p"
    count = max(_holes(head), _holes(target_head))
    front, back = CAPTURES[:count], CAPTURES[count:]
    texts = []
    for start, end in ((head, tail), (target_head, target_tail)):
        parts = [fill(start, front), f"{{*{rest}}}", fill(end, back)]
        texts.append("/".join(part for part in parts if part))
    rule = _rule(how, texts[0], texts[1], core.ops, axis, first)
    instead = tuple(_rule(how, texts[0], texts[1], ops, axis, first) for ops in core.instead)
    merged = tuple(_summary(members))
    takes = tuple(name for member in members for name in member.takes)
    count = sum(member.count for member in members)
    return replace(members[0], rule=rule, takes=takes, count=count, reasons=merged, instead=instead)


def _summary(members: Sequence[Proposal]) -> Iterator[str]:
    """Reasons of many proposals: how many there are, and those that all share."""
    yield f"the names of {len(members)} groups of leaves agree but for this"
    yield from (
        reason for reason in members[0].reasons if all(reason in member.reasons for member in members)
    )
