"""Destinations that were evaluated abstractly under a mesh: they know its axes, and not its devices."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import BIAS, LoadError, Policy, TreeloadError
from treeload._leaves.placement import unplaceable

P, AxisType = jax.sharding.PartitionSpec, jax.sharding.AxisType
TYPES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
types = pytest.mark.parametrize("axis_type", TYPES.values(), ids=TYPES)


def mesh(rows: int = 2, columns: int = 4, axis_type: Any = AxisType.Auto) -> jax.sharding.Mesh:
    return jax.make_mesh((rows, columns), ("x", "y"), axis_types=(axis_type, axis_type))


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, rows: int = 8) -> None:
        spread = nnx.with_partitioning(nnx.initializers.normal(), ("x", "y"))
        self.first = nnx.Linear(rows, 4, rngs=rngs, kernel_init=spread)
        self.drop = nnx.Dropout(0.5, rngs=rngs)


def stored(path: Path, model: Any) -> Path:
    treeload.save(path / "run", model)
    return path / "run"


@types
@pytest.mark.parametrize("from_disk", [True, False])
def test_an_abstract_module_is_loaded_onto_the_mesh_that_is_set(
    tmp_path: Path, axis_type: Any, from_disk: bool
) -> None:
    with jax.set_mesh(mesh(axis_type=axis_type)):
        saved = Net(nnx.Rngs(1))
    source = stored(tmp_path, saved) if from_disk else treeload.state(saved)
    with jax.set_mesh(mesh(axis_type=axis_type)):
        abstract = nnx.eval_shape(lambda: Net(nnx.Rngs(0)))
        plan = treeload.plan(abstract, source)
        loaded = plan.load()
    assert plan.ok and treeload.diff(loaded, saved).equal
    kernel = loaded.first.kernel.get_raw_value()
    assert kernel.sharding == jax.sharding.NamedSharding(mesh(axis_type=axis_type), P("x", "y"))
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(4, 1)}
    again = treeload.plan(abstract, source)
    with jax.set_mesh(mesh(axis_type=axis_type)):
        assert again.load().first.kernel.get_raw_value().sharding == kernel.sharding


def spec(*axes: Any, shape: tuple[int, ...] = (8, 4), on: Any = None) -> jax.ShapeDtypeStruct:
    where = mesh().abstract_mesh if on is None else on
    return jax.ShapeDtypeStruct(shape, np.float32, sharding=jax.sharding.NamedSharding(where, P(*axes)))


SRC = {"w": np.arange(32, dtype=np.float32).reshape(8, 4)}


def test_casts_zeros_and_what_init_makes_are_placed_there_too() -> None:
    dst = {"w": spec("x", "y"), "bias": spec("x", shape=(8,)), "new": spec("y", shape=(4,))}
    src = {"w": SRC["w"].astype(np.float64)}
    init = lambda: {"w": jnp.zeros((8, 4)), "bias": jnp.zeros(8), "new": jnp.ones(4)}  # noqa: E731
    policy = Policy(missing={"new": "keep"}, absent_is_zero=BIAS)
    with jax.set_mesh(mesh()):
        loaded = treeload.load(dst, src, policy=policy, init=init)
    assert [loaded[name].sharding.spec for name in dst] == [P("x", "y"), P("x"), P("y")]
    assert all(isinstance(leaf.sharding.mesh, jax.sharding.Mesh) for leaf in loaded.values())
    np.testing.assert_array_equal(loaded["w"], SRC["w"])


def other_mesh() -> Any:
    return jax.set_mesh(mesh(4, 2))


@pytest.mark.parametrize(
    ("around", "said"),
    [(contextlib.nullcontext, "no mesh is set now"), (other_mesh, "the mesh set now has x: 4, y: 2")],
)
@pytest.mark.parametrize("from_disk", [True, False])
def test_without_that_mesh_it_is_an_error_that_says_what_to_write(
    tmp_path: Path, around: Any, said: str, from_disk: bool
) -> None:
    plan = treeload.plan({"w": spec("x", "y")}, stored(tmp_path, SRC) if from_disk else SRC)
    assert plan.ok
    said = f"a mesh of x: 2, y: 4, .*{said}.*jax.set_mesh"
    with around(), pytest.raises(TreeloadError, match=said) as error:
        plan.load()
    assert type(error.value) is TreeloadError


@pytest.mark.parametrize("on", [None, mesh()], ids=["abstract mesh", "devices"])
def test_what_cannot_be_placed_is_found_by_the_plan(on: Any) -> None:
    dst = {
        "a": spec("x", "y", shape=(7, 4), on=on),
        "b": spec(None, ("x", "y"), shape=(3, 12), on=on),
        "bias": spec("y", shape=(6,), on=on),
        "fine": spec("x", None, shape=(2, 3), on=on),
    }
    src = {name: np.ones(one.shape, np.float64 if name == "b" else np.float32) for name, one in dst.items()}
    del src["bias"]
    plan = treeload.plan(dst, src, policy=Policy(absent_is_zero=BIAS))
    assert [(finding.kind, str(finding.name)) for finding in plan.errors] == [
        ("shape", "a"), ("shape", "b"), ("shape", "bias")
    ]  # fmt: skip
    said = {str(finding.name): finding.message for finding in plan.errors}
    assert "splits axis 0 into 2, which does not divide 7" in said["a"]
    assert "splits axis 1 into 8, which does not divide 12" in said["b"]
    assert "splits axis 0 into 4, which does not divide 6" in said["bias"]
    with pytest.raises(LoadError, match="another sharding"):
        plan.load()


def test_a_sharding_of_more_axes_than_the_leaf_has_is_said_so() -> None:
    sharding = jax.sharding.NamedSharding(mesh(), P("x", "y"))
    assert "is for 2 axes or more, and it has 1" in unplaceable((8,), sharding)
    assert unplaceable((8, 4), sharding) == unplaceable((8, 4, 3), sharding) == ""
