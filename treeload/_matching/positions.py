"""Sources without names: arrays in the order of the destination's leaves.

Owns which position belongs to which leaf, and the refusal of a count that differs. Only where it is asked
for: a leaf more or less would shift every later one, and shapes do not always tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from treeload._leaves.spec import SlotKind
from treeload._matching.parts import OpenedPart
from treeload._naming.name import Keys, print_name
from treeload._trees.tree import Tree


@dataclass(frozen=True)
class Miscount:
    """A source by position that has another number of arrays than the destination has leaves.

    Attributes:
        into: where they were to go.
        names: the destination's leaves that they were to feed.
        arrays: how many arrays the source has, in words.
        message: what is wrong.
    """

    into: Keys
    names: tuple[Keys, ...]
    arrays: str
    message: str


def by_position(tree: Tree, part: OpenedPart) -> OpenedPart:
    """The part with each of its leaves called as the destination leaf at the same position is.

    A number that is the destination's configuration has a position too, where the source counts such; what
    is there meets a static. Where the counts differ no leaf has a place.
    """
    slots, own = _counted(tree, part), list(part.source.specs())
    if len(own) != len(slots):
        return replace(part, called={})
    depth = len(part.into)
    called = {tuple(name): tree.names[slot][depth:] for name, slot in zip(own, slots, strict=True)}
    return replace(part, called=called, numbered=called.keys())


def by_number(tree: Tree, part: OpenedPart) -> OpenedPart:
    """The part with numbers read as places among the children of a node whose class gives JAX no keys.

    Such a node has its attributes' names in a tree in memory, and 0 to n-1 in what was stored of it.
    """
    if not tree.keyless or part.by_position or part.steps:  # whose names are not yet those of today
        return part
    within = {
        tuple(own): name for own in part.source.specs() if (name := part.name_within(tuple(own))) is not None
    }
    below: dict[Keys, set[str]] = defaultdict(set)
    for name in within.values():
        for depth, key in enumerate(name):
            below[name[:depth]].add(key)

    def named(name: Keys) -> Keys:
        found = part.into
        for depth, key in enumerate(name):
            keys = tree.keyless.get(found)
            counted = keys is not None and below[name[:depth]] == {str(at) for at in range(len(keys))}
            found = (*found, *(keys[int(key)] if keys is not None and counted else (key,)))
        return found[len(part.into) :]

    called = {own: new for own, name in within.items() if (new := named(name)) != name}
    return replace(part, called={**(part.called or {}), **called}, numbered=called.keys()) if called else part


def miscount(tree: Tree, part: OpenedPart) -> Miscount | None:
    """What is wrong with the number of a part's arrays; None where it is right."""
    slots, own = _counted(tree, part), part.source.specs()
    if len(own) == len(slots):
        return None
    arrays = f"{len(own):,} array{'' if len(own) == 1 else 's'}"
    where = f" below {print_name(part.into)}" if part.into else ""
    return Miscount(
        part.into,
        tuple(tree.names[slot] for slot in slots),
        arrays,
        f"by position the source has {arrays}, and the destination {len(slots):,} leaves{where}: "
        "which belongs to which cannot be told",
    )


def _counted(tree: Tree, part: OpenedPart) -> Sequence[int]:
    """The destination's slots that have a position, in order."""
    depth, found = len(part.into), []
    for index, (name, value, kind) in enumerate(tree.slots()):
        # A stream that was written leaf by leaf has a position for every number, configuration or not.
        number = part.source.counts_numbers and isinstance(value, (bool, int, float, complex))
        if name[:depth] == part.into and (kind <= SlotKind.SCALAR or number):
            found.append(index)
    return found
