"""What a rule is: how some source leaves become destination leaves.

Owns ``Rule``, the base of all of them, and what they have in common. A rule takes source leaves by its
patterns and gives values under new names: one for one (``rename``), one for many, or many for one. Refuses to
own
the order in which rules take leaves (``apply``). Works on names and specs alone.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from treeload._errors import RuleError
from treeload._naming.name import Keys
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern
from treeload._naming.template import Template
from treeload._ops.expression import Expression


@dataclass(frozen=True, slots=True)
class Matched:
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
    value: Expression


@dataclass(frozen=True, slots=True)
class Made:
    """What a rule makes of the leaves it took: one value under a new name.

    ``value`` is None where the rule could not be applied; ``fault`` then says why.
    """

    name: Keys
    value: Expression | None
    taken: tuple[Keys, ...]
    fault: str | None = None


class Rule(abc.ABC):
    """How some source leaves become destination leaves. Rules are immutable and hold no arrays."""

    @property
    @abc.abstractmethod
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns over source names by which this rule takes leaves."""

    @abc.abstractmethod
    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        """The values it makes of all the leaves it took, each under its new name."""

    @abc.abstractmethod
    def inverse(self) -> Rule | None:
        """The rule that turns the destination's layout back; None where something is lost."""

    def rename(self, name: Keys) -> Keys | None:
        """Where a slot that holds nothing goes (an explicit None in the source), if this rule takes it."""
        return None

    def destination_text(self) -> str:
        """The destination side of the rule as it was written: where its findings belong."""
        return str(self.patterns[0])


def is_invertible(source: Pattern, destination: Template, *, but: Sequence[str] = ()) -> bool:
    """Whether the source's name can be told from the destination's: no wildcard, no capture lost.

    ``but``: captures that only one of the two has, since they are an index.
    """
    filled = {part for capture, part in destination.parts if capture}
    kept = filled.difference(but) == set(source.captures).difference(but)
    return kept and not source.opaque and not source.wild


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
