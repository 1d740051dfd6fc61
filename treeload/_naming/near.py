"""Which names are nearly a given one: for the typo in a segment, the prefix too much.

Owns ``NearNames``. Compares names as text, and only a bounded number of them.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable

from treeload._naming.name import print_name


class NearNames:
    """Which of some names are nearly a given one.

    Names that share a key are compared as text, the ones that share most first; so a typo in one
    segment, a prefix too much or a renamed last key are found among many thousands of names.
    """

    _COMPARED = 24  # how many candidates are compared as text for one name
    _PATIENCE = 400  # how many names are looked up: text is compared at some 50 µs a pair

    def __init__(self, names: Iterable[tuple[str, ...]]) -> None:
        self._names = list(names)
        self._holding: dict[str, list[int]] = {}
        for number, name in enumerate(self._names):
            for key in dict.fromkeys(name):
                self._holding.setdefault(key, []).append(number)
        self._asked = 0

    def near(self, name: tuple[str, ...], *, count: int = 3) -> list[tuple[str, ...]]:
        """The nearest names, best first; at most ``count``, and none where nothing is near."""
        self._asked += 1
        if self._asked > self._PATIENCE:
            return []
        shared: Counter[int] = Counter()
        for key in dict.fromkeys(name):
            holding = self._holding.get(key, ())
            # A key that a great many names hold tells nothing.
            if len(holding) <= 2000:
                shared.update(holding)
        candidates = [number for number, _ in shared.most_common(self._COMPARED)]
        if len(self._names) <= 2 * self._COMPARED:
            candidates = list(range(len(self._names)))
        text = print_name(name)
        scored = []
        for number in candidates:
            ratio = difflib.SequenceMatcher(
                None, text, print_name(self._names[number]), autojunk=False
            ).ratio()
            # A last key that hardly another name has is a near name by itself, whatever the module is called.
            same_last = bool(name) and self._names[number][-1:] == name[-1:]
            if ratio >= 0.6 or (same_last and len(self._holding[name[-1]]) <= 2):
                scored.append((-ratio, number))
        return [self._names[number] for _, number in sorted(scored)[:count]]
