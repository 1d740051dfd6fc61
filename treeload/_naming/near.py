"""Which names are nearly a given one: for the typo in a segment, the prefix too much.

Owns ``NearNames``. Compares names key by key, and only those keys as text that differ; and only a bounded
number of names for each that is asked for.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from treeload._naming.name import print_key, print_name


class NearNames:
    """Which of some names are nearly a given one.

    Names that share a key are compared, the ones that share most first; so a typo in one segment, a prefix
    too much or a renamed last key are found among many thousands of names.
    """

    _COMPARED = 24  # how many candidates are compared for one name
    _TELLING = 2_000  # a key that more names hold tells nothing

    def __init__(self, names: Iterable[tuple[str, ...]]) -> None:
        self._names = list(names)
        self._holding: dict[str, list[int]] = {}
        for number, name in enumerate(self._names):
            for key in dict.fromkeys(name):
                self._holding.setdefault(key, []).append(number)

    def near(self, name: tuple[str, ...], *, count: int = 3) -> list[tuple[str, ...]]:
        """The nearest names, best first; at most ``count``, and none where nothing is near."""
        scored = []
        for number in self._candidates(name):
            other = self._names[number]
            # A last key that hardly another name has is a near name by itself, whatever the module is called.
            same_last = bool(name) and other[-1:] == name[-1:] and len(self._holding[name[-1]]) <= 2
            ratio = likeness(name, other)
            if ratio >= 0.6 or same_last:
                scored.append((-ratio, number))
        return [self._names[number] for _, number in sorted(scored)[:count]]

    def _candidates(self, name: tuple[str, ...]) -> Iterable[int]:
        """The names to be compared: all where they are few, else those that share most keys."""
        if len(self._names) <= 2 * self._COMPARED:
            return range(len(self._names))
        shared: Counter[int] = Counter()
        for key in dict.fromkeys(name):
            holding = self._holding.get(key, ())
            if len(holding) <= self._TELLING:
                shared.update(holding)
        return [number for number, _ in shared.most_common(self._COMPARED)]


def likeness(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """How much two names are alike, from 0 to 1: the share of their printed text that they have in common.

    Equal keys are in common as they are; where keys differ they are compared in their order, each as text. So
    names of 500 keys are told apart as fast as names of five.

    Examples:
        >>> likeness(("head", "kernel"), ("head", "kernel")), likeness(("a",), ("b",))
        (1.0, 0.0)
    """
    total = _length(one) + _length(other)
    if not total:
        return 1.0
    common = 0
    for tag, start, end, from_, to in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            common += _length(one[start:end])
        elif tag == "replace":
            common += _in_common(one[start:end], other[from_:to])
        if tag in ("equal", "replace") and end < len(one) and to < len(other):
            common += 1  # the "/" behind them
    return 2 * common / total


def _length(name: tuple[str, ...]) -> int:
    return len(print_name(name))


def _in_common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many characters two runs of other keys have in common."""
    if len(one) + len(other) <= _AS_TEXT:
        return _alike(print_name(one), print_name(other))
    pairs = list(zip(one, other, strict=False))[:_PAIRED]
    return sum(_alike(print_key(key), print_key(instead)) for key, instead in pairs)


_AS_TEXT = 6  # runs of so many keys are compared as one text
_PAIRED = 32  # of longer ones so many pairs of keys: a text of 500 keys would take seconds


@lru_cache(maxsize=4096)
def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common, in their order."""
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks)
