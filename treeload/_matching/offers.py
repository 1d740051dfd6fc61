"""What the sources offer, under the names it would have in the destination.

Owns the way of a source leaf's name: the subtree that a ``From`` looks at, its own rules, where it is
grafted in, the plan's rules. Refuses to own what the leaf meets there (``_matching``). Reads names, shapes
and dtypes only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from treeload._leaves.spec import Spec, without_sharding
from treeload._naming.name import Keys, Name, prefixes_of
from treeload._ops.expression import Expression, Leaf
from treeload._rules.apply import Arrival, RuleFailure, apply_rules, rename_empty
from treeload._rules.rule import Rule
from treeload._sources.memory import MemorySource
from treeload._sources.source import Source, as_source_error


@dataclass(frozen=True)
class OpenedPart:
    """One source, the part of it that is looked at, and where that part goes.

    Attributes:
        source: the source.
        subtree: the name of the part; its leaves lose this prefix.
        into: the name of the destination's subtree it feeds; its leaves gain this prefix.
        rules: its own rules, on the names between the two.
        explicit: it was written as a ``From``, so it is expected to feed something.
        by_position: its leaves are to be taken in the order of the destination's.
        positions: then, each leaf's own name → the name of the destination's leaf below ``into``.
    """

    source: Source
    subtree: Keys = ()
    into: Keys = ()
    rules: tuple[Rule, ...] = ()
    explicit: bool = False
    by_position: bool = False
    positions: Mapping[Keys, Keys] | None = None


class Offers:
    """Every source leaf under the name it has after ``From``s and rules.

    Attributes:
        shaped: each name → something with a shape and a dtype. Where a leaf simply kept its name in the
            only source (``plain``), that is all there is.
        plain: that only source, where neither a ``From`` nor a rule changes its names.
        columns: its names and arrays side by side, where it has them so; None once it is known that the
            destination's names are others.
        fed: otherwise, each name → what feeds it, and how it came there.
        rivals: further leaves for names that are taken (collisions), in the order in which they lose.
        empty: names of slots that the sources know to be empty → None or False.
        empty_before_rules: those names before the plan's rules.
        statics: names of slots that hold what never loads.
        ties: of each source, alias → the leaf it shares its array with, under the source's own names.
        failures: rules that did not do their work.
    """

    def __init__(self) -> None:
        self.plain: Source | None = None
        self.columns: tuple[list[Keys], list[Any]] | None = None
        self.fed: dict[Keys, Arrival] = {}
        self.rivals: dict[Keys, list[Arrival]] = {}
        self.empty: dict[Keys, None | bool] = {}
        self.empty_before_rules: list[Keys] = []
        self.statics: set[Keys] = set()
        self.ties: list[Mapping[Name, Name]] = []
        self.failures: list[RuleFailure] = []
        self.parts: Sequence[OpenedPart] = ()
        self.arrivals: Sequence[tuple[Keys, Arrival]] = ()

    @classmethod
    def of(cls, parts: Sequence[OpenedPart], rules: tuple[Rule, ...]) -> Offers:
        """What ``parts`` offer under the plan's ``rules``.

        Raises:
            SourceError: a source does not say what it holds.
        """
        offers = cls()
        offers.parts = parts
        if len(parts) == 1 and not rules and not _renames(parts[0]):
            source = parts[0].source
            with as_source_error(f"{source.label} does not say what it holds"):
                offers.plain = source
                offers.columns = source.columns() if isinstance(source, MemorySource) else None
                offers.empty.update({tuple(name): value for name, value in source.absent().items()})
                offers.statics = set(source.statics())
                offers.ties = [source.ties()]
            return offers
        offers.arrivals = [fed for index in range(len(parts)) for fed in offers.part(index, rules)]
        offers.apply(rules, offers.arrivals)
        return offers

    def before_rules(self) -> dict[Keys, Spec]:
        """Every leaf under the name that the plan's rules see."""
        if self.plain is not None:
            return {tuple(name): without_sharding(spec) for name, spec in self.tables[0].items()}
        return {name: one.value.spec for name, one in self.arrivals if one.value is not None}

    @cached_property
    def shaped(self) -> dict[Keys, Any]:
        """Every offered leaf, as something with a shape and a dtype."""
        if self.plain is None:
            return {}
        (table,) = self.tables
        return table if type(table) is dict else dict(table)  # never written to; see own_tables

    @cached_property
    def tables(self) -> list[Mapping[Any, Any]]:
        """What each source holds, under its own names, as something with a shape and a dtype."""
        tables = []
        for part in self.parts:
            with as_source_error(f"{part.source.label} does not say what it holds"):
                tables.append(part.source.shaped())
        return tables

    # From the sources' names to the destination's.

    def part(self, index: int, rules: tuple[Rule, ...]) -> list[tuple[Keys, Arrival]]:
        """The leaves of one source under the names they have before the plan's ``rules``."""
        part = self.parts[index]
        depth = len(part.subtree)
        with as_source_error(f"{part.source.label} does not say what it holds"):
            absent, statics = part.source.absent(), part.source.statics()
            self.ties.append(part.source.ties())
        inside = {
            _placed(part, name): Leaf(index, Name(name), without_sharding(spec))
            for name, spec in self.tables[index].items()
            if tuple(name[:depth]) == part.subtree and (part.positions is None or name in part.positions)
        }

        def below_into(name: Keys) -> Keys:
            return (*part.into, *rename_empty(tuple(name[depth:]), part.rules))

        hollow = [tuple(name[depth:]) for name in absent if name[:depth] == part.subtree]
        for slot, nothing in absent.items():
            if slot[:depth] == part.subtree:
                self.empty_before_rules.append(below_into(slot))
                self.empty[rename_empty(self.empty_before_rules[-1], rules)] = nothing
        self.statics.update(
            rename_empty(below_into(name), rules) for name in statics if name[:depth] == part.subtree
        )
        fed, failures = apply_rules(list(inside.items()), part.rules)
        for failure in failures:
            if failure.name is not None:
                self.fail(replace(failure, name=rename_empty((*part.into, *failure.name), rules)))
            elif failure.taken or not _renames_any(failure.rule, hollow):
                self.fail(replace(failure, into=part.into))
        for name, one in fed:
            if one.value is None:  # its rule failed, which was said here or at another of its names
                self.fed.setdefault(rename_empty((*part.into, *name), rules), one)
        return [((*part.into, *name), one) for name, one in fed if one.value is not None]

    def apply(self, rules: tuple[Rule, ...], arrivals: Sequence[tuple[Keys, Arrival]]) -> None:
        """Takes what all sources give through the plan's rules, and finds who wins where names collide."""
        values = [(name, one.value) for name, one in arrivals if one.value is not None]
        earlier = {id(one.value): one.rule for _, one in arrivals}  # the rule of its own From
        fed, failures = apply_rules(values, rules)
        for failure in failures:
            if failure.taken or not _renames_any(failure.rule, self.empty_before_rules):
                self.fail(failure)
        order = [*rules, *(rule for part in self.parts for rule in part.rules), None]
        rank = {id(rule): number for number, rule in reversed(list(enumerate(order)))}
        groups: dict[Keys, list[Arrival]] = {}
        for name, one in fed:
            if one.value is not None:
                rule = one.rule or earlier[id(one.value)]
                groups.setdefault(name, []).append(Arrival(one.value, rule, one.taken))
            else:
                self.fed.setdefault(name, one)  # as in ``part``
        for name, several in groups.items():
            if len(several) > 1:
                several.sort(key=lambda one: _precedence(one, rank))
            self.fed[name] = several[0]
            self.shaped[name] = self.as_stored(several[0].value)
            if len(several) > 1:
                self.rivals[name] = several[1:]

    def fail(self, failure: RuleFailure) -> None:
        """Notes a rule's failure; what it was to feed is then known to be fed by nothing."""
        self.failures.append(failure)
        if failure.name is not None:
            self.fed.setdefault(failure.name, Arrival(None, failure.rule, failure.taken))

    def as_stored(self, value: Expression | None) -> Any:
        """What ``shaped`` holds for a value: a leaf as its source has it, where a number stays one."""
        assert value is not None
        return self.tables[value.index][value.name] if isinstance(value, Leaf) else value.spec

    # Which leaves are one array.

    def stored_as(self, leaf: Leaf) -> tuple[int, Keys]:
        """Where the array of a leaf is stored: the same for all aliases of it."""
        return leaf.index, self.ties[leaf.index].get(leaf.name, leaf.name)

    def same_leaf(self, leaf: Leaf, other: Leaf) -> bool:
        """Whether two leaves are known to be one array without looking at their values."""
        if self.stored_as(leaf) == self.stored_as(other):
            return True
        one, two = (self.tables[each.index][each.name] for each in (leaf, other))
        return one is two and isinstance(one, (jax.Array, np.ndarray))

    def own_tables(self) -> None:
        """Makes ``shaped`` safe to write to: in a plain load it is the source's own table."""
        self.columns = None
        self.shaped = dict(self.shaped)

    # Boxes.

    def open_boxes(
        self, slots: Mapping[Keys, int], slot_prefixes: set[Keys], leftover: set[Keys]
    ) -> dict[Keys, Keys]:
        """Takes the last ``value`` off names of a stored checkpoint whose boxes were not transparent.

        A box is a subtree that holds this one leaf, where the destination has none of the longer name.
        It is opened where the destination has a slot in its place; and where it has nothing there, if
        every leaf around it is boxed: of a subtree in which others are opened, or of the whole source.
        Returns new name → old name.
        """
        boxed = [name for name in leftover if len(name) > 1 and name[-1] == "value"]
        if not boxed:
            return {}
        total = Counter(prefix for name in self.shaped for prefix in prefixes_of(name))
        ending = Counter(
            prefix for name in self.shaped if name[-1:] == ("value",) for prefix in prefixes_of(name)
        )
        boxes = {
            name[:-1]: name
            for name in boxed
            if total[name[:-1]] == 1 and name[:-1] not in self.shaped and name not in slots
        }
        opened = {box: name for box, name in boxes.items() if box in slots}
        around = {prefix for box in opened for prefix in prefixes_of(box)} | {()}
        for box, name in boxes.items():
            inside = any(prefix in around and total[prefix] == ending[prefix] for prefix in prefixes_of(box))
            if inside and box not in slot_prefixes:
                opened[box] = name
        self.own_tables()
        for box, name in opened.items():
            self.shaped[box] = self.shaped.pop(name)
            if name in self.fed:
                self.fed[box] = self.fed.pop(name)
            if name in self.rivals:
                self.rivals[box] = self.rivals.pop(name)
        return opened


def _renames(part: OpenedPart) -> bool:
    """Whether leaves of a source have other names in the destination, before the plan's rules."""
    return bool(part.rules or part.subtree or part.into or part.by_position)


def _placed(part: OpenedPart, name: Keys) -> Keys:
    """The name of a source leaf after ``subtree``, or after its position."""
    return tuple(name[len(part.subtree) :]) if part.positions is None else part.positions[name]


def _renames_any(rule: Rule, names: Iterable[Keys]) -> bool:
    """Whether a rule that took no leaf took an empty slot, so that it is of use all the same."""
    return any(rule.rename(name) is not None for name in names)


def _precedence(one: Arrival, rank: Mapping[int, int]) -> tuple[Any, ...]:
    """Sources in order, then rules, then names: who wins a collision under ``"first"``."""
    assert one.value is not None
    leaf = next(one.value.leaves())
    in_order = [(0, int(key), key) if key.isdecimal() else (1, 0, key) for key in leaf.name]
    return leaf.index, rank[id(one.rule)], in_order
