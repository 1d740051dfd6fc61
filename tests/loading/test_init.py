"""``load(init=...)``: only what is kept is made, and training state is made of what was loaded."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import treeload
from treeload import LoadError, Policy, TreeloadError

HEAD = Policy(missing={"head/**": "keep"})


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(3, name="head")(nn.Dense(2, name="trunk")(x))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.trunk = nnx.Linear(2, 2, rngs=rngs)
        self.head = nnx.Linear(2, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)


TRUNK = {"trunk": {"kernel": jnp.full((2, 2), 7.0), "bias": jnp.full(2, 8.0)}}


def linen_init() -> Any:
    return Linen().init(jax.random.key(0), jnp.ones((1, 2)))["params"]


def nnx_init() -> Nnx:
    return Nnx(nnx.Rngs(0))


@pytest.mark.parametrize("init", [linen_init, nnx_init], ids=["linen", "nnx"])
def test_the_trunk_is_the_sources_and_the_head_is_what_init_makes(init: Any) -> None:
    abstract = nnx.eval_shape(init) if init is nnx_init else jax.eval_shape(init)
    policy = Policy(missing="keep") if init is nnx_init else HEAD
    state = treeload.state(treeload.load(abstract, TRUNK, policy=policy, init=init))
    whole = treeload.state(init())
    assert (state["trunk"]["kernel"] == 7).all() and (state["trunk"]["bias"] == 8).all()
    assert np.allclose(state["head"]["kernel"], whole["head"]["kernel"])
    assert not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state))


def test_without_init_what_is_kept_is_abstract_and_an_error() -> None:
    plan = treeload.plan(jax.eval_shape(linen_init), TRUNK, policy=HEAD)
    assert {finding.kind for finding in plan.errors} == {"abstract"}
    with pytest.raises(LoadError, match=r"init="):
        plan.load()
    assert plan.load(init=linen_init)["head"]["bias"].shape == (3,)


def test_init_settles_no_other_error() -> None:
    source = {"trunk": {"kernel": jnp.ones((2, 9)), "bias": jnp.ones(2)}}
    plan = treeload.plan(jax.eval_shape(linen_init), source, policy=HEAD)
    with pytest.raises(LoadError) as raised:
        plan.load(init=linen_init)
    assert [finding.kind for finding in raised.value.findings] == ["shape"]


def test_init_is_not_asked_where_nothing_is_kept_or_all_is_concrete() -> None:
    def never() -> Any:
        raise AssertionError("asked")

    whole = linen_init()
    treeload.load(jax.eval_shape(linen_init), whole, init=never)
    treeload.load(whole, TRUNK, policy=HEAD, init=never)


def test_init_is_traced_so_what_is_not_needed_is_never_computed() -> None:
    computed = []

    def init() -> Any:
        def host() -> np.ndarray:
            computed.append("trunk")
            return np.zeros((2, 2), np.float32)

        whole = linen_init()
        whole["trunk"]["kernel"] = jax.pure_callback(host, jax.ShapeDtypeStruct((2, 2), jnp.float32))
        return whole

    treeload.load(jax.eval_shape(linen_init), TRUNK, policy=HEAD, init=init)
    assert not computed


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (lambda: {"trunk": TRUNK["trunk"]}, "init\\(\\) gives no array for head/"),
        (
            lambda: {"head": {"kernel": jnp.ones((9, 9)), "bias": jnp.ones(3)}},
            "init\\(\\) gives float32\\[9,9\\]",
        ),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_an_init_that_does_not_fit_is_an_error_that_says_so(init: Any, message: str) -> None:
    with pytest.raises(TreeloadError, match=message):
        treeload.load(jax.eval_shape(linen_init), TRUNK, policy=HEAD, init=init)


def test_fresh_leaves_take_the_destinations_sharding() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    dst = {
        "new": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding),
        "old": jax.ShapeDtypeStruct((1,), jnp.float32),
    }
    tree = treeload.load(
        dst,
        {"old": jnp.ones(1)},
        policy=Policy(missing="keep"),
        init=lambda: {"new": jnp.arange(8.0), "old": jnp.ones(1)},
    )
    assert tree["new"].sharding == sharding


# Optimizers and averages are made of what was loaded.


def test_a_train_state_made_after_the_load_averages_the_loaded_values() -> None:
    params = treeload.load(jax.eval_shape(linen_init), TRUNK, policy=HEAD, init=linen_init)
    tx = optax.chain(optax.adam(1e-3), optax.contrib.schedule_free_sgd(0.1))
    state = TrainState.create(apply_fn=Linen().apply, params=params, tx=tx)
    assert (state.opt_state[1].z["trunk"]["kernel"] == 7).all()  # it starts from the parameters it is given


def test_an_nnx_optimizer_made_after_the_load_averages_the_loaded_values() -> None:
    model = treeload.load(nnx.eval_shape(nnx_init), TRUNK, policy=Policy(missing="keep"), init=nnx_init)
    optimizer = nnx.Optimizer(model, optax.contrib.schedule_free_sgd(0.1), wrt=nnx.Param)
    assert (optimizer.opt_state.z["trunk"]["kernel"][...] == 7).all()


# Memory.


def peak(script: str, *arguments: str) -> int:
    """The highest resident size in bytes of a fresh process, above what it was before the load."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return int(done.stdout.split()[-1])


LOAD = """
    import re, sys
    import jax, jax.numpy as jnp, treeload
    from treeload import Policy

    LAYERS, WIDTH = int(sys.argv[2]), 4096  # 64 MiB a layer

    def init():
        keys = jax.random.split(jax.random.key(0), LAYERS + 1)
        trunk = {f"layer_{i}": jax.random.normal(keys[i], (WIDTH, WIDTH)) for i in range(LAYERS)}
        return {"trunk": trunk, "head": jax.random.normal(keys[-1], (WIDTH, 64))}  # 1 MiB

    def peak():  # of this process alone: ru_maxrss would begin at its parent's
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

    abstract = jax.eval_shape(init)
    jax.block_until_ready(jax.jit(lambda: jax.random.normal(jax.random.key(0), (8,)))())
    before = peak()
    tree = treeload.load(abstract, sys.argv[1], policy=Policy(missing={"head": "keep"}), init=init)
    jax.block_until_ready(tree)
    assert tree["head"].std() > 0.5
    print(peak() - before)
"""


def trunk_file(path: Path, layers: int) -> Path:
    from safetensors.numpy import save_file

    ones = np.ones((4096, 4096), np.float32)
    save_file({f"trunk.layer_{number}": ones for number in range(layers)}, path)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak of a process")
@pytest.mark.parametrize("layers", [2, pytest.param(15, marks=pytest.mark.slow, id="1 GB")])
def test_the_peak_of_loading_a_trunk_and_making_a_head_is_trunk_and_head(layers: int, tmp_path: Path) -> None:
    path = trunk_file(tmp_path / "trunk.safetensors", layers)
    trunk = layers * 64 * 2**20
    assert trunk <= peak(LOAD, str(path), str(layers)) <= trunk + 100_000_000
