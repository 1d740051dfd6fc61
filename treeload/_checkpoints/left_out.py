"""What a save cannot store: values that are no arrays and no numbers.

Owns which they are, and which of them are worth a warning. What a module holds as its own making (the
activation function and the dropout rate of an Equinox module) is the code's, which makes the module again; a
text or a function in a plain dict is somebody's data.
"""

from __future__ import annotations

import warnings

from treeload._errors import TreeloadWarning
from treeload._leaves.spec import SlotKind, static_words
from treeload._naming.name import Name, print_name
from treeload._trees.tree import Tree

_SHOWN = 8


_EMPTY = "the tree holds no array and no number, and the checkpoint none that could be loaded"


_PLAIN = (dict, list, tuple, type(None))
"""An empty one is somebody's own; an empty state, say, is what a filter has left of a model."""


def left_out(tree: Tree) -> dict[Name, str]:
    """The name of each value that is not stored, and what it is."""
    return {
        Name(name): static_words(value)
        for name, value, kind in zip(tree.names, tree.values, tree.kinds, strict=True)
        if kind == SlotKind.STATIC
    }


def warn_of_left_out(tree: Tree, *, stacklevel: int) -> None:
    """One warning of all that is somebody's data, or that nothing is saved, told so many calls above."""
    said = [
        f"{print_name(name)} ({what})"
        for name, what in left_out(tree).items()
        if name not in tree.configuration
    ]
    is_meant = isinstance(tree.root, _PLAIN) or any(kind <= SlotKind.SCALAR for kind in tree.kinds)
    empty = "" if is_meant else _EMPTY
    if not said:
        if empty:
            warnings.warn(empty, TreeloadWarning, stacklevel=stacklevel + 1)
        return
    more = f" and {len(said) - _SHOWN:,} more" if len(said) > _SHOWN else ""
    count = f"{len(said):,} values are no arrays and no numbers"
    if len(said) == 1:
        count = "1 value is no array and no number"
    warnings.warn(
        f"{count}, and the save leaves out: {', '.join(said[:_SHOWN])}{more}; "
        f"what is to be kept of it goes into metadata={empty and f'; {empty}'}",
        TreeloadWarning,
        stacklevel=stacklevel + 1,
    )
