"""Leaves of one side of which the other has nothing: the pass for names that are wrong by the thousand.

Owns which slots are missing and which source leaves are unexpected in the plainest way: no tie, no rule that
failed, no subtree in a leaf's place, nothing known to be empty there. That is told by looks at a few sets,
and the findings are written when somebody looks. Refuses to own what has to be decided one by one (``slots``,
``leftovers``); its words are the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from treeload._findings import remedy
from treeload._findings.finding import Facts, Finding, Near, side
from treeload._findings.kinds import KINDS, Kind
from treeload._findings.remedy import Remedy
from treeload._inference.parts import is_of_optimizer
from treeload._leaves.spec import SlotKind, Spec, is_abstract, is_key, spec_of, without_sharding
from treeload._matching.offers import Offers
from treeload._matching.sides import Sides
from treeload._naming.name import Keys, Name, print_name
from treeload._naming.near import NearNames
from treeload._plans.entry import Unused
from treeload._sources.source import SourceLeaf


class Apart:
    """What of two sides is plainly apart: asked for one leaf at a time, in the order of the lines."""

    def __init__(self, sides: Sides, neighbours: Neighbours) -> None:
        tree, offers = sides.tree, sides.offers
        self._tree, self._offers, self._policy, self._neighbours = tree, offers, sides.policy, neighbours
        self._forgiven_by = sides.forgiven_by
        self._nothing_is_plain = sides.scope is not None
        self._slots, self._arriving = sides.slots, offers.arriving
        # Leaves of one side above leaves of the other: there are hardly ever any.
        self._above = _above(self._slots, offers.shaped) | _above(self._slots, offers.statics)
        self._below = _above(offers.shaped, self._slots)
        # Names at which the two sides meet otherwise, or where more is to be said.
        self._met = {*offers.statics, *offers.empty, *self._below, *tree.aliases, *tree.optional}
        self._held = {*self._above, *offers.contested}
        self._tied = any(offers.ties)
        self._renamed = offers.mapped is not None

    def missing(self, index: int) -> Missing | None:
        """The finding for a slot of which the source plainly has nothing; None where it has to be decided."""
        name = self._tree.names[index]
        if self._nothing_is_plain or self._tree.kinds[index] > _SCALAR:
            return None
        if name in self._arriving or name in self._met or (self._above and _is_below(name, self._above)):
            return None
        printed, value = print_name(name), self._tree.values[index]
        verdict = self._policy.verdict(Kind.MISSING, printed)
        forgiven = verdict != "error"
        if self._policy.zero_if_absent(printed) or (forgiven and is_abstract(value)):
            return None
        if forgiven and self._forgiven_by(Kind.MISSING, name):
            return None
        return Missing(name, value, verdict, self._neighbours.note(Kind.MISSING, name))

    def unexpected(self, name: Keys) -> Unexpected | None:
        """The finding for a source leaf that plainly has no place; None where it has to be decided."""
        if self._nothing_is_plain or self._tied or name in self._slots or name in self._held:
            return None
        if (self._below and _is_below(name, self._below)) or (
            self._renamed and not self._offers.is_whole_leaf(name)
        ):
            return None
        printed = print_name(name)
        if self._policy.zero_if_absent(printed):
            return None
        verdict = self._policy.verdict(Kind.UNEXPECTED, printed)
        if verdict != "error" and self._forgiven_by(Kind.UNEXPECTED, name):
            return None
        return Unexpected(name, self._offers, verdict, self._neighbours.note(Kind.UNEXPECTED, name))


_SCALAR = int(SlotKind.SCALAR)  # asked for at every slot, where an attribute of an enumeration is slow


def _above(names: Iterable[Keys], others: Collection[Keys]) -> set[Keys]:
    """Those of the others that are the name of a node above one of the names.

    Lengths of names are few: this looks at each name once or twice, where to gather all nodes takes several
    times as long.
    """
    found: set[Keys] = set()
    for depth in sorted(set(map(len, others))):
        found.update(node for name in names if len(name) > depth and (node := name[:depth]) in others)
    return found


def _is_below(name: Keys, nodes: Collection[Keys]) -> bool:
    return any(name[:depth] in nodes for depth in range(len(name)))


# Written when somebody looks.


@dataclass(slots=True)
class Missing:
    """A slot of which the source has nothing."""

    name: Keys
    value: Any
    verdict: str
    near: Near
    kind: ClassVar[Kind] = Kind.MISSING

    def facts(self) -> Facts:
        """What it says but for its name."""
        value = self.value if hasattr(self.value, "dtype") else spec_of(self.value)  # a number has none
        return Facts(side(value), None, self.verdict, _NOTHING_IN_SOURCE, "", "")

    def finding(self) -> Finding:
        """The finding, written."""
        wanted = without_sharding(spec_of(self.value))
        message, ways = missing_words(self.name, wanted, None)
        return Finding(
            Kind.MISSING, Name(self.name), self.verdict, wanted, None, message=message, remedies=ways,
            near=self.near,
        )  # fmt: skip


@dataclass(slots=True)
class Unexpected:
    """A source leaf for which the destination has nothing."""

    name: Keys
    offers: Offers
    verdict: str
    near: Near
    kind: ClassVar[Kind] = Kind.UNEXPECTED

    @property
    def at(self) -> Keys:
        """The name that it would have in the destination."""
        return self.name

    def facts(self) -> Facts:
        """What it says but for its names."""
        stored, label, rule = self.offers.stored_at(self.name)
        by = "" if rule is None else repr(rule)
        return Facts(None, side(stored), self.verdict, _NOTHING_IN_DESTINATION, label, by)

    def finding(self) -> Finding:
        """The finding, written."""
        value, rule = next(self.offers.values_at(self.name))
        message, ways = unexpected_words(self.name, value.spec, None)
        return Finding(
            Kind.UNEXPECTED, Name(self.name), self.verdict, None, value.spec, self._leaf(), rule,
            message=message, remedies=ways, near=self.near,
        )  # fmt: skip

    def unused(self) -> Unused:
        """The line for the leaf, written."""
        leaf = self._leaf()
        return Unused(leaf.source, leaf.name, leaf.spec, Name(self.name), why_unused(self.verdict))

    def _leaf(self) -> SourceLeaf:
        value, _ = next(self.offers.values_at(self.name))
        (leaf,) = value.leaves()
        return SourceLeaf(self.offers.parts[leaf.index].source.label, leaf.name, leaf.spec)


# The words.

_NOTHING_IN_SOURCE = "the source has nothing here"
_NOTHING_IN_DESTINATION = "the destination has nothing here"


def missing_words(name: Keys, wanted: Spec, found: str | None) -> tuple[str, tuple[Remedy, ...]]:
    """What is said of a leaf that the source has nothing of; ``found``: the None or False that it has."""
    ways: list[Remedy] = [remedy.keep_own(Kind.MISSING, name)]
    if (found or remedy.looks_like_bias(name, wanted)) and _may_be_zero(name, wanted):
        ways.insert(0, remedy.zeros(name))
    return f"the source has {found} here" if found else _NOTHING_IN_SOURCE, tuple(ways)


def unexpected_words(name: Keys, spec: Spec, held: str | None) -> tuple[str, tuple[Remedy, ...]]:
    """What is said of a leaf without a place; ``held``: the None or False that the destination has."""
    ways: list[Remedy] = [remedy.leave_out(name)]
    if (held or remedy.looks_like_bias(name, spec)) and _may_be_zero(name, spec):
        ways.insert(0, remedy.if_zero(name))
    return f"the destination has {held} here" if held else _NOTHING_IN_DESTINATION, tuple(ways)


_MOMENTS = re.compile(
    r"mu|nu|trace|momentum|moments?|exp_avg(_sq)?|grads?|gradients|(\w+_)?ema(_\w+)?", re.IGNORECASE
)


def _may_be_zero(name: Keys, spec: Spec) -> bool:
    """Whether zeros and nothing can mean the same: for parameters, not for what is kept about them."""
    about = is_of_optimizer(name) or any(map(_MOMENTS.fullmatch, name[:-1]))
    return not is_key(spec.dtype) and not about


def why_unused(verdict: str, by_version: str = "") -> str:
    """Why an unexpected leaf feeds nothing; ``by_version``: which steps of a history forgive it."""
    return "unexpected" if verdict == "error" else f"ignored {by_version or 'by the policy'}"


# Near names.


class Neighbours:
    """The names with findings of kinds that are each other's counterpart: where a near name is looked for.

    They are looked up when somebody asks, and by then both sides are known.
    """

    _LOOKED_UP = 1_000  # findings of a kind that have near names: a lookup takes some 0.1 ms
    _LOOKED_AMONG = 50_000  # names: among more none is looked for, which would take a second and tell little

    def __init__(self) -> None:
        self._names: dict[Kind, list[Keys]] = {
            kind: [] for kind in KINDS if KINDS[kind].counterpart is not None
        }
        self._tables: dict[Kind, NearNames] = {}

    def note(self, kind: Kind, name: Keys) -> Near:
        """Notes a name with a finding, and says how those near to it are looked up."""
        known = self._names.get(kind)
        if known is None:
            return ()
        known.append(name)
        return partial(self._near, kind, name) if len(known) <= self._LOOKED_UP else ()

    def _near(self, kind: Kind, name: Keys) -> tuple[Name, ...]:
        other = KINDS[kind].counterpart
        assert other is not None  # or nothing was noted
        if len(self._names[other]) > self._LOOKED_AMONG:
            return ()
        if other not in self._tables:
            self._tables[other] = NearNames(self._names[other])
        return tuple(map(Name, self._tables[other].near(name)))
