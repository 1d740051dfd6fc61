"""What Orbax and TensorStore print of a failed save, which is raised, once, and need not be printed too.

Owns which of it is kept back, and for how long. All that others log, print or leave unraised passes.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """While the body runs Orbax's threads log nothing; after it failed TensorStore's late writes are no news.

    Each of Orbax's threads logs a failure with its traceback. What TensorStore had still to write is reported
    to the event loop that Orbax has closed by then, and each of these reports fails, unraised: some while the
    body still runs, some a while later. Where several writes failed, Orbax raises the failure of one of them;
    asyncio logs the others, once somebody collects them.
    """
    logger = logging.getLogger("absl")
    before = logger.disabled
    logger.disabled = True
    hook = sys.unraisablehook
    if not isinstance(hook, _WithoutLateReports):
        sys.unraisablehook = _WithoutLateReports(hook)
    of_futures = logging.getLogger("asyncio")
    of_futures.addFilter(_is_news)
    try:
        yield
        # All was written: nothing is to come, nor of a failure before that is long over.
        sys.unraisablehook = hook.hook if isinstance(hook, _WithoutLateReports) else hook
        of_futures.removeFilter(_is_news)
    finally:
        logger.disabled = before


_NOBODY_ASKED = re.compile(r"(Future|Task) exception was never retrieved")


_FAILED = re.compile(r"[A-Z_]+: (Error \w+ing|Failed) ")
"""How TensorStore begins what it says of a failed write: a status of Abseil's, and what it did."""


def _is_news(record: logging.LogRecord) -> bool:
    """Whether asyncio logs another thing than that nobody asked for one of TensorStore's failed writes."""
    error = record.exc_info[1] if record.exc_info else None
    return not (
        _NOBODY_ASKED.match(record.getMessage())
        and isinstance(error, ValueError)
        and _FAILED.match(str(error))
    )


class _WithoutLateReports:
    """A ``sys.unraisablehook`` that hands on all but the failure to tell a closed loop that a write ended."""

    def __init__(self, hook: Callable[[Any], Any]) -> None:
        self.hook = hook

    def __call__(self, unraisable: Any) -> None:
        if not _is_late_report(unraisable):
            self.hook(unraisable)


def _is_late_report(unraisable: Any) -> bool:
    trace = unraisable.exc_traceback
    return (
        unraisable.exc_type is RuntimeError
        and str(unraisable.exc_value) == "Event loop is closed"
        and unraisable.object is None  # called from no Python code
        and trace is not None
        and trace.tb_frame.f_code.co_name == "call_soon_threadsafe"
        and trace.tb_frame.f_back is None
    )
