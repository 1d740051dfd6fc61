"""How many bytes may be on their way at a time: read and not yet handed on, beside what was loaded already.

Owns the number that a load was given. What a format has in flight without one is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_BYTES: ContextVar[int | None] = ContextVar("treeload.budget", default=None)


@contextmanager
def at_most(count: int | None) -> Iterator[None]:
    """While the body runs, so many bytes may be in flight; None: as many as formats hold for sane.

    Raises:
        TypeError: it is no integer.
        ValueError: it is not above zero.
    """
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise TypeError(f"budget= takes a number of bytes, not {count!r}")
    if count is not None and count <= 0:
        raise ValueError(f"budget= takes a number of bytes above zero, not {count}")
    token = _BYTES.set(count)
    try:
        yield
    finally:
        _BYTES.reset(token)


def in_flight(otherwise: int) -> int:
    """The bytes that may be in flight; ``otherwise`` where nobody said."""
    said = _BYTES.get()
    return otherwise if said is None else said
