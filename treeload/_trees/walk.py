"""Any tree as named slots: pytrees, boxes, NNX objects, ties.

Owns the walk: what each slot is called, and which slots share one array. How a node opens is in ``nodes``.

The walk is our own for dict, list and tuple, where it costs a fraction of JAX's flattening with keys (a name
is its parent's name and one key more). NNX objects are walked as the graphs they are: a Variable met twice is
one leaf with an alias, a reference back to an ancestor ends the walk there.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from treeload._errors import NameCollision, TreeloadError
from treeload._leaves.placement import is_weak
from treeload._leaves.spec import SlotKind, is_numeric, kind_of
from treeload._naming.name import Keys, print_name
from treeload._trees.hidden import why_altered, why_hidden
from treeload._trees.nodes import (
    ARRAY_TYPES,
    BOX,
    BY_VALUE,
    DICT,
    GRAPH,
    NAMEDTUPLE,
    OTHER,
    REF,
    SCALAR,
    SEQUENCE,
    SHARED_ARRAY,
    UNKNOWN,
    VARIABLE,
    graph_children,
    how_walked,
    is_equinox,
    is_optional,
    is_pytree_object,
    only_strings,
    open_one_level,
    refuse_two_of_one_name,
    segments,
    sorted_keys,
    variable_value,
)
from treeload._trees.tree import PyTree, Tree

if TYPE_CHECKING:
    from flax import nnx


def walk(tree: PyTree, *, arrays_tie: bool = True, traced: bool = False, mappings: bool = False) -> Tree:
    """The slots of ``tree``, in the order of ``jax.tree.leaves`` where JAX has one.

    ``arrays_tie``: one array object in two places is one leaf, as in a destination. In a source it is
    two: what is there twice can be asked for twice. NNX Variables are shared either way.
    ``traced``: the tree is being made under a JAX transformation, so its tracers are its arrays.
    ``mappings``: a mapping that JAX does not know is read as a dict: for trees that are only read.

    Raises:
        NameCollision: two keys of one node that print alike, such as ``1`` and ``"1"``.
        TreeloadError: a node of the tree cannot be opened.
    """
    # Ties, and NumPy arrays that are no numbers, are rare and cost a question at every leaf: walk as if
    # there were none, ask once, and walk again with care if there are.
    options = {"arrays_tie": arrays_tie, "traced": traced, "mappings": mappings}
    try:
        walker = _Walker(Tree(tree), careful=False, **options)
        walker.visit(tree, (), False)
        if walker.variables_shared or not _plain(walker.tree, arrays_tie):
            walker = _Walker(Tree(tree), careful=True, **options)
            walker.visit(tree, (), False)
    except TreeloadError:
        raise
    except Exception as error:
        what = type(tree).__name__
        raise TreeloadError(f"the {what} cannot be opened: {type(error).__name__}: {error}") from error
    if walker.paths_as_keys:
        _refuse_collisions(walker.tree)
    return walker.tree


def _refuse_collisions(tree: Tree) -> None:
    """Raises NameCollision where a key that is a path leads to, or through, another leaf of the tree."""
    names = [*tree.names, *(alias for aliases in tree.aliases.values() for alias in aliases)]
    taken = set(names)
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise NameCollision(
            f"two leaves have one name, {print_name(twice)!r}: a key that is a tuple is a path"
        )
    for name in names:
        above = next((name[:depth] for depth in range(1, len(name)) if name[:depth] in taken), None)
        if above is not None:
            raise NameCollision(
                f"{print_name(name)!r} lies below another leaf, {print_name(above)!r}: a key that is a tuple "
                "is a path"
            )


def _plain(tree: Tree, arrays_tie: bool) -> bool:
    """Whether no array of a hasty walk is there twice, or of a dtype that JAX has not."""
    arrays = tree.values
    if len(tree.variables) == len(arrays):
        return True  # what a Variable holds is no tie, and was looked at
    if tree.variables or any(tree.kinds):
        arrays = [
            value
            for index, (value, kind) in enumerate(zip(arrays, tree.kinds, strict=True))
            if kind == SlotKind.ARRAY and index not in tree.variables
        ]
    types = set(map(type, arrays))
    if not types <= ARRAY_TYPES:
        arrays = [
            array for array in arrays if how_walked(array) == SHARED_ARRAY
        ]  # specs and NumPy scalars are no ties
    if np.ndarray in types and any(
        isinstance(dtype, np.dtype) and not is_numeric(dtype) for dtype in set(map(_DTYPE, arrays))
    ):
        return False
    if not arrays_tie:
        return True
    ids = np.fromiter(map(id, arrays), np.int64, len(arrays))  # a third of the time of a set
    ids.sort()
    return not bool((ids[1:] == ids[:-1]).any())


_DTYPE = operator.attrgetter("dtype")


_SPECS = {jax.ShapeDtypeStruct}


class _Walker:
    """One walk: the lists being filled and what was seen on the way."""

    def __init__(self, tree: Tree, *, careful: bool, arrays_tie: bool, traced: bool, mappings: bool) -> None:
        self.tree = tree
        self.values, self.kinds = tree.values, tree.kinds
        self.careful = careful
        self.arrays_tie = arrays_tie
        self.traced = traced
        self.mappings = mappings
        self.paths_as_keys = False
        self.visits = tree.visits
        self.seen: dict[int, int] = {}  # id of an array -> index of its slot
        self.variables: dict[int, tuple[Any, int, int]] = {}  # id of a Variable -> itself, its slots
        self.variables_shared = False
        self.ancestors: set[int] = set()

    def visit(self, node: Any, name: Keys, fixed: bool) -> None:
        """``fixed``: inside an object whose Python numbers are its configuration, so static."""
        how = how_walked(node)
        if how == VARIABLE:
            self.variable(node, name, variable_value)
        elif how == SHARED_ARRAY:
            self.array(node, name)
        elif how == DICT:
            self.dict(node, name, fixed)
        elif how == SEQUENCE:
            for index, child in enumerate(node):
                self.visit(child, (*name, str(index)), fixed)
        elif how == NAMEDTUPLE:
            for field_name, child in zip(node._fields, node, strict=True):
                self.visit(child, (*name, field_name), fixed)
        elif how == GRAPH:
            if id(node) not in self.ancestors:
                self.ancestors.add(id(node))
                fixed = fixed or not is_pytree_object(node)
                for key, child in graph_children(node):
                    if how_walked(child) == VARIABLE:
                        self.variable(child, name + (key,), variable_value)  # noqa: RUF005  # as below
                        continue
                    if isinstance(child, jax.core.Tracer) and not self.traced:
                        child = jax.ShapeDtypeStruct(child.shape, child.dtype, weak_type=is_weak(child))
                    self.visit(child, (*name, key), fixed)
                self.ancestors.discard(id(node))
        elif how == REF:
            self.variable(node, name, _ref_value)
        elif how in (BOX, OTHER):
            self.opened(node, name, fixed or is_equinox(type(node)), transparent=how == BOX)
        elif how == BY_VALUE:
            kind = kind_of(node)
            if kind == SlotKind.STATIC or not isinstance(node, (bool, np.ndarray)):
                self.opened(node, name, fixed, transparent=False, leaf=kind)
            else:
                self.number(node, name, kind, fixed and isinstance(node, bool))
        else:
            self.number(node, name, SlotKind(how), fixed and how == SCALAR)

    def dict(self, node: Mapping[Any, Any], name: Keys, fixed: bool) -> None:
        """A dict: the hot place of every plan, so one of nothing but arrays and specs is taken at once."""
        keys = sorted_keys(node)
        if not only_strings(node):
            refuse_two_of_one_name(keys, name)
            for key in keys:
                more = segments(key)
                self.paths_as_keys = self.paths_as_keys or len(more) > 1
                self.visit(node[key], (*name, *more), fixed)
            return
        types = set(map(type, node.values()))
        if self.careful or not (types <= ARRAY_TYPES or types <= _SPECS):
            for key in keys:
                child, below = node[key], name + (key,)  # noqa: RUF005  # half the time of unpacking
                if type(child) is dict:
                    self.dict(child, below, fixed)  # as visit does, which has to ask what it is
                else:
                    self.visit(child, below, fixed)
            return
        children = node.values() if keys == list(node) else [node[key] for key in keys]
        self.tree.kept_names.extend_below(name, keys)
        self.values.extend(children)
        self.kinds.extend(bytes(len(children)))

    def opened(
        self, node: Any, name: Keys, fixed: bool, *, transparent: bool, leaf: SlotKind = SlotKind.STATIC
    ) -> None:
        """A node that JAX may know: its children, or itself as a leaf."""
        children = open_one_level(node, name)
        if children is UNKNOWN:
            if leaf == SlotKind.STATIC and self.mappings and isinstance(node, Mapping):
                self.dict(node, name, fixed)
            elif leaf == SlotKind.STATIC:
                self.static(node, name, fixed)
            else:
                self.slot(node, name, leaf)
            return
        if any(child.keyless for child in children):
            self.tree.keyless[name] = tuple(child.keys for child in children)
        transparent = transparent and len(children) == 1
        for keys, child, _, made_up in children:
            below = name if transparent else (*name, *keys)
            self.paths_as_keys = self.paths_as_keys or len(keys) > 1
            if made_up:
                self.tree.made_up.add(below)
            self.visit(child, below, fixed)

    def number(self, value: Any, name: Keys, kind: SlotKind, fixed: bool) -> None:
        if fixed:
            self.static(value, name, fixed)
        else:
            self.slot(value, name, kind)

    def static(self, value: Any, name: Keys, fixed: bool) -> None:
        if fixed:
            self.tree.configuration.add(name)
        self.slot(value, name, SlotKind.STATIC)

    def slot(self, value: Any, name: Keys, kind: SlotKind) -> None:
        if self.careful:
            self.visits.append(len(self.values))
        if kind is _STATIC and (why := why_hidden(value)):
            self.tree.hidden[name] = why
        self.tree.kept_names.append(name)
        self.values.append(value)
        self.kinds.append(kind)

    def array(self, value: Any, name: Keys) -> None:
        if type(value) not in ARRAY_TYPES and isinstance(value, np.ndarray):
            self.note_altered(value, name)
        if not (self.careful and self.arrays_tie):
            self.slot(value, name, kind_of(value))
            return
        index = len(self.values)
        known = self.seen.setdefault(id(value), index)
        if known == index:
            self.slot(value, name, kind_of(value))
        else:
            self.visits.append(known)
            self.tree.aliases.setdefault(self.tree.names[known], []).append(name)

    def note_altered(self, value: np.ndarray[Any, Any], name: Keys) -> None:
        if why := why_altered(value):
            self.tree.hidden[name] = why

    def variable(
        self, variable: nnx.Variable[Any] | jax.Ref, name: Keys, value_of: Callable[[Any], Any]
    ) -> None:
        """A Variable, or a Ref beside one: whatever can be shared and written to."""
        identity = id(variable)  # once: an audit hook, where one is set, makes it dear
        known = self.variables.get(identity)
        if known is not None:
            self.variables_shared = True
            self.alias(known[1], known[2], name)
            return
        start = len(self.values)
        value = value_of(variable)
        if type(value) in ARRAY_TYPES and type(value) is not np.ndarray and not self.careful:  # nearly all
            self.tree.variables[start] = variable
            self.tree.kept_names.append(name)
            self.values.append(value)
            self.kinds.append(0)
        elif how_walked(value) == SHARED_ARRAY:
            # Two Variables that hold one array are two leaves: only the Variable is shared.
            self.tree.variables[start] = variable
            if isinstance(value, np.ndarray):
                self.note_altered(value, name)
                self.slot(value, name, kind_of(value))
            else:
                self.slot(value, name, _ARRAY)
        else:
            self.visit(value, name, False)
        self.variables[identity] = (variable, start, len(self.values))
        if is_optional(type(variable)):
            self.tree.optional.update(self.tree.names[start:])

    def alias(self, start: int, end: int, name: Keys) -> None:
        """A Variable met again: each of its slots has one more name."""
        if not self.careful:
            return  # the second walk will say it
        # What its slots have in common is the Variable's own name.
        depth = len(self.tree.names[start]) if end - start == 1 else _common_depth(self.tree.names[start:end])
        for index in range(start, end):
            self.visits.append(index)
            canonical = self.tree.names[index]
            if self.kinds[index] <= SlotKind.SCALAR:
                self.tree.aliases.setdefault(canonical, []).append((*name, *canonical[depth:]))
                self.tree.shared.add(canonical)


def _ref_value(ref: jax.Ref) -> Any:
    return ref[...]


# Asked for at every slot, where an attribute of an enumeration is slow.
_ARRAY, _STATIC = SlotKind.ARRAY, SlotKind.STATIC


def _common_depth(names: Sequence[Keys]) -> int:
    depth = 0
    while len({name[: depth + 1] for name in names}) == 1:
        depth += 1
    return depth
