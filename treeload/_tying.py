"""Destination leaves that a ``Tie`` feeds from what feeds another destination leaf.

Owns how a tie is followed to its end, and what it means that the source holds the tied leaf too. The tied
value is offered under the leaf's own name before the slots are settled, so shapes, dtypes and all else are
judged as for any other leaf.
"""

from __future__ import annotations

from collections.abc import Sequence

from treeload import _remedies as remedy
from treeload._draft import Draft
from treeload._errors import RuleError
from treeload._names import print_name
from treeload._ops import Value, chain
from treeload._plan import EqualCheck
from treeload._rules import Fault, Fed
from treeload._specs import Kind
from treeload._ties import Tie
from treeload._trees import Keys


def offer_ties(draft: Draft, ties: Sequence[Tie]) -> set[int]:
    """Offers every tied leaf's value under its name; the slots concerned, to be settled one by one.

    Raises:
        RuleError: ties in a circle.
    """
    used: set[Tie] = set()
    tied: dict[Keys, tuple[int, Tie, Keys]] = {}
    for index, kind in enumerate(draft.tree.kinds):
        for name in draft.names_of(index) if kind <= Kind.SCALAR else ():
            for tie in ties:
                target = tie.target(name)
                if target is None:
                    continue
                used.add(tie)
                if target not in draft.names_of(index) or tie.ops:
                    tied[name] = (index, tie, target)
                break
    for tie in ties:
        if tie not in used:
            said = f"{tie!r} matched nothing: no leaf of the destination is called '{tie.landing()}'"
            draft.offers.fail(Fault(tie, None, (), said), None)
    # Every value first: what a tie offers must not be what another one follows.
    offered = {name: _follow(draft, tied, name, ()) for name in tied}
    draft.offers.own_tables()
    for name, fed in offered.items():
        if fed is not None:
            _offer(draft, name, fed, tied[name][2])
    return {index for index, _, _ in tied.values()}


def _follow(
    draft: Draft, tied: dict[Keys, tuple[int, Tie, Keys]], name: Keys, trail: tuple[Keys, ...]
) -> Fed | None:
    """What feeds a leaf, by its tie if it has one; None where nothing does."""
    if name in trail:
        circle = " -> ".join(print_name(each) for each in (*trail[trail.index(name) :], name))
        raise RuleError(f"ties in a circle: {circle}")
    if name not in tied:
        index = draft.slots.get(name)
        names = (name,) if index is None else draft.names_of(index)
        return next((fed for each in names if (fed := draft.fed(each)) is not None), None)
    _, tie, target = tied[name]
    fed = _follow(draft, tied, target, (*trail, name))
    if fed is None or fed.value is None:
        return fed
    try:
        return Fed(chain(fed.value, tie.ops), tie, fed.taken)
    except RuleError as error:
        draft.offers.fail(Fault(tie, name, fed.taken, str(error)), name, tuple(fed.value.leaves()))
        return Fed(None, tie, fed.taken)


def _offer(draft: Draft, name: Keys, fed: Fed, target: Keys) -> None:
    own = draft.fed(name)
    if own is not None and own.value is not None and fed.value is not None and own.value != fed.value:
        _must_agree(draft, name, own.value, fed.value, target)
    draft.offers.fed[name] = fed
    if fed.value is not None:
        draft.offers.shaped[name] = fed.value.spec


def _must_agree(draft: Draft, name: Keys, own: Value, other: Value, target: Keys) -> None:
    finding = draft.finding(
        "tie",
        name,
        expected=f"the value of {print_name(target)}",
        found=own.spec,
        value=own,
        message=f"it is tied to {print_name(target)}, and the source holds it too, with another value",
        remedy=remedy.take_first("tie", name, f"the value of {print_name(target)}"),
    )
    draft.checks.append(EqualCheck(name, ((target, other), (name, own)), finding))
    draft.leave(name, own, f"tied to {print_name(target)}, whose value it must have")
