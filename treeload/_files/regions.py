"""Which part of an array each device of this host asks for, and whether it is one range of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax

from treeload._leaves.spec import Spec

Box: TypeAlias = "tuple[tuple[int, int], ...]"  # start and stop along each axis


def is_spread(sharding: Any) -> bool:
    return sharding is not None and len(sharding.device_set) > 1


def devices_by_box(request: Spec) -> dict[Box, list[jax.Device]]:
    """Which devices of this host hold which part of the leaf; replicas share a part."""
    devices: dict[Box, list[jax.Device]] = {}
    for device, index in request.sharding.addressable_devices_indices_map(request.shape).items():
        box = tuple(part.indices(size)[:2] for part, size in zip(index, request.shape, strict=True))
        devices.setdefault(box, []).append(device)
    return devices


def whole_box(shape: Sequence[int]) -> Box:
    return tuple((0, size) for size in shape)


def extents_of(box: Box) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in box)


def is_contiguous(box: Box, shape: Sequence[int]) -> bool:
    """Whether the box is one range of the row-major array: whole behind the first axis longer than 1."""
    extents = extents_of(box)
    first = next((axis for axis, extent in enumerate(extents) if extent > 1), len(extents))
    return extents[first + 1 :] == tuple(shape[first + 1 :])


def first_element(box: Box, shape: Sequence[int]) -> int:
    element = 0
    for (start, _), size in zip(box, shape, strict=True):
        element = element * size + start
    return element
