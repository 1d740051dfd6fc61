"""Names for the children of a node whose class was registered without keys.

JAX numbers such children, which is no name: the number says where the class happens to flatten a child, and
another version of it may do so in another order. Owns where a true name can be had all the same: the
attribute that the child is, or the path by which its container knows it. Where none can be told the number
stays, and whoever asks is told that it is made up.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from treeload._naming.name import Keys
from treeload._trees.flax import is_flax


def names_of_children(node: Any, children: Sequence[Any], treedef: Any) -> list[Keys | None]:
    """A name below the node for each child in JAX's order; None where there is none but its number."""
    if is_flax(node, "nnx.statelib", "FlatState"):
        names: list[Keys | None] = [tuple(map(str, path)) for path in node.paths]
    elif _is_equinox_state(node):
        names = list(_equinox_paths(list(vars(node)["_state"])))
    else:
        names = [None if key is None else (key,) for key in _attributes(node, children, treedef)]
    known = [name for name in names if name is not None]
    if len(names) != len(children) or len(set(known)) < len(known):
        return [None] * len(children)
    return names


def attributes(node: Any) -> dict[str, Any]:
    """What an object holds, by attribute, without evaluating a property or any other code of its own."""
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return dict(zip(node._fields, node, strict=False))
    found: dict[str, Any] = {}
    for cls in reversed(type(node).__mro__):
        for key, slot in vars(cls).items():
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    found[key] = slot.__get__(node, type(node))
                except AttributeError:  # never set
                    continue
    try:
        found.update(object.__getattribute__(node, "__dict__"))
    except (AttributeError, TypeError, ValueError):
        pass
    return found


def _attributes(node: Any, children: Sequence[Any], treedef: Any) -> list[str | None]:
    """The attribute that each child is.

    Looked for in a node that is made again with a mark in place of each child: two attributes may hold one
    object, or None, and marks tell them apart. A class that cannot be made of marks, which JAX asks of it,
    is looked at as it is, and a child then counts where one attribute alone is it.
    """
    marks: list[Any] = [object() for _ in children]
    try:
        made = attributes(jax.tree_util.tree_unflatten(treedef, marks))
    except Exception:  # noqa: BLE001  # the user's code, which may do anything
        made = {}
    own = attributes(node)
    found = _single(marks, made)
    if None in found:
        by_identity = _single(children, own)
        found = [key if key is not None else other for key, other in zip(found, by_identity, strict=True)]
    return [key if key in own else None for key in found]


def _single(wanted: Sequence[Any], held: Mapping[str, Any]) -> list[str | None]:
    """The one attribute that holds each object, where one does and the object is wanted once."""
    at: dict[int, list[str]] = {}
    for key, value in held.items():
        at.setdefault(id(value), []).append(key)
    ids = list(map(id, wanted))
    return [at[each][0] if len(at.get(each, ())) == 1 and ids.count(each) == 1 else None for each in ids]


# Equinox's State: a dict keyed by the path of the layer that owns each value.


def _is_equinox_state(node: Any) -> bool:
    equinox = sys.modules.get("equinox")  # never imported by us: who has such a State has imported it
    return (
        equinox is not None
        and isinstance(node, equinox.nn.State)
        and isinstance(attributes(node).get("_state"), dict)
    )


_STEP = re.compile(r"\.(?P<attribute>\w+)|\[(?P<index>\d+)\]|\['(?P<key>[^'\\\]]*)'\]")
"""One step of a path as ``jax.tree_util.keystr`` writes it; keys that could be read in two ways are none."""


def _equinox_paths(keys: Sequence[Any]) -> list[Keys | None]:
    """The paths without the name of the class that they start at: they are the layers', whoever holds them.

    Equinox keeps each path as text alone. What is not read to its end keeps the whole text as its name.
    """
    paths: list[Keys | None] = []
    for key in keys:
        if not isinstance(key, str):  # a State that was made without ``make_with_state``: no path is known
            paths.append(None)
            continue
        steps, end = [], next((at for at, sign in enumerate(key) if sign in ".["), len(key))
        while (step := _STEP.match(key, end)) is not None:
            steps.append(next(part for part in step.groups() if part is not None))
            end = step.end()
        paths.append(tuple(steps) if steps and end == len(key) else (key,))
    if len({path for path in paths if path}) < sum(path is not None for path in paths):
        return [(key,) if isinstance(key, str) else None for key in keys]
    return paths
