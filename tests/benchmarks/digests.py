"""What digests cost: a load that checks them against ``load(check_digests=False)``.

    python tests/benchmarks/digests.py [--samples 7] [--megabytes 1024] [--json]

Both read the same checkpoint, which the system holds in its cache: the fastest load there is, so that digests
weigh most. Each sample is a process of its own, since the first touch of memory is most of a load's cost, and
the two take turns. What else runs on the machine only ever adds, so the best of each is compared, in wall and
in CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

import treeload

TARGET = 1.08


def _tree(megabytes: int, size: int) -> dict[str, Any]:
    """Float32 matrices of about so many bytes each."""
    rows = max(1, size // 4096)
    rng = np.random.default_rng(0)
    return {
        f"layers_{number}": rng.random((rows, 1024), np.float32)
        for number in range(max(1, megabytes * (1 << 20) // (rows * 4096)))
    }


def _saved(folder: Path, tree: dict[str, Any]) -> Path:
    treeload.save(folder / "saved", tree)
    return folder / "saved"


def _beside(folder: Path, tree: dict[str, Any]) -> Path:
    save_file(tree, folder / "model.safetensors")
    treeload.digest(folder / "model.safetensors")
    return folder / "model.safetensors"


CASES: dict[str, tuple[Callable[[Path, dict[str, Any]], Path], int]] = {
    "saved, leaves of 64 MB": (_saved, 64 << 20),
    "saved, leaves of 1 MB": (_saved, 1 << 20),
    "safetensors, leaves of 64 MB": (_beside, 64 << 20),
    "safetensors, leaves of 1 MB": (_beside, 1 << 20),
}


def load(path: Path, check: bool) -> dict[str, float]:
    """The seconds of one load into abstract leaves."""
    dst = {leaf.name[0]: leaf.spec for leaf in treeload.inspect(path).leaves}
    jax.block_until_ready(jax.device_put(np.zeros(8)))
    plan = treeload.plan(dst, path)
    start, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(plan.load(check_digests=check))
    return {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def measure(case: str, samples: int, megabytes: int) -> dict[str, float]:
    """The best seconds of each, and how many of the checked go into the others."""
    write, size = CASES[case]
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), _tree(megabytes, size))
        for turn in range(samples + 1):
            for check in ("checked", "unchecked") if turn % 2 else ("unchecked", "checked"):
                done = subprocess.run(
                    [sys.executable, __file__, "--load", str(path), check],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                if turn:  # before the first turn the file may not be in the cache
                    for what, seconds in json.loads(done.stdout).items():
                        key = f"{check} {what}"
                        best[key] = min(best.get(key, seconds), seconds)
    for what in ("wall", "cpu"):
        best[f"{what} ratio"] = best[f"checked {what}"] / best[f"unchecked {what}"]
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description="loads that check digests against loads that do not")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--json", action="store_true", help="print nothing but the results, as JSON")
    parser.add_argument("--load", nargs=2, metavar=("PATH", "CHECKED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(Path(options.load[0]), options.load[1] == "checked")))
        return 0
    results = {case: measure(case, options.samples, options.megabytes) for case in CASES}
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print(
            f"{options.megabytes} MB, the best of {options.samples}, jax {jax.__version__}; at most {TARGET}x"
        )
        for case, found in results.items():
            print(
                f"  {case:<28} checked {found['checked wall'] * 1e3:6.0f} ms, unchecked "
                f"{found['unchecked wall'] * 1e3:6.0f} ms: {found['wall ratio']:4.2f}x   "
                f"(CPU {found['checked cpu'] * 1e3:6.0f}, {found['unchecked cpu'] * 1e3:6.0f}: "
                f"{found['cpu ratio']:4.2f}x)"
            )
    return 0 if all(found["wall ratio"] <= TARGET for found in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
