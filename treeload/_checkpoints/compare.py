"""Two trees or checkpoints compared: which leaves both have, and how far their values are apart.

Owns the comparison. Refuses to own how it is told (``_reports.diff``) and the reading (``view``). The
structure is compared first, from the specs; then leaves are read in pairs and let go, so that at no time
more is held than a leaf of each side.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from treeload._checkpoints.view import View, batches
from treeload._leaves.spec import is_key
from treeload._naming.name import Name
from treeload._reports.diff import Diff, LeafDiff

_CHUNK = 1 << 17  # elements compared at once


def diff(a: View, b: View) -> Diff:
    """What differs between two views; see ``treeload.diff``."""
    a, b = a.beside(b.specs()), b.beside(a.specs())
    found = _structure(a, b)
    a_specs, b_specs = a.specs(), b.specs()
    compared = {name: a_specs[name] for name, leaf in found.items() if _can_be_compared(leaf)}
    for batch in batches(compared, sources=2):
        held = dict(a.read(batch))
        for name, array in b.read({name: b_specs[name] for name in batch}):
            found[name] = _compare(found[name], held.pop(name), array)
    return Diff(a.label, b.label, tuple(found.values()))


def _structure(a: View, b: View) -> dict[Name, LeafDiff]:
    """Every leaf of either side, by its first name; a name that only one side has for a leaf that the
    other side has under another name is none."""
    a_specs, b_specs = a.specs(), b.specs()
    a_ties, b_ties = a.ties(), b.ties()
    found: dict[Name, LeafDiff] = {}
    both = [name for name in a_specs if name in b_specs]
    shared = {(a_ties.get(name, name), b_ties.get(name, name)): name for name in reversed(both)}
    known_a, known_b = {a_ties.get(name, name) for name in both}, {b_ties.get(name, name) for name in both}
    for name, spec in a_specs.items():
        stored = a_ties.get(name, name)
        if name in b_specs:
            if shared[stored, b_ties.get(name, name)] == name:
                found[name] = LeafDiff(name, spec, b_specs[name])
        elif name == stored and stored not in known_a:
            found[name] = LeafDiff(name, spec, None)
    for name, spec in b_specs.items():
        if name not in a_specs and name not in b_ties and name not in known_b:
            found[name] = LeafDiff(name, None, spec)
    return found


def _can_be_compared(leaf: LeafDiff) -> bool:
    if leaf.a is None or leaf.b is None or leaf.a.shape != leaf.b.shape:
        return False
    return leaf.a.dtype == leaf.b.dtype or not (is_key(leaf.a.dtype) or is_key(leaf.b.dtype))


def _compare(leaf: LeafDiff, a: Any, b: Any) -> LeafDiff:
    if is_key(a.dtype):
        words_a, words_b = (np.asarray(jax.random.key_data(keys)) for keys in (a, b))
        differs = (words_a != words_b).reshape(*a.shape, -1).any(axis=-1)
        return replace(leaf, differing=int(differs.sum()))
    flat_a, flat_b = (np.asarray(array).reshape(-1) for array in (a, b))
    differing, largest, relative = 0, 0.0, 0.0
    for start in range(0, flat_a.size, _CHUNK):
        many, most, share = _compare_numbers(flat_a[start : start + _CHUNK], flat_b[start : start + _CHUNK])
        differing += many
        largest, relative = _larger(largest, most), _larger(relative, share)
    return replace(leaf, differing=differing, largest=largest, relative=relative)


def _larger(one: float, other: float) -> float:
    return float(np.maximum(one, other))  # hands NaN on, as max does not


def _compare_numbers(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[int, float, float]:
    """How many elements differ, the largest difference, and the largest relative one."""
    with np.errstate(all="ignore"):
        differs = (a != b) & ~((a != a) & (b != b))
        count = int(differs.sum())
        if not count:
            return 0, 0.0, 0.0
        x, y = (_wide(side[differs]) for side in (a, b))
        if x.dtype.kind in "iu" and x.dtype == y.dtype:
            # Of two integers the difference may need one bit more than they have, but no sign.
            apart = (np.maximum(x, y).view(np.uint64) - np.minimum(x, y).view(np.uint64)).astype(np.float64)
        else:
            apart = np.abs(x - y)
        larger = np.maximum(np.abs(x + 0.0), np.abs(y + 0.0))  # as floats: the least integer has no abs
        relative = np.where(np.isinf(apart) & np.isinf(larger), 1.0, apart / larger)
        return count, float(apart.max()), float(relative.max())


def _wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``array`` in a dtype of 64 bits of its kind, in which differences can be taken."""
    for kind, wide in ((np.complexfloating, np.complex128), (np.floating, np.float64)):
        if jax.dtypes.issubdtype(array.dtype, kind):
            return array.astype(wide)
    return array.astype(np.uint64 if array.dtype == np.uint64 else np.int64)
