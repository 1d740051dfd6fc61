"""Planning a mixture of experts: 64 layers × 208 experts × 3 tensors stacked over two indices.

    python tests/benchmarks/stack.py [--samples 7] [--json]

Microseconds for each of the 39,936 source leaves, of a whole plan with one ``Stack`` rule, beside the naive
way: names by ``keystr``, one regular expression, groups sorted and their shapes compared. The source is a
safetensors file's names and shapes (``specs``), or the same as a tree in memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import treeload

TARGET = 25.0  # µs for each source leaf
LAYERS, EXPERTS, WEIGHTS = 64, 208, ("down_proj", "gate_proj", "up_proj")
LEAVES = LAYERS * EXPERTS * len(WEIGHTS)
RULE = treeload.Stack(
    "model/layers/{i}/mlp/experts/{e}/{w}/weight", "layers/experts/{w}/kernel", treeload.Transpose()
)


class Names(treeload.Source):
    """A source that knows its names and shapes already, as one of a file that was opened."""

    label = "a mixture of experts"

    def __init__(self) -> None:
        spec = jax.ShapeDtypeStruct((2, 3), np.float32)
        self._specs = {
            treeload.Name(("model", "layers", str(i), "mlp", "experts", str(e), w, "weight")): spec
            for i in range(LAYERS) for e in range(EXPERTS) for w in WEIGHTS
        }  # fmt: skip

    def specs(self) -> Any:
        return self._specs

    def read(self, requests: Any) -> Any:
        raise AssertionError("a plan reads no array")


def tree() -> Any:
    array = np.zeros((2, 3), np.float32)
    weights = {w: {"weight": array} for w in WEIGHTS}
    experts = {str(e): dict(weights) for e in range(EXPERTS)}
    return {"model": {"layers": {str(i): {"mlp": {"experts": dict(experts)}} for i in range(LAYERS)}}}


def destination() -> Any:
    return {
        "layers": {"experts": {w: {"kernel": np.zeros((LAYERS, EXPERTS, 3, 2), np.float32)} for w in WEIGHTS}}
    }


def naive(dst: Any, src: Any) -> Any:
    """The names and shapes that a stack would have, with nothing checked but that the shapes are equal."""
    pattern = re.compile(r"model/layers/(\d+)/mlp/experts/(\d+)/(\w+)/weight")
    groups: dict[str, list[Any]] = defaultdict(list)
    for path, leaf in jax.tree_util.tree_flatten_with_path(src)[0]:
        match = pattern.fullmatch(jax.tree_util.keystr(path, simple=True, separator="/"))
        if match:
            spec = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            groups[f"layers/experts/{match[3]}/kernel"].append((int(match[1]), int(match[2]), spec))
    found = {}
    for name, several in groups.items():
        several.sort(key=lambda one: one[:2])
        assert len({one[2].shape for one in several}) == 1
        found[name] = (LAYERS, EXPERTS, *several[0][2].shape[::-1])
    wanted = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(dst)[0]
    }
    assert found == wanted
    return found


def plan(dst: Any, src: Any) -> None:
    assert treeload.plan(dst, src, rules=RULE).ok


def run(samples: int) -> dict[str, float]:
    """Microseconds for each source leaf: medians."""
    dst, in_memory, opened = destination(), tree(), Names()
    cases: dict[str, Callable[[], Any]] = {
        "treeload, an opened file": lambda: plan(dst, opened),
        "treeload, in memory": lambda: plan(dst, in_memory),
        "the naive way, in memory": lambda: naive(dst, in_memory),
    }
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for turn in range(samples + 1):
        for case, contender in cases.items():
            gc.collect()
            start = time.perf_counter()
            contender()
            if turn:  # the first turn is for what is only done once
                seconds[case].append(time.perf_counter() - start)
    return {case: statistics.median(found) / LEAVES * 1e6 for case, found in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="a plan with a Stack over two indices")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print nothing but the results, as JSON")
    options = parser.parse_args()
    results = run(options.samples)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print(f"{LEAVES:,} source leaves, jax {jax.__version__}; at most {TARGET:.0f} µs each")
        for case, each in results.items():
            print(f"  {case:<26} {each:6.1f} µs")
    ours = [each for case, each in results.items() if case.startswith("treeload")]
    return 0 if max(ours) <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
