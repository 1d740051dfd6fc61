"""How source names and layouts become destination names: rules, and the engine that applies them.

Owns what a rule is, the order in which rules take leaves, and the grafting of one source into the
destination's names. Refuses to own patterns (``_patterns``), ops (``_ops``) and what is done with
names that meet nothing (``_match``). Works on names and specs alone.

A rule takes source leaves by its patterns and gives values under new names: one for one (``Rename``),
one for many, or many for one. All rules act at once on the names the source has: the first rule whose
pattern matches takes the leaf, and no rule sees another's result.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from treeload._errors import RuleError
from treeload._names import print_name
from treeload._ops import Apply, Op, Value, as_ops, chain, derive, inverse_ops
from treeload._patterns import Pattern, PatternLike, Template, compile_pattern, compile_template

Keys: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """One source leaf that a rule took.

    Attributes:
        pattern: which of the rule's source patterns matched.
        match: the match, with its captures.
        name: the leaf's name before the rule.
        value: the leaf, or what earlier rules of its ``From`` made of it.
    """

    pattern: int
    match: re.Match[str]
    name: Keys
    value: Value


@dataclass(frozen=True, slots=True)
class Given:
    """What a rule makes of the leaves it took: one value under a new name.

    ``value`` is None where the rule could not be applied; ``fault`` then says why.
    """

    name: Keys
    value: Value | None
    taken: tuple[Keys, ...]
    fault: str | None = None


class Rule(abc.ABC):
    """How some source leaves become destination leaves. Rules are immutable and hold no arrays."""

    @property
    @abc.abstractmethod
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns over source names by which this rule takes leaves."""

    @abc.abstractmethod
    def give(self, taken: Sequence[Taken]) -> Iterator[Given]:
        """The values it makes of all the leaves it took, each under its new name."""

    @abc.abstractmethod
    def inverse(self) -> Rule | None:
        """The rule that turns the destination's layout back; None where something is lost."""

    def rename(self, name: Keys) -> Keys | None:
        """Where a slot that holds nothing goes (an explicit None in the source), if this rule takes it."""
        return None

    def landing(self) -> str:
        """The destination side of the rule as it was written: where its findings belong."""
        return str(self.patterns[0])


@dataclass(frozen=True, init=False)
class Rename(Rule):
    """Leaves of one name become leaves of another, changed by ``ops`` on the way.

    Several leaves become one where ``source`` is a list and the first op is an ``Apply`` of a function
    of as many arrays: a low-rank update merged into its kernel, say.

    Args:
        source: a pattern over the source's names, or a list of them with the same captures.
        destination: the new name, with the pattern's captures filled in.
        ops: applied to each leaf, left to right.

    Examples:
        >>> from treeload._ops import Transpose
        >>> Rename("layer_{i}/weight", "layers/{i}/kernel", Transpose())
        Rename('layer_{i}/weight', 'layers/{i}/kernel', Transpose())

    Raises:
        RuleError: a pattern or a template that cannot mean anything, or something that is no op.
    """

    sources: tuple[Pattern, ...]
    destination: Template
    ops: tuple[Op, ...]

    def __init__(self, source: PatternLike | list[PatternLike], destination: PatternLike, *ops: Op) -> None:
        patterns = same_captures(source, "Rename") if isinstance(source, list) else (compile_pattern(source),)
        if isinstance(source, list) and not (ops and isinstance(ops[0], Apply)):
            raise RuleError("Rename([...]) of several leaves needs an Apply that makes one array of them")
        set_fields(
            self, sources=patterns, destination=compile_template(destination, patterns[0]),
            ops=as_ops(ops, "Rename"),
        )  # fmt: skip

    @property
    def source(self) -> Pattern:
        """The pattern over the source's names; of several, the first."""
        return self.sources[0]

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return self.sources

    def give(self, taken: Sequence[Taken]) -> Iterator[Given]:
        if len(self.sources) > 1:
            yield from self._join(taken)
            return
        for leaf in taken:
            name = self.destination.expand(leaf.match)
            try:
                yield Given(name, chain(leaf.value, self.ops), (leaf.name,))
            except RuleError as error:
                yield Given(name, None, (leaf.name,), str(error))

    def _join(self, taken: Sequence[Taken]) -> Iterator[Given]:
        for name, parts, fault in parts_by_name(taken, self.sources, self.destination):
            names = tuple(leaf.name for leaf in parts)
            try:
                value = None if fault else derive(self.ops[0], *(leaf.value for leaf in parts))
                made = None if value is None else chain(value, self.ops[1:])
                yield Given(name, made, names, fault or None)
            except RuleError as error:
                yield Given(name, None, names, str(error))

    def inverse(self) -> Rule | None:
        undone = inverse_ops(self.ops)
        if undone is None or len(self.sources) > 1 or not turns_round(self.source, self.destination):
            return None
        return Rename(self.destination.text, self.source.text, *undone)

    def rename(self, name: Keys) -> Keys | None:
        match = self.source.match(print_name(name)) if len(self.sources) == 1 else None
        return None if match is None else self.destination.expand(match)

    def landing(self) -> str:
        return str(self.destination)

    def __repr__(self) -> str:
        source = f"re.compile({self.source.text!r})" if self.source.opaque else repr(self.source.text)
        if len(self.sources) > 1:
            source = repr([pattern.text for pattern in self.sources])
        parts = [source, repr(self.destination.text), *map(repr, self.ops)]
        return f"Rename({', '.join(parts)})"


