"""How two ways to the same are compared: by turns in one run, or each in processes of its own.

What else runs on a machine only ever adds: ratios are of the minima, with those of the medians beside them.
"""

from __future__ import annotations

import gc
import json
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
        ours, theirs: seconds of each turn; of a size, bytes.
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


def _in_turn(turn: int, ours: _Way, theirs: _Way) -> tuple[tuple[str, _Way], ...]:
    """Who is first changes from turn to turn."""
    both = ("ours", ours), ("theirs", theirs)
    return both if turn % 2 else both[::-1]


def by_turns(ours: Act, theirs: Act, turns: int, *, before: Act = lambda: None) -> Result:
    """Both in this process, by turns; the first turn is for what is only done once.

    Args:
        ours, theirs: what is measured.
        turns: how often.
        before: what is done before each, and not measured.
    """
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(turns + 1):
        for name, act in (
            (("ours", ours), ("theirs", theirs)) if turn % 2 else (("theirs", theirs), ("ours", ours))
        ):
            before()
            gc.collect()
            start = time.perf_counter()
            result = act()
            seconds = time.perf_counter() - start
            del result
            if turn:
                found[name].append(seconds)
    return Result(found["ours"], found["theirs"])


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


def in_fresh_processes(ours: Fresh, theirs: Fresh, turns: int, payload: int) -> Result:
    """Both by turns, each sample in a process of its own, after one that brings files into the cache."""
    found: dict[str, list[Mapping[str, float]]] = {"ours": [], "theirs": []}
    for turn in range(turns + 1):
        for name, each in (
            (("ours", ours), ("theirs", theirs)) if turn % 2 else (("theirs", theirs), ("ours", ours))
        ):
            sample = each.sample()
            if turn:
                found[name].append(sample)
    seconds = {name: [sample["seconds"] for sample in samples] for name, samples in found.items()}
    peak = min(sample["peak"] for sample in found["ours"]) / payload
    return Result(seconds["ours"], seconds["theirs"], peak)


MEASURED = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
import jax, numpy as np
{before}
jax.block_until_ready(jax.device_put(np.zeros(1024)))
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
