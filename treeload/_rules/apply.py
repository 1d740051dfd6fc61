"""Rules at work: every source leaf under its new name.

Owns the order in which rules take leaves. All rules act at once on the names the source has: the first rule
whose pattern matches takes the leaf, and no rule sees another's result. A rule that copies is asked before
those after it, and takes nothing from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from treeload._naming.name import Keys, print_key, print_name
from treeload._ops.expression import Expression, Leaf
from treeload._rules.rule import Made, Matched, Rule


@dataclass(frozen=True, slots=True)
class Arrival:
    """A value under a destination-side name, and how it came there.

    Attributes:
        value: the expression; None where a rule could not be applied, which was reported.
        rule: the rule that gave it the name; None where it kept its own.
        taken: the names, one rule earlier, of the leaves it was made of.
        spare: whether it is a leaf that a rule copied and none took: it is of use already, and loads under
            its own name only where the destination wants it.
    """

    value: Expression | None
    rule: Rule | None
    taken: tuple[Keys, ...]
    spare: bool = False


@dataclass(frozen=True, slots=True)
class RuleFailure:
    """A rule that did not do its work: on nothing at all, or on some leaves.

    Attributes:
        rule: the rule.
        name: the destination-side name it was to feed; None where it took nothing, or gave none.
        taken: the names, one rule earlier, of the leaves that it took for it.
        message: why.
        leaves: the source leaves in them.
        into: where in the destination the names of its ``From`` go.
        forgiven: it is a step's of a history, whose own policy forgives it.
        way: what to write to go on, where that is known.
        earlier: the rule that took its leaves, where no other rule would be idle if this came before it.
        gives, loses: the names at which a leaf would be then, and those at which none would be any more.
    """

    rule: Rule
    name: Keys | None
    taken: tuple[Keys, ...]
    message: str
    leaves: tuple[Leaf, ...] = ()
    into: Keys = ()
    forgiven: bool = False
    way: str = ""
    earlier: Rule | None = None
    gives: tuple[Keys, ...] = ()
    loses: tuple[Keys, ...] = ()

    @property
    def destination_text(self) -> str:
        """The name, or the rule's destination side as it was written: what policies look at."""
        if self.name is not None:
            return print_name(self.name)
        return "/".join([*map(print_key, self.into), self.rule.destination_text()])


def apply_rules(
    values: Sequence[tuple[Keys, Expression]], rules: Sequence[Rule]
) -> tuple[list[tuple[Keys, Arrival]], list[RuleFailure]]:
    """Every value under its new name, and every rule that failed.

    The result is ordered by rule, then by name as the source has it; leaves that no rule took keep
    their names and come last. So does what was only copied, but for a leaf whose copy has its own name.
    Two values under one name are both there: that is a finding for the matcher.
    """
    if not rules:
        return [(name, Arrival(value, None, (name,))) for name, value in values], []
    taken, kept = _assigned(rules, values)
    fed: list[tuple[Keys, Arrival]] = []
    failures: list[RuleFailure] = []
    for rule, leaves in zip(rules, taken, strict=True):
        if not leaves and rule.patterns:
            failures.append(_idle(rule, rules, values))
            continue
        answered: set[Keys] = set()
        for given in rule.give(leaves):
            answered.update(given.taken)
            if given.fault is not None:
                failures.append(_failure(rule, given.name, given.taken, given.fault, leaves))
            fed.append((given.name, Arrival(given.value, rule, given.taken)))
        lost = tuple(leaf.name for leaf in leaves if leaf.name not in answered)
        if lost:
            failures.append(_failure(rule, None, lost, _why_lost(rule, lost), leaves))
    own = {name for name, one in fed if name in one.taken} if any(rule.copies for rule in rules) else ()
    return fed + [one for one in kept if not (one[1].spare and one[0] in own)], failures


def _assigned(
    rules: Sequence[Rule], values: Sequence[tuple[Keys, Expression]]
) -> tuple[list[list[Matched]], list[tuple[Keys, Arrival]]]:
    """What each rule takes, and what keeps its name."""
    claims = [(number, which, pattern) for number, rule in enumerate(rules)
              for which, pattern in enumerate(rule.patterns)]  # fmt: skip
    taken: list[list[Matched]] = [[] for _ in rules]
    kept: list[tuple[Keys, Arrival]] = []
    for name, value in values:
        printed, copied = print_name(name), -1
        for number, which, pattern in claims:
            match = pattern.match(printed)
            if match is not None and number != copied:  # one leaf is one part of a rule, copied or not
                taken[number].append(Matched(which, match, name, value))
                if not rules[number].copies:
                    break
                copied = number
        else:
            kept.append((name, Arrival(value, None, (name,), spare=copied >= 0)))
    return taken, kept


