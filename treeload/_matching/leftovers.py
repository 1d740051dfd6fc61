"""What becomes of source leaves that no destination slot took.

Owns the decisions of the source's side: a leaf that is unexpected, that must be zero, that meets a
subtree, that is another name of something that loads. Comes after every slot is decided (``slots``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from treeload._findings import remedy
from treeload._findings.kinds import Kind
from treeload._leaves.spec import SlotKind, is_key, spec_of, without_sharding
from treeload._matching.apart import Apart, unexpected_words, why_unused
from treeload._matching.ledger import Feed, Ledger, found
from treeload._matching.sides import Sides
from treeload._matching.slots import leaf_against_subtree, subtree_against_leaf
from treeload._naming.name import Keys, prefixes_of, print_name
from treeload._ops.expression import Leaf
from treeload._plans.check import ZeroCheck
from treeload._plans.entry import OUTSIDE, SAME_NAME


def decide_leftovers(sides: Sides, ledger: Ledger, names: Iterable[Keys], apart: Apart | None = None) -> None:
    """Decides what becomes of the source leaves under these names, which fed nothing so far.

    ``apart``: what tells those that plainly have no place.
    """
    left = [name for name in names if name not in ledger.accounted_for]
    if not left:
        return
    known = _loaded_by_another_name(sides, ledger)
    for name in left:
        if apart is not None and (plain := apart.unexpected(name)) is not None:
            ledger.note_unexpected(plain)
            continue
        below = next((prefix for prefix in prefixes_of(name) if _holds_leaf(sides, ledger, prefix)), None)
        if not sides.in_scope(name, sides.offers.shaped[name]):
            ledger.leave_all(name, OUTSIDE)
        elif below is not None:
            index = sides.slots[below]
            static = sides.tree.kinds[index] == SlotKind.STATIC
            wanted = "a static" if static else without_sharding(spec_of(sides.tree.values[index]))
            subtree_against_leaf(sides, ledger, below, wanted)
            ledger.leave_all(name, f"below {print_name(below)}, which is a leaf in the destination")
        elif name in sides.slot_prefixes:
            leaf_against_subtree(sides, ledger, name)
        else:
            for value, rule in sides.offers.values_at(name):
                other = known.get(sides.offers.stored_as(value)) if isinstance(value, Leaf) else None
                if other is not None:
                    ledger.leave(name, value, f"an alias of {print_name(other)}, which loads")
                else:
                    _unexpected(sides, ledger, Feed(name, value, rule))


def _holds_leaf(sides: Sides, ledger: Ledger, name: Keys) -> bool:
    """Whether the destination has something at ``name``, and nothing of the source loads there."""
    index = sides.slots.get(name)
    return index is not None and sides.tree.kinds[index] != SlotKind.ABSENT and not ledger.loads(name)


def _loaded_by_another_name(sides: Sides, ledger: Ledger) -> dict[tuple[int, Keys], Keys]:
    """The arrays that are met under some name → that name; where a source stores any under several."""
    if not any(sides.offers.ties):
        return {}
    return {
        sides.offers.stored_as(value): name
        for name in (*_agreeing(sides, ledger), *ledger.accounted_for)
        for value, _ in sides.offers.values_at(name)
        if isinstance(value, Leaf)
    }


def _agreeing(sides: Sides, ledger: Ledger) -> Iterator[Keys]:
    """Names whose source leaf agreed in the fast pass."""
    return (name for name, row in zip(sides.tree.names, ledger.rows, strict=True) if row is SAME_NAME)


def _unexpected(sides: Sides, ledger: Ledger, feed: Feed) -> None:
    """The destination has no place for the value: it is unexpected, or it has to be zero."""
    name, spec = feed.name, feed.value.spec
    if sides.policy.zero_if_absent(print_name(name)) and not is_key(spec.dtype):
        finding = found(
            sides,
            Kind.ABSENT,
            name,
            ("absent or all zero", spec),
            feed=feed,
            remedies=(remedy.leave_out_nonzero(name),),
        )
        ledger.check(ZeroCheck(name, feed.value, finding))
        ledger.leave(name, feed.value, "absent in the destination; must be all zero")
        return
    slot = sides.slots.get(name)
    held = None if slot is None else str(sides.tree.values[slot])
    message, ways = unexpected_words(name, spec, held)
    finding = ledger.find(Kind.UNEXPECTED, name, (held, spec), feed=feed, message=message, remedies=ways)
    ledger.leave(name, feed.value, why_unused(finding.verdict, sides.forgiven_by(finding.kind, name)))
