"""What happens to each destination slot that does not simply agree with its source leaf.

Owns the decisions of the destination's side: load, zero or keep, and the finding where it is kept
against the user's wish. The source's side comes after it (``leftovers``), the whole last (``whole``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from treeload._findings import remedy
from treeload._findings.kinds import Kind
from treeload._leaves.number import number_of
from treeload._leaves.placement import unplaceable
from treeload._leaves.spec import SlotKind, Spec, is_abstract, is_key, spec_of, without_sharding
from treeload._matching.apart import missing_words
from treeload._matching.boxes import box_key
from treeload._matching.fit import is_boolean, is_python_number, misfit, narrows
from treeload._matching.ledger import Feed, Ledger
from treeload._matching.rivals import refuse_collisions, tie_checks
from treeload._matching.sides import Sides
from treeload._naming.name import Keys, prefixes_of, print_name
from treeload._naming.pattern import quote
from treeload._ops.expression import Expression, Leaf
from treeload._plans.entry import LEFT_AS_MISSING, OUTSIDE
from treeload._rules.tie import Tie


def decide(sides: Sides, ledger: Ledger, index: int) -> None:
    """Decides what happens to the slot at ``index``."""
    name, kind = sides.tree.names[index], sides.tree.kinds[index]
    if kind == SlotKind.STATIC:
        _static(sides, ledger, name)
    elif kind == SlotKind.ABSENT:
        _absent(sides, ledger, index)
    else:
        _leaf(sides, ledger, index)


def _static(sides: Sides, ledger: Ledger, name: Keys) -> None:
    """A slot that never loads: a number that meets it is unused, an array is not what it says."""
    offered = sides.offers.shaped.get(name)
    if offered is None:
        return
    ledger.accounted_for.add(name)
    if not sides.in_scope(name, offered):
        ledger.leave_all(name, OUTSIDE)
        return
    ledger.leave_all(name, "the destination has a static here, which never loads")
    feed = Feed(name, *next(sides.offers.values_at(name)))
    if number_of(offered) is None and not sides.was_number(feed.value):
        ledger.find(
            Kind.STRUCTURE,
            name,
            ("a static", without_sharding(offered)),
            feed=feed,
            message="the destination has something here that is no array, the source an array",
            remedies=[remedy.keep_own(Kind.STRUCTURE, name)],
        )


def _absent(sides: Sides, ledger: Ledger, index: int) -> None:
    """A slot that holds None or False; against a number or a boolean, False is a number itself."""
    offered = sides.offers.shaped.get(sides.tree.names[index])
    if offered is not None and _sets_flag(sides, index, offered):
        _leaf(sides, ledger, index)  # else nothing, or an array to be looked at with the leftovers


def _sets_flag(sides: Sides, index: int, offered: Any) -> bool:
    """Whether what is offered is a value of the False that the destination holds."""
    boolean = offered.shape == () and str(offered.dtype) == "bool"
    return sides.tree.values[index] is not None and (number_of(offered) is not None or boolean)


def without_spare(sides: Sides) -> Sides:
    """The sides without leaves that a rule copied and that no leaf of the destination asks for by name."""

    def wanted(name: Keys) -> bool:
        index = sides.slots.get(name)
        if index is None:
            return False
        is_leaf = sides.tree.kinds[index] <= SlotKind.SCALAR or (
            sides.tree.kinds[index] == SlotKind.ABSENT and _sets_flag(sides, index, sides.offers.shaped[name])
        )
        return is_leaf and sides.in_scope(name, without_sharding(spec_of(sides.tree.values[index])))

    offers = sides.offers.without_spare(wanted)
    return sides if offers is sides.offers else replace(sides, offers=offers)


def _leaf(sides: Sides, ledger: Ledger, index: int) -> None:
    names = sides.names_of(index)
    wanted = without_sharding(spec_of(sides.tree.values[index]))
    if not any(sides.in_scope(name, wanted) for name in names):
        _keep(ledger, index, names, OUTSIDE, left=OUTSIDE)
        ledger.accounted_for.update(names)
        return
    arrivals = [(name, one) for name in names if (one := sides.offers.arrival(name)) is not None]
    ledger.accounted_for.update(name for name, _ in arrivals)
    broken = [name for name, one in arrivals if one.value is None]
    if any(sides.policy.verdict(Kind.RULE, print_name(name)) == "error" for name in broken):
        _keep(ledger, index, names, "a rule for it could not be applied")
        return
    feeds = [Feed(name, one.value, one.rule) for name, one in arrivals if one.value is not None]
    if not feeds:
        _unfed(sides, ledger, index, wanted)
        return
    refused = refuse_collisions(sides, ledger, names)
    reasons = [_disagreement(sides, ledger, index, feed) for feed in feeds]
    if refused or any(reasons):
        ledger.keep(index, next(filter(None, reasons), "it is fed more than once"))
        for feed in feeds:
            ledger.leave(feed.name, feed.value, "its destination leaf is kept")
        return
    checks = list(tie_checks(sides, names, feeds))
    for check in checks:
        ledger.check(check)
    first = feeds[0]
    tied = isinstance(first.rule, Tie) and ledger.is_checked(first.name)
    by_position = _by_position(sides, first)
    how = "by position" if by_position else _opened_box(sides, first.value)
    reason = ", ".join(filter(None, (how, sides.offers.by_version(first.name))))
    pending = bool(checks) or tied
    ledger.load(index, first, wanted, reason=reason, by_position=by_position, needs_values=pending)


def _keep(
    ledger: Ledger, index: int, names: Sequence[Keys], why: str, left: str = "its destination leaf is kept"
) -> None:
    """The leaf stays as it is, and what was offered for it feeds nothing."""
    ledger.keep(index, why)
    for name in names:
        ledger.leave_all(name, left)


def _by_position(sides: Sides, feed: Feed) -> bool:
    """Whether the leaf was found by its place among others, and not by a name."""
    parts = sides.offers.parts
    counted = any(leaf.name in parts[leaf.index].numbered for leaf in feed.value.leaves())
    return counted or (feed.rule is None and sides.tree.is_made_up(feed.name))


def _opened_box(sides: Sides, value: Expression) -> str:
    """That the segments of boxes were left out of a source leaf's name; empty where none were."""
    parts = sides.offers.parts
    boxed = (leaf.name for leaf in value.leaves() if leaf.name in (parts[leaf.index].called or ()))
    return next((f"its box's own segment, {box_key(name)!r}, left out" for name in boxed), "")


