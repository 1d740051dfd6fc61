"""What the leaves of an optimizer's state are, told from names alone.

Owns the two sorts of leaves. A **moment** belongs to one parameter: its name ends in the parameter's, and
the key before that is its kind (``mu``, ``nu``, ``trace``, ``ema`` ..., the field of optax's state). A
**number** belongs to the whole (``count``, ``mini_step``, ``hyperparams/learning_rate``). Stored states
have lost their types, so nothing but names is looked at; what stands before the kind (``1/0``,
``inner_states/x/inner_state/0``) is where the chain has it today, and no part of what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from treeload._naming.name import Keys, prefixes_of

Moment = tuple[str, Keys]
"""A kind and a parameter's name."""


@dataclass(frozen=True)
class Anatomy:
    """The leaves of one state, sorted.

    Attributes:
        nodes: names of the nodes that hold moments of one kind, such as ``0/mu`` → the names of the
            leaves below them.
        numbers: the names of all other leaves.
    """

    nodes: Mapping[Keys, tuple[Keys, ...]]
    numbers: tuple[Keys, ...]

    @property
    def kinds(self) -> set[str]:
        """The kinds of moments there are."""
        return {node[-1] for node in self.nodes}


def of_destination(names: Collection[Keys], parameters: Collection[Keys]) -> Anatomy:
    """The anatomy of a state that was made for exactly these parameters.

    A node holds moments where every leaf below it has a parameter's name; the highest such node counts, so
    that parameters that are called like kinds do no harm.
    """
    below: dict[Keys, list[Keys]] = {}
    for name in names:
        for node in nodes_of(name):
            below.setdefault(node, []).append(name)
    known = set(parameters)

    def node_of(name: Keys) -> Keys | None:
        for node in nodes_of(name):
            if not node[-1].isdecimal() and all(each[len(node) :] in known for each in below[node]):
                return node
        return None

    return _sorted(names, node_of)


def of_source(
    names: Collection[Keys], kinds: Collection[str], parameters: Collection[Keys],
    renamed: Callable[[Keys, Sequence[Keys]], set[Keys]],
) -> Anatomy:  # fmt: skip
    """The anatomy of a stored state, whose parameters may have had other names.

    Args:
        names: the names of its leaves.
        kinds: the kinds that the destination has.
        parameters: the names of today's parameters.
        renamed: for a node, and names of leaves below it: the names that parameters which were called
            as those leaves are below the node have today.
    """
    below: dict[Keys, list[Keys]] = {}
    for name in names:
        for node in nodes_of(name):
            if not node[-1].isdecimal():
                below.setdefault(node, []).append(name)
    known = set(parameters)
    hits = {node for node, leaves in below.items() if not known.isdisjoint(renamed(node, leaves))}
    sure = {node for node in hits if node[-1] in kinds}
    above = {prefix for node in sure for prefix in prefixes_of(node)}  # called like a kind, but no such node

    def node_of(name: Keys) -> Keys | None:
        nodes = [node for node in nodes_of(name) if node in below]
        choices = (
            [node for node in nodes if node in sure],
            [
                node for node in nodes if node[-1] in kinds and node not in above
            ],  # parameters that are no more
            [node for node in nodes if node in hits and node not in above],  # a kind that is no more
        )
        return next((choice[0] for choice in choices if choice), None)

    return _sorted(names, node_of)


def nodes_of(name: Keys) -> list[Keys]:
    """The leaf itself and the nodes above it, the root left out, from the top."""
    return [*prefixes_of(name)[1:], name] if name else []


def _sorted(names: Iterable[Keys], node_of: Callable[[Keys], Keys | None]) -> Anatomy:
    nodes: dict[Keys, list[Keys]] = {}
    numbers = []
    for name in names:
        node = node_of(name)
        if node is None:
            numbers.append(name)
        else:
            nodes.setdefault(node, []).append(name)
    return Anatomy({node: tuple(leaves) for node, leaves in nodes.items()}, tuple(numbers))
