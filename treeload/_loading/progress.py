"""How far a load is: a bar on a terminal or in a notebook, or a function of the caller's.

Owns what is counted, the bytes of each source leaf that is read, once each; and when a bar comes and goes.
Refuses to own what is read: ``deliver`` tells of it. Where nobody wants to know there is nothing to tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from treeload._leaves.spec import nbytes
from treeload._naming.name import Keys, Name
from treeload._plans.decisions import Decisions
from treeload._plans.entry import SAME_NAME, Entry

Progress: TypeAlias = bool | Callable[[int, int, Name], None] | None
"""A bar or none; None for one where somebody sees it and it takes long; or a function that is told."""

Advance: TypeAlias = Callable[[int, Sequence[str]], None] | None
"""Told the source and the name of each leaf that was read; None where nobody wants to know."""

_PATIENCE = 1.0  # seconds before a bar that nobody asked for
_AT_MOST_EVERY = 0.1  # seconds between two pictures in a notebook


def check_progress(progress: Progress) -> None:
    """Nothing, where ``progress`` is what it may be.

    Raises:
        TypeError: it is not.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(
            f"progress is True, False, None or a function of (done, total, name), not {progress!r}"
        )


@contextmanager
def following(decisions: Decisions, progress: Progress) -> Iterator[Advance]:
    """What is to be told of each leaf that is read; what was shown of it goes at the end."""
    if callable(progress):
        yield _Told(Count(decisions), progress).advance
        return
    console = Console(stderr=True)
    if progress is False or (progress is None and not (console.is_terminal or console.is_jupyter)):
        yield None
        return
    bar = Bar(decisions, console, patience=_PATIENCE if progress is None else 0.0)
    try:
        yield bar.advance
    finally:
        bar.stop()


class Count:
    """The bytes of what a load reads, and how many of them it has read.

    Attributes:
        total: bytes in all, of each source leaf that something is made of, once each.
        done: bytes of those that were read.
    """

    def __init__(self, decisions: Decisions) -> None:
        tree = decisions.tree
        self._left: dict[tuple[int, Keys], int] = {}
        for index, row in enumerate(decisions.lines):
            if row is SAME_NAME:
                self._left[0, tree.names[index]] = nbytes(tree.values[index])
            elif isinstance(row, Entry) and row.value is not None:
                for leaf in row.value.leaves():
                    self._left[leaf.index, leaf.name] = nbytes(leaf.spec)
        self.total = sum(self._left.values())
        self.done = 0

    def take(self, source: int, name: Sequence[str]) -> bool:
        """Counts a leaf; whether it is the first time: a tree in memory may be asked twice for one."""
        size = self._left.pop((source, tuple(name)), None)
        if size is None:
            return False
        self.done += size
        return True


class _Told:
    """Tells a function of the caller's."""

    def __init__(self, count: Count, tell: Callable[[int, int, Name], None]) -> None:
        self.count = count
        self.tell = tell

    def advance(self, source: int, name: Sequence[str]) -> None:
        if self.count.take(source, name):
            self.tell(self.count.done, self.count.total, Name(name))


class _Shown(Protocol):
    """A bar that is there to be seen."""

    def show(self, done: int) -> None:
        """Shows how many bytes have been read."""

    def stop(self) -> None:
        """Takes it away."""


class Bar:
    """A bar in bytes, which comes once a load has lasted for as long as ``patience`` says, in seconds."""

    def __init__(self, decisions: Decisions, console: Console, *, patience: float) -> None:
        self.decisions = decisions
        self.console = console
        self.start = time.monotonic()
        self.patience = patience
        self.waiting: list[tuple[int, Sequence[str]]] = []  # read before the bar came; counted then
        self.count: Count | None = None
        self.shown: _Shown | None = None

    def advance(self, source: int, name: Sequence[str]) -> None:
        if self.count is not None:
            self.count.take(source, name)
        else:
            self.waiting.append((source, name))
            if time.monotonic() - self.start < self.patience:
                return
            self.count = Count(self.decisions)
            for leaf in self.waiting:
                self.count.take(*leaf)
            kind = _InNotebook if self.console.is_jupyter else _OnTerminal
            self.shown = kind(self.console, self.count.total)
        assert self.shown is not None  # it comes with the count
        self.shown.show(self.count.done)

    def stop(self) -> None:
        if self.shown is not None:
            self.shown.stop()


class _OnTerminal:
    """Rich's bar."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (TextColumn("loading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self.bar = RichProgress(*columns, console=console, transient=True)
        self.task = self.bar.add_task("loading", total=total)
        self.bar.start()

    def show(self, done: int) -> None:
        self.bar.update(self.task, completed=done)

    def stop(self) -> None:
        self.bar.stop()


class _InNotebook:
    """A bar of HTML: rich's own asks for ipywidgets there, and warns at every picture where it has none."""

    def __init__(self, console: Console, total: int) -> None:
        from IPython.display import display  # there is one where there is a notebook

        self.total = total
        self.next = time.monotonic() + _AT_MOST_EVERY
        self.handle: Any = display(self.picture(0), display_id=True)

    def picture(self, done: int) -> Any:
        from IPython.display import HTML

        said = f"{done / 1e6:,.1f} of {self.total / 1e6:,.1f} MB"
        return HTML(f"loading <progress value='{done}' max='{max(self.total, 1)}'></progress> {said}")

    def show(self, done: int) -> None:
        if done == self.total or time.monotonic() >= self.next:
            self.handle.update(self.picture(done))
            self.next = time.monotonic() + _AT_MOST_EVERY

    def stop(self) -> None:
        from IPython.display import HTML

        self.handle.update(HTML(""))
