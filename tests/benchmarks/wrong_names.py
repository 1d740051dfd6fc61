"""A plan in which nothing matches, and what it suggests: 10,000 leaves against 100,000.

    python tests/benchmarks/wrong_names.py [--samples 3] [--json]

Names go wrong in several ways: all under a prefix, in another library's words, unrelated, misspelt, of one
segment, joined by dots. What is measured is growth: microseconds a leaf at 100,000 leaves to those at 10,000,
in processor time. Where everything is linear it is 1; names that no longer fit a processor's caches make it
somewhat more. And the plan is compared with one of the same leaves that fits, which costs the walk of both.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import string
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax
import numpy as np

import treeload

Names: TypeAlias = "list[tuple[str, ...]]"

FEW, MANY = 10_000, 100_000
PLAN_GROWTH, SUGGEST_GROWTH = 2.5, 2.5
TO_FITTING = 10.0  # a plan that fails to one that fits
A_TENTH = 0.5  # seconds that suggesting may take at FEW whatever the names: growth is told above that

FLAX = ("attn/q/kernel", "attn/k/kernel", "attn/out/kernel", "up/kernel", "down/kernel", "norm/scale")
TORCH = (
    "attention/self/query/weight",
    "attention/self/key/weight",
    "attention/output/dense/weight",
    "intermediate/dense/weight",
    "output/dense/weight",
    "LayerNorm/weight",
)


def layers(count: int, node: tuple[str, ...], leaves: tuple[str, ...]) -> Names:
    return [(*node, str(at // len(leaves)), *leaves[at % len(leaves)].split("/")) for at in range(count)]


def words(count: int, seed: int) -> Names:
    random_ = random.Random(seed)
    return [
        tuple("".join(random_.choices(string.ascii_lowercase, k=7)) for _ in range(3)) for _ in range(count)
    ]


def numbered(word: str, count: int) -> Names:
    return [(f"{word}_{at:05}",) for at in range(count)]


def misspelt(name: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{key[:3]}-{key[4:]}" for key in name)


KINDS: dict[str, Callable[[int], tuple[Names, Names]]] = {
    "a prefix": lambda count: (layers(count, ("layers",), FLAX), layers(count, ("net", "layers"), FLAX)),
    "another library": lambda count: (layers(count, ("layers",), FLAX), layers(count, ("h", "layer"), TORCH)),
    "unrelated": lambda count: (words(count, 1), words(count, 2)),
    "misspelt": lambda count: (words(count, 1), [misspelt(name) for name in words(count, 1)]),
    "one segment": lambda count: (numbered("leaf", count), numbered("param", count)),
    "joined": lambda count: (
        layers(count, ("layers",), FLAX),
        [(".".join(name),) for name in layers(count, ("layers",), FLAX)],
    ),
}


def tree(names: Names) -> dict[str, Any]:
    """Nested dicts of specs, of two shapes."""
    found: dict[str, Any] = {}
    for at, (*path, last) in enumerate(names):
        node = found
        for key in path:
            node = node.setdefault(key, {})
        node[last] = jax.ShapeDtypeStruct((8, 8 + at % 2), np.float32)
    return found


def seconds(do: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()
    do()
    return time.process_time() - start


def measured(kind: str, count: int) -> Iterator[tuple[str, float]]:
    """Microseconds a leaf of processor time."""
    theirs, ours = KINDS[kind](count)
    dst, src = tree(theirs), tree(ours)
    plan = treeload.plan(dst, src)
    assert plan.coverage == 0 and not plan.ok
    for what, do in (
        ("plan", lambda: treeload.plan(dst, src)),
        ("suggest", plan.suggest),
        ("fits", lambda: treeload.plan(dst, dst)),
    ):
        yield what, seconds(do) / count * 1e6


def measure(kind: str, samples: int) -> dict[str, float]:
    """The medians of both sizes, taken in turns, and how they grow."""
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(samples):
        for count in (FEW, MANY):
            for what, each in measured(kind, count):
                found.setdefault((what, count), []).append(each)
    middle = {key: statistics.median(all_) for key, all_ in found.items()}
    least = A_TENTH / FEW * 1e6
    return {
        "plan": middle["plan", MANY],
        "suggest_seconds": middle["suggest", MANY] * MANY / 1e6,
        "plan_growth": middle["plan", MANY] / middle["plan", FEW],
        "suggest_growth": middle["suggest", MANY] / max(least, middle["suggest", FEW]),
        "to_fitting": middle["plan", MANY] / middle["fits", MANY],
    }


def holds(result: dict[str, float]) -> bool:
    return (
        result["plan_growth"] <= PLAN_GROWTH
        and result["suggest_growth"] <= SUGGEST_GROWTH
        and result["to_fitting"] <= TO_FITTING
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="plans in which nothing matches")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print nothing but the results, as JSON")
    options = parser.parse_args()
    results = {kind: measure(kind, options.samples) for kind in KINDS}
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print(f"{MANY:,} leaves, medians of {options.samples}, processor time, jax {jax.__version__}")
        for kind, result in results.items():
            print(
                f"  {kind:<16} plan {result['plan']:5.1f} µs a leaf "
                f"({result['to_fitting']:4.1f}x one that fits, at most {TO_FITTING:.0f}x; "
                f"grows {result['plan_growth']:4.2f}x, at most {PLAN_GROWTH}x)   "
                f"suggest {result['suggest_seconds']:5.2f} s (grows {result['suggest_growth']:4.2f}x, "
                f"at most {SUGGEST_GROWTH}x)"
            )
    return 0 if all(map(holds, results.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
