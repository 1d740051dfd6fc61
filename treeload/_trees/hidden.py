"""Arrays inside of what never loads: said, since to keep or to leave them out in silence would lose them.

Owns the question whether a static holds arrays, and what to write instead. Looks into attributes, items and
elements, a few levels deep, and runs no code of the object's own but a mapping's iteration. Functions,
classes, strings and configuration are statics like any other; so is whatever lies deeper.
"""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import jax
import numpy as np

from treeload._leaves.spec import SlotKind, is_numeric, kind_of
from treeload._trees.flax import is_flax
from treeload._trees.keyless import attributes

_DEPTH = 4
_COUNT = 1000


_NEVER = (
    str, bytes, bytearray, int, float, complex, type(None), type, enum.Enum, types.ModuleType,
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial, np.dtype, np.ufunc,
    np.str_, np.bytes_, jax.sharding.Sharding, jax.sharding.Mesh, jax.sharding.AbstractMesh,
    jax.sharding.PartitionSpec, jax.Device,
)  # fmt: skip
"""What is a static for good: it is not looked into. A closure may hold anything, and is a function."""


def why_hidden(value: Any) -> str:
    """What is wrong with this static, and what to write instead; empty where it holds no array."""
    if isinstance(value, _NEVER) or (callable(value) and hasattr(value, "__wrapped__")):
        return ""
    if isinstance(value, (np.ndarray, np.generic)):
        return _no_numbers(value)
    what = f"of type {_type(value)}"
    if hasattr(type(value), "__array__"):
        return f"{what}, an array that JAX does not know: np.asarray(x) makes one that it knows"
    where = _array_within(value)
    if where is None:
        return ""
    said = f"{what}, which JAX does not know as a tree, and holds arrays ({where})"
    return f"{said}: {_way(value)}"


def why_altered(array: np.ndarray[Any, Any]) -> str:
    """Why an array of a subclass of NumPy's would not come back as it is; empty where it would."""
    if type(array) in _PLAIN:
        return ""
    if isinstance(array, np.ma.MaskedArray):
        return "a masked array, whose mask would be lost: x.filled(...), or x.data and x.mask as two leaves"
    return f"of type {_type(array)}, which would be lost: np.asarray(x)"


_PLAIN = (np.ndarray, np.memmap)


_NO_NUMBERS = {  # NumPy's letter for a kind of dtype -> what such an array holds, and what to give instead
    "O": ("Python objects", "lists or dicts of arrays"),
    "U": ("text", "a str or a tuple of them"),
    "S": ("bytes", "np.frombuffer(x, np.uint8)"),
    "T": ("text", "a str or a tuple of them"),
    "M": ("dates", "x.astype(np.int64)"),
    "m": ("durations", "x.astype(np.int64)"),
    "V": ("records", "{field: x[field] for field in x.dtype.names}"),
}


def _no_numbers(value: Any) -> str:
    dtype = value.dtype
    if isinstance(value, np.generic) and dtype.kind not in "VmM":
        return ""
    held, way = _NO_NUMBERS.get(dtype.kind, ("no numbers", "another dtype"))
    return f"an array of {held} (dtype {dtype}), which JAX cannot hold: {way} instead, or leave it out"


def _way(value: Any) -> str:
    cls = type(value).__name__
    if isinstance(value, Mapping):
        return "dict(x) makes a dict of it"
    if isinstance(value, (set, frozenset)):
        return "list(x) gives its elements an order"
    if hasattr(type(value), "__dataclass_fields__"):
        return f"register it, jax.tree_util.register_dataclass({cls}), or give dataclasses.asdict(x)"
    return f"register it, jax.tree_util.register_pytree_with_keys({cls}, ...), or give a dict of its arrays"


def _type(value: Any) -> str:
    cls = type(value)
    return cls.__name__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__name__}"


# Looking inside.


def _array_within(value: Any) -> str | None:
    """Where the first array is, as code on ``x``; None where none is found."""
    left = iter(range(_COUNT))
    seen = {id(value)}
    level = [("x", value)]
    for _ in range(_DEPTH):
        below: list[tuple[str, Any]] = []
        for where, node in level:
            for step, child in _inside(node):
                if next(left, None) is None:
                    return None
                if id(child) in seen or isinstance(child, _NEVER):
                    continue
                seen.add(id(child))
                if _is_array(child):
                    return where + step
                below.append((where + step, child))
        level = below
    return None


def _inside(node: Any) -> Iterator[tuple[str, Any]]:
    if is_flax(node, "linen", "Module") and node.scope is None:
        return  # its configuration: an unbound one has no parameters
    if isinstance(node, (dict, Mapping)):
        for key, child in _items(node):
            yield f"[{key!r}]", child
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(islice(node, _COUNT)):
            yield f"[{index}]", child
    elif isinstance(node, (set, frozenset)):
        for child in islice(node, _COUNT):
            yield ".pop()", child
    for key, child in attributes(node).items():
        yield f".{key}", child


def _items(node: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    try:
        return list(islice(node.items(), _COUNT))
    except Exception:  # noqa: BLE001  # somebody's own mapping, which may do anything
        return ()


def _is_array(value: Any) -> bool:
    if isinstance(value, (jax.Array, jax.Ref, jax.ShapeDtypeStruct)):
        return True
    if isinstance(value, np.ndarray):
        return is_numeric(value.dtype)
    # By type first: to ask an object for its shape may run a property of its own.
    return (
        hasattr(type(value), "__array__")
        and not isinstance(value, np.generic)
        and kind_of(value) == SlotKind.ARRAY
    )
