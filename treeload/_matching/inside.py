"""What lies in one part of a source, before its own rules: the subtree that is looked at, and no more.

Where a history has steps for the source, they are taken here, over the names of the whole; the subtree is a
part of what comes out of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from treeload._leaves.spec import without_sharding
from treeload._matching.parts import OpenedPart
from treeload._naming.name import Keys, Name
from treeload._ops.expression import Leaf
from treeload._rules.apply import Arrival, RuleFailure
from treeload._versions.migrate import Migrated, Moved, Nothing, Trail, migrate

_NO_WAY = Trail()


@dataclass(frozen=True)
class Inside:
    """What lies in a part, all of it under names within the part.

    Attributes:
        leaves: its leaves.
        absent: slots that hold nothing.
        statics: slots that hold what never loads.
        left: leaves that a step of a history left behind.
        failures: rules of steps that did not do their work.
        failed: names that such a rule was to feed and did not.
    """

    leaves: list[Moved]
    absent: dict[Keys, Nothing]
    statics: list[Keys]
    left: list[Moved] = field(default_factory=list)
    failures: list[RuleFailure] = field(default_factory=list)
    failed: list[tuple[Keys, Arrival]] = field(default_factory=list)


def inside(
    index: int,
    part: OpenedPart,
    table: Mapping[Any, Any],
    absent: Mapping[Any, Nothing],
    statics: Iterable[Keys],
) -> Inside:
    """What lies in a part, the source at ``index``, of what its source holds."""
    leaves = {name: Leaf(index, Name(name), without_sharding(spec)) for name, spec in table.items()}
    if not part.steps:
        return Inside(
            [
                Moved(within, leaf, None, _NO_WAY)
                for name, leaf in leaves.items() if (within := part.name_within(name)) is not None
            ],
            {within: nothing for name, nothing in absent.items() for within in _cut(part, name)},
            [within for name in statics for within in _cut(part, name)],
        )  # fmt: skip
    called = part.called or {}
    moved = migrate(
        part.steps,
        [(called.get(name, name), leaf) for name, leaf in leaves.items()],
        {called.get(name, name): nothing for name, nothing in absent.items()},
        [called.get(name, name) for name in statics],
    )
    return _of_subtree(part, moved)


def _of_subtree(part: OpenedPart, moved: Migrated) -> Inside:
    return Inside(
        [replace(one, name=within) for one in moved.leaves for within in _cut(part, one.name)],
        {within: nothing for name, nothing in moved.absent.items() for within in _cut(part, name)},
        [within for name in moved.statics for within in _cut(part, name)],
        [replace(one, name=within) for one in moved.left for within in _cut(part, one.name)],
        [
            replace(one, name=within)
            for one in moved.failures
            for within in ([None] if one.name is None else _cut(part, one.name))
        ],
        [(within, one) for name, one in moved.failed for within in _cut(part, name)],
    )


def _cut(part: OpenedPart, name: Keys) -> Iterator[Keys]:
    """The name within the part; none where it lies outside."""
    depth = len(part.subtree)
    if tuple(name[:depth]) == part.subtree:
        yield tuple(name[depth:])
