"""How much of two sides is looked at: all that a model holds, and never so much that inference takes minutes.

Owns the cut: of very many names that are not alike those that have a key in common with the other side, of
very many templates those with the rarest such key; and the words for what was cut. Refuses to own what is
made of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias

from treeload._inference.templates import Digits, Leaves, Module, gather, templates
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys

LEAVES = 5_000  # more names than these, digits aside, must have a key in common with the other side
_TEMPLATES = 1_000  # more than these are cut: no model has as many

_DIGITS = re.compile("[0-9]+")


Templates: TypeAlias = "tuple[Mapping[Keys, Leaves], Mapping[Keys, Leaves]]"
"""The templates of the destination and of the source."""


@dataclass(frozen=True)
class Looked:
    """What is looked at of two sides.

    Attributes:
        theirs, ours: the modules, of the destination and of the source.
        cut: what was left out, in sentences; none where everything is looked at.
        templates: those of all leaves; None where there are too many names that are not alike.
    """

    theirs: list[Module]
    ours: list[Module]
    cut: tuple[str, ...] = ()
    templates: Templates | None = None


def sides(
    destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec], *, digits: Digits = "index"
) -> Looked:
    """The modules of both sides, as far as they are looked at."""
    if not any(map(is_spread, (destination, source))):
        whole = templates(destination, digits=digits), templates(source, digits=digits)
        return replace(_looked_at(*whole), templates=whole)
    heads = [set(chain.from_iterable(name[:-1] for name in side)) for side in (destination, source)]
    theirs, ours = (set(map(_token, keys)) for keys in heads)
    shared = (theirs & ours) - {""}
    told = {key for keys in heads for key in keys if _token(key) in shared}
    some = [
        {name: spec for name, spec in side.items() if not told.isdisjoint(name[:-1])}
        for side in (destination, source)
    ]
    looked = _looked_at(*(templates(side, digits=digits) for side in some))
    return replace(looked, cut=(*_cut("leaves", (destination, source), some), *looked.cut))


def is_spread(side: Mapping[Keys, Spec]) -> bool:
    """Whether there are too many names that differ in more than the digits at the end of their keys."""
    if len(side) <= LEAVES:
        return False
    stems = {key: key.rstrip("0123456789") for key in dict.fromkeys(chain.from_iterable(side))}
    return len({tuple([stems[key] for key in name]) for name in side}) > LEAVES


def _looked_at(theirs: Mapping[Keys, Leaves], ours: Mapping[Keys, Leaves]) -> Looked:
    """The modules that the templates of both sides are, as far as they are looked at."""
    if max(len(theirs), len(ours)) <= _TEMPLATES:
        return Looked(gather(theirs.values()), gather(ours.values()))
    shared = _shared(_keys(theirs), _keys(ours))
    kept = [_rarest(side, shared) for side in (theirs, ours)]
    cut = _cut("groups of leaves", (theirs, ours), kept)
    return Looked(gather(kept[0]), gather(kept[1]), cut)


def _cut(what: str, whole: Iterable[Sized], kept: Iterable[Sized]) -> tuple[str, ...]:
    return tuple(
        _said(f"{whose}'s {len(side):,} {what}", len(some))
        for whose, side, some in zip(("destination", "source"), whole, kept, strict=True)
        if len(some) < len(side)
    )


def _said(all_: str, kept: int) -> str:
    if not kept:
        return (
            f"the {all_} were not looked at: there are too many, and but for their last keys they share no "
            "word with the other side"
        )
    were = "was" if kept == 1 else "were"
    return f"of the {all_} {kept:,} {were} looked at: those that share the rarest words with the other side"


def _rarest(side: Mapping[Keys, Leaves], shared: Mapping[str, int]) -> list[Leaves]:
    """The templates whose rarest key in common is rarest, in their order."""
    if len(side) <= _TEMPLATES:
        return list(side.values())
    tokens = _tokens(side)
    rarity = {
        template: min(found)
        for template in side
        if (found := [shared[token] for key in template if (token := tokens[key]) in shared])
    }
    kept = set(sorted(rarity, key=lambda template: (rarity[template], template))[:_TEMPLATES])
    return [leaves for template, leaves in side.items() if template in kept]


def _keys(names: Iterable[Keys]) -> Counter[str]:
    """How many names hold each key, the last ones left out, as these are the same everywhere."""
    counts = Counter(key for name in names for key in name[:-1])
    found: Counter[str] = Counter()
    for key, count in counts.items():
        found[_token(key)] += count
    return found


def _tokens(names: Iterable[Keys]) -> dict[str, str]:
    """Each key without its digits."""
    return {key: _token(key) for key in dict.fromkeys(chain.from_iterable(names))}


def _token(key: str) -> str:
    return key if key.isalpha() else _DIGITS.sub("", key)


def _shared(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """The keys of both sides, and how often they come."""
    return {key: one[key] + other[key] for key in one if key and key in other}
