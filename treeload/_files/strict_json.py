"""JSON out of hostile files: no key twice, no NaN, not nested without end."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from treeload._files.open import brief

_DEEPEST = 64

# --- JSON ----------------------------------------------------------------------------------------


def parse_json(text: str, *, allow_nan: bool = False) -> Any:
    """The value of a JSON text in which no object has a key twice and no number is NaN or infinite.

    A number that is too large for a float is infinite too. Nothing is nested more than 64 levels deep, so
    that whoever goes through the value may do so by recursion.

    Args:
        text: the text.
        allow_nan: let NaN and infinities pass: for what a writer of Python puts in for its users.

    Raises:
        ValueError: anything else, and what is nested too deeply to parse.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=None if allow_nan else _no_constant,
            parse_float=None if allow_nan else _finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST + 1):
        children = (each.values() if isinstance(each, dict) else each for each in level
                    if isinstance(each, (dict, list)))  # fmt: skip
        level = [child for several in children for child in several if isinstance(child, (dict, list))]
        if not level:
            return
    raise ValueError("nested too deeply")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"the number {brief(number)} is larger than any float")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key in counts if counts[key] > 1)
        raise ValueError(f"the key {brief(twice)} is there twice")
    return members


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
