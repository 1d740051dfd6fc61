"""What is measured against whom, and how much it may take: one function a row."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx, serialization
from orbax.checkpoint import v1 as ocp
from safetensors.flax import load_file
from safetensors.numpy import save_file

import treeload
from tests.benchmarks.measuring import Result, by_turns, fresh, in_fresh_processes

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what is done, in words.
        against: whom it is compared with.
        most: what ours may take of theirs; None where it is said for its own sake.
        measure: does it; takes a folder, how often, and the share of the full size (1.0).
        most_peak: what the process may grow by, over the payload.
    """

    work: str
    against: str
    most: float | None
    measure: Callable[[Path, int, float], Result]
    most_peak: float | None = None


def nested(leaves: int, make: Callable[[int], Any]) -> dict[str, Any]:
    """A tree of so many leaves, ten to a module."""
    return {
        f"block_{block}": {f"param_{at}": make(block * 10 + at) for at in range(10)}
        for block in range(leaves // 10)
    }


def specs(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def on_device(size: int) -> Callable[[int], jax.Array]:
    return lambda at: jax.device_put(np.full(size, at, np.float32))


def orbax_save(path: Path, tree: Any) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ocp.save(path, tree)
    return path


def orbax_load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ocp.load(path)


# --- in memory ---------------------------------------------------------------------------------------


def plan_in_memory(folder: Path, turns: int, share: float) -> Result:
    count = int(100_000 * share)
    dst, src = (nested(count, lambda at: np.zeros(2, np.float32)) for _ in range(2))
    return by_turns(lambda: treeload.plan(dst, src), lambda: serialization.from_state_dict(dst, src), turns)


def load_in_memory(folder: Path, turns: int, share: float) -> Result:
    dst, src = (nested(int(20_000 * share), on_device(2)) for _ in range(2))
    plan = treeload.plan(dst, src)
    return by_turns(plan.load, lambda: jax.tree.map(lambda ours, theirs: theirs, dst, src), turns)


class Wide(nnx.Module):
    """Ten Params."""

    def __init__(self) -> None:
        for at in range(10):
            setattr(self, f"param_{at}", nnx.Param(jax.device_put(np.zeros(2, np.float32))))


def update_nnx(params: int) -> Callable[[Path, int, float], Result]:
    def measure(folder: Path, turns: int, share: float) -> Result:
        model = nnx.List([Wide() for _ in range(int(params * share) // 10)])
        state = nnx.state(model)
        return by_turns(lambda: treeload.update(model, state), lambda: nnx.update(model, state), turns)

    return measure


# --- Orbax -------------------------------------------------------------------------------------------


def small(share: float) -> dict[str, Any]:
    return nested(int(20_000 * share), on_device(384))


def plan_stored(folder: Path, turns: int, share: float) -> Result:
    tree = small(share)
    path = orbax_save(folder / "x", tree)
    wanted = specs(tree)
    return by_turns(lambda: treeload.plan(wanted, path), lambda: ocp.metadata(path), turns)


def load_small(save: Callable[[Path, Any], Any]) -> Callable[[Path, int, float], Result]:
    def measure(folder: Path, turns: int, share: float) -> Result:
        tree = small(share)
        save(folder / "x", tree)
        wanted = specs(tree)
        return by_turns(lambda: treeload.load(wanted, folder / "x"), lambda: orbax_load(folder / "x"), turns)

    return measure


def save_small(folder: Path, turns: int, share: float) -> Result:
    tree = small(share)

    def clear() -> None:
        shutil.rmtree(folder / "x", ignore_errors=True)

    return by_turns(
        lambda: treeload.save(folder / "x", tree), lambda: ocp.save(folder / "x", tree), turns, before=clear
    )


def large(share: float) -> dict[str, Any]:
    """A gigabyte in 150 leaves."""
    rows = int(1792 * share)
    rng = np.random.default_rng(0)
    return {f"layer_{at}": rng.random((rows, 1024), np.float32) for at in range(150)}


def payload(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


OURS = """
import treeload
treeload.load({{"a": np.zeros(1)}}, {{"a": np.ones(1)}})  # which imports the rest of it
dst = {wanted}
"""
WANTED = "{{f'layer_{{at}}': jax.ShapeDtypeStruct(({rows}, 1024), np.float32) for at in range(150)}}"
THEIRS = "from orbax.checkpoint import v1 as ocp"


def wanted(share: float) -> str:
    return WANTED.format(rows=int(1792 * share))


def load_large(folder: Path, turns: int, share: float) -> Result:
    tree = large(share)
    orbax_save(folder / "theirs", jax.tree.map(jax.device_put, tree))
    treeload.save(folder / "ours", tree)
    return in_fresh_processes(
        fresh(
            OURS.format(wanted=wanted(share)) + "\nplan = treeload.plan(dst, sys.argv[1])", "plan.load()",
            folder / "ours",
        ),
        fresh(THEIRS, "ocp.load(sys.argv[1])", folder / "theirs"),
        turns, payload(tree),
    )  # fmt: skip


def save_large(folder: Path, turns: int, share: float) -> Result:
    tree = jax.tree.map(jax.device_put, large(share))

    def clear() -> None:
        shutil.rmtree(folder / "x", ignore_errors=True)

    return by_turns(
        lambda: treeload.save(folder / "x", tree), lambda: ocp.save(folder / "x", tree), turns, before=clear
    )


def by_scope(folder: Path, turns: int, share: float) -> Result:
    tree = small(share)
    treeload.save(folder / "x", tree)
    part = treeload.plan(tree, folder / "x", scope=[f"block_{at}/**" for at in range(len(tree) // 100)])
    whole = treeload.plan(tree, folder / "x")
    return by_turns(part.load, whole.load, turns)


# --- safetensors -------------------------------------------------------------------------------------


def safetensors_large(folder: Path, turns: int, share: float) -> Result:
    tree = large(share)
    save_file(tree, folder / "x.safetensors")
    return in_fresh_processes(
        fresh(OURS.format(wanted=wanted(share)), "treeload.load(dst, sys.argv[1])", folder / "x.safetensors"),
        fresh(
            "from safetensors.flax import load_file", "load_file(sys.argv[1])", folder / "x.safetensors"
        ),
        turns, payload(tree),
    )  # fmt: skip


def safetensors_small(folder: Path, turns: int, share: float) -> Result:
    arrays = {f"l{at}": np.full(384, at, np.float32) for at in range(int(20_000 * share))}
    save_file(arrays, folder / "x.safetensors")
    plan = treeload.plan(specs(arrays), folder / "x.safetensors")
    return by_turns(plan.load, lambda: load_file(folder / "x.safetensors"), turns)


def msgpack_small(folder: Path, turns: int, share: float) -> Result:
    tree = nested(int(20_000 * share), lambda at: np.full(384, at, np.float32))
    (folder / "x.msgpack").write_bytes(serialization.to_bytes(tree))
    wanted = specs(tree)
    return by_turns(
        lambda: treeload.load(wanted, folder / "x.msgpack"),
        lambda: jax.device_put(serialization.from_bytes(tree, (folder / "x.msgpack").read_bytes())),
        turns,
    )


def stacked(devices: int) -> Callable[[Path, int, float], Result]:
    """Sixty-four layers of 16 MB as one leaf: the peak is asked for, and seconds are ours alone."""

    def measure(folder: Path, turns: int, share: float) -> Result:
        rows = max(8, int(4096 * share))
        rng = np.random.default_rng(0)
        layers = {f"l{at}": rng.random((rows, 1024), np.float32) for at in range(64)}
        save_file(layers, folder / "x.safetensors")
        before = (
            f"jax.config.update('jax_num_cpu_devices', {devices})\nimport treeload\n"
            f"mesh = jax.sharding.Mesh(np.array(jax.devices()), ('a',))\n"
            f"where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('a'))\n"
            f"dst = {{'w': jax.ShapeDtypeStruct((64, {rows}, 1024), np.float32, sharding=where)}}\n"
            "plan = treeload.plan(dst, sys.argv[1], rules=[treeload.Stack('l{i}', 'w')])"
        )
        sample = fresh(before, "plan.load()", folder / "x.safetensors")
        return in_fresh_processes(sample, sample, turns, payload(layers))

    return measure


# --- how long it takes at all ------------------------------------------------------------------------


def suggested(folder: Path, turns: int, share: float) -> Result:
    """Names that have nothing in common, against five seconds."""
    rng = np.random.default_rng(0)

    def words() -> dict[str, Any]:
        letters = rng.choice(list("abcdefghijklmnop"), (int(100_000 * share), 9))
        return {"".join(word): jax.ShapeDtypeStruct((4, 4), np.float32) for word in letters}

    plan = treeload.plan(words(), words())
    start = time.perf_counter()
    plan.suggest()
    return Result([time.perf_counter() - start], [5.0])


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def help_text(folder: Path, turns: int, share: float) -> Result:
    """Against 0.3 seconds, the start of Python taken off."""
    plain = min(_seconds([sys.executable, "-c", ""]) for _ in range(turns))
    ours = [
        _seconds([sys.executable, "-c", "from treeload.cli import main; main()", "--help"])
        for _ in range(turns + 1)
    ][1:]
    return Result([each - plain for each in ours], [0.3])


def imported(folder: Path, turns: int, share: float) -> Result:
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(turns + 1):
        for name, what in (("ours", "treeload"), ("theirs", "jax, numpy, rich, xxhash")):
            seconds = _seconds([sys.executable, "-c", f"import {what}"])
            if turn:
                found[name].append(seconds)
    return Result(found["ours"], found["theirs"])


ROWS: tuple[Row, ...] = (
    Row("plan 100,000 leaves in memory", "`flax.serialization.from_state_dict`", 2.5, plan_in_memory),
    Row("load 20,000 leaves from memory, planned", "`jax.tree.map`", 4, load_in_memory),
    Row("update an NNX model of 2,000 Params", "`nnx.update`", 1.3, update_nnx(2_000)),
    Row("update an NNX model of 10,000 Params", "`nnx.update`", 1.3, update_nnx(10_000)),
    Row("plan a stored Orbax checkpoint, 20,000 leaves", "`ocp.metadata`", 0.06, plan_stored),
    Row("load 20,000 small leaves that Orbax wrote", "`ocp.load`", 0.12, load_small(orbax_save)),
    Row("load 20,000 small leaves that treeload wrote", "`ocp.load`", 0.10, load_small(treeload.save)),
    Row("save 20,000 small leaves", "`ocp.save`", 0.22, save_small),
    Row("load 1 GB, 150 leaves", "`ocp.load` of `ocp.save`'s", 0.2, load_large, 1.05),
    Row("save 1 GB, 150 leaves", "`ocp.save`", 0.3, save_large),
    Row("load 1 % of 20,000 leaves by `scope`", "all of them", 0.03, by_scope),
    Row("load 1 GB of safetensors", "`safetensors.flax`", 0.4, safetensors_large, 1.02),
    Row("load 20,000 small safetensors leaves, planned", "`safetensors.flax`", 1.5, safetensors_small),
    Row("load 20,000 small leaves of msgpack", "`flax.serialization.from_bytes`", None, msgpack_small),
    Row("stack 64 layers, 1 GB", "itself", None, stacked(1), 1.25),
    Row("stack 64 layers, 1 GB, onto 8 devices", "itself", None, stacked(8), 1.4),
    Row("`suggest()` of 100,000 leaves of any names", "5 s", 1.0, suggested),
    Row("`treeload --help`", "0.3 s", 1.0, help_text),
    Row("`import treeload`", "jax, numpy, rich, xxhash", 1.2, imported),
)
