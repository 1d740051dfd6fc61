"""Ops on leaves that are spread over devices run under jit, and give what they give on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import treeload
from treeload import Apply, Cast, Concat, From, Rename, Reshape, Slice, Split, Stack, Transpose, Unstack
from treeload._loading import jitted as _jitted

P = jax.sharding.PartitionSpec
MESH = jax.sharding.Mesh(np.asarray(jax.devices()[:8]).reshape(4, 2), ("x", "y"))
RNG = np.random.default_rng(0)


def over(*axes: str | None, mesh: jax.sharding.Mesh = MESH) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh, P(*axes))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked to be made under jit."""
    asked: list[Any] = []
    made = _jitted._compiled

    def noted(value: Any, wanted: Any) -> Any:
        asked.append((value, wanted))
        return made(value, wanted)

    monkeypatch.setattr(_jitted, "_compiled", noted)
    return asked


def spread(*shape: int, dtype: Any = np.float32, axes: Sequence[str | None] = ("x",)) -> jax.Array:
    return jax.device_put(RNG.normal(size=shape).astype(dtype), over(*axes))


def layers(count: int = 4) -> dict[str, jax.Array]:
    return {f"l{at}": spread(8, 4) for at in range(count)}


CASES: dict[str, tuple[Callable[[], Any], list[treeload.Rule], dict[str, tuple[int, ...]]]] = {
    "transposed": (lambda: {"a": spread(8, 4)}, [Rename("a", "b", Transpose())], {"b": (4, 8)}),
    "reshaped": (lambda: {"a": spread(8, 4)}, [Rename("a", "b", Reshape(4, 2, 4))], {"b": (4, 2, 4)}),
    "cut": (lambda: {"a": spread(8, 4)}, [Rename("a", "b", Slice(4))], {"b": (4, 4)}),
    "stacked": (layers, [Stack("l{i}", "b")], {"b": (4, 8, 4)}),
    "joined": (layers, [Concat([f"l{at}" for at in range(4)], "b")], {"b": (8, 16)}),
    "split": (
        lambda: {"a": spread(8, 4)}, [Split("a", ["b", "c"])], {"b": (8, 2), "c": (8, 2)},
    ),
    "unstacked": (
        lambda: {"a": spread(4, 8, 4)}, [Unstack("a", "b{i}")], {f"b{at}": (8, 4) for at in range(4)},
    ),
    "two steps": (
        lambda: {"a": spread(8, 4)}, [Rename("a", "b", Transpose(), Reshape(2, 16))], {"b": (2, 16)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("axes", [(None,), (None, "y"), ("y",)], ids=str)
def test_they_give_what_they_give_on_the_host(
    case: str, axes: Sequence[str | None], compiled: list[Any]
) -> None:
    make, rules, shapes = CASES[case]
    source = make()
    wanted = over(*axes)
    dst = {name: jax.ShapeDtypeStruct(shape, np.float32, sharding=wanted) for name, shape in shapes.items()}
    loaded = treeload.load(dst, source, rules=rules)
    assert len(compiled) == len(shapes)
    on_host = treeload.load(
        {name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
        jax.tree.map(np.asarray, source), rules=rules,
    )  # fmt: skip
    for name, array in loaded.items():
        assert array.sharding == wanted
        assert np.asarray(array).tobytes() == on_host[name].tobytes()


def test_layers_that_are_alike_are_compiled_once() -> None:
    _jitted._compiled.cache_clear()
    dst = {f"m{at}": jax.ShapeDtypeStruct((4, 8), np.float32, sharding=over(None, "x")) for at in range(4)}
    treeload.load(dst, layers(), rules=[Rename("l{i}", "m{i}", Transpose())])
    assert _jitted._compiled.cache_info().misses == 1
    assert _jitted._compiled.cache_info().hits == 3


def test_a_leaf_that_lies_on_the_host_goes_with_them(compiled: list[Any]) -> None:
    source = {"a": spread(4, 4), "b": np.ones((4, 4), np.float32)}
    dst = {"c": jax.ShapeDtypeStruct((8, 4), np.float32, sharding=over("y"))}
    loaded = treeload.load(dst, source, rules=[Concat(["a", "b"], "c", axis=0)])["c"]
    assert len(compiled) == 1
    assert np.array_equal(loaded, np.concatenate([np.asarray(source["a"]), source["b"]]))


@pytest.mark.parametrize(
    ("sharding", "op"),
    [
        (over("x"), Cast("bfloat16")),  # XLA on CPUs flushes what is denormal
        (over("x"), Apply(lambda array: array * 1)),  # runs op by op, as it says
        (over("a", mesh=jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("a",))), Transpose()),
        (jax.sharding.SingleDeviceSharding(jax.devices()[0]), Transpose()),
        (None, Transpose()),
    ],
    ids=["cast", "a function", "other devices", "one device", "anywhere"],
)
def test_what_cannot_be_made_there_is_made_as_before(
    sharding: Any, op: treeload.Op, compiled: list[Any]
) -> None:
    source = {"a": spread(4, 4)}
    dtype = ml_dtypes.bfloat16 if isinstance(op, Cast) else np.float32
    dst = {"b": jax.ShapeDtypeStruct((4, 4), dtype, sharding=sharding)}
    loaded = treeload.load(dst, source, rules=[Rename("a", "b", op)])["b"]
    assert not compiled
    expected = op.apply(np.asarray(source["a"]))
    assert np.array_equal(np.asarray(loaded), np.asarray(expected))
    if sharding is not None:
        assert loaded.sharding == sharding


def test_keys_are_not_made_under_jit(compiled: list[Any]) -> None:
    keys = jax.device_put(jax.random.split(jax.random.key(0), 8).reshape(4, 2), over("x"))
    dst = {"b": jax.ShapeDtypeStruct((2, 4), keys.dtype, sharding=over(None, "x"))}
    loaded = treeload.load(dst, {"a": keys}, rules=[Rename("a", "b", Transpose())])["b"]
    assert not compiled
    assert (jax.random.key_data(loaded) == jax.random.key_data(keys.T)).all()


def test_an_update_in_place_makes_them_there_too(compiled: list[Any]) -> None:
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(jax.device_put(jnp.zeros((4, 8)), over(None, "x")))

    model, source = Model(), spread(8, 4)
    treeload.update(model, From({"w": source}), rules=[Rename("w", "w", Transpose())])
    assert len(compiled) == 1
    assert model.w[...].sharding == over(None, "x")
    assert np.array_equal(model.w[...], np.asarray(source).T)


def test_an_op_that_does_not_give_what_it_said_is_told_by_its_name() -> None:
    class Wrong(Transpose):
        def apply(self, *arrays: Any) -> Any:
            return arrays[0]

    dst = {"b": jax.ShapeDtypeStruct((4, 8), np.float32, sharding=over(None, "x"))}
    with pytest.raises(treeload.TreeloadError, match=r"was to give float32\[4,8\] and gave float32\[8,4\]"):
        treeload.load(dst, {"a": spread(8, 4)}, rules=[Rename("a", "b", Wrong())])
