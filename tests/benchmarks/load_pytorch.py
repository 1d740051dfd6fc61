"""PyTorch's files against safetensors of the same bytes, and npz beside them: planning and loading.

    python tests/benchmarks/load_pytorch.py [--samples 7] [--megabytes 120] [--json]

The ``.pt`` is written here, without PyTorch. Each sample is a fresh process, the order rotates, and the
files lie in the system's cache. What a plan grows the process by is counted from when treeload is imported
and an array is on the device; the peak of a load likewise. What else runs on the machine only ever adds, so
the best of each is compared: ``treeload.load`` of the ``.pt`` into an abstract tree, with its CRC-32
checked, against the same of the safetensors file, of which nothing is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TIME_TARGET, MEMORY_TARGET, PLAN_TARGET = 1.3, 1.1, 10 << 20
PEER = "safetensors.flax"
_MIB = 1 << 20


def shapes(megabytes: int) -> dict[str, tuple[int, ...]]:
    """Those of a transformer's layers, by their names."""
    width, size = 768, 0
    found: dict[str, tuple[int, ...]] = {}
    while size < megabytes * _MIB:
        layer = f"model.layers.{len(found) // 8}"
        for name, shape in {
            "attn.q.weight": (width, width),
            "attn.k.weight": (width, width),
            "attn.v.weight": (width, width),
            "attn.o.weight": (width, width),
            "mlp.up.weight": (4 * width, width),
            "mlp.down.weight": (width, 4 * width),
            "norm.weight": (width,),
            "norm.bias": (width,),
        }.items():
            found[f"{layer}.{name}"] = shape
            size += 4 * int(np.prod(shape))
    return found


def write(folder: Path, megabytes: int) -> dict[str, Path]:
    """The same tensors in each format."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
    import torch_files
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    tensors: dict[str, Any] = {
        name: rng.random(shape, np.float32) for name, shape in shapes(megabytes).items()
    }
    save_file(tensors, folder / "model.safetensors")
    torch_files.write_zip(folder / "model.pt", tensors)
    torch_files.write_legacy(folder / "model.pth", tensors)
    np.savez(folder / "model.npz", **{name.replace(".", "/"): array for name, array in tensors.items()})
    return {path.suffix: path for path in sorted(folder.iterdir())}


def measure_peer(path: Path) -> dict[str, float]:
    """One sample of the safetensors library, which plans nothing."""
    import jax
    from safetensors.flax import load_file

    jax.block_until_ready(jax.device_put(np.zeros(1024)))
    before = _resident()
    start = time.perf_counter()
    loaded = jax.block_until_ready(load_file(path))
    seconds = time.perf_counter() - start
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded))
    return {"plan": 0.0, "grown": 0.0, "load": seconds, "peak": (_peak() - before) / size}


def measure(path: Path, megabytes: int) -> dict[str, float]:
    """One sample, in this process: seconds of a plan and of a load, and bytes above those before."""
    import jax

    import treeload

    tree: dict[str, Any] = {}
    for name, shape in shapes(megabytes).items():
        *above, last = name.split(".")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = jax.ShapeDtypeStruct(shape, np.float32)
    jax.block_until_ready(jax.device_put(np.zeros(1024)))
    treeload.plan({"w": jax.numpy.zeros(2)}, {"w": np.zeros(2)})
    before = _resident()
    start = time.perf_counter()
    plan = treeload.plan(tree, path)
    planned = time.perf_counter() - start
    grown = _peak() - before
    before = _resident()
    start = time.perf_counter()
    loaded = jax.block_until_ready(plan.load())
    seconds = time.perf_counter() - start
    peak = _peak() - before
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded))
    return {"plan": planned, "grown": max(grown, 0), "load": seconds, "peak": peak / size}


def _resident() -> int:
    """Bytes resident now, and the peak set back to it: it may have stood higher during the imports."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    """Bytes resident at most since then (``ru_maxrss`` cannot say: a process has its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def run(samples: int, megabytes: int, *, say: Callable[[str], None] = print) -> dict[str, dict[str, float]]:
    """The best of each format's samples."""
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), megabytes)
        for path in paths.values():
            path.read_bytes()  # into the page cache
        paths[PEER] = paths[".safetensors"]
        order = list(paths)
        for turn in range(samples):
            for at in range(len(order)):
                suffix = order[(turn + at) % len(order)]
                command = [sys.executable, __file__, "--measure", str(paths[suffix]), str(megabytes), suffix]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                sample = json.loads(done.stdout.splitlines()[-1])
                known = best.setdefault(suffix, sample)
                best[suffix] = {key: min(known[key], sample[key]) for key in sample}
    for suffix, found in best.items():
        found["load ratio"] = found["load"] / best[".safetensors"]["load"]
        say(
            f"{suffix:<17} plan {found['plan'] * 1e3:6.1f} ms, grown {found['grown'] / _MIB:5.1f} MiB   "
            f"load {found['load'] * 1e3:6.1f} ms ({found['load ratio']:4.2f}x)   peak {found['peak']:4.2f}x"
        )
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description="PyTorch's files against safetensors")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=120)
    parser.add_argument("--json", action="store_true", help="print nothing but the results, as JSON")
    parser.add_argument("--measure", nargs=3, metavar=("PATH", "MEGABYTES", "WHO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        path = Path(options.measure[0])
        is_peer = options.measure[2] == PEER
        print(json.dumps(measure_peer(path) if is_peer else measure(path, int(options.measure[1]))))
        return 0
    results = run(options.samples, options.megabytes, say=(lambda _: None) if options.json else print)
    if options.json:
        print(json.dumps(results, indent=2))
    ours = [found for suffix, found in results.items() if suffix in (".pt", ".pth", ".npz")]
    held = all(
        found["load ratio"] <= TIME_TARGET
        and found["peak"] <= MEMORY_TARGET
        and found["grown"] <= PLAN_TARGET
        for found in ours
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
