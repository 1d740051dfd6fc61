"""``plan.load(sharding=...)``: the result lies where the caller says, from every source, kept leaves too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import treeload
from treeload import Policy, Rename, Transpose, TreeloadError

P = jax.sharding.PartitionSpec
MESH = jax.sharding.Mesh(np.asarray(jax.devices()[:8]).reshape(4, 2), ("x", "y"))
W = np.arange(32, dtype=np.float32).reshape(8, 4)
B = np.arange(4, dtype=np.float32)


def over(*axes: str | None) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(MESH, P(*axes))


def destination(make: Callable[[tuple[int, ...]], Any]) -> dict[str, Any]:
    return {"dense": {"w": make((8, 4)), "b": make((4,))}, "head": make((4,)), "step": 3}


DESTINATIONS = {
    "jax": lambda shape: jnp.zeros(shape),
    "NumPy": lambda shape: np.zeros(shape, np.float32),
    "abstract": lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
    "elsewhere": lambda shape: jax.device_put(np.zeros(shape, np.float32), jax.devices()[3]),
}
TREE = {"dense": {"w": W, "b": B}, "head": B + 1, "step": 7}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("shardings")
    treeload.save(folder / "orbax", TREE)
    save_file(
        {"dense.w": W, "dense.b": B, "head": B + 1, "step": np.asarray(7)}, folder / "model.safetensors"
    )
    return {"memory": TREE, "orbax": folder / "orbax", "safetensors": folder / "model.safetensors"}


def check(loaded: dict[str, Any], **shardings: jax.sharding.Sharding) -> None:
    for name, value, got in (
        ("w", W, loaded["dense"]["w"]), ("b", B, loaded["dense"]["b"]), ("head", B + 1, loaded["head"]),
    ):  # fmt: skip
        assert isinstance(got, jax.Array)
        assert got.committed and got.sharding == shardings[name]
        np.testing.assert_array_equal(np.asarray(got), value)
    assert loaded["step"] == 7 and type(loaded["step"]) is int


@pytest.mark.parametrize("kind", DESTINATIONS)
@pytest.mark.parametrize("of", ["memory", "orbax", "safetensors"])
def test_one_sharding_is_for_every_array_and_for_no_number(
    sources: dict[str, Any], of: str, kind: str
) -> None:
    everywhere = over()
    plan = treeload.plan(destination(DESTINATIONS[kind]), sources[of])
    check(plan.load(sharding=everywhere), w=everywhere, b=everywhere, head=everywhere)


@pytest.mark.parametrize("of", ["memory", "orbax", "safetensors"])
def test_a_tree_of_shardings(sources: dict[str, Any], of: str) -> None:
    asked = {"dense": {"w": over("x", "y"), "b": over("y")}, "head": over("x"), "step": over()}
    plan = treeload.plan(destination(DESTINATIONS["abstract"]), sources[of])
    check(plan.load(sharding=asked), w=over("x", "y"), b=over("y"), head=over("x"))


def test_a_prefix_tree_is_for_all_below_and_none_leaves_the_destinations_own(sources: dict[str, Any]) -> None:
    loaded = treeload.load(
        destination(DESTINATIONS["elsewhere"]), sources["memory"], sharding={"dense": over("y"), "head": None}
    )
    there = jax.sharding.SingleDeviceSharding(jax.devices()[3])
    check(loaded, w=over("y"), b=over("y"), head=there)


def test_what_lies_deeper_comes_before_what_lies_above(sources: dict[str, Any]) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def asked(name: treeload.Name, spec: jax.ShapeDtypeStruct) -> jax.sharding.Sharding | None:
        seen.append((str(name), spec.shape))
        return over("x") if len(spec.shape) == 2 else over()

    check(treeload.load(destination(DESTINATIONS["jax"]), sources["orbax"], sharding=asked),
          w=over("x"), b=over(), head=over())  # fmt: skip
    assert sorted(seen) == [("dense/b", (4,)), ("dense/w", (8, 4)), ("head", (4,))]


def test_partition_specs_are_over_the_mesh_that_is_set(sources: dict[str, Any]) -> None:
    plan = treeload.plan(destination(DESTINATIONS["jax"]), sources["memory"])
    asked = {"dense": {"w": P("x", "y"), "b": P()}, "head": P("y")}
    with jax.set_mesh(MESH):
        check(plan.load(sharding=asked), w=over("x", "y"), b=over(), head=over("y"))
    with pytest.raises(TypeError, match="no mesh is set: call it under jax.set_mesh"):
        plan.load(sharding=P("x"))


@pytest.mark.parametrize("kind", ["jax", "NumPy", "abstract"])
def test_what_is_kept_zeroed_made_or_transposed_goes_there_too(kind: str) -> None:
    make = DESTINATIONS[kind]
    dst = {"w": make((8, 4)), "kept": make((4,)), "zero": make((4,))}
    plan = treeload.plan(
        dst, {"t": W.T}, rules=Rename("t", "w", Transpose()),
        policy=Policy(missing={"kept": "keep"}, absent_is_zero="zero"),
    )  # fmt: skip
    init = (
        (lambda: {"w": jnp.ones((8, 4)), "kept": jnp.zeros(4), "zero": jnp.ones(4)})
        if kind == "abstract"
        else None
    )
    loaded = plan.load(sharding=over("x"), init=init)
    assert {leaf.sharding for leaf in loaded.values()} == {over("x")}
    np.testing.assert_array_equal(loaded["w"], W)
    assert not loaded["kept"].any() and not loaded["zero"].any()


def test_an_nnx_model_made_abstract_takes_a_state_of_shardings() -> None:
    model = nnx.eval_shape(lambda: nnx.Linear(8, 4, rngs=nnx.Rngs(0)))
    asked = jax.tree.map(lambda leaf: over("y") if leaf.ndim == 1 else over("x", "y"), nnx.state(model))
    loaded = treeload.load(model, {"kernel": W, "bias": B}, sharding=asked)
    assert loaded.kernel[...].sharding == over("x", "y") and loaded.bias[...].sharding == over("y")
    np.testing.assert_array_equal(loaded.kernel[...], W)


def test_a_tied_leaf_is_placed_by_any_of_its_names() -> None:
    shared = jnp.zeros((8, 4))
    loaded = treeload.load({"a": shared, "b": shared}, {"a": W, "b": W}, sharding={"b": over("x")})
    assert loaded["a"] is loaded["b"] and loaded["b"].sharding == over("x")


def test_everything_that_cannot_be_placed_is_said_and_nothing_is_read() -> None:
    class Unread(treeload.Source):
        def specs(self) -> Any:
            return {treeload.Name((k,)): jax.ShapeDtypeStruct((6, 3), np.float32) for k in "ab"}

        def read(self, requests: Any) -> Any:
            raise AssertionError("nothing is to be read")

    plan = treeload.plan({k: jnp.zeros((6, 3)) for k in "ab"}, Unread())
    with pytest.raises(TreeloadError) as caught:
        plan.load(sharding={"a": over("x"), "b": over(None, "y")})
    assert str(caught.value).splitlines() == [
        "sharding= does not fit:",
        f"a, float32[6,3]: its sharding, {P('x')} over x: 4, y: 2, splits axis 0 into 4, "
        "which does not divide 6: give it another sharding, such as None for that axis",
        f"b, float32[6,3]: its sharding, {P(None, 'y')} over x: 4, y: 2, splits axis 1 into 2, "
        "which does not divide 3: give it another sharding, such as None for that axis",
    ]


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"dense": over(), "haed": over()}, TreeloadError, "sharding= has haed, where the destination"),
        ({"dense": {"w": over(), "c": over()}}, TreeloadError, "sharding= has dense/c, where"),
        ({"dense": "x"}, TypeError, "sharding= has at 'dense' a str; it takes jax shardings"),
        (lambda name, spec: 3, TypeError, r"sharding\('dense/b', float32\[4\]\) gave a int"),
        (MESH, TypeError, r"sharding= is a Mesh; .*, such as NamedSharding\(mesh, P\(\)\), and None"),
        (jax.devices()[1], TypeError, r"is a Device; .*, such as SingleDeviceSharding\(device\), and None"),
        (over(None, "y"), TreeloadError, r"dense/b, float32\[4\]: its sharding, .*, is for 2 axes or more"),
    ],
    ids=["typo", "no leaf", "text", "function", "mesh", "device", "axes"],
)  # fmt: skip
def test_what_is_no_sharding_or_for_nothing_is_refused(asked: Any, error: type[Exception], said: str) -> None:
    dst = destination(DESTINATIONS["jax"])
    with pytest.raises(error, match=said):
        treeload.load(dst, TREE, sharding=asked)


def test_update_has_none() -> None:
    with pytest.raises(TypeError, match="sharding"):
        treeload.update(nnx.Linear(8, 4, rngs=nnx.Rngs(0)), {"kernel": W, "bias": B}, sharding=over())
