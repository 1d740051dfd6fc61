"""Any tree as named slots, and back: pytrees, boxes, NNX objects, ties.

Owns how a tree is walked, what each slot is called, which slots share one array, and how the tree is
made again with other values in it. Refuses to own what the values should be (``_match``,
``_execute``).

The walk is our own for dict, list and tuple, where it costs a fraction of JAX's flattening with keys
(a name is its parent's name and one key more); every other node is opened by JAX one level at a time,
so whatever is registered as a pytree is understood. Two kinds of node are known by type. **Boxes**
(``nnx.Variable``, ``flax.core.meta.AxisMetadata``) add no segment to a name. **NNX objects** are
walked as the graphs they are: a Variable met twice is one leaf with an alias, a reference back to an
ancestor ends the walk there.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import nnx
from flax.core.meta import AxisMetadata

from treeload._errors import NameCollision, TreeloadError
from treeload._names import Name, print_name
from treeload._specs import Kind, is_numeric, kind_of, kind_of_type

Keys: TypeAlias = tuple[str, ...]
PyTree: TypeAlias = Any

# How a node of some type is walked. Values above the four slot kinds, so that one lookup decides.
_ARRAY, _SCALAR, _ABSENT, _STATIC = Kind
_SHARED_ARRAY, _BY_VALUE, _DICT, _SEQUENCE, _NAMEDTUPLE, _VARIABLE, _GRAPH, _BOX, _OTHER = range(10, 19)
_OPTIONAL = (nnx.RngState, nnx.Cache, nnx.Intermediate)


@dataclass(eq=False)
class Tree:
    """A walked tree: its slots in the tree's order, as parallel lists.

    Attributes:
        root: the tree itself.
        names: the canonical name of each slot; a tied slot is here once.
        values: what each slot holds; an array, a spec, a number, None, False, or a static.
        kinds: the kind of each slot.
        aliases: canonical name → the other names of the same array, in the tree's order.
        shared: those canonical names that are shared by an NNX Variable, not by an array object.
        optional: names of slots that hold NNX state which a checkpoint may lack.
        visits: for each visit of the walk, the index of its slot, where there are ties; empty where each
            slot is visited once, in order.
        variables: the index of each slot that is all an NNX Variable holds, and that Variable.
    """

    root: PyTree
    names: list[Keys] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    kinds: bytearray = field(default_factory=bytearray)
    aliases: dict[Keys, list[Keys]] = field(default_factory=dict)
    shared: set[Keys] = field(default_factory=set)
    optional: set[Keys] = field(default_factory=set)
    visits: list[int] = field(default_factory=list)
    variables: dict[int, nnx.Variable[Any]] = field(default_factory=dict)

    def leaves(self) -> Iterator[tuple[Keys, Any]]:
        """Name and value of every slot that holds an array or a number."""
        for name, value, kind in zip(self.names, self.values, self.kinds, strict=True):
            if kind <= Kind.SCALAR:
                yield name, value


def walk(tree: PyTree, *, arrays_tie: bool = True, traced: bool = False) -> Tree:
    """The slots of ``tree``, in the order of ``jax.tree.leaves`` where JAX has one.

    ``arrays_tie``: one array object in two places is one leaf, as in a destination. In a source it is
    two: what is there twice can be asked for twice. NNX Variables are shared either way.
    ``traced``: the tree is being made under a JAX transformation, so its tracers are its arrays.

    Raises:
        NameCollision: two keys of one node that print alike, such as ``1`` and ``"1"``.
    """
    # Ties, and NumPy arrays that are no numbers, are rare and cost a question at every leaf: walk as if
    # there were none, ask once, and walk again with care if there are.
    walker = _Walker(Tree(tree), careful=False, arrays_tie=arrays_tie, traced=traced)
    walker.visit(tree, (), False)
    if walker.variables_shared or not _plain(walker.tree, arrays_tie):
        walker = _Walker(Tree(tree), careful=True, arrays_tie=arrays_tie, traced=traced)
        walker.visit(tree, (), False)
    return walker.tree


def _plain(tree: Tree, arrays_tie: bool) -> bool:
    """Whether no array of a hasty walk is there twice, or of a dtype that JAX has not."""
    arrays = tree.values
    if tree.variables or any(tree.kinds):  # what a Variable holds is no tie, and was looked at
        arrays = [
            value
            for index, (value, kind) in enumerate(zip(arrays, tree.kinds, strict=True))
            if kind == Kind.ARRAY and index not in tree.variables
        ]
    types = set(map(type, arrays))
    if not types <= _ARRAYS:
        arrays = [
            array for array in arrays if _how(array) == _SHARED_ARRAY
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


class _Walker:
    """One walk: the lists being filled and what was seen on the way."""

    def __init__(self, tree: Tree, *, careful: bool, arrays_tie: bool, traced: bool) -> None:
        self.tree = tree
        self.names, self.values, self.kinds = tree.names, tree.values, tree.kinds
        self.careful = careful
        self.arrays_tie = arrays_tie
        self.traced = traced
        self.visits = tree.visits
        self.seen: dict[int, int] = {}  # id of an array -> index of its slot
        self.variables: dict[int, tuple[Any, int, int]] = {}  # id of a Variable -> itself, its slots
        self.variables_shared = False
        self.ancestors: set[int] = set()

    def visit(self, node: Any, name: Keys, fixed: bool) -> None:
        """``fixed``: inside an object whose Python numbers are its configuration, so static."""
        how = _how(node)
        if how == _SHARED_ARRAY:
            self.array(node, name)
        elif how == _DICT:
            self.dict(node, name, fixed)
        elif how == _SEQUENCE:
            for index, child in enumerate(node):
                self.visit(child, (*name, str(index)), fixed)
        elif how == _NAMEDTUPLE:
            for field_name, child in zip(node._fields, node, strict=True):
                self.visit(child, (*name, field_name), fixed)
        elif how == _VARIABLE:
            self.variable(node, name)
        elif how == _GRAPH:
            if id(node) not in self.ancestors:
                self.ancestors.add(id(node))
                fixed = fixed or not _is_pytree_object(node)
                for key, child in graph_children(node):
                    if isinstance(child, jax.core.Tracer) and not self.traced:
                        child = jax.ShapeDtypeStruct(child.shape, child.dtype)
                    self.visit(child, (*name, key), fixed)
                self.ancestors.discard(id(node))
        elif how in (_BOX, _OTHER):
            self.opened(node, name, fixed or _is_equinox(type(node)), transparent=how == _BOX)
        elif how == _BY_VALUE:
            kind = kind_of(node)
            if kind == Kind.STATIC:
                self.opened(node, name, fixed, transparent=False)
            else:
                self.slot(node, name, Kind.STATIC if fixed and isinstance(node, bool) else kind)
        else:
            self.slot(node, name, Kind.STATIC if fixed and how == _SCALAR else Kind(how))

    def dict(self, node: Mapping[Any, Any], name: Keys, fixed: bool) -> None:
        """A dict: the hot place of every plan, so one that holds nothing but arrays is taken at once."""
        keys, printed = _sorted_keys(node, name)
        if self.careful or not set(map(type, node.values())) <= _ARRAYS:
            for key, text in zip(keys, printed, strict=True):
                self.visit(node[key], (*name, text), fixed)
            return
        children = [node[key] for key in keys]
        self.names.extend([name + (text,) for text in printed])  # noqa: RUF005  # half the time of unpacking
        self.values.extend(children)
        self.kinds.extend(bytes(len(children)))

    def opened(self, node: Any, name: Keys, fixed: bool, *, transparent: bool) -> None:
        """A node that JAX may know: its children, or itself as a static."""
        children = _open_one_level(node, name)
        if children is _LEAF:
            self.slot(node, name, Kind.STATIC)
            return
        transparent = transparent and len(children) == 1
        for key, child in children:
            self.visit(child, name if transparent else (*name, key), fixed)

    def slot(self, value: Any, name: Keys, kind: Kind) -> None:
        if self.careful:
            self.visits.append(len(self.names))
        self.names.append(name)
        self.values.append(value)
        self.kinds.append(kind)

    def array(self, value: Any, name: Keys) -> None:
        if not (self.careful and self.arrays_tie):
            self.slot(value, name, kind_of(value))
            return
        index = len(self.names)
        known = self.seen.setdefault(id(value), index)
        if known == index:
            self.slot(value, name, kind_of(value))
        else:
            self.visits.append(known)
            self.tree.aliases.setdefault(self.names[known], []).append(name)

    def variable(self, variable: nnx.Variable[Any], name: Keys) -> None:
        identity = id(variable)  # once: an audit hook, where one is set, makes it dear
        known = self.variables.get(identity)
        if known is not None:
            self.variables_shared = True
            self.alias(known[1], known[2], name)
            return
        start = len(self.names)
        value = variable_value(variable)
        if _how(value) == _SHARED_ARRAY:
            # Two Variables that hold one array are two leaves: only the Variable is shared.
            self.tree.variables[start] = variable
            self.slot(value, name, kind_of(value) if isinstance(value, np.ndarray) else Kind.ARRAY)
        else:
            self.visit(value, name, False)
        self.variables[identity] = (variable, start, len(self.names))
        if _is_optional(type(variable)):
            self.tree.optional.update(self.names[start:])

    def alias(self, start: int, end: int, name: Keys) -> None:
        """A Variable met again: each of its slots has one more name."""
        if not self.careful:
            return  # the second walk will say it
        # What its slots have in common is the Variable's own name.
        depth = len(self.names[start]) if end - start == 1 else _common_depth(self.names[start:end])
        for index in range(start, end):
            self.visits.append(index)
            canonical = self.names[index]
            if self.kinds[index] <= Kind.SCALAR:
                self.tree.aliases.setdefault(canonical, []).append((*name, *canonical[depth:]))
                self.tree.shared.add(canonical)


@functools.cache
def _is_optional(cls: type) -> bool:
    return issubclass(cls, _OPTIONAL)


def _common_depth(names: Sequence[Keys]) -> int:
    depth = 0
    while len({name[: depth + 1] for name in names}) == 1:
        depth += 1
    return depth


def variable_value(variable: nnx.Variable[Any]) -> Any:
    """What a Variable holds, without the hooks that reading it may run."""
    raw = variable.get_raw_value()
    return raw[...] if _is_ref(raw) else raw


def _is_ref(raw: Any) -> bool:
    # Flax's question costs more than all else that is done for a leaf, and most are plain arrays.
    return type(raw) not in _ARRAYS and bool(nnx.graph.is_array_ref(raw))  # type: ignore[attr-defined]  # it is there


def rebuild(tree: Tree, values: Sequence[Any]) -> PyTree:
    """A new tree like ``tree`` with ``values`` in its slots; containers, boxes and sharing are kept.

    Nothing of ``tree`` is changed or shared but its statics. ``values`` is indexed as ``tree.names``.
    """
    return _Builder(tree, values).build(tree.root)


def assign(tree: Tree, values: Sequence[Any]) -> None:
    """Puts ``values`` into the NNX object that ``tree`` was walked from, all or none of them.

    Raises:
        TreeloadError: the object refused an assignment (inside a transform, say); it is as before.
    """
    builder = _Builder(tree, values)
    changed = [index for index, value in enumerate(values) if value is not tree.values[index]]
    try:
        if tree.variables.keys() >= set(changed):
            for index in changed:
                builder.set_variable(tree.variables[index], values[index])
        else:  # into attributes, and into what Variables hold that is no array: by the way of the walk
            builder.put(tree.root)
    except Exception as error:
        for undo, *arguments in reversed(builder.undo):
            undo(*arguments)
        raise TreeloadError(f"the {type(tree.root).__name__} refused its new values: {error}") from error


def updatable(tree: PyTree) -> bool:
    """Whether values can be put into this very object: NNX Modules, Optimizers, Variables."""
    return _how(tree) in (_GRAPH, _VARIABLE)


class _Builder:
    """One pass in the order of the walk that hands each visited slot its new value."""

    def __init__(self, tree: Tree, values: Sequence[Any]) -> None:
        self.values = values
        self.order = iter(tree.visits or range(len(tree.names)))
        self.made: dict[int, tuple[Any, Any]] = {}  # id of a Variable -> (itself, its new self)
        self.clones: dict[int, Any] | None = None
        self.ancestors: set[int] = set()
        self.tree = tree
        self.undo: list[tuple[Any, ...]] = []  # for each change made: a function and its arguments

    def build(self, node: Any) -> Any:
        """A new node with the new values."""
        how = _how(node)
        if how == _DICT:
            made = {key: self.build(node[key]) for key in _sorted_keys(node, ())[0]}
            return {key: made[key] for key in node}
        if how == _SEQUENCE:
            return type(node)(map(self.build, node))
        if how == _NAMEDTUPLE:
            return type(node)(*map(self.build, node))
        if how in (_GRAPH, _VARIABLE):
            clone = self.clone(node)
            # The clone shares no Variable with the original, so it may be filled in place.
            return self.variable(node) if clone is None else self.put(clone)
        if how in (_BOX, _OTHER, _BY_VALUE):
            children, treedef = jax.tree_util.tree_flatten(node, is_leaf=lambda child: child is not node)
            if not _is_leaf(node, children):
                return jax.tree_util.tree_unflatten(treedef, list(map(self.build, children)))
        return self.values[next(self.order)]

    def variable(self, variable: nnx.Variable[Any]) -> Any:
        made = self.made.get(id(variable))
        value = self.build_value(variable)
        if made is not None:
            return made[1]
        _, treedef = jax.tree_util.tree_flatten(variable, is_leaf=lambda child: child is not variable)
        new = jax.tree_util.tree_unflatten(treedef, [value])
        self.made[id(variable)] = (variable, new)
        return new

    def build_value(self, variable: nnx.Variable[Any]) -> Any:
        return self.build(variable_value(variable))

    def clone(self, node: Any) -> Any:
        """A copy of an NNX object, or of a Variable beside one; None where the tree has Variables only."""
        if self.clones is None:
            # All of them in one call: a Variable shared between two, or with the tree, stays shared.
            roots = list(_nnx_roots(self.tree.root))
            objects = any(_how(root) == _GRAPH for root in roots)
            self.clones = dict(zip(map(id, roots), nnx.clone(roots), strict=True)) if objects else {}
        return self.clones.get(id(node))

    def put(self, node: Any) -> Any:
        """``node`` with the new values: Variables and NNX objects in place, all else anew."""
        how = _how(node)
        if how == _VARIABLE:
            made = self.made.get(id(node))
            value = self.build_value(node)
            if made is None:
                self.made[id(node)] = (node, node)
                self.set_variable(node, value)
            return node
        if how == _GRAPH:
            if id(node) not in self.ancestors:
                self.ancestors.add(id(node))
                for key, child in graph_children(node):
                    new = self.put(child)
                    if new is not child:
                        self.set_attribute(node, key, new)
                self.ancestors.discard(id(node))
            return node
        if how == _SEQUENCE:
            return self.keep_if_same(node, type(node)(map(self.put, node)))
        if how == _NAMEDTUPLE:
            return self.keep_if_same(node, type(node)(*map(self.put, node)))
        if how == _DICT:
            made_children = {key: self.put(node[key]) for key in _sorted_keys(node, ())[0]}
            same = all(made_children[key] is node[key] for key in node)
            return node if same else {key: made_children[key] for key in node}
        if how in (_BOX, _OTHER, _BY_VALUE):
            children, treedef = jax.tree_util.tree_flatten(node, is_leaf=lambda child: child is not node)
            if not _is_leaf(node, children):
                new = list(map(self.put, children))
                same = all(a is b for a, b in zip(new, children, strict=True))
                return node if same else jax.tree_util.tree_unflatten(treedef, new)
        return self.values[next(self.order)]

    @staticmethod
    def keep_if_same(node: Any, made: Any) -> Any:
        return node if all(a is b for a, b in zip(made, node, strict=True)) else made

    def set_variable(self, variable: nnx.Variable[Any], value: Any) -> None:
        raw = variable.get_raw_value()
        if _is_ref(raw):
            self.undo.append((raw.__setitem__, ..., raw[...]))
            raw[...] = value
        else:
            variable.set_raw_value(value)
            self.undo.append((variable.set_raw_value, raw))

    def set_attribute(self, node: Any, key: str, value: Any) -> None:
        old = vars(node)[key]
        was_static = _is_pytree_object(node) and not _is_data(node).get(key, True)
        setattr(node, key, nnx.data(value) if was_static else value)
        self.undo.append((setattr, node, key, nnx.static(old) if was_static else old))


def graph_children(node: Any) -> list[tuple[str, Any]]:
    """The attributes of an NNX object that hold data, by name, in NNX's order.

    To Flax an attribute that is a tracer is static, and ``nnx.eval_shape`` leaves it behind as it is: an
    array attribute of an abstract Module is a dead tracer. It is data here, and so is a spec.
    """
    whole = not _is_pytree_object(node)  # Flax marks nothing in it, and takes all of it for data
    is_data = _is_data(node)
    if not (whole or is_data):  # a Flax that keeps its books elsewhere
        children = _open_one_level(node, ())
        return [(key, child) for key, child in children if not key.startswith(_INTERNAL)]
    children = [  # three times faster than by JAX's flattening
        (key, child)
        for key, child in vars(node).items()
        if (whole or is_data.get(key) or isinstance(child, _UNMARKED)) and not key.startswith(_INTERNAL)
    ]
    children.sort(key=_by_number if getattr(node, "_pytree__has_int_keys", False) else _by_key)
    return children


def _is_data(node: Any) -> Mapping[str, bool]:
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


def _nnx_roots(node: Any) -> Iterator[Any]:
    """The outermost NNX objects and Variables of a tree, each visit of each."""
    how = _how(node)
    if how in (_GRAPH, _VARIABLE):
        yield node
    elif how == _DICT:
        for child in node.values():
            yield from _nnx_roots(child)
    elif how in (_SEQUENCE, _NAMEDTUPLE):
        for child in node:
            yield from _nnx_roots(child)
    elif how in (_BOX, _OTHER, _BY_VALUE):
        children, _ = jax.tree_util.tree_flatten(node, is_leaf=lambda child: child is not node)
        if not _is_leaf(node, children):
            for child in children:
                yield from _nnx_roots(child)


def _sorted_keys(node: Mapping[Any, Any], name: Keys) -> tuple[list[Any], list[str]]:
    """The keys of a dict in JAX's order, and their key strings."""
    if set(map(type, node)) <= _STRINGS:
        keys = sorted(node)
        return keys, keys
    try:
        keys = sorted(node)
    except TypeError:
        keys = sorted(node, key=lambda key: (str(key), type(key).__name__))  # JAX itself refuses such a dict
    strings = list(map(str, keys))
    if len(set(strings)) < len(strings):
        twice = next(string for string in strings if strings.count(string) > 1)
        at = print_name(name) or "the root"
        both = ", ".join(repr(key) for key in keys if str(key) == twice)
        raise NameCollision(f"the keys {both} at {at} have one name, {print_name((*name, twice))!r}")
    return keys, strings


