"""Where the result is to lie, where the caller says so: ``plan.load(sharding=...)``.

Owns what ``sharding`` may be (one sharding, a tree or a prefix tree of them, a function of name and spec) and
the destination as it asks for them. Refuses to own placement itself (``_leaves.placement``). Everything that
is wrong with what was given is said at once, before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, TypeGuard

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from treeload._errors import TreeloadError
from treeload._leaves.placement import is_weak, unplaceable
from treeload._leaves.spec import SlotKind, Spec, print_spec, spec_of, without_sharding
from treeload._naming.name import Keys, Name, print_name
from treeload._trees.nodes import OTHER, how_walked
from treeload._trees.tree import PyTree, Tree
from treeload._trees.walk import walk

Shardings: TypeAlias = "Sharding | PartitionSpec | Callable[[Name, Spec], Any] | PyTree"
"""One sharding for all; a function that gives each leaf's; a tree of them, or a prefix of one."""

_SAID = 5  # leaves that an error names


def span_processes(values: Iterable[Any], shardings: Shardings | None = None) -> bool:
    """Whether a leaf is, or is asked to be, on devices of several processes: then all of them load it."""
    if _is_function(shardings):
        return True  # of which leaves cannot be told before it is called; whoever has many processes says so
    asked = [] if shardings is None else jax.tree.leaves(shardings, is_leaf=_is_one)
    if any(isinstance(each, PartitionSpec) for each in asked):
        return True  # over the mesh that is set
    of_leaves = (getattr(value, "sharding", None) for value in values)
    return any(
        isinstance(each, Sharding) and not isinstance(getattr(each, "mesh", None), AbstractMesh)
        and not each.is_fully_addressable
        for each in (*asked, *of_leaves)
    )  # fmt: skip


def _is_one(node: Any) -> bool:
    return isinstance(node, Sharding | PartitionSpec)


def asking(tree: Tree, shardings: Shardings) -> Tree:
    """``tree`` with specs in place of its arrays that ask for these shardings; numbers stay what they are.

    Raises:
        TypeError: what was given for a leaf is no sharding.
        TreeloadError: a leaf cannot be placed so, or a part of the tree of shardings is for no leaf.
    """
    asked = {index: given for index, given in _given(tree, shardings) if given is not None}
    values, wrong = list(tree.values), []
    for index, sharding in asked.items():
        value = tree.values[index]
        if why := unplaceable(tuple(value.shape), sharding):
            wrong.append(
                f"{print_name(tree.names[index])}, {print_spec(without_sharding(spec_of(value)))}: {why}"
            )
            continue
        values[index] = jax.ShapeDtypeStruct(
            value.shape, value.dtype, sharding=sharding, weak_type=is_weak(value)
        )
    if wrong:
        more = f"\nand {len(wrong) - _SAID:,} more" if len(wrong) > _SAID else ""
        raise TreeloadError("sharding= does not fit:\n" + "\n".join(wrong[:_SAID]) + more)
    return replace(tree, values=values)


def _given(tree: Tree, shardings: Shardings) -> Iterator[tuple[int, Sharding | None]]:
    """The array slots, each with what was given for it; None where nothing was."""
    slots = [index for index, kind in enumerate(tree.kinds) if _is_array(kind, tree.values[index])]
    if _is_function(shardings):
        for index in slots:
            name = Name(tree.names[index])
            spec = without_sharding(spec_of(tree.values[index]))
            yield index, _sharding(shardings(name, spec), f"sharding({str(name)!r}, {print_spec(spec)}) gave")
        return
    found = _by_name(shardings)
    used: set[Keys] = set()
    for index in slots:
        nodes = (_above(each, found) for each in tree.names_of(tree.names[index]))
        node = next((node for node in nodes if node is not None), None)
        if node is not None:
            used.add(node)
            yield index, found[node]
    # What is asked for a number is for something, but nothing is done with it.
    used.update(node for name, _ in tree.leaves() if (node := _above(name, found)) is not None)
    if idle := [print_name(name) for name in found if name not in used and found[name] is not None]:
        more = f" and {len(idle) - _SAID:,} more" if len(idle) > _SAID else ""
        raise TreeloadError(
            f"sharding= has {', '.join(idle[:_SAID])}{more}, where the destination has no array"
        )


def _is_function(shardings: Shardings) -> TypeGuard[Callable[[Name, Spec], Any]]:
    """Whether it is to be called; Modules and meshes can be called too."""
    return (
        callable(shardings) and not isinstance(shardings, Mesh) and how_walked(shardings) == OTHER
        and jax.tree_util.all_leaves([shardings])
    )  # fmt: skip


def _is_array(kind: int, value: Any) -> bool:
    return kind == SlotKind.ARRAY and not isinstance(value, np.generic)


def _by_name(shardings: PyTree) -> Mapping[Keys, Sharding | None]:
    """The shardings of a tree by the names of their nodes; None says that nothing is asked for."""
    if shardings is None or isinstance(shardings, Sharding | PartitionSpec):
        return {(): _sharding(shardings, "sharding= is")}
    walked = walk(shardings)
    found = {
        name: _sharding(value, f"sharding= has at {print_name(name)!r}" if name else "sharding= is")
        for name, value, _ in walked.slots()
    }
    return {each: found[name] for name in found for each in walked.names_of(name)}


def _above(name: Keys, nodes: Mapping[Keys, Any]) -> Keys | None:
    """The longest of the nodes at or above a name."""
    return next((name[:depth] for depth in range(len(name), -1, -1) if name[:depth] in nodes), None)


def _sharding(given: Any, where: str) -> Sharding | None:
    """What was given as a sharding; a ``PartitionSpec`` is one over the mesh of ``jax.set_mesh``.

    Raises:
        TypeError: it is none; ``where`` says what was asked, or which part of what was given this is.
    """
    if isinstance(given, PartitionSpec):
        mesh = jax.sharding.get_mesh()
        if not mesh.axis_names:
            raise TypeError(f"{where} {given}, and no mesh is set: call it under jax.set_mesh(mesh)")
        return NamedSharding(mesh, given)
    if given is None or isinstance(given, Sharding):
        return given
    raise TypeError(
        f"{where} a {type(given).__name__}; it takes jax shardings, {_instead(given)}"
        "and None for the destination's"
    )


def _instead(given: Any) -> str:
    """The sharding that was probably meant."""
    if isinstance(given, Mesh):
        return "such as NamedSharding(mesh, P()), "
    return "such as SingleDeviceSharding(device), " if isinstance(given, jax.Device) else ""
