"""Several source values for one destination leaf: collisions and ties.

A collision is a fault of names: two source leaves came to one name, and only a verdict can choose. A tie
is none: a leaf with aliases may be given under each of them, as long as the values are one; whether they
are is left as a check of values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from treeload._findings import remedy
from treeload._findings.kinds import Kind
from treeload._leaves.spec import is_key
from treeload._matching.ledger import Feed, Ledger, found
from treeload._matching.sides import Sides
from treeload._naming.name import Keys, print_name
from treeload._ops.expression import Expression, ops_of
from treeload._plans.check import Check, EqualCheck, ZeroCheck


def refuse_collisions(sides: Sides, ledger: Ledger, names: Sequence[Keys]) -> bool:
    """A finding for each of these names that is fed more than once; whether the policy refuses one."""
    refused = False
    for name in names:
        feeds = [Feed(name, value, rule) for value, rule in sides.offers.values_at(name)]
        if len(feeds) < 2:
            continue
        leaves = [sides.source_leaf(feed.value) for feed in feeds]
        many = len(sides.offers.parts) > 1
        said = " and ".join(f"{leaf}" + (f" of {leaf.source}" if many else "") for leaf in leaves)
        finding = ledger.find(
            Kind.COLLISION,
            name,
            ("one source leaf", f"{len(leaves)} source leaves"),
            feed=feeds[0],
            message=f"it is fed by {said}",
            remedies=[
                remedy.take_first(Kind.COLLISION, name, besides=", or rules that give each a name of its own")
            ],
        )
        refused |= finding.verdict == "error"
        for feed in feeds[1:]:
            ledger.leave(name, feed.value, f"{leaves[0]} feeds its destination leaf")
    return refused


def tie_checks(sides: Sides, names: Sequence[Keys], feeds: Sequence[Feed]) -> Iterator[Check]:
    """What is to be looked at where a leaf's aliases may have different values in the source."""
    distinct = list(feeds[:1])
    for feed in feeds[1:]:
        if not any(_same_array(sides, feed.value, other.value) for other in distinct):
            distinct.append(feed)
    if len(distinct) > 1:
        shown = ", ".join(print_name(feed.name) for feed in feeds)
        finding = found(
            sides,
            Kind.TIE,
            names[0],
            ("one value", f"{len(distinct)} values"),
            feed=Feed(names[0], feeds[0].value, None),
            message=f"one array in the destination, different values in the source: {shown}",
            remedies=(remedy.take_first(Kind.TIE, names[0]),),
        )
        yield EqualCheck(names[0], tuple((feed.name, feed.value) for feed in distinct), finding)
    yield from _absent_aliases(sides, names, distinct)


def _absent_aliases(sides: Sides, names: Sequence[Keys], feeds: Sequence[Feed]) -> Iterator[Check]:
    """An alias that the source says is absent, where that means zero: then the others must be zero."""
    empty = sides.offers.empty
    absent = [name for name in names if name in empty and sides.policy.zero_if_absent(print_name(name))]
    if not absent or is_key(feeds[0].value.spec.dtype):
        return
    for feed in feeds:
        finding = found(
            sides,
            Kind.TIE,
            names[0],
            ("one value", f"an array and {empty[absent[0]]}"),
            feed=Feed(names[0], feed.value, None),
            message=f"one array in the destination; in the source {print_name(absent[0])} is absent, "
            f"which means zero, and {print_name(feed.name)} is not zero",
            remedies=(remedy.take_first(Kind.TIE, names[0], "the array"),),
        )
        yield ZeroCheck(names[0], feed.value, finding)


def _same_array(sides: Sides, value: Expression, other: Expression) -> bool:
    """Whether two values are known to be one without looking at them."""
    same = sides.offers.same_leaf
    return ops_of(value) == ops_of(other) and all(map(same, value.leaves(), other.leaves()))
