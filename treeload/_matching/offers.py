"""What the sources offer, under the names it would have in the destination.

Owns the way of a source leaf's name: the part that a ``From`` looks at, its own rules, where it goes, the
plan's rules. Refuses to own what the leaf meets there (``slots``, ``leftovers``). Reads names, shapes and
dtypes only. What is offered never changes: opening a box or following a tie gives new ``Offers``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import filterfalse
from typing import Any, TypeAlias

import jax
import numpy as np

from treeload._leaves.spec import Spec, without_sharding
from treeload._matching.inside import Inside, inside
from treeload._matching.parts import OpenedPart
from treeload._naming.name import Keys, Name
from treeload._ops.expression import Expression, Leaf
from treeload._rules.apply import Arrival, RuleFailure, apply_rules, rename_empty
from treeload._rules.rule import Rule
from treeload._sources.source import as_source_error
from treeload._versions.forgive import Stood
from treeload._versions.migrate import Moved, Trail, names_before, origins
from treeload._versions.version import Dated

Empty: TypeAlias = "None | bool"

Trailed: TypeAlias = tuple[int, Trail]
"""Which part a leaf is from, and its way through the steps of a history."""


@dataclass(frozen=True)
class Plain:
    """Every leaf of the only source under its own name."""

    table: Mapping[Keys, Any]


@dataclass(frozen=True)
class Mapped:
    """Leaves under other names.

    Attributes:
        by_name: each name → what feeds it, and how it came there; its ``value`` is None where a rule for
            it failed.
        rivals: further arrivals at names that are taken (collisions), in the order in which they lose.
    """

    by_name: Mapping[Keys, Arrival]
    rivals: Mapping[Keys, Sequence[Arrival]]

    @property
    def spare(self) -> list[Keys]:
        """Names at which a leaf is that was copied and that no rule took."""
        alone = [name for name, one in self.by_name.items() if one.spare]
        last = [name for name, several in self.rivals.items() if any(one.spare for one in several)]
        return list(dict.fromkeys((*alone, *last)))


@dataclass(frozen=True)
class Offers:
    """Every source leaf under the name it has after ``From``s and rules.

    Attributes:
        parts: the sources, and the part of each that is looked at.
        empty: names of slots that the sources know to be empty → None or False.
        statics: names of slots that hold what never loads.
        ties: of each source, alias → the leaf it shares its array with, under the source's own names.
        failures: rules that did not do their work.
        arrivals: what comes out of each part, before the plan's rules.
        mapped: the leaves, where any has another name than its source's; None in a plain load.
        rules: the plan's rules.
        trails: name → the ways of the leaves there through the steps of a history, each with its part.
        left: leaves that a step of a history left behind, and the names that they had.
    """

    parts: tuple[OpenedPart, ...]
    empty: Mapping[Keys, Empty]
    statics: frozenset[Keys]
    ties: tuple[Mapping[Name, Name], ...]
    failures: tuple[RuleFailure, ...] = ()
    arrivals: Sequence[tuple[Keys, Arrival]] = ()
    mapped: Mapped | None = None
    rules: tuple[Rule, ...] = ()
    trails: Mapping[Keys, Sequence[Trailed]] = field(default_factory=dict)
    left: Sequence[Moved] = ()

    def __getstate__(self) -> dict[str, Any]:
        # Not what was looked up: it holds read-only views of the sources, which cannot be pickled.
        return {each.name: getattr(self, each.name) for each in fields(self)}

    # Which leaves there are.

    @cached_property
    def tables(self) -> list[Mapping[Any, Any]]:
        """What each source holds, under its own names, as something with a shape and a dtype."""
        tables = []
        for part in self.parts:
            with as_source_error(f"{part.source.label} does not say what it holds"):
                tables.append(part.source.shaped())
        return tables

    @cached_property
    def leaves(self) -> Plain | Mapped:
        """The leaves that are offered, under the names that the destination may have."""
        return Plain(self.tables[0]) if self.mapped is None else self.mapped

    @cached_property
    def shaped(self) -> Mapping[Keys, Any]:
        """Every offered leaf, as something with a shape and a dtype."""
        if isinstance(self.leaves, Plain):
            return self.leaves.table
        return {
            name: self._as_stored(one.value)
            for name, one in self.leaves.by_name.items()
            if one.value is not None
        }

    def _as_stored(self, value: Expression) -> Any:
        """A leaf as its source has it, where a number stays one."""
        return self.tables[value.index][value.name] if isinstance(value, Leaf) else value.spec

    def before_rules(self) -> dict[Keys, Spec]:
        """Every leaf under the name that the plan's rules see."""
        if isinstance(self.leaves, Plain):
            return {tuple(name): without_sharding(spec) for name, spec in self.leaves.table.items()}
        return {name: one.value.spec for name, one in self.arrivals if one.value is not None}

    def arrival(self, name: Keys) -> Arrival | None:
        """What feeds a destination-side name; its ``value`` is None where a rule for it failed."""
        if isinstance(self.leaves, Mapped):
            return self.leaves.by_name.get(name)
        offered = self.leaves.table.get(name)
        if offered is None:
            return None
        return Arrival(Leaf(0, Name(name), without_sharding(offered)), None, (name,))

    @property
    def arriving(self) -> Collection[Keys]:
        """Every destination-side name at which a leaf arrives, or would if its rule had not failed."""
        return (self.leaves.table if isinstance(self.leaves, Plain) else self.leaves.by_name).keys()

    def is_whole_leaf(self, name: Keys) -> bool:
        """Whether what is offered at a name is one leaf of a source as it is."""
        return isinstance(self.leaves, Plain) or isinstance(self.leaves.by_name[name].value, Leaf)

    def without_spare(self, wanted: Callable[[Keys], bool]) -> Offers:
        """The same without the leaves that were copied, where nothing wants them under their own names."""
        if self.mapped is None or not self.mapped.spare:
            return self
        by_name, rivals = dict(self.mapped.by_name), dict(self.mapped.rivals)
        for name in filterfalse(wanted, self.mapped.spare):
            left = [one for one in (by_name.pop(name), *rivals.pop(name, ())) if not one.spare]
            by_name.update((name, one) for one in left[:1])
            rivals.update((name, left[1:]) for _ in left[1:2])
        return replace(self, mapped=Mapped(by_name, rivals))

    def values_at(self, name: Keys) -> Iterator[tuple[Expression, Rule | None]]:
        """Every value under a destination-side name, the one that wins a collision first."""
        rivals = self.leaves.rivals.get(name, ()) if isinstance(self.leaves, Mapped) else ()
        for one in (self.arrival(name), *rivals):
            if one is not None and one.value is not None:
                yield one.value, one.rule

    def stored_at(self, name: Keys) -> tuple[Any, str, Rule | None]:
        """Of a leaf that is offered as it is: something with its shape and dtype, its source, its rule."""
        if isinstance(self.leaves, Plain):
            return self.leaves.table[name], self.parts[0].source.label, None
        one = self.leaves.by_name[name]
        assert isinstance(one.value, Leaf)  # or it is not offered as it is
        return one.value.spec, self.parts[one.value.index].source.label, one.rule

    @property
    def contested(self) -> list[Keys]:
        """Names at which more than one leaf arrived."""
        return list(self.leaves.rivals) if isinstance(self.leaves, Mapped) else []

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

    # What the steps of a history did.

    def by_version(self, name: Keys) -> str:
        """``by version 1 → 3``, where steps changed what arrived at a name; else empty."""
        words = (_dated(self.parts[index]).words(trail.scopes) for index, trail in self.trails.get(name, ()))
        return next(filter(None, words), "")

    def stood(self, name: Keys) -> Iterator[Stood]:
        """What the leaf of a name was called after each step that its source, or any, has to take."""
        if name in self.trails:
            for index, trail in self.trails[name]:
                yield from ((_dated(self.parts[index]), step, own) for step, own in trail.stood)
            return
        for part in self.parts if any(part.steps for part in self.parts) else ():
            inside = [each for each in names_before(self.rules, name) if each[: len(part.into)] == part.into]
            for placed in inside if part.steps else ():
                for within in names_before(part.rules, placed[len(part.into) :]):
                    for step, own in origins(part.steps, (*part.subtree, *within)):
                        yield _dated(part), step, own

    # With more.

    def with_arrivals(self, more: Mapping[Keys, Arrival], failures: Sequence[RuleFailure] = ()) -> Offers:
        """The same, with these in the place of what was offered at their names."""
        if isinstance(self.leaves, Mapped):
            by_name, rivals = self.leaves.by_name, self.leaves.rivals
            arrivals = self.arrivals
        else:
            by_name = {
                tuple(name): Arrival(Leaf(0, Name(name), without_sharding(spec)), None, (tuple(name),))
                for name, spec in self.leaves.table.items()
            }
            rivals, arrivals = {}, tuple(by_name.items())
        return replace(
            self, arrivals=arrivals, mapped=Mapped({**by_name, **more}, rivals),
            failures=(*self.failures, *failures),
        )  # fmt: skip


