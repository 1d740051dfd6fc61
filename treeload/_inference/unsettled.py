"""What inference leaves open, in words: several that fit equally well, and leaves that nothing fits.

Owns these words. Refuses to own the decisions (``pairing``, ``suggest``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from treeload._inference.evidence import Pair
from treeload._inference.parts import is_of_optimizer
from treeload._inference.suggestions import Ambiguity
from treeload._inference.templates import Leaves, beside
from treeload._naming.name import Keys

_SHOWN = 5  # groups of leaves without a rule that are named for each reason


def ambiguity(group: Sequence[Pair]) -> Ambiguity:
    """Pairs that are as good as one another, gathered."""
    sides = []
    for modules_ in ([one.destination for one in group], [one.source for one in group]):
        unique = {id(module): module for module in modules_}
        kinds = [kind for module in unique.values() for kind in group[0].fits if kind in module.leaves]
        sides.append(
            tuple(
                module.leaves[kind].text()
                for kind in dict.fromkeys(kinds)
                for module in unique.values()
                if kind in module.leaves
            )
        )
    if all(one.apart for one in group):
        why = "they fit by shape, but by their names they are for different ends"
    else:
        why = "they fit by shape, and their names do not tell them apart"
    return Ambiguity(sides[0], sides[1], why)


def unfed(
    left: Mapping[Keys, Leaves], ours: Mapping[Keys, Leaves], ambiguous: Sequence[Ambiguity]
) -> tuple[str, ...]:
    """Sentences about the destination's leaves for which there is neither a rule nor a choice of several.

    Args:
        left: the templates of the destination's leaves that no rule feeds.
        ours: those of all leaves of the source that do not match already.
        ambiguous: what was found open.
    """
    open_ = {text for one in ambiguous for text in one.destination}
    if any(text.endswith("**") for text in open_):
        return ()
    return tuple(_sentences(left, _sizes(ours), open_))


def _sentences(left: Mapping[Keys, Leaves], sizes: Collection[int], open_: Collection[str]) -> Iterator[str]:
    groups: dict[str, list[Leaves]] = defaultdict(list)
    for module in beside(left.values()).values():
        for leaves in module.values():
            if leaves.text() in open_:
                continue
            if is_of_optimizer(leaves.members[0]):
                why = _OPTIMIZERS
            elif any(math.prod(shape) in sizes for shape in leaves.distinct):
                why = _OTHERS
            else:
                why = _NONE
            groups[why].append(leaves)
    for why, group in groups.items():
        count = sum(len(leaves.shapes) for leaves in group)
        if why == _OPTIMIZERS:
            yield f"no rule for {count:,} {'leaf' if count == 1 else 'leaves'} {why}"
            continue
        shown = [
            f"{leaves.text()}{f' ×{len(leaves.shapes):,}' if len(leaves.shapes) > 1 else ''}"
            for leaves in group[:_SHOWN]
        ]
        rest = count - sum(len(leaves.shapes) for leaves in group[:_SHOWN])
        named = f"{', '.join(shown)}{f' and {rest:,} more' if rest else ''}"
        yield f"no rule for {named}: {why.format(its='its' if len(group) == 1 else 'their')}"


_OPTIMIZERS = "of an optimizer's state"
_OTHERS = "the source has leaves of {its} size, but by their names these are something else"
_NONE = "the source has none of {its} size"


def _sizes(ours: Mapping[Keys, Leaves]) -> set[int]:
    """How many elements leaves have, alone or stacked with those of the same template."""
    found: set[int] = set()
    for leaves in ours.values():
        sizes = list(map(math.prod, leaves.shapes.values()))
        found |= {*sizes, sum(sizes)}
    return found
