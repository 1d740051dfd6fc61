"""What happens to each destination slot that does not simply agree with its source leaf.

Owns the decisions of the destination's side: load, zero or keep, and the finding where it is kept
against the user's wish. The source's side comes after it (``leftovers``), the whole last (``whole``).
"""

from __future__ import annotations

from typing import Any

from treeload._findings import remedy
from treeload._leaves.number import number_of
from treeload._leaves.placement import unplaceable
from treeload._leaves.spec import Kind, Spec, is_abstract, is_key, spec_of, without_sharding
from treeload._matching.fit import PLACE_OTHERWISE, is_python_number, misfit, narrows
from treeload._matching.ledger import Draft, prefixes_of
from treeload._matching.rivals import check_ties, refuse_collisions
from treeload._naming.name import Keys, print_name
from treeload._ops.expression import Expression, Leaf
from treeload._rules.tie import Tie


def decide(draft: Draft, index: int) -> None:
    """Decides what happens to the slot at ``index``."""
    name, kind = draft.tree.names[index], draft.tree.kinds[index]
    if kind == Kind.STATIC:
        _static(draft, name)
    elif kind == Kind.ABSENT:
        _absent(draft, index, name)
    else:
        _leaf(draft, index)


def _static(draft: Draft, name: Keys) -> None:
    """A slot that never loads: a number that meets it is unused, an array is not what it says."""
    offered = draft.offers.shaped.get(name)
    if offered is None:
        return
    draft.accounted_for.add(name)
    if not draft.in_scope(name, offered):
        draft.leave_all(name, "outside the scope")
        return
    draft.leave_all(name, "the destination has a static here, which never loads")
    value, rule = next(draft.values_at(name), (None, None))
    if number_of(offered) is None and not draft.was_number(value):
        draft.find(
            "structure",
            name,
            expected="a static",
            found=without_sharding(offered),
            value=value,
            rule=rule,
            message="the destination has something here that is no array, the source an array",
            remedy=remedy.keep_own("structure", name),
        )


def _absent(draft: Draft, index: int, name: Keys) -> None:
    """A slot that holds None or False; against a number or a boolean, False is a number itself."""
    offered, held = draft.offers.shaped.get(name), draft.tree.values[index]
    if offered is None or held is None:
        return  # nothing on either side, or an array to be looked at with the leftovers
    if number_of(offered) is not None or (offered.shape == () and str(offered.dtype) == "bool"):
        _leaf(draft, index)


def _leaf(draft: Draft, index: int) -> None:
    names, held = draft.names_of(index), draft.tree.values[index]
    wanted = without_sharding(spec_of(held))
    if not any(draft.in_scope(name, wanted) for name in names):
        draft.keep(index, "outside the scope")
        draft.accounted_for.update(names)
        for name in names:
            draft.leave_all(name, "outside the scope")
        return
    fed = [(name, one) for name in names if (one := draft.fed(name)) is not None]
    draft.accounted_for.update(name for name, _ in fed)
    broken = [name for name, one in fed if one.value is None]
    if any(draft.policy.verdict("rule", print_name(name)) == "error" for name in broken):
        draft.keep(index, "a rule for it could not be applied")
        for name in names:
            draft.leave_all(name, "its destination leaf is kept")
        return
    feeds = [(name, one.value, one.rule) for name, one in fed if one.value is not None]
    if not feeds:
        _unfed(draft, index, wanted)
        return
    refused = refuse_collisions(draft, names)
    reasons = [_disagreement(draft, *feed, held, wanted) for feed in feeds]
    if refused or any(reasons):
        draft.keep(index, next(filter(None, reasons), "it is fed more than once"))
        for name, value, _ in feeds:
            draft.leave(name, value, "its destination leaf is kept")
        return
    pending = check_ties(draft, names, feeds)
    name, value, rule = feeds[0]
    if isinstance(rule, Tie):
        pending = pending or any(check.name == name for check in draft.checks)
    reason = "its box's own segment, 'value', left out" if name in draft.opened else ""
    if any(draft.parts[leaf.index].by_position for leaf in value.leaves()):
        reason = "by position"
    draft.load(index, wanted, value, rule, reason=reason, pending=pending)


def _disagreement(draft: Draft, name: Keys, value: Expression, rule: Any, held: Any, wanted: Spec) -> str:
    """Why this value cannot go into this leaf, said as a finding too; empty where it can."""
    number = number_of(draft.offers.shaped[name]) if isinstance(value, Leaf) else None
    casting = draft.policy.verdict("casting", print_name(name))
    fault = misfit(name, held, wanted, value.spec, number, casting)
    if fault is None:
        return ""
    draft.find(
        fault.kind,
        name,
        expected=fault.expected,
        found=fault.found,
        value=value,
        rule=rule,
        message=fault.message,
        remedy=fault.remedy,
    )
    return fault.reason


