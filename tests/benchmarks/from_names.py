"""Names that need work: one rule over many of them, plans in which none matches, and suggestions."""

from __future__ import annotations

import random
import re
import string
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

import treeload
from tests.benchmarks.measuring import Measure, Result, Row, by_turns, seconds

# --- a mixture of experts: 64 layers × 208 experts × 3 tensors, stacked over two indices --------------

EXPERTS, WEIGHTS = 208, ("down_proj", "gate_proj", "up_proj")
RULE = treeload.Stack(
    "model/layers/{i}/mlp/experts/{e}/{w}/weight", "layers/experts/{w}/kernel", treeload.Transpose()
)


class Names(treeload.Source):
    """A source that knows its names and shapes already, as one of a file that was opened."""

    label = "a mixture of experts"

    def __init__(self, layers: int) -> None:
        spec = jax.ShapeDtypeStruct((2, 3), np.float32)
        self._specs = {
            treeload.Name(("model", "layers", str(i), "mlp", "experts", str(e), w, "weight")): spec
            for i in range(layers) for e in range(EXPERTS) for w in WEIGHTS
        }  # fmt: skip

    def specs(self) -> Any:
        return self._specs

    def read(self, requests: Any) -> Any:
        raise AssertionError("a plan reads no array")


def experts(layers: int) -> Any:
    array = np.zeros((2, 3), np.float32)
    of_one = {str(e): {w: {"weight": array} for w in WEIGHTS} for e in range(EXPERTS)}
    return {"model": {"layers": {str(i): {"mlp": {"experts": dict(of_one)}} for i in range(layers)}}}


def by_hand(dst: Any, src: Any) -> Any:
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
        found[name] = (len(several) // EXPERTS, EXPERTS, *several[0][2].shape[::-1])
    wanted = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(dst)[0]
    }
    assert found == wanted
    return found


def stacked(opened: Callable[[int], Any]) -> Measure:
    def measure(folder: Path, turns: int, share: float) -> Result:
        deep = max(1, int(64 * share))
        kernel = np.zeros((deep, EXPERTS, 3, 2), np.float32)
        dst = {"layers": {"experts": {w: {"kernel": kernel} for w in WEIGHTS}}}
        src, in_memory = opened(deep), experts(deep)
        assert treeload.plan(dst, src, rules=RULE).ok
        return by_turns(
            lambda: treeload.plan(dst, src, rules=RULE), lambda: by_hand(dst, in_memory), turns
        )  # fmt: skip

    return measure


# --- names that are wrong ----------------------------------------------------------------------------

Leaves: TypeAlias = "list[tuple[str, ...]]"

FLAX = ("attn/q/kernel", "attn/k/kernel", "attn/out/kernel", "up/kernel", "down/kernel", "norm/scale")
TORCH = (
    "attention/self/query/weight",
    "attention/self/key/weight",
    "attention/output/dense/weight",
    "intermediate/dense/weight",
    "output/dense/weight",
    "LayerNorm/weight",
)


def layers(count: int, node: tuple[str, ...], leaves: tuple[str, ...] = FLAX) -> Leaves:
    return [(*node, str(at // len(leaves)), *leaves[at % len(leaves)].split("/")) for at in range(count)]


def words(count: int, seed: int) -> Leaves:
    letters = random.Random(seed).choices(string.ascii_lowercase, k=21 * count)
    return [
        tuple("".join(letters[at + key : at + key + 7]) for key in (0, 7, 14))
        for at in range(0, 21 * count, 21)
    ]


def numbered(word: str, count: int) -> Leaves:
    return [(f"{word}_{at:05}",) for at in range(count)]


def misspelt(name: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{key[:3]}-{key[4:]}" for key in name)


WRONG: dict[str, Callable[[int], tuple[Leaves, Leaves]]] = {
    "all under a prefix": lambda count: (layers(count, ("layers",)), layers(count, ("net", "layers"))),
    "in another library's words": lambda count: (
        layers(count, ("layers",)), layers(count, ("h", "layer"), TORCH)
    ),
    "unrelated": lambda count: (words(count, 1), words(count, 2)),
    "misspelt": lambda count: (words(count, 1), [misspelt(name) for name in words(count, 1)]),
    "of one segment": lambda count: (numbered("leaf", count), numbered("param", count)),
    "joined by dots": lambda count: (
        layers(count, ("layers",)), [(".".join(name),) for name in layers(count, ("layers",))]
    ),
}  # fmt: skip


def tree(names: Leaves) -> dict[str, Any]:
    """Nested dicts of specs, of two shapes."""
    found: dict[str, Any] = {}
    for at, (*path, last) in enumerate(names):
        node = found
        for key in path:
            node = node.setdefault(key, {})
        node[last] = jax.ShapeDtypeStruct((8, 8 + at % 2), np.float32)
    return found


def wrong(kind: str) -> Measure:
    def measure(folder: Path, turns: int, share: float) -> Result:
        ours, theirs = WRONG[kind](int(100_000 * share))
        dst, src, fits = tree(ours), tree(theirs), tree(ours)
        plan = treeload.plan(dst, src)
        assert plan.coverage == 0 and not plan.ok
        del plan
        return by_turns(lambda: treeload.plan(dst, src), lambda: treeload.plan(dst, fits), turns)

    return measure


def grown(work: Callable[[Any, Any], Any]) -> Measure:
    """Seconds a leaf at ten times as many leaves, of the kind of names that grows most."""

    def measure(folder: Path, turns: int, share: float) -> Result:
        few, many = int(10_000 * share), int(100_000 * share)

        def of(kind: str) -> Result:
            more, less = ([tree(names) for names in WRONG[kind](count)] for count in (many, few))
            found = by_turns(lambda: work(*more), lambda: work(*less), turns)
            return Result([each / many for each in found.ours], [each / few for each in found.theirs])

        return max(map(of, WRONG), key=lambda result: result.ratio)

    return measure


def suggested(folder: Path, turns: int, share: float) -> Result:
    """Names that have nothing in common, against five seconds."""
    rng = np.random.default_rng(0)

    def any_names() -> dict[str, Any]:
        letters = rng.choice(list("abcdefghijklmnop"), (int(100_000 * share), 9))
        return {"".join(word): jax.ShapeDtypeStruct((4, 4), np.float32) for word in letters}

    return Result([seconds(treeload.plan(any_names(), any_names()).suggest)], [5.0])


STACKED = "by hand: a regular expression, groups"

ROWS = (
    Row("plan 39,936 expert leaves with one `Stack`", STACKED, 4, stacked(experts)),
    Row("plan 39,936 expert leaves of an opened file with one `Stack`", STACKED, 4, stacked(Names)),
    *(Row(f"plan 100,000 leaves, names {kind}", "a plan that fits", 10, wrong(kind)) for kind in WRONG),
    Row("plan 100,000 leaves of such names, a leaf", "10,000 leaves", 2.5, grown(treeload.plan)),
    Row("plan and `suggest()` 100,000 leaves of such names, a leaf", "10,000 leaves", 2.5,
        grown(lambda dst, src: treeload.plan(dst, src).suggest())),
    Row("`suggest()` of 100,000 leaves of any names", "5 s", 1.0, suggested),
)  # fmt: skip
