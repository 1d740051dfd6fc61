"""What a rule is: how some source leaves become destination leaves.

Owns ``Rule``, the base of all of them, and what they have in common. A rule takes source leaves by its
patterns and gives values under new names: one for one (``rename``), one for many, or many for one. Refuses to
own the order in which rules take leaves (``apply``). Works on names and specs alone.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from treeload._errors import RuleError
from treeload._naming.name import Keys
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern
from treeload._naming.template import Template
from treeload._ops.expression import Expression
from treeload._ops.op import Op

Written: TypeAlias = Pattern | Template | tuple[Pattern, ...] | tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class Matched:
    """One source leaf that a rule took.

    Attributes:
        pattern: which of the rule's ``patterns`` matched, by its number.
        match: the match, with its captures: ``match["i"]``; for ``Template.expand``.
        name: the leaf's name before the rule.
        value: the leaf, or what earlier rules of its ``From`` made of it; ``value.spec`` is its shape and
            dtype.
    """

    pattern: int
    match: re.Match[str]
    name: Keys
    value: Expression


@dataclass(frozen=True, slots=True)
class Made:
    """What a rule makes of leaves that it took: one value under a new name.

    Attributes:
        name: the new name, as ``Template.expand`` gives it.
        value: what it is made of; None where the rule could not be applied.
        taken: the names of the leaves it was made of, as they are in ``Matched``.
        fault: then, why it could not; None where it was said at another name already.
    """

    name: Keys
    value: Expression | None
    taken: tuple[Keys, ...]
    fault: str | None = None

    @classmethod
    def of(cls, name: Keys, taken: tuple[Keys, ...], make: Callable[[], Expression]) -> Made:
        """What ``make`` gives, under ``name``; where it raises a ``RuleError``, that is the fault."""
        try:
            return cls(name, make(), taken)
        except RuleError as error:
            return cls(name, None, taken, str(error))


class Rule(abc.ABC):
    """How some source leaves become destination leaves. Rules are immutable and hold no arrays.

    A rule of your own says ``patterns`` and ``give``, and prints as it is written: reports show it. What
    ``give`` takes and gives, and what it is made with, is in ``treeload.rules``.
    """

    @property
    @abc.abstractmethod
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns over source names by which this rule takes leaves; see ``compile_pattern``."""

    @abc.abstractmethod
    def give(self, taken: Sequence[Matched]) -> Iterable[Made]:
        """The values it makes of all the leaves it took, in the source's order, each under its new name.

        It answers for all of them: a leaf that it can do nothing with is in the ``taken`` of a ``Made`` with
        a fault; one that is in none is a finding. Only names and specs are there: no array is read.
        """

    @property
    def copies(self) -> bool:
        """Whether the leaves that it takes stay for the rules after it.

        A leaf that no other rule takes then keeps its name. It loads there where the destination has a leaf
        of that name, and is not unexpected where it has none.
        """
        return False

    def inverse(self) -> Rule | None:
        """The rule that turns the destination's layout back, for exports; None where something is lost."""
        return None

    def rename(self, name: Keys) -> Keys | None:
        """Where a slot that holds nothing goes (an explicit None in the source), if this rule takes it."""
        return None

    def of_subtree(self) -> Rule | None:
        """This rule for all leaves below the name that it takes; None where it is for no single name."""
        return None

    def destination_text(self) -> str:
        """The destination side of the rule as it was written: where its findings belong."""
        return str(self.patterns[0])


def as_rules(rules: Rule | Iterable[Rule], where: str) -> tuple[Rule, ...]:
    """``rules`` checked to be rules; one of them may stand alone.

    Raises:
        RuleError: something else was given.
    """
    given = tuple(rules) if isinstance(rules, Iterable) and not isinstance(rules, str) else (rules,)
    for rule in given:
        if not isinstance(rule, Rule):
            raise RuleError(f"{where} takes rules, such as Rename(...), not {rule!r}")
    return given


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


def print_rule(rule: Rule, names: Sequence[Written], ops: Sequence[Op], **options: Any) -> str:
    """A rule as the code that makes it: its names, its ops, those of its options that are not None."""
    said = [f"{option}={value!r}" for option, value in options.items() if value is not None]
    return f"{type(rule).__name__}({', '.join([*map(_written, names), *map(repr, ops), *said])})"


def _written(name: Written) -> str:
    if isinstance(name, tuple):
        return f"[{', '.join(map(_written, name))}]"
    return f"re.compile({name.text!r})" if isinstance(name, Pattern) and name.opaque else repr(name.text)
