"""Parts of an array: which device asks for which, and how they come together again."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from treeload._files.regions import (
    boxes_of,
    devices_by_box,
    extents_of,
    first_element,
    is_contiguous,
    is_spread,
    placed,
    slices_of,
    whole_box,
)

MESHES = [(8,), (2, 4), (4, 2), (2, 2, 2), (1, 8), (3,)]


def mesh_of(sizes: tuple[int, ...]) -> Mesh:
    devices = np.array(jax.devices()[: math.prod(sizes)]).reshape(sizes)
    return Mesh(devices, tuple("abc"[: len(sizes)]))


@st.composite
def requests(draw: st.DrawFn) -> jax.ShapeDtypeStruct:
    """A leaf of up to three axes, each split over none, one or two axes of a mesh."""
    sizes = draw(st.sampled_from(MESHES))
    mesh = mesh_of(sizes)
    left = list(mesh.axis_names)
    shape, spec = [], []
    for _ in range(draw(st.integers(0, 3))):
        over = draw(st.lists(st.sampled_from(left), unique=True, max_size=2)) if left else []
        left = [axis for axis in left if axis not in over]
        spec.append(tuple(over) or None)
        shape.append(draw(st.integers(0, 2)) * math.prod(mesh.shape[axis] for axis in over))
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    dtype = draw(st.sampled_from(["float32", "bfloat16", "int8", "bool"]))
    return jax.ShapeDtypeStruct(tuple(shape), jax.numpy.dtype(dtype), sharding=sharding)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Any, tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
    ends = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    return tuple((start, max(stop, start)) for start, stop in ends), shape


def numbered(request: Any) -> np.ndarray[Any, Any]:
    return (np.arange(math.prod(request.shape)) % 101).reshape(request.shape).astype(request.dtype)


# --- laws -------------------------------------------------------------------------------------------


@given(requests())
def test_the_boxes_of_a_sharding_hold_each_element_exactly_once(request: Any) -> None:
    counts = np.zeros(request.shape, int)
    for box in boxes_of(request):
        counts[slices_of(box)] += 1
    assert (counts == 1).all()


@given(requests())
def test_every_device_has_exactly_one_box(request: Any) -> None:
    devices = list(itertools.chain.from_iterable(devices_by_box(request).values()))
    assert len(devices) == len(set(devices))
    assert set(devices) == request.sharding.device_set


@given(requests())
def test_what_is_placed_part_by_part_is_the_array_bit_for_bit(request: Any) -> None:
    array = numbered(request)
    result = placed(request, lambda box: array[slices_of(box)])
    assert result.sharding == request.sharding
    assert (result.shape, result.dtype) == (array.shape, array.dtype)
    assert np.asarray(result).tobytes() == array.tobytes()
    for shard in result.addressable_shards:
        assert np.asarray(shard.data).tobytes() == array[shard.index].tobytes()


@given(requests())
def test_each_part_is_asked_for_once_however_many_devices_hold_it(request: Any) -> None:
    array, asked = numbered(request), []

    def part(box: Any) -> Any:
        asked.append(box)
        return array[slices_of(box)]

    placed(request, part)
    assert sorted(asked) == sorted(boxes_of(request))


@given(boxes())
def test_a_box_is_contiguous_where_its_elements_follow_each_other(drawn: Any) -> None:
    box, shape = drawn
    inside = np.arange(math.prod(shape)).reshape(shape)[slices_of(box)].ravel()
    if inside.size:
        in_one_run = list(inside) == list(range(inside[0], inside[0] + inside.size))
        assert is_contiguous(box, shape) == in_one_run
        assert first_element(box, shape) == inside[0]


@given(boxes())
def test_the_extents_of_a_box_are_the_shape_of_its_part(drawn: Any) -> None:
    box, shape = drawn
    assert extents_of(box) == np.zeros(shape)[slices_of(box)].shape


# --- examples ---------------------------------------------------------------------------------------


def test_the_whole_box_is_everything() -> None:
    assert whole_box((2, 3)) == ((0, 2), (0, 3))
    assert whole_box(()) == ()


@pytest.mark.parametrize(
    ("box", "shape", "contiguous"),
    [
        ((), (), True),
        (((1, 3),), (4,), True),
        (((1, 3), (0, 5)), (4, 5), True),
        (((1, 2), (2, 4)), (4, 5), True),
        (((1, 3), (2, 4)), (4, 5), False),
        (((0, 1), (1, 3), (0, 2)), (2, 4, 2), True),
        (((0, 2), (1, 3), (0, 2)), (2, 4, 2), False),
    ],
)
def test_rows_and_parts_of_one_row_are_contiguous(box: Any, shape: Any, contiguous: bool) -> None:
    assert is_contiguous(box, shape) is contiguous


def test_only_several_devices_spread_a_leaf() -> None:
    assert not is_spread(None)
    assert not is_spread(SingleDeviceSharding(jax.devices()[0]))
    assert not is_spread(NamedSharding(mesh_of((1,)), PartitionSpec()))
    assert is_spread(NamedSharding(mesh_of((2,)), PartitionSpec()))


def test_a_leaf_that_is_not_spread_is_one_box_whatever_its_device() -> None:
    for sharding in (None, SingleDeviceSharding(jax.devices()[3])):
        request = jax.ShapeDtypeStruct((2, 3), np.float32, sharding=sharding)
        assert boxes_of(request) == (((0, 2), (0, 3)),)


def test_replicas_share_a_box() -> None:
    request = jax.ShapeDtypeStruct(
        (4, 3), np.float32, sharding=NamedSharding(mesh_of((2, 4)), PartitionSpec("a"))
    )
    assert {box: len(devices) for box, devices in devices_by_box(request).items()} == {
        ((0, 2), (0, 3)): 4,
        ((2, 4), (0, 3)): 4,
    }


def test_without_a_sharding_what_is_given_stays_on_the_host_and_is_not_copied() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert placed(jax.ShapeDtypeStruct((2, 3), np.float64), lambda box: array) is array


def test_one_device_gets_the_whole() -> None:
    device = jax.devices()[5]
    request = jax.ShapeDtypeStruct((2,), np.float32, sharding=SingleDeviceSharding(device))
    result = placed(request, lambda box: np.ones(2, np.float32))
    assert result.devices() == {device}
