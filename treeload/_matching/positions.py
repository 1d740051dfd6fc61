"""Sources without names: arrays in the order of the destination's leaves.

Owns which position belongs to which leaf, and the refusal of a count that differs. Only where it is asked
for: a leaf more or less would shift every later one, and shapes do not always tell.
"""

from __future__ import annotations

from dataclasses import replace

from treeload._findings.finding import Finding
from treeload._findings.policy import Policy
from treeload._leaves.spec import Kind
from treeload._matching.offers import Offers, OpenedPart
from treeload._naming.name import Name, print_name
from treeload._rules.apply import Arrival
from treeload._trees.tree import Tree


def by_position(tree: Tree, part: OpenedPart) -> OpenedPart:
    """The part with each of its leaves named after the destination leaf at the same position.

    A number that is the destination's configuration has a position too, where the source counts such; what
    is there meets a static. Where the counts differ no leaf has a place.
    """
    slots, own = _counted(tree, part), list(part.source.specs())
    if len(own) != len(slots):
        return replace(part, positions={})
    depth = len(part.into)
    positions = {tuple(name): tree.names[slot][depth:] for name, slot in zip(own, slots, strict=True)}
    return replace(part, positions=positions)


def refuse_miscounts(tree: Tree, offers: Offers, policy: Policy) -> list[Finding]:
    """A finding for each source whose count differs; no leaf that it was to feed is missing besides."""
    findings = []
    for part in offers.parts:
        if not part.by_position or part.positions:
            continue
        slots, own = _counted(tree, part), part.source.specs()
        if len(own) == len(slots):
            continue
        for slot in slots:
            offers.fed.setdefault(tree.names[slot], Arrival(None, None, ()))
        arrays = f"{len(own):,} array{'' if len(own) == 1 else 's'}"
        where = f" below {print_name(part.into)}" if part.into else ""
        findings.append(
            Finding(
                "rule",
                Name(part.into),
                policy.verdict("rule", print_name(part.into)),
                expected=f"{len(slots):,} arrays",
                found=arrays,
                message=f"by position the source has {arrays}, and the destination {len(slots):,} leaves"
                f"{where}: which belongs to which cannot be told",
                remedy="give the leaves names, or a destination of the source's structure",
            )
        )
    return findings


def _counted(tree: Tree, part: OpenedPart) -> list[int]:
    """The destination's slots that have a position, in order."""
    depth, found = len(part.into), []
    for index, (name, value, kind) in enumerate(zip(tree.names, tree.values, tree.kinds, strict=True)):
        # A stream that was written leaf by leaf has a position for every number, configuration or not.
        number = part.source.counts_numbers and isinstance(value, (bool, int, float, complex))
        if name[:depth] == part.into and (kind <= Kind.SCALAR or number):
            found.append(index)
    return found
