"""Why a rule is suggested, in words: what names share, what shapes leave open, what becomes of indices.

Owns these words. Refuses to own the decisions (``pairing``) and what is left open (``unsettled``).
"""

from __future__ import annotations

from collections.abc import Iterator

from treeload._inference.pairing import Decision
from treeload._inference.relayouts import Fit
from treeload._inference.templates import Leaves


def reasons_for(decision: Decision, fit: Fit, here: Leaves, there: Leaves, rival: str) -> Iterator[str]:
    """Why one kind of leaf of two modules goes together, in words; ``rival``: what would fit as well."""
    one = decision.pair
    if one.source.path == one.destination.path:
        keys = "" if fit.moved and here.key == there.key else "its last key"
        yield f"the same name but for {' and '.join(filter(None, ('numbers' * fit.moved, keys)))}"
    elif one.shared:
        yield f"the names share {', '.join(word.replace('#', ' ') for word in one.shared[:3])}"
    else:
        yield "the names share nothing"
    if decision.why:
        yield decision.why
    elif rival:
        yield f"{rival} fits as well"
    elif decision.alone:
        yield "no other shape fits"
    if fit.how != "rename":
        side, count = ("destination", "stack") if fit.how == "stack" else ("source", "unstack")
        yield (
            f"the {side} is scanned: {count}ed on axis {fit.axis}"
            if count == "stack"
            else f"the {side} is scanned on axis {fit.axis}"
        )
        if fit.open:
            yield "another axis has that size too"
    if fit.moved:
        yield f"indices {_run(here)} become {_run(there)}, in order"
    elif not fit.whole:
        yield f"the source has {_run(here)}, the destination {_run(there)}"


def _run(leaves: Leaves) -> str:
    return " × ".join(f"{run[0]}..{run[-1]}" for run in leaves.ranges)
