"""How the leaves of one template become those of another: index for index, or indices that became axes.

Owns the indices. Refuses to own what is done to each leaf (``changes``), which of several changes is meant
(``layouts``) and which templates belong together (``pairing``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from treeload._inference.changes import Change, changes, in_common
from treeload._inference.templates import Index, Leaves, Shape


@dataclass(frozen=True)
class Fit:
    """How the leaves of one template become those of another.

    Attributes:
        how: ``rename``: index for index; ``stack``: some of the source's indices become axes;
            ``unstack``: some axes become indices of the destination.
        holes: for each hole of the template that has fewer, which hole of the other it is.
        axis: the stacked axis.
        first: the lowest stacked index.
        changes: what may be done to each leaf, likeliest first.
        whole: every index on either side has its partner.
        open: another axis would fit as well.
        moved: indices are partners by their order, not by their number.
    """

    how: Literal["rename", "stack", "unstack"]
    holes: tuple[int, ...]
    changes: tuple[Change, ...]
    axis: int = 0
    first: int = 0
    whole: bool = True
    open: bool = False
    moved: bool = False


def fit(source: Leaves, destination: Leaves) -> Fit | None:
    """How the leaves of one template become those of the other; None where shapes or indices forbid it."""
    ours, theirs = len(source.ranges), len(destination.ranges)
    if ours == theirs == 0:
        return _single(source.shapes[()], destination.shapes[()])
    if ours != theirs and source.volume != destination.volume:
        return None  # told at once, where one side may have 100,000 indices
    if ours == theirs:
        return _renamed(source, destination)
    if ours > theirs:
        return _stacked(source, destination, "stack")
    return _stacked(destination, source, "unstack")


@lru_cache(maxsize=65536)
def _single(source: Shape, destination: Shape) -> Fit | None:
    options = in_common([(source, destination)])
    return Fit("rename", (), options) if options else None


def _renamed(source: Leaves, destination: Leaves) -> Fit | None:
    holes = tuple(range(len(source.ranges)))
    if len(source.distinct) == len(destination.distinct) == 1:
        if not changes(*source.distinct, *destination.distinct):
            return None  # likewise
    if source.ranges != destination.ranges and [*map(len, source.ranges)] == [*map(len, destination.ranges)]:
        # A run with a hole in it has lost a leaf; to close it up would shift every later one.
        if all(map(_is_even, (*source.ranges, *destination.ranges))):
            return _moved(source, destination)
    for order in itertools.permutations(holes) if len(holes) == 2 else [holes]:
        shapes = source.shapes
        if order != holes:
            shapes = {tuple(index[at] for at in order): shape for index, shape in shapes.items()}
        first = next((index for index in shapes if index in destination.shapes), None)
        if first is not None and not changes(shapes[first], destination.shapes[first]):
            continue  # told by one, where there may be 100,000
        both = shapes.keys() & destination.shapes.keys()
        whole = len(both) == len(shapes) == len(destination.shapes)
        if not whole and (order != holes or 2 * len(both) < min(len(shapes), len(destination.shapes))):
            continue
        options = _in_common({(shapes[index], destination.shapes[index]) for index in both})
        if options:
            return Fit("rename", order, options, whole=whole)
    return None


def _in_common(pairs: Set[tuple[Shape, Shape]]) -> tuple[Change, ...]:
    """The changes that are right for every pair, in the order of the least pair: to sort all takes longer."""
    return in_common((min(pairs), *pairs)) if pairs else ()


def _is_even(run: Sequence[int]) -> bool:
    """Whether numbers run in equal steps."""
    return len({after - before for before, after in itertools.pairwise(run)}) <= 1


def _moved(source: Leaves, destination: Leaves) -> Fit | None:
    """Indices of other numbers: 1 to 12 for 0 to 11, or every second."""
    shapes = {moved_index(source, destination, index): shape for index, shape in source.shapes.items()}
    if shapes.keys() != destination.shapes.keys():
        return None
    options = _in_common({(shape, destination.shapes[index]) for index, shape in shapes.items()})
    return (
        Fit("rename", tuple(range(len(source.ranges))), options, whole=False, moved=True) if options else None
    )


def moved_index(source: Leaves, destination: Leaves, index: Index) -> Index:
    """The destination's index in the place that ``index`` has among the source's."""
    runs = zip(index, source.ranges, destination.ranges, strict=True)
    return tuple(there[here.index(number)] for number, here, there in runs)


def _stacked(many: Leaves, few: Leaves, how: Literal["stack", "unstack"]) -> Fit | None:
    """Some holes of ``many`` are axes of ``few``."""
    holes = range(len(many.ranges))
    for kept in itertools.combinations(holes, len(few.ranges)):
        over = [at for at in holes if at not in kept]
        groups: dict[Index, list[Index]] = {}
        for index in many.shapes:
            groups.setdefault(tuple(index[at] for at in kept), []).append(index)
        if groups.keys() != few.shapes.keys():
            continue
        pairs: dict[int, set[tuple[Shape, Shape]]] = {}
        first: int | None = None
        axes: Set[int] | None = None  # that fit for all groups so far
        for at, members in groups.items():
            ranges = [sorted({index[hole] for index in members}) for hole in over]
            lowest = {run[0] for run in ranges}
            shapes = {many.shapes[index] for index in members}
            gapless = all(run == list(range(run[0], run[0] + len(run))) for run in ranges)
            full = math.prod(map(len, ranges)) == len(members)
            if len(shapes) > 1 or not gapless or not full or len(lowest) > 1 or first not in (None, *lowest):
                break
            (first,) = lowest
            counts, whole = tuple(map(len, ranges)), few.shapes[at]
            fitting = {
                axis: (*whole[:axis], *whole[axis + len(counts) :])
                for axis in range(len(whole) - len(counts) + 1)
                if whole[axis : axis + len(counts)] == counts
            }
            each = shapes.pop()
            axes = fitting.keys() if axes is None else axes & fitting.keys()
            for axis, rest in fitting.items():
                pairs.setdefault(axis, set()).add((each, rest) if how == "stack" else (rest, each))
        else:
            fits = [(axis, options) for axis in sorted(axes or ()) if (options := _in_common(pairs[axis]))]
            if fits:
                axis, options = fits[0]
                return Fit(how, kept, options, axis=axis, first=first or 0, open=len(fits) > 1)
    return None


def shapes(source: Leaves, destination: Leaves, fit: Fit) -> list[tuple[Shape, Shape]]:
    """The shapes that a change turns into each other, each pair once, stacked axes left out."""
    found: dict[tuple[Shape, Shape], None] = {}
    many, few = (source, destination) if fit.how != "unstack" else (destination, source)
    for index, shape in many.shapes.items():
        if fit.moved:
            index = moved_index(source, destination, index)
        other = few.shapes.get(tuple(index[at] for at in fit.holes))
        if other is None:
            continue
        if fit.how != "rename":
            other = (*other[: fit.axis], *other[fit.axis + len(many.ranges) - len(few.ranges) :])
        found[(shape, other) if many is source else (other, shape)] = None
    return sorted(found)
