"""Which module of the source feeds which module of the destination, and how sure that is.

Owns the evidence (shapes that fit, words in common, neighbours already paired) and the choice: a pair is
taken where each is the other's best by a margin, again and again as the field narrows; where two are as
good, none is taken. Refuses to own what fits (``_relayouts``), what words mean (``_tokens``) and the rules
that come of it (``_suggest``).

A pair is *certain* only on evidence that no other reading of names and shapes contradicts: the words beat
every rival's by a margin before any neighbour was looked at, and no rival was put aside on less than that.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from treeload.inference._relayouts import Fit, fit
from treeload.inference._templates import Module
from treeload.inference._tokens import HARD, WEIGHT, concepts, conflict

_GENERIC = frozenset({"norm", "layer", "dense", "conv", "proj", "first", "second"})
_MARGINS = (1.0, 0.6, 0.3, 0.15)
_CERTAIN = 0.5  # by how much words must beat every rival's


@dataclass(frozen=True, eq=False)
class Pair:
    """A module of the source that could feed one of the destination.

    Attributes:
        source, destination: the two.
        fits: for each kind of leaf that both have, how it would go.
        words: how well the names agree; higher is better, around 0 is no evidence.
        sure: what they share, of what cannot mislead; words that one side lacks do not count here.
        shared: the words in common, weightiest first.
        against: the names exclude each other, or seem to.
        excluded: they do, whatever numbers are taken to mean.
        custom: they agree by a custom of numbering, not by words.
        miscounted: one is numbered among several, and the other is not, or otherwise.
    """

    source: Module
    destination: Module
    fits: Mapping[str, Fit]
    words: float
    sure: float
    shared: tuple[str, ...]
    against: bool
    excluded: bool = False
    custom: bool = False
    miscounted: bool = False


@dataclass(frozen=True)
class Decision:
    """A pair that was taken.

    Attributes:
        pair: the pair.
        certain: nothing in names or shapes speaks for another.
        alone: no other module has shapes that fit.
    """

    pair: Pair
    certain: bool
    alone: bool


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
    return _Chooser(list(_candidates(destination, source))).run()


# Evidence.


def _candidates(destination: Sequence[Module], source: Sequence[Module]) -> Iterator[Pair]:
    """Every two modules that fit by shape, with what their names say."""
    words = _Words(destination, source)
    by_volume: dict[tuple[str, int], dict[int, Module]] = defaultdict(dict)
    for module in source:
        for volume in _volumes(module):
            by_volume[volume][module.order] = module
    for there in destination:
        fellows: dict[int, Module] = {}
        for volume in _volumes(there):
            fellows.update(by_volume.get(volume, {}))
        for order in sorted(fellows):
            here = fellows[order]
            fits = {
                kind: how
                for kind in there.leaves
                if kind in here.leaves and (how := fit(here.leaves[kind], there.leaves[kind])) is not None
            }
            common = here.leaves.keys() & there.leaves.keys()
            if fits and fits.keys() == common and not conflict(words.of(here), words.of(there), HARD):
                yield words.weigh(here, there, fits)


def _volumes(module: Module) -> set[tuple[str, int]]:
    """What any fitting module shares: for a kind, elements of one leaf or of all."""
    found = set()
    for kind, leaves in module.leaves.items():
        sizes = [math.prod(shape) for shape in leaves.shapes.values()]
        found |= {(kind, size) for size in set(sizes)} | {(kind, sum(sizes))}
    return found


class _Words:
    """What names say, weighed by how rare a word is on either side."""

    def __init__(self, destination: Sequence[Module], source: Sequence[Module]) -> None:
        sides = [
            Counter(word for module in side for word in module.context) for side in (destination, source)
        ]
        self.same = _spellings(sides[0].keys() - sides[1].keys(), sides[1].keys() - sides[0].keys())
        for word, other in self.same.items():
            sides[1][other] += sides[1].pop(word)
        self.known = [side.keys() for side in sides]
        self.rarity = {
            word: 1
            - 0.4
            * sum(
                side[word] / max(1, len(all_))
                for side, all_ in zip(sides, (destination, source), strict=True)
            )
            for word in sides[0].keys() | sides[1].keys()
        }
        numbered = [_by_stem(side) for side in sides]
        # Numbers that count otherwise on the other side (norm0, norm1 and norm1, norm2) say nothing.
        self.numbers = {"by_number"} | {
            word
            for stem in numbered[0].keys() | numbered[1].keys()
            if numbered[0].get(stem) != numbered[1].get(stem) or not stem
            for word in numbered[0].get(stem, frozenset()) | numbered[1].get(stem, frozenset())
        }
        self.several = [_several(side) for side in sides]
        self.soft = {"first", "second"} | self.numbers
        self._cache: dict[Module, frozenset[str]] = {}

    def of(self, module: Module) -> frozenset[str]:
        """Its words, in the destination's spelling."""
        if module not in self._cache:
            self._cache[module] = frozenset(self.same.get(word, word) for word in module.context)
        return self._cache[module]

    def weight(self, word: str) -> float:
        return WEIGHT.get(word, 1.0 if "#" not in word else 0.7) * max(self.rarity.get(word, 1.0), 0.2)

    def weigh(self, here: Module, there: Module, fits: Mapping[str, Fit]) -> Pair:
        ours, theirs = self.of(here), self.of(there)
        shared = sorted(ours & theirs, key=lambda word: (-self.weight(word), word))
        same_end = 0
        for one, other in zip(reversed(here.path), reversed(there.path), strict=False):
            if one != other or self.numbers & set(concepts(one)):
                break
            same_end += 1
        form = 0.3 * min(same_end, 4) + (0.6 if here.path == there.path else 0.0)
        form -= 0.5 * len(here.leaves.keys() ^ there.leaves.keys())
        against = conflict(ours, theirs)
        # w1 for gate is a custom, not a word: where one side only counts, that is no certainty.
        counted = ("by_number" in ours) != ("by_number" in theirs)
        soft = self.soft | here.guessed | there.guessed | ({"gate", "up"} if counted else set())
        words = form + self._agreement(ours - self.numbers, theirs - self.numbers)
        return Pair(
            here,
            there,
            fits,
            words=words - (3.0 if against else 0.0),
            sure=form + sum(map(self.weight, (ours & theirs) - soft)),
            shared=tuple(word for word in shared if word not in self.soft),
            against=against,
            excluded=conflict(ours - soft, theirs - soft),
            custom=counted and bool(ours & theirs & {"gate", "up"}),
            miscounted=_numbers(theirs & self.several[0]) != _numbers(ours & self.several[1]),
        )

    def _agreement(self, ours: frozenset[str], theirs: frozenset[str]) -> float:
        score = sum(self.weight(word) for word in ours & theirs)
        for words, known in ((ours - theirs, self.known[0]), (theirs - ours, self.known[1])):
            # A word that the other side uses elsewhere speaks against; one that it never uses says little.
            score -= sum((0.5 if word in known else 0.1) * self.weight(word) for word in words)
        return score