def offered(parts: Sequence[OpenedPart], rules: Sequence[Rule] = ()) -> Offers:
    """What ``parts`` offer under the plan's ``rules``.

    Raises:
        SourceError: a source does not say what it holds.
    """
    if len(parts) == 1 and not rules and parts[0].keeps_names:
        source = parts[0].source
        with as_source_error(f"{source.label} does not say what it holds"):
            empty = {tuple(name): value for name, value in source.absent().items()}
            return Offers((parts[0],), empty, frozenset(source.statics()), (source.ties(),))
    mapper = _Mapper(tuple(parts), tuple(rules))
    for index in range(len(parts)):
        mapper.take_part(index)
    return mapper.offers()


def _dated(part: OpenedPart) -> Dated:
    assert part.dated is not None  # what has a trail has taken steps
    return part.dated


@dataclass
class _Mapper:
    """One mapping of names: the parts one by one, then the plan's rules on what comes out of them."""

    parts: tuple[OpenedPart, ...]
    rules: tuple[Rule, ...]
    empty: dict[Keys, Empty] = field(default_factory=dict)
    empty_before_rules: list[Keys] = field(default_factory=list)
    statics: set[Keys] = field(default_factory=set)
    ties: list[Mapping[Name, Name]] = field(default_factory=list)
    failures: list[RuleFailure] = field(default_factory=list)
    failed: dict[Keys, Arrival] = field(default_factory=dict)  # names that a rule was to feed and did not
    arrivals: list[tuple[Keys, Arrival]] = field(default_factory=list)
    tables: list[Mapping[Any, Any]] = field(default_factory=list)
    trails: dict[Keys, list[Trailed]] = field(default_factory=dict)  # by the names before the plan's rules
    left: list[Moved] = field(default_factory=list)

    def take_part(self, index: int) -> None:
        """The leaves of one source under the names they have before the plan's rules."""
        part = self.parts[index]
        with as_source_error(f"{part.source.label} does not say what it holds"):
            absent, statics, table = part.source.absent(), part.source.statics(), part.source.shaped()
            self.ties.append(part.source.ties())
        self.tables.append(table)
        held = inside(index, part, table, absent, statics)
        for within, nothing in held.absent.items():
            placed = _placed(part, within)
            self.empty_before_rules += placed
            self.empty.update(dict.fromkeys(self.names_of(placed), nothing))
        for within in held.statics:
            self.statics.update(self.names_of(_placed(part, within)))
        self.take_history(part, held)
        by_name: dict[Keys, list[Moved]] = {}
        for one in held.leaves:
            by_name.setdefault(one.name, []).append(one)
        arrived, failures = apply_rules([(one.name, one.value) for one in held.leaves], part.rules)
        for failure in failures:
            if failure.taken or not _renames_any(failure.rule, held.absent):
                gives, loses = (
                    tuple(self.names_of((*part.into, *name) for name in names))
                    for names in (failure.gives, failure.loses)
                )
                name = self.placed(part, failure.name)
                self.fail(replace(failure, name=name, into=part.into, gives=gives, loses=loses))
        for within, arrival in arrived:
            name = (*part.into, *within)
            if arrival.value is None:  # its rule failed, which was said here or at another of its names
                for new in self.names_of([name]):
                    self.failed.setdefault(new, arrival)
                continue
            came = [one for taken in arrival.taken for one in by_name[taken]]
            if arrival.rule is None:
                came = [one for one in came if one.value is arrival.value]
                arrival = replace(arrival, rule=came[0].rule, spare=arrival.spare or came[0].spare)
            if part.steps:
                trails = self.trails.setdefault(name, [])
                trails += ((index, one.trail) for one in came)
            self.arrivals.append((name, arrival))

    def take_history(self, part: OpenedPart, held: Inside) -> None:
        """What went wrong in the steps of a history, and what they left behind."""
        for failure in held.failures:
            self.fail(
                replace(
                    failure,
                    name=self.placed(part, failure.name),
                    into=(*part.into, *failure.into),
                    earlier=None,
                )
            )
        for within, arrival in held.failed:
            for new in self.names_of(_placed(part, within)):
                self.failed.setdefault(new, arrival)
        self.left += (replace(one, name=(*part.into, *one.name)) for one in held.left)

    def placed(self, part: OpenedPart, within: Keys | None) -> Keys | None:
        """Where what comes out of a part's own rules goes; None where that is not known."""
        return None if within is None else self.names_of([(*part.into, *within)])[0]

    def names_of(self, names: Iterable[Keys]) -> list[Keys]:
        """The names that slots without a value have after the plan's rules."""
        return [new for name in names for new in rename_empty(name, self.rules)]

    def offers(self) -> Offers:
        """What all parts give under the plan's rules, and who wins where names collide."""
        values = [(name, one.value) for name, one in self.arrivals if one.value is not None]
        # What its own From said of it. A value alone may have come to several names by a copy.
        earlier = {(name, id(one.value)): one for name, one in self.arrivals}
        arrived, failures = apply_rules(values, self.rules)
        for one in failures:
            if one.taken or not _renames_any(one.rule, self.empty_before_rules):
                self.fail(one)
        groups: dict[Keys, list[Arrival]] = {}
        for name, arrival in arrived:
            if arrival.value is None:
                self.failed.setdefault(name, arrival)
            else:
                if arrival.rule is None:
                    own = earlier[name, id(arrival.value)]
                    arrival = replace(arrival, rule=own.rule, spare=own.spare or arrival.spare)
                groups.setdefault(name, []).append(arrival)
        of_steps = (rule for part in self.parts for step in reversed(part.steps) for rule in step.rules)
        order = [*self.rules, *(rule for part in self.parts for rule in part.rules), *of_steps, None]
        rank = {id(rule): number for number, rule in reversed(list(enumerate(order)))}
        for several in groups.values():
            if len(several) > 1:
                several.sort(key=lambda one: _precedence(one, rank))
        mapped = Mapped(
            {**self.failed, **{name: several[0] for name, several in groups.items()}},
            {name: several[1:] for name, several in groups.items() if len(several) > 1},
        )
        return Offers(
            self.parts, self.empty, frozenset(self.statics), tuple(self.ties), tuple(self.failures),
            self.arrivals, mapped, self.rules, self.trails_of(arrived), self.left,
        )  # fmt: skip

    def trails_of(self, arrived: Iterable[tuple[Keys, Arrival]]) -> dict[Keys, list[Trailed]]:
        """The ways of what arrived at each name."""
        found: dict[Keys, list[Trailed]] = {}
        for name, arrival in arrived if self.trails else ():
            for taken in arrival.taken:
                found.setdefault(name, []).extend(self.trails.get(taken, ()))
        return found

    def fail(self, one: RuleFailure) -> None:
        """Notes a rule's failure; what it was to feed is then known to be fed by nothing."""
        self.failures.append(one)
        if one.name is not None:
            self.failed.setdefault(one.name, Arrival(None, one.rule, one.taken))


def _placed(part: OpenedPart, within: Keys) -> list[Keys]:
    """Where an empty slot, or a static, of a part goes before the plan's rules."""
    return [(*part.into, *new) for new in rename_empty(within, part.rules)]


def _renames_any(rule: Rule, names: Iterable[Keys]) -> bool:
    """Whether a rule that took no leaf took an empty slot, so that it is of use all the same."""
    return any(rule.rename(name) is not None for name in names)


def _precedence(one: Arrival, rank: Mapping[int, int]) -> tuple[Any, ...]:
    """Sources in order, then rules, then names: who wins a collision under ``"first"``."""
    assert one.value is not None
    leaf = next(one.value.leaves())
    in_order = [(0, int(key), key) if key.isdecimal() else (1, 0, key) for key in leaf.name]
    return leaf.index, rank[id(one.rule)], in_order
