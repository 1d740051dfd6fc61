"""Names that say the same thing, printed as one: ``layers/{0..11}/attn/q/kernel ×12``.

Owns the grouping of names that differ in numbers only, and of siblings. Knows nothing of findings or
plans; it is given names with the facts that must be equal.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from treeload._names import print_name

_NUMBER = re.compile(r"(?<![0-9])[0-9]+(?![0-9])")


@dataclass(frozen=True)
class Group:
    """Some of the items given, under one printed name.

    Attributes:
        text: their names as one, without the count.
        pattern: a pattern that matches them all.
        members: the numbers of the items, in their order.
    """

    text: str
    pattern: str
    members: tuple[int, ...]

    @property
    def title(self) -> str:
        """The text with the count behind it, where there is more than one."""
        return f"{self.text} ×{len(self.members):,}" if len(self.members) > 1 else self.text


def group(items: Sequence[tuple[tuple[str, ...], Hashable]]) -> list[Group]:
    """The items, each a name and the facts it must share with its group, as groups in order of appearance.

    >>> names = [(("layers", str(i), "kernel"), "float32[3]") for i in range(12)]
    >>> [found.title for found in group(names)]
    ['layers/{0..11}/kernel ×12']
    """
    by_shape: dict[Hashable, list[tuple[int, tuple[int, ...]]]] = {}
    for number, (name, facts) in enumerate(items):
        printed = print_name(name)
        numbers = tuple(_NUMBER.findall(printed))
        # Only what prints back the same counts as a number: "007" stays what it is.
        plain = all(str(int(text)) == text for text in numbers)
        template = _NUMBER.sub("\0", printed) if plain else printed
        by_shape.setdefault((template, facts), []).append((number, tuple(map(int, numbers)) if plain else ()))
    groups: list[Group] = []
    for (template, _), members in by_shape.items():  # type: ignore[misc]  # keys are pairs, as made above
        groups += _boxes(template, members)
    return sorted(groups, key=lambda found: found.members[0])


def _boxes(template: str, members: list[tuple[int, tuple[int, ...]]]) -> list[Group]:
    """One group where the numbers are every combination of their ranges; else split by the first that varies."""
    axes = [sorted(set(axis)) for axis in zip(*(numbers for _, numbers in members), strict=True)]
    size = 1
    for axis in axes:
        size *= len(axis)
    if size == len(members) or len(members) == 1:
        texts = iter([_ranges(axis) for axis in axes])
        wild = iter(["*" if len(axis) > 1 else str(axis[0]) for axis in axes])
        return [
            Group(
                re.sub("\0", lambda _: next(texts), template),
                re.sub("\0", lambda _: next(wild), re.sub(r"[*{}]", r"\\\g<0>", template)),
                tuple(number for number, _ in members),
            )
        ]
    first = next(position for position, axis in enumerate(axes) if len(axis) > 1)
    groups = []
    for value in axes[first]:
        groups += _boxes(template, [member for member in members if member[1][first] == value])
    return groups


def _ranges(values: Sequence[int]) -> str:
    """``3``, or ``{0..11}``, or ``{0,2,5..7}``."""
    if len(values) == 1:
        return str(values[0])
    parts = []
    for _, run in groupby(enumerate(values), lambda pair: pair[1] - pair[0]):
        numbers = [value for _, value in run]
        parts += [f"{numbers[0]}..{numbers[-1]}"] if len(numbers) > 2 else list(map(str, numbers))
    return "{" + ",".join(parts) + "}"


def siblings(groups: Iterable[tuple[Group, Hashable]]) -> list[tuple[Group, list[int]]]:
    """Groups that follow one another under one parent and share their facts, as one.

    Returns each new group with the numbers of the old ones in it.
    """
    merged: list[tuple[Group, list[int]]] = []
    family: dict[Hashable, int] = {}
    listed = list(groups)
    for number, (found, facts) in enumerate(listed):
        parent, _, last = found.text.rpartition("/")
        key = (parent, len(found.members), facts)
        known = family.get(key)
        if parent and "{" not in last and known is not None and len(merged[known][1]) < 6:
            old, numbers = merged[known]
            lasts = [listed[each][0].text.rpartition("/")[2] for each in (*numbers, number)]
            pattern = found.pattern.rpartition("/")[0] + "/**"
            text = f"{parent}/{{{','.join(sorted(lasts))}}}"
            merged[known] = (Group(text, pattern, (*old.members, *found.members)), [*numbers, number])
        else:
            if parent and "{" not in last:
                family[key] = len(merged)
            merged.append((found, [number]))
    return merged
