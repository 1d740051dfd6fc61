"""The sources of a load, opened, and the part of each that is looked at.

Owns how what users give (a path, a tree, a ``Source``, a ``From``, several) becomes opened parts. Under which
names their leaves are offered is decided in ``offers``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from treeload._errors import RuleError
from treeload._formats import open_source
from treeload._naming.name import Keys
from treeload._rules.rule import Rule
from treeload._sources import given
from treeload._sources.memory import MemorySource
from treeload._sources.part import From
from treeload._sources.separated import SeparatedSource
from treeload._sources.source import Source
from treeload._sources.stamp import Stamp
from treeload._versions.version import Dated, Version


@dataclass(frozen=True)
class OpenedPart:
    """One source, the part of it that is looked at, and where that part goes.

    Attributes:
        source: the source.
        subtree: the name of the part; its leaves lose this prefix.
        into: the name of the destination's subtree it feeds; its leaves gain this prefix.
        rules: its own rules, on the names between the two.
        explicit: it was written as a ``From``, so it is expected to feed something.
        by_position: its leaves are to be taken in the order of the destination's.
        called: own name of a leaf → what it goes by within the part, where that is another: without the
            segments of its boxes, or the destination's name at its position. None where no leaf has another.
        numbered: own names of leaves that are called by their place among others: what has no names of its
            own, and what was stored with numbers in their place.
        stated: the versions that its ``From`` states.
        dated: the versions between which it stands, in a load with a history. Where it has steps to take, its
            leaves take them under their own names, before the subtree is looked at.
    """

    source: Source
    subtree: Keys = ()
    into: Keys = ()
    rules: tuple[Rule, ...] = ()
    explicit: bool = False
    by_position: bool = False
    called: Mapping[Keys, Keys] | None = None
    numbered: Set[Keys] = frozenset()
    stated: Stamp | None = None
    dated: Dated | None = None

    @property
    def steps(self) -> tuple[Version, ...]:
        """The changes of the code that its source has not seen."""
        return () if self.dated is None else self.dated.steps

    @property
    def keeps_names(self) -> bool:
        """Whether every leaf is offered to the plan's rules under its own name."""
        return not (self.rules or self.subtree or self.into or self.by_position or self.called or self.steps)

    def name_within(self, own: Keys) -> Keys | None:
        """What a leaf of the source goes by within the part; None for one outside, or without a place."""
        depth = len(self.subtree)
        if tuple(own[:depth]) != self.subtree:
            return None
        if self.by_position:
            return None if self.called is None else self.called.get(own)
        within = tuple(own[depth:])
        return within if self.called is None else self.called.get(own, within)


def opened_parts(src: Any, verb: str) -> list[OpenedPart]:
    """The parts of what a user gives to ``verb`` as a source, or as several.

    Raises:
        SourceError: a source cannot be opened.
        RuleError: options that its source has not; arrays without names that were not asked for by position.
    """
    if isinstance(src, From):
        return [_opened_part(src, verb)]
    several = isinstance(src, (list, tuple)) and bool(src) and not hasattr(src, "_fields")
    if several and any(isinstance(each, (From, Source)) for each in src):
        return [_opened_part(each if isinstance(each, From) else From(each), verb) for each in src]
    if several and all(isinstance(each, (str, os.PathLike)) for each in src):
        return [_opened_part(From(each), verb) for each in src]
    return [_opened_part(From(src), verb, explicit=False)]


def _opened_part(part: From, verb: str, *, explicit: bool = True) -> OpenedPart:
    source = opened_source(
        part.src, verb, item=part.item, separator=part.separator, stated_format=part.format, whole=part.whole
    )
    if source.positional and not part.by_position:
        raise RuleError(
            f"{source.label} holds arrays without names: From(..., by_position=True) takes them in order"
        )
    return OpenedPart(
        source, part.subtree, part.into, part.rules, explicit=explicit, by_position=part.by_position,
        stated=part.version,
    )  # fmt: skip


def opened_source(
    src: Any,
    verb: str,
    *,
    item: str | None = None,
    separator: str | None = None,
    stated_format: str | None = None,
    whole: bool = False,
) -> Source:
    """The source that a path, a tree or a ``Source`` is.

    Raises:
        SourceError: it cannot be opened.
        RuleError: an option that it has not.
        TypeError: it is none of these; ``verb`` was given it.
    """
    given.source(src, verb)
    if isinstance(src, (str, os.PathLike)):
        return open_source(src, item=item, separator=separator, stated_format=stated_format, whole=whole)
    if stated_format is not None:
        raise RuleError(f"From(format={stated_format!r}) is for a path: a tree or a Source has no format")
    if whole:
        raise RuleError("From(whole=True) is for a URL, whose server may give no parts of a file")
    if item is not None:
        raise RuleError(f"From(item={item!r}) is for the path of an Orbax checkpoint")
    if isinstance(src, Source):
        given.says_what_it_holds(src)
        return src if separator is None else SeparatedSource(src, separator)
    return MemorySource(src, separator=separator)
