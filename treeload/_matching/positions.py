"""Sources without names: arrays in the order of the destination's leaves.

Owns which position belongs to which leaf, and the refusal of a count that differs. Only where it is asked
for: a leaf more or less would shift every later one, and shapes do not always tell.
"""

from __future__ import annotations

from dataclasses import replace

from treeload._findings.finding import Finding
from treeload._findings.policy import Policy
from treeload._leaves.spec import Kind
from treeload._matching.offers import Graft, Offers
from treeload._naming.name import Name, print_name
from treeload._rules.apply import Fed
from treeload._trees.tree import Tree


def by_position(tree: Tree, graft: Graft) -> Graft:
    """The graft with each of its leaves named after the destination leaf at the same position.

    A number that is the destination's configuration has a position too, where the source counts such;
    it never loads. Where the counts differ no leaf has a place.
    """
    slots, own = _counted(tree, graft), list(graft.source.specs())
    if len(own) != len(slots):
        return replace(graft, positions={})
    depth = len(graft.into)
    positions = {
        tuple(name): tree.names[slot][depth:]
        for name, slot in zip(own, slots, strict=True)
        if tree.kinds[slot] <= Kind.SCALAR
    }
    return replace(graft, positions=positions)


def refuse_miscounts(tree: Tree, offers: Offers, policy: Policy) -> list[Finding]:
    """A finding for each source whose count differs; no leaf that it was to feed is missing besides."""
    findings = []
    for graft in offers.grafts:
        if not graft.by_position or graft.positions:
            continue
        slots, own = _counted(tree, graft), graft.source.specs()
        if len(own) == len(slots):
            continue
        for slot in slots:
            offers.fed.setdefault(tree.names[slot], Fed(None, None, ()))
        arrays = f"{len(own):,} array{'' if len(own) == 1 else 's'}"
        where = f" below {print_name(graft.into)}" if graft.into else ""
        findings.append(
            Finding(
                "rule",
                Name(graft.into),
                policy.verdict("rule", print_name(graft.into)),
                expected=f"{len(slots):,} arrays",
                found=arrays,
                message=f"by position the source has {arrays}, and the destination {len(slots):,} leaves"
                f"{where}: which belongs to which cannot be told",
                remedy="give the leaves names, or a destination of the source's structure",
            )
        )
    return findings


def _counted(tree: Tree, graft: Graft) -> list[int]:
    """The destination's slots that have a position, in order."""
    depth, found = len(graft.into), []
    for index, (name, value, kind) in enumerate(zip(tree.names, tree.values, tree.kinds, strict=True)):
        # A stream that was written leaf by leaf has a position for every number, configuration or not.
        number = graft.source.counts_numbers and isinstance(value, (bool, int, float, complex))
        if name[:depth] == graft.into and (kind <= Kind.SCALAR or number):
            found.append(index)
    return found
