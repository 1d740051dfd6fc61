"""What becomes of each top-level module, for a page: a bar, how many leaves, how many bytes.

Owns the sums. Modules that are alike but for numbers, and of which the same is to be said, are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treeload._leaves.spec import in_bytes
from treeload._reports.browser.leaf import Leaf, Word
from treeload._reports.groups import group
from treeload._reports.page import counted

_MOST = 40  # modules that are listed


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of a bar: whose it is, where it begins and its length in percent, and how that is said."""

    word: Word
    start: float
    length: float
    said: str


@dataclass(frozen=True, slots=True)
class Module:
    """A top-level module, with those like it."""

    title: str
    bar: tuple[Stretch, ...]
    said: str
    size: str


@dataclass(frozen=True, slots=True)
class Modules:
    """The modules that are listed, and how many are not."""

    listed: tuple[Module, ...]
    rest: int


def stretches(shares: Sequence[tuple[Word, int, str]]) -> tuple[Stretch, ...]:
    """Sizes as pieces of a bar, none too short to be seen."""
    total = sum(size for _, size, _ in shares)
    lengths = [max(size / total if total else 0.0, 0.006) for _, size, _ in shares]
    found, start = [], 0.0
    for (word, _, said), length in zip(shares, lengths, strict=True):
        part = 100 * length / sum(lengths)
        found.append(Stretch(word, round(start, 3), round(part, 3), said))
        start += part
    return tuple(found)


def modules(leaves: Sequence[Leaf], words: Sequence[Word], whole: str) -> Modules:
    """The top-level modules; where ``whole`` is a word, those first of which it is not said throughout.

    There are none to speak of where there is only one, or where each is a single leaf.
    """
    sums: dict[str, dict[str, tuple[int, int]]] = {}
    for leaf in leaves:
        if leaf.name:
            of = sums.setdefault(leaf.name[0], {})
            count, size = of.get(leaf.word, (0, 0))
            of[leaf.word] = (count + 1, size + leaf.size)
    if len(sums) < 2 or all(_leaves(of) == 1 for of in sums.values()):
        return Modules((), 0)
    keys = list(sums)
    groups = group([((key,), tuple(sorted(sums[key].items()))) for key in keys])
    groups.sort(key=lambda one: bool(whole) and {*sums[keys[one.members[0]]]} == {whole})
    listed = tuple(
        _module(one.title, sums[keys[one.members[0]]], len(one.members), words, whole)
        for one in groups[:_MOST]
    )
    return Modules(listed, sum(len(one.members) for one in groups[_MOST:]))


def _leaves(of: dict[str, tuple[int, int]]) -> int:
    return sum(count for count, _ in of.values())


def _module(
    title: str, of: dict[str, tuple[int, int]], times: int, words: Sequence[Word], whole: str
) -> Module:
    total, size = times * _leaves(of), times * sum(size for _, size in of.values())
    by_size = size > 0
    shares = [
        (word, of[word.word][by_size], f"{times * of[word.word][0]:,} {word.word}")
        for word in words if word.word in of
    ]  # fmt: skip
    part = f"{times * of.get(whole, (0, 0))[0]:,} of " if whole else ""
    return Module(
        title, stretches(shares), f"{part}{counted(total, 'leaf', 'leaves')}{f' {whole}' if whole else ''}",
        in_bytes(size),
    )  # fmt: skip
