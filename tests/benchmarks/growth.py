"""How some work grows, with the number of leaves and with their bytes: two pictures side by side."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import treeload
from tests.benchmarks.measuring import Act, Fresh, seconds
from tests.benchmarks.trees import MEGABYTE, Layers, nested, specs

Curves = Mapping[str, Mapping[int, float]]
"""What is done, and what it takes by the size."""

LEAVES = (100, 1_000, 10_000, 100_000)
MEGABYTES = (1, 8, 64, 512, 4096)
TIMES = 3


def by_leaves(share: float) -> Curves:
    """Microseconds a leaf, by the number of leaves."""
    found: dict[str, dict[int, float]] = {}
    for count in (int(count * share) for count in LEAVES if count * share >= LEAVES[0]):
        tree = nested(count, lambda at: np.full(16, at, np.float32))
        other = {f"other_{name}": node for name, node in tree.items()}
        with tempfile.TemporaryDirectory() as folder:
            stored = Path(folder) / "x"
            treeload.save(stored, tree)
            wanted = specs(tree)
            works: dict[str, Act] = {
                "plan, in memory": partial(treeload.plan, tree, tree),
                "plan, stored": partial(treeload.plan, wanted, stored),
                "load, stored": partial(treeload.load, wanted, stored),
                "report, nothing matches": partial(_reported, tree, other),
            }
            for name, act in works.items():
                found.setdefault(name, {})[count] = min(seconds(act) for _ in range(TIMES)) / count * 1e6
    return found


def _reported(dst: Any, src: Any) -> str:
    return str(treeload.plan(dst, src))


def by_bytes(share: float) -> Curves:
    """Gigabytes a second, by bytes, in 64 leaves.

    A load, planned before, is in a process of its own; its files are in the system's cache.
    """
    found: dict[str, dict[int, float]] = {}
    for megabytes in (each for each in MEGABYTES if each <= max(1, MEGABYTES[-1] * share)):
        layers = Layers(64, megabytes * 4)
        with tempfile.TemporaryDirectory() as folder:
            for name, taken in _of_bytes(Path(folder), layers).items():
                found.setdefault(name, {})[layers.nbytes] = layers.nbytes / taken / 1e9
    return found


def _of_bytes(folder: Path, layers: Layers) -> dict[str, float]:
    """The seconds of a save and of loads; one file at a time is on the disk."""
    tree, stored, file = layers.arrays(), folder / "x", folder / "x.safetensors"
    saved = min(_saved(stored, tree) for _ in range(TIMES))
    loaded = _best(layers.planned("plan.load()", stored))
    shutil.rmtree(stored)
    save_file(tree, file)
    of_file = _best(layers.planned("plan.load()", file))
    return {"save": saved, "load, stored": loaded, "load, safetensors": of_file}


def _saved(path: Path, tree: Any) -> float:
    shutil.rmtree(path, ignore_errors=True)
    return seconds(lambda: treeload.save(path, tree))


def _best(sample: Fresh) -> float:
    return min(sample.sample()["seconds"] for _ in range(TIMES))


def draw(of_leaves: Curves, of_bytes: Curves, path: Path) -> None:
    """Both as one SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "treeload", "svg.fonttype": "none"}
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    panels: tuple[tuple[Any, Curves, str, str, Callable[[int], float]], ...] = (
        (left, of_leaves, "leaves", "µs a leaf", float),
        (right, of_bytes, "MB", "GB a second", lambda size: size / MEGABYTE),
    )
    for axes, curves, by, unit, scaled in panels:
        for name, points in curves.items():
            axes.plot([scaled(size) for size in points], list(points.values()), marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel=by, ylabel=unit)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
