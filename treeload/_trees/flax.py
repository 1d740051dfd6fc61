"""Flax's classes, where somebody has imported Flax: it is not imported for trees that hold nothing of it.

Whoever has an object of a class of Flax's has imported Flax, so a class that is not there has no objects.
"""

from __future__ import annotations

import sys
from typing import Any


def flax_module(name: str) -> Any:
    """A module of Flax's, ``"nnx"`` say; only for what is done with an object of it."""
    return sys.modules[f"flax.{name}"]


def flax_classes(module: str, *names: str) -> tuple[type, ...]:
    """Classes of a module of Flax's; none where it has not been imported."""
    found = sys.modules.get(f"flax.{module}")
    return tuple(cls for name in names if isinstance(cls := getattr(found, name, None), type))


def is_flax(value: Any, module: str, *names: str) -> bool:
    """Whether a value is of one of these classes."""
    return isinstance(value, flax_classes(module, *names))
