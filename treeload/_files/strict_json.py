"""JSON out of hostile files: no key twice, no NaN, not nested without end."""

from __future__ import annotations

import json
from typing import Any

from treeload._files.open import brief

# --- JSON ----------------------------------------------------------------------------------------


def parse_json(text: str, *, allow_nan: bool = False) -> Any:
    """The value of a JSON text in which no object has a key twice and no number is NaN or infinite.

    Args:
        text: the text.
        allow_nan: let NaN and infinities pass: for what a writer of Python puts in for its users.

    Raises:
        ValueError: anything else, and what is nested too deeply to parse.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=None if allow_nan else _no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in members if keys.count(key) > 1)
        raise ValueError(f"the key {brief(twice)} is there twice")
    return members


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
