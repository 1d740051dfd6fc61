"""What rules have in common that make one leaf of several, or several of one.

Owns which leaves belong together, and that one reason is said once. Refuses to own what is made of them (the
rules).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from treeload._errors import RuleError
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import Pattern, PatternLike
from treeload._naming.template import Template
from treeload._ops.expression import Expression
from treeload._rules.rule import Made, Matched, plain_pattern


def same_captures(patterns: Sequence[PatternLike], rule: str) -> tuple[Pattern, ...]:
    """Compiled patterns of the leaves that belong together.

    Raises:
        RuleError: none, or their captures differ, so that it cannot be told which belong together.
    """
    compiled = tuple(plain_pattern(pattern, rule) for pattern in patterns)
    if not compiled:
        raise RuleError(f"{rule} takes at least one part")
    for pattern in compiled:
        if set(pattern.captures) != set(compiled[0].captures):
            raise RuleError(
                f"{rule}: {compiled[0].text!r} and {pattern.text!r} have different captures, so it cannot be "
                "told which leaves belong together"
            )
    return compiled


def join_parts(
    taken: Sequence[Matched], sources: Sequence[Pattern], destination: Template,
    make: Callable[[Keys, Sequence[Expression]], Expression],
) -> Iterator[Made]:  # fmt: skip
    """For each new name what ``make`` makes of its parts, which it is given in the order of ``sources``."""
    for name, parts, fault in _parts_by_name(taken, sources, destination):
        names, values = tuple(leaf.name for leaf in parts), [leaf.value for leaf in parts]
        yield Made(name, None, names, fault) if fault else Made.of(name, names, partial(make, name, values))


def _parts_by_name(
    taken: Sequence[Matched], sources: Sequence[Pattern], destination: Template
) -> Iterator[tuple[Keys, list[Matched], str]]:
    """For each new name its parts, in the order of ``sources``; or all that there are, and what is wrong."""
    groups: dict[Keys, dict[int, list[Matched]]] = {}
    for leaf in taken:
        groups.setdefault(destination.expand(leaf.match), {}).setdefault(leaf.pattern, []).append(leaf)
    for name, parts in groups.items():
        everything = [leaf for leaves in parts.values() for leaf in leaves]
        lacking = [pattern.text for which, pattern in enumerate(sources) if which not in parts]
        double = [leaves for leaves in parts.values() if len(leaves) > 1]
        if lacking:
            what = " or ".join(map(repr, lacking))
            beside = print_name(everything[0].name)
            fault = f"{print_name(name)} lacks a part: nothing is called {what} beside {beside}"
            yield name, everything, fault
        elif double:
            two = " and ".join(print_name(leaf.name) for leaf in double[0][:2])
            yield name, everything, f"{two} are the same part of {print_name(name)}"
        else:
            yield name, [parts[which][0] for which in range(len(sources))], ""


def say_once(pieces: Iterable[Made]) -> Iterator[Made]:
    """Pieces of one leaf: what is wrong with all of them is said at the first alone."""
    said: set[str] = set()
    for piece in pieces:
        if piece.fault is None:
            yield piece
            continue
        yield replace(piece, fault=None) if piece.fault in said else piece
        said.add(piece.fault)
