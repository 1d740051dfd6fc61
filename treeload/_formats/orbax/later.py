"""An array that is made when it is looked at, and let go then.

Owns how it stands among the leaves of a save, of which Orbax wants arrays: as an array of its shape and dtype
without memory of its own. Its elements are not its values, which ``made`` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from treeload._leaves.spec import Spec


class Later(np.ndarray[Any, Any]):
    """What stands for an array until it is written."""

    make: Callable[[], Any]


def later(spec: Spec, make: Callable[[], Any]) -> Later:
    """What stands for the array of this spec that ``make`` gives, each time that it is asked."""
    found = np.broadcast_to(np.zeros((), spec.dtype), spec.shape).view(Later)
    found.make = make
    return found


def made(value: Any) -> Any:
    """The value itself."""
    return np.asarray(value.make()) if isinstance(value, Later) else value
