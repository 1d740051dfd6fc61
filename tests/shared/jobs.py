"""What each process of a job of several does, in tests: a scenario by its name, and what came of it as JSON.

As a program, ``python jobs.py <scenario> <count> <number> <port> <folder>``; ``run`` starts them all.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import treeload
from treeload._files import meeting

DEVICES = 2  # of each process


def run(scenario: str, count: int, folder: Path, seconds: float = 120) -> list[Any]:
    """What each process says, in the order of their numbers; no process is left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    own = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    others = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_"))}
    environment = others | own
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, scenario, str(count), str(number), str(port), str(folder)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip
    end = time.monotonic() + seconds
    try:
        said = [process.communicate(timeout=max(1.0, end - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    lines = [[line for line in out.splitlines() if line.startswith("SAID ")] for out, _ in said]
    errors = [err for (_, err), line in zip(said, lines, strict=True) if not line]
    assert not any("Traceback" in err for err in errors), errors
    return [json.loads(line[-1][5:]) if line else None for line in lines]


# --- what they do ------------------------------------------------------------------------------------


class World:
    """The arrays of a job, and the checkpoint that all processes save of them."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        sizes = {"w": (64, 16), "large": (1024, 2048), "b": (8,)}
        self.arrays = {name: rng.random(size, np.float32) for name, size in sizes.items()}
        self.mesh = Mesh(np.array(jax.devices()).reshape(-1, 2), ("a", "b"))
        self.path = folder / "x"
        tree = {
            "w": self.spread("w", "a"), "large": self.spread("large", "a", "b"), "b": self.spread("b"),
            "n": 3,
        }  # fmt: skip
        treeload.save(self.path, tree)

    def _sharding(self, axes: tuple[Any, ...]) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def spread(self, name: str, *axes: Any, times: int = 1) -> jax.Array:
        """One of the arrays, ``times`` as large, over the devices of all processes."""
        array = times * self.arrays[name]
        return jax.make_array_from_callback(array.shape, self._sharding(axes), lambda index: array[index])

    def like(self, name: str, *axes: Any) -> Any:
        """The same without values."""
        array = self.arrays[name]
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=self._sharding(axes))

    def has(self, loaded: Any, name: str, times: int = 1) -> bool:
        """Whether this process's parts of what was loaded are those of the array."""
        array = times * self.arrays[name]
        return all(np.array_equal(shard.data, array[shard.index]) for shard in loaded.addressable_shards)


def round_trip(folder: Path) -> Any:
    """Saved, verified, loaded with other shardings, and compared."""
    world = World(folder)
    found = treeload.verify(world.path)
    wanted = {
        "w": world.like("w", None, "b"), "large": world.like("large", ("a", "b")), "b": world.like("b", "b"),
        "n": 0,
    }  # fmt: skip
    loaded = treeload.load(wanted, world.path)
    again = treeload.plan(wanted, world.path).load()
    return {
        "verified": sorted(map(str, found.checked)),
        "unverified": sorted(map(str, found.unverified)),
        "right": [world.has(each[name], name) for each in (loaded, again) for name in world.arrays],
        "number": loaded["n"],
        "differences": str(treeload.diff(world.path, world.path)),
        "averaged": world.has(treeload.load(wanted, treeload.average([world.path, world.path]))["w"], "w"),
    }


class Model(nnx.Module):
    def __init__(self, world: World) -> None:
        self.w = nnx.Param(world.spread("w", None, "b", times=0))
        self.large = nnx.Param(world.spread("large", "b", times=0))
        self.b = nnx.Param(world.spread("b", times=0))

    def has(self, world: World, times: int) -> bool:
        return all(world.has(getattr(self, name).get_value(), name, times) for name in world.arrays)


def updated(folder: Path) -> Any:
    """A module of leaves that are spread, updated in place."""
    world = World(folder)
    model = Model(world)
    treeload.update(model, world.path, policy=treeload.Policy(unexpected={"n": "ignore"}))
    return model.has(world, 1)


def _error(act: Callable[[], Any]) -> Any:
    begun = time.monotonic()
    try:
        act()
    except Exception as error:  # noqa: BLE001  # it is what is asked
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"kinds": kinds, "text": str(error), "seconds": time.monotonic() - begun}
    return None


def damaged(folder: Path) -> Any:
    """A bit is flipped in what one of the processes reads."""
    world = World(folder)
    if jax.process_index() == 0:
        part = world.arrays["large"][900, 100:108].tobytes()
        (file,) = (file for file in world.path.rglob("d/*") if part in file.read_bytes())
        content = bytearray(file.read_bytes())
        content[content.find(part)] ^= 1
        file.write_bytes(content)
    time.sleep(2)  # until it is flipped
    wanted = {"w": world.like("w", "a"), "large": world.like("large", "a"), "b": world.like("b"), "n": 0}
    return _error(lambda: treeload.load(wanted, world.path))


def other_destination(folder: Path) -> Any:
    """One process asks for another shape."""
    world = World(folder)
    if jax.process_index() == 1:
        world.arrays["w"] = world.arrays["w"][:32]
    wanted = {"w": world.like("w", "a"), "large": world.like("large"), "b": world.like("b"), "n": 0}
    return _error(lambda: treeload.load(wanted, world.path))


def other_plan(folder: Path) -> Any:
    """One process keeps a leaf that the others load."""
    world = World(folder)
    wanted = {name: world.spread(name, times=0) for name in world.arrays} | {"n": 0}
    scope = "**" if jax.process_index() == 0 else ["w", "large", "n"]
    return _error(lambda: treeload.load(wanted, world.path, scope=scope))


def unseen(folder: Path) -> Any:
    """One process does not see the checkpoint; the module of each is as before."""
    world = World(folder)
    model = Model(world)
    path = world.path if jax.process_index() == 0 else folder / "y"
    found = _error(lambda: treeload.update(model, path, policy=treeload.Policy(unexpected="ignore")))
    return {**(found or {}), "as before": model.has(world, 0)}


def elsewhere(folder: Path) -> Any:
    """One process never comes to the load."""
    world = World(folder)
    meeting.SECONDS = 2.0
    if jax.process_index() == 1:
        time.sleep(5)
        return "elsewhere"
    policy = treeload.Policy(unexpected="ignore")
    return _error(lambda: treeload.load({"w": world.like("w", "a")}, world.path, policy=policy))


def dies(folder: Path) -> Any:
    """One process dies before the load."""
    world = World(folder)
    if jax.process_index() == 1:
        os._exit(3)
    policy = treeload.Policy(unexpected="ignore")
    return _error(lambda: treeload.load({"w": world.like("w", "a")}, world.path, policy=policy))


def alone(folder: Path) -> Any:
    """What is not spread over processes may be loaded by one of them."""
    world = World(folder)
    if jax.process_index() == 1:
        return True
    policy = treeload.Policy(unexpected="ignore")
    loaded = treeload.load({"w": np.zeros_like(world.arrays["w"])}, world.path, policy=policy)
    return bool(np.array_equal(loaded["w"], world.arrays["w"]))


def main() -> None:
    scenario, count, number, port, folder = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(number), heartbeat_timeout_seconds=10)
    print("SAID", json.dumps(globals()[scenario](Path(folder))), flush=True)


if __name__ == "__main__":
    main()
