"""What users hand in as a tree or as a source: looked at before anything else, and refused in one sentence.

Owns what is no tree and no source, what it is instead, and what to write. All verbs ask here, so that a
class in place of a model is the same error everywhere. Refuses to own what is wrong with single leaves
(``_matching``).
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from treeload._leaves.spec import SlotKind, is_key, is_numeric
from treeload._naming.name import print_name
from treeload._sources.part import From
from treeload._sources.source import Source, as_source_error
from treeload._trees.flax import is_flax
from treeload._trees.nodes import is_equinox
from treeload._trees.tree import PyTree, Tree
from treeload._trees.walk import walk

_SOME = 5


def destination(dst: Any, src: Any, verb: str) -> Tree:
    """The walked destination; ``src`` is looked at too, and ``verb`` is what was called.

    Raises:
        TypeError: one of them is none, or holds arrays where they never load, or tracers.
        NameCollision: two leaves have one name.
    """
    if _is_place(dst) or isinstance(dst, (Source, From)):
        what = "a path" if _is_place(dst) else f"a {type(dst).__name__}"
        if _is_place(src) or isinstance(src, (Source, From)):
            raise TypeError(
                f"{verb}'s destination is {what}: give the model or tree that is to be loaded into"
            )
        raise TypeError(
            f"{verb}(destination, source) was given {what} first: the tree comes first, "
            f"{verb}(tree, {_shown(dst)})"
        )
    _refuse_what_is_no_tree(dst, f"{verb}'s destination")
    source(src, verb)
    walked = walk(dst)
    _refuse_number(walked, src, verb)
    _refuse_tracers(walked, f"{verb}'s destination")
    refuse_hidden(walked, f"{verb}'s destination", TypeError)
    _refuse_no_leaves(walked, f"{verb}'s destination")
    return walked


def says_what_it_holds(src: Source) -> None:
    """Nothing, where a source of the user's own says names, shapes and dtypes of its leaves.

    Raises:
        SourceError: what it says is none of these, or it raises.
    """
    with as_source_error(f"{src.label} does not say what it holds"):
        specs = src.specs()
        if not isinstance(specs, Mapping):
            raise ValueError(f"specs() gave a {type(specs).__name__}, not a mapping of names to specs")
        for name, spec in specs.items():
            if not isinstance(name, tuple) or not all(isinstance(key, str) for key in name):
                raise ValueError(f"specs() has the key {name!r}, which is no Name (a tuple of strings)")
            shape, dtype = getattr(spec, "shape", None), getattr(spec, "dtype", None)
            sizes = shape if isinstance(shape, tuple) else (-1,)
            if not all(isinstance(size, (int, np.integer)) and size >= 0 for size in sizes):
                raise ValueError(f"specs() says of {print_name(name)!r} that its shape is {shape!r}")
            if not (is_key(dtype) or (isinstance(dtype, np.dtype) and is_numeric(dtype))):
                raise ValueError(f"specs() says of {print_name(name)!r} that its dtype is {dtype!r}")


def source(src: Any, verb: str) -> None:
    """Nothing, where ``src`` may be a source.

    Raises:
        TypeError: it is none.
    """
    if isinstance(src, From):
        src = src.src
    if isinstance(src, (Source, os.PathLike)) or (isinstance(src, str) and src):
        return
    if isinstance(src, str):
        raise TypeError(f"{verb}'s source is an empty text: give the path of a checkpoint, or a tree")
    if isinstance(src, (bytes, bytearray, memoryview, io.IOBase)):
        raise TypeError(f"{verb}'s source is {_bytes_or_file(src)}: {A_SOURCE}")
    _refuse_what_is_no_tree(src, f"{verb}'s source", A_SOURCE)


def place(given: Any, verb: str) -> None:
    """Nothing, where ``given`` is the path that a verb opens.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(given, (str, os.PathLike)):
        is_odd = given is None or isinstance(given, (bytes, io.IOBase))
        what = _bytes_or_file(given) if is_odd else f"a {type(given).__name__}"
        raise TypeError(f"{verb}(path) takes the path of a checkpoint, not {what}: give it as str or Path")