def _failure(
    rule: Rule, name: Keys | None, taken: tuple[Keys, ...], message: str, leaves: Iterable[Matched]
) -> RuleFailure:
    mine = set(taken)
    sources = tuple(each for leaf in leaves if leaf.name in mine for each in leaf.value.leaves())
    return RuleFailure(rule, name, taken, message, sources)


def _why_lost(rule: Rule, lost: Sequence[Keys]) -> str:
    some = ", ".join(map(print_name, lost[:5])) + (f" and {len(lost) - 5:,} more" if len(lost) > 5 else "")
    return f"{rule!r} took {some} and says nothing of what becomes of it"


def _idle(rule: Rule, rules: Sequence[Rule], values: Sequence[tuple[Keys, Expression]]) -> RuleFailure:
    """A rule that took nothing: there is nothing of its names, or a rule before it had it all."""
    printed = next((text for name, _ in values if _matches(rule, text := print_name(name))), None)
    if printed is None:
        patterns = " or ".join(f"'{pattern}'" for pattern in rule.patterns)
        message = f"{rule!r} matched nothing: no leaf of the source is called {patterns}"
        return RuleFailure(rule, None, (), message)
    earlier = next(one for one in rules if _matches(one, printed) and not one.copies)
    failure = RuleFailure(
        rule, None, (), f"{rule!r} matched only leaves that an earlier rule had taken",
        way=f"for one leaf in two places, write {earlier!r} as a Copy, or add a Tie",
    )  # fmt: skip
    if len(values) * len(rules) > _TRIED:
        return failure
    now, then = _Order(rules, values), _Order(before(rule, earlier, rules), values)
    if then.idle - now.idle or then.faults > now.faults:
        return failure
    at_now, at_then = dict.fromkeys(now.names), dict.fromkeys(then.names)
    gives = tuple(name for name in at_then if name not in at_now)
    loses = tuple(name for name in at_now if name not in at_then)
    return replace(failure, earlier=earlier, gives=gives, loses=loses)


_TRIED = 200_000  # leaves times rules: among more, no other order is tried


def before(rule: Rule, other: Rule, rules: Sequence[Rule]) -> list[Rule]:
    """``rules`` with one of them put before another that comes before it now."""
    at = next(number for number, each in enumerate(rules) if each is other)
    return [*rules[:at], rule, *(each for each in rules[at:] if each is not rule)]


class _Order:
    """Rules in some order, and what comes of it."""

    def __init__(self, rules: Sequence[Rule], values: Sequence[tuple[Keys, Expression]]) -> None:
        taken, self._kept = _assigned(rules, values)
        self._taken = list(zip(rules, taken, strict=True))

    @property
    def idle(self) -> set[int]:
        """The rules that take nothing, each by its identity: two may be equal."""
        return {id(rule) for rule, leaves in self._taken if not leaves}

    @cached_property
    def _made(self) -> list[Made]:
        return [made for rule, leaves in self._taken if leaves for made in rule.give(leaves)]

    @property
    def faults(self) -> int:
        """How often a rule cannot be applied."""
        return sum(made.fault is not None for made in self._made)

    @property
    def names(self) -> tuple[Keys, ...]:
        """The names that arrive."""
        return (*(made.name for made in self._made), *(name for name, _ in self._kept))


def _matches(rule: Rule, printed: str) -> bool:
    return any(pattern.matches(printed) for pattern in rule.patterns)


def rename_empty(name: Keys, rules: Sequence[Rule]) -> list[Keys]:
    """Where a slot that holds nothing goes under ``rules``: the first that takes it says so.

    There are several names where rules copy it, its own among them if no rule takes it.
    """
    copies: list[Keys] = []
    for rule in rules:
        new = rule.rename(name)
        if new is not None:
            copies.append(new)
            if not rule.copies:
                return copies
    return [*copies, name]
