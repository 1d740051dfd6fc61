"""``treeload.update`` of an NNX model of 2,000 Params against ``nnx.update``, which checks nothing.

    python tests/benchmarks/update.py [--samples 15] [--json]

Both run in one process and take turns, since what one allocates the other finds warm. Two models, since
what an object costs and what a Param costs are different things: ``wide`` has few Modules of ten Params,
``linear`` a Module of a dozen settings for every two Params. The source is the ``nnx.State`` of another
model of the kind, or its arrays as a plain dict.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import treeload

TARGET = 2.5
PARAMS = 2_000


class Wide(nnx.Module):
    """Ten Params."""

    def __init__(self, fill: float) -> None:
        for number in range(10):
            setattr(self, f"param_{number}", nnx.Param(jnp.full((2,), fill)))


def wide(fill: float) -> nnx.Module:
    return nnx.List([Wide(fill) for _ in range(PARAMS // 10)])


def linear(fill: float) -> nnx.Module:
    layers = nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(0)) for _ in range(PARAMS // 2)])
    nnx.update(layers, jax.tree.map(lambda array: jnp.full_like(array, fill), nnx.state(layers)))
    return layers


CASES: dict[str, tuple[Callable[[float], nnx.Module], Callable[[nnx.Module], Any]]] = {
    "wide, from a State": (wide, nnx.state),
    "wide, from a dict": (wide, lambda model: nnx.to_pure_dict(nnx.state(model))),
    "linear, from a State": (linear, nnx.state),
    "linear, from a dict": (linear, lambda model: nnx.to_pure_dict(nnx.state(model))),
}


def measure(case: str, samples: int) -> dict[str, float]:
    """Seconds of each, and ours to theirs."""
    make, source_of = CASES[case]
    model = make(0.0)
    sources = [source_of(make(fill)) for fill in (1.0, 2.0)]
    seconds: dict[Callable[[Any, Any], None], list[float]] = {treeload.update: [], nnx.update: []}
    for turn in range(samples + 1):
        for contender, found in seconds.items():
            for fill, source in enumerate(sources, 1):  # two, so that each run has something to change
                gc.collect()
                start = time.perf_counter()
                contender(model, source)
                found.append(time.perf_counter() - start)
                assert all(np.all(leaf == fill) for leaf in jax.tree.leaves(nnx.state(model))[::97])
        if turn == 0:  # the first turn is for what is only done once
            for found in seconds.values():
                found.clear()
    ours, theirs = map(min, seconds.values())  # what else runs on the machine only ever adds
    return {"treeload.update": ours, "nnx.update": theirs, "ratio": ours / theirs}


def run(samples: int) -> dict[str, dict[str, float]]:
    """What each case takes."""
    return {case: measure(case, samples) for case in CASES}


def main() -> int:
    parser = argparse.ArgumentParser(description="treeload.update against nnx.update")
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print nothing but the results, as JSON")
    options = parser.parse_args()
    results = run(options.samples)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print(
            f"{PARAMS:,} Params, the best of {2 * options.samples}, jax {jax.__version__}; at most {TARGET}x"
        )
        for case, result in results.items():
            print(
                f"  {case:<22} treeload {result['treeload.update'] * 1e3:6.1f} ms   "
                f"nnx {result['nnx.update'] * 1e3:6.1f} ms   {result['ratio']:4.2f}x"
            )
    return 0 if all(result["ratio"] <= TARGET for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
