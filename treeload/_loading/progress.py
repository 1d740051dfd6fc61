"""A progress bar in bytes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from treeload._leaves.spec import nbytes
from treeload._plans.decisions import Decisions


class Bar:
    """A progress bar in bytes, shown on a terminal once a load has lasted a second."""

    _PATIENCE = 1.0  # seconds

    def __init__(self, decisions: Decisions, progress: bool | None) -> None:
        console = Console(stderr=True)
        self.wanted = console.is_terminal if progress is None else progress
        self.patience = self._PATIENCE if progress is None else 0.0
        self.console = console
        self.decisions = decisions
        self.start = time.monotonic()
        self.done = 0
        self.bar: Progress | None = None
        self.task: Any = None

    def __enter__(self) -> Bar:
        return self

    def advance(self, leaf: Any) -> None:
        if not self.wanted:
            return
        self.done += nbytes(leaf)
        if self.bar is None and time.monotonic() - self.start >= self.patience:
            total = sum(nbytes(leaf.spec) for entry in self.decisions.entries for leaf in entry.sources)
            columns = (TextColumn("loading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.task = self.bar.add_task("loading", total=total)
            self.bar.start()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