def _disagreement(sides: Sides, ledger: Ledger, index: int, feed: Feed) -> str:
    """Why this value cannot go into this leaf, said as a finding too; empty where it can."""
    held = sides.tree.values[index]
    number = number_of(sides.offers.shaped[feed.name]) if isinstance(feed.value, Leaf) else None
    casting = sides.policy.verdict("casting", print_name(feed.name))
    wanted = without_sharding(spec_of(held))
    fault = misfit(feed.name, held, wanted, feed.value.spec, number, casting)
    if fault is None:
        return ""
    plain = feed.rule is None and not _opened_box(sides, feed.value)
    ledger.find(
        fault.kind,
        feed.name,
        (fault.expected, fault.found),
        feed=feed,
        message=fault.message,
        # Where it kept its name, a way can be written with it that is for no name so far, such as a Rename.
        remedies=[
            way.merged((quote(feed.name),)) if plain and not way.patterns else way for way in fault.remedies
        ],
    )
    return _because(fault.reason, sides.forgiven_by(fault.kind, feed.name))


# Where nothing feeds the leaf.


def _unfed(sides: Sides, ledger: Ledger, index: int, wanted: Spec) -> None:
    names, offers = sides.names_of(index), sides.offers
    above = [p for name in names for p in prefixes_of(name) if p in offers.shaped or p in offers.statics]
    below = [name for name in names if name in sides.offer_prefixes]
    static = next((name for name in names if name in offers.statics), None)
    false = next((name for name in names if offers.empty.get(name) is False), None)
    if above:
        leaf_against_subtree(sides, ledger, above[0])
        ledger.keep(index, "the source has a leaf in place of a subtree")
    elif below:
        for name in below:
            subtree_against_leaf(sides, ledger, name, wanted)
        ledger.keep(index, "the source has a subtree in place of the leaf")
    elif static is not None:
        ledger.find(
            Kind.STRUCTURE,
            static,
            (wanted, "a static"),
            message="the destination has an array here, the source something that is no array",
            remedies=[remedy.keep_own(Kind.STRUCTURE, static)],
        )
        ledger.keep(index, "the source has no array here")
    elif names[0] in sides.tree.optional:
        ledger.keep(index, "optional, and the source has none")
    elif false is not None and (is_python_number(sides.tree.values[index]) or is_boolean(wanted)):
        _false(sides, ledger, index, false)
    elif not is_key(wanted.dtype) and any(sides.policy.zero_if_absent(print_name(name)) for name in names):
        _zero(sides, ledger, index, wanted)
    else:
        _missing(sides, ledger, index, wanted)


