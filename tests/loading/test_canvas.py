"""Leaves that are joined part by part: the same as NumPy's, wherever they are wanted, and no part is kept."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

import treeload
from treeload import Concat, Name, Rename, Stack, Transpose
from treeload._leaves.spec import make_spec
from treeload._loading import deliver
from treeload._loading.canvas import Canvas, _box_of, regions_of
from treeload._ops.expression import Leaf, derive
from treeload._ops.op import Op, Region
from treeload._ops.several import ConcatArrays, StackArrays

MESH = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("a", "b"))


def layers(count: int, shape: tuple[int, ...], dtype: Any = np.float32) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [(100 * rng.random(shape)).astype(dtype) for _ in range(count)]


class Parts(treeload.Source):
    """Leaves that are made as they are read, and remembered as long as somebody holds them."""

    label = "parts"
    gives_away = True

    def __init__(self, parts: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self._parts = {Name.parse(name): part for name, part in parts.items()}
        self.alive: list[weakref.ref[Any]] = []
        self.most = 0

    def specs(self) -> Any:
        return {name: make_spec(part.shape, part.dtype) for name, part in self._parts.items()}

    def read(self, requests: Any) -> Iterator[tuple[Name, Any]]:
        for name in requests:
            part = np.array(self._parts[name])
            self.alive.append(weakref.ref(part))
            self.most = max(self.most, sum(each() is not None for each in self.alive))
            yield name, part
            del part


def wanted(shape: tuple[int, ...], spec: Any = None, dtype: Any = np.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=None if spec is None else NamedSharding(MESH, spec))


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(2, 6),
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    data=st.data(),
    dtype=st.sampled_from([np.float32, np.int8, ml_dtypes.bfloat16]),
)
def test_stacks_are_those_of_numpy(count: int, shape: tuple[int, ...], data: Any, dtype: Any) -> None:
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    parts = layers(count, shape, dtype)
    source = Parts({f"l/{at}/w": part for at, part in enumerate(parts)})
    expected = np.stack(parts, axis)
    loaded = treeload.load(
        {"w": np.zeros(expected.shape, dtype)}, source, rules=[Stack("l/{i}/w", "w", axis=axis)]
    )["w"]
    assert loaded.dtype == expected.dtype and loaded.tobytes() == expected.tobytes()


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(1, 4), min_size=2, max_size=5), axis=st.integers(-3, 2))
def test_joins_are_those_of_numpy(sizes: list[int], axis: int) -> None:
    shapes = [tuple(size if at == axis % 3 else 2 for at in range(3)) for size in sizes]
    parts = [np.full(shape, at, np.float32) for at, shape in enumerate(shapes)]
    names = [f"p{at}" for at in range(len(parts))]
    expected = np.concatenate(parts, axis)
    loaded = treeload.load(
        {"w": np.zeros(expected.shape, np.float32)},
        Parts(dict(zip(names, parts, strict=True))),
        rules=[Concat(names, "w", axis=axis)],
    )["w"]
    assert loaded.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "spec", [P("a"), P(None, "b"), P("b", None, "a"), P(None, None, "b"), P(("a", "b")), P("a", "b"), P()]
)
def test_each_device_has_its_part_of_a_stack(tmp_path: Path, spec: Any) -> None:
    parts = layers(8, (4, 6))
    save_file({f"l.{at}.w": part for at, part in enumerate(parts)}, tmp_path / "x.safetensors")
    like = wanted((8, 6, 4), spec)
    rule = Stack("l/{i}/w", "w", Transpose())
    loaded = treeload.load({"w": like}, tmp_path / "x.safetensors", rules=[rule])["w"]
    assert loaded.sharding == like.sharding
    assert np.array_equal(loaded, np.stack([part.T for part in parts]))


def test_a_part_is_let_go_before_the_next_is_read() -> None:
    source = Parts({f"l/{at}/w": part for at, part in enumerate(layers(20, (50, 50)))})
    treeload.load({"w": wanted((20, 50, 50))}, source, rules=[Stack("l/{i}/w", "w")])
    assert source.most <= 2  # that at hand, and the one that is being read


@pytest.mark.parametrize("spec", [None, P("a", "b"), P(None, "b")], ids=str)
def test_a_stack_takes_the_memory_of_the_stack(spec: Any) -> None:
    parts = layers(16, (256, 1024))
    source = Parts({f"l/{at}/w": part for at, part in enumerate(parts)})
    plan = treeload.plan({"w": wanted((16, 256, 1024), spec)}, source, rules=[Stack("l/{i}/w", "w")])
    size = 16 * 256 * 1024 * 4
    tracemalloc.start()
    try:
        loaded = plan.load()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    replicas = 4 if spec == P(None, "b") else 1
    assert np.array_equal(loaded["w"], np.stack(parts))
    assert peak <= 1.25 * size, (peak / size, replicas)


def test_a_leaf_that_is_in_two_joined_ones_is_read_once() -> None:
    parts = layers(2, (3,))
    source = Parts({"a": parts[0], "b": parts[1]})
    read: list[Name] = []
    inner = source.read

    def watched(requests: Any) -> Iterator[tuple[Name, Any]]:
        for name, array in inner(requests):
            read.append(name)
            yield name, array

    source.read = watched  # type: ignore[method-assign]
    loaded = treeload.load(
        {"one": np.zeros((6,), np.float32), "two": np.zeros((6,), np.float32)},
        source,
        rules=[
            treeload.Copy(["a", "b"], "one", ConcatArrays(0)),
            Rename(["b", "a"], "two", ConcatArrays(0)),
        ],
    )
    assert sorted(map(str, read)) == ["a", "b"]
    assert loaded["one"].tolist() == [*parts[0], *parts[1]]
    assert loaded["two"].tolist() == [*parts[1], *parts[0]]


@pytest.mark.parametrize("spec", [None, P("b")], ids=str)
def test_a_stack_that_is_cast_is_cast(spec: Any) -> None:
    parts = layers(4, (3,), ml_dtypes.bfloat16)
    loaded = treeload.load(
        {"w": wanted((4, 3), spec)},
        Parts({f"l/{at}/w": part for at, part in enumerate(parts)}),
        rules=[Stack("l/{i}/w", "w")],
    )["w"]
    assert loaded.dtype == np.float32 and np.array_equal(loaded, np.stack(parts).astype(np.float32))


def test_a_stack_of_what_lies_in_memory_is_made_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: Any) -> Any:
        raise AssertionError("it was painted")

    monkeypatch.setattr(deliver, "Canvas", none)
    tree = {"l": {str(at): {"w": jnp.full(3, at)} for at in range(3)}}
    loaded = treeload.load({"w": jnp.zeros((3, 3), jnp.int32)}, tree, rules=[Stack("l/{i}/w", "w")])
    assert loaded["w"][:, 0].tolist() == [0, 1, 2]


# --- what may be painted -----------------------------------------------------------------------------


def leaf(*shape: int, dtype: Any = np.float32, at: int = 0) -> Leaf:
    return Leaf(0, Name((f"l{at}",)), make_spec(shape, dtype))


class Interleaved(Op):
    """An op of somebody's that says where its inputs lie, but not of all of it."""

    takes_several = moves_only = True

    def infer(self, *specs: Any) -> Any:
        return make_spec((4,), specs[0].dtype)

    def apply(self, *arrays: Any) -> Any:
        return np.concatenate([*arrays, arrays[0]])

    def regions(self, *specs: Any) -> tuple[Region, ...]:
        return (slice(0, 1),), (slice(1, 2),)


