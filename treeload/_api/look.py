"""What is there: ``open`` and ``inspect`` a checkpoint, ``state`` and ``names`` of a tree."""

from __future__ import annotations

import os
from typing import Any

from treeload._errors import RuleError
from treeload._formats import open_source
from treeload._matching.parts import opened_source
from treeload._reports.inventory import Inventory, inventory
from treeload._sources import given
from treeload._sources.part import From
from treeload._sources.source import Source, read_again
from treeload._trees.tree import PyTree, nested, printed_names


def open(path: str | os.PathLike[str]) -> Source:
    """The checkpoint at ``path``, opened: its names, shapes and dtypes are known, its arrays not read.

    Raises:
        SourceError: nothing is there, or nothing that treeload knows; or it is incomplete or malformed.
        TypeError: ``path`` is no path.
    """
    given.place(path, "open")
    return open_source(path)


def inspect(src: Any) -> Inventory:
    """What a source holds: names, shapes, dtypes, bytes, ties, metadata; no array is read.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> print(treeload.inspect({"w": jnp.ones((2, 3))}))
        1 leaf, 6 elements, 24 B in a tree in memory
        <BLANKLINE>
          w  float32[2,3]  24 B

    A ``From`` says how a source is to be opened: its ``item``, ``separator``, ``format`` or ``whole``.

    Raises:
        SourceError: as ``open``.
        RuleError: a ``From`` that says more, or an option that the source has not.
    """
    part = src if isinstance(src, From) else From(src)
    if part.subtree or part.into or part.rules or part.by_position or part.version is not None:
        raise RuleError(
            "inspect lists a source as it is: of a From it takes item, separator, format and whole alone"
        )
    return read_again(
        lambda: inventory(
            opened_source(
                part.src,
                "inspect",
                item=part.item,
                separator=part.separator,
                stated_format=part.format,
                whole=part.whole,
            )
        )
    )


def state(tree: PyTree) -> Any:
    """The nested dict of what would load from ``tree``, and nothing else.

    Statics, absent slots and empty nodes are left out, boxes are opened, lists become dicts keyed by
    index, tied leaves are there once under their canonical name. A Python flag is there whichever way it
    stands: ``False`` is a flag's value, and an absence only where it meets an array. Arrays are not copied.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> treeload.state({"w": jnp.ones(2), "layers": [jnp.zeros(1), None], "act": "relu"})
        {'layers': {'0': Array([0.], dtype=float32)}, 'w': Array([1., 1.], dtype=float32)}

    Raises:
        NameCollision: two leaves have one name.
    """
    walked = given.read_only(tree, "state", traced=True)
    return nested({**dict.fromkeys(walked.flags_off(), False), **dict(walked.leaves())})


def names(tree: PyTree) -> tuple[str, ...]:
    """The printed names of the leaves of ``tree``, tied ones once, in the tree's order.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> treeload.names({"layers": [{"kernel": jnp.ones(2), "bias": None}], "n": 3})
        ('layers/0/kernel', 'n')

    Raises:
        NameCollision: two leaves have one name.
    """
    return printed_names(given.read_only(tree, "names", traced=True))
