"""Loading safetensors with treeload against safetensors itself, in time and in memory.

    python tests/benchmarks/load_safetensors.py [--samples 5] [--megabytes 1024] [--json]

Each sample is a fresh process, and the order of the contenders rotates: whoever comes second in one
process finds memory already touched, which is most of the cost. Wall and CPU seconds start after the
imports and one small array on the device; the peak is resident memory above what stood then. ``source``
reads through ``SafetensorsSource`` straight onto the default device; ``load`` is ``treeload.load`` into
an abstract tree, run where treeload has it. The ratios of the medians are what to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEER = "safetensors.flax"
TIME_TARGET, MEMORY_TARGET = 0.8, 1.25
_MIB = 1 << 20


def write_model(path: Path, megabytes: int) -> None:
    """A file of the shapes of a transformer, float32: large matrices, and small vectors between them."""
    import numpy as np
    from safetensors.numpy import save_file

    width, size = 1024, 0
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    rng = np.random.default_rng(0)
    while size < megabytes * _MIB:
        layer = f"model.layers.{len(tensors) // 8}"
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
            tensors[f"{layer}.{name}"] = rng.random(shape, np.float32)
            size += tensors[f"{layer}.{name}"].nbytes
    save_file(tensors, path)


def _peer(path: Path) -> Callable[[], Any]:
    from safetensors.flax import load_file

    return lambda: load_file(path)


def _source(path: Path) -> Callable[[], Any]:
    import jax

    from treeload._formats.safetensors.source import SafetensorsSource

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def load() -> Any:
        source = SafetensorsSource(path)
        return dict(
            source.read(
                {
                    name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=device)
                    for name, spec in source.specs().items()
                }
            )
        )

    return load


def _load(path: Path) -> Callable[[], Any]:
    import treeload
    from treeload._formats.safetensors.source import SafetensorsSource

    tree: dict[str, Any] = {}
    for name, spec in SafetensorsSource(path).specs().items():
        node = tree
        for key in name[:-1]:
            node = node.setdefault(key, {})
        node[name[-1]] = spec
    return lambda: treeload.load(tree, path)


CONTENDERS: dict[str, Callable[[Path], Callable[[], Any]]] = {PEER: _peer, "source": _source, "load": _load}


def measure(contender: str, path: Path) -> dict[str, float]:
    """One sample, in this process: seconds, and bytes resident at the peak above those before."""
    import jax

    load = CONTENDERS[contender](path)
    jax.block_until_ready(jax.numpy.zeros(1024))
    before = _resident()
    wall, cpu = time.perf_counter(), time.process_time()
    leaves = jax.block_until_ready(load())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    # What was loaded must be there: a lazy contender would win, and be of no use.
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(leaves))
    return {"wall": wall, "cpu": cpu, "peak": peak, "bytes": total}


def _resident() -> int:
    """Bytes resident now (``ru_maxrss`` cannot say: it may have stood higher during the imports)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _sample(contender: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", contender, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    sample: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return sample


def run(samples: int, megabytes: int, *, say: Callable[[str], None] = print) -> dict[str, dict[str, float]]:
    """Each contender's medians, and its ratios to the peer and to the file."""
    import treeload

    contenders = [name for name in CONTENDERS if name != "load" or hasattr(treeload, "load")]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.safetensors"
        write_model(path, megabytes)
        size = path.stat().st_size
        say(f"{size / _MIB:,.0f} MiB, {os.cpu_count()} cores, {samples} samples each")
        path.read_bytes()  # into the page cache, for everybody
        found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        for turn in range(samples):
            for at in range(len(contenders)):
                contender = contenders[(turn + at) % len(contenders)]
                sample = _sample(contender, path)
                assert sample["bytes"] >= 0.99 * size, f"{contender} loaded {sample['bytes']:,} bytes"
                found[contender].append(sample)
                say(
                    f"  {contender:<18} wall {sample['wall']:6.3f} s   cpu {sample['cpu']:6.3f} s   "
                    f"peak {sample['peak'] / size:5.2f}x the file"
                )
    medians = {
        name: {
            key: statistics.median(sample[key] for sample in samples_of) for key in ("wall", "cpu", "peak")
        }
        for name, samples_of in found.items()
    }
    return {
        name: {
            **median,
            "wall_ratio": median["wall"] / medians[PEER]["wall"],
            "cpu_ratio": median["cpu"] / medians[PEER]["cpu"],
            "peak_ratio": median["peak"] / size,
        }
        for name, median in medians.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="treeload against safetensors.flax")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--json", action="store_true", help="print nothing but the results, as JSON")
    parser.add_argument("--measure", nargs=2, metavar=("CONTENDER", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], Path(options.measure[1]))))
        return 0
    results = run(options.samples, options.megabytes, say=(lambda _: None) if options.json else print)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for name, result in results.items():
            print(
                f"{name:<20} median wall {result['wall']:6.3f} s ({result['wall_ratio']:4.2f}x)   "
                f"cpu {result['cpu']:6.3f} s ({result['cpu_ratio']:4.2f}x)   "
                f"peak {result['peak_ratio']:4.2f}x the file"
            )
    ours = [result for name, result in results.items() if name != PEER]
    held = all(r["wall_ratio"] <= TIME_TARGET and r["peak_ratio"] <= MEMORY_TARGET for r in ours)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
