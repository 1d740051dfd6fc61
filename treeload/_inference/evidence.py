"""What speaks for two modules being one: shapes that fit, and words in common.

Owns the evidence of one pair taken by itself. Refuses to own the choice between pairs (``pairing``), what
fits (``relayouts``) and what words mean (``tokens``).
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from treeload._inference.relayouts import Fit, fit
from treeload._inference.templates import Module
from treeload._inference.tokens import HARD, WEIGHT, concepts, conflict, heads_apart
from treeload._inference.tokens import kind as kind_of
from treeload._naming.name import Keys

_BESIDE = 4.0  # what equal names behind two prefixes count: more than any word
_PAIRS = 20_000  # pairs that are weighed, about: each takes some 50 µs, chosen among again and again
_FELLOWS = 8  # modules of one size that are looked at for each, however many there are
_COMMON = 20  # a word that so many times more modules have tells nothing
_SPELLED = 500  # words of a side that are looked at for another spelling
_COMPARED = 20  # words that each of them is compared with
_RIVALS = 8  # prefixes with one rest that are looked at


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
        apart: they are heads for different ends, or only one is a head.
        beside: under two prefixes with equal rests, of which all that could be is equal.
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
    apart: bool = False
    beside: bool = False

    def rival(self, kind: str) -> str:
        """The key of another leaf that fits as well, where one side's leaf does not say of what kind it is.

        A lone ``norm`` is the scale of a norm or its bias: where both have its shape, nothing tells.
        """
        both = (self.source, self.destination)
        if all(kind_of(module.leaves[kind].key)[1] != module.leaves[kind].key for module in both):
            return ""
        others = (
            leaves.key for module in both for other, leaves in module.leaves.items()
            if other not in self.fits and leaves.distinct == module.leaves[kind].distinct
        )  # fmt: skip
        return next(others, "")


def candidates(destination: Sequence[Module], source: Sequence[Module]) -> Iterator[Pair]:
    """Every two modules that fit by shape, with what their names say."""
    words = _Words(destination, source)
    by_volume: dict[tuple[str, int], dict[int, Module]] = defaultdict(dict)
    for module in source:
        for volume in sorted(_volumes(module)):
            by_volume[volume][module.order] = module
    index = _ByWord(words, source)
    most = max(_FELLOWS, _PAIRS // max(1, len(destination)))
    for there in destination:
        fellows: dict[int, Module] = {}
        for volume in sorted(_volumes(there)):
            found = by_volume.get(volume, {})
            fellows.update(found if len(found) <= most else index.alike(there, found, most))
        for order in sorted(fellows):
            here = fellows[order]
            common = here.leaves.keys() & there.leaves.keys()
            if not common or conflict(words.of(here), words.of(there), HARD):
                continue
            fits = {
                kind: how
                for kind in there.leaves
                if kind in common and (how := fit(here.leaves[kind], there.leaves[kind])) is not None
            }
            if fits.keys() == common:
                yield words.weigh(here, there, fits)


class _ByWord:
    """Modules by their words: where many have one size, only those that share a word are looked at."""

    def __init__(self, words: _Words, side: Sequence[Module]) -> None:
        self.words = words
        self.having: dict[str, list[Module]] = defaultdict(list)
        for module in side:
            for word in words.of(module):
                self.having[word].append(module)

    def alike(self, there: Module, among: Mapping[int, Module], most: int) -> dict[int, Module]:
        """Those of ``among`` with a word of ``there``, the rarest word first; ``most`` at most."""
        found: dict[int, Module] = {}
        theirs = self.words.of(there)
        for word in sorted(theirs, key=lambda word: (len(self.having.get(word, ())), word)):
            having = self.having.get(word, ())
            if len(having) > _COMMON * most:
                break
            for module in having:
                if module.order in among:
                    found[module.order] = module
                    if len(found) >= most:
                        return found
        return found


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
        self.prefixes = equal_rests(destination, source)
        self._cache: dict[int, tuple[Module, frozenset[str]]] = {}  # by id, which a module keeps alive
        self._weights: dict[str, float] = {}

    def of(self, module: Module) -> frozenset[str]:
        """Its words, in the destination's spelling."""
        known = self._cache.get(id(module))
        if known is None:
            words = frozenset(self.same.get(word, word) for word in module.context)
            known = self._cache[id(module)] = module, words
        return known[1]

    def weight(self, word: str) -> float:
        found = self._weights.get(word)
        if found is None:
            usual = WEIGHT.get(word, 1.0 if "#" not in word else 0.7)
            found = self._weights[word] = usual * max(self.rarity.get(word, 1.0), 0.2)
        return found

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
        beside = not against and self._beside(here, there)
        words = (
            form + (_BESIDE if beside else 0.0) + self._agreement(ours - self.numbers, theirs - self.numbers)
        )
        return Pair(
            here,
            there,
            fits,
            words=words - (3.0 if against else 0.0),
            sure=form + (_BESIDE if beside else 0.0) + math.fsum(map(self.weight, (ours & theirs) - soft)),
            shared=tuple(word for word in shared if word not in self.soft),
            against=against,
            excluded=conflict(ours - soft, theirs - soft),
            custom=counted and bool(ours & theirs & {"gate", "up"}),
            miscounted=not beside and _numbers(theirs & self.several[0]) != _numbers(ours & self.several[1]),
            apart=not beside and heads_apart(here.path, there.path),
            beside=beside,
        )

    def _beside(self, here: Module, there: Module) -> bool:
        """Whether the two have equal names behind two prefixes that go together."""
        if not self.prefixes:
            return False
        rest = _common_end(here.path, there.path)
        ours, theirs = here.path[: len(here.path) - rest], there.path[: len(there.path) - rest]
        return rest > 0 and self.prefixes.get(theirs) == ours

    def _agreement(self, ours: frozenset[str], theirs: frozenset[str]) -> float:
        score = math.fsum(self.weight(word) for word in ours & theirs)
        for words, known in ((ours - theirs, self.known[0]), (theirs - ours, self.known[1])):
            # A word that the other side uses elsewhere speaks against; one that it never uses says little.
            score -= math.fsum((0.5 if word in known else 0.1) * self.weight(word) for word in words)
        return score


