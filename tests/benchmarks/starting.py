"""How long it takes before anything is done: imports, and the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.measuring import Result, Row, by_turns


def _run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)


def help_text(folder: Path, turns: int, share: float) -> Result:
    """Against 0.3 seconds, the start of Python taken off."""
    found = by_turns(
        lambda: _run("from treeload.cli import main; main()", "--help"), lambda: _run(""), turns
    )  # fmt: skip
    return Result([each - min(found.theirs) for each in found.ours], [0.3])


def imported(folder: Path, turns: int, share: float) -> Result:
    return by_turns(
        lambda: _run("import treeload"), lambda: _run("import jax, numpy, rich, xxhash"), turns
    )  # fmt: skip


ROWS = (
    Row("`treeload --help`", "0.3 s", 1.0, help_text),
    Row("`import treeload`", "jax, numpy, rich, xxhash", 1.2, imported),
)
