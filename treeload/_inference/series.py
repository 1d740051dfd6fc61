"""Numbered siblings that count otherwise on the other side: ``h_1`` to ``h_12``, and ``h_0`` to ``h_11``.

Owns which series of numbers do so, and the words for it. Names that agree in such a series agree by accident:
one number is another layer there. Refuses to own which number becomes which (``relayouts``).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from treeload._inference.evidence import Pair
from treeload._inference.pairing import Decision
from treeload._inference.templates import Module
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, print_name

_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]{0,8})$", re.DOTALL)

Node = tuple[Keys, str]  # the keys above a number, and what stands before it in its own key


@dataclass(frozen=True)
class Series:
    """Siblings that only numbers tell apart, of which each side has one that the other lacks.

    Attributes:
        node: where they are.
        source, destination: the numbers of each side, sorted.
        members: the leaves of both sides in it.
    """

    node: Node
    source: tuple[int, ...]
    destination: tuple[int, ...]
    members: frozenset[Keys] = field(default=frozenset(), repr=False, compare=False)

    def __str__(self) -> str:
        said = [_counted(run) for run in (self.source, self.destination)]
        what = "counts" if said[0].startswith("from") else "numbers"
        return f"the source {what} {self.noun} {said[0]}, the destination {said[1]}"

    @property
    def is_within(self) -> bool:
        """Whether one side has all the numbers of the other."""
        here, there = set(self.source), set(self.destination)
        return here <= there or there <= here

    @property
    def noun(self) -> str:
        """What is numbered, as the names say it."""
        above, stem = self.node
        named = print_name((*above, stem.rstrip("_-.")) if stem else above)
        return named or "its layers"


def counted_otherwise(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> list[Series]:
    """The series of which either side has a number that the other lacks.

    Examples:
        >>> import jax, numpy as np
        >>> spec = jax.ShapeDtypeStruct((2,), np.float32)
        >>> found = counted_otherwise({("h_0",): spec, ("h_1",): spec}, {("h_1",): spec, ("h_2",): spec})
        >>> print(*found)
        the source counts h from 1 to 2, the destination from 0 to 1
    """
    return [one for one in _series(destination, source) if not one.is_within]


def begun_otherwise(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> list[Series]:
    """These, and the series that begin with another number on the other side."""
    return [
        one for one in _series(destination, source)
        if not one.is_within or one.source[0] != one.destination[0]
    ]  # fmt: skip


def _series(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> Iterator[Series]:
    """What is numbered on both sides, and not alike."""
    ours, theirs = numbers_at(source), numbers_at(destination)
    for node, names in theirs.items():
        here, there = ours.get(node, {}).keys(), names.keys()
        if here != there and min(len(here), len(there)) > 1:
            below = itertools.chain(*ours[node].values(), *names.values())
            yield Series(node, tuple(sorted(here)), tuple(sorted(there)), frozenset(below))


def members(series: Iterable[Series]) -> frozenset[Keys]:
    """The leaves of all of them, by their names."""
    return frozenset[Keys]().union(*(one.members for one in series))


def settle(decisions: Sequence[Decision], series: Iterable[Series]) -> tuple[set[int], list[Series]]:
    """The decisions that guess which number becomes which, and the series of which too little is known.

    Where runs of numbers are set side by side, or no other number of the series has such shapes, a decision
    tells how they go; what all of these tell must keep the order. Whatever else is decided must say the same.

    Returns:
        The ids of the decisions that are left out; the series that stay open.
    """
    guessed: set[int] = set()
    open_: list[Series] = []
    by_node = {one.node: one for one in series}
    numbers = _Numbers(by_node)
    about: dict[Node, list[tuple[Decision, set[tuple[int, int]]]]] = {}
    for decision in decisions if by_node else ():
        for node, into in numbers.become(decision.pair).items():
            about.setdefault(node, []).append((decision, into))
    for node, one in by_node.items():
        here = about.get(node, [])
        told = set().union(*(into for decision, into in here if numbers.tell(decision, node)))
        told = told if _is_in_order(told) else set()
        wrong = [decision for decision, into in here if not into <= told]
        guessed |= set(map(id, wrong))
        if wrong or not here:
            open_.append(one)
    return guessed, open_


def fits_moved(pair: Pair) -> bool:
    """Whether all of a pair goes by the order of the numbers."""
    return all(fit.moved for fit in pair.fits.values())


class _Numbers:
    """Which numbers modules have at some nodes, each module looked at once."""

    def __init__(self, nodes: Collection[Node]) -> None:
        self.nodes = nodes
        self._known: dict[int, tuple[Module, dict[Node, list[int]]]] = {}  # by id, which a module keeps alive

    def of(self, module: Module) -> dict[Node, list[int]]:
        """The numbers of a module's leaves at each node, sorted."""
        known = self._known.get(id(module))
        if known is None:
            found = numbers_at(name for leaves in module.leaves.values() for name in leaves.members)
            here = {node: sorted(below) for node, below in found.items() if node in self.nodes}
            known = self._known[id(module)] = module, here
        return known[1]

    def become(self, pair: Pair) -> dict[Node, set[tuple[int, int]]]:
        """Which numbers become which at the nodes that a pair has on both sides."""
        source, destination = self.of(pair.source), self.of(pair.destination)
        found: dict[Node, set[tuple[int, int]]] = {}
        for node in source.keys() & destination.keys():
            here, there = source[node], destination[node]
            if fits_moved(pair):
                found[node] = set(zip(here, there, strict=False))
            elif len(here) > 1 or len(there) > 1:
                found[node] = {(number, number) for number in {*here} & {*there}}
            else:
                found[node] = {(here[0], there[0])}
        return {node: into for node, into in found.items() if into}

    def tell(self, decision: Decision, node: Node) -> bool:
        """Whether shapes alone say which numbers go together: runs of one length, or one of its shape."""
        if fits_moved(decision.pair):
            return True
        into = self.become(decision.pair)[node]
        others = (self.become(rival).get(node, set()) for rival in decision.rivals if not rival.against)
        return len(into) == 1 and all(other <= into for other in others)


def _is_in_order(into: Collection[tuple[int, int]]) -> bool:
    """Whether each number becomes one other, and a higher one a higher."""
    return all(
        one[0] < other[0] and one[1] < other[1] for one, other in itertools.pairwise(sorted(into))
    )  # fmt: skip


def numbers_at(names: Iterable[Keys]) -> dict[Node, dict[int, list[Keys]]]:
    """The numbers at each node, each with the leaves below it."""
    found: dict[Node, dict[int, list[Keys]]] = {}
    for name in names:
        for at, key in enumerate(name):
            if (parts := _cut(key)) is not None:
                found.setdefault((name[:at], parts[0]), {}).setdefault(parts[1], []).append(name)
    return found


@lru_cache(maxsize=65536)
def _cut(key: str) -> tuple[str, int] | None:
    """What stands before the number that a key ends with, and the number; None where it ends with none."""
    numbered = None if key.isalpha() else _NUMBERED.match(key)
    return None if numbered is None else (numbered[1], int(numbered[2]))


def _counted(run: Sequence[int]) -> str:
    """A run in words."""
    if all(after - before == 1 for before, after in itertools.pairwise(run)):
        return f"from {run[0]} to {run[-1]}"
    shown = ", ".join(map(str, run[:_SHOWN]))
    return shown if len(run) <= _SHOWN else f"{shown}, … to {run[-1]}"


_SHOWN = 6  # numbers of a run with gaps that are named