# Where nothing feeds the leaf.


def _unfed(draft: Draft, index: int, wanted: Spec) -> None:
    names, held, offers = draft.names_of(index), draft.tree.values[index], draft.offers
    above = [p for name in names for p in prefixes_of(name) if p in offers.shaped or p in offers.statics]
    below = [name for name in names if name in draft.offer_prefixes]
    static = next((name for name in names if name in offers.statics), None)
    false = next((name for name in names if offers.empty.get(name) is False), None)
    if above:
        leaf_against_subtree(draft, above[0])
        draft.keep(index, "the source has a leaf in place of a subtree")
    elif below:
        for name in below:
            subtree_against_leaf(draft, name, wanted)
        draft.keep(index, "the source has a subtree in place of the leaf")
    elif static is not None:
        draft.find(
            "structure",
            static,
            expected=wanted,
            found="a static",
            message="the destination has an array here, the source something that is no array",
            remedy=remedy.keep_own("structure", static),
        )
        draft.keep(index, "the source has no array here")
    elif names[0] in draft.tree.optional:
        draft.keep(index, "optional, and the source has none")
    elif false is not None and is_python_number(held):
        _false(draft, index, false, held, wanted)
    elif not is_key(wanted.dtype) and any(draft.policy.zero_if_absent(print_name(name)) for name in names):
        _zero(draft, index, wanted)
    else:
        _missing(draft, index, wanted)


def _false(draft: Draft, index: int, name: Keys, held: Any, wanted: Spec) -> None:
    """The source's Python False against a Python number: a value, not an absence."""
    if isinstance(held, bool):
        draft.zero(index, wanted, "False in the source")
        return
    draft.find(
        "dtype",
        name,
        expected=wanted,
        found="False",
        message=f"the destination has a Python {type(held).__name__} here, the source False",
        remedy=remedy.keep_own("dtype", name),
    )
    draft.keep(index, "the source has False here")


def _zero(draft: Draft, index: int, wanted: Spec) -> None:
    """Absence means zero here."""
    held, name = draft.tree.values[index], draft.tree.names[index]
    if is_abstract(held) and (why := unplaceable(held.shape, held.sharding)):
        draft.find("shape", name, expected=wanted, message=why, remedy=PLACE_OTHERWISE)
        draft.keep(index, "it cannot be placed")
        return
    narrowed = narrows(held, wanted.dtype)
    if not narrowed:
        draft.zero(index, wanted, "absent in the source, which means zero here")
        return
    draft.find("dtype", name, expected=wanted, message=narrowed, remedy=remedy.keep_own("dtype", name))
    draft.keep(index, "dtypes differ")


def _missing(draft: Draft, index: int, wanted: Spec) -> None:
    names, empty = draft.names_of(index), draft.offers.empty
    name = names[0]
    known = next((each for each in names if each in empty), None)
    found = None if known is None else str(empty[known])
    ways = [remedy.keep_own("missing", name)]
    if (remedy.looks_like_bias(name) or found) and not is_key(wanted.dtype):
        ways.insert(0, remedy.zeros(name))
    draft.find(
        "missing",
        name,
        expected=wanted,
        found=found,
        message=f"the source has {found or 'nothing'} here",
        remedy="; ".join(ways),
    )
    draft.keep(index, "missing in the source")


# A leaf on one side and a subtree on the other: one finding, at that name.


def leaf_against_subtree(draft: Draft, name: Keys) -> None:
    """The source has a leaf where the destination has a subtree."""
    draft.accounted_for.add(name)
    if name in draft.structures:
        return
    draft.structures.add(name)
    offered = draft.offers.shaped.get(name)
    value, rule = next(draft.values_at(name), (None, None))
    draft.find(
        "structure",
        name,
        expected="a subtree",
        found="a static" if offered is None else without_sharding(offered),
        value=value,
        rule=rule,
        message="the destination has a subtree here, the source one leaf",
        remedy=remedy.keep_own("structure", name),
    )
    draft.leave_all(name, "a subtree in the destination")


def subtree_against_leaf(draft: Draft, name: Keys, wanted: Spec | str) -> None:
    """The destination has a leaf where the source has a subtree."""
    if name in draft.structures:
        return
    draft.structures.add(name)
    below = draft.offer_prefixes[name]
    draft.find(
        "structure",
        name,
        expected=wanted,
        found=f"a subtree of {below:,} {'leaf' if below == 1 else 'leaves'}",
        message="the destination has one leaf here, the source a subtree",
        remedy=remedy.keep_own("structure", name),
    )
