"""A tree made again, or filled in place, with other values in its slots.

Owns the way back from slots to a tree: containers, boxes and sharing are as they were. Refuses to own what
the values should be. Goes in the order of the walk
(``walk``), so that the next value is always the next slot's.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import islice
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypeAlias

import jax

from treeload._errors import TreeloadError
from treeload._trees.flax import flax_module
from treeload._trees.nodes import (
    ARRAY_TYPES,
    BOX,
    BY_VALUE,
    DICT,
    GRAPH,
    NAMEDTUPLE,
    OTHER,
    REF,
    SEQUENCE,
    VARIABLE,
    data_attributes,
    graph_children,
    how_walked,
    is_leaf,
    is_pytree_object,
    is_ref,
    sorted_keys,
    variable_value,
)
from treeload._trees.tree import PyTree, Tree

if TYPE_CHECKING:
    from flax import nnx


def rebuild(tree: Tree, values: Sequence[Any]) -> PyTree:
    """A new tree like ``tree`` with ``values`` in its slots; containers, boxes and sharing are kept.

    Nothing of ``tree`` is changed or shared but its statics. ``values`` is indexed as ``tree.names``.

    Raises:
        TreeloadError: a node of the tree refused its new children.
    """
    try:
        return _Builder(tree, values).build(tree.root)
    except Exception as error:
        what = type(tree.root).__name__
        raise TreeloadError(f"the {what} refused its new values: {type(error).__name__}: {error}") from error


def assign(tree: Tree, values: Sequence[Any]) -> None:
    """Puts ``values`` into the NNX object that ``tree`` was walked from, all or none of them.

    Whatever ends it early, an interrupt too, the object is as before: values, attributes, and what NNX knows
    of them. Neither the hooks of a Variable run nor does its metadata change, either way.

    Raises:
        TreeloadError: the object refused an assignment (inside a transform, say); it is as before.
    """
    builder = _Builder(tree, values, in_place=True)
    changed = [index for index, value in enumerate(values) if value is not tree.values[index]]
    try:
        if tree.variables.keys() >= set(changed):
            for index in changed:
                builder.set_variable(tree.variables[index], values[index])
        else:  # into attributes, and into what Variables hold that is no array: by the way of the walk
            builder.put(tree.root)
    except BaseException as error:
        _put_back(builder.undo)
        if not isinstance(error, Exception):
            raise
        raise TreeloadError(f"the {type(tree.root).__name__} refused its new values: {error}") from error


_TRIES = 8


def _put_back(notes: list[Note]) -> None:
    """Every change undone, the last first; an interrupt that comes meanwhile waits until all of them are."""
    interrupt: BaseException | None = None
    while notes:
        undo, *arguments = notes[-1]
        for _ in range(_TRIES):
            try:
                undo(*arguments)  # to do it twice is as good as once
                break
            except BaseException as error:  # noqa: BLE001  # the others must be undone in any case
                interrupt = error
        notes.pop()
    if interrupt is not None:
        raise interrupt


def updatable(tree: PyTree) -> bool:
    """Whether values can be put into this very object: NNX Modules, Optimizers, Variables, Refs.

    A plain tree is one too where all its leaves are Refs.
    """
    if how_walked(tree) in (GRAPH, VARIABLE, REF):
        return True
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(isinstance(leaf, jax.Ref) for leaf in leaves)


Note: TypeAlias = "tuple[Any, ...]"
"""How a change is undone: a function and its arguments. It asks nobody, so that nobody can refuse it."""


class _Builder:
    """One pass in the order of the walk that hands each visited slot its new value."""

    def __init__(self, tree: Tree, values: Sequence[Any], *, in_place: bool = False) -> None:
        self.in_place = in_place
        self.values = values
        self.order = iter(tree.visits or range(len(tree.values)))
        self.made: dict[int, tuple[Any, Any]] = {}  # id of a Variable -> (itself, its new self)
        self.clones: dict[int, Any] | None = None
        self.ancestors: set[int] = set()
        self.tree = tree
        self.undo: list[Note] = []  # for each change, before it is made
        self.own_values: dict[
            type, bool
        ] = {}  # whether the Variables of a class hold their values themselves

    def build(self, node: Any) -> Any:
        """A new node with the new values."""
        how = how_walked(node)
        if how == DICT:
            keys = sorted_keys(node)
            if set(map(type, node.values())) <= ARRAY_TYPES:  # the hot place, as it is of the walk
                made = dict(
                    zip(keys, map(self.values.__getitem__, islice(self.order, len(keys))), strict=True)
                )
            else:
                made = {key: self.build(node[key]) for key in keys}
            return made if keys == list(node) else {key: made[key] for key in node}
        if how == SEQUENCE:
            return type(node)(map(self.build, node))
        if how == NAMEDTUPLE:
            return type(node)(*map(self.build, node))
        if how == REF:
            return self.ref(node)
        if how in (GRAPH, VARIABLE):
            clone = self.clone(node)
            # The clone shares no Variable with the original, so it may be filled in place.
            return self.variable(node) if clone is None else self.put(clone)
        if how in (BOX, OTHER, BY_VALUE):
            children, treedef = jax.tree_util.tree_flatten(node, is_leaf=lambda child: child is not node)
            if not is_leaf(node, children):
                return jax.tree_util.tree_unflatten(treedef, list(map(self.build, children)))
        return self.values[next(self.order)]

    def variable(self, variable: nnx.Variable[Any]) -> Any:
        made = self.made.get(id(variable))
        value = self.build_value(variable)
        if made is not None:
            return made[1]
        _, treedef = jax.tree_util.tree_flatten(variable, is_leaf=lambda child: child is not variable)
        new = jax.tree_util.tree_unflatten(treedef, [value])
        self.made[id(variable)] = (variable, new)
        return new

    def ref(self, ref: jax.Ref) -> Any:
        """A new Ref, the same one wherever this one is met."""
        value = self.values[next(self.order)]
        if id(ref) not in self.made:
            self.made[id(ref)] = (ref, jax.new_ref(value))
        return self.made[id(ref)][1]

    def build_value(self, variable: nnx.Variable[Any]) -> Any:
        return self.build(variable_value(variable))

    def clone(self, node: Any) -> Any:
        """A copy of an NNX object, or of a Variable beside one; None where the tree has Variables only."""
        if self.clones is None:
            # All of them in one call: a Variable shared between two, or with the tree, stays shared.
            roots = list(_nnx_roots(self.tree.root))
            objects = any(how_walked(root) == GRAPH for root in roots)
            self.clones = (
                dict(zip(map(id, roots), flax_module("nnx").clone(roots), strict=True)) if objects else {}
            )
        return self.clones.get(id(node))

    def put(self, node: Any) -> Any:
        """``node`` with the new values: Variables and NNX objects in place, all else anew."""
        how = how_walked(node)
        if how == REF and not self.in_place:
            return self.ref(node)  # nnx.clone copies none
        if how in (VARIABLE, REF):
            made = self.made.get(id(node))
            value = self.values[next(self.order)] if how == REF else self.build_value(node)
            if made is None:
                self.made[id(node)] = (node, node)
                self.set_variable(node, value)
            return node
        if how == GRAPH:
            if id(node) not in self.ancestors:
                self.ancestors.add(id(node))
                for key, child in graph_children(node):
                    new = self.put(child)
                    if new is not child:
                        self.set_attribute(node, key, new)
                self.ancestors.discard(id(node))
            return node
        if how == SEQUENCE:
            return self.keep_if_same(node, type(node)(map(self.put, node)))
        if how == NAMEDTUPLE:
            return self.keep_if_same(node, type(node)(*map(self.put, node)))
        if how == DICT:
            made_children = {key: self.put(node[key]) for key in sorted_keys(node)}
            same = all(made_children[key] is node[key] for key in node)
            return node if same else {key: made_children[key] for key in node}
        if how in (BOX, OTHER, BY_VALUE):
            children, treedef = jax.tree_util.tree_flatten(node, is_leaf=lambda child: child is not node)
            if not is_leaf(node, children):
                new = list(map(self.put, children))
                same = all(a is b for a, b in zip(new, children, strict=True))
                return node if same else jax.tree_util.tree_unflatten(treedef, new)
        return self.values[next(self.order)]

    @staticmethod
    def keep_if_same(node: Any, made: Any) -> Any:
        return node if all(a is b for a, b in zip(made, node, strict=True)) else made

    def set_variable(self, variable: Any, value: Any) -> None:
        own = self.own_values.get(type(variable))  # types are few, Variables many
        if own is None:
            own = self.own_values[type(variable)] = _owns_value(type(variable))
        raw: Any = variable.get_raw_value() if own or how_walked(variable) != REF else variable
        if type(raw) not in ARRAY_TYPES and is_ref(raw):
            self.undo.append((raw.__setitem__, ..., raw[...]))
            raw[...] = value
        else:
            # Where the value is the Variable's own, it is put back without asking for leave to change it.
            undo = (object.__setattr__, variable, _VALUE, raw) if own else (variable.set_raw_value, raw)
            self.undo.append(undo)
            variable.set_raw_value(value)

    def set_attribute(self, node: Any, key: str, value: Any) -> None:
        was_static = is_pytree_object(node) and not data_attributes(node).get(key, True)
        # Of attributes NNX keeps which are data, in an attribute.
        self.undo += [(object.__setattr__, node, each, vars(node)[each]) for each in (_NODES, key)
                      if each in vars(node)]  # fmt: skip
        setattr(node, key, flax_module("nnx").data(value) if was_static else value)


_VALUE, _NODES = "_raw_value", "_pytree__nodes"


def _owns_value(of: type) -> bool:
    """Whether a class of Variables keeps the value in a slot, and not behind a property."""
    return isinstance(inspect.getattr_static(of, _VALUE, None), MemberDescriptorType)


def _nnx_roots(node: Any) -> Iterator[Any]:
    """The outermost NNX objects and Variables of a tree, each visit of each."""
    how = how_walked(node)
    if how in (GRAPH, VARIABLE):
        yield node
    elif how == DICT:
        for child in node.values():
            yield from _nnx_roots(child)
    elif how in (SEQUENCE, NAMEDTUPLE):
        for child in node:
            yield from _nnx_roots(child)
    elif how in (BOX, OTHER, BY_VALUE):
        children, _ = jax.tree_util.tree_flatten(node, is_leaf=lambda child: child is not node)
        if not is_leaf(node, children):
            for child in children:
                yield from _nnx_roots(child)
