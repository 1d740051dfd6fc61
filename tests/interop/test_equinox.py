"""Equinox modules: their arrays load, their numbers are hyperparameters, as Equinox itself has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import BIAS, From, LoadError, Policy

eqx = pytest.importorskip("equinox")


def mlp(seed: int = 0, **how: Any) -> Any:
    return eqx.nn.MLP(2, 3, width_size=4, depth=2, key=jax.random.key(seed), **how)


def arrays(module: Any) -> list[Any]:
    return jax.tree.leaves(eqx.filter(module, eqx.is_array))


def test_names_are_fields_and_what_loads_is_what_equinox_calls_arrays() -> None:
    module = mlp()
    assert treeload.names(module) == tuple(
        f"layers/{number}/{field}" for number in range(3) for field in ("weight", "bias")
    )
    assert len(treeload.names(module)) == len(arrays(module))


def test_a_module_is_loaded_and_the_old_one_left_alone() -> None:
    dst, src = mlp(0), mlp(1)
    made = treeload.load(dst, src)
    assert eqx.tree_equal(made, src) and eqx.tree_equal(dst, mlp(0))
    np.testing.assert_array_equal(made(jnp.ones(2)), src(jnp.ones(2)))
    assert made.activation is dst.activation


def test_a_state_dict_of_nested_dicts_loads() -> None:
    assert eqx.tree_equal(treeload.load(mlp(0), treeload.state(mlp(1))), mlp(1))


def test_a_round_trip_through_orbax(tmp_path: Path) -> None:
    treeload.save(tmp_path / "mlp", mlp(1))
    assert eqx.tree_equal(treeload.load(mlp(0), tmp_path / "mlp"), mlp(1))


def test_an_abstract_module_loads() -> None:
    assert eqx.tree_equal(treeload.load(eqx.filter_eval_shape(mlp), mlp(1)), mlp(1))


def test_a_module_filtered_to_its_arrays_loads() -> None:
    params, static = eqx.partition(mlp(0), eqx.is_array)
    assert eqx.tree_equal(eqx.combine(treeload.load(params, mlp(1)), static), mlp(1))


class Scaled(eqx.Module):  # type: ignore[name-defined, misc]
    weight: Any
    rate: float = 0.5
    flag: bool = True
    inner: Any = None


def test_numbers_are_hyperparameters() -> None:
    module = Scaled(jnp.zeros(2), inner=eqx.nn.Dropout(0.1))
    assert treeload.names(module) == ("weight",)
    made = treeload.load(module, Scaled(jnp.ones(2), rate=0.9, flag=False, inner=eqx.nn.Dropout(0.7)))
    assert made.rate == 0.5 and made.flag is True and made.inner.p == 0.1
    np.testing.assert_array_equal(made.weight, [1, 1])


def test_numbers_of_a_container_inside_a_module_are_hyperparameters_too() -> None:
    module = Scaled({"w": jnp.zeros(1), "k": 3}, inner=[1.0, jnp.zeros(2)])
    assert treeload.names(module) == ("weight/w", "inner/1")
    assert treeload.load(module, module).weight["k"] == 3


def test_a_source_number_that_meets_a_hyperparameter_is_unused() -> None:
    plan = treeload.plan(Scaled(jnp.zeros(2)), {"weight": jnp.ones(2), "rate": 0.25})
    assert plan.ok
    assert [str(leaf.name) for leaf in plan.unused] == ["rate"]
    assert plan.load().rate == 0.5


def plain_orbax(module: Any, path: Path) -> Any:
    from orbax.checkpoint import v1 as ocp

    ocp.save(path / "plain", module)
    return path / "plain"


def ours(module: Any, path: Path) -> Any:
    treeload.save(path / "ours", {"weight": module.weight, "rate": module.rate, "flag": module.flag})
    return path / "ours"


def msgpack(module: Any, path: Path) -> Any:
    from flax.serialization import msgpack_serialize

    leaves = {"weight": np.asarray(module.weight), "rate": module.rate, "flag": module.flag}
    (path / "m.msgpack").write_bytes(msgpack_serialize(leaves))
    return path / "m.msgpack"


def by_position(module: Any, path: Path) -> Any:
    eqx.tree_serialise_leaves(path / "m.eqx", module)
    return From(path / "m.eqx", by_position=True)


@pytest.mark.parametrize("stored", [lambda module, _: module, plain_orbax, ours, msgpack, by_position])
def test_numbers_that_meet_hyperparameters_are_unused_from_every_source(stored: Any, tmp_path: Path) -> None:
    source = stored(Scaled(jnp.ones(2), rate=0.25), tmp_path)
    plan = treeload.plan(Scaled(jnp.zeros(2)), source)
    assert plan.ok, str(plan)
    if isinstance(source, Scaled):  # in memory they are statics on both sides, never compared
        return
    assert {str(leaf.at) for leaf in plan.unused} == {"rate", "flag"}
    assert {leaf.why for leaf in plan.unused} == {"the destination has a static here, which never loads"}
    loaded = plan.load()
    assert loaded.rate == 0.5 and loaded.weight.tolist() == [1, 1]


def test_by_position_an_array_that_meets_a_hyperparameter_is_structure(tmp_path: Path) -> None:
    source = by_position(Scaled(jnp.ones(2), rate=jnp.ones(3)), tmp_path)
    plan = treeload.plan(Scaled(jnp.zeros(2)), source)
    assert [(finding.kind, str(finding.name)) for finding in plan.errors] == [("structure", "rate")]


def test_an_array_that_meets_a_hyperparameter_is_structure() -> None:
    src = {"weight": jnp.ones(2), "rate": np.ones(3, np.float32)}
    plan = treeload.plan(Scaled(jnp.zeros(2)), src)
    assert [(finding.kind, str(finding.name)) for finding in plan.errors] == [("structure", "rate")]
    assert treeload.load(Scaled(jnp.zeros(2)), src, policy=Policy(structure="keep")).rate == 0.5


@pytest.mark.parametrize("abstract", [False, True])
def test_a_bias_that_one_side_has_not_is_an_error_unless_it_means_zero(abstract: bool) -> None:
    with_bias, without = mlp(0), mlp(1, use_bias=False, use_final_bias=False)
    dst = eqx.filter_eval_shape(mlp) if abstract else with_bias
    assert {finding.kind for finding in treeload.plan(dst, without).errors} == {"missing"}
    made = treeload.load(dst, without, policy=Policy(absent_is_zero=BIAS))
    assert all(not layer.bias.any() for layer in made.layers)
    with pytest.raises(LoadError, match="not zero"):
        treeload.load(without, with_bias, policy=Policy(absent_is_zero=BIAS))
    assert eqx.tree_equal(treeload.load(without, made, policy=Policy(absent_is_zero=BIAS)), without)


def test_a_shared_layer_stays_one() -> None:
    class Tied(eqx.Module):  # type: ignore[name-defined, misc]
        embed: Any
        head: Any

    weight = jnp.zeros((2, 2))
    made = treeload.load(Tied(weight, weight), {"head": jnp.ones((2, 2))})
    assert made.embed is made.head and made.embed[0, 0] == 1


def test_eqx_shared_and_state_load() -> None:
    module, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(2, "batch", mode="ema")
    made = treeload.load({"module": module, "state": state}, {"module": module, "state": state})
    assert eqx.tree_equal(made["module"], module)
    structure: Any = jax.tree.structure(made["state"])
    assert structure == jax.tree.structure(state)


def test_equinoxs_own_loader_drops_a_bias_and_matches_by_position(tmp_path: Path) -> None:
    """Side by side: a bias of ones in the file, none in the model. Equinox hands back the weights alone."""
    biased = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    bare = eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(1))
    eqx.tree_serialise_leaves(tmp_path / "m.eqx", biased)
    assert eqx.tree_deserialise_leaves(tmp_path / "m.eqx", bare).bias is None
    assert [finding.kind for finding in treeload.plan(bare, biased).errors] == ["unexpected"]
