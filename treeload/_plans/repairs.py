"""What would make more of a plan load: a part of its source, rules; each tried by deciding the load again.

Owns which repairs are worth offering, and in which order. Refuses to own the evidence (``_inference``), the
words and the layout (``_reports``). Nothing is guessed: a repair that is offered comes with the decisions
that it leads to, so that what is left wrong can be said with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from treeload._inference.parts import Part, best, parts
from treeload._inference.suggestions import AS_GIVEN, Suggestions
from treeload._plans.decisions import Decisions, Otherwise
from treeload._plans.entry import MISSING, Action, Entry

_SEPARATORS = (".", "/")

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


Repair: TypeAlias = TakePart | GiveRules


def repairs(plan: Decisions) -> tuple[Repair, ...]:
    """What to do, one after the other, so that as much loads as can be; the last has the final decisions.

    Empty where nothing is wrong, where nothing helps, or where too much is wrong to be tried.
    """
    if not 0 < len(plan.noted_errors) <= LEAVES:
        return ()
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
    if (
        after is not None
        and loaded(after) > loaded(split)
        and len(after.noted_errors) < len(split.noted_errors)
    ):
        return TakePart(separator, same, after)
    return TakePart(separator, (), split) if separator else None


def _separator(plan: Decisions) -> str:
    """What the source's names are joined by, where the destination's are not; empty elsewhere."""
    destination, source = plan.without_rules
    if not destination or max(map(len, destination)) < 2:
        return ""
    for separator in _SEPARATORS:
        joined = sum(len(name) == 1 and separator in name[0] for name in source)
        if 2 * joined > len(source) and not any(separator in key for name in destination for key in name):
            return separator
    return ""


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
