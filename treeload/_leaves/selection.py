"""Which part of a tree is meant: a pattern over names, several, or a predicate.

Owns how such an argument is read, for ``scope`` and wherever else patterns come in. Refuses to own what
a pattern means (``_naming.pattern``) and what happens outside of a scope (``_matching``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from treeload._errors import RuleError
from treeload._leaves.spec import Spec, without_sharding
from treeload._naming.name import Name, print_name
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern

Patterns: TypeAlias = "PatternLike | Iterable[PatternLike]"


Predicate: TypeAlias = Callable[[Name, Spec], bool]


Scope: TypeAlias = "Patterns | Predicate | None"


def compile_patterns(given: Patterns, what: str) -> tuple[Pattern, ...]:
    """One pattern or several, compiled. A ``Name`` is one; any other tuple is several.

    Raises:
        RuleError: a pattern that cannot mean anything, or something that is none; ``what`` took it.
    """
    if isinstance(given, (str, re.Pattern, Name)):
        return (compile_pattern(given),)
    if isinstance(given, Iterable):
        return tuple(map(compile_pattern, given))
    raise RuleError(f"{what}; not {given!r}")


@dataclass(frozen=True)
class Within:
    """A part of a tree, by patterns or by a predicate."""

    patterns: tuple[Pattern, ...]
    predicate: Predicate | None = None

    @classmethod
    def of(cls, scope: Scope) -> Within | None:
        """What a user's ``scope`` means; None where nothing is left out.

        Raises:
            RuleError: a scope that cannot mean anything.
        """
        if scope is None:
            return None
        if callable(scope):
            return cls((), scope)
        return cls(compile_patterns(scope, "scope is a pattern, several, or a predicate on (name, spec)"))

    def holds(self, name: tuple[str, ...], spec: Any) -> bool:
        """Whether the leaf of this name and spec lies within."""
        if self.predicate is not None:
            return bool(self.predicate(Name(name), without_sharding(spec)))
        printed = print_name(name)
        return any(pattern.matches(printed) for pattern in self.patterns)
