"""A leaf that is joined of several: memory of the result, into which each part is written as it comes.

Owns where a part goes in what this host holds of the result, one buffer for each part of it that its devices
ask for. So a stack of layers takes the memory of the stack and of the layer at hand, not twice that of all.
Refuses to own which leaves are joined (the rules) and where they lie in the result (the op's ``regions``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from treeload._files.pieces import aligned
from treeload._files.regions import Box, boxes_of, extents_of, placed, slices_of, whole_box
from treeload._leaves.spec import Spec, is_key
from treeload._ops.expression import Derived, Expression
from treeload._ops.op import Region


class Canvas:
    """The result of a joining op, as far as it has been written.

    Args:
        regions: where each part lies in the result: they are all of it, and no two overlap.
        request: the result's shape and dtype, and where it is wanted; None for the host.
    """

    def __init__(self, regions: Sequence[Region], request: Spec) -> None:
        self._boxes = [_box_of(region, request.shape) for region in regions]
        self._request = request
        self._buffers: dict[Box, np.ndarray[Any, Any]] = {}
        self._left = set(range(len(regions)))

    def write(self, number: int, part: Any) -> bool:
        """Takes one part, a NumPy array or a JAX array on the host's devices; whether it was the last."""
        if not self._buffers:  # memory is taken when there is something to write
            self._buffers = {box: _buffer(box, self._request) for box in boxes_of(self._request)}
        where = self._boxes[number]
        array = np.asarray(part).reshape(extents_of(where))
        for box, buffer in self._buffers.items():
            common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(where, box, strict=True))
            if all(start < stop for start, stop in common):
                buffer[_within(common, box)] = array[_within(common, where)]
        self._left.discard(number)
        return not self._left

    def result(self) -> Any:
        """The joined leaf where it is wanted, once every part has been written."""
        assert not self._left
        buffers, self._buffers = self._buffers, {}
        return placed(self._request, buffers.__getitem__)


def regions_of(value: Expression) -> Sequence[Region] | None:
    """Where the parts of a joined leaf lie in it; None for what is not joined, or cannot be part by part."""
    if not isinstance(value, Derived) or len(value.inputs) < 2 or not value.op.moves_only:
        return None
    if is_key(value.spec.dtype) or any(part.spec.dtype != value.spec.dtype for part in value.inputs):
        return None
    regions = value.op.regions(*(part.spec for part in value.inputs))
    if regions is None:
        return None
    sizes = [math.prod(extents_of(_box_of(region, value.spec.shape))) for region in regions]
    fits = sizes == [math.prod(part.spec.shape) for part in value.inputs]
    return regions if fits and sum(sizes) == math.prod(value.spec.shape) else None


def _box_of(region: Region, shape: Sequence[int]) -> Box:
    """What lies between the brackets, for every axis: a number is a range of one, ``...`` all others."""
    at = next((at for at, part in enumerate(region) if part is Ellipsis), len(region))
    before, behind = region[:at], region[at + 1 :]
    rest = whole_box(shape)[len(before) : len(shape) - len(behind)]
    tail = shape[len(shape) - len(behind) :] if behind else ()
    return (*_ranges(before, shape), *rest, *_ranges(behind, tail))


def _ranges(parts: Sequence[Any], shape: Sequence[int]) -> Box:
    return tuple(
        part.indices(size)[:2] if isinstance(part, slice) else (int(part), int(part) + 1)
        for part, size in zip(parts, shape, strict=False)
    )


def _buffer(box: Box, spec: Spec) -> np.ndarray[Any, Any]:
    extents = extents_of(box)
    found: np.ndarray[Any, Any] = aligned(math.prod(extents) * spec.dtype.itemsize).view(spec.dtype)
    return found.reshape(extents)


def _within(box: Box, outer: Box) -> tuple[slice, ...]:
    """Where a box lies in another that holds it."""
    return slices_of(tuple((a - at, b - at) for (a, b), (at, _) in zip(box, outer, strict=True)))
