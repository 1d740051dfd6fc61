"""One model in Flax's two APIs: what one computes, the other computes with its variables."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import From, Policy, Rename, RuleError, rules
from treeload.rules import linen_to_nnx, nnx_to_linen


class LinenNet(nn.Module):
    """Convolution, batch norm, layer norm, dense; every submodule has the name it has in NNX."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn")(x))
        x = nn.LayerNorm(name="ln")(x.mean((1, 2)))
        return nn.Dense(5, use_bias=False, name="out")(x)


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.ln = nnx.LayerNorm(4, rngs=rngs)
        self.out = nnx.Linear(4, 5, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn(self.conv(x), use_running_average=True))
        return self.out(self.ln(x.mean((1, 2))))


IMAGES = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))


@pytest.fixture
def variables() -> Any:
    """Linen's variables, with batch statistics that are not those of a fresh model."""
    made = LinenNet().init(jax.random.key(1), IMAGES)
    _, changed = LinenNet().apply(made, 3 * IMAGES + 1, train=True, mutable=["batch_stats"])
    return {"params": made["params"], **changed}


def same(found: Any, expected: Any) -> bool:
    equal = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), found, expected)
    return all(jax.tree.leaves(equal))


def in_linen(variables: Any) -> Any:
    return LinenNet().apply(variables, IMAGES)


def test_linens_variables_give_the_same_outputs_in_nnx(variables: Any) -> None:
    model = treeload.load(NnxNet(nnx.Rngs(2)), variables, rules=linen_to_nnx())
    np.testing.assert_allclose(model(IMAGES), in_linen(variables), atol=1e-6)


def test_nnxs_variables_give_the_same_outputs_in_linen(variables: Any) -> None:
    model = NnxNet(nnx.Rngs(2))
    model.bn.mean[...] = jnp.arange(4.0)
    loaded = treeload.load(variables, model, rules=nnx_to_linen())
    np.testing.assert_allclose(in_linen(loaded), model(IMAGES), atol=1e-6)


def test_there_and_back_is_the_same_bit_for_bit(variables: Any) -> None:
    model = treeload.load(NnxNet(nnx.Rngs(2)), variables, rules=linen_to_nnx())
    blank = jax.tree.map(jnp.zeros_like, variables)
    assert same(treeload.load(blank, model, rules=nnx_to_linen()), variables)
    (rule,) = nnx_to_linen()
    undo = rule.inverse()
    assert undo is not None
    again = treeload.load(NnxNet(nnx.Rngs(3)), variables, rules=undo)
    assert same(nnx.to_pure_dict(nnx.state(again)), nnx.to_pure_dict(nnx.state(model)))


def test_names_of_modules_are_the_users_own(variables: Any) -> None:
    old = {part: {f"{k}_0": v for k, v in variables[part].items()} for part in variables}
    mine = [Rename("{module}_0/{*rest}", "{module}/{*rest}")]
    model = treeload.load(NnxNet(nnx.Rngs(2)), From(old, rules=linen_to_nnx()), rules=mine)
    np.testing.assert_allclose(model(IMAGES), in_linen(variables), atol=1e-6)


def test_a_model_may_lack_a_collection_but_not_all_of_them() -> None:
    dst = {"w": jnp.zeros(2)}
    assert treeload.plan(dst, {"params": {"w": jnp.ones(2)}}, rules=linen_to_nnx()).ok
    plan = treeload.plan(dst, dst, rules=linen_to_nnx())  # an NNX source already
    assert [finding.kind for finding in plan.findings] == ["rule"]


def test_a_linen_source_goes_through_nnx_to_linen_loudly(variables: Any) -> None:
    assert not treeload.plan(variables, variables, rules=nnx_to_linen()).ok


def test_one_name_in_two_collections_is_a_collision() -> None:
    src = {"params": {"w": jnp.ones(2)}, "cache": {"w": jnp.ones(2)}}
    (finding,) = treeload.plan({"w": jnp.zeros(2)}, src, rules=linen_to_nnx()).findings
    assert finding.kind == "collision"


def test_other_collections_are_asked_for() -> None:
    src = {"params": {"w": jnp.ones(2)}, "lora": {"a": jnp.ones(3)}}
    dst = {"w": jnp.zeros(2), "a": jnp.zeros(3)}
    assert treeload.plan(dst, src, rules=linen_to_nnx(["params", "lora"])).ok
    assert not treeload.plan(dst, src, rules=linen_to_nnx()).ok


def test_an_explicit_none_goes_where_its_leaf_would_go() -> None:
    dst = {"params": {"d": {"bias": jnp.ones(2)}}}
    src = {"d": {"bias": None}}
    (finding,) = treeload.plan(
        dst, {**src, "w": jnp.ones(1)}, rules=nnx_to_linen(), policy=Policy(unexpected="ignore")
    ).errors
    assert (finding.kind, finding.found) == ("missing", "None")


def test_a_top_level_statistic_goes_to_batch_stats() -> None:
    src = {"mean": jnp.ones(2), "scale": jnp.ones(2)}
    dst = {"batch_stats": {"mean": jnp.zeros(2)}, "params": {"scale": jnp.zeros(2)}}
    assert treeload.plan(dst, src, rules=nnx_to_linen()).ok


@pytest.mark.parametrize(
    "made",
    [linen_to_nnx(), linen_to_nnx(["params"]), nnx_to_linen(), nnx_to_linen(("mean", "var", "ema"))],
    ids=repr,
)
def test_rules_print_as_the_code_that_makes_them(made: Any) -> None:
    (rule,) = made
    assert eval(repr(rule), vars(rules)) == made
    assert hash(eval(repr(rule), vars(rules))) == hash(made)


def test_one_string_is_no_list_of_collections() -> None:
    for function in (linen_to_nnx, nnx_to_linen):
        with pytest.raises(RuleError, match="not one string"):
            function("params")
    with pytest.raises(RuleError, match="no collection"):
        linen_to_nnx([])
