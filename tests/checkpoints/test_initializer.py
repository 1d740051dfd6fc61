"""A leaf of a checkpoint as an initialiser: in Linen and NNX, abstractly, compiled, where it does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import Apply, Cast, From, LoadError, Name, RuleError, Slice, Source, SourceError, Transpose

KERNEL = np.arange(12, dtype=np.float32).reshape(4, 3)
KEY = jax.random.key(0)


class Counting(Source):
    """Two leaves, and how often each was read."""

    label = "counting"

    def __init__(self) -> None:
        self.reads: list[str] = []

    def specs(self) -> dict[Name, Any]:
        return {
            Name(("w",)): jax.ShapeDtypeStruct((4, 3), np.float32),
            Name(("n",)): jax.ShapeDtypeStruct((), np.int32),
        }

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        for name in requests:
            self.reads.append(str(name))
            yield name, KERNEL.copy() if name == ("w",) else np.array(3, np.int32)


class TwoLayers(nn.Module):
    kernel_init: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(2, name="head")(nn.Dense(3, kernel_init=self.kernel_init, name="first")(x))


class TwoLayersNNX(nnx.Module):
    def __init__(self, init: Any, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(4, 3, kernel_init=init, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)


# Where it is used.


def test_it_gives_the_leaf_to_linen() -> None:
    source = Counting()
    model = TwoLayers(treeload.initializer(source, "w"))
    params = model.init(KEY, jnp.ones((1, 4)))["params"]
    np.testing.assert_array_equal(params["first"]["kernel"], KERNEL)
    applied: Any = model.apply({"params": params}, jnp.ones((1, 4)))
    assert applied.shape == (1, 2)
    assert source.reads == ["w"]


def test_it_gives_the_leaf_to_nnx() -> None:
    source = Counting()
    model = TwoLayersNNX(treeload.initializer(source, "w"), nnx.Rngs(0))
    np.testing.assert_array_equal(model.first.kernel[...], KERNEL)
    graphdef, _ = nnx.split(model)  # which hashes and compares what a layer is made with
    assert hash(graphdef) == hash(nnx.graphdef(model))
    assert source.reads == ["w"]


def test_it_is_read_once_for_several_layers() -> None:
    source = Counting()
    init = treeload.initializer(source, "w")
    models = [TwoLayersNNX(init, nnx.Rngs(seed)) for seed in range(3)]
    assert source.reads == ["w"]
    np.testing.assert_array_equal(models[2].first.kernel[...], KERNEL)


def test_what_it_gives_is_not_shared_with_what_it_keeps() -> None:
    tree = {"w": KERNEL.copy()}
    init = treeload.initializer(tree, "w")
    first = init(KEY, (4, 3))
    tree["w"][:] = -1
    jax.jit(lambda x: x + 1, donate_argnums=0)(first)
    np.testing.assert_array_equal(init(KEY, (4, 3)), KERNEL)


# Abstractly and compiled.


def test_abstract_evaluation_reads_nothing() -> None:
    source = Counting()
    init = treeload.initializer(source, "w")
    linen = jax.eval_shape(TwoLayers(init).init, KEY, jax.ShapeDtypeStruct((1, 4), jnp.float32))
    model = nnx.eval_shape(lambda: TwoLayersNNX(init, nnx.Rngs(0)))
    assert linen["params"]["first"]["kernel"].shape == model.first.kernel.shape == (4, 3)
    assert source.reads == []


def test_compiled_it_is_read_when_it_runs() -> None:
    source = Counting()
    init = treeload.initializer(source, "w", Slice(2))
    compiled = jax.jit(lambda key: init(key, (2, 3), jnp.bfloat16)).lower(KEY).compile()
    assert source.reads == []
    result = compiled(KEY)
    np.testing.assert_array_equal(result.astype(jnp.float32), KERNEL[:2])
    compiled(KEY)
    assert source.reads == ["w"]


def test_compiled_it_is_not_read_where_it_is_not_needed() -> None:
    source = Counting()
    model = TwoLayers(treeload.initializer(source, "w"))
    head = jax.jit(lambda: model.init(KEY, jnp.ones((1, 4)))["params"]["head"])()
    assert head["kernel"].shape == (3, 2)
    assert source.reads == []


def test_ops_that_need_jax_run_while_it_is_traced() -> None:
    # In a callback they would wait for the device that waits for them.
    source = Counting()
    init = treeload.initializer(source, "w", Apply(lambda x: jnp.tanh(x)))
    compiled = jax.jit(lambda key: init(key, (4, 3))).lower(KEY).compile()
    assert source.reads == ["w"]
    np.testing.assert_allclose(compiled(KEY), np.tanh(KERNEL), rtol=1e-6)


def test_outside_of_a_trace_there_is_no_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(jax, "pure_callback")
    np.testing.assert_array_equal(treeload.initializer(Counting(), "w")(KEY, (4, 3)), KERNEL)


def test_under_vmap_and_scan_every_layer_gets_the_leaf() -> None:
    init = treeload.initializer(Counting(), "w")
    for vmapped in (
        jax.vmap(lambda key: init(key, (4, 3))),
        jax.jit(jax.vmap(lambda key: init(key, (4, 3)))),
    ):
        np.testing.assert_array_equal(vmapped(jax.random.split(KEY, 2)), np.stack([KERNEL, KERNEL]))


def test_it_is_spread_over_devices_as_jit_is_told() -> None:
    mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    init = treeload.initializer(Counting(), "w")
    result = jax.jit(lambda: init(KEY, (4, 3)), out_shardings=sharding)()
    assert result.sharding == sharding
    np.testing.assert_array_equal(result, KERNEL)


# Sources, ops and casts.


def test_the_leaf_may_come_from_a_checkpoint_or_a_part_of_one(tmp_path: Path) -> None:
    treeload.save(tmp_path / "vit", {"encoder": {"kernel": KERNEL}, "n": 1})
    for src, name in (
        (tmp_path / "vit", "encoder/kernel"),
        (treeload.open(tmp_path / "vit"), ("encoder", "kernel")),
        (From(tmp_path / "vit", subtree="encoder"), "kernel"),
    ):
        init = treeload.initializer(src, name, Transpose())
        np.testing.assert_array_equal(init(KEY, (3, 4)), KERNEL.T)
        np.testing.assert_array_equal(jax.jit(lambda key, init=init: init(key, (3, 4)))(KEY), KERNEL.T)


def test_a_box_of_a_plain_orbax_save_is_transparent(tmp_path: Path) -> None:
    from orbax.checkpoint import v1 as ocp

    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    ocp.save(tmp_path / "plain", nnx.state(model))
    init = treeload.initializer(tmp_path / "plain", "kernel")
    np.testing.assert_array_equal(init(KEY, (4, 3)), model.kernel[...])


def test_the_dtype_is_float32_unless_said_and_may_be_narrower() -> None:
    init = treeload.initializer({"w": KERNEL.astype(np.float64)}, "w")
    assert init(KEY, (4, 3)).dtype == jnp.float32
    assert init(KEY, (4, 3), jnp.bfloat16).dtype == jnp.bfloat16
    assert init(key=KEY, shape=[4, 3], dtype="float16").dtype == jnp.float16


def test_a_cast_that_loses_the_kind_is_an_error_unless_asked_for() -> None:
    with pytest.raises(LoadError) as error:
        treeload.initializer({"w": KERNEL}, "w")(KEY, (4, 3), jnp.int32)
    assert [finding.kind for finding in error.value.findings] == ["dtype"]
    assert treeload.initializer({"w": KERNEL}, "w", Cast("int32"))(KEY, (4, 3), jnp.int32).dtype == jnp.int32


# What does not fit.


def test_a_wrong_shape_names_the_leaf_and_both_shapes() -> None:
    init = treeload.initializer(Counting(), "w")
    with pytest.raises(LoadError, match="counting") as error:
        init(KEY, (3, 4))
    (finding,) = error.value.findings
    assert (finding.kind, str(finding.name)) == ("shape", "w")
    assert "float32[3,4]" in str(error.value)
    assert "float32[4,3]" in str(error.value)
    assert "matches if transposed" in str(error.value) or "match if transposed" in str(error.value)


def test_a_wrong_shape_is_found_abstractly_in_linen_and_in_nnx() -> None:
    source = Counting()
    init = treeload.initializer(source, "w")
    with pytest.raises(LoadError, match=r"shape +w\n +destination +float32\[5,3\]"):
        jax.eval_shape(TwoLayers(init).init, KEY, jnp.ones((1, 5)))
    with pytest.raises(LoadError, match=r"shape +w\n +destination +float32\[5,3\]"):
        nnx.eval_shape(lambda: nnx.Linear(5, 3, kernel_init=init, rngs=nnx.Rngs(0)))
    assert source.reads == []


def test_a_leaf_that_is_not_there_is_an_error_at_once_with_what_is_near() -> None:
    with pytest.raises(SourceError, match="counting has no leaf 'ww'; near: w"):
        treeload.initializer(Counting(), "ww")


def test_ops_that_do_not_fit_are_an_error_at_once() -> None:
    with pytest.raises(RuleError, match="Transpose"):
        treeload.initializer(Counting(), "w", Transpose(2, 0, 1))
    with pytest.raises(RuleError, match="initializer takes ops"):
        treeload.initializer(Counting(), "w", lambda x: x)  # type: ignore[arg-type]


def test_it_says_in_a_traceback_what_it_is() -> None:
    assert treeload.initializer({"a": {"w": KERNEL}}, "a/w").__name__ == "initializer('a/w')"
