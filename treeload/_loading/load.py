"""Decisions carried out: leaves read, changed, placed, and the tree made of them.

Owns the order of things that makes a load all or nothing: first every check, then every read, and only
when nothing can fail any more the result. Whoever calls has done the checks (``checks``) and refused errors.

Leaves stream: each is handed on as soon as its source yields it, and what it was made of is let go, so
that the peak is the result and the leaf at hand.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from treeload._errors import TreeloadError
from treeload._files.interrupts import held_back
from treeload._findings.finding import Finding
from treeload._leaves.placement import sharding_of, to_device, zeros
from treeload._leaves.spec import SlotKind, is_abstract, is_key, print_spec
from treeload._loading.deliver import load_leaves
from treeload._loading.progress import Progress, following
from treeload._naming.name import print_name
from treeload._plans.decisions import Decisions
from treeload._plans.entry import SAME_NAME
from treeload._trees.collector import no_collections
from treeload._trees.rebuild import assign, rebuild
from treeload._trees.tree import PyTree, Tree
from treeload._trees.walk import walk

Init = Callable[[], PyTree] | None

Refuse = Callable[[Sequence[Finding]], None]
"""Told what only the values showed, before anything is made of them; raises where that is an error."""


def load(
    decisions: Decisions, tree: Tree, refuse: Refuse, *,
    init: Init = None, donate: bool = False, progress: Progress = None, wanted: Tree | None = None,
) -> PyTree:  # fmt: skip
    """A new tree with the values that were decided on; every check has passed.

    ``tree`` is the destination as it is now, ``wanted`` the same as it asks for shardings of its own.

    Raises:
        SourceError: a source could not be read.
    """
    values, found = _values(decisions, tree, init, progress, fresh=True, wanted=wanted)
    refuse(found)
    _nothing_abstract(decisions, tree, values)
    replaced = _replaced(decisions, tree, values) if donate else []
    result = rebuild(tree, values)
    _free(replaced)
    return result


def prepared(
    decisions: Decisions, refuse: Refuse, *,
    init: Init = None, donate: bool = False, progress: Progress = None,
) -> Callable[[], None]:  # fmt: skip
    """What puts the values into the destination itself, once all is read and checked; nothing is changed yet.

    The decisions were made just now: the destination is what it was walked as. A signal that comes while the
    values are put in, Ctrl-C say, is handled when all of them are.

    Raises:
        SourceError: as ``load``. What is returned raises TreeloadError where the destination refuses a value;
            it is as before then.
    """
    values, found = _values(decisions, decisions.tree, init, progress, fresh=False)
    refuse(found)
    _nothing_abstract(decisions, decisions.tree, values)
    replaced = _replaced(decisions, decisions.tree, values) if donate else []

    def put_in() -> None:
        with held_back():  # an interrupt finds it all old or all new, not on its way back
            assign(decisions.tree, values)
            _free(replaced)

    return put_in


def destination_now(decisions: Decisions) -> Tree:
    """The destination walked again: what is kept is what it holds now, not what it held at plan time.

    Raises:
        TreeloadError: it has other leaves by now.
    """
    then = decisions.tree
    if decisions.seen is not None and decisions.seen.is_seen_in(then.root):
        return then
    now = walk(then.root)
    if now.names != then.names or now.kinds != then.kinds or now.visits != then.visits:
        raise TreeloadError("the destination has changed since it was planned; plan again")
    if not any(map(operator.is_not, then.values, now.values)):
        return now
    for name, old, new, kind in zip(now.names, then.values, now.values, now.kinds, strict=True):
        if old is not new and kind == SlotKind.ARRAY and (old.shape != new.shape or old.dtype != new.dtype):
            raise TreeloadError(
                f"{print_name(name)!r} of the destination was {print_spec(old)} when it was planned "
                f"and is {print_spec(new)}; plan again"
            )
    return now


# Values for every slot.


def _values(
    decisions: Decisions, tree: Tree, init: Init, progress: Progress, *,
    fresh: bool, wanted: Tree | None = None,
) -> tuple[list[Any], list[Finding]]:  # fmt: skip
    """A value for every slot of the destination, which is not changed; and what is wrong with any of them.

    ``fresh``: they go into a new tree, so kept NumPy arrays are copied. ``wanted``: the destination, where it
    asks for other shardings than its own.
    """
    likes = (wanted or tree).values
    values = list(tree.values)
    if fresh and any(issubclass(kind, np.ndarray) for kind in set(map(type, values))):
        values = [
            value.copy() if isinstance(value, np.ndarray) and row is not SAME_NAME else value
            for value, row in zip(values, decisions.lines, strict=True)
        ]
    for index, value in (_made_by(init, decisions) if init is not None else {}).items():
        values[index] = value
    for index in decisions.from_nothing:
        values[index] = zeros(likes[index])
    with following(decisions, progress) as advance, no_collections():
        found = load_leaves(decisions, wanted or tree, values, advance)
    if wanted is not None:  # what is kept goes there too
        for index, (like, own) in enumerate(zip(likes, tree.values, strict=True)):
            if like is not own and not is_abstract(values[index]):
                values[index] = to_device(values[index], like)
    return values, found


def _nothing_abstract(decisions: Decisions, tree: Tree, values: Sequence[Any]) -> None:
    if not any(issubclass(kind, jax.ShapeDtypeStruct) for kind in set(map(type, values))):
        return
    for index, value in enumerate(values):
        if is_abstract(value) and decisions.lines[index] is not None:
            raise AssertionError(f"{print_name(tree.names[index])!r} was left abstract")


# What the source does not give.


def _made_by(init: Callable[[], PyTree], decisions: Decisions) -> dict[int, Any]:
    """Values for kept, abstract slots, from ``init`` under jit: XLA computes nothing else of it."""
    tree = decisions.tree
    wanted = decisions.abstract_kept
    if not wanted:
        return {}
    names = [tree.names[index] for index in wanted]

    def only_what_is_needed() -> list[Any]:
        made = walk(init(), traced=True)
        found = dict(zip(made.names, made.values, strict=True))
        for name, aliases in made.aliases.items():
            found.update(dict.fromkeys(aliases, found[name]))
        lacking = [
            print_name(name) for name in names if name not in found or not hasattr(found[name], "shape")
        ]
        if lacking:
            raise TreeloadError(f"init() gives no array for {', '.join(lacking[:5])}")
        return [found[name] for name in names]

    shardings = [sharding_of(tree.values[index]) for index in wanted]
    out = shardings if any(sharding is not None for sharding in shardings) else None
    try:
        arrays = jax.jit(only_what_is_needed, out_shardings=out)()
    except TreeloadError:
        raise
    except Exception as error:
        raise TreeloadError(f"init() could not be run under jit: {type(error).__name__}: {error}") from error
    for index, array in zip(wanted, arrays, strict=True):
        spec = tree.values[index]
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise TreeloadError(
                f"init() gives {print_spec(array)} for {print_name(tree.names[index])!r}, "
                f"the destination asks for {print_spec(spec)}"
            )
    return dict(zip(wanted, arrays, strict=True))


def _replaced(decisions: Decisions, tree: Tree, values: Sequence[Any]) -> list[jax.Array]:
    """The destination's arrays that are replaced and whose buffers nothing else holds."""
    held = {pointer for value in values for pointer in _buffers(value)}
    for source in decisions.sources:
        for value in source.shaped().values():
            held.update(_buffers(value))
    return [
        old
        for old, new in zip(tree.values, values, strict=True)
        if isinstance(old, jax.Array) and old is not new and not is_key(old.dtype) and not old.is_deleted()
        if held.isdisjoint(_buffers(old))
    ]


def _free(arrays: Sequence[jax.Array]) -> None:
    for array in arrays:
        # The load has been done: that memory stays taken is no reason to say that it has failed.
        with contextlib.suppress(Exception):
            array.delete()


def _buffers(value: Any) -> list[int]:
    """The addresses of a jax array's buffers on this process."""
    if not isinstance(value, jax.Array) or is_key(value.dtype) or value.is_deleted():
        return [id(value)]
    return [shard.data.unsafe_buffer_pointer() for shard in value.addressable_shards] or [id(value)]
