"""What the user wrote and nothing came of: rules, patterns of a policy, of a scope; and what was meant.

Owns the search for what would have matched. Refuses to own the findings (``whole``): a pattern of a policy
that matches nothing forgives nothing, so it is a hint of the report and no finding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from treeload._errors import RuleError
from treeload._findings import remedy
from treeload._findings.finding import Finding, LaterFinding
from treeload._findings.remedy import Remedy
from treeload._matching.sides import Sides
from treeload._naming.mended import mend
from treeload._naming.name import print_name
from treeload._naming.near import NearNames
from treeload._plans.entry import IdlePattern
from treeload._rules.rule import Rule

_NEAR = 3  # names of the source that are said to be near a rule's pattern


def printed_names(sides: Sides) -> list[str]:
    """The names of both sides that a policy or a scope may speak of."""
    return [print_name(name) for name in dict.fromkeys((*sides.slots, *sides.offers.shaped))]


def idle_patterns(sides: Sides, findings: Iterable[Finding | LaterFinding]) -> tuple[IdlePattern, ...]:
    """The patterns of the policy that match no name, each with what was probably meant."""
    written = list(sides.policy.patterns)
    if not written:
        return ()
    names = list(dict.fromkeys((*printed_names(sides), *(print_name(finding.name) for finding in findings))))
    idle = [each for each in written if not any(map(each[1].matches, names))]
    return tuple(IdlePattern(setting, pattern.text, mend(pattern, names)) for setting, pattern in idle)


def meant(rule: Rule, names: Sequence[tuple[str, ...]], wanted: Iterable[tuple[str, ...]]) -> list[Remedy]:
    """What to write in place of a rule that matches none of these names of the source.

    ``wanted`` are the names of the destination.
    """
    printed = list(map(print_name, names))
    if _matched(rule, printed):
        return []  # an earlier rule took them
    ways: list[Remedy] = list(_widened(rule, printed))
    if not ways and _matched(rule, list(map(print_name, wanted))):
        ways += _turned_round(rule, printed)
    if not ways:
        ways += _near(rule, names, printed)
    return ways


def _widened(rule: Rule, printed: Collection[str]) -> Iterator[Remedy]:
    """It names a subtree, and rules name leaves."""
    whole = rule.of_subtree()
    count = _matched(whole, printed) if whole is not None else 0
    if whole is not None and count:
        yield remedy.UseRule(whole, f"it names a subtree; for its {_leaves(count)}:")


def _turned_round(rule: Rule, printed: Collection[str]) -> Iterator[Remedy]:
    """It was written from the destination to the source."""
    try:
        inverse = rule.inverse()
    except RuleError:
        return
    count = _matched(inverse, printed) if inverse is not None else 0
    if inverse is not None and count:
        yield remedy.UseRule(
            inverse, f"rules go from source to destination; turned round it matches {count:,}:"
        )


def _near(rule: Rule, names: Sequence[tuple[str, ...]], printed: Collection[str]) -> Iterator[Remedy]:
    for pattern in rule.patterns:
        if (found := mend(pattern, printed)) is not None:
            yield remedy.Advice(f"`{found.text}` matches {_leaves(found.count)} of the source")
        elif not pattern.opaque and not pattern.wild and not pattern.captures and pattern.text:
            near = NearNames(names).near(tuple(pattern.text.split("/")), count=_NEAR)
            if near:
                yield remedy.Advice(f"near: {', '.join(map(print_name, near))}")


def _matched(rule: Rule, printed: Collection[str]) -> int:
    return sum(any(pattern.matches(name) for pattern in rule.patterns) for name in printed)


def _leaves(count: int) -> str:
    return f"{count:,} {'leaf' if count == 1 else 'leaves'}"
