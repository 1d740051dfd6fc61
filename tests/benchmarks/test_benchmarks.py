"""That the benchmarks run, and compare fairly. How fast anything is, they say themselves: no test does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.measuring import Fresh, Result, Row, by_turns, in_fresh_processes
from tests.benchmarks.table import PAGE, line, write

ROOT = Path(__file__).parents[2]
MANY_DEVICES = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")

IN_TURN = ["theirs", "ours", "ours", "theirs", "theirs", "ours"]


def test_who_is_first_changes_from_turn_to_turn_and_the_first_turn_does_not_count() -> None:
    done: list[str] = []
    result = by_turns(
        lambda: done.append("ours"), lambda: done.append("theirs"), 2, before=lambda: done.append("before")
    )
    assert done == [each for who in IN_TURN for each in ("before", who)]
    assert len(result.ours) == len(result.theirs) == 2


def test_processes_take_turns_as_well(tmp_path: Path) -> None:
    done = tmp_path / "done"
    program = (
        "import json, sys; print(sys.argv[1], file=open(sys.argv[2], 'a'));"
        "print(json.dumps({'seconds': float(sys.argv[3]), 'peak': 300.0}))"
    )
    ours, theirs = (
        Fresh(program, [who, str(done), taken]) for who, taken in (("ours", "1"), ("theirs", "2"))
    )
    result = in_fresh_processes(ours, theirs, 2, 200, before=lambda: _said(done, "before"))
    assert done.read_text().split() == [each for who in IN_TURN for each in ("before", who)]
    assert result == Result([1, 1], [2, 2], peak=1.5)


def _said(path: Path, text: str) -> None:
    with path.open("a") as file:
        print(text, file=file)


def test_a_row_says_that_it_is_above_what_it_may_take() -> None:
    row = Row("work", "somebody", 0.5, lambda *_: Result([], []), most_peak=1.1)
    assert "above" not in line(row, Result([0.5, 9], [1, 1], peak=1.1))
    assert "above" in line(row, Result([0.6], [1], peak=1.1))
    assert "above" in line(row, Result([0.5], [1], peak=1.2))


def test_figures_are_put_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    write(["one", "two"], page)
    before, _, rest = PAGE.read_text().partition("<!-- figures -->")
    _, _, after = rest.partition("<!-- end of figures -->")
    wanted = f"{before}<!-- figures -->\none\ntwo\n<!-- end of figures -->{after}"
    assert page.read_text() == wanted
    write(["one", "two"], page)  # and again
    assert page.read_text() == wanted


def test_a_page_without_both_marks_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- figures -->")
    with pytest.raises(ValueError, match="has not both marks"):
        write(["one"], page)
    assert page.read_text() == "<!-- figures -->"


@pytest.mark.slow
def test_every_row_and_curve_is_measured_in_one_run(tmp_path: Path) -> None:
    from tests.benchmarks.rows import ROWS

    page = tmp_path / "speed.md"
    page.write_text(PAGE.read_text())
    # One device, as users have: the eight that the tests share cores between would slow down everybody.
    environment = {key: value for key, value in os.environ.items() if key not in MANY_DEVICES}
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks",
        "--share",
        "0.01",
        "--turns",
        "1",
        "--write",
        str(page),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    # So little says nothing of speed: a ratio may be above its most.
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stdout + done.stderr
    for row in ROWS:
        begin = f"| {row.work} | {row.against} | "
        assert begin in done.stdout and begin in page.read_text(), begin
    curves = page.with_suffix(".svg").read_text()
    assert all(text in curves for text in (">leaves<", ">MB<", ">save<"))
