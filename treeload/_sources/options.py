"""Options that something has not: what other loaders call so, and what says the same here.

Owns the words for a keyword that was made up, or brought along. Refuses to own the options there are: whoever
has them says which.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


OF_POLICY = (
    "missing", "unexpected", "shape", "dtype", "structure", "tie", "collision", "rule", "casting",
    "absent_is_zero",
)  # fmt: skip
"""Settings of a ``Policy`` that are easily given to the load itself."""


OF_SOURCE = ("subtree", "into", "item", "separator", "by_position", "format", "version", "whole")
"""Options of a ``From`` that are, likewise."""


_MAY_BE_MISSING = (
    "what may be missing is said by name, policy=Policy(missing={...}), and what may be left over by "
    "policy=Policy(unexpected={...})"
)


_BY_RULES = "how names and layouts change is said by rules=[Rename(...), ...]"


_ELSEWHERE = {
    **dict.fromkeys(
        ("strict", "partial", "partial_load", "allow_missing", "ignore_missing", "allow_partial",
         "ignore_unexpected", "allow_unexpected"),
        _MAY_BE_MISSING,
    ),
    **dict.fromkeys(("transforms", "mapping", "rename", "renames", "key_map", "map", "transpose"), _BY_RULES),
    **dict.fromkeys(
        ("filter", "only", "exclude", "include", "skip"), "a part of the destination is said by scope=..."
    ),
    "history": "a history is given to plan, load or update",
    "policy": "a policy is given to plan, load or update",
}  # fmt: skip


def refuse_unknown(given: Iterable[str], verb: str, has: Collection[str], *, src: Any = None) -> None:
    """Nothing, where all the options that ``verb`` was given are among those that it has.

    ``src`` is the source that it was given.

    Raises:
        TypeError: one is not; it says what to write instead.
    """
    for option in given:
        if option not in has:
            raise TypeError(f"{verb}() has no {option}=: {_instead(option, has, src)}")


def without_unknown(verb: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator for an ``__init__``: options that it has not are said as ``refuse_unknown`` has it."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        has = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def asked(*args: _P.args, **options: _P.kwargs) -> _R:
            if not options.keys() <= set(has):
                refuse_unknown(options, verb, has[1:], src=args[1] if len(args) > 1 else options.get("src"))
            return function(*args, **options)

        return asked

    return decorate


def _instead(option: str, has: Collection[str], src: Any) -> str:
    if option == "step":
        step = os.path.join(os.fspath(src), "15") if isinstance(src, (str, os.PathLike)) else "mgr/15"
        return f"a step is opened by its own path, such as {step!r}"
    if option in OF_POLICY and "policy" in has:
        return f"it is said by the policy, policy=Policy({option}=...)"
    if option in OF_SOURCE and "policy" in has:
        return f"it is said of the source, From(src, {option}=...)"
    if option in ("sharding", "shardings"):
        return "values go to where the destination's lie; load(..., sharding=...) gives a new tree"
    if option in _ELSEWHERE:
        return _ELSEWHERE[option]
    near = difflib.get_close_matches(option, has, 1)
    return f"did you mean {near[0]}=?" if near else f"it has {', '.join(f'{each}=' for each in has)}"
