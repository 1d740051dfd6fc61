"""Several leaves that become one: which of them belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from treeload._errors import RuleError
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import Pattern, PatternLike
from treeload._naming.template import Template
from treeload._rules.rule import Matched, plain_pattern

# What the rules have in common.


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


def parts_by_name(
    taken: Sequence[Matched], sources: Sequence[Pattern], destination: Template
) -> Iterator[tuple[Keys, list[Matched], str]]:
    """For each new name its parts, in the order of ``_formats``; or all that there are, and what is wrong."""
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
