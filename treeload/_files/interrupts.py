"""Ctrl-C, and every other signal that a Python function handles, held back until a thing is whole.

Owns when they arrive: never in the middle. A ``KeyboardInterrupt`` out of the middle of a write would leave
the threads of the writer at work in a folder that is being removed, and the process waiting for them.

A signal that kills (SIGKILL, or SIGTERM where no function handles it) is not held back: what is written is
such that a kill at any moment loses nothing (``replace``).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

_Handler: TypeAlias = Callable[[int, FrameType | None], Any]


# What the processor says of an instruction cannot wait until the next one.
_FAULTS = frozenset(
    getattr(signal, name) for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL") if hasattr(signal, name)
)


class _HoldBack:
    """Stands in for the handlers of signals, and notes what comes until it is told to let them pass."""

    def __init__(self) -> None:
        self.before: dict[int, _Handler] = {}
        self.waiting: list[int] = []
        self.passes = False

    def install(self) -> None:
        for number in sorted(signal.valid_signals() - _FAULTS):
            handler = signal.getsignal(number)
            if callable(handler):
                self.before[number] = handler
                signal.signal(number, self.take)

    def take(self, number: int, frame: FrameType | None) -> Any:
        if not self.passes:
            self.waiting.append(number)
            return None
        return self.before[number](number, frame)

    def release(self) -> None:
        # First of all, and in one step: an interrupt may break this off, and then finds a way through.
        self.passes = True
        for number, handler in self.before.items():
            if signal.getsignal(number) == self.take:
                signal.signal(number, handler)
        _deliver(list(dict.fromkeys(self.waiting)))


def _deliver(numbers: list[int]) -> None:
    """Sends the signals again, all of them although a handler raises."""
    if not numbers:
        return
    try:
        signal.raise_signal(numbers[0])
    finally:
        _deliver(numbers[1:])


@contextmanager
def held_back() -> Iterator[None]:
    """While the body runs, no signal's handler does: those that came are called when it has ended.

    Outside of the main thread nothing is held back, since handlers run in the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hold = _HoldBack()
    try:
        hold.install()
        yield
    finally:
        hold.release()