def _false(sides: Sides, ledger: Ledger, index: int, name: Keys) -> None:
    """The source's Python False against a Python number, or a boolean of no axes: a value, no absence."""
    held = sides.tree.values[index]
    wanted = without_sharding(spec_of(held))
    if isinstance(held, bool) or is_boolean(wanted):
        ledger.load_false(index, name, wanted)
        return
    ledger.find(
        Kind.DTYPE,
        name,
        (wanted, "False"),
        message=f"the destination has a Python {type(held).__name__} here, the source False",
        remedies=[remedy.keep_own(Kind.DTYPE, name)],
    )
    ledger.keep(index, "the source has False here")


def _zero(sides: Sides, ledger: Ledger, index: int, wanted: Spec) -> None:
    """Absence means zero here."""
    held, name = sides.tree.values[index], sides.tree.names[index]
    if is_abstract(held) and (why := unplaceable(held.shape, held.sharding)):
        ledger.find(Kind.SHAPE, name, (wanted, None), message=why, remedies=[remedy.PLACE_OTHERWISE])
        ledger.keep(index, "it cannot be placed")
        return
    narrowed = narrows(held, wanted.dtype)
    if not narrowed:
        by_version = next(
            filter(None, (sides.forgiven_by(Kind.MISSING, n) for n in sides.names_of(index))), ""
        )
        ledger.zero(index, wanted, _because("absent in the source, which means zero here", by_version))
        return
    ledger.find(
        Kind.DTYPE, name, (wanted, None), message=narrowed, remedies=[remedy.keep_own(Kind.DTYPE, name)]
    )
    ledger.keep(index, "dtypes differ")


def _missing(sides: Sides, ledger: Ledger, index: int, wanted: Spec) -> None:
    names, empty = sides.names_of(index), sides.offers.empty
    name = names[0]
    known = next((each for each in names if each in empty), None)
    found = None if known is None else str(empty[known])
    message, ways = missing_words(name, wanted, found)
    ledger.find(Kind.MISSING, name, (wanted, found), message=message, remedies=ways)
    ledger.keep(index, _because(LEFT_AS_MISSING, sides.forgiven_by(Kind.MISSING, name)))


def _because(reason: str, by_version: str) -> str:
    return f"{reason}, {by_version}" if by_version else reason


# A leaf on one side and a subtree on the other: one finding, at that name.


def leaf_against_subtree(sides: Sides, ledger: Ledger, name: Keys) -> None:
    """The source has a leaf where the destination has a subtree."""
    ledger.accounted_for.add(name)
    offered: Any = sides.offers.shaped.get(name)
    feed = next((Feed(name, *one) for one in sides.offers.values_at(name)), None)
    news = ledger.find_structure(
        name,
        ("a subtree", "a static" if offered is None else without_sharding(offered)),
        feed=feed,
        message="the destination has a subtree here, the source one leaf",
        remedies=[remedy.keep_own(Kind.STRUCTURE, name)],
    )
    if news:
        ledger.leave_all(name, "a subtree in the destination")


def subtree_against_leaf(sides: Sides, ledger: Ledger, name: Keys, wanted: Spec | str) -> None:
    """The destination has a leaf where the source has a subtree."""
    below = sides.offer_prefixes[name]
    ledger.find_structure(
        name,
        (wanted, f"a subtree of {below:,} {'leaf' if below == 1 else 'leaves'}"),
        message="the destination has one leaf here, the source a subtree",
        remedies=[remedy.keep_own(Kind.STRUCTURE, name)],
    )
