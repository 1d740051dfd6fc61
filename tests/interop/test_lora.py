"""Adapters of Flax NNX: a base checkpoint below them, the adapters alone, both merged into plain layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import treeload
from treeload import LoadError, Policy, Rename, RuleError, finetune

ADAPTERS = "**/lora/**"
FRESH = Policy(missing={ADAPTERS: "keep"})
X = jnp.arange(6.0).reshape(2, 3) / 10


class Net(nnx.Module):
    """Two layers, the first of which may have an adapter, and a head that never has one."""

    def __init__(self, rngs: nnx.Rngs, *, adapted: bool) -> None:
        linear: Any = (
            (lambda *size, rngs: nnx.LoRALinear(*size, lora_rank=2, rngs=rngs)) if adapted else nnx.Linear
        )
        self.blocks = nnx.List([linear(3, 3, rngs=rngs), linear(3, 3, rngs=rngs)])
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = nnx.tanh(block(x))
        return self.head(x)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    treeload.save(tmp_path / "base", Net(nnx.Rngs(0), adapted=False))
    return tmp_path / "base"


def train(model: Net, optimizer: Any) -> None:
    @nnx.jit
    def step(model: Net, optimizer: Any) -> None:
        gradient = nnx.grad(lambda model: (model(X) ** 2).sum(), argnums=nnx.DiffState(0, nnx.LoRAParam))
        optimizer.update(model, gradient(model))

    for _ in range(3):
        step(model, optimizer)


def adapted(base: Path) -> Net:
    model: Net = treeload.load(Net(nnx.Rngs(1), adapted=True), base, policy=FRESH)
    train(model, nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.LoRAParam))
    return model


def test_a_base_checkpoint_loads_below_adapters_that_are_kept(base: Path) -> None:
    model = Net(nnx.Rngs(1), adapted=True)
    with pytest.raises(LoadError, match="lora"):
        treeload.load(model, base)
    plan = treeload.plan(model, base, policy=FRESH).require(kept=ADAPTERS)
    plain = Net(nnx.Rngs(0), adapted=False)
    assert np.array_equal(plan.load()(X), plain(X))  # a fresh adapter adds nothing


def test_a_base_of_another_shape_is_an_error_all_the_same(base: Path) -> None:
    model = Net(nnx.Rngs(1), adapted=True)
    model.head = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
    with pytest.raises(LoadError, match="head/kernel"):
        treeload.load(model, base, policy=FRESH)


def test_the_plan_freezes_the_base_and_trains_the_adapters(base: Path) -> None:
    plan = treeload.plan(Net(nnx.Rngs(1), adapted=True), base, policy=FRESH)
    model = plan.load()
    optimizer = nnx.Optimizer(model, finetune.freeze_loaded(plan, optax.adam(0.1)), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda model: (model(X) ** 2).sum())(model))
    assert np.array_equal(model.head.kernel[...], Net(nnx.Rngs(0), adapted=False).head.kernel[...])
    assert model.blocks[0].lora.lora_b[...].any()
    assert (
        len([leaf for leaf in jax.tree.leaves(optimizer.opt_state) if leaf.ndim]) == 8
    )  # 2 moments of 4 adapters


def test_adapters_are_saved_and_loaded_alone(base: Path, tmp_path: Path) -> None:
    model = adapted(base)
    treeload.save(tmp_path / "adapters", nnx.state(model, nnx.LoRAParam))
    assert all("lora" in name for name in map(str, treeload.open(tmp_path / "adapters").specs()))

    other = treeload.load(Net(nnx.Rngs(2), adapted=True), base, policy=FRESH)
    treeload.update(other, tmp_path / "adapters", scope=ADAPTERS)
    assert np.array_equal(other(X), model(X))


def test_the_scope_takes_the_adapters_out_of_a_whole_checkpoint_and_leaves_the_base_alone(
    base: Path, tmp_path: Path
) -> None:
    model = adapted(base)
    treeload.save(tmp_path / "whole", model)
    other = Net(nnx.Rngs(2), adapted=True)
    before = other.head.kernel[...]
    treeload.update(other, tmp_path / "whole", scope=ADAPTERS)
    assert np.array_equal(other.blocks[1].lora.lora_b[...], model.blocks[1].lora.lora_b[...])
    assert np.array_equal(other.head.kernel[...], before)


def test_an_adapter_that_is_missing_within_the_scope_is_an_error(base: Path) -> None:
    with pytest.raises(LoadError, match=r"missing +blocks/\{0,1\}/lora/\{lora_a,lora_b\}"):
        treeload.update(Net(nnx.Rngs(2), adapted=True), base, scope=ADAPTERS)


def test_merged_into_plain_layers_the_model_computes_the_same(base: Path, tmp_path: Path) -> None:
    model = adapted(base)
    treeload.save(tmp_path / "whole", model)
    plan = treeload.plan(Net(nnx.Rngs(3), adapted=False), tmp_path / "whole", rules=finetune.merge_lora())
    assert plan.ok and plan.coverage == 1.0
    assert len(plan["blocks/0/kernel"].sources) == 3 and len(plan["head/kernel"].sources) == 1
    assert np.allclose(plan.load()(X), model(X), atol=1e-6)
    assert not np.allclose(Net(nnx.Rngs(0), adapted=False)(X), model(X), atol=1e-3)


def test_an_adapter_around_a_module_is_merged_by_its_own_names() -> None:
    linear = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    wrapped = nnx.LoRA(3, 2, 2, base_module=linear, b_initializer=nnx.initializers.ones, rngs=nnx.Rngs(1))
    merge = finetune.merge_lora("base_module/kernel", "lora_a", "lora_b", "kernel")
    plain = treeload.load(
        nnx.Linear(3, 2, rngs=nnx.Rngs(2)), wrapped, rules=[merge, Rename("base_module/bias", "bias")]
    )
    assert np.allclose(plain(X), wrapped(X), atol=1e-6)


def test_the_product_is_scaled_and_the_kernel_keeps_its_dtype() -> None:
    src = {
        "kernel": jnp.ones((2, 2), jnp.bfloat16),
        "lora": {"lora_a": jnp.ones((2, 1)), "lora_b": jnp.ones((1, 2))},
    }
    plan = treeload.plan(
        {"kernel": jnp.zeros((2, 2), jnp.bfloat16)}, src, rules=finetune.merge_lora(scale=0.5)
    )
    assert not plan["kernel"].cast
    assert plan.load()["kernel"].tolist() == [[1.5, 1.5], [1.5, 1.5]]


@pytest.mark.parametrize("part", ["kernel", "lora_a", "lora_b"])
def test_a_part_that_is_missing_is_named(part: str) -> None:
    src = {"kernel": jnp.ones((2, 2)), "lora": {"lora_a": jnp.ones((2, 1)), "lora_b": jnp.ones((1, 2))}}
    src.pop(part) if part in src else src["lora"].pop(part)  # type: ignore[attr-defined]
    plan = treeload.plan({"kernel": jnp.zeros((2, 2))}, src, rules=finetune.merge_lora())
    assert [finding.kind for finding in plan.errors] == ["rule"]
    assert part in plan.errors[0].message.split("nothing is called")[1]


def test_shapes_that_cannot_be_multiplied_are_found_before_any_read() -> None:
    lora = {"lora_a": jnp.ones((2, 1)), "lora_b": jnp.ones((3, 2))}
    plan = treeload.plan(
        {"kernel": jnp.zeros((2, 2))}, {"kernel": jnp.ones((2, 2)), "lora": lora}, rules=finetune.merge_lora()
    )
    assert [finding.kind for finding in plan.errors] == ["rule"]


def test_patterns_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(RuleError, match="different captures"):
        finetune.merge_lora("{*module}/kernel", "{*other}/lora_a", "{*module}/lora_b")
    with pytest.raises(RuleError, match="uses {x}, which .* does not capture"):
        finetune.merge_lora(into="{*module}/{x}")
    assert finetune.merge_lora().inverse() is None
