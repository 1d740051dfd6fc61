"""The lines of a plan while it is made: written once, never changed.

Owns how a line is written: what happens to a slot, what is wrong, what is to be checked by value, what feeds
nothing. Refuses to own the decisions (``slots``, ``leftovers``, ``whole``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from treeload._findings.finding import Finding, LaterFinding
from treeload._findings.kinds import Kind
from treeload._findings.remedy import Remedy
from treeload._leaves.spec import Spec, spec_of, without_sharding
from treeload._matching.apart import Neighbours, Unexpected
from treeload._matching.sides import Sides
from treeload._naming.name import Keys, Name, print_name
from treeload._ops.expression import Expression, ops_of
from treeload._plans.check import Check
from treeload._plans.entry import MISSING, SAME_NAME, Action, Entry, LaterUnused, Line, OnOverflow, Unused
from treeload._rules.rule import Rule
from treeload._rules.tie import Tie

Sided: TypeAlias = "tuple[Spec | str | None, Spec | str | None]"
"""What the destination asks for, and what the source has: specs, words, or None for nothing."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A value at a name of the destination's side, and the rule that brought it there."""

    name: Keys
    value: Expression
    rule: Rule | None


class Ledger:
    """What is decided so far.

    Attributes:
        rows: for each slot of the destination; None where nothing is decided, or the slot is no leaf.
        findings, checks, unused: as in the plan; some of the findings and of the unused are written later.
        neighbours: the names that have findings, for the near names of each.
        accounted_for: offered names that met something of the destination, so are no leftovers.
    """

    def __init__(self, sides: Sides, rows: Sequence[Line]) -> None:
        self._sides = sides
        self.rows: list[Line] = list(rows)
        self.findings: list[Finding | LaterFinding] = []
        self.checks: list[Check] = []
        self.unused: list[Unused | LaterUnused] = []
        self.neighbours = Neighbours()
        self.accounted_for: set[Keys] = set()
        self.feeds_false = False  # whether a source's False, which is no leaf of it, loads somewhere
        self._checked: set[Keys] = set()
        self._structures: set[Keys] = set()

    # The destination's side.

    def load(self, index: int, feed: Feed, wanted: Spec, **how: Any) -> None:
        """The leaf takes a value; ``how`` is what else its entry says."""
        self.rows[index] = self._entry(
            index,
            Action.TIE if isinstance(feed.rule, Tie) else Action.LOAD,
            wanted,
            sources=self._sides.source_leaves(feed.value),
            ops=ops_of(feed.value),
            cast=feed.value.spec.dtype != wanted.dtype,
            rule=feed.rule,
            value=feed.value,
            on_overflow=self._on_overflow(index),
            **how,
        )

    def _on_overflow(self, index: int) -> OnOverflow:
        policy, printed = self._sides.policy, list(map(print_name, self._sides.names_of(index)))
        if any(policy.verdict("casting", name) == "unsafe" for name in printed):
            return OnOverflow.CAST
        keeps = any(policy.verdict(Kind.DTYPE, name) == "keep" for name in printed)
        return OnOverflow.KEEP if keeps else OnOverflow.ERROR

    def load_false(self, index: int, name: Keys, wanted: Spec) -> None:
        """The leaf, a flag or a boolean of no axes, takes the Python False that is at ``name``."""
        self.accounted_for.add(name)
        self.feeds_false = True
        self.rows[index] = self._entry(index, Action.LOAD, wanted, reason="False in the source")

    def zero(self, index: int, wanted: Spec, reason: str) -> None:
        """The leaf is filled with zeros."""
        self.rows[index] = self._entry(index, Action.ZERO, wanted, reason=reason)

    def keep(self, index: int, reason: str) -> None:
        """The leaf stays as it is."""
        wanted = without_sharding(spec_of(self._sides.tree.values[index]))
        self.rows[index] = self._entry(index, Action.KEEP, wanted, reason=reason)

    def _entry(self, index: int, action: Action, wanted: Spec, **facts: Any) -> Entry:
        name, *aliases = map(Name, self._sides.names_of(index))
        optional = name in self._sides.tree.optional
        return Entry(name, action, wanted, aliases=tuple(aliases), optional=optional, **facts)

    def loads(self, name: Keys) -> bool:
        """Whether this is the name or an alias of a destination leaf that loads."""
        index = self._sides.slots.get(name)
        row = None if index is None else self.rows[index]
        return row is SAME_NAME or (isinstance(row, Entry) and row.action in (Action.LOAD, Action.TIE))

    def keep_missing(self, index: int, finding: LaterFinding) -> None:
        """The leaf stays as it is, since the source plainly has nothing here."""
        self.rows[index] = MISSING
        self.findings.append(finding)

    # The source's side.

    def note_unexpected(self, leaf: Unexpected) -> None:
        """A source leaf plainly has no place."""
        self.findings.append(leaf)
        self.unused.append(leaf)

    def leave(self, name: Keys, value: Expression, why: str) -> None:
        """What was offered at ``name`` feeds nothing."""
        for leaf in self._sides.source_leaves(value):
            self.unused.append(Unused(leaf.source, leaf.name, leaf.spec, Name(name), why))

    def leave_all(self, name: Keys, why: str) -> None:
        """Nothing of what was offered at ``name`` feeds anything."""
        for value, _ in self._sides.offers.values_at(name):
            self.leave(name, value, why)

    # Both.

    def find(
        self, kind: Kind, name: Keys, sided: Sided = (None, None), *, feed: Feed | None = None,
        message: str = "", remedies: Iterable[Remedy] = (),
    ) -> Finding:  # fmt: skip
        """Notes a finding, with the policy's verdict."""
        said = {"message": message, "remedies": tuple(remedies), "near": self.neighbours.note(kind, name)}
        finding = found(self._sides, kind, name, sided, feed, **said)
        self.findings.append(finding)
        return finding

    def find_structure(self, name: Keys, sided: Sided, **facts: Any) -> bool:
        """Notes that a leaf met a subtree, once for each name; whether it was news."""
        if name in self._structures:
            return False
        self._structures.add(name)
        self.find(Kind.STRUCTURE, name, sided, **facts)
        return True

    def check(self, check: Check) -> None:
        """Notes what is to be looked at by value."""
        self.checks.append(check)
        self._checked.add(check.name)

    def is_checked(self, name: Keys) -> bool:
        """Whether a check of values is noted under this name."""
        return name in self._checked


def found(sides: Sides, kind: Kind, name: Keys, sided: Sided, feed: Feed | None, **said: Any) -> Finding:
    """A finding with the policy's verdict, not noted; ``said`` are its ``message`` and what else it says."""
    verdict = sides.policy.verdict(kind, print_name(name))
    leaf = None if feed is None else sides.source_leaf(feed.value)
    rule = None if feed is None else feed.rule
    return Finding(kind, Name(name), verdict, *sided, leaf, rule, **said)
