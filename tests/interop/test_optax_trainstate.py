"""Optimizer states and train states: structure by name, step as a Python number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import treeload
from treeload import From, Policy

PARAMS = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "scale": jnp.ones(3)}

OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adam": lambda: optax.adam(0.1),
    "adamw on a schedule": lambda: optax.adamw(optax.cosine_decay_schedule(0.1, 100)),
    "clipped chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    "masked": lambda: optax.masked(optax.adam(0.1), {"dense": True, "scale": False}),
    "multi": lambda: optax.multi_transform(
        {"a": optax.adam(0.1), "b": optax.set_to_zero()}, {"dense": "a", "scale": "b"}
    ),
    "hyperparameters": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "accumulated": lambda: optax.MultiSteps(optax.adam(0.1), every_k_schedule=2),
    "adafactor": lambda: optax.adafactor(0.1),
    "lookahead": lambda: optax.scale_by_rss(),
}
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def trained(optimizer: Any, steps: int) -> Any:
    """An optimizer's state after so many steps."""
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    return state


def equal(first: Any, second: Any) -> bool:
    structure: Any = jax.tree.structure(first)
    return structure == jax.tree.structure(second) and all(
        map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second))
    )


@optimizers
def test_a_state_loads_into_a_fresh_one(optimizer: str) -> None:
    tx = OPTIMIZERS[optimizer]()
    assert equal(treeload.load(tx.init(PARAMS), trained(tx, 2)), trained(tx, 2))


@optimizers
def test_a_state_loads_into_an_abstract_one(optimizer: str) -> None:
    tx = OPTIMIZERS[optimizer]()
    assert equal(treeload.load(jax.eval_shape(tx.init, PARAMS), trained(tx, 2)), trained(tx, 2))


@optimizers
def test_a_state_survives_orbax(optimizer: str, tmp_path: Path) -> None:
    tx = OPTIMIZERS[optimizer]()
    dst = {"opt": tx.init(PARAMS), "params": PARAMS}
    treeload.save(tmp_path / "opt", {"opt": trained(tx, 2), "params": PARAMS})
    assert equal(treeload.load(dst, tmp_path / "opt")["opt"], trained(tx, 2))


def test_states_that_hold_nothing_equal_nothing() -> None:
    dst = {"opt": optax.sgd(0.1).init(PARAMS), "w": jnp.zeros(1)}
    assert treeload.plan(dst, {"w": jnp.ones(1)}).ok
    made = treeload.load(dst, {"w": jnp.ones(1), "opt": None})
    structure: Any = jax.tree.structure(made["opt"])
    assert structure == jax.tree.structure(dst["opt"])


def test_a_chain_of_another_order_is_not_loaded_by_position() -> None:
    a = optax.chain(optax.trace(0.9), optax.scale_by_adam())
    b = optax.chain(optax.scale_by_adam(), optax.trace(0.9))
    assert {finding.kind for finding in treeload.plan(a.init(PARAMS), b.init(PARAMS)).errors} == {
        "missing",
        "unexpected",
    }


def train_state(steps: int = 0) -> TrainState:
    state = TrainState.create(apply_fn=len, params=PARAMS, tx=optax.adam(0.1))
    for _ in range(steps):
        state = state.apply_gradients(grads=jax.tree.map(jnp.ones_like, state.params))
    return state


def test_a_train_state_loads_with_its_step_as_a_python_number() -> None:
    fresh, used = train_state(), train_state(3)
    made = treeload.load(fresh, used)
    assert type(made) is TrainState and type(made.step) is int and made.step == 3
    assert made.tx is fresh.tx and made.apply_fn is len
    assert equal(made.params, used.params) and equal(made.opt_state, used.opt_state)
    again = made.apply_gradients(grads=jax.tree.map(jnp.ones_like, made.params))
    assert equal(again.params, train_state(4).params)


@pytest.mark.parametrize("step", [np.asarray(3, np.int32), jnp.asarray(3), np.int64(3), 3])
def test_a_step_of_any_integer_type_loads(step: Any) -> None:
    made = treeload.load(train_state(), train_state(3).replace(step=step))
    assert type(made.step) is int and made.step == 3


def test_a_step_that_is_no_integer_is_refused() -> None:
    plan = treeload.plan(train_state(), train_state(3).replace(step=jnp.asarray(3.0)))
    assert [(finding.kind, str(finding.name)) for finding in plan.errors] == [("dtype", "step")]


def test_an_array_step_stays_an_array() -> None:
    made = treeload.load(train_state().replace(step=jnp.asarray(0)), train_state(3))
    assert isinstance(made.step, jax.Array) and made.step == 3


def test_a_train_state_goes_through_orbax(tmp_path: Path) -> None:
    treeload.save(tmp_path / "state", train_state(3))
    made = treeload.load(train_state(), tmp_path / "state")
    assert made.step == 3 and equal(made.opt_state, train_state(3).opt_state)


def test_parameters_alone_come_out_of_a_stored_train_state() -> None:
    made = treeload.load(PARAMS, From(train_state(3), subtree="params"))
    assert equal(made, train_state(3).params)


def test_a_fresh_optimizer_is_kept_while_parameters_load() -> None:
    fresh = train_state()
    src = {"params": treeload.state(train_state(3))["params"]}
    made = treeload.load(fresh, src, policy=Policy(missing={"opt_state/**": "keep", "step": "keep"}))
    assert equal(made.params, train_state(3).params) and equal(made.opt_state, fresh.opt_state)
    assert made.step == 0
