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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from treeload._inference.evidence import Pair, candidates
from treeload._inference.templates import Module

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
        alone: no other module has shapes that fit.
        why: what else speaks for it, in words.
    """

    pair: Pair
    certain: bool
    alone: bool
    why: str = ""


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
        self.taken: dict[int, Pair] = {}  # by the destination's order
        self.given: dict[int, Pair] = {}  # by the source's
        self.votes: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter()
        self.votes_of: Counter[tuple[tuple[str, ...], int]] = Counter()

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

    def field(self) -> list[Pair]:
        return [
            one for one in self.candidates
            if not one.apart
            and one.destination.order not in self.taken and one.source.order not in self.given
        ]  # fmt: skip

    def take(self, margin: float) -> bool:
        scores = {id(one): one.words + self.neighbours(one) for one in self.field()}
        best: list[dict[int, tuple[float, float]]] = [
            {},
            {},
        ]  # by row, by column: the best score and the next
        for one in self.field():
            for side, order in zip(best, (one.destination.order, one.source.order), strict=True):
                top, second = side.get(order, (-math.inf, -math.inf))
                score = scores[id(one)]
                side[order] = (score, top) if score > top else (top, max(second, score))
        found = False
        for one in self.field():
            score = scores[id(one)]
            rivals = [best[0][one.destination.order], best[1][one.source.order]]
            if score < self.floor(one) or any(
                score < top or score - second < margin for top, second in rivals
            ):
                continue
            self.accept(one)
            found = True
        return found

    def accept(self, one: Pair) -> None:
        self.taken[one.destination.order] = self.given[one.source.order] = one
        source, destination = one.source.path, one.destination.path
        for ours in range(1, len(source)):
            for theirs in range(1, len(destination)):
                self.votes[source[:ours], destination[:theirs]] += 1
                self.votes_of[source[:ours], theirs] += 1

    def decisions(self) -> Iterator[Decision]:
        """The pairs taken; certainty spreads from those that need no other to be certain."""
        certain: set[int] = set()
        grown = True
        while grown:
            found = {id(one) for one in self.taken.values() if self._certain(one, certain)}
            grown = not found <= certain
            certain |= found
        for one in self.taken.values():
            yield Decision(one, id(one) in certain, alone=not self._rivals(one))

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
        source, destination = one.source.path, one.destination.path
        best = 0.0
        for ours in range(1, len(source)):
            for theirs in range(1, len(destination)):
                votes = self.votes.get((source[:ours], destination[:theirs]), 0)
                if votes:
                    share = votes / self.votes_of[source[:ours], theirs]
                    best = max(best, share * (ours + theirs) / (len(source) + len(destination)))
        return best

    def left(self) -> Iterator[tuple[Pair, ...]]:
        """The pairs that are as good as one another, by what hangs together."""
        open_ = [
            one for one in self.candidates
            if one.destination.order not in self.taken and one.source.order not in self.given
            and not one.against and one.words >= min(-0.1, self.floor(one))
        ]  # fmt: skip
        top: dict[int, float] = defaultdict(lambda: -math.inf)
        for one in open_:
            top[one.destination.order] = max(top[one.destination.order], one.words)
        open_ = [one for one in open_ if one.words >= top[one.destination.order] - 2 * _MARGINS[-1]]
        group: dict[tuple[str, int], int] = {}
        members: dict[int, list[Pair]] = {}
        for number, one in enumerate(open_):
            ends = [("d", one.destination.order), ("s", one.source.order)]
            joined = sorted({group[end] for end in ends if end in group})
            gathered = [each for at in joined for each in members.pop(at)]
            members[number] = [*gathered, one]
            for each in members[number]:
                group["d", each.destination.order] = group["s", each.source.order] = number
        for gathered in members.values():
            if len(gathered) > 1 or gathered[0].apart:
                yield tuple(gathered)
