"""The table of a run, as Markdown, and its place in a page."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.measuring import Result, Row

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def table(rows: Sequence[Row], turns: int, share: float) -> Iterator[tuple[str, bool]]:
    """The lines of the table, each as soon as it is measured, and whether it holds."""
    yield "| work | against | treeload | the other | ratio, of minima (medians) | at most | peak |", True
    yield "|---|---|---|---|---|---|---|", True
    for row in rows:
        with tempfile.TemporaryDirectory() as folder:
            result = row.measure(Path(folder), turns, share)
        yield line(row, result), row.holds(result)


def line(row: Row, result: Result) -> str:
    """One row of the table."""
    seconds = f"{_seconds(min(result.ours))} | {_seconds(min(result.theirs))}"
    most = "" if row.most is None else f"{row.most:g}×"
    peak = "" if result.peak is None else f"{result.peak:.2f}×"
    if row.most_peak is not None:
        peak += f" (at most {row.most_peak:g}×)"
    mark = "" if row.holds(result) else " **above**"
    return (
        f"| {row.work} | {row.against} | {seconds} | {result.ratio:.3g}× ({result.of_medians:.3g}×){mark} "
        f"| {most} | {peak} |"
    )


def _seconds(value: float) -> str:
    return f"{value * 1e3:,.0f} ms" if value >= 0.01 else f"{value * 1e6:,.0f} µs"


def write(lines: Sequence[str], page: Path) -> None:
    """Puts the figures between the marks of a page."""
    before, begun, rest = page.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise ValueError(f"{page} has not both marks, {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{chr(10).join(lines)}\n{END}{after}")
