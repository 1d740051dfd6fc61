"""What is asked for of one or several sources, through a ``From`` and rules, as one source.

Owns the reading of leaves that meet no destination: those that are averaged, compared, or initialise one
parameter. Refuses to own names and rules (``_matching.offers``), and the reading itself (``_loading``). Where
a plan collects what is wrong, a view has nobody to forgive it: a rule that does nothing raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from treeload._errors import RuleError
from treeload._leaves.spec import Spec, nbytes
from treeload._loading.gather import Job, gather
from treeload._matching.boxes import open_boxes
from treeload._matching.idle import meant
from treeload._matching.offers import Offers, offered
from treeload._matching.parts import OpenedPart
from treeload._matching.versions import refuse_stated
from treeload._naming.name import Keys, Name, print_name
from treeload._ops.expression import Expression, Leaf, evaluate
from treeload._rules.apply import RuleFailure
from treeload._rules.rule import Rule
from treeload._rules.tie import Tie
from treeload._sources.source import Source, as_source_error, stamp_of
from treeload._sources.stamp import UNSTAMPED

_LEAVES_AT_ONCE = 512


_BYTES_AT_ONCE = 32 << 20


class View(Source):
    """Some leaves of sources, each under the name and in the layout that was asked for.

    Args:
        sources: the sources; an attribute too.
        values: each name, and what is made of the sources' leaves for it.
        ties: alias → the name that it shares its array with.
    """

    gives_away = True

    def __init__(
        self,
        sources: Sequence[Source],
        values: Mapping[Name, Expression],
        ties: Mapping[Name, Name],
        again: Callable[[Iterable[Keys]], View] | None = None,
    ) -> None:
        self.label = " and ".join(source.label for source in sources)
        self.sources = sources
        self._again = again
        self._values = values
        self._ties = ties
        self.version = stamp_of(sources[0]) if len(sources) == 1 else UNSTAMPED

    @classmethod
    def of(
        cls, parts: Sequence[OpenedPart], rules: Sequence[Rule] = (), *, beside: Iterable[Keys] = (),
        wanted: Iterable[Keys] = (),
    ) -> View:  # fmt: skip
        """All that the parts give under the rules, without the segments that boxes make in names.

        ``beside``: names that it will be compared with; they tell a box from a parameter called ``value``.
        ``wanted``: names that the rules are to lead to; they tell what a rule that does nothing was to be.

        Raises:
            RuleError: a rule that did not do its work, two leaves of one name, a subtree that is not there.
            SourceError: a source does not say what it holds.
        """
        if any(isinstance(rule, Tie) for rule in rules):
            raise RuleError("a Tie is about a destination, and there is none here")
        if any(part.by_position for part in parts):
            raise RuleError("From(by_position=True) goes by a destination's order, and there is none here")
        refuse_stated(parts)
        beside = tuple(beside)
        offers = offered([open_boxes(part, beside, rules) for part in parts], rules)
        if beside:
            offers = offers.without_spare(set(beside).__contains__)
        wanted = tuple(wanted)
        problems = [_said(failure, offers, wanted) for failure in offers.failures]
        problems += [f"two leaves would be called {print_name(name)!r}" for name in offers.contested]
        for part, table in zip(parts, offers.tables, strict=True):
            depth = len(part.subtree)
            if depth and not any(tuple(name[:depth]) == part.subtree for name in table):
                problems.append(f"{part.source.label} has nothing below {print_name(part.subtree)!r}")
        if problems:
            raise RuleError("; ".join(problems))
        values = {Name(name): value for name in offers.shaped for value, _ in [next(offers.values_at(name))]}
        return cls(
            [part.source for part in parts], values, _ties(values, offers),
            lambda names: cls.of(parts, rules, beside=names, wanted=wanted),
        )  # fmt: skip

    def beside(self, names: Iterable[Keys]) -> View:
        """The view beside these names: ``kernel`` where they have that and the source ``kernel/value``."""
        return self if self._again is None else self._again(names)

    def only(self, name: Name, value: Expression) -> View:
        """A view of one leaf, changed to ``value``."""
        return View(self.sources, {name: value}, {})

    @property
    def looks_into_memory(self) -> bool:
        """Whether one of its sources is in memory."""
        return any(source.in_memory for source in self.sources)

    def value(self, name: Name) -> Expression:
        """What the leaf of that name is made of."""
        return self._values[name]

    def specs(self) -> Mapping[Name, Spec]:
        return {name: value.spec for name, value in self._values.items()}

    def ties(self) -> Mapping[Name, Name]:
        return self._ties

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        names = list(requests)
        values = [self._values[name] for name in names]
        shardings = {
            value: request.sharding
            for value, request in zip(values, requests.values(), strict=True)
            if isinstance(value, Leaf) and request.sharding is not None
        }
        jobs = [Job(tuple(value.leaves())) for value in values]
        for number, arrays in gather(self.sources, jobs, shardings):
            name, sharding = names[number], requests[names[number]].sharding
            with as_source_error(f"{print_name(name)!r} could not be made"):
                array = evaluate(values[number], arrays)
            if sharding is not None and getattr(array, "sharding", None) != sharding:
                array = jax.device_put(array, sharding)
            arrays.clear()
            yield name, array


def _said(failure: RuleFailure, offers: Offers, wanted: Sequence[Keys]) -> str:
    """What is wrong with a rule, and what was meant by one that matches nothing."""
    ways = []
    if failure.name is None and not failure.taken:
        ways = meant(failure.rule, [tuple(name) for table in offers.tables for name in table], wanted)
    return "; ".join((failure.message, *map(str, ways)))


def _ties(values: Mapping[Name, Expression], offers: Offers) -> dict[Name, Name]:
    """Names whose arrays are known to be one: stored once, or in memory the same object.

    One leaf that a rule copied is none of them: its copies are leaves of their own.
    """
    first: dict[Any, tuple[Name, Leaf]] = {}
    ties: dict[Name, Name] = {}
    for name, value in values.items():
        if isinstance(value, Leaf):
            held = offers.tables[value.index][value.name]
            same: Any = id(held) if isinstance(held, (jax.Array, np.ndarray)) else offers.stored_as(value)
            other, leaf = first.setdefault(same, (name, value))
            if leaf != value:
                ties[name] = other
    return ties


def batches(specs: Mapping[Name, Spec], *, sources: int) -> Iterator[dict[Name, Spec]]:
    """``specs`` in pieces that may be read from so many sources at once: a large leaf comes alone.

    Asking for one leaf at a time would open each source as many times as it has leaves.
    """
    batch: dict[Name, Spec] = {}
    size = 0
    for name, spec in specs.items():
        if batch and (size + nbytes(spec) > _BYTES_AT_ONCE // sources or len(batch) == _LEAVES_AT_ONCE):
            yield batch
            batch, size = {}, 0
        batch[name] = spec
        size += nbytes(spec)
    if batch:
        yield batch