def equal_rests(destination: Sequence[Module], source: Sequence[Module]) -> dict[Keys, Keys]:
    """Prefixes of the destination whose modules lie under one of the source by the same names.

    A pair counts where all modules of the smaller side have a partner of the same kinds of leaves, two at
    least, and where no other prefix does as well: of ``student/`` and ``teacher/`` neither is told.
    """
    below: list[Counter[Keys]] = [Counter(), Counter()]
    for number, side in enumerate((destination, source)):
        for module in side:
            below[number].update(module.path[:at] for at in range(len(module.path)))
    by_rest: dict[Keys, list[Keys]] = defaultdict(list)
    for module in source:
        for at in range(len(module.path)):
            by_rest[module.path[at:]].append(module.path[:at])
    votes: Counter[tuple[Keys, Keys]] = Counter()
    for module in destination:
        for at in range(len(module.path)):
            found = by_rest.get(module.path[at:], ())
            if len(found) <= _RIVALS:
                votes.update((module.path[:at], prefix) for prefix in found)
    best: list[dict[Keys, list[tuple[int, Keys]]]] = [defaultdict(list), defaultdict(list)]
    for (theirs, ours), count in votes.items():
        if count > 1 and count == min(below[0][theirs], below[1][ours]):
            best[0][theirs].append((count, ours))
            best[1][ours].append((count, theirs))
    only = [{key: _single(key, found) for key, found in side.items()} for side in best]
    return {
        theirs: ours for theirs, ours in only[0].items() if ours is not None and only[1].get(ours) == theirs
    }


def _single(prefix: Keys, found: list[tuple[int, Keys]]) -> Keys | None:
    """The one that holds most, or of several the one with most keys in common."""
    ranked = sorted(((count, len({*prefix} & {*other})), other) for count, other in found)
    (top, key), *others = ranked[::-1]
    return key if not others or others[0][0] < top else None


def _common_end(one: Keys, other: Keys) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _spellings(theirs: Iterable[str], ours: Iterable[str]) -> dict[str, str]:
    """Words of one side that are nearly a word of the other: source's spelling -> destination's."""
    found: dict[str, str] = {}
    # A word that is nearly another begins or ends as it does: few are compared letter by letter.
    alike: dict[str, list[str]] = defaultdict(list)
    for other in sorted(word for word in theirs if len(word) >= 5 and "#" not in word)[:_SPELLED]:
        for end in {f"{other[:2]}*", f"*{other[-2:]}"}:
            alike[end].append(other)
    for word in sorted(word for word in ours if len(word) >= 5 and "#" not in word)[:_SPELLED]:
        for other in sorted({*alike[f"{word[:2]}*"], *alike[f"*{word[-2:]}"]})[:_COMPARED]:
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
