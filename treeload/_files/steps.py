"""What the name of a step's directory or file says: which series it is of, and its number.

The number is all that follows the prefix which the series has in common, read as a number, so that
``checkpoint_0.8 < checkpoint_0.85 < checkpoint_0.9`` and ``run_-3 < run_-2``. A name that ends in digits and
cannot be read so is refused, and never ordered by its last digits. Knows no format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from treeload._errors import SourceError

_DIGITS = r"[0-9]{1,18}(?:\.[0-9]{1,18})?"


_STEP = re.compile(
    r"(?P<series>.*?)"
    # Not in the middle of a number: of 1.2.3, of 12e4 behind a letter, of more digits than can be meant.
    r"(?<![0-9])(?<![0-9]\.)(?<![0-9][eE])(?<![0-9][eE][+-])"
    r"(?P<number>"
    # Behind a sign of punctuation (or nothing) a minus is the number's; behind a letter it separates.
    rf"(?<![A-Za-z0-9])-?{_DIGITS}(?:[eE][+-]?[0-9]{{1,3}})?"
    rf"|(?<=[A-Za-z]){_DIGITS}(?:[eE][+-][0-9]{{1,3}})?"
    r")"
)


@dataclass(frozen=True)
class Step:
    """What a step's name says: ``*`` stands in ``series`` where the number does."""

    series: str
    number: int | float


def is_numbered(name: str) -> bool:
    """Whether a name ends in a digit, so that it means to say a step."""
    return name[-1:].isascii() and name[-1:].isdigit()


def step_of(name: str, suffix: str = "") -> Step | None:
    """The step that ``name`` says; None where it says none, or one that cannot be read.

    Examples:
        >>> step_of("checkpoint_0.85")
        Step(series='checkpoint_*', number=0.85)
        >>> step_of("ckpt-9"), step_of("run_-3")
        (Step(series='ckpt-*', number=9), Step(series='run_*', number=-3))
        >>> step_of("params_100.msgpack", ".msgpack")
        Step(series='params_*.msgpack', number=100)
        >>> step_of("best"), step_of("model_1.2.3")
        (None, None)
    """
    match = _STEP.fullmatch(name.removesuffix(suffix))
    if match is None:
        return None
    text = match["number"]
    number = int(text) if text.removeprefix("-").isdigit() else float(text)
    return Step(f"{match['series']}*{suffix}", number) if math.isfinite(number) else None


def in_order(steps: Mapping[str, Step | None], where: str) -> list[tuple[str, Step]]:
    """The names and what they say, from the first step to the latest.

    Args:
        steps: each name in a directory that means to say a step, and the step.
        where: the directory, for messages.

    Raises:
        SourceError: a number that cannot be read, several series, or one number twice: which is the latest
            cannot be told.
    """
    unreadable = [name for name, step in steps.items() if step is None]
    if unreadable:
        raise SourceError(
            f"{where} holds {_listed(unreadable)}, whose step cannot be read as a number, so which of "
            f"{_listed(steps)} is the latest cannot be told; give the path of one"
        )
    read = [(name, step) for name, step in steps.items() if step is not None]
    if len({step.series for _, step in read}) > 1:
        raise SourceError(
            f"{where} holds steps of several series: {_listed(steps)}; give each its own directory, or the "
            "path of one"
        )
    read.sort(key=lambda entry: entry[1].number)
    for (name, step), (other, next_step) in pairwise(read):
        if step.number == next_step.number:
            raise SourceError(f"{where} holds {_listed((name, other))}, which say the same step")
    return read


def _listed(names: Mapping[str, Step | None] | list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(repr, sorted(names)))
