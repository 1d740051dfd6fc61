"""How each type of node opens: dicts, sequences, boxes, NNX objects, whatever JAX knows.

Owns which way a node is walked, decided once for each type, and the names of its children. Two kinds of node
are known by type. **Boxes** (``nnx.Variable``, ``flax.core.meta.AxisMetadata``) add no segment to a name.
**NNX objects** are graphs: their attributes are read without JAX's flattening. Every other
node is opened by JAX one level at a time, so whatever is registered as a pytree is understood.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from treeload._errors import NameCollision
from treeload._leaves.spec import SlotKind, kind_of_type
from treeload._naming.name import Keys, print_name
from treeload._trees.flax import flax_classes, flax_module
from treeload._trees.keyless import names_of_children

if TYPE_CHECKING:
    from flax import nnx

# How a node of some type is walked. Values above the four slot kinds, so that one lookup decides.
ARRAY, SCALAR, ABSENT, STATIC = SlotKind


SHARED_ARRAY, BY_VALUE, DICT, SEQUENCE, NAMEDTUPLE, VARIABLE, GRAPH, BOX, OTHER, REF = range(10, 20)


@functools.cache
def is_optional(cls: type) -> bool:
    return issubclass(cls, flax_classes("nnx", "RngState", "Cache", "Intermediate"))


def variable_value(variable: nnx.Variable[Any]) -> Any:
    """What a Variable holds, without the hooks that reading it may run."""
    raw = variable.get_raw_value()
    return raw if type(raw) in ARRAY_TYPES or not is_ref(raw) else raw[...]


def is_ref(raw: Any) -> bool:
    # Flax's question costs more than all else that is done for a leaf, and most are plain arrays.
    return type(raw) not in ARRAY_TYPES and bool(flax_module("nnx").graph.is_array_ref(raw))


def graph_children(node: Any) -> list[tuple[str, Any]]:
    """The attributes of an NNX object that hold data, by name, in NNX's order.

    To Flax an attribute that is a tracer is static, and ``nnx.eval_shape`` leaves it behind as it is: an
    array attribute of an abstract Module is a dead tracer. It is data here, and so is a spec.
    """
    whole = not is_pytree_object(node)  # Flax marks nothing in it, and takes all of it for data
    is_data = data_attributes(node)
    if not (whole or is_data):  # a Flax that keeps its books elsewhere
        opened = open_one_level(node, ())
        return [(child.keys[0], child.node) for child in opened if not child.keys[0].startswith(_INTERNAL)]
    children = [  # three times faster than by JAX's flattening
        (key, child)
        for key, child in vars(node).items()
        if (whole or is_data.get(key) or isinstance(child, _UNMARKED)) and not key.startswith(_INTERNAL)
    ]
    children.sort(key=_by_number if getattr(node, "_pytree__has_int_keys", False) else _by_key)
    return children


def data_attributes(node: Any) -> Mapping[str, bool]:
    """Which attributes of an NNX object are data, and which static; empty where Flax does not say."""
    return getattr(node, "_pytree__nodes", {})


_UNMARKED = (jax.core.Tracer, jax.ShapeDtypeStruct)


_by_key = operator.itemgetter(0)


def _by_number(item: tuple[str, Any]) -> tuple[bool, int, str]:
    """Sorts the elements of an ``nnx.List`` as numbers, before what else it holds."""
    key = item[0]
    return (False, int(key), key) if key.isdecimal() else (True, 0, key)


_INTERNAL = ("_pytree__", "_object__")
"""How Flax names the attributes that an NNX object keeps for itself."""


def sorted_keys(node: Mapping[Any, Any]) -> list[Any]:
    """The keys of a dict in JAX's order."""
    try:
        return sorted(node)
    except TypeError:
        return sorted(node, key=lambda key: (str(key), type(key).__name__))  # JAX itself refuses such a dict


def only_strings(node: Mapping[Any, Any]) -> bool:
    """Whether each key of a dict is a name as it stands."""
    return set(map(type, node)) <= _STRINGS


_STRINGS = {str}


def segments(key: Any) -> Keys:
    """What one key adds to a name: its text; of a tuple of strings and integers, a path, each part."""
    if type(key) is tuple and key and set(map(type, key)) <= _PATH:
        return tuple(map(str, key))
    return (str(key),)


_PATH = {str, int}


