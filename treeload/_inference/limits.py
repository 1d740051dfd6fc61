"""How much of two sides is looked at: all that a model holds, and never so much that inference takes minutes.

Owns the cut: where there are very many leaves, those whose names have a key in common with the other side,
and of very many templates those with the rarest such key. Refuses to own what is made of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from treeload._inference.templates import Digits, Leaves, Module, gather, templates
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys

LEAVES = 20_000  # more than these must have a key in common with the other side
_TEMPLATES = 1_000  # more than these are cut: no model has as many

_DIGITS = re.compile("[0-9]+")


def sides(
    destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec], *, digits: Digits = "index"
) -> tuple[list[Module], list[Module]]:
    """The modules of both sides, as far as they are looked at."""
    if max(len(destination), len(source)) > LEAVES:
        shared = _shared(_keys(destination), _keys(source))
        destination, source = (
            {name: spec for name, spec in side.items() if any(_token(key) in shared for key in name[:-1])}
            for side in (destination, source)
        )
    theirs, ours = templates(destination, digits=digits), templates(source, digits=digits)
    if max(len(theirs), len(ours)) > _TEMPLATES:
        shared = _shared(_keys(theirs), _keys(ours))
        return gather(_rarest(theirs, shared)), gather(_rarest(ours, shared))
    return gather(theirs.values()), gather(ours.values())


def _rarest(side: Mapping[Keys, Leaves], shared: Mapping[str, int]) -> Iterable[Leaves]:
    """The templates whose rarest key in common is rarest, in their order."""
    if len(side) <= _TEMPLATES:
        return side.values()
    rarity = {
        template: min(found)
        for template in side
        if (found := [shared[token] for key in template if (token := _token(key)) in shared])
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


def _token(key: str) -> str:
    return _DIGITS.sub("", key)


def _shared(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """The keys of both sides, and how often they come."""
    return {key: one[key] + other[key] for key in one if key and key in other}
