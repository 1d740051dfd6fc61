"""Which module of the source feeds which module of the destination, and how sure that is.

Owns the choice: a pair is taken where each is the other's best by a margin, again and again as the field
narrows and as pairs taken speak for their neighbours; where two are as good, none is taken. Refuses to own
the evidence of a single pair (``evidence``) and the rules that come of it (``suggest``).

A pair is *certain* only on evidence that no other reading of names and shapes contradicts: the words beat
every rival's by a margin before any neighbour was looked at, and no rival was put aside on less than that.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from treeload._inference.evidence import Pair, candidates
from treeload._inference.templates import Module
from treeload._naming.name import Keys

_GENERIC = frozenset({"norm", "layer", "dense", "conv", "proj", "first", "second"})


_VAGUE = _GENERIC | {"head"}  # heads are exchanged from file to file


_MARGINS = (1.0, 0.6, 0.3, 0.15)


_CERTAIN = 0.5  # by how much words must beat every rival's


@dataclass(frozen=True)
class Decision:
    """A pair that was taken.

    Attributes:
        pair: the pair.
        certain: nothing in names or shapes speaks for another.
        rivals: the other pairs of either module whose shapes fit.
        why: what else speaks for it, in words.
    """

    pair: Pair
    certain: bool
    rivals: tuple[Pair, ...] = ()
    why: str = ""

    @property
    def alone(self) -> bool:
        """Whether no other module has shapes that fit."""
        return not self.rivals


@dataclass(frozen=True)
class Pairing:
    """What was decided, and what could not be.

    Attributes:
        decisions: the pairs taken.
        open: the pairs left, as good as one another, gathered by what hangs together.
    """

    decisions: tuple[Decision, ...]
    open: tuple[tuple[Pair, ...], ...]


def pair(destination: Sequence[Module], source: Sequence[Module]) -> Pairing:
    """The pairing of two sides."""
    return _Chooser(list(candidates(destination, source))).run()


# The choice.


class _Chooser:
    """The candidates still in the field, and what was decided so far."""

    def __init__(self, candidates: list[Pair]) -> None:
        self.candidates = candidates
        self.rows: dict[int, list[Pair]] = defaultdict(list)
        self.columns: dict[int, list[Pair]] = defaultdict(list)
        for one in candidates:
            self.rows[one.destination.order].append(one)
            self.columns[one.source.order].append(one)
        self.floors = {id(one): self.floor(one) for one in candidates}
        self.taken: dict[int, Pair] = {}  # by the destination's order
        self.given: dict[int, Pair] = {}  # by the source's
        self.field = [one for one in candidates if not one.apart]
        # Nodes by numbers, given as they are met: they are asked for at every pair, again and again.
        self.numbers: dict[Keys, int] = {}
        self.above: dict[Keys, list[int]] = {}
        self.touched: set[int] = set()  # the source's nodes above pairs taken since the scores were made
        self.beside: dict[int, float] = {}  # by id: what neighbours say
        self.votes_for: dict[int, Counter[int]] = defaultdict(Counter)
        self.votes_of: dict[int, Counter[int]] = defaultdict(Counter)

    def run(self) -> Pairing:
        margin = 0
        while margin < len(_MARGINS):
            # What is found with a wide margin narrows the field for the rest.
            margin = 0 if self.take(_MARGINS[margin]) else margin + 1
        return Pairing(tuple(self.decisions()), tuple(self.left()))

    def floor(self, one: Pair) -> float:
        """The least that names must say: what alone has the right shape, or a matrix, may do with little."""
        alone = len(self.rows[one.destination.order]) == len(self.columns[one.source.order]) == 1
        vector = all(
            len(shape) - (at.how == "unstack") < 2
            for kind, at in one.fits.items()
            for shape in one.source.leaves[kind].distinct
        )
        return 0.2 if vector and not alone else -0.6

    def narrowed(self) -> list[Pair]:
        """What is still in the field; it only ever gets smaller."""
        self.field = [
            one for one in self.field
            if one.destination.order not in self.taken and one.source.order not in self.given
        ]  # fmt: skip
        return self.field

    def take(self, margin: float) -> bool:
        """Takes what beats its rivals by a margin; whether anything was taken."""
        field = self.narrowed()
        scores = self.scores(field)
        rows = _best_two((one.destination.order for one in field), scores)
        columns = _best_two((one.source.order for one in field), scores)
        found = False
        for one, score in zip(field, scores, strict=True):
            if score < self.floors[id(one)]:
                continue
            top, second = rows[one.destination.order]
            if score < top or score - second < margin:
                continue
            top, second = columns[one.source.order]
            if score < top or score - second < margin:
                continue
            self.accept(one)
            found = True
        return found

    def scores(self, field: Sequence[Pair]) -> list[float]:
        """What words and neighbours say of each pair; asked anew only where a pair was taken beside it."""
        touched, self.touched = self.touched, set()
        for one in field:
            if id(one) not in self.beside or not touched.isdisjoint(self.above[one.source.path]):
                self.beside[id(one)] = self.neighbours(one)
        return [one.words + self.beside[id(one)] for one in field]

    def accept(self, one: Pair) -> None:
        self.taken[one.destination.order] = self.given[one.source.order] = one
        for here in self.nodes(one.source.path):
            self.touched.add(here)
            for theirs, there in enumerate(self.nodes(one.destination.path), start=1):
                self.votes_for[here][there] += 1
                self.votes_of[here][theirs] += 1

    def nodes(self, path: Keys) -> list[int]:
        """The numbers of the nodes above a module, that of one key first."""
        found = self.above.get(path)
        if found is None:
            nodes = [path[:depth] for depth in range(1, len(path))]
            found = [self.numbers.setdefault(node, len(self.numbers)) for node in nodes]
            self.above[path] = found
        return found

    def decisions(self) -> Iterator[Decision]:
        """The pairs taken; certainty spreads from those that need no other to be certain."""
        certain: set[int] = set()
        grown = True
        while grown:
            found = {id(one) for one in self.taken.values() if self._certain(one, certain)}
            grown = not found <= certain
            certain |= found
        for one in self.taken.values():
            yield Decision(one, id(one) in certain, tuple(self._rivals(one)))

    def _rivals(self, one: Pair) -> list[Pair]:
        both = (*self.rows[one.destination.order], *self.columns[one.source.order])
        return [other for other in both if other is not one]

    def _certain(self, one: Pair, certain: set[int]) -> bool:
        rivals = self._rivals(one)
        standing = [
            other
            for other in rivals
            if id(self.taken.get(other.destination.order)) not in certain
            and id(self.given.get(other.source.order)) not in certain
        ]
        words = set(one.shared) - (_GENERIC if one.source.path[-1:] == one.destination.path[-1:] else _VAGUE)
        ending = one.source.path[-2:] == one.destination.path[-2:] and len(one.destination.path) > 1
        same = ending or one.source.path == one.destination.path
        return (
            not one.against
            and not (one.miscounted or (one.custom and rivals))
            and all(fit.whole and not fit.open for fit in one.fits.values())
            and all(other.excluded or one.sure - other.sure >= _CERTAIN for other in standing)
            and (bool(words) or same or one.beside or (not rivals and bool(one.shared)))
            and one.sure > 0.3
        )

    def neighbours(self, one: Pair) -> float:
        """What pairs already taken say: modules side by side here are side by side there."""
        source, destination = self.nodes(one.source.path), self.nodes(one.destination.path)
        depth = len(one.source.path) + len(one.destination.path)
        best = 0.0
        for ours, here in enumerate(source, start=1):
            given = self.votes_for.get(here)
            if given is None:
                continue  # none was taken below it
            for theirs, there in enumerate(destination, start=1):
                votes = given.get(there)
                if votes:
                    share = votes / self.votes_of[here][theirs]
                    best = max(best, share * (ours + theirs) / depth)
        return best

    def left(self) -> Iterator[tuple[Pair, ...]]:
        """The pairs that are as good as one another, by what hangs together."""
        open_ = [
            one for one in self.candidates
            if one.destination.order not in self.taken and one.source.order not in self.given
            and not one.against and one.words >= min(-0.1, self.floors[id(one)])
        ]  # fmt: skip
        top: dict[int, float] = defaultdict(lambda: -math.inf)
        for one in open_:
            top[one.destination.order] = max(top[one.destination.order], one.words)
        open_ = [one for one in open_ if one.words >= top[one.destination.order] - 2 * _MARGINS[-1]]
        for gathered in _hanging_together(open_):
            if len(gathered) > 1 or gathered[0].apart:
                yield tuple(gathered)


def _best_two(places: Iterable[int], scores: Sequence[float]) -> dict[int, list[float]]:
    """The best score at each place and the next."""
    best: dict[int, list[float]] = {}
    for place, score in zip(places, scores, strict=True):
        known = best.get(place)
        if known is None:
            best[place] = [score, -math.inf]
        elif score > known[0]:
            known[:] = score, known[0]
        elif score > known[1]:
            known[1] = score
    return best


_Tree: TypeAlias = "tuple[list[_Tree], Pair]"


def _hanging_together(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs, gathered by the modules that they have in common."""
    group: dict[tuple[str, int], int] = {}
    into: dict[int, int] = {}  # which group one became a part of
    trees: dict[int, _Tree] = {}  # joined without being copied: there may be as many groups as pairs
    for number, one in enumerate(pairs):
        joined: set[int] = set()
        for end in (("d", one.destination.order), ("s", one.source.order)):
            if end in group:
                at = group[end]
                while into[at] != at:
                    into[at] = at = into[into[at]]
                joined.add(at)
            group[end] = number
        trees[number] = [trees.pop(at) for at in sorted(joined)], one
        into.update(dict.fromkeys((*joined, number), number))
    return [_flat(tree) for tree in trees.values()]


def _flat(tree: _Tree) -> list[Pair]:
    found: list[Pair] = []
    left: list[_Tree | Pair] = [tree]
    while left:
        here = left.pop()
        if isinstance(here, Pair):
            found.append(here)
        else:
            left += [here[1], *reversed(here[0])]
    return found
