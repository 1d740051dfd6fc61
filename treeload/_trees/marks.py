"""A mark for every array of a tree, in the structure in which optax is given that tree.

Owns what that structure is: a pytree's own, and for NNX objects the ``nnx.State`` of the variables that a
filter selects. A mark stands for a whole Variable or box: optax is given parameters in them and gradients
without, and a mark above both fits either. Refuses to own what the marks say (``_plans``, ``finetune``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

from treeload._naming.name import Keys
from treeload._trees.flax import flax_module, is_flax
from treeload._trees.nodes import UNKNOWN, open_one_level
from treeload._trees.tree import PyTree
from treeload._trees.walk import walk

Names = tuple[Keys, ...]
"""The names below one mark: one, but for a Variable that holds a tree."""


def marked(tree: PyTree, mark: Callable[[Names], Any], wrt: Any = None) -> PyTree:
    """``tree``, as optax is given it, with ``mark`` of its names in place of each array.

    Raises:
        TypeError: ``wrt`` was given for a tree that holds no NNX variables.
    """
    names, structure = places(as_optax_sees(tree, wrt))
    return jax.tree_util.tree_unflatten(structure, map(mark, names))


def as_optax_sees(tree: PyTree, wrt: Any = None) -> PyTree:
    """The tree that an optimizer over ``tree`` is given: a State for NNX objects, else itself."""
    if is_flax(tree, "nnx", "State"):
        return tree if wrt is None else flax_module("nnx").filter_state(tree, wrt)
    if holds_nnx(tree):
        return flax_module("nnx").state(tree, *(() if wrt is None else (wrt,)))
    if wrt is not None:
        raise TypeError(f"wrt= selects NNX variables; a {type(tree).__name__} holds none")
    return tree


def holds_nnx(tree: PyTree) -> bool:
    """Whether there is an NNX object in the tree, whose arrays optax is given as a State."""
    return any(map(_is_nnx, jax.tree.leaves(tree, is_leaf=_is_nnx)))


def places(tree: PyTree) -> tuple[list[Names], Any]:
    """The names at each place of a tree that can be marked, and the structure around the places."""
    return list(_places(tree, ())), jax.tree_util.tree_structure(tree, is_leaf=_is_box)


def _places(node: PyTree, name: Keys) -> Iterator[Names]:
    """The names at each place below ``node``, in JAX's order."""
    if _is_box(node):
        yield tuple((*name, *rest) for rest in walk(node, traced=True).names)
        return
    children = open_one_level(node, name)
    if children is UNKNOWN:
        yield (name,)
    for child in children:
        yield from _places(child.node, (*name, *child.keys))


def _is_nnx(node: Any) -> bool:
    return is_flax(node, "nnx", "Pytree")


def _is_box(node: Any) -> bool:
    return is_flax(node, "nnx", "Variable") or is_flax(node, "core.meta", "AxisMetadata")
