"""Both sides of a load, and the questions that are asked of them. Frozen: the answers never change.

Owns the tables that only leaves which do not simply agree need; each is made once, when first asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from treeload._findings.policy import Verdicts
from treeload._leaves.selection import Within
from treeload._leaves.spec import SlotKind
from treeload._matching.offers import Offers
from treeload._naming.name import Keys, nodes_above, prefixes_of, print_name
from treeload._ops.expression import Expression, Leaf
from treeload._sources.source import SourceLeaf
from treeload._trees.tree import Tree
from treeload._versions.forgive import StepVerdicts


@dataclass(frozen=True)
class Sides:
    """The destination, what the sources offer, and what the user said about them.

    Attributes:
        tree: the walked destination.
        offers: what the sources give, under destination-side names.
        policy: the verdicts.
        scope: the part of the destination that is loaded; None for all of it.
        of_steps: the verdicts, where the steps of a history have a say in them.
    """

    tree: Tree
    offers: Offers
    policy: Verdicts
    scope: Within | None
    of_steps: StepVerdicts | None = None

    @property
    def users(self) -> Verdicts:
        """The verdicts of the user alone."""
        return self.policy if self.of_steps is None else self.of_steps.policy

    @cached_property
    def slots(self) -> dict[Keys, int]:
        """Destination slots by name and alias."""
        found = {name: index for index, name in enumerate(self.tree.names)}
        for name, others in self.tree.aliases.items():
            found.update(dict.fromkeys(others, found[name]))
        return found

    @cached_property
    def slot_prefixes(self) -> frozenset[Keys]:
        """Names of destination nodes above a leaf that may load."""
        leaves = (name for name, index in self.slots.items() if self.tree.kinds[index] <= SlotKind.SCALAR)
        return frozenset(nodes_above(leaves))

    @cached_property
    def offer_prefixes(self) -> Counter[Keys]:
        """Names of source nodes above a leaf, each with how many leaves lie below it."""
        return Counter(prefix for name in self.offers.shaped for prefix in prefixes_of(name))

    def names_of(self, index: int) -> tuple[Keys, ...]:
        """The name of a slot, and its aliases."""
        name = self.tree.names[index]
        return (name, *self.tree.aliases.get(name, ()))

    def in_scope(self, name: Keys, spec: Any) -> bool:
        """Whether the leaf is among those that the load is restricted to."""
        return self.scope is None or self.scope.holds(name, spec)

    def forgiven_by(self, kind: str, name: Keys) -> str:
        """``by version 1 → 3``, where a step of a history and not the user forgives this; else empty."""
        return "" if self.of_steps is None else self.of_steps.words(kind, print_name(name))

    def was_number(self, value: Expression) -> bool:
        """Whether it is a source leaf that was a Python number when it was saved."""
        return isinstance(value, Leaf) and value.name in self.offers.parts[value.index].source.numbers()

    def source_leaves(self, value: Expression) -> tuple[SourceLeaf, ...]:
        """Every source leaf of a value, under its own name."""
        return tuple(
            SourceLeaf(self.offers.parts[leaf.index].source.label, leaf.name, leaf.spec)
            for leaf in value.leaves()
        )

    def source_leaf(self, value: Expression) -> SourceLeaf:
        """The first source leaf of a value, under its own name."""
        return self.source_leaves(value)[0]
