"""A walked tree, as data: its slots in the tree's order, as columns.

Owns ``Tree``, and the nested dict of named leaves. How a tree is walked is in ``walk``, how it is made again
in ``rebuild``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from flax import nnx

from treeload._leaves.spec import Kind
from treeload._naming.name import Keys, Name, print_name

PyTree: TypeAlias = Any


@dataclass(eq=False)
class Tree:
    """A walked tree: its slots in the tree's order, as parallel lists.

    Attributes:
        root: the tree itself.
        names: the canonical name of each slot; a tied slot is here once.
        values: what each slot holds; an array, a spec, a number, None, False, or a static.
        kinds: the kind of each slot.
        aliases: canonical name → the other names of the same array, in the tree's order.
        shared: those canonical names that are shared by an NNX Variable, not by an array object.
        optional: names of slots that hold NNX state which a checkpoint may lack.
        configuration: names of statics that are part of a module's own making, as its activation function is.
        visits: for each visit of the walk, the index of its slot, where there are ties; empty where each
            slot is visited once, in order.
        variables: the index of each slot that is all an NNX Variable holds, and that Variable.
    """

    root: PyTree
    names: list[Keys] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    kinds: bytearray = field(default_factory=bytearray)
    aliases: dict[Keys, list[Keys]] = field(default_factory=dict)
    shared: set[Keys] = field(default_factory=set)
    optional: set[Keys] = field(default_factory=set)
    configuration: set[Keys] = field(default_factory=set)
    visits: list[int] = field(default_factory=list)
    variables: dict[int, nnx.Variable[Any]] = field(default_factory=dict)

    def leaves(self) -> Iterator[tuple[Keys, Any]]:
        """Name and value of every slot that holds an array or a number."""
        for name, value, kind in zip(self.names, self.values, self.kinds, strict=True):
            if kind <= Kind.SCALAR:
                yield name, value


def nested(leaves: Mapping[Keys, Any]) -> Any:
    """The nested dict of these leaves; a leaf named by the root is itself the whole."""
    result: dict[str, Any] = {}
    for name, value in leaves.items():
        if not name:
            return value
        node = result
        for key in name[:-1]:
            node = node.setdefault(key, {})
        node[name[-1]] = value
    return result


def printed_names(tree: Tree) -> tuple[str, ...]:
    """The printed names of the leaves, in the tree's order."""
    return tuple(print_name(name) for name, _ in tree.leaves())


def as_names(keys: Sequence[Keys]) -> tuple[Name, ...]:
    """The public form of internal names."""
    return tuple(map(Name, keys))
