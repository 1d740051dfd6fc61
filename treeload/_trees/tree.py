"""A walked tree, as data: its slots in the tree's order, as columns.

Owns ``Tree``, and the nested dict of named leaves. How a tree is walked is in ``walk``, how it is made again
in ``rebuild``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import jax

from treeload._leaves.spec import SlotKind
from treeload._naming.name import Keys, print_name
from treeload._trees.names import Names

if TYPE_CHECKING:
    from flax import nnx

PyTree: TypeAlias = Any


@dataclass(eq=False)
class Tree:
    """A walked tree: its slots in the tree's order, as parallel lists.

    Attributes:
        root: the tree itself.
        kept_names: the canonical name of each slot, which ``names`` writes out; a tied slot is here once.
        values: what each slot holds; an array, a spec, a number, None, False, or a static.
        kinds: the kind of each slot.
        aliases: canonical name → the other names of the same array, in the tree's order.
        shared: those canonical names that are shared by an NNX Variable, not by an array object.
        optional: names of slots that hold NNX state which a checkpoint may lack.
        configuration: names of statics that are part of a module's own making, as its activation function is.
        visits: for each visit of the walk, the index of its slot, where there are ties; empty where each
            slot is visited once, in order.
        variables: the index of each slot that is all an NNX Variable holds, and that Variable; likewise
            a ``jax.Ref``.
        made_up: names of nodes and slots whose last key is no name, but a number: their class was registered
            with JAX without keys, and what the child is called cannot be told. A leaf with such a name among
            its prefixes (itself included) is matched by position: see ``is_made_up``.
        keyless: name of a node whose class was registered without keys → what each child adds to it, in
            JAX's order: where a stored tree has only 0…n-1 below the node, the child of each number.
        hidden: names of statics that hold arrays which never load, each with why and what to write.
    """

    root: PyTree
    kept_names: Names = field(default_factory=Names)
    values: list[Any] = field(default_factory=list)
    kinds: bytearray = field(default_factory=bytearray)
    aliases: dict[Keys, list[Keys]] = field(default_factory=dict)
    shared: set[Keys] = field(default_factory=set)
    optional: set[Keys] = field(default_factory=set)
    configuration: set[Keys] = field(default_factory=set)
    visits: list[int] = field(default_factory=list)
    variables: dict[int, nnx.Variable[Any] | jax.Ref] = field(default_factory=dict)
    made_up: set[Keys] = field(default_factory=set)
    keyless: dict[Keys, tuple[Keys, ...]] = field(default_factory=dict)
    hidden: dict[Keys, str] = field(default_factory=dict)

    @property
    def names(self) -> list[Keys]:
        """The canonical name of each slot."""
        return self.kept_names.written()

    def slots(self) -> Iterator[tuple[Keys, Any, int]]:
        """Name, value and kind of every slot, in order."""
        return zip(self.names, self.values, self.kinds, strict=True)

    def leaves(self) -> Iterator[tuple[Keys, Any]]:
        """Name and value of every slot that holds an array or a number."""
        return ((name, value) for name, value, kind in self.slots() if kind <= SlotKind.SCALAR)

    def names_of(self, name: Keys) -> tuple[Keys, ...]:
        """The canonical name of a slot, and its aliases."""
        return (name, *self.aliases.get(name, ()))

    def by_name(self) -> dict[Keys, Any]:
        """The value of every leaf, under its name and under each of its aliases."""
        return {each: value for name, value in self.leaves() for each in self.names_of(name)}

    def flags_off(self) -> Iterator[Keys]:
        """The names of Python flags that are False: absent against an array, a value against a flag."""
        for name, value, kind in zip(self.names, self.values, self.kinds, strict=True):
            if kind == SlotKind.ABSENT and value is False:
                yield name

    def is_made_up(self, name: Keys) -> bool:
        """Whether a key on the way to ``name`` is a number that stands for no name."""
        return bool(self.made_up) and any(name[:depth] in self.made_up for depth in range(1, len(name) + 1))


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
