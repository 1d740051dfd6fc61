"""What inference leaves open, in words: several that fit equally well, and leaves that nothing fits.

Owns these words. Refuses to own the decisions (``pairing``, ``suggest``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from treeload._inference.evidence import Pair
from treeload._inference.suggestions import Ambiguity
from treeload._inference.templates import Leaves, beside
from treeload._naming.name import Keys

_SHOWN = 5  # groups of leaves without a rule that are named


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
    found: list[tuple[str, int, str]] = []
    groups: Counter[str] = Counter()
    for module in beside(left.values()).values():
        for leaves in module.values():
            if len(found) < _SHOWN and (text := leaves.text()) in open_:
                continue
            fits = any(math.prod(shape) in sizes for shape in leaves.distinct)
            why = (
                "the names of those of its size say something else"
                if fits
                else "the source has none of its size"
            )
            groups[why] += len(leaves.shapes)
            if len(found) < _SHOWN:
                found.append((text, len(leaves.shapes), why))
    for text, count, why in found:
        yield f"no rule for {text}{f' ×{count:,}' if count > 1 else ''}: {why}"
    rest = groups.total() - sum(count for _, count, _ in found)
    if rest:
        yield f"no rule for {rest:,} more"


def _sizes(ours: Mapping[Keys, Leaves]) -> set[int]:
    """How many elements leaves have, alone or stacked with those of the same template."""
    found: set[int] = set()
    for leaves in ours.values():
        sizes = list(map(math.prod, leaves.shapes.values()))
        found |= {*sizes, sum(sizes)}
    return found