def source_tree(walked: Tree) -> None:
    """Nothing, where a tree in memory can be read from.

    Raises:
        TypeError: it holds arrays where they never load, or tracers.
    """
    _refuse_tracers(walked, "the source", "give arrays that have values, outside of jit")
    refuse_hidden(walked, "the source", TypeError)


def read_only(tree: Any, verb: str, *, error: type[Exception] = TypeError, traced: bool = False) -> Tree:
    """A walked tree that is only read: saved, listed, or exported.

    ``traced``: it may hold tracers, as inside of jit. Raises ``error`` for arrays where they never load.

    Raises:
        TypeError: it is no tree.
        NameCollision: two leaves have one name.
    """
    if _is_place(tree) or isinstance(tree, (Source, From)):
        raise TypeError(
            f"{verb} takes a tree, not {_shown(tree)}: treeload.inspect(...) says what a checkpoint holds"
        )
    _refuse_what_is_no_tree(tree, f"{verb}'s tree")
    walked = walk(tree, mappings=True)
    if not traced:
        _refuse_tracers(walked, f"{verb}'s tree", f"return it from the function, and {verb} outside of jit")
    refuse_hidden(walked, f"{verb}'s tree", error)
    return walked


def path(given: Any, verb: str) -> None:
    """Nothing, where ``given`` is the path that a verb writes to, which comes first.

    Raises:
        TypeError: it is none.
    """
    if isinstance(given, bytes):
        raise TypeError(f"{verb}(path, tree) was given bytes first: give the path as str or Path")
    if not _is_place(given):
        raise TypeError(f"{verb}(path, tree) was given a {type(given).__name__} first: the path comes first")


def refuse_hidden(walked: Tree, what: str, error: type[Exception]) -> None:
    """Raises ``error`` where a tree holds arrays that would never load, all of them named."""
    if not walked.hidden:
        return
    lines = [f"{print_name(name) or 'the root'}: {why}" for name, why in walked.hidden.items()]
    more = f"\nand {len(lines) - _SOME:,} more" if len(lines) > _SOME else ""
    said = "\n".join(lines[:_SOME]) + more
    raise error(f"{what} holds what cannot be loaded or saved as it is\n{said}")


# What is no tree.


_A_TREE = "give a model or a tree of arrays"


A_SOURCE = "give a path as str or Path, a From, a Source or a tree of arrays"


def _refuse_what_is_no_tree(given: Any, what: str, give: str = _A_TREE) -> None:
    for is_it, says in _NO_TREES:
        if is_it(given):
            said = says(given)
            raise TypeError(f"{what} is {said if ': ' in said else f'{said}: {give}'}")


def _bytes_or_file(given: Any) -> str:
    return (
        "an open file" if isinstance(given, io.IOBase) else "None" if given is None else type(given).__name__
    )


def _refuse_number(walked: Tree, src: Any, verb: str) -> None:
    """Refuses a number, such as a step's, as the source of a whole tree."""
    if isinstance(src, From) and not src.into:
        src = src.src
    if isinstance(src, (bool, int, float, complex)) and walked.names != [()]:
        raise TypeError(f"{verb}'s source is the number {src!r}: {A_SOURCE}")


def _is_place(given: Any) -> bool:
    return isinstance(given, (str, bytes, os.PathLike))


def _is_plain_function(given: Any) -> bool:
    return callable(given) and _is_one_leaf(given)


def _is_one_leaf(given: Any) -> bool:
    """Whether JAX knows no tree in it; looked at one level deep, since a model may be large."""
    if isinstance(given, (dict, list, tuple)) or is_flax(given, "nnx", "Pytree"):
        return isinstance(given, dict) and type(given) is not dict and _opens_to_itself(given)
    return _opens_to_itself(given)


