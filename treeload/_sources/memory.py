"""A tree in memory as a source: its own leaves, nothing read and nothing moved.

Owns how a tree's slots look to the matcher (numbers as 0-d arrays, statics, absences) and how its
arrays are handed out. Refuses to own how a tree is walked (``_trees``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np

from treeload._errors import SourceError
from treeload._leaves.number import Number
from treeload._leaves.spec import SlotKind, Spec, is_abstract, without_sharding
from treeload._naming.name import Keys, Name, print_name
from treeload._sources.given import source_tree
from treeload._sources.separated import split_names
from treeload._sources.source import Absent, Source
from treeload._trees.names import Names
from treeload._trees.walk import walk


class MemorySource(Source):
    """The leaves of a tree in memory.

    Args:
        tree: any tree. One that holds specs instead of arrays can be planned from, not loaded from.
        separator: at which to split joined keys, as ``"a.b.c"`` at ``"."``.

    Raises:
        NameCollision: two leaves have one name.
        TypeError: it holds arrays where they never load, or tracers.
        SourceError: ``separator`` was given, and two leaves would then have one name.
    """

    label = "a tree in memory"
    gives_away = True
    in_memory = True

    def __init__(self, tree: Any, *, separator: str | None = None) -> None:
        self._tree = walk(tree, arrays_tie=False, mappings=True)
        source_tree(self._tree)
        if separator is not None:
            self._split(separator)

    def _split(self, separator: str) -> None:
        found = self._tree
        aliases = [alias for several in found.aliases.values() for alias in several]
        new = split_names([*found.names, *aliases], separator, self.label)
        found.kept_names = Names([new[name] for name in found.names])
        found.aliases = {
            new[name]: [new[alias] for alias in several] for name, several in found.aliases.items()
        }
        found.shared = {new[name] for name in found.shared}

    def columns(self) -> tuple[Names, list[Any]] | None:
        """Names and arrays side by side, where the tree holds nothing but arrays, none of them shared."""
        found = self._tree
        return None if any(found.kinds) or found.aliases else (found.kept_names, found.values)

    def shaped(self) -> dict[Keys, Any]:
        """Every array by name, and every number as something with shape and dtype; no specs are made."""
        return self._values

    @cached_property
    def _values(self) -> dict[Keys, Any]:
        found = self._tree
        values: dict[Keys, Any] = dict(zip(found.names, found.values, strict=True))
        if any(found.kinds):  # a slot that is no array
            for name, value, kind in zip(found.names, found.values, found.kinds, strict=True):
                if kind == SlotKind.SCALAR:
                    values[name] = Number(value)
                elif kind != SlotKind.ARRAY:
                    del values[name]
        for name, aliases in found.aliases.items():
            for alias in aliases:
                if name in values:
                    values[alias] = values[name]
        return values

    def specs(self) -> Mapping[Name, Spec]:
        return {Name(name): without_sharding(value) for name, value in self._values.items()}

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        for name, request in requests.items():
            array = self.take(name)
            sharding = request.sharding
            if sharding is not None and not (
                isinstance(array, jax.Array) and array.committed and array.sharding == sharding
            ):
                array = jax.device_put(array, sharding)
            yield name, array

    def take(self, name: Keys) -> Any:
        """One array as it lies: a jax array itself, of anything on the host a copy.

        Raises:
            SourceError: there is none of that name, or it holds no values (any more).
        """
        try:
            value = self._values[name]
        except KeyError:
            raise SourceError(f"{self.label} has no leaf {print_name(name)!r}") from None
        if isinstance(value, jax.Array):
            if value.is_deleted():
                raise SourceError(f"{print_name(name)!r} in {self.label} has been deleted or donated")
            return value
        if isinstance(value, Number):
            return value.array()
        if is_abstract(value):
            raise SourceError(
                f"{print_name(name)!r} in {self.label} is abstract: it has a shape and no values"
            )
        return np.array(value)  # its owner may write to it later

    def ties(self) -> Mapping[Name, Name]:
        # Only what an NNX Variable shares was meant to be one; two keys of a dict that hold one array
        # object are two leaves, and one that is not wanted is still unexpected.
        return {
            Name(alias): Name(name)
            for name, aliases in self._tree.aliases.items() if name in self._tree.shared
            for alias in aliases
        }  # fmt: skip

    def absent(self) -> Mapping[Name, Absent]:
        if not any(self._tree.kinds):
            return {}
        return {
            Name(name): value
            for name, value, kind in zip(self._tree.names, self._tree.values, self._tree.kinds, strict=True)
            if kind == SlotKind.ABSENT
        }

    def statics(self) -> frozenset[Keys]:
        """Names of slots that hold no array and no number, and never load."""
        if not any(self._tree.kinds):
            return frozenset()
        return frozenset(
            name
            for name, kind in zip(self._tree.names, self._tree.kinds, strict=True)
            if kind == SlotKind.STATIC
        )
