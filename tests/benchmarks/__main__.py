"""Every comparison and the growth curves, in one run: ``python -m tests.benchmarks``.

    python -m tests.benchmarks [--turns 5] [--share 1.0] [--only WORDS] [--write]

Prints a Markdown table; ``--write`` puts it into docs/speed.md, between its two marks, and the curves beside
it as SVG. ``--share`` measures less of everything, to see that it runs. The status is 1 where a ratio is
above its most.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import treeload
from tests.benchmarks.measuring import Result
from tests.benchmarks.rows import ROWS, Row, nested, specs

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
CURVES = PAGE.with_name("speed.svg")
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


# --- the table ---------------------------------------------------------------------------------------


def holds(row: Row, result: Result) -> bool:
    """Whether it took no more than it may."""
    in_time = row.most is None or result.ratio <= row.most
    return in_time and (row.most_peak is None or (result.peak or 0.0) <= row.most_peak)


def line(row: Row, result: Result) -> str:
    """One row of the table."""
    seconds = f"{_seconds(min(result.ours))} | {_seconds(min(result.theirs))}"
    most = "" if row.most is None else f"{row.most:g}×"
    peak = "" if result.peak is None else f"{result.peak:.2f}×"
    if row.most_peak is not None:
        peak += f" (at most {row.most_peak:g}×)"
    mark = "" if holds(row, result) else " **above**"
    return (
        f"| {row.work} | {row.against} | {seconds} | {result.ratio:.3g}× ({result.of_medians:.3g}×){mark} "
        f"| {most} | {peak} |"
    )


def _seconds(value: float) -> str:
    return f"{value * 1e3:,.0f} ms" if value >= 0.01 else f"{value * 1e6:,.0f} µs"


def table(rows: Sequence[Row], turns: int, share: float) -> Iterator[tuple[str, bool]]:
    """The lines of the table, each as soon as it is measured, and whether it holds."""
    yield "| work | against | treeload | the other | ratio, of minima (medians) | at most | peak |", True
    yield "|---|---|---|---|---|---|---|", True
    for row in rows:
        with tempfile.TemporaryDirectory() as folder:
            result = row.measure(Path(folder), turns, share)
        yield line(row, result), holds(row, result)


# --- growth ------------------------------------------------------------------------------------------


def growth(share: float) -> Mapping[str, Mapping[int, float]]:
    """Microseconds a leaf of some work, by the number of leaves."""
    counts = [int(count * share) for count in (100, 1_000, 10_000, 100_000) if count * share >= 100]
    found: dict[str, dict[int, float]] = {}
    for count in counts:
        tree = nested(count, lambda at: np.full(16, at, np.float32))
        other = {f"other_{name}": node for name, node in tree.items()}
        with tempfile.TemporaryDirectory() as folder:
            stored = Path(folder) / "x"
            treeload.save(stored, tree)
            wanted = specs(tree)
            works: dict[str, Callable[[], Any]] = {
                "plan, in memory": partial(treeload.plan, tree, tree),
                "plan, stored": partial(treeload.plan, wanted, stored),
                "load, stored": partial(treeload.load, wanted, stored),
                "report, nothing matches": partial(_reported, tree, other),
            }
            for name, act in works.items():
                found.setdefault(name, {})[count] = _best(act) / count * 1e6
    return found


def _reported(dst: Any, src: Any) -> str:
    return str(treeload.plan(dst, src))


def _best(act: Callable[[], Any], turns: int = 3) -> float:
    best = float("inf")
    for _ in range(turns):
        gc.collect()
        start = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - start)
    return best


def draw(curves: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """The curves as an SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "treeload", "svg.fonttype": "none"}
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, points in curves.items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="leaves", ylabel="µs a leaf")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


# --- both --------------------------------------------------------------------------------------------


def write(lines: Sequence[str]) -> None:
    """Puts the figures between the marks of the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{chr(10).join(lines)}\n{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the full sizes")
    parser.add_argument("--only", default="", help="rows whose work has these words")
    parser.add_argument("--write", action="store_true", help="into docs/speed.md")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.only in row.work]
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "orbax-checkpoint", "tensorstore"))
    about = f"Python {platform.python_version()}, {versions}; the best of {options.turns} turns.\n"
    lines, good = [about], True
    print(about, flush=True)
    for said, holding in table(rows, options.turns, options.share):
        print(said, flush=True)
        lines.append(said)
        good = good and holding
    if options.write:
        draw(growth(options.share), CURVES)
        write(lines)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
