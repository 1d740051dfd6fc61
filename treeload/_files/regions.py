"""Which part of an array each device of this host asks for, how parts are placed, and which are one range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

from treeload._leaves.spec import Spec

Box: TypeAlias = "tuple[tuple[int, int], ...]"  # start and stop along each axis


def is_spread(sharding: Any) -> bool:
    return sharding is not None and len(sharding.device_set) > 1


def boxes_of(request: Spec) -> tuple[Box, ...]:
    """The parts of the leaf that this host needs: the whole, unless it is spread over several devices."""
    return tuple(devices_by_box(request)) if is_spread(request.sharding) else (whole_box(request.shape),)


def devices_by_box(request: Spec) -> dict[Box, list[jax.Device]]:
    """Which devices of this host hold which part of the leaf; replicas share a part."""
    devices: dict[Box, list[jax.Device]] = {}
    for device, index in request.sharding.addressable_devices_indices_map(tuple(request.shape)).items():
        box = (
            whole_box(request.shape)
            if index is None
            else tuple(part.indices(size)[:2] for part, size in zip(index, request.shape, strict=True))
        )
        devices.setdefault(box, []).append(device)
    return devices


def placed(request: Spec, part: Callable[[Box], Any]) -> Any:
    """The leaf where its request wants it: on the host, on one device, or spread over several.

    ``part`` gives each of ``boxes_of(request)`` as an array on the host.
    """
    if request.sharding is None:
        return part(whole_box(request.shape))
    if not is_spread(request.sharding):
        return jax.device_put(part(whole_box(request.shape)), request.sharding)
    parts, places = [], []
    for box, devices in devices_by_box(request).items():
        array = part(box)
        for device in devices:
            parts.append(array)
            places.append(jax.sharding.SingleDeviceSharding(device, memory_kind=request.sharding.memory_kind))
    return jax.make_array_from_single_device_arrays(
        tuple(request.shape), request.sharding, jax.device_put(parts, places), dtype=request.dtype
    )


def placed_together(leaves: Sequence[tuple[Spec, Callable[[Box], Any]]]) -> list[Any]:
    """Several leaves as ``placed`` has each: ``device_put`` costs less for a list than for each alone."""
    found = [
        None if request.sharding is not None and not is_spread(request.sharding) else placed(request, part)
        for request, part in leaves
    ]
    single = [
        at
        for at, (request, _) in enumerate(leaves)
        if request.sharding is not None and not is_spread(request.sharding)
    ]
    if single:
        arrays = jax.device_put(
            [leaves[at][1](whole_box(leaves[at][0].shape)) for at in single],
            [leaves[at][0].sharding for at in single],
        )
        for at, array in zip(single, arrays, strict=True):
            found[at] = array
    return found


def whole_box(shape: Sequence[int]) -> Box:
    return tuple((0, size) for size in shape)


def slices_of(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


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
