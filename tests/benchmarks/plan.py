"""``treeload.plan`` of 100,000 leaves in memory against the naive way and against Flax, which checks nothing.

    python tests/benchmarks/plan.py [--samples 7] [--json]

The tree is realistic: ten leaves to a module, four levels deep. ``naive`` is what one writes by hand:
``tree_flatten_with_path`` and ``keystr`` on both sides, joined in a dict. ``from_state_dict`` is Flax's
own loader, which compares keys on one side and no shapes. All run in one process and take turns.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.serialization import from_state_dict

import treeload

NAIVE_TARGET, FLAX_TARGET = 0.5, 5.0
LEAVES = 50 * 20 * 10 * 10

ARRAYS: dict[str, Callable[[], Any]] = {
    "NumPy": lambda: np.zeros(2, np.float32),
    "jax": lambda: jax.device_put(np.zeros(2, np.float32)),
}


def tree(make: Callable[[], Any]) -> dict[str, Any]:
    return {
        f"stage_{stage}": {
            f"block_{block}": {
                f"layer_{layer}": {f"param_{param}": make() for param in range(10)} for layer in range(10)
            }
            for block in range(20)
        }
        for stage in range(50)
    }


def naive(dst: Any, src: Any) -> list[tuple[str, Any, Any]]:
    ours, theirs = (
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(each)[0]}
        for each in (dst, src)
    )
    return [(name, leaf, theirs[name]) for name, leaf in ours.items() if name in theirs]


CONTENDERS: dict[str, Callable[[Any, Any], Any]] = {
    "plan": treeload.plan,
    "naive": naive,
    "from_state_dict": from_state_dict,
}


def measure(arrays: str, samples: int) -> dict[str, float]:
    """Microseconds a leaf of each, and what the plan takes of the others'."""
    dst, src = tree(ARRAYS[arrays]), tree(ARRAYS[arrays])
    assert treeload.plan(dst, src).coverage == 1 and len(naive(dst, src)) == LEAVES
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(samples):
        for name, contender in CONTENDERS.items():
            gc.collect()
            start = time.perf_counter()
            result = contender(dst, src)
            found[name].append((time.perf_counter() - start) / LEAVES * 1e6)
            del result
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    return {
        **medians,
        "to_naive": medians["plan"] / medians["naive"],
        "to_flax": medians["plan"] / medians["from_state_dict"],
    }


def run(samples: int) -> dict[str, dict[str, float]]:
    """What planning takes, for trees of NumPy arrays and of jax arrays."""
    return {arrays: measure(arrays, samples) for arrays in ARRAYS}


def main() -> int:
    parser = argparse.ArgumentParser(description="treeload.plan against doing it by hand")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print nothing but the results, as JSON")
    options = parser.parse_args()
    results = run(options.samples)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print(f"{LEAVES:,} leaves, medians of {options.samples}, microseconds a leaf, jax {jax.__version__}")
        for arrays, result in results.items():
            print(
                f"  {arrays:<6} plan {result['plan']:5.2f}   "
                f"naive {result['naive']:5.2f} ({result['to_naive']:4.2f}x, at most {NAIVE_TARGET}x)   "
                f"from_state_dict {result['from_state_dict']:5.2f} "
                f"({result['to_flax']:4.2f}x, at most {FLAX_TARGET}x)"
            )
    held = all(r["to_naive"] <= NAIVE_TARGET and r["to_flax"] <= FLAX_TARGET for r in results.values())
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
