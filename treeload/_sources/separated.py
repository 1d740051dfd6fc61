"""Joined names split: what ``From(..., separator="/")`` asks for, of any source and of any tree.

Owns where a key is split, and the refusal where two leaves would then have one name, or one would lie below
the other. Formats whose own names are joined (safetensors, PyTorch, npz) split theirs themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from treeload._errors import SourceError
from treeload._files.digests import Digest
from treeload._leaves.spec import Spec
from treeload._naming.bounds import name_from_file
from treeload._naming.name import Keys, Name, print_name
from treeload._sources.source import Absent, Source


def split_name(name: Keys, separator: str) -> Keys:
    """The name with each of its keys split.

    Examples:
        >>> split_name(("params", "dense/kernel"), "/")
        ('params', 'dense', 'kernel')
    """
    return tuple(part for key in name for part in key.split(separator))


def split_names(names: Iterable[Keys], separator: str, label: str) -> dict[Keys, Keys]:
    """Own name → split name, in their order.

    Raises:
        SourceError: two leaves would have one name, or one would lie below another.
    """
    where = f"{label}, split at {separator!r}"
    try:
        split = {tuple(name): tuple(name_from_file(split_name(name, separator))) for name in names}
    except ValueError as error:
        raise SourceError(f"{where}: there is {error}") from error
    refuse_overlaps(((new, name) for name, new in split.items()), where)
    return split


def refuse_overlaps(new_and_own: Iterable[tuple[Keys, Keys]], where: str) -> None:
    """Nothing, where names that were split are those of one tree.

    Args:
        new_and_own: each name as it was split, and as it is in the file.
        where: what holds them, for messages.

    Raises:
        SourceError: two leaves would have one name, or one would lie below another.
    """
    own: dict[Keys, Keys] = {}
    for new, name in new_and_own:
        if new in own:
            both = f"{print_name(own[new])!r} and {print_name(name)!r}"
            raise SourceError(f"{where}: {both} have one name, {print_name(new)!r}")
        own[new] = name
    for new, name in own.items():
        above = next((own[new[:depth]] for depth in range(len(new)) if new[:depth] in own), None)
        if above is not None:
            raise SourceError(f"{where}: {print_name(name)!r} lies below another leaf, {print_name(above)!r}")


class SeparatedSource(Source):
    """Another source, its names split.

    Args:
        source: the source as it is.
        separator: what its keys are joined with.
    """

    def __init__(self, source: Source, separator: str) -> None:
        self.source = source
        self.separator = separator
        self.label = source.label
        self.metadata = source.metadata
        self.version = source.version
        self.provenance = {
            str(Name(split_name(Name.parse(own), separator))): link for own, link in source.provenance.items()
        }
        self.positional = source.positional
        self.counts_numbers = source.counts_numbers
        self.gives_away = source.gives_away
        self.checks_digests = source.checks_digests
        self.checks_itself = source.checks_itself

    @cached_property
    def _split(self) -> Mapping[Keys, Keys]:
        names = (*self.source.specs(), *self.source.absent(), *self.source.statics())
        return split_names(names, self.separator, self.label)

    @cached_property
    def _own(self) -> Mapping[Keys, Name]:
        return {new: Name(own) for own, new in self._split.items()}

    def _new(self, own: Keys) -> Name:
        return Name(self._split[tuple(own)])

    @property
    def leaf_digests(self) -> Mapping[Name, Digest]:  # type: ignore[override]  # those of the source itself
        return {self._new(own): known for own, known in self.source.leaf_digests.items()}

    def with_digests(self, digests: Mapping[Name, Digest]) -> Source:
        own = {self._own[name]: known for name, known in digests.items()}
        return SeparatedSource(self.source.with_digests(own), self.separator)

    def checksummed(self) -> frozenset[Name]:
        return frozenset(map(self._new, self.source.checksummed()))

    def unchecked(self) -> Source:
        return SeparatedSource(self.source.unchecked(), self.separator)

    def opened_again(self) -> Source | None:
        source = self.source.opened_again()
        return None if source is None else SeparatedSource(source, self.separator)

    def specs(self) -> Mapping[Name, Spec]:
        return {self._new(own): spec for own, spec in self.source.specs().items()}

    def shaped(self) -> Mapping[Any, Any]:
        return {self._new(own): value for own, value in self.source.shaped().items()}

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        for name in requests:
            if name not in self._own:
                raise SourceError(f"{self.label} has no leaf {print_name(name)!r}")
        for own, array in self.source.read({self._own[name]: spec for name, spec in requests.items()}):
            yield self._new(own), array

    def ties(self) -> Mapping[Name, Name]:
        return {self._new(alias): self._new(own) for alias, own in self.source.ties().items()}

    def absent(self) -> Mapping[Name, Absent]:
        return {self._new(own): nothing for own, nothing in self.source.absent().items()}

    def statics(self) -> frozenset[Keys]:
        return frozenset(map(self._new, self.source.statics()))

    def left_out(self) -> Mapping[Name, str]:
        return {Name(split_name(own, self.separator)): what for own, what in self.source.left_out().items()}

    def numbers(self) -> frozenset[Keys]:
        return frozenset(map(self._new, self.source.numbers()))