_STRINGS = {str}


_LEAF: list[tuple[str, Any]] = []
"""What ``_open_one_level`` gives for a node that JAX does not know: it is a leaf itself."""


def _open_one_level(node: Any, name: Keys) -> list[tuple[str, Any]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)
    if len(flat) == 1 and not flat[0][0]:
        return _LEAF
    children = [(key_string(path[0]), child) for path, child in flat]
    if len({key for key, _ in children}) < len(children):
        raise NameCollision(
            f"two children of the {type(node).__name__} at {print_name(name) or 'the root'} have one name: "
            + ", ".join(key for key, _ in children)
        )
    return children


def _is_leaf(node: Any, children: list[Any]) -> bool:
    return len(children) == 1 and children[0] is node


def key_string(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _is_equinox(cls: type) -> bool:
    equinox = sys.modules.get("equinox")  # never imported by us: who has such a module has imported it
    return equinox is not None and issubclass(cls, equinox.Module)


def _is_pytree_object(node: Any) -> bool:
    """Whether an NNX object is a pytree too, which a class may decline (``pytree=False``)."""
    known = _IS_PYTREE.get(type(node))
    if known is None:
        children, _ = jax.tree_util.tree_flatten(node, is_leaf=lambda child: child is not node)
        known = _IS_PYTREE[type(node)] = not _is_leaf(node, children)
    return known


def _how(node: Any) -> int:
    how = _HOW.get(type(node))
    return _classify(type(node)) if how is None else how


def _classify(cls: type) -> int:
    """How nodes of a type are walked, remembered: types are few, nodes many."""
    kind = kind_of_type(cls)
    if issubclass(cls, nnx.Variable):
        how = _VARIABLE
    elif issubclass(cls, nnx.Pytree):
        how = _GRAPH
    elif issubclass(cls, AxisMetadata):
        how = _BOX
    elif cls is dict:
        how = _DICT
    elif cls in (list, tuple):
        how = _SEQUENCE
    elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
        how = _NAMEDTUPLE
    elif issubclass(cls, (jax.Array, np.ndarray)):
        how = _SHARED_ARRAY
    elif kind == Kind.STATIC:
        how = _OTHER  # JAX may know it as a node
    elif kind is None:
        how = _BY_VALUE
    else:
        how = kind
    if how == _SHARED_ARRAY and kind is not None:
        _ARRAYS.add(cls)
    _HOW[cls] = int(how)
    return _HOW[cls]


_HOW: dict[type, int] = {}
_ARRAYS: set[type] = {np.ndarray}  # and every type of jax.Array that was met
_IS_PYTREE: dict[type, bool] = {}


def nested(leaves: Mapping[Keys, Any]) -> Any:
    """The nested dict of these leaves; a leaf named by the root is itself the whole."""
    result: dict[str, Any] = {}
    for name, value in leaves.items():
        if not name:
            return value
        node = result
        for key in name[:-1]:
            node = node.setdefault(key, {})
        node[name[-1]] = value
    return result


def printed_names(tree: Tree) -> tuple[str, ...]:
    """The printed names of the leaves, in the tree's order."""
    return tuple(print_name(name) for name, _ in tree.leaves())


def as_names(keys: Sequence[Keys]) -> tuple[Name, ...]:
    """The public form of internal names."""
    return tuple(map(Name, keys))
