"""Leaves on their way from a source into their places: read, changed, cast, placed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from treeload._findings.finding import Finding
from treeload._leaves.placement import (
    as_request,
    cast,
    is_in_place,
    is_weak,
    on_device,
    sharding_of,
    stays,
    to_default_device,
    to_device,
    to_host,
    with_weak_type,
)
from treeload._leaves.spec import make_spec, without_sharding
from treeload._loading.canvas import Canvas, regions_of
from treeload._loading.gather import Job, Plain, gather, not_as_said
from treeload._loading.jitted import is_made_in_place, made_in_place
from treeload._loading.overflow import Overflows
from treeload._loading.progress import Advance
from treeload._naming.name import Name, print_name
from treeload._ops.expression import Expression, Leaf, evaluate
from treeload._plans.decisions import Decisions
from treeload._plans.entry import Action, Entry
from treeload._sources.source import Source, as_source_error
from treeload._trees.tree import Tree


def load_leaves(decisions: Decisions, tree: Tree, values: list[Any], advance: Advance) -> list[Finding]:
    """Reads what the plan loads, and puts each leaf into its place in ``values``.

    ``advance`` is told of each source leaf that was read.
    A leaf with values that its cast overflows stays as it was; the findings say so, once all is read.
    """
    overflows = Overflows(decisions, tree)
    placer = _Placer(tree, values, overflows)
    expressions = dict(decisions.from_sources)
    if decisions.sources and decisions.sources[0].in_memory:
        _load_from_memory(decisions.sources[0], decisions, tree, placer, advance)
        plain = Plain()
    else:
        plain = _as_they_are(expressions, decisions, tree, placer)
    _load_all(expressions, plain, decisions, tree, placer, advance)
    with as_source_error("the last leaves could not be placed"):
        placer.flush()
    return overflows.findings


def _as_they_are(
    expressions: dict[int, Expression], decisions: Decisions, tree: Tree, placer: _Placer
) -> Plain:
    """The leaves that slots want as a source has them under their names: each goes there as it comes.

    One that something else is made of too becomes an expression, so that it is read once.
    """
    needed = {leaf.name for value in expressions.values() for leaf in value.leaves() if leaf.index == 0}
    slots: dict[Name, int] = {}
    for index in decisions.same_names:
        name = Name(tree.names[index])
        if name in needed:
            expressions[index] = Leaf(0, name, without_sharding(tree.values[index]))
        else:
            slots[name] = index

    def deliver(name: Name, array: Any) -> None:
        try:
            placer.put(slots[name], array, own=True)
        except Exception:  # raised again at once: a context entered for each leaf would cost more
            with as_source_error(f"{print_name(name)!r} could not be made"):
                raise

    return Plain({name: as_request(tree.values[index]) for name, index in slots.items()}, deliver)


def _load_all(
    expressions: Mapping[int, Expression], plain: Plain, decisions: Decisions, tree: Tree, placer: _Placer,
    advance: Advance,
) -> None:  # fmt: skip
    """Reads what every slot needs, and makes its value of it."""
    shardings: dict[Leaf, jax.sharding.Sharding] = {}
    jobs: list[Job] = []
    makers: list[tuple[int, Callable[[dict[Leaf, Any]], None]]] = []
    for index, value in expressions.items():
        row, like = decisions.lines[index], tree.values[index]
        sharding = as_request(like).sharding if on_device(like) else None
        casts = isinstance(row, Entry) and bool(row.cast)
        if isinstance(value, Leaf) and sharding is not None and not casts:
            shardings[value] = sharding
        regions = regions_of(value) if _come_from_files(value, decisions.sources) else None
        if regions is not None:
            canvas = Canvas(
                regions, make_spec(value.spec.shape, value.spec.dtype, None if casts else sharding)
            )
            for number, part in enumerate(value.inputs):  # type: ignore[union-attr]  # it is joined
                jobs.append(Job(tuple(part.leaves())))
                makers.append((index, partial(placer.paint, index, canvas, number, part)))
            continue
        jobs.append(Job(tuple(value.leaves())))
        makers.append((index, partial(placer.make, index, value)))
    placer.uses = Counter(leaf for job in jobs for leaf in job.leaves)
    for number, arrays in gather(decisions.sources, jobs, shardings, advance, plain):
        index, make = makers[number]
        with as_source_error(f"{print_name(tree.names[index])!r} could not be made"):
            make(arrays)
        arrays.clear()


def _come_from_files(value: Expression, sources: Sequence[Source]) -> bool:
    """Whether all its leaves are read, and not those of trees in memory, which lie somewhere already."""
    return not any(sources[leaf.index].in_memory for leaf in value.leaves())


def _load_from_memory(
    source: Source, decisions: Decisions, tree: Tree, placer: _Placer, advance: Advance
) -> None:
    """Loads the leaves that a tree in memory gives as they are.

    There is nothing to ask for, to wait for and to let go, which otherwise takes most of the time. Most lie
    where they are wanted, and are the values.
    """
    take, put, values, likes, names = source.take, placer.put, placer.values, tree.values, tree.names
    columns = source.columns()
    if columns is not None and columns[0] == tree.kept_names:
        held = columns[1]
    else:
        held = list(map(source.shaped().get, names))
    for index in decisions.same_names:
        like, name, array = likes[index], names[index], held[index]
        if isinstance(array, jax.Array) and isinstance(like, jax.Array) and is_in_place(array, like):
            values[index] = array
            if advance is not None:
                advance(0, name)
            continue
        try:
            array = take(name)
            if array.shape != like.shape or array.dtype != like.dtype:
                raise not_as_said(source, name, like, array)
            put(index, array, own=True, stays_alive=True)
        except Exception:  # raised again at once: a context entered for each leaf would cost more
            with as_source_error(f"{print_name(name)!r} could not be made"):
                raise
        if advance is not None:
            advance(0, name)


class _Placer:
    """Puts arrays on devices, those for the default device in batches: a call costs as much as a leaf."""

    _BYTES = 32 << 20
    _COUNT = 512

    def __init__(self, tree: Tree, values: list[Any], overflows: Overflows) -> None:
        self.likes = tree.values
        self.values = values
        self.overflows = overflows
        self.apart: set[int] = set()  # ids of arrays that slots hold
        self.moved: dict[int, int] = {}  # id of an array that its source keeps alive → the slot it went to
        self.batch: list[tuple[int, np.ndarray[Any, Any]]] = []
        self.size = 0
        self.uses: Mapping[Leaf, int] = {}  # how many need each source leaf

    def make(self, index: int, value: Expression, arrays: dict[Leaf, Any]) -> None:
        """Makes what an expression gives the value of a slot; what the slot holds may fill it up."""
        if isinstance(value, Leaf):
            self.put(index, arrays[value], own=self.uses[value] == 1)
            row = self.overflows.lines[index]
            if self.uses[value] > 1 and not (isinstance(row, Entry) and row.action == Action.TIE):
                self.set_apart(index)
            return
        held = self.values[index] if value.op.onto_destination else None
        if held is not None:
            (part,) = value.inputs
            if part.spec.dtype != held.dtype and self.overflows.found(index, evaluate(part, arrays)):
                return
        like = self.likes[index]
        if is_made_in_place(value, arrays, like):
            self.put(index, made_in_place(value, arrays, like), own=True)
        else:
            self.put(index, evaluate(value, arrays, destination=held), own=False)

    def paint(
        self, index: int, canvas: Canvas, number: int, part: Expression, arrays: dict[Leaf, Any]
    ) -> None:
        """Writes a part of a joined leaf into its place; makes it the value of a slot once it is whole."""
        if canvas.write(number, evaluate(part, arrays)):
            self.put(index, canvas.result(), own=True)

    def put(self, index: int, array: Any, *, own: bool, stays_alive: bool = False) -> None:
        """Makes ``array`` the value of a slot.

        ``own``: nobody else holds it, so it need not be copied. ``stays_alive``: its source holds it, so that
        it is known again: what is one array in memory, moved twice, is one array again.
        """
        like = self.likes[index]
        dtype = getattr(like, "dtype", None)  # a Python number has none
        if dtype is not None and array.dtype != dtype:
            if self.overflows.found(index, array):
                return
            array, own = cast(array, dtype), True
        if not on_device(like):
            self.values[index] = to_host(array, like, own=own)
        elif isinstance(array, np.ndarray) and sharding_of(like) is None:
            self.batch.append((index, array))
            self.size += array.nbytes
            if self.size >= self._BYTES or len(self.batch) >= self._COUNT:
                self.flush()
        elif isinstance(array, jax.Array) and stays(array, like):
            self.values[index] = array
        else:
            known = stays_alive and isinstance(array, jax.Array)  # what lay on the host is a copy, and goes
            before = self.moved.get(id(array)) if known else None
            if before is None or not stays(self.values[before], like):
                self.values[index] = to_device(array, like)
                if known:
                    self.moved.setdefault(id(array), index)
            else:
                self.values[index] = self.values[before]

    def set_apart(self, index: int) -> None:
        """Makes the value of a slot an array of its own, where another slot that was set apart has it.

        No tie says that they are one, and a jitted step may be given both to free.
        """
        value = self.values[index]
        if isinstance(value, jax.Array) and id(value) in self.apart:
            self.values[index] = value = jnp.copy(value)
        self.apart.add(id(value))

    def flush(self) -> None:
        if not self.batch:
            return
        placed = to_default_device([array for _, array in self.batch])
        for (index, _), array in zip(self.batch, placed, strict=True):
            like = self.likes[index]
            self.values[index] = with_weak_type(array, like) if is_weak(like) else array
        self.batch, self.size = [], 0