def _opens_to_itself(given: Any) -> bool:
    children = jax.tree.leaves(given, is_leaf=lambda child: child is not given)
    return len(children) == 1 and children[0] is given


def _shown(given: Any) -> str:
    if _is_place(given):
        return repr(os.fspath(given))
    return "source" if not isinstance(given, From) else "From(...)"


def _is_other_static(given: Any) -> bool:
    # A static at the root has nothing that could load; one with arrays in it is said where those are.
    if isinstance(given, (bool, int, float, complex)):
        return given is False
    walked = walk(given, mappings=True) if _is_one_leaf(given) else None
    return (
        walked is not None
        and walked.names == [()]
        and walked.kinds[0] == SlotKind.STATIC
        and not walked.hidden
    )


_NO_TREES: tuple[tuple[Callable[[Any], bool], Callable[[Any], str]], ...] = (
    (lambda x: x is None, lambda x: "None"),
    (
        lambda x: isinstance(x, type) and is_equinox(x),
        lambda x: (
            f"the class {x.__name__}: give an instance, {x.__name__}(...), or for its shapes alone "
            f"eqx.filter_eval_shape({x.__name__}, ...)"
        ),
    ),
    (
        lambda x: isinstance(x, type),
        lambda x: (
            f"the class {x.__name__}: give an instance, {x.__name__}(...), or for its shapes alone "
            f"nnx.eval_shape(lambda: {x.__name__}(...))"
        ),
    ),
    (
        lambda x: is_flax(x, "nnx", "GraphDef"),
        lambda x: (
            "a GraphDef, which holds no arrays: give the Module itself, or the State beside it, "
            "graphdef, state = nnx.split(module)"
        ),
    ),
    (
        lambda x: is_flax(x, "linen", "Module"),
        lambda x: (
            f"the Linen module {type(x).__name__}, which holds no arrays: its variables come from "
            "module.init(key, inputs), or jax.eval_shape(module.init, key, inputs)"
        ),
    ),
    (
        lambda x: isinstance(x, jax.tree_util.PyTreeDef),
        lambda x: "the structure of a tree without its arrays: give the tree itself",
    ),
    (
        lambda x: _is_plain_function(x) and not _hidden_in(x),
        lambda x: (
            f"the function {getattr(x, '__name__', type(x).__name__)}: give what it returns, or for its "
            f"shapes alone {_shapes_alone()}(function, ...)"
        ),
    ),
    (
        _is_other_static,
        lambda x: repr(x) if x is False else f"of type {type(x).__name__}, which is no tree of arrays",
    ),
)
"""Who is asked first decides: what it is that was given, and what to give instead of it, where that is
anything else than any tree."""


def _shapes_alone() -> str:
    """What evaluates a function abstractly: where modules hold functions, JAX's own cannot."""
    return "eqx.filter_eval_shape" if "equinox" in sys.modules else "jax.eval_shape"


def _hidden_in(given: Any) -> bool:
    return bool(walk(given, mappings=True).hidden)


# Trees that cannot be loaded into.

_LOAD_FIRST = "load outside of jit first, then pass the loaded tree in"


def _refuse_tracers(walked: Tree, what: str, instead: str = _LOAD_FIRST) -> None:
    kinds = [cls for cls in set(map(type, walked.values)) if issubclass(cls, jax.core.Tracer)]
    if kinds:
        raise TypeError(f"{what} is being traced, by jax.jit or the like, and has no values: {instead}")


def _refuse_no_leaves(walked: Tree, what: str) -> None:
    root: PyTree = walked.root
    is_module = is_flax(root, "nnx", "Module") or is_equinox(type(root))
    if is_module and not any(kind <= SlotKind.SCALAR for kind in walked.kinds):
        raise TypeError(
            f"{what}, of type {type(root).__name__}, has no parameters: nothing could be loaded into it"
        )
