"""How two ways to the same are compared: by turns in one run, or each in processes of its own.

What else runs on a machine only ever adds: ratios are of the minima, with those of the medians beside them.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

_Way = TypeVar("_Way")

Act = Callable[[], Any]


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        ours, theirs: seconds of each turn.
        peak: bytes that the process grew by at most, over those of the payload; None where it was not asked.
    """

    ours: Sequence[float]
    theirs: Sequence[float]
    peak: float | None = None

    @property
    def ratio(self) -> float:
        """The best of ours over the best of theirs."""
        return min(self.ours) / min(self.theirs)

    @property
    def of_medians(self) -> float:
        """The same of the medians."""
        return statistics.median(self.ours) / statistics.median(self.theirs)


Measure = Callable[[Path, int, float], Result]
"""Takes an empty folder, how often, and the share of the full size (1.0)."""


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what is done, in words.
        against: whom it is compared with.
        most: what ours may take of theirs; None where it is said for its own sake.
        measure: does it.
        most_peak: what the process may grow by, over the payload.
    """

    work: str
    against: str
    most: float | None
    measure: Measure
    most_peak: float | None = None

    def holds(self, result: Result) -> bool:
        """Whether it took no more than it may."""
        in_time = self.most is None or result.ratio <= self.most
        return in_time and (self.most_peak is None or (result.peak or 0.0) <= self.most_peak)


# --- in this process ---------------------------------------------------------------------------------


def nothing() -> None:
    """What there is to do before, where there is nothing."""


def seconds(act: Act) -> float:
    """Of one time; what it gives is let go of afterwards."""
    gc.collect()
    start = time.perf_counter()
    result = act()
    taken = time.perf_counter() - start
    del result
    return taken


def by_turns(ours: Act, theirs: Act, turns: int, *, before: Act = nothing) -> Result:
    """Both in this process, by turns; the first turn is for what is only done once.

    Args:
        ours, theirs: what is measured.
        turns: how often.
        before: what is done before each, and not measured.
    """
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(turns + 1):
        for name, act in _in_turn(turn, ours, theirs):
            before()
            taken = seconds(act)
            if turn:
                found[name].append(taken)
    return Result(found["ours"], found["theirs"])


def _in_turn(turn: int, ours: _Way, theirs: _Way) -> tuple[tuple[str, _Way], ...]:
    """Who is first changes from turn to turn."""
    both = ("ours", ours), ("theirs", theirs)
    return both if turn % 2 else both[::-1]


# --- in processes of their own -----------------------------------------------------------------------


@dataclass(frozen=True)
class Fresh:
    """One sample in a process of its own: the first touch of memory is most of what a large load costs.

    Attributes:
        program: Python that prints ``{"seconds": ..., "peak": ...}`` as its last line.
        arguments: of it, as ``sys.argv[1:]``.
    """

    program: str
    arguments: Sequence[str] = field(default=())

    def sample(self) -> Mapping[str, float]:
        """What it printed."""
        command = [sys.executable, "-c", self.program, *self.arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


MEASURED = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
import jax, numpy as np
{before}
jax.block_until_ready(jax.device_put(np.zeros(1024)))
open("/proc/self/clear_refs", "w").write("5")  # the peak of the imports is not to count
resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
start = time.perf_counter()
result = jax.block_until_ready({act})
seconds = time.perf_counter() - start
highest = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # not its parent's
peak = int(highest.split()[1]) * 1024 - resident
print(json.dumps({{"seconds": seconds, "peak": peak}}))
"""


def fresh(before: str, act: str, path: Path) -> Fresh:
    """A sample of one expression, after what has to be there; ``path`` is its ``sys.argv[1]``."""
    return Fresh(MEASURED.format(before=before, act=act), [str(path)])


def in_fresh_processes(
    ours: Fresh, theirs: Fresh, turns: int, payload: int, *, before: Act = nothing
) -> Result:
    """Both by turns, each sample in a process of its own, after one that brings files into the cache.

    Args:
        ours, theirs: what is measured.
        turns: how often.
        payload: bytes that a load must take, which the peak is told by.
        before: what is done before each, and not measured.
    """
    found: dict[str, list[Mapping[str, float]]] = {"ours": [], "theirs": []}
    for turn in range(turns + 1):
        for name, each in _in_turn(turn, ours, theirs):
            before()
            sample = each.sample()
            if turn:
                found[name].append(sample)
    taken = {name: [sample["seconds"] for sample in samples] for name, samples in found.items()}
    peak = min(sample["peak"] for sample in found["ours"]) / payload
    return Result(taken["ours"], taken["theirs"], peak)


def out_of_the_cache(folder: Path) -> None:
    """Has the system forget what it holds of a folder's files, which must be on the disk (``os.sync``)."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
