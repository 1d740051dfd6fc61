"""Any tree as named slots: pytrees, boxes, NNX objects, ties.

Owns the walk: what each slot is called, and which slots share one array. How a node opens is in ``nodes``.

The walk is our own for dict, list and tuple, where it costs a fraction of JAX's flattening with keys (a name
is its parent's name and one key more). NNX objects are walked as the graphs they are: a Variable met twice is
one leaf with an alias, a reference back to an ancestor ends the walk there.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from treeload._leaves.spec import Kind, is_numeric, kind_of
from treeload._naming.name import Keys
from treeload._trees.nodes import (
    ARRAY_TYPES,
    BOX,
    BY_VALUE,
    DICT,
    GRAPH,
    NAMEDTUPLE,
    OTHER,
    SCALAR,
    SEQUENCE,
    SHARED_ARRAY,
    UNKNOWN,
    VARIABLE,
    graph_children,
    how_walked,
    is_equinox,
    is_optional,
    is_pytree_object,
    open_one_level,
    sorted_keys,
    variable_value,
)
from treeload._trees.tree import PyTree, Tree


def walk(tree: PyTree, *, arrays_tie: bool = True, traced: bool = False) -> Tree:
    """The slots of ``tree``, in the order of ``jax.tree.leaves`` where JAX has one.

    ``arrays_tie``: one array object in two places is one leaf, as in a destination. In a source it is
    two: what is there twice can be asked for twice. NNX Variables are shared either way.
    ``traced``: the tree is being made under a JAX transformation, so its tracers are its arrays.

    Raises:
        NameCollision: two keys of one node that print alike, such as ``1`` and ``"1"``.
    """
    # Ties, and NumPy arrays that are no numbers, are rare and cost a question at every leaf: walk as if
    # there were none, ask once, and walk again with care if there are.
    walker = _Walker(Tree(tree), careful=False, arrays_tie=arrays_tie, traced=traced)
    walker.visit(tree, (), False)
    if walker.variables_shared or not _plain(walker.tree, arrays_tie):
        walker = _Walker(Tree(tree), careful=True, arrays_tie=arrays_tie, traced=traced)
        walker.visit(tree, (), False)
    return walker.tree


def _plain(tree: Tree, arrays_tie: bool) -> bool:
    """Whether no array of a hasty walk is there twice, or of a dtype that JAX has not."""
    arrays = tree.values
    if tree.variables or any(tree.kinds):  # what a Variable holds is no tie, and was looked at
        arrays = [
            value
            for index, (value, kind) in enumerate(zip(arrays, tree.kinds, strict=True))
            if kind == Kind.ARRAY and index not in tree.variables
        ]
    types = set(map(type, arrays))
    if not types <= ARRAY_TYPES:
        arrays = [
            array for array in arrays if how_walked(array) == SHARED_ARRAY
        ]  # specs and NumPy scalars are no ties
    if np.ndarray in types and any(
        isinstance(dtype, np.dtype) and not is_numeric(dtype) for dtype in set(map(_DTYPE, arrays))
    ):
        return False
    if not arrays_tie:
        return True
    ids = np.fromiter(map(id, arrays), np.int64, len(arrays))  # a third of the time of a set
    ids.sort()
    return not bool((ids[1:] == ids[:-1]).any())


_DTYPE = operator.attrgetter("dtype")


class _Walker:
    """One walk: the lists being filled and what was seen on the way."""

    def __init__(self, tree: Tree, *, careful: bool, arrays_tie: bool, traced: bool) -> None:
        self.tree = tree
        self.names, self.values, self.kinds = tree.names, tree.values, tree.kinds
        self.careful = careful
        self.arrays_tie = arrays_tie
        self.traced = traced
        self.visits = tree.visits
        self.seen: dict[int, int] = {}  # id of an array -> index of its slot
        self.variables: dict[int, tuple[Any, int, int]] = {}  # id of a Variable -> itself, its slots
        self.variables_shared = False
        self.ancestors: set[int] = set()

    def visit(self, node: Any, name: Keys, fixed: bool) -> None:
        """``fixed``: inside an object whose Python numbers are its configuration, so static."""
        how = how_walked(node)
        if how == SHARED_ARRAY:
            self.array(node, name)
        elif how == DICT:
            self.dict(node, name, fixed)
        elif how == SEQUENCE:
            for index, child in enumerate(node):
                self.visit(child, (*name, str(index)), fixed)
        elif how == NAMEDTUPLE:
            for field_name, child in zip(node._fields, node, strict=True):
                self.visit(child, (*name, field_name), fixed)
        elif how == VARIABLE:
            self.variable(node, name)
        elif how == GRAPH:
            if id(node) not in self.ancestors:
                self.ancestors.add(id(node))
                fixed = fixed or not is_pytree_object(node)
                for key, child in graph_children(node):
                    if isinstance(child, jax.core.Tracer) and not self.traced:
                        child = jax.ShapeDtypeStruct(child.shape, child.dtype)
                    self.visit(child, (*name, key), fixed)
                self.ancestors.discard(id(node))
        elif how in (BOX, OTHER):
            self.opened(node, name, fixed or is_equinox(type(node)), transparent=how == BOX)
        elif how == BY_VALUE:
            kind = kind_of(node)
            if kind == Kind.STATIC:
                self.opened(node, name, fixed, transparent=False)
            else:
                self.number(node, name, kind, fixed and isinstance(node, bool))
        else:
            self.number(node, name, Kind(how), fixed and how == SCALAR)

    def dict(self, node: Mapping[Any, Any], name: Keys, fixed: bool) -> None:
        """A dict: the hot place of every plan, so one that holds nothing but arrays is taken at once."""
        keys, printed = sorted_keys(node, name)
        if self.careful or not set(map(type, node.values())) <= ARRAY_TYPES:
            for key, text in zip(keys, printed, strict=True):
                self.visit(node[key], (*name, text), fixed)
            return
        children = [node[key] for key in keys]
        self.names.extend([name + (text,) for text in printed])  # noqa: RUF005  # half the time of unpacking
        self.values.extend(children)
        self.kinds.extend(bytes(len(children)))

    def opened(self, node: Any, name: Keys, fixed: bool, *, transparent: bool) -> None:
        """A node that JAX may know: its children, or itself as a static."""
        children = open_one_level(node, name)
        if children is UNKNOWN:
            self.static(node, name, fixed)
            return
        transparent = transparent and len(children) == 1
        for key, child in children:
            self.visit(child, name if transparent else (*name, key), fixed)

    def number(self, value: Any, name: Keys, kind: Kind, fixed: bool) -> None:
        if fixed:
            self.static(value, name, fixed)
        else:
            self.slot(value, name, kind)

    def static(self, value: Any, name: Keys, fixed: bool) -> None:
        if fixed:
            self.tree.configuration.add(name)
        self.slot(value, name, Kind.STATIC)

    def slot(self, value: Any, name: Keys, kind: Kind) -> None:
        if self.careful:
            self.visits.append(len(self.names))
        self.names.append(name)
        self.values.append(value)
        self.kinds.append(kind)

    def array(self, value: Any, name: Keys) -> None:
        if not (self.careful and self.arrays_tie):
            self.slot(value, name, kind_of(value))
            return
        index = len(self.names)
        known = self.seen.setdefault(id(value), index)
        if known == index:
            self.slot(value, name, kind_of(value))
        else:
            self.visits.append(known)
            self.tree.aliases.setdefault(self.names[known], []).append(name)

    def variable(self, variable: nnx.Variable[Any], name: Keys) -> None:
        identity = id(variable)  # once: an audit hook, where one is set, makes it dear
        known = self.variables.get(identity)
        if known is not None:
            self.variables_shared = True
            self.alias(known[1], known[2], name)
            return
        start = len(self.names)
        value = variable_value(variable)
        if how_walked(value) == SHARED_ARRAY:
            # Two Variables that hold one array are two leaves: only the Variable is shared.
            self.tree.variables[start] = variable
            self.slot(value, name, kind_of(value) if isinstance(value, np.ndarray) else Kind.ARRAY)
        else:
            self.visit(value, name, False)
        self.variables[identity] = (variable, start, len(self.names))
        if is_optional(type(variable)):
            self.tree.optional.update(self.names[start:])

    def alias(self, start: int, end: int, name: Keys) -> None:
        """A Variable met again: each of its slots has one more name."""
        if not self.careful:
            return  # the second walk will say it
        # What its slots have in common is the Variable's own name.
        depth = len(self.names[start]) if end - start == 1 else _common_depth(self.names[start:end])
        for index in range(start, end):
            self.visits.append(index)
            canonical = self.names[index]
            if self.kinds[index] <= Kind.SCALAR:
                self.tree.aliases.setdefault(canonical, []).append((*name, *canonical[depth:]))
                self.tree.shared.add(canonical)


def _common_depth(names: Sequence[Keys]) -> int:
    depth = 0
    while len({name[: depth + 1] for name in names}) == 1:
        depth += 1
    return depth
