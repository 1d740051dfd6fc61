"""Heads that the source does not hold: tied to an embedding, or maybe so.

Owns what is said of them. Refuses to own everything that the source holds (``pairing``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from treeload._inference.changes import changes
from treeload._inference.layouts import says_embedding
from treeload._inference.pairing import Decision
from treeload._inference.proposals import Proposal
from treeload._inference.templates import Module
from treeload._inference.tokens import concepts, kind
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, print_name
from treeload._rules.tie import Tie


def tied_heads(destination: Mapping[Keys, Spec], held: Mapping[Keys, Spec]) -> Iterator[str]:
    """A head that is missing where the source has nothing left, and an embedding of its shape loads."""
    heads = [
        name for name, spec in destination.items()
        if len(spec.shape) == 2 and kind(name[-1] if name else "")[0] == "weight"
        and "head" in {word for key in name for word in concepts(key)}
    ]  # fmt: skip
    embeddings = [
        name for name, spec in held.items()
        if len(spec.shape) == 2 and says_embedding(name)
        and not {word for key in name for word in concepts(key)} & {"pos", "type"}
    ]  # fmt: skip
    for head in heads:
        fits = [(name, changes(held[name].shape, destination[head].shape)) for name in embeddings]
        fits = [(name, options) for name, options in fits if options]
        if len(fits) == 1 and len(fits[0][1]) == 1:
            ((name, (change,)),) = fits
            tie = Tie(print_name(head), print_name(name), *change.ops)
            yield f"if {print_name(head)} is tied to the embedding: {tie!r}"


def ties(decisions: Sequence[Decision], theirs: Sequence[Module]) -> Iterator[Proposal]:
    """A head that the source does not hold, of the shape of an embedding that it does."""
    fed = {decision.pair.destination.order for decision in decisions}
    embeddings = [
        leaves for module in (decision.pair.destination for decision in decisions)
        if "embed" in module.context and not module.context & {"pos", "type"}
        for leaves in module.leaves.values()
        if not leaves.ranges and len(next(iter(leaves.distinct))) == 2
    ]  # fmt: skip
    for module in theirs:
        if module.order in fed or "head" not in module.context or "weight" not in module.leaves:
            continue
        head = module.leaves["weight"]
        fits = [
            (leaves, changes(next(iter(leaves.distinct)), next(iter(head.distinct)))) for leaves in embeddings
        ]
        fits = [(leaves, options) for leaves, options in fits if options and not head.ranges]
        if len(fits) == 1 and len(fits[0][1]) == 1:
            leaves, options = fits[0]
            reasons = ("the source holds no head, and the embedding has its shape: tied weights",)
            yield Proposal(Tie(head.text(), leaves.text(), *options[0].ops), (), 1, False, reasons)
