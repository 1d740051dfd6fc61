"""Which versions of the code's parameters a source was saved at: its stamp.

Owns what a stamp may be, wherever it comes from: a file, a ``Source`` of a user's, a ``From``. What the
numbers mean is a history's affair (``_versions``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

Stamp: TypeAlias = Mapping[str, int]
"""Pattern of a scope → its number, ``""`` for the whole tree; empty where nothing is known."""

WHOLE = ""
UNSTAMPED: Stamp = MappingProxyType({})

_HIGHEST = 2**31 - 1  # a number beyond is no count of changes that somebody wrote
_LONGEST = 4096  # characters of a scope


def checked_stamp(given: Any) -> Stamp:
    """A copy of what is given as a stamp.

    Raises:
        ValueError: it is no mapping from texts to whole numbers of 1 or more; says why.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"a version is a mapping from scopes to numbers, not of type {type(given).__name__}")
    for scope, number in given.items():
        if not isinstance(scope, str) or len(scope) > _LONGEST:
            raise ValueError(f"the scope of a version is a text of at most {_LONGEST:,} characters")
        if not is_version(number):
            raise ValueError(f"a version is a whole number from 1 to {_HIGHEST:,}")
    return dict(given)


def is_version(number: object) -> bool:
    """Whether this can be the number of a version: neither a flag, nor less than 1."""
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= _HIGHEST


def print_stamp(stamp: Stamp) -> str:
    """``3, 2 of **/attn``: the whole, then each scope."""
    whole = [str(stamp[WHOLE])] if WHOLE in stamp else []
    return ", ".join([*whole, *(f"{number} of {scope}" for scope, number in stamp.items() if scope != WHOLE)])
