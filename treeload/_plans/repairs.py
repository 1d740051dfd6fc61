"""What would make more of a plan load: a part of its source, rules; each tried by deciding the load again.

Owns which repairs are worth offering, and in which order. Refuses to own the evidence (``_inference``), the
words and the layout (``_reports``). Nothing is guessed: a repair that is offered comes with the decisions
that it leads to, so that what is left wrong can be said with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from treeload._findings.finding import Finding
from treeload._findings.remedy import PutBefore
from treeload._inference.joined import joined_by
from treeload._inference.parts import Part, best, parts
from treeload._inference.suggestions import AS_GIVEN, Suggestions
from treeload._plans.decisions import Decisions, Otherwise, Regraft
from treeload._plans.entry import MISSING, Action, Entry
from treeload._rules.apply import before

_WORTH = 10  # one leaf in so many must be fed by rules none of which is certain: else it is chance

LEAVES = 20_000  # of so many leaves that are in no place nothing is tried: a report does not take minutes


@dataclass(frozen=True)
class TakePart:
    """Give the source in another way: its names split, a part of it, into a part of the destination.

    Attributes:
        separator: what its names are to be split at; empty where they are not.
        parts: the part; several where each would do as well, and only the user knows which is meant; none
            where all of it is meant.
        after: the decisions with the first.
    """

    separator: str
    parts: tuple[Part, ...]
    after: Decisions

    @property
    def is_choice(self) -> bool:
        """Whether it is for the user to choose."""
        return len(self.parts) > 1


@dataclass(frozen=True)
class GiveRules:
    """Give these rules.

    Attributes:
        rules: what ``suggest()`` gives.
        after: the decisions under them.
        fed: how many more leaves load.
        of: how many there are without a value.
    """

    rules: Suggestions
    after: Decisions
    fed: int
    of: int


@dataclass(frozen=True)
class Reorder:
    """Put rules before others that took their leaves.

    Attributes:
        after: the decisions with the rules in that order.
    """

    after: Decisions


@dataclass(frozen=True)
class MendFrom:
    """Write a ``From`` that names nothing as it was meant.

    Attributes:
        meant: how; in several ways, where each would do as well and only the user knows which is meant.
        after: the decisions with the first.
    """

    meant: tuple[Regraft, ...]
    after: Decisions

    @property
    def is_choice(self) -> bool:
        """Whether it is for the user to choose."""
        return len(self.meant) > 1


Repair: TypeAlias = TakePart | GiveRules | Reorder | MendFrom


def repairs(plan: Decisions) -> tuple[Repair, ...]:
    """What to do, one after the other, so that as much loads as can be; the last has the final decisions.

    Empty where nothing is wrong, where nothing helps, or where too much is wrong to be tried.
    """
    if not 0 < len(plan.noted_errors) <= LEAVES:
        return ()
    first = _reorder(plan) or _mend_from(plan)
    if first is not None:
        is_choice = isinstance(first, MendFrom) and first.is_choice
        return (first,) if is_choice else (first, *repairs(first.after))
    part = _part(plan)
    if part is not None and (part.is_choice or part.after.ok):
        return (part,)
    rules = _rules(plan)
    if part is None:
        return (rules,) if rules is not None else ()
    within = _rules(part.after)
    if rules is not None and _worth(rules.after) >= _worth((within or part).after):
        return (rules,)
    if within is not None:
        return (part, within)
    return (part,) if loaded(part.after) > loaded(plan) else ()


def _reorder(plan: Decisions) -> Reorder | None:
    """The rules in the order that findings speak of, all at once."""
    said = [
        way for noted in plan.noted_errors if isinstance(noted, Finding)
        for way in noted.remedies if isinstance(way, PutBefore)
    ]  # fmt: skip
    rules = list(plan.given)
    for way in said:
        if any(each is way.rule for each in rules) and any(each is way.earlier for each in rules):
            rules = before(way.rule, way.earlier, rules)
    after = plan.again(Otherwise(tuple(rules))) if said else None
    return Reorder(after) if after is not None and _is_better(after, plan) else None


def _mend_from(plan: Decisions) -> MendFrom | None:
    """The way to write a ``From`` by which most loads, or the ways."""
    tried = [
        (meant, after) for meant in plan.regrafts()
        if (after := plan.again(Otherwise(plan.given, regraft=meant))) is not None and _is_better(after, plan)
    ]  # fmt: skip
    best = max((_worth(after) for _, after in tried), default=None)
    found = [(meant, after) for meant, after in tried if _worth(after) == best]
    return MendFrom(tuple(meant for meant, _ in found), found[0][1]) if found else None


def _is_better(after: Decisions, plan: Decisions) -> bool:
    return loaded(after) > loaded(plan) and len(after.noted_errors) < len(plan.noted_errors)


def _part(plan: Decisions) -> TakePart | None:
    """The part of the source that holds more than what loads as it is; joined names are split first."""
    if plan.given:
        return None
    separator = _separator(plan)
    split = plan.again(Otherwise(separator=separator)) if separator else plan
    if split is None:
        return None
    found = parts(*split.without_rules)
    same = best(found) if found else ()
    after = split.again(Otherwise(subtree=same[0].source, into=same[0].destination)) if same else None
    if after is not None and _is_better(after, split):
        return TakePart(separator, same, after)
    return TakePart(separator, (), split) if separator else None


def _separator(plan: Decisions) -> str:
    """What the source's names are joined by, where the destination's are not; empty elsewhere."""
    return joined_by(*plan.without_rules)


def _rules(plan: Decisions) -> GiveRules | None:
    suggested = plan.suggestions
    if all(reason == AS_GIVEN for reason in suggested.reasons):
        return None
    after = plan.again(Otherwise(tuple(suggested)))
    if after is None or len(after.noted_errors) >= len(plan.noted_errors):
        return None
    fed, of = loaded(after) - loaded(plan), _without_value(plan)
    new_certain = len(suggested.certain) > suggested.reasons.count(AS_GIVEN)
    worth = fed > 0 and (new_certain or _WORTH * fed >= of)
    return GiveRules(suggested, after, fed, of) if worth else None


def _worth(plan: Decisions) -> tuple[int, int]:
    return loaded(plan), -len(plan.noted_errors)


def loaded(plan: Decisions) -> int:
    """How many leaves of the destination get a value."""
    count = plan.count()
    return count[Action.LOAD][0] + count[Action.TIE][0]


def _without_value(plan: Decisions) -> int:
    wrong = {noted.name for noted in plan.noted_errors}
    return sum(
        (line is MISSING and name in wrong)
        or (isinstance(line, Entry) and line.action == Action.KEEP
        and not wrong.isdisjoint((line.name, *line.aliases)))
        for name, line in zip(plan.tree.names, plan.lines, strict=True)
    )  # fmt: skip