def turns_round(source: Pattern, destination: Template, *, but: Sequence[str] = ()) -> bool:
    """Whether the source's name can be told from the destination's: no wildcard, no capture lost.

    ``but``: captures that only one of the two has, since they are an index.
    """
    filled = {part for capture, part in destination.parts if capture}
    kept = filled.difference(but) == set(source.captures).difference(but)
    return kept and not source.opaque and not source.wild


@dataclass(frozen=True, slots=True)
class Fed:
    """A value under a destination-side name, and how it came there.

    Attributes:
        value: the expression; None where a rule could not be applied, which was reported.
        rule: the rule that gave it the name; None where it kept its own.
        taken: the names, one rule earlier, of the leaves it was made of.
    """

    value: Value | None
    rule: Rule | None
    taken: tuple[Keys, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that did not do its work: on nothing at all, or on one leaf."""

    rule: Rule
    name: Keys | None
    taken: tuple[Keys, ...]
    message: str


def apply_rules(
    values: Sequence[tuple[Keys, Value]], rules: Sequence[Rule]
) -> tuple[list[tuple[Keys, Fed]], list[Fault]]:
    """Every value under its new name, and every rule that failed.

    The result is ordered by rule, then by name as the source has it; leaves that no rule took keep
    their names and come last. Two values under one name are both there: that is a finding for the
    matcher.
    """
    if not rules:
        return [(name, Fed(value, None, (name,))) for name, value in values], []
    claims = [(number, which, pattern) for number, rule in enumerate(rules)
              for which, pattern in enumerate(rule.patterns)]  # fmt: skip
    taken: list[list[Taken]] = [[] for _ in rules]
    kept: list[tuple[Keys, Fed]] = []
    for name, value in values:
        printed = print_name(name)
        for number, which, pattern in claims:
            match = pattern.match(printed)
            if match is not None:
                taken[number].append(Taken(which, match, name, value))
                break
        else:
            kept.append((name, Fed(value, None, (name,))))
    fed: list[tuple[Keys, Fed]] = []
    faults: list[Fault] = []
    for rule, leaves in zip(rules, taken, strict=True):
        if not leaves and rule.patterns:
            faults.append(Fault(rule, None, (), _why_nothing(rule, [name for name, _ in values])))
            continue
        for given in rule.give(leaves):
            if given.fault is not None:
                faults.append(Fault(rule, given.name, given.taken, given.fault))
            fed.append((given.name, Fed(given.value, rule, given.taken)))
    return fed + kept, faults


def _why_nothing(rule: Rule, names: Iterable[Keys]) -> str:
    if any(pattern.matches(print_name(name)) for name in names for pattern in rule.patterns):
        return f"{rule!r} matched only leaves that an earlier rule had taken"
    patterns = " or ".join(f"'{pattern}'" for pattern in rule.patterns)
    return f"{rule!r} matched nothing: no leaf of the source is called {patterns}"


def rename_empty(name: Keys, rules: Sequence[Rule]) -> Keys:
    """Where a slot that holds nothing goes under ``rules``: the first that takes it says so."""
    for rule in rules:
        new = rule.rename(name)
        if new is not None:
            return new
    return name


# What the rules have in common.


def same_captures(patterns: Sequence[PatternLike], rule: str) -> tuple[Pattern, ...]:
    """Compiled patterns of the leaves that belong together.

    Raises:
        RuleError: none, or their captures differ, so that it cannot be told which belong together.
    """
    compiled = tuple(plain_pattern(pattern, rule) for pattern in patterns)
    if not compiled:
        raise RuleError(f"{rule} takes at least one part")
    for pattern in compiled:
        if set(pattern.captures) != set(compiled[0].captures):
            raise RuleError(
                f"{rule}: {compiled[0].text!r} and {pattern.text!r} have different captures, so it cannot be "
                "told which leaves belong together"
            )
    return compiled


def parts_by_name(
    taken: Sequence[Taken], sources: Sequence[Pattern], destination: Template
) -> Iterator[tuple[Keys, list[Taken], str]]:
    """For each new name its parts, in the order of ``sources``; or all that there are, and what is wrong."""
    groups: dict[Keys, dict[int, list[Taken]]] = {}
    for leaf in taken:
        groups.setdefault(destination.expand(leaf.match), {}).setdefault(leaf.pattern, []).append(leaf)
    for name, parts in groups.items():
        everything = [leaf for leaves in parts.values() for leaf in leaves]
        lacking = [pattern.text for which, pattern in enumerate(sources) if which not in parts]
        double = [leaves for leaves in parts.values() if len(leaves) > 1]
        if lacking:
            what = " or ".join(map(repr, lacking))
            beside = print_name(everything[0].name)
            fault = f"{print_name(name)} lacks a part: nothing is called {what} beside {beside}"
            yield name, everything, fault
        elif double:
            two = " and ".join(print_name(leaf.name) for leaf in double[0][:2])
            yield name, everything, f"{two} are the same part of {print_name(name)}"
        else:
            yield name, [parts[which][0] for which in range(len(sources))], ""


def set_fields(rule: Rule, **fields: Any) -> None:
    """Sets the fields of a frozen rule while it is made."""
    for name, value in fields.items():
        object.__setattr__(rule, name, value)


def plain_pattern(pattern: PatternLike, rule: str) -> Pattern:
    """A compiled pattern of our own syntax, whose captures can be filled in and turned round.

    Raises:
        RuleError: a compiled ``re.Pattern``, or what cannot mean anything.
    """
    if isinstance(pattern, re.Pattern):
        raise RuleError(f"{rule} takes patterns with named captures in braces, not a compiled re.Pattern")
    return compile_pattern(pattern)


def checked_axis(axis: int) -> int:
    """``axis``, if it is an integer."""
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise RuleError(f"axis is an integer, not {axis!r}")
    return axis


def print_rule(rule: Rule, *parts: str) -> str:
    """A rule as code: its names, its ops, its options."""
    # Positional parts first, then ops, then options, as they are written.
    options = [part for part in parts if "=" in part.split("(")[0].split("'")[0].split("[")[0]]
    names = [part for part in parts if part not in options]
    first = getattr(rule, "first", 0)
    if first:
        options.append(f"first={first}")
    ops = [repr(op) for op in getattr(rule, "ops", ())]
    return f"{type(rule).__name__}({', '.join([*names, *ops, *options])})"
