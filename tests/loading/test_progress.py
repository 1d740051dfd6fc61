"""A progress bar in bytes: when it comes, what it counts, that it goes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import treeload
from treeload._loading import progress
from treeload._loading.progress import Bar

SRC = {"a": np.ones(2, np.float32), "b": np.ones((3, 2), np.float32)}


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> treeload.Plan:
    """A plan of 32 bytes, on a terminal."""
    monkeypatch.setattr(progress, "Console", lambda **how: Console(file=io.StringIO(), force_terminal=True))
    return treeload.plan({"a": np.zeros(2, np.float32), "b": np.zeros((3, 2), np.float32)}, SRC)


def test_a_bar_counts_bytes_of_all_that_loads(plan: Any) -> None:
    with Bar(plan, True) as bar:
        bar.advance(SRC["a"])
        assert bar.bar is not None
        assert (bar.bar.tasks[0].completed, bar.bar.tasks[0].total) == (8, 32)
        bar.advance(SRC["b"])
        assert bar.bar.tasks[0].completed == bar.bar.tasks[0].total and bar.bar.finished


def test_a_bar_that_is_not_wanted_counts_nothing(plan: Any) -> None:
    with Bar(plan, False) as bar:
        bar.advance(SRC["a"])
    assert bar.bar is None and bar.done == 0


def test_a_bar_waits_a_second_unless_it_was_asked_for(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Bar(plan, None) as bar:
        now[0] += 0.5
        bar.advance(SRC["a"])
        assert bar.bar is None
        now[0] += 0.5
        bar.advance(SRC["b"])
        assert bar.bar is not None and bar.bar.tasks[0].completed == 32


def test_a_bar_is_wanted_on_a_terminal_alone(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bar(plan, None).wanted
    monkeypatch.setattr(progress, "Console", lambda **how: Console(file=io.StringIO()))
    assert not Bar(plan, None).wanted and Bar(plan, True).wanted


def failing(bar: Bar) -> None:
    with bar:
        bar.advance(SRC["a"])
        raise OSError("the disk is gone")


def test_a_bar_stops_when_the_load_fails(plan: Any) -> None:
    bar = Bar(plan, True)
    with pytest.raises(OSError, match="the disk is gone"):
        failing(bar)
    assert bar.bar is not None and not bar.bar.live.is_started
