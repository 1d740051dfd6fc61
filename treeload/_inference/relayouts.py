"""Which changes of layout turn leaves of one shape into leaves of another.

Owns the shapes: transposed kernels, convolutions, heads split and merged, axes of one, indices that became
axes and back. Refuses to own names (``tokens``) and the choice among several that fit (``pairing``): where
shapes leave it open whether to transpose, it gives both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from treeload._inference.templates import Index, Leaves, Shape
from treeload._ops.layout import Reshape, Transpose
from treeload._ops.op import Op

Turn: TypeAlias = Literal["as it is", "transposed"]


@dataclass(frozen=True)
class Change:
    """Ops that make one shape of another.

    Attributes:
        turn: whether the axes of a kernel are turned round; what a square one does not show.
        ops: what to do.
        plain: it is what other loaders do too: no flattening, no axes moved in an unusual way.
    """

    turn: Turn
    ops: tuple[Op, ...]
    plain: bool = True


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


@lru_cache(maxsize=65536)
def changes(source: Shape, destination: Shape) -> tuple[Change, ...]:
    """Every change that makes ``destination`` of ``source``, likeliest first; none where nothing does.

    Examples:
        >>> changes((6, 4), (4, 6))
        (Change(turn='transposed', ops=(Transpose(),), plain=True),)
        >>> changes((6, 4), (4, 2, 3))[0].ops
        (Transpose(), Reshape(4, 2, 3, source=(4, 6)))
    """
    if math.prod(source) != math.prod(destination):
        return ()
    return tuple(_changes(source, destination))


def _changes(source: Shape, destination: Shape) -> Iterator[Change]:
    rank = len(source)
    if source == destination:
        yield Change("as it is", ())
    if rank == 2 and source[::-1] == destination:
        yield Change("transposed", (Transpose(),))
    if rank > 2 and len(destination) == rank:
        for axes in dict.fromkeys((_to_channels_last(rank), _to_channels_first(rank))):
            if _permuted(source, axes) == destination:
                yield Change("transposed", (_transpose(axes),))
    if rank == len(destination):
        return
    if _aligned(source, destination):
        yield Change("as it is", (Reshape(destination, source=source),))
    if rank == 2:
        turned = source[::-1]
        if _aligned(turned, destination) and 1 not in source:  # a row has nothing to turn
            yield Change("transposed", (Transpose(), Reshape(destination, source=turned)))
        if len(destination) == 3:  # [heads * size, in] -> [heads, in, size]
            heads, inner, size = destination
            if source == (heads * size, inner) and heads > 1:
                reshape = Reshape((heads, size, inner), source=source)
                yield Change("transposed", (reshape, Transpose(0, 2, 1)), plain=False)
    if len(destination) == 2 and rank == 3 and _aligned(source, destination[::-1]):
        yield Change("transposed", (Reshape(destination[::-1], source=source), Transpose()))
    if rank > 3:
        axes = _to_channels_last(rank)
        turned = _permuted(source, axes)
        if _aligned(turned, destination) and not _aligned(source, destination):
            pointwise = set(source[2:]) == {1}
            yield Change(
                "transposed", (_transpose(axes), Reshape(destination, source=turned)), plain=pointwise
            )


def _to_channels_last(rank: int) -> tuple[int, ...]:
    return (*range(2, rank), 1, 0)


def _to_channels_first(rank: int) -> tuple[int, ...]:
    return (rank - 1, rank - 2, *range(rank - 2))


def _permuted(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(shape[axis] for axis in axes)


def _transpose(axes: tuple[int, ...]) -> Transpose:
    return Transpose() if axes == tuple(range(len(axes)))[::-1] else Transpose(axes)


def _aligned(one: Shape, other: Shape) -> bool:
    """Whether one of two shapes only splits the axes of the other (axes of one come and go)."""
    few, many = sorted(([size for size in shape if size != 1] for shape in (one, other)), key=len)
    at = 0
    for size in few:
        product = 1
        while product < size and at < len(many):
            product *= many[at]
            at += 1
        if product != size:
            return False
    return at == len(many)


def fit(source: Leaves, destination: Leaves) -> Fit | None:
    """How the leaves of one template become those of the other; None where shapes or indices forbid it."""
    ours, theirs = len(source.ranges), len(destination.ranges)
    if ours == theirs:
        return _renamed(source, destination)
    if ours > theirs:
        return _stacked(source, destination, "stack")
    return _stacked(destination, source, "unstack")


def _renamed(source: Leaves, destination: Leaves) -> Fit | None:
    holes = tuple(range(len(source.ranges)))
    if source.ranges != destination.ranges and [*map(len, source.ranges)] == [*map(len, destination.ranges)]:
        # A run with a hole in it has lost a leaf; to close it up would shift every later one.
        if all(map(_is_even, (*source.ranges, *destination.ranges))):
            return _moved(source, destination)
    for order in itertools.permutations(holes) if len(holes) == 2 else [holes]:
        shapes = {tuple(index[at] for at in order): shape for index, shape in source.shapes.items()}
        both = shapes.keys() & destination.shapes.keys()
        whole = len(both) == len(shapes) == len(destination.shapes)
        if not whole and (order != holes or 2 * len(both) < min(len(shapes), len(destination.shapes))):
            continue
        options = _common({(shapes[index], destination.shapes[index]) for index in both})
        if options:
            return Fit("rename", order, options, whole=whole)
    return None


def _is_even(run: Sequence[int]) -> bool:
    """Whether numbers run in equal steps."""
    return len({after - before for before, after in itertools.pairwise(run)}) <= 1


def _moved(source: Leaves, destination: Leaves) -> Fit | None:
    """Indices of other numbers: 1 to 12 for 0 to 11, or every second."""
    shapes = {moved_index(source, destination, index): shape for index, shape in source.shapes.items()}
    if shapes.keys() != destination.shapes.keys():
        return None
    options = _common({(shape, destination.shapes[index]) for index, shape in shapes.items()})
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
            fits = [(axis, options) for axis in sorted(axes or ()) if (options := _common(pairs[axis]))]
            if fits:
                axis, options = fits[0]
                return Fit(how, kept, options, axis=axis, first=first or 0, open=len(fits) > 1)
    return None


def _common(pairs: set[tuple[Shape, Shape]]) -> tuple[Change, ...]:
    """The changes that are right for every pair of shapes."""
    options: dict[Change, None] | None = None
    for source, destination in pairs:
        here = dict.fromkeys(changes(source, destination))
        options = here if options is None else {change: None for change in options if change in here}
        if not options:
            return ()
    return tuple(options or ())