def _spellings(theirs: Iterable[str], ours: Iterable[str]) -> dict[str, str]:
    """Words of one side that are nearly a word of the other: source's spelling -> destination's."""
    found: dict[str, str] = {}
    candidates = sorted(word for word in theirs if len(word) >= 5 and "#" not in word)[:500]
    for word in sorted(word for word in ours if len(word) >= 5 and "#" not in word)[:500]:
        for other in candidates:
            if (
                word.startswith(other)
                or other.startswith(word)
                or (
                    abs(len(word) - len(other)) <= 2
                    and difflib.SequenceMatcher(None, word, other).ratio() >= 0.85
                )
            ):
                found.setdefault(word, other)
    return found


def _by_stem(words: Iterable[str]) -> dict[str, frozenset[str]]:
    stems: dict[str, set[str]] = defaultdict(set)
    for word in words:
        if "#" in word:
            stems[word.split("#")[0]].add(word)
    return {stem: frozenset(group) for stem, group in stems.items()}


def _several(words: Iterable[str]) -> frozenset[str]:
    """The numbered words of which there are several, such as norm1 and norm2."""
    return frozenset(word for group in _by_stem(words).values() if len(group) > 1 for word in group)


def _numbers(words: Iterable[str]) -> list[int]:
    return sorted(int(word.split("#")[1]) for word in words)


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
            if one.destination.order not in self.taken and one.source.order not in self.given
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
        words = set(one.shared) - _GENERIC
        ending = one.source.path[-2:] == one.destination.path[-2:] and len(one.destination.path) > 1
        same = ending or one.source.path == one.destination.path
        return (
            not one.against
            and not (one.miscounted or (one.custom and rivals))
            and all(fit.whole and not fit.open for fit in one.fits.values())
            and all(other.excluded or one.sure - other.sure >= _CERTAIN for other in standing)
            and (bool(words) or same or (not rivals and bool(one.shared)))
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
        open_ = [one for one in self.field() if not one.against and one.words >= min(-0.1, self.floor(one))]
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
            if len(gathered) > 1:
                yield tuple(gathered)
