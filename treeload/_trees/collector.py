"""Python's garbage collector, kept quiet while a great many objects are made of which none is garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collections() -> Iterator[None]:
    """Keeps Python's cyclic garbage collector quiet: a plan makes many objects, none of them garbage.

    Each collection would walk all that was made so far: half the time of planning 40,000 leaves.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
