"""The one or two leaves that are all there is on either side.

Owns what shapes alone say of them. Refuses to own sides of more leaves (``pairing``).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from treeload._inference.layouts import judge
from treeload._inference.proposals import Proposal
from treeload._inference.tokens import concepts, conflict, heads_apart
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, print_name
from treeload._rules.rename import Rename


def only_ones(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> list[Proposal]:
    """The one or two leaves that are all there is on either side, where shapes leave one reading."""
    if len(destination) != len(source) or len(source) > 2:
        return []
    ways = []
    for names in itertools.permutations(source):
        pairs = list(zip(names, destination, strict=True))
        readings = [judge(here, source[here], there, destination[there]) for here, there in pairs]
        if all(one.change is not None and one.change.plain for one in readings):
            ways.append(list(zip(pairs, readings, strict=True)))
    apart = any(_exclude(here, there) for way in ways for (here, there), _ in way)
    if len(ways) != 1 or apart:
        return []
    found = []
    for (here, there), reading in ways[0]:
        assert reading.change is not None  # as asked above
        reasons = ("the only leaves on either side", *([reading.why] if reading.why else []))
        instead = tuple(Rename(here, there, *other.ops) for other in reading.others[:1])
        rule = Rename(here, there, *reading.change.ops)
        found.append(Proposal(rule, (print_name(here),), 1, False, reasons, instead=instead))
    return found


def _exclude(here: Keys, there: Keys) -> bool:
    """Whether two names cannot be one leaf's."""
    ours, theirs = (frozenset(word for key in name for word in concepts(key)) for name in (here, there))
    return heads_apart(here, there) or conflict(ours, theirs)
