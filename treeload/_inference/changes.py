"""Which ops make one shape of another, as far as shapes alone tell.

Owns the orders that libraries keep kernels in: linear layers, convolutions and transposed ones, heads split
and merged, axes of one. Refuses to own which of several that fit is meant: that takes names (``layouts``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from treeload._inference.templates import Shape
from treeload._ops.convert import Apply
from treeload._ops.layout import Reshape, Transpose
from treeload._ops.op import Op

Turn: TypeAlias = Literal["as it is", "transposed", "exchanged", "stacked"]
Side: TypeAlias = Literal["", "last", "first"]


@dataclass(frozen=True)
class Change:
    """Ops that make one shape of another.

    Attributes:
        turn: what becomes of a kernel's axes. ``transposed``: a linear layer's or a convolution's, from one
            custom to the other; ``exchanged``: a convolution's, and input and output change places, as in a
            transposed one; ``stacked``: those of each of several kernels in one leaf.
        ops: what to do.
        words: the same, to be read after "matches if".
        plain: it is what other loaders do too: no flattening, no axes moved in an unusual way.
        channels: where a convolution's channels go, if anywhere.
    """

    turn: Turn
    ops: tuple[Op, ...]
    words: str = ""
    plain: bool = True
    channels: Side = ""

    def __str__(self) -> str:
        return ", ".join(map(repr, self.ops))


@dataclass(frozen=True)
class Flip:
    """The space axes the other way round; prints as the code that does it."""

    axes: int
    first: bool

    def __call__(self, kernel: Any) -> Any:
        turned = (slice(None, None, -1),) * self.axes
        return kernel[turned if self.first else (..., *turned)]

    def __repr__(self) -> str:
        turned = ", ".join(["::-1"] * self.axes)
        return f"lambda kernel: kernel[{turned if self.first else f'..., {turned}'}]"


@lru_cache(maxsize=65536)
def changes(source: Shape, destination: Shape) -> tuple[Change, ...]:
    """Every change that makes ``destination`` of ``source``, likeliest first; none where nothing does.

    Examples:
        >>> [str(change) for change in changes((6, 4), (4, 6))]
        ['Transpose()']
        >>> str(changes((6, 4), (4, 2, 3))[0])
        'Transpose(), Reshape(4, 2, 3, source=(4, 6))'
    """
    if math.prod(source) != math.prod(destination):
        return ()
    return tuple(_changes(source, destination))


def in_common(pairs: Iterable[tuple[Shape, Shape]]) -> tuple[Change, ...]:
    """The changes that are right for every pair of shapes, in the order of the first."""
    options: dict[Change, None] | None = None
    for source, destination in pairs:
        here = dict.fromkeys(changes(source, destination))
        options = here if options is None else {change: None for change in options if change in here}
        if not options:
            return ()
    return tuple(options or ())


def unusual(source: Shape, destination: Shape) -> Change | None:
    """The one order of axes that fits though no library is known to keep it; None where several do."""
    if len(source) != len(destination) or not 2 < len(source) <= 5 or len(set(source)) < len(source):
        return None
    if sorted(source) != sorted(destination):
        return None
    axes = tuple(source.index(size) for size in destination)
    return Change("transposed", (_transpose(axes),), "transposed", plain=False)


def _changes(source: Shape, destination: Shape) -> Iterator[Change]:
    rank = len(source)
    if source == destination:
        yield Change("as it is", ())
    if rank == 2 and source[::-1] == destination:
        yield Change("transposed", (Transpose(),), "transposed")
    if rank == len(destination):
        if rank > 2:
            yield from _convolutions(source, destination)
        return
    if _aligned(source, destination):
        yield Change("as it is", (Reshape(destination, source=source),), "reshaped")
    both = "transposed and reshaped"
    if rank == 2:
        turned = source[::-1]
        if _aligned(turned, destination) and 1 not in source:  # a row has nothing to turn
            yield Change("transposed", (Transpose(), Reshape(destination, source=turned)), both)
        if len(destination) == 3:  # [heads * size, in] -> [heads, in, size]
            heads, inner, size = destination
            if source == (heads * size, inner) and heads > 1:
                reshape = Reshape((heads, size, inner), source=source)
                yield Change("transposed", (reshape, Transpose(0, 2, 1)), both, plain=False)
    if len(destination) == 2 and rank == 3 and _aligned(source, destination[::-1]):
        yield Change("transposed", (Reshape(destination[::-1], source=source), Transpose()), both)
    if rank > 3:
        axes = _channels_last(rank)
        turned = _permuted(source, axes)
        if _aligned(turned, destination) and not _aligned(source, destination):
            pointwise = set(source[2:]) == {1}
            ops = (_transpose(axes), Reshape(destination, source=turned))
            yield Change("transposed", ops, both, plain=pointwise)


def _convolutions(source: Shape, destination: Shape) -> Iterator[Change]:
    """Orders of axes of three and more, of those that libraries keep."""
    rank = len(source)
    space, most = tuple(range(2, rank)), tuple(range(rank - 2))
    orders: tuple[tuple[Turn, Side, tuple[int, ...]], ...] = (
        ("transposed", "last", (*space, 1, 0)),
        ("transposed", "first", (rank - 1, rank - 2, *most)),
        ("exchanged", "last", (*space, 0, 1)),
        ("exchanged", "first", (rank - 2, rank - 1, *most)),
        ("exchanged", "", (1, 0, *space)),
        ("stacked", "", (*most, rank - 1, rank - 2)),
    )
    found: set[tuple[int, ...]] = set()
    for turn, channels, axes in orders:
        if axes not in found and _permuted(source, axes) == destination:
            found.add(axes)
            words = "its last two axes are exchanged" if turn == "stacked" else "transposed"
            yield Change(turn, (_transpose(axes),), words, channels=channels)


def reversed_in_space(change: Change, rank: int) -> Change:
    """The same, and the space axes of the kernel reversed."""
    flip = Flip(rank - 2, change.channels == "last")
    words = "transposed, its space axes reversed"
    return Change(change.turn, (*change.ops, Apply(flip, flip)), words, False, change.channels)


def channels_moved(source: Shape, destination: Shape, channels: int, *, axis: int, to: Side) -> Change | None:
    """A transposed matrix of which one axis of the source is a flattened image, its channels moved too.

    The image is taken to be as nearly square as its size allows.
    """
    total = source[axis]
    height, width = nearly_square(total // channels)
    image = (channels, height, width) if to == "last" else (height, width, channels)
    order = (1, 2, 0) if to == "last" else (2, 0, 1)
    shape = (*source[:axis], *image, *source[axis + 1 :])
    moved = tuple(axis + at for at in order)
    axes = (*moved, 0) if axis == 1 else (3, *moved)
    ops = (Reshape(shape), Transpose(axes), Reshape(destination))
    return Change("transposed", ops, "transposed, with the channels of an image moved", plain=False)


def nearly_square(size: int) -> tuple[int, int]:
    """The two factors of a size that are nearest to each other, the smaller first.

    Examples:
        >>> nearly_square(20), nearly_square(49)
        ((4, 5), (7, 7))
    """
    low = next(each for each in range(math.isqrt(size), 0, -1) if size % each == 0)
    return low, size // low


def _channels_last(rank: int) -> tuple[int, ...]:
    return (*range(2, rank), 1, 0)


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
