"""The names of a tree's slots, written out when somebody asks for one.

Most slots lie in dicts of nothing but arrays, and most plans never look at the name of one: two trees that
agree are told by the names of their dicts, and what keys these have.
"""

from __future__ import annotations

from collections.abc import Sequence

from treeload._naming.name import Keys


class Names:
    """Names in the order of the walk.

    Equal to others of the same names; what was written out does not matter.
    """

    __slots__ = ("_dicts", "_written")

    def __init__(self, names: Sequence[Keys] = ()) -> None:
        self._written: list[Keys] = list(names)
        self._dicts: list[tuple[Keys, Sequence[str]]] = []  # behind those: the name of each, and its keys

    def append(self, name: Keys) -> None:
        """One more name."""
        if self._dicts:
            self.written()
        self._written.append(name)

    def extend_below(self, name: Keys, keys: Sequence[str]) -> None:
        """Those of a dict called ``name`` that has nothing but leaves, at these keys."""
        self._dicts.append((name, keys))

    def written(self) -> list[Keys]:
        """All of them, as a list, which is this one's own."""
        if self._dicts:
            names, self._dicts = self._dicts, []
            # Half the time of unpacking.
            self._written += [name + (key,) for name, keys in names for key in keys]  # noqa: RUF005
        return self._written

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Names):
            return NotImplemented
        if self._written == other._written and self._dicts == other._dicts:
            return True
        return self.written() == other.written()

    __hash__ = None  # type: ignore[assignment]  # it grows
