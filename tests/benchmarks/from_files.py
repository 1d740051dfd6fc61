"""Files of safetensors, Flax and Equinox beside those libraries; of PyTorch and NumPy beside safetensors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from flax import serialization
from safetensors.flax import load_file
from safetensors.numpy import save_file

import treeload
from tests.benchmarks.measuring import Fresh, Measure, Result, Row, by_turns, fresh, in_fresh_processes
from tests.benchmarks.trees import Layers, large, on_host, small, specs

# --- safetensors -------------------------------------------------------------------------------------


def safetensors_large(folder: Path, turns: int, share: float) -> Result:
    layers, path = large(share), folder / "x.safetensors"
    save_file(layers.arrays(), path)
    return in_fresh_processes(
        layers.sample("treeload.load(dst, sys.argv[1])", path),
        fresh("from safetensors.flax import load_file", "load_file(sys.argv[1])", path),
        turns, layers.nbytes,
    )  # fmt: skip


def safetensors_small(folder: Path, turns: int, share: float) -> Result:
    arrays = {f"l{at}": np.full(384, at, np.float32) for at in range(int(20_000 * share))}
    save_file(arrays, folder / "x.safetensors")
    plan = treeload.plan(specs(arrays), folder / "x.safetensors")
    return by_turns(plan.load, lambda: load_file(folder / "x.safetensors"), turns)


def stacked(devices: int) -> Measure:
    """Sixty-four layers of 16 MB as one leaf: the peak is asked for, and seconds are ours alone."""

    def measure(folder: Path, turns: int, share: float) -> Result:
        layers, path = Layers(64, max(8, int(4096 * share))), folder / "x.safetensors"
        save_file(layers.arrays(), path)
        before = (
            f"jax.config.update('jax_num_cpu_devices', {devices})\nimport treeload\n"
            f"mesh = jax.sharding.Mesh(np.array(jax.devices()), ('a',))\n"
            f"where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('a'))\n"
            f"dst = {{'w': jax.ShapeDtypeStruct((64, {layers.rows}, 1024), np.float32, sharding=where)}}\n"
            "plan = treeload.plan(dst, sys.argv[1], rules=[treeload.Stack('layer_{i}', 'w')])"
        )
        sample = fresh(before, "plan.load()", path)
        return in_fresh_processes(sample, sample, turns, layers.nbytes)

    return measure


# --- Flax's msgpack ----------------------------------------------------------------------------------


def msgpack_small(folder: Path, turns: int, share: float) -> Result:
    tree = small(share, on_host)
    (folder / "x.msgpack").write_bytes(serialization.to_bytes(tree))
    wanted = specs(tree)
    return by_turns(
        lambda: treeload.load(wanted, folder / "x.msgpack"),
        lambda: jax.device_put(serialization.from_bytes(tree, (folder / "x.msgpack").read_bytes())),
        turns,
    )


# --- Equinox -----------------------------------------------------------------------------------------


def equinox_large(folder: Path, turns: int, share: float) -> Result:
    layers, path = large(share), folder / "x.eqx"
    eqx.tree_serialise_leaves(path, layers.arrays())
    abstract = (
        f"dict.fromkeys(range({layers.count}), jax.ShapeDtypeStruct(({layers.rows}, 1024), np.float32))"
    )
    return in_fresh_processes(
        layers.sample("treeload.load(dst, treeload.From(sys.argv[1], by_position=True))", path),
        fresh(f"import equinox as eqx\nlike = {abstract}", "eqx.tree_deserialise_leaves(sys.argv[1], like)",
              path),
        turns, layers.nbytes,
    )  # fmt: skip


def equinox_small(folder: Path, turns: int, share: float) -> Result:
    tree, path = small(share), folder / "x.eqx"
    eqx.tree_serialise_leaves(path, tree)
    wanted = specs(tree)
    return by_turns(
        lambda: treeload.load(wanted, treeload.From(path, by_position=True)),
        lambda: eqx.tree_deserialise_leaves(path, wanted),
        turns,
    )


# --- PyTorch's and NumPy's archives ------------------------------------------------------------------


def _write_torch(writer: str) -> Callable[[Path, Any], Any]:
    def write(path: Path, arrays: Any) -> None:
        shared = str(Path(__file__).parents[1] / "shared")
        if shared not in sys.path:
            sys.path.insert(0, shared)  # as pytest has it
        import torch_files

        getattr(torch_files, writer)(path, arrays)

    return write


write_pt, write_pth = map(_write_torch, ("write_zip", "write_legacy"))


def write_npz(path: Path, arrays: Any) -> None:
    np.savez(path, **arrays)


def beside_safetensors(
    suffix: str, write: Callable[[Path, Any], Any], sampled: Callable[[Layers, Path], Fresh]
) -> Measure:
    """120 MB in leaves of 2 MB, in a file of this kind and in one of safetensors, both by treeload."""

    def measure(folder: Path, turns: int, share: float) -> Result:
        layers = Layers(60, max(1, int(512 * share)))
        write(folder / f"x{suffix}", layers.arrays())
        save_file(layers.arrays(), folder / "x.safetensors")
        ours, theirs = (sampled(layers, folder / name) for name in (f"x{suffix}", "x.safetensors"))
        return in_fresh_processes(ours, theirs, turns, layers.nbytes)

    return measure


def _loaded(layers: Layers, path: Path) -> Fresh:
    return layers.planned("plan.load()", path)


def _planned(layers: Layers, path: Path) -> Fresh:
    return layers.sample("treeload.plan(dst, sys.argv[1])", path)


BESIDE = "the same of safetensors"

ROWS = (
    Row("load 1 GB of safetensors", "`safetensors.flax`", 0.4, safetensors_large, 1.02),
    Row("load 20,000 small safetensors leaves, planned", "`safetensors.flax`", 1.5, safetensors_small),
    Row("stack 64 layers, 1 GB", "itself", None, stacked(1), 1.25),
    Row("stack 64 layers, 1 GB, onto 8 devices", "itself", None, stacked(8), 1.4),
    Row("load 20,000 small leaves of msgpack", "`flax.serialization.from_bytes`", None, msgpack_small),
    Row("load 1 GB of `.eqx`", "`eqx.tree_deserialise_leaves`", None, equinox_large),
    Row("load 20,000 small leaves of `.eqx`", "`eqx.tree_deserialise_leaves`", None, equinox_small),
    Row("plan 120 MB of `.pt`", BESIDE, None, beside_safetensors(".pt", write_pt, _planned), 0.08),
    Row("load 120 MB of `.pt`, CRC-32 checked, planned", BESIDE, 1.3,
        beside_safetensors(".pt", write_pt, _loaded), 1.1),
    Row("load 120 MB of `.pth`, the older container, planned", BESIDE, None,
        beside_safetensors(".pth", write_pth, _loaded), 1.1),
    Row("load 120 MB of `.npz`, CRC-32 checked, planned", BESIDE, None,
        beside_safetensors(".npz", write_npz, _loaded), 1.1),
)  # fmt: skip
