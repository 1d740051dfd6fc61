"""What was meant by a ``From`` whose subtree, or whose place in the destination, there is not.

Owns the tries, in the order of how likely each is meant. Refuses to own which of them helps, which is tried
(``_plans.repairs``).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

from treeload._matching.parts import OpenedPart
from treeload._matching.sides import Sides
from treeload._naming.name import Keys, nodes_above, print_name
from treeload._naming.near import NearNames
from treeload._plans.decisions import Regraft

_NEAR = 2  # names that are tried for a typo


def regrafts(sides: Sides) -> tuple[Regraft, ...]:
    """Each ``From`` that names nothing, as it may have been meant."""
    return tuple(
        found
        for index, part in enumerate(sides.offers.parts) if part.explicit
        for found in (*_other_subtrees(sides, index, part), *_other_places(sides, index, part))
    )  # fmt: skip


def _other_subtrees(sides: Sides, index: int, part: OpenedPart) -> Iterator[Regraft]:
    nodes = nodes_above(map(tuple, sides.offers.tables[index]))
    if part.subtree in nodes:
        return
    joined = ": names are joined by '/'" if any("." in key for key in part.subtree) else ""
    for meant in _meant(part.subtree, nodes):
        words = f"{part.source.label} has nothing below {print_name(part.subtree)!r}{joined}"
        yield Regraft(index, meant, part.into, words, f"subtree={_literal(meant)}")


def _other_places(sides: Sides, index: int, part: OpenedPart) -> Iterator[Regraft]:
    if part.into in sides.slot_prefixes or part.into in sides.slots:
        return
    nothing = f"the destination has nothing below {print_name(part.into)!r}"
    yield Regraft(index, part.subtree, (), f"{nothing}: leave into= out", "")
    for meant in _meant(part.into, sides.slot_prefixes):
        yield Regraft(index, part.subtree, meant, nothing, f"into={_literal(meant)}")


def _meant(written: Keys, nodes: Collection[Keys]) -> Iterator[Keys]:
    """Nodes that a name which is none of them may stand for: joined otherwise, a pattern, a typo."""
    plain = tuple(key for key in written if key not in ("*", "**"))
    split = tuple(piece for key in plain for piece in key.split(".") if piece)
    for keys in dict.fromkeys((plain, split)):
        if keys in nodes:
            yield keys
            return
    yield from NearNames(sorted(node for node in nodes if node)).near(split, count=_NEAR)


def _literal(keys: Keys) -> str:
    return json.dumps(print_name(keys), ensure_ascii=False)
