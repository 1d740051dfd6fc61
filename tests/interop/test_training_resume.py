"""A training that is killed and resumed is, bit for bit, the training that was never stopped.

With Linen's TrainState and with NNX, saved by Orbax's CheckpointManager and by ``treeload.save``. The killed
training runs in a process of its own (this file), and dies by SIGKILL while a checkpoint is being written.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import treeload

STEPS, SAVE_EVERY, KILLED_AT = 12, 3, 8


def optimizer() -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(1e-2, STEPS)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))


def batch(step: int) -> tuple[jax.Array, jax.Array]:
    x = jax.random.normal(jax.random.fold_in(jax.random.key(7), step), (8, 4))
    return x, jnp.sin(x.sum(-1, keepdims=True))


# Linen: everything is in the TrainState, the key too.


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Dropout(0.2, deterministic=False)(nn.relu(nn.Dense(16)(x)))
        return nn.Dense(1)(x)


class State(TrainState):
    key: jax.Array


def linen_state() -> State:
    params = Net().init({"params": jax.random.key(0), "dropout": jax.random.key(0)}, jnp.ones((1, 4)))
    return State.create(apply_fn=Net().apply, params=params, tx=optimizer(), key=jax.random.key(1))


@jax.jit
def linen_step(state: State, x: Any, y: Any) -> tuple[State, Any]:
    key, dropout = jax.random.split(state.key)

    def loss(params: Any) -> Any:
        return jnp.mean((state.apply_fn(params, x, rngs={"dropout": dropout}) - y) ** 2)

    value, grads = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=grads).replace(key=key), value


# NNX: the model holds its batch statistics and its random numbers, the optimizer its moments.


class NetNNX(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(4, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


def nnx_state() -> dict[str, Any]:
    model = NetNNX(nnx.Rngs(params=0, dropout=1))
    return {"model": model, "optimizer": nnx.Optimizer(model, optimizer(), wrt=nnx.Param)}


@nnx.jit
def nnx_update(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
    value, grads = nnx.value_and_grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
    optimizer.update(model, grads)
    return value


def nnx_step(state: dict[str, Any], x: Any, y: Any) -> tuple[dict[str, Any], Any]:
    return state, nnx_update(state["model"], state["optimizer"], x, y)


# Savers: a function that saves and waits, and one that begins to.


def manager_saver(directory: Path) -> tuple[Callable[..., None], Callable[..., None]]:
    manager = ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(max_to_keep=2))

    def begin(step: int, state: Any) -> None:
        manager.save(step, args=ocp.args.StandardSave(treeload.state(state)))

    def save(step: int, state: Any) -> None:
        begin(step, state)
        manager.wait_until_finished()

    return save, begin


def treeload_saver(directory: Path) -> tuple[Callable[..., None], Callable[..., None]]:
    def save(step: int, state: Any) -> None:
        treeload.save(directory, state, metadata={"step": step}, overwrite=True)

    def begin(step: int, state: Any) -> None:
        threading.Thread(target=save, args=(step, state), daemon=True).start()
        time.sleep(0.01)

    return save, begin


TRAININGS: dict[str, tuple[Any, Any, Any]] = {
    "linen": (linen_state, lambda make: jax.eval_shape(make), linen_step),
    "nnx": (nnx_state, lambda make: nnx.eval_shape(make), nnx_step),
}
SAVERS = {"manager": manager_saver, "treeload": treeload_saver}


def train(
    kind: str,
    saver: str,
    directory: Path,
    *,
    killed_at: int | None = None,
    told: Callable[[str], Any] = print,
) -> tuple[Any, int | None, dict[int, str]]:
    """The final state, the step that was resumed from, and the loss of each step."""
    make, abstract, update = TRAININGS[kind]
    resumed: Any
    state, resumed = treeload.resume(abstract(make), directory, otherwise=make)
    save, begin = SAVERS[saver](directory)
    losses: dict[int, str] = {}
    for step in range(1 + (resumed or 0), STEPS + 1):
        state, loss = update(state, *batch(step))
        losses[step] = float(loss).hex()
        told(f"{step} {losses[step]}")
        if step == killed_at:
            begin(step, state)
            os.kill(os.getpid(), signal.SIGKILL)
        if step % SAVE_EVERY == 0:
            save(step, state)
    return state, resumed, losses


@functools.cache
def never_stopped(kind: str) -> tuple[Any, dict[int, str]]:
    """The final state and the losses of a training without checkpoints."""
    make, _, update = TRAININGS[kind]
    state, losses = make(), {}
    for step in range(1, STEPS + 1):
        state, loss = update(state, *batch(step))
        losses[step] = float(loss).hex()
    return state, losses


@pytest.mark.parametrize(
    ("kind", "saver"),
    [
        pytest.param(kind, saver, marks=pytest.mark.slow if own is not (kind == "nnx") else ())
        for kind in TRAININGS for saver in SAVERS for own in (saver == "treeload",)
    ],  # each kind and each saver once; CI's full run does them all
)  # fmt: skip
def test_a_killed_training_goes_on_as_if_it_had_never_stopped(kind: str, saver: str, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    root = str(Path(treeload.__file__).parent.parent)
    killed = subprocess.run(
        [sys.executable, __file__, kind, saver, str(directory)],
        env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = dict(line.split() for line in killed.stdout.splitlines())

    state, resumed, after = train(kind, saver, directory, told=lambda line: None)

    expected, losses = never_stopped(kind)
    assert resumed in (KILLED_AT - KILLED_AT % SAVE_EVERY, KILLED_AT)
    assert {int(step): loss for step, loss in before.items()} == {
        s: losses[s] for s in range(1, KILLED_AT + 1)
    }
    assert after == {step: losses[step] for step in range(resumed + 1, STEPS + 1)}
    found = treeload.diff(state, expected)
    assert found.equal, str(found)
    assert any("key" in str(leaf.name) for leaf in found)  # random numbers are part of it
    assert any("mu" in str(leaf.name) for leaf in found)  # and the optimizer's moments


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_starts_from_pretrained_values_once_and_then_from_its_own(
    kind: str, tmp_path: Path
) -> None:
    make, abstract, update = TRAININGS[kind]
    pretrained, _ = never_stopped(kind)
    save, _ = treeload_saver(tmp_path / "run")
    started, step = treeload.resume(abstract(make), tmp_path / "run", otherwise=pretrained)
    assert step is None
    assert treeload.diff(started, pretrained).equal
    moved, _ = update(started, *batch(1))
    save(1, moved)
    resumed, step = treeload.resume(abstract(make), tmp_path / "run", otherwise=pretrained)
    assert step == 1
    assert treeload.diff(resumed, moved).equal
    assert not treeload.diff(resumed, pretrained).equal


if __name__ == "__main__":
    train(
        sys.argv[1],
        sys.argv[2],
        Path(sys.argv[3]),
        killed_at=KILLED_AT,
        told=lambda line: print(line, flush=True),
    )
