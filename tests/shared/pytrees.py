"""What tests of several rooms make trees with, and compare them by: bit for bit, NaN and dtype included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

structure_of: Any = jax.tree.structure  # what it gives has no type


def nest(leaves: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Leaves by name as a tree of dicts."""
    tree: dict[str, Any] = {}
    for name, leaf in dict(leaves).items():
        node = tree
        for key in name[:-1]:
            node = node.setdefault(key, {})
        node[name[-1]] = leaf
    return tree


def numbered(shape: tuple[int, ...], dtype: Any = np.float32, start: int = 0) -> np.ndarray[Any, Any]:
    """An array of small numbers that every dtype holds."""
    return ((np.arange(np.prod(shape, dtype=int)) + start) % 7).astype(dtype).reshape(shape)


def same(found: Any, expected: Any) -> bool:
    a, b = np.asarray(found), np.asarray(expected)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def same_tree(found: Any, expected: Any) -> bool:
    same_structure = structure_of(found) == structure_of(expected)
    return bool(same_structure) and all(map(same, jax.tree.leaves(found), jax.tree.leaves(expected)))


def like(tree: Any) -> Any:
    """The tree with zeros in it, NumPy's where it holds NumPy's arrays."""
    return jax.tree.map(lambda leaf: (np if isinstance(leaf, np.ndarray) else jnp).zeros_like(leaf), tree)
