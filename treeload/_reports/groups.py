"""Names that say the same thing, printed as one: ``layers/{0..11}/attn/q/kernel ×12``.

Owns the grouping of names that differ in numbers only, and of siblings. Knows nothing of findings or
plans; it is given names with the facts that must be equal. A group loses nothing: its text, read as a
shell reads braces, gives its members and no other name. A brace that belongs to a key is written
``\\{`` there, so that it is not taken for one of the group's.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from typing import TypeAlias

from treeload._naming.name import print_key

Alternatives: TypeAlias = "tuple[int, ...] | tuple[str, ...]"


Part: TypeAlias = "str | Alternatives"
"""A piece of a segment: printed text, or what stands there in one member or another."""


_Template: TypeAlias = "tuple[tuple[str | None, ...], ...]"
"""The printed keys of a name with None where a number stands."""


# A number is what prints back the same ("007" is a word), outside of escapes such as \x1b.
_TOKEN = re.compile(
    r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)"
    r"|(?P<number>(?<![0-9])(?:0|[1-9][0-9]{0,8})(?![0-9]))"
    r"|[^\\0-9]+|[0-9]+"
)


_BRACES = re.compile(r"[{}]")


_IN_BRACES = re.compile(r"[{},]")


_WILD = re.compile(r"[*{}]")


_LONG = 40  # characters of one pair of braces that a title shows whole


_JOINED = 3  # groups that the title of joined ones shows


_WORDS = 6  # siblings put into one pair of braces


@dataclass(frozen=True)
class Group:
    """Some of the items given, under one printed name.

    Attributes:
        segments: the segments of the name, each in parts.
        members: the numbers of the items; in their order, those of one sibling after another.
        joined: the groups that it is made of, where they have nothing in common but the facts; the segments
            are those of the first.
    """

    segments: tuple[tuple[Part, ...], ...]
    members: tuple[int, ...]
    joined: tuple[Group, ...] = ()

    @property
    def parts(self) -> tuple[Group, ...]:
        """The groups that it is made of; itself, where it is of names that are alike."""
        return self.joined or (self,)

    @property
    def text(self) -> str:
        """The names as one, without the count."""
        return "/".join("".join(map(self._print, segment)) for segment in self.segments)

    @property
    def keys(self) -> tuple[str, ...]:
        """The segments of the text, long lists of numbers cut."""
        return tuple("".join(map(self._print_short, segment)) for segment in self.segments)

    @property
    def title(self) -> str:
        """The text with the count behind it, where there is more than one; long lists of numbers cut."""
        if self.joined:
            rest = len(self.members) - sum(len(each.members) for each in self.joined[:_JOINED])
            shown = [each.title for each in self.joined[:_JOINED]]
            return ", ".join(shown) + (f" and {rest:,} more" if rest else "")
        if len(self.members) == 1:
            return self.text
        text = "/".join("".join(map(self._print_short, segment)) for segment in self.segments)
        words = any(part and isinstance(part, tuple) and isinstance(part[0], str) for part in self._parts)
        counted = any(part and isinstance(part, tuple) and isinstance(part[0], int) for part in self._parts)
        # Of siblings alone the braces already show how many there are.
        return text if words and not counted else f"{text} ×{len(self.members):,}"

    @property
    def pattern(self) -> str:
        """A pattern that matches them all."""
        return "/".join(map(self.pattern_of, range(len(self.segments))))

    def pattern_of(self, position: int) -> str:
        """The pattern of one segment; of no name's segment, for the root."""
        return "".join(map(_wild, self.segments[position])) if self.segments else ""

    @property
    def _parts(self) -> Iterable[Part]:
        return (part for segment in self.segments for part in segment)

    @property
    def _is_one_name(self) -> bool:
        return all(isinstance(part, str) for part in self._parts)

    def _print(self, part: Part) -> str:
        if isinstance(part, str):
            return part if self._is_one_name else _BRACES.sub(r"\\\g<0>", part)
        return "{" + ",".join(_alternatives(part)) + "}"

    def _print_short(self, part: Part) -> str:
        text = self._print(part)
        if isinstance(part, str) or len(text) <= _LONG or isinstance(part[0], str):
            return text
        shown = _alternatives(part)
        return "{" + ",".join((*shown[:3], "…", shown[-1])) + "}"


_HOPELESS = 5  # times as many ways as are asked for: what comes then is hardly like the first


def group(items: Iterable[tuple[tuple[str, ...], Hashable]], *, most: int | None = None) -> list[Group]:
    """The items, each a name and the facts it must share with its group, as groups in order of appearance.

    With ``most`` only the first are grouped that differ in so many ways, and the others are in no group; nor
    are those that come after a great many ways more.

    Examples:
        >>> names = [(("layers", str(i), "kernel"), "float32[3]") for i in range(12)]
        >>> [found.title for found in group(names)]
        ['layers/{0..11}/kernel ×12']
    """
    alike: dict[tuple[_Template, Hashable], list[tuple[int, tuple[int, ...]]]] = {}
    parents: dict[
        tuple[str, ...], tuple[_Template, tuple[int, ...]]
    ] = {}  # which most names share with others
    for number, (name, facts) in enumerate(items):
        known = parents.get(name[:-1])
        if known is None:
            known = parents[name[:-1]] = _cut_all(name[:-1])
        template, numbers = known
        if name:
            last, own = _cut(name[-1])
            template, numbers = (*template, last), (*numbers, *own)
        alike.setdefault((template, facts), []).append((number, numbers))
        if most is not None and len(alike) > _HOPELESS * most:
            break
    groups: list[Group] = []
    for (template, _), points in islice(alike.items(), most):
        groups += [Group(_filled(template, axes), found) for axes, found in _boxes(points)]
    return sorted(groups, key=lambda found: found.members[0])