def refuse_two_of_one_name(keys: list[Any], name: Keys) -> None:
    """Raises NameCollision where two keys of the dict at ``name`` would have one name."""
    named = list(map(segments, keys))
    if len(set(named)) < len(named):
        twice = next(each for each in named if named.count(each) > 1)
        at = print_name(name) or "the root"
        both = ", ".join(repr(key) for key in keys if segments(key) == twice)
        raise NameCollision(f"the keys {both} at {at} have one name, {print_name((*name, *twice))!r}")


class Child(NamedTuple):
    """A child of a node that JAX opens.

    Attributes:
        keys: what it adds to the node's name.
        node: the child.
        keyless: JAX has no name for it: its class was registered without keys.
        made_up: neither have we: ``keys`` is its number.
    """

    keys: Keys
    node: Any
    keyless: bool = False
    made_up: bool = False


UNKNOWN: list[Child] = []
"""What ``open_one_level`` gives for a node that JAX does not know: it is a leaf itself."""


def open_one_level(node: Any, name: Keys) -> list[Child]:
    flat, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)
    if len(flat) == 1 and not flat[0][0]:
        return UNKNOWN
    children = [Child(key_segments(path[0]), child) for path, child in flat]
    if any(isinstance(path[0], jax.tree_util.FlattenedIndexKey) for path, _ in flat):
        known = names_of_children(node, [child for _, child in flat], treedef)
        children = [
            Child(child.keys if keys is None else keys, child.node, keyless=True, made_up=keys is None)
            for child, keys in zip(children, known, strict=True)
        ]
    if len({child.keys for child in children}) < len(children):
        raise NameCollision(
            f"two children of the {type(node).__name__} at {print_name(name) or 'the root'} have one name: "
            + ", ".join(print_name(child.keys) for child in children)
        )
    return children


def is_leaf(node: Any, children: list[Any]) -> bool:
    return len(children) == 1 and children[0] is node


def key_segments(key: Any) -> Keys:
    """What one of JAX's keys adds to a name."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return segments(getattr(key, attribute))
    return (str(key),)


def is_equinox(cls: type) -> bool:
    equinox = sys.modules.get("equinox")  # never imported by us: who has such a module has imported it
    return equinox is not None and issubclass(cls, equinox.Module)


def is_pytree_object(node: Any) -> bool:
    """Whether an NNX object is a pytree too, which a class may decline (``pytree=False``)."""
    known = _IS_PYTREE.get(type(node))
    if known is None:
        children, _ = jax.tree_util.tree_flatten(node, is_leaf=lambda child: child is not node)
        known = _IS_PYTREE[type(node)] = not is_leaf(node, children)
    return known


def how_walked(node: Any) -> int:
    how = _HOW.get(type(node))
    return _classify(type(node), node) if how is None else how


def _classify(cls: type, node: Any) -> int:
    """How nodes of a type are walked, remembered: types are few, nodes many."""
    kind = kind_of_type(cls)
    if issubclass(cls, flax_classes("nnx", "Variable")):
        how = VARIABLE
    elif issubclass(cls, flax_classes("nnx", "Pytree")):
        how = GRAPH
    elif issubclass(cls, flax_classes("core.meta", "AxisMetadata")):
        how = BOX
    elif cls is dict:
        how = DICT
    elif cls in (list, tuple):
        how = SEQUENCE
    elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
        how = OTHER if _is_registered(node) else NAMEDTUPLE
    elif issubclass(cls, jax.Ref):
        how = REF
    elif issubclass(cls, (jax.Array, np.ndarray)):
        how = SHARED_ARRAY
    elif kind == SlotKind.STATIC:
        how = OTHER  # JAX may know it as a node
    elif kind is None:
        how = BY_VALUE
    else:
        how = kind
    if how == SHARED_ARRAY and kind is not None:
        ARRAY_TYPES.add(cls)
    _HOW[cls] = int(how)
    return _HOW[cls]


def _is_registered(named_tuple: Any) -> bool:
    """Whether a named tuple's class was registered its own way: then JAX opens it, not by its fields."""
    opened = jax.tree_util.default_registry.flatten_one_level(named_tuple)
    return opened is not None and opened[1] is not type(named_tuple)  # the class, where JAX goes by fields


_HOW: dict[type, int] = {}


ARRAY_TYPES: set[type] = {np.ndarray}  # and every type of jax.Array that was met


_IS_PYTREE: dict[type, bool] = {}
