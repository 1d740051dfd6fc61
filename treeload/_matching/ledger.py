"""The plan in the making: its tables, the questions asked of them, and how a line is written into them.

Owns what is known so far of a match: a row for each slot, the findings, the checks of values left to be
done, the source leaves that feed nothing. Refuses to own the decisions (``slots``, ``leftovers``,
``whole``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from treeload._findings.finding import Finding
from treeload._findings.policy import Policy
from treeload._leaves.selection import Within
from treeload._leaves.spec import Kind, Spec, spec_of, without_sharding
from treeload._matching.offers import Offers, OpenedPart
from treeload._naming.name import Keys, Name, print_name
from treeload._ops.expression import Expression, Leaf, ops_of
from treeload._plans.check import EqualCheck, ZeroCheck
from treeload._plans.entry import SAME_NAME, Action, Entry, OnOverflow, Row, Unused
from treeload._rules.apply import Arrival
from treeload._rules.rule import Rule
from treeload._rules.tie import Tie
from treeload._sources.source import SourceLeaf
from treeload._trees.tree import Tree


class Draft:
    """One match: what goes in, and the tables being filled.

    Attributes:
        tree: the walked destination.
        offers: what the sources give, under destination-side names.
        parts: the sources, and the part of each that is looked at.
        policy: the verdicts.
        scope: the part of the destination that is loaded; None for all of it.
        rows: what is decided for each slot, so far.
        findings, checks, unused: as in the plan.
        accounted_for: offered names that met something of the destination, so are no leftovers.
        opened: names of boxes → their leaves' names before the box's own ``value`` was left out.
    """

    def __init__(
        self, tree: Tree, offers: Offers, parts: Sequence[OpenedPart], policy: Policy, scope: Within | None
    ) -> None:
        self.tree = tree
        self.offers = offers
        self.parts = parts
        self.policy = policy
        self.scope = scope
        self.rows: list[Row] = [None] * len(tree.names)
        self.findings: list[Finding] = []
        self.checks: list[ZeroCheck | EqualCheck] = []
        self.unused: list[Unused] = []
        self.accounted_for: set[Keys] = set()
        self.opened: dict[Keys, Keys] = {}
        self.structures: set[Keys] = set()  # where leaf against subtree was said: once is enough

    # Tables that only leaves which do not simply agree need.

    @cached_property
    def agreeing(self) -> set[Keys]:
        """Names whose source leaf agreed in the first pass; asked for once that is done."""
        return {name for name, row in zip(self.tree.names, self.rows, strict=True) if row is SAME_NAME}

    @cached_property
    def slots(self) -> dict[Keys, int]:
        """Destination slots by name and alias."""
        found = {name: index for index, name in enumerate(self.tree.names)}
        for name, others in self.tree.aliases.items():
            found.update(dict.fromkeys(others, found[name]))
        return found

    @cached_property
    def slot_prefixes(self) -> set[Keys]:
        """Names of destination nodes above a leaf that may load."""
        leaves = (name for name, index in self.slots.items() if self.tree.kinds[index] <= Kind.SCALAR)
        return {prefix for name in leaves for prefix in prefixes_of(name)}

    @cached_property
    def offer_prefixes(self) -> Counter[Keys]:
        """Names of source nodes above a leaf, each with how many leaves lie below it."""
        return Counter(prefix for name in self.offers.shaped for prefix in prefixes_of(name))

    # Questions.

    def names_of(self, index: int) -> tuple[Keys, ...]:
        """The name of a slot, and its aliases."""
        name = self.tree.names[index]
        return (name, *self.tree.aliases.get(name, ()))

    def in_scope(self, name: Keys, spec: Any) -> bool:
        """Whether the leaf is among those that the load is restricted to."""
        return self.scope is None or self.scope.holds(name, spec)

    def fed(self, name: Keys) -> Arrival | None:
        """What feeds a destination-side name; its ``value`` is None where a rule for it failed."""
        fed = self.offers.fed.get(name)
        if fed is not None:
            return fed
        offered = self.offers.shaped.get(name)
        if offered is None or self.offers.plain is None:
            return None
        own = self.opened.get(name, name)
        return Arrival(Leaf(0, Name(own), without_sharding(offered)), None, (own,))

    def values_at(self, name: Keys) -> Iterator[tuple[Expression, Rule | None]]:
        """Every value under a destination-side name, the one that wins a collision first."""
        for fed in (self.fed(name), *self.offers.rivals.get(name, ())):
            if fed is not None and fed.value is not None:
                yield fed.value, fed.rule

    def was_number(self, value: Expression | None) -> bool:
        """Whether it is a source leaf that was a Python number when it was saved."""
        return isinstance(value, Leaf) and value.name in self.parts[value.index].source.numbers()

    def source_leaf(self, value: Expression) -> SourceLeaf:
        """The first source leaf of a value, under its own name."""
        leaf = next(value.leaves())
        return SourceLeaf(self.parts[leaf.index].source.label, leaf.name, leaf.spec)

    def source_leaves(self, value: Expression) -> tuple[SourceLeaf, ...]:
        """Every source leaf of a value."""
        return tuple(map(self.source_leaf, value.leaves()))

    def loads(self, name: Keys) -> bool:
        """Whether this is the name or an alias of a destination leaf that loads."""
        index = self.slots.get(name)
        row = None if index is None else self.rows[index]
        return row is SAME_NAME or (isinstance(row, Entry) and row.action in (Action.LOAD, Action.TIE))

    # Lines.

    def load(
        self,
        index: int,
        wanted: Spec,
        value: Expression,
        rule: Rule | None,
        *,
        reason: str = "",
        pending: bool,
    ) -> None:
        """The leaf takes ``value``."""
        self.rows[index] = self._entry(
            index,
            Action.TIE if isinstance(rule, Tie) else Action.LOAD,
            wanted,
            sources=self.source_leaves(value),
            ops=ops_of(value),
            cast=value.spec.dtype != wanted.dtype,
            rule=rule,
            reason=reason,
            needs_values=pending,
            value=value,
            on_overflow=self._on_overflow(index),
        )

    def _on_overflow(self, index: int) -> OnOverflow:
        printed = [print_name(name) for name in self.names_of(index)]
        if any(self.policy.verdict("casting", name) == "unsafe" for name in printed):
            return OnOverflow.CAST
        keeps = any(self.policy.verdict("dtype", name) == "keep" for name in printed)
        return OnOverflow.KEEP if keeps else OnOverflow.ERROR

    def zero(self, index: int, wanted: Spec, reason: str) -> None:
        """The leaf is filled with zeros."""
        self.rows[index] = self._entry(index, Action.ZERO, wanted, reason=reason)

    def keep(self, index: int, reason: str) -> None:
        """The leaf stays as it is."""
        wanted = without_sharding(spec_of(self.tree.values[index]))
        self.rows[index] = self._entry(index, Action.KEEP, wanted, reason=reason)

    def _entry(self, index: int, action: Action, wanted: Spec, **facts: Any) -> Entry:
        name, *aliases = map(Name, self.names_of(index))
        optional = name in self.tree.optional
        return Entry(name, action, wanted, aliases=tuple(aliases), optional=optional, **facts)

    def leave(self, name: Keys, value: Expression, why: str) -> None:
        """What was offered at ``name`` feeds nothing."""
        for leaf in self.source_leaves(value):
            self.unused.append(Unused(leaf.source, leaf.name, leaf.spec, Name(name), why))

    def leave_all(self, name: Keys, why: str) -> None:
        """Nothing of what was offered at ``name`` feeds anything."""
        for value, _ in self.values_at(name):
            self.leave(name, value, why)

    def finding(
        self, kind: str, name: Keys, *, expected: Spec | str | None = None, found: Spec | str | None = None,
        value: Expression | None = None, rule: Rule | None = None, message: str = "", remedy: str = "",
    ) -> Finding:  # fmt: skip
        """A finding with the policy's verdict; it is not noted yet."""
        verdict = self.policy.verdict(kind, print_name(name))
        leaf = None if value is None else self.source_leaf(value)
        return Finding(kind, Name(name), verdict, expected, found, leaf, rule, message, remedy)

    def find(self, kind: str, name: Keys, **facts: Any) -> str:
        """Notes a finding; its verdict."""
        finding = self.finding(kind, name, **facts)
        self.findings.append(finding)
        return finding.verdict


def prefixes_of(name: Keys) -> list[Keys]:
    """The names of the nodes above a leaf, the root first."""
    return [name[:depth] for depth in range(len(name))]