def test_what_is_joined_part_by_part() -> None:
    assert regions_of(leaf(3)) is None
    assert regions_of(derive(Transpose(), leaf(3, 2))) is None
    assert regions_of(derive(StackArrays((1,), 0), leaf(3))) is None  # of one
    assert regions_of(derive(Interleaved(), leaf(1), leaf(1, at=1))) is None
    assert regions_of(derive(ConcatArrays(0), leaf(1), leaf(2, at=1))) is not None
    key = jax.eval_shape(lambda: jax.random.key(0)).dtype
    assert regions_of(derive(StackArrays((2,), 0), leaf(dtype=key), leaf(dtype=key, at=1))) is None


@pytest.mark.parametrize(
    ("region", "box"),
    [
        ((), ((0, 2), (0, 3), (0, 4))),
        ((1,), ((1, 2), (0, 3), (0, 4))),
        ((slice(None), slice(1, 2)), ((0, 2), (1, 2), (0, 4))),
        ((slice(None), 2, ...), ((0, 2), (2, 3), (0, 4))),
        ((..., slice(2, 4)), ((0, 2), (0, 3), (2, 4))),
        ((0, ..., slice(-2, None)), ((0, 1), (0, 3), (2, 4))),
    ],
)
def test_regions_are_what_numpy_takes_them_for(region: Region, box: Any) -> None:
    assert _box_of(region, (2, 3, 4)) == box
    whole = np.arange(24).reshape(2, 3, 4)
    assert whole[region].ravel().tolist() == whole[tuple(slice(a, b) for a, b in box)].ravel().tolist()


def test_a_canvas_is_whole_when_every_part_was_written() -> None:
    canvas = Canvas([(slice(0, 2),), (slice(2, 3),)], make_spec((3,), np.float32))
    assert not canvas.write(1, np.array([7.0]))
    assert canvas.write(0, jnp.array([5.0, 6.0]))
    assert canvas.result().tolist() == [5, 6, 7]
