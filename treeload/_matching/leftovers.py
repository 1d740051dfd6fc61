"""What becomes of source leaves that no destination slot took.

Owns the decisions of the source's side: a leaf that is unexpected, that must be zero, that meets a
subtree, that is another name of something that loads. Comes after every slot is decided (``slots``).
"""

from __future__ import annotations

from collections.abc import Iterable

from treeload._findings import remedy
from treeload._findings.kinds import Kind
from treeload._findings.remedy import Remedy
from treeload._leaves.spec import SlotKind, is_key, spec_of, without_sharding
from treeload._matching.ledger import Draft, prefixes_of
from treeload._matching.slots import leaf_against_subtree, subtree_against_leaf
from treeload._naming.name import Keys, print_name
from treeload._ops.expression import Expression, Leaf
from treeload._plans.check import ZeroCheck
from treeload._rules.rule import Rule


def decide_leftovers(draft: Draft, names: Iterable[Keys]) -> None:
    """Decides what becomes of the source leaves under these names, which fed nothing so far."""
    left = [name for name in names if name not in draft.accounted_for]
    if not left:
        return
    known = _loaded_by_another_name(draft)
    for name in left:
        below = next((prefix for prefix in prefixes_of(name) if _holds_leaf(draft, prefix)), None)
        if not draft.in_scope(name, draft.offers.shaped[name]):
            draft.leave_all(name, "outside the scope")
        elif below is not None:
            index = draft.slots[below]
            static = draft.tree.kinds[index] == SlotKind.STATIC
            subtree_against_leaf(
                draft, below, "a static" if static else without_sharding(spec_of(draft.tree.values[index]))
            )
            draft.leave_all(name, f"below {print_name(below)}, which is a leaf in the destination")
        elif name in draft.slot_prefixes:
            leaf_against_subtree(draft, name)
        else:
            for value, rule in draft.values_at(name):
                other = known.get(draft.offers.stored_as(value)) if isinstance(value, Leaf) else None
                if other is not None:
                    draft.leave(name, value, f"an alias of {print_name(other)}, which loads")
                else:
                    _unexpected(draft, name, value, rule)


def _holds_leaf(draft: Draft, name: Keys) -> bool:
    """Whether the destination has something at ``name``, and nothing of the source loads there."""
    index = draft.slots.get(name)
    return index is not None and draft.tree.kinds[index] != SlotKind.ABSENT and not draft.loads(name)


def _loaded_by_another_name(draft: Draft) -> dict[tuple[int, Keys], Keys]:
    """The arrays that are met under some name → that name; where a source stores any under several."""
    if not any(draft.offers.ties):
        return {}
    return {
        draft.offers.stored_as(value): name
        for name in (*draft.agreeing, *draft.accounted_for)
        for value, _ in draft.values_at(name)
        if isinstance(value, Leaf)
    }


def _unexpected(draft: Draft, name: Keys, value: Expression, rule: Rule | None) -> None:
    """The destination has no place for the value: it is unexpected, or it has to be zero."""
    if draft.policy.zero_if_absent(print_name(name)) and not is_key(value.spec.dtype):
        finding = draft.finding(
            Kind.ABSENT,
            name,
            expected="absent or all zero",
            found=value.spec,
            value=value,
            rule=rule,
            remedies=(remedy.leave_out_nonzero(name),),
        )
        draft.checks.append(ZeroCheck(name, value, finding))
        draft.leave(name, value, "absent in the destination; must be all zero")
        return
    slot = draft.slots.get(name)
    held = None if slot is None else str(draft.tree.values[slot])
    ways: list[Remedy] = [remedy.leave_out(name)]
    if (remedy.looks_like_bias(name) or held) and not is_key(value.spec.dtype):
        ways.insert(0, remedy.if_zero(name))
    verdict = draft.find(
        Kind.UNEXPECTED,
        name,
        expected=held,
        found=value.spec,
        value=value,
        rule=rule,
        message=f"the destination has {held or 'nothing'} here",
        remedies=tuple(ways),
    )
    draft.leave(name, value, "unexpected" if verdict == "error" else "ignored by the policy")
