"""What Orbax and TensorStore print of a failed save, which is raised, once, and need not be printed too.

Owns which of it is kept back, and for how long. All that others log, print or leave unraised passes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """While the body runs Orbax's threads log nothing; after it failed TensorStore's late writes are no news.

    Each of Orbax's threads logs a failure with its traceback. What TensorStore had still to write is reported
    to the event loop that Orbax has closed by then, and each of these reports fails, unraised: some while the
    body still runs, some a while later.
    """
    logger = logging.getLogger("absl")
    before = logger.disabled
    logger.disabled = True
    hook = sys.unraisablehook
    if not isinstance(hook, _WithoutLateReports):
        sys.unraisablehook = _WithoutLateReports(hook)
    try:
        yield
        sys.unraisablehook = hook  # all was written: nothing is to come
    finally:
        logger.disabled = before


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
