"""What is loaded and saved: trees of many small leaves, and of few large ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.benchmarks.measuring import Fresh, fresh

MEGABYTE = 1 << 20


# --- many small leaves -------------------------------------------------------------------------------


def nested(leaves: int, make: Callable[[int], Any]) -> dict[str, Any]:
    """A tree of so many leaves, ten to a module."""
    return {
        f"block_{block}": {f"param_{at}": make(block * 10 + at) for at in range(10)}
        for block in range(leaves // 10)
    }


def on_device(size: int) -> Callable[[int], jax.Array]:
    return lambda at: jax.device_put(np.full(size, at, np.float32))


def on_host(size: int) -> Callable[[int], Any]:
    return lambda at: np.full(size, at, np.float32)


def small(share: float, make: Callable[[int], Callable[[int], Any]] = on_device) -> dict[str, Any]:
    """20,000 leaves of 1.5 KB."""
    return nested(int(20_000 * share), make(384))


def specs(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


# --- few large leaves --------------------------------------------------------------------------------

OURS = """
import treeload
treeload.load({{"a": np.zeros(1)}}, {{"a": np.ones(1)}})  # which imports the rest of it
dst = {{f"layer_{{at}}": jax.ShapeDtypeStruct(({rows}, 1024), np.float32) for at in range({count})}}
"""


@dataclass(frozen=True)
class Layers:
    """So many float32 matrices of so many rows; a row has 4 KB."""

    count: int
    rows: int

    @property
    def nbytes(self) -> int:
        return self.count * self.rows * 4096

    def arrays(self) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        return {f"layer_{at}": rng.random((self.rows, 1024), np.float32) for at in range(self.count)}

    def sample(self, act: str, path: Path, before: str = "") -> Fresh:
        """Of an expression of ``treeload``, ``dst`` (these layers, abstract) and ``sys.argv[1]``."""
        return fresh(OURS.format(rows=self.rows, count=self.count) + before, act, path)

    def planned(self, act: str, path: Path) -> Fresh:
        """The same of ``plan``, which was made before."""
        return self.sample(act, path, "plan = treeload.plan(dst, sys.argv[1])")


def large(share: float) -> Layers:
    """A gigabyte in 150 leaves."""
    return Layers(150, max(1, int(1792 * share)))
