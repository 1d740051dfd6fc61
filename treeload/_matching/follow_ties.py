"""Destination leaves that a ``Tie`` feeds from what feeds another destination leaf.

Owns how a tie is followed to its end, and what it means that the source holds the tied leaf too. The tied
value is offered under the leaf's own name before the slots are decided, so shapes, dtypes and all else are
judged as for any other leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from treeload._errors import RuleError
from treeload._findings import remedy
from treeload._findings.kinds import Kind
from treeload._leaves.spec import SlotKind
from treeload._matching.ledger import Draft
from treeload._naming.name import Keys, print_name
from treeload._ops.expression import Expression, chain, derive
from treeload._plans.check import EqualCheck
from treeload._rules.apply import Arrival, Fault
from treeload._rules.tie import Tie

Tied: TypeAlias = dict[Keys, tuple[int, Tie, tuple[Keys, ...]]]
"""Name of a tied leaf → its slot, its rule, and the leaves it is made of."""


def offer_ties(draft: Draft, ties: Sequence[Tie]) -> set[int]:
    """Offers every tied leaf's value under its name; the slots concerned, to be decided one by one.

    Raises:
        RuleError: ties in a circle.
    """
    used: set[Tie] = set()
    tied: Tied = {}
    for index, kind in enumerate(draft.tree.kinds):
        for name in draft.names_of(index) if kind <= SlotKind.SCALAR else ():
            for tie in ties:
                targets = tie.targets(name)
                if not targets:
                    continue
                used.add(tie)
                if tie.ops or targets[0] not in draft.names_of(index):
                    tied[name] = (index, tie, targets)
                break
    for tie in ties:
        if tie not in used:
            said = f"{tie!r} matched nothing: no leaf of the destination is called '{tie.destination_text()}'"
            draft.offers.fail(Fault(tie, None, (), said), None)
    # Every value first: what a tie offers must not be what another one follows.
    offered = {name: _follow(draft, tied, name, ()) for name in tied}
    draft.offers.own_tables()
    for name, fed in offered.items():
        if fed is not None:
            _offer(draft, name, fed, tied[name][2])
    # What is not in the destination itself, and feeds a leaf by a tie, is no leftover.
    draft.accounted_for.update(target for _, _, targets in tied.values() for target in targets)
    return {index for index, _, _ in tied.values()}


def _follow(draft: Draft, tied: Tied, name: Keys, trail: tuple[Keys, ...]) -> Arrival | None:
    """What feeds a leaf, by its tie if it has one; None where nothing does."""
    if name in trail:
        circle = " -> ".join(print_name(each) for each in (*trail[trail.index(name) :], name))
        raise RuleError(f"ties in a circle: {circle}")
    if name not in tied:
        index = draft.slots.get(name)
        names = (name,) if index is None else draft.names_of(index)
        return next((fed for each in names if (fed := draft.fed(each)) is not None), None)
    _, tie, targets = tied[name]
    several = [_follow(draft, tied, target, (*trail, name)) for target in targets]
    values = [fed.value for fed in several if fed is not None and fed.value is not None]
    if len(values) < len(several):
        return next((fed for fed in several if fed is not None and fed.value is None), None)
    taken = tuple(own for fed in several if fed is not None for own in fed.taken)
    try:
        value = values[0] if len(values) == 1 else derive(tie.ops[0], *values)
        return Arrival(chain(value, tie.ops[len(values) > 1 :]), tie, taken)
    except RuleError as error:
        leaves = tuple(leaf for value in values for leaf in value.leaves())
        draft.offers.fail(Fault(tie, name, taken, str(error)), name, leaves)
        return Arrival(None, tie, taken)


def _offer(draft: Draft, name: Keys, fed: Arrival, targets: Sequence[Keys]) -> None:
    own = draft.fed(name)
    if own is not None and own.value is not None and fed.value is not None and own.value != fed.value:
        _must_agree(draft, name, own.value, fed.value, targets)
    draft.offers.fed[name] = fed
    if fed.value is not None:
        draft.offers.shaped[name] = fed.value.spec


def _must_agree(
    draft: Draft, name: Keys, own: Expression, other: Expression, targets: Sequence[Keys]
) -> None:
    of = " and ".join(map(print_name, targets))
    finding = draft.finding(
        Kind.TIE,
        name,
        expected=f"the value of {of}",
        found=own.spec,
        value=own,
        message=f"it is tied to {of}, and the source holds it too, with another value",
        remedies=(remedy.take_first(Kind.TIE, name, f"the value of {of}"),),
    )
    draft.checks.append(EqualCheck(name, ((targets[0], other), (name, own)), finding))
    draft.leave(name, own, f"tied to {of}, whose value it must have")
