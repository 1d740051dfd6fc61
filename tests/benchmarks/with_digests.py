"""What digests cost: a planned load that checks them, beside one that does not, of the same files.

Out of the system's cache, which is the fastest load there is, they weigh most; from the disk, hardly.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

import treeload
from tests.benchmarks.measuring import Measure, Result, Row, in_fresh_processes, nothing, out_of_the_cache
from tests.benchmarks.trees import Layers


def saved(folder: Path, tree: Any) -> Path:
    treeload.save(folder / "x", tree)
    return folder / "x"


def beside(folder: Path, tree: Any) -> Path:
    """Digests of what another library wrote lie in a file beside it."""
    save_file(tree, folder / "x.safetensors")
    treeload.digest(folder / "x.safetensors")
    return folder / "x.safetensors"


def checked(
    megabytes: int, *, write: Callable[[Path, Any], Path] = saved, from_disk: bool = False
) -> Measure:
    """A gigabyte in leaves of so many megabytes."""

    def measure(folder: Path, turns: int, share: float) -> Result:
        layers = Layers(max(1, int(1024 / megabytes * share)), megabytes * 256)
        path = write(folder, layers.arrays())
        os.sync()
        return in_fresh_processes(
            layers.planned("plan.load()", path),
            layers.planned("plan.load(check_digests=False)", path),
            turns, layers.nbytes,
            before=(lambda: out_of_the_cache(folder)) if from_disk else nothing,
        )  # fmt: skip

    return measure


BESIDE = "`check_digests=False`"

ROWS = (
    Row("load 1 GB, digests checked, leaves of 1 MB", BESIDE, 1.08, checked(1)),
    Row("load 1 GB, digests checked, leaves of 64 MB", BESIDE, None, checked(64)),
    Row("load 1 GB from the disk, digests checked, leaves of 1 MB", BESIDE, 1.08, checked(1, from_disk=True)),
    Row("load 1 GB from the disk, digests checked, leaves of 64 MB", BESIDE, 1.08,
        checked(64, from_disk=True)),
    Row("load 1 GB of safetensors, digests beside it checked, leaves of 1 MB", BESIDE, 1.08,
        checked(1, write=beside)),
)  # fmt: skip
