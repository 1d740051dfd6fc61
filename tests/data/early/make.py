"""Writes the fixtures of early Orbax and early Flax: run once, with the libraries of that time.

Not run by the tests. Each fixture is written by the function of its name, in an environment of Python 3.11
with the packages that ``ENVIRONMENTS`` has for it:

    python make.py orbax_0_1_6 .

The tests take the trees, ``EARLY`` and ``NAMED``, from here.
"""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class ScaleState(NamedTuple):
    count: Any
    mu: Any


class Empty(NamedTuple):
    pass


EARLY: dict[str, Any] = {
    "params": {
        "dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float16)},
        "embed": np.arange(8, dtype=np.int8).reshape(4, 2),
    },
    "opt": [{"mu": np.full((2, 3), 0.5, np.float32)}, {"count": np.int32(7)}],
    "step": 3,
    "rate": 0.25,
}


NAMED: Any = (ScaleState(np.int32(4), {"w": np.arange(3, dtype=np.float32)}), Empty(), {"rate": 0.5})


ENVIRONMENTS = {
    "orbax_0_1_6": "jax==0.4.13 jaxlib==0.4.13 orbax==0.1.6 tensorstore==0.1.36 'numpy<1.25' 'scipy<1.12'",
    "orbax_0_2_0": "jax==0.4.13 jaxlib==0.4.13 orbax-checkpoint==0.2.0 tensorstore==0.1.36 'numpy<1.25'",
    "flax_0_6_9": "flax==0.6.9, and as orbax_0_1_6",
    "flax_0_7_5": "jax==0.4.20 jaxlib==0.4.20 flax==0.7.5 orbax-checkpoint==0.4.3 'ml_dtypes<0.4'",
    "orbax_0_4_3": "as flax_0_7_5",
    "flax_0_3_3": "flax==0.3.3 (its serialization.py alone: the rest needs a JAX older than Python 3.11)",
}


def as_it_was() -> None:
    """Names of JAX of that time, of which no build for Python 3.11 is left: only these have changed."""
    import jax
    from jax.experimental import array_serialization
    from jax.experimental.array_serialization import serialization

    sys.modules.setdefault("jax.experimental.gda_serialization", array_serialization)
    sys.modules.setdefault("jax.experimental.gda_serialization.serialization", serialization)
    vars(jax.interpreters.xla)["DeviceArray"] = jax.Array


def early():
    """The tree, its arrays JAX's."""
    import jax

    return jax.tree_util.tree_map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, EARLY)


def small_ones():
    """What has Orbax keep all but matrices in the msgpack file."""
    import jax
    import orbax.checkpoint as ocp

    return jax.tree_util.tree_map(lambda x: ocp.SaveArgs(aggregate=np.ndim(x) < 2), early())


def orbax_0_1_6(to: Path) -> None:
    """Arrays of their own, all in the msgpack file, and a manager's root with two steps."""
    import jax
    import orbax.checkpoint as ocp

    tree = early()
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).save(to / "stored", tree)
    packed = jax.tree_util.tree_map(lambda _: ocp.SaveArgs(aggregate=True), tree)
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).save(to / "packed", tree, save_args=packed)
    (to / "run").mkdir()
    manager = ocp.CheckpointManager(to / "run", ocp.Checkpointer(ocp.PyTreeCheckpointHandler()))
    for step in (9, 10):
        manager.save(step, {"w": jnp.full(2, step)})


def orbax_0_2_0(to: Path) -> None:
    """Some leaves packed and some not."""
    import orbax.checkpoint as ocp

    ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).save(to / "mixed", early(), save_args=small_ones())


def flax_0_6_9(to: Path) -> None:
    """What ``save_checkpoint`` writes through Orbax where it is asked to."""
    import orbax.checkpoint as ocp
    from flax.training import checkpoints

    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    checkpoints.save_checkpoint(to, early(), 3, orbax_checkpointer=checkpointer)


def flax_0_7_5(to: Path) -> None:
    """What ``save_checkpoint`` writes by default, and Orbax of that time with some leaves packed."""
    import orbax.checkpoint as ocp
    from flax.training import checkpoints

    for step in (3, 12):
        checkpoints.save_checkpoint(str(to / "flax"), early(), step, keep=9)
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).save(to / "mixed", early(), save_args=small_ones())


def orbax_0_4_3(to: Path) -> None:
    """As the last of those, without OCDBT; which that Orbax turns on for a whole process."""
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
    ocp.Checkpointer(handler).save(to / "mixed", early(), save_args=small_ones())


def flax_0_3_3(to: Path) -> None:
    """Named tuples as early Flax wrote them."""
    found = next(p for p in map(Path, sys.path) if (p / "flax" / "serialization.py").is_file())
    sys.modules["flax"] = types.ModuleType("flax")
    spec = importlib.util.spec_from_file_location("flax.serialization", found / "flax" / "serialization.py")
    assert spec is not None and spec.loader is not None
    serialization = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serialization)
    (to / "named.msgpack").write_bytes(serialization.to_bytes(NAMED))


if __name__ == "__main__":
    where = Path(sys.argv[2]).absolute() / sys.argv[1]
    where.mkdir()
    if "jax==0.4.20" not in ENVIRONMENTS["flax_0_7_5" if sys.argv[1] == "orbax_0_4_3" else sys.argv[1]]:
        as_it_was()
    globals()[sys.argv[1]](where)
