"""A tree in memory as a source."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pytrees import nest

import treeload
from treeload import From, NameCollision, Policy, SourceError
from treeload._naming.name import Name
from treeload._sources.memory import MemorySource
from treeload._sources.source import Source
from treeload.testing import SourceConformance


class TestNumPyInMemory(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return MemorySource(nest(leaves))


class TestJaxArraysInMemory(SourceConformance):
    """JAX makes 64-bit arrays narrower, so the others stand for them."""

    @pytest.fixture
    def leaves(self) -> dict[Name, np.ndarray[Any, Any]]:
        from treeload.testing import _example_leaves

        return {
            name: array
            for name, array in _example_leaves(self.dtypes).items()
            if jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
        }

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return MemorySource(jax.tree.map(jnp.asarray, nest(leaves)))


class TestFlatDictInMemory(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return MemorySource({"|".join(name): array for name, array in leaves.items()}, separator="|")


def read(source: Source, *names: str) -> dict[str, Any]:
    specs = source.specs()
    requests = {Name.parse(name): specs[Name.parse(name)] for name in names or map(str, specs)}
    return {str(name): array for name, array in source.read(requests)}


def test_numbers_are_arrays_of_no_dimension() -> None:
    found = read(MemorySource({"i": 3, "f": 0.5, "t": True, "c": 1j, "n": np.float16(2)}))
    assert {name: (str(array.dtype), array.shape, array.item()) for name, array in found.items()} == {
        "i": ("int64", (), 3),
        "f": ("float64", (), 0.5),
        "t": ("bool", (), True),
        "c": ("complex128", (), 1j),
        "n": ("float16", (), 2),
    }


def test_what_holds_no_array_is_absent_or_static() -> None:
    source = MemorySource(
        {"w": np.ones(2), "none": None, "false": False, "act": len, "name": "x", "empty": {}}
    )
    assert set(source.specs()) == {("w",)}
    assert source.absent() == {("none",): None, ("false",): False}
    assert source.statics() == {("act",), ("name",)}


def test_host_arrays_are_handed_out_as_copies() -> None:
    array = np.ones(3)
    (given,) = read(MemorySource({"w": array})).values()
    assert not np.shares_memory(given, array)


def test_jax_arrays_are_handed_out_as_they_are() -> None:
    array = jnp.ones(3)
    assert read(MemorySource({"w": array}))["w"] is array


def test_a_request_with_a_sharding_gives_a_committed_array() -> None:
    array = jnp.ones(3)
    sharding = array.sharding
    assert not array.committed
    request = {Name(("w",)): jax.ShapeDtypeStruct((3,), np.float32, sharding=sharding)}
    ((_, given),) = MemorySource({"w": array}).read(request)
    assert given.committed and given.sharding == sharding


def test_values_are_read_when_they_load() -> None:
    array = np.zeros(3, np.float32)
    plan = treeload.plan({"w": jnp.zeros(3)}, {"w": array})
    array[:] = 5
    np.testing.assert_array_equal(plan.load()["w"], [5, 5, 5])


@pytest.mark.parametrize(
    "like", [np.zeros(64, np.float32), jnp.zeros(64), jax.ShapeDtypeStruct((64,), np.float32)]
)
@pytest.mark.parametrize("offset", range(0, 64, 4))
def test_a_result_never_changes_when_the_source_is_written_to(like: Any, offset: int) -> None:
    memory = np.zeros(64 * 4 + 64, np.uint8)  # at one of these offsets JAX would take the memory as its own
    array = memory[offset : offset + 64 * 4].view(np.float32)
    array[:] = 1
    result = treeload.load({"w": like}, {"w": array})["w"]
    array[:] = 2
    np.testing.assert_array_equal(result, np.ones(64))


def test_a_shape_changed_since_the_plan_is_an_error() -> None:
    array = np.zeros((2, 3), np.float32)
    plan = treeload.plan({"w": jnp.zeros((2, 3))}, {"w": array})
    array.resize((3, 2), refcheck=False)
    with pytest.raises(SourceError, match=r"'w'.*float32\[2,3\].*float32\[3,2\]"):
        plan.load()


def test_an_abstract_source_can_be_planned_from_and_not_loaded() -> None:
    plan = treeload.plan({"w": jnp.zeros(3)}, {"w": jax.ShapeDtypeStruct((3,), np.float32)})
    assert plan.ok
    with pytest.raises(SourceError, match="'w'.*abstract"):
        plan.load()


def test_a_deleted_array_is_an_error_that_names_it() -> None:
    array = jnp.ones(3)
    plan = treeload.plan({"w": jnp.zeros(3)}, {"w": array})
    array.delete()
    with pytest.raises(SourceError, match="'w'.*deleted"):
        plan.load()


def test_one_array_in_two_places_is_two_leaves_of_a_source() -> None:
    array = jnp.ones(2)
    source = MemorySource({"a": array, "b": array})
    assert set(source.specs()) == {("a",), ("b",)} and source.ties() == {}
    plan = treeload.plan({"a": jnp.zeros(2)}, {"a": array, "b": array})
    assert [finding.kind for finding in plan.errors] == ["unexpected"]


def test_a_shared_variable_is_one_leaf_with_its_names() -> None:
    shared = nnx.Param(jnp.ones(2))
    source = MemorySource({"a": shared, "b": shared})
    assert set(source.specs()) == {("a",), ("b",)}
    assert source.ties() == {("b",): ("a",)}
    assert treeload.plan({"b": jnp.zeros(2)}, {"a": shared, "b": shared}).ok


@pytest.mark.parametrize("make", [dict, OrderedDict, flax.core.freeze, nnx.State])
def test_every_kind_of_mapping_is_a_source(make: Any) -> None:
    tree = make({"b": {"w": jnp.ones(2)}, "a": jnp.zeros(3)})
    assert set(treeload.plan({"a": jnp.zeros(3), "b": {"w": jnp.zeros(2)}}, tree).load()) == {"a", "b"}


def test_an_nnx_module_is_a_source() -> None:
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    result = treeload.load({"kernel": np.zeros((2, 3), np.float32), "bias": jnp.ones(3)}, model)
    np.testing.assert_array_equal(result["kernel"], model.kernel[...])
    np.testing.assert_array_equal(result["bias"], np.zeros(3))


# Flat dicts.


def test_a_flat_dict_is_split_only_when_asked() -> None:
    flat = {"a.b": np.ones(2, np.float32)}
    assert treeload.names(flat) == ("a.b",)
    assert treeload.plan({"a": {"b": jnp.zeros(2)}}, From(flat, separator=".")).ok
    assert not treeload.plan({"a": {"b": jnp.zeros(2)}}, flat).ok


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"a.b": 1.0, "a": {"b": 2.0}}, "'a/b' and 'a.b' have one name, 'a/b'"),
        ({"a.b": 1.0, "a": 2.0}, "'a.b' lies below another leaf, 'a'"),
        ({"a": 2.0, "a.b": 1.0}, "'a.b' lies below another leaf, 'a'"),
        ({"x": [{"a.b.c": 1.0, "a.b": 2.0}]}, "'x/0/a.b.c' lies below another leaf, 'x/0/a.b'"),
    ],
)
def test_what_would_collide_once_it_is_split_is_refused(tree: Any, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        MemorySource(tree, separator=".")


def test_keys_of_two_types_that_print_alike_collide() -> None:
    with pytest.raises(NameCollision, match="'1'"):
        treeload.plan({"a": jnp.zeros(1)}, {"a": {1: jnp.zeros(1), "1": jnp.zeros(1)}})


def test_a_kept_verdict_does_not_read_the_source() -> None:
    src = {"w": jax.ShapeDtypeStruct((3,), np.float32), "b": np.ones(2, np.float32)}
    result = treeload.load({"w": jnp.zeros(2), "b": jnp.zeros(2)}, src, policy=Policy(shape={"w": "keep"}))
    np.testing.assert_array_equal(result["b"], [1, 1])