def _cut_all(name: tuple[str, ...]) -> tuple[_Template, tuple[int, ...]]:
    cut = list(map(_cut, name))
    return tuple([texts for texts, _ in cut]), tuple([n for _, numbers in cut for n in numbers])


@lru_cache(maxsize=65536)
def _cut(key: str) -> tuple[tuple[str | None, ...], tuple[int, ...]]:
    """A key's printed form with None where a number stands, and the numbers."""
    texts: list[str | None] = []
    numbers: list[int] = []
    for token in _TOKEN.finditer(print_key(key)):
        if token["number"] is not None:
            texts.append(None)
            numbers.append(int(token["number"]))
        elif texts and texts[-1] is not None:
            texts[-1] += token[0]
        else:
            texts.append(token[0])
    return tuple(texts), tuple(numbers)


def _boxes(
    points: Sequence[tuple[int, tuple[int, ...]]],
) -> list[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]]:
    """Points as boxes (the values on each axis) that hold exactly these points, few rather than fewest.

    Axis by axis, the last first, boxes that are equal on all other axes become one: experts join
    within a layer, then layers that have the same experts.
    """
    boxes: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    if len(points) == 1:
        return [(tuple([(value,) for value in points[0][1]]), (points[0][0],))]
    for number, point in points:
        boxes.setdefault(tuple([(value,) for value in point]), []).append(number)
    for axis in reversed(range(len(next(iter(boxes))))):
        joined: dict[Hashable, list[tuple[tuple[int, ...], ...]]] = {}
        for box in boxes:
            joined.setdefault((box[:axis], box[axis + 1 :]), []).append(box)
        before, boxes = boxes, {}
        for several in joined.values():
            values = tuple(sorted(value for box in several for value in box[axis]))
            whole = (*several[0][:axis], values, *several[0][axis + 1 :])
            boxes[whole] = [number for box in several for number in before[box]]
    return [(box, tuple(sorted(numbers))) for box, numbers in boxes.items()]


def _filled(template: _Template, axes: tuple[tuple[int, ...], ...]) -> tuple[tuple[Part, ...], ...]:
    """The segments of a name with these numbers in their places."""
    values = iter(axes)

    def part(text: str | None) -> Part:
        if text is not None:
            return text
        axis = next(values)
        return str(axis[0]) if len(axis) == 1 else axis

    return tuple(tuple(map(part, texts)) for texts in template)


def _alternatives(part: Alternatives) -> list[str]:
    """What stands between the braces: words, or numbers as ``0..11`` where they follow one another."""
    texts: list[str] = []
    if isinstance(part[0], str):
        return [_IN_BRACES.sub(r"\\\g<0>", str(word)) for word in part]
    for _, run in groupby(enumerate(map(int, part)), lambda pair: pair[1] - pair[0]):
        numbers = [value for _, value in run]
        texts += [f"{numbers[0]}..{numbers[-1]}"] if len(numbers) > 2 else list(map(str, numbers))
    return texts


def _wild(part: Part) -> str:
    if isinstance(part, str):
        return _WILD.sub(r"\\\g<0>", part)
    return "**" if isinstance(part[0], str) else "*"


def siblings(groups: Iterable[tuple[Group, Hashable]], *, in_order: bool = False) -> list[Group]:
    """Groups, each with facts, where those of one parent with equal facts are one: ``head/{bias,kernel}``.

    A few at most; siblings beyond them start another group. The words between braces are in
    alphabetical order, or that of the groups, and the members are in the order of the words.
    """
    families: dict[Hashable, list[dict[str, Group]]] = {}
    for number, (found, facts) in enumerate(groups):
        *parents, last = found.segments or ((),)
        word = "".join(part for part in last if isinstance(part, str))
        is_word = all(isinstance(part, str) for part in last)
        key = (tuple(parents), len(found.members), facts) if parents and is_word else number
        known = families.setdefault(key, [{}])
        if word in known[-1] or len(known[-1]) == _WORDS:
            known.append({})
        known[-1][word] = found
    merged = [_family(family, in_order=in_order) for several in families.values() for family in several]
    return sorted(merged, key=lambda found: min(found.members))


def _family(by_word: dict[str, Group], *, in_order: bool) -> Group:
    first = next(iter(by_word.values()))
    if len(by_word) == 1:
        return first
    words = tuple(by_word if in_order else sorted(by_word))
    members = tuple(member for word in words for member in by_word[word].members)
    return Group((*first.segments[:-1], (words,)), members)


def join(groups: Sequence[Group]) -> Group:
    """Groups as one, whatever their names are."""
    if len(groups) == 1:
        return groups[0]
    members = tuple(member for each in groups for member in each.members)
    return Group(groups[0].segments, members, tuple(groups))


def print_names(
    names: Iterable[tuple[str, ...]], *, most: int, facts: Iterable[str] | None = None, in_order: bool = False
) -> str:
    """Names in a row, grouped: ``head/{bias,kernel}, layers/{0..11}/scale ×12``; at most so many groups.

    ``facts``, one for each name, are put behind the group in round brackets where they are not empty.
    ``in_order`` says that the order of siblings means something, so they are not sorted.
    """
    listed = list(dict.fromkeys(zip(names, facts, strict=True) if facts else ((name, "") for name in names)))
    groups = group(listed)
    groups = siblings([(found, listed[found.members[0]][1]) for found in groups], in_order=in_order)
    shown = [
        found.title + (f" ({said})" if (said := listed[found.members[0]][1]) else "")
        for found in groups[:most]
    ]
    return ", ".join(shown) + (f", … ({len(listed):,} in all)" if len(groups) > most else "")
