"""Several source values for one destination leaf: collisions and ties.

A collision is a fault of names: two source leaves came to one name, and only a verdict can choose. A tie
is none: a leaf with aliases may be given under each of them, as long as the values are one; whether they
are is left as a check of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from treeload._findings import remedy
from treeload._findings.kinds import Kind
from treeload._leaves.spec import is_key
from treeload._matching.ledger import Draft
from treeload._naming.name import Keys, print_name
from treeload._ops.expression import Expression, ops_of
from treeload._plans.check import EqualCheck, ZeroCheck
from treeload._rules.rule import Rule

Feed: TypeAlias = tuple[Keys, Expression, Rule | None]
"""A name of a leaf, the value under it, and the rule that brought it there."""


def refuse_collisions(draft: Draft, names: Sequence[Keys]) -> bool:
    """A finding for each of these names that is fed more than once; whether the policy refuses one."""
    refused = False
    for name in names:
        values = list(draft.values_at(name))
        if len(values) < 2:
            continue
        leaves = [draft.source_leaf(value) for value, _ in values]
        many = len(draft.parts) > 1
        said = " and ".join(f"{leaf}" + (f" of {leaf.source}" if many else "") for leaf in leaves)
        verdict = draft.find(
            Kind.COLLISION,
            name,
            expected="one source leaf",
            found=f"{len(leaves)} source leaves",
            value=values[0][0],
            rule=values[0][1],
            message=f"it is fed by {said}",
            remedies=(
                remedy.take_first(
                    Kind.COLLISION, name, besides=", or rules that give each a name of its own"
                ),
            ),
        )
        refused |= verdict == "error"
        for value, _ in values[1:]:
            draft.leave(name, value, f"{leaves[0]} feeds its destination leaf")
    return refused


def check_ties(draft: Draft, names: Sequence[Keys], feeds: Sequence[Feed]) -> bool:
    """Leaves checks where a leaf's aliases may have different values in the source; whether it did."""
    before = len(draft.checks)
    distinct = feeds[:1]
    for feed in feeds[1:]:
        if not any(_same_array(draft, feed[1], other) for _, other, _ in distinct):
            distinct = [*distinct, feed]
    if len(distinct) > 1:
        shown = ", ".join(print_name(name) for name, _, _ in feeds)
        finding = draft.finding(
            Kind.TIE,
            names[0],
            expected="one value",
            found=f"{len(distinct)} values",
            value=feeds[0][1],
            message=f"one array in the destination, different values in the source: {shown}",
            remedies=(remedy.take_first(Kind.TIE, names[0]),),
        )
        draft.checks.append(
            EqualCheck(names[0], tuple((name, value) for name, value, _ in distinct), finding)
        )
    _check_absent_aliases(draft, names, distinct)
    return len(draft.checks) > before


def _check_absent_aliases(draft: Draft, names: Sequence[Keys], feeds: Sequence[Feed]) -> None:
    """An alias that the source says is absent, where that means zero: then the others must be zero."""
    absent = [
        name for name in names if name in draft.offers.empty and draft.policy.zero_if_absent(print_name(name))
    ]
    if not absent or is_key(feeds[0][1].spec.dtype):
        return
    for name, value, _ in feeds:
        finding = draft.finding(
            Kind.TIE,
            names[0],
            expected="one value",
            found=f"an array and {draft.offers.empty[absent[0]]}",
            value=value,
            message=f"one array in the destination; in the source {print_name(absent[0])} is absent, "
            f"which means zero, and {print_name(name)} is not zero",
            remedies=(remedy.take_first(Kind.TIE, names[0], "the array"),),
        )
        draft.checks.append(ZeroCheck(names[0], value, finding))


def _same_array(draft: Draft, value: Expression, other: Expression) -> bool:
    """Whether two values are known to be one without looking at them."""
    same = draft.offers.same_leaf
    return ops_of(value) == ops_of(other) and all(map(same, value.leaves(), other.leaves()))
