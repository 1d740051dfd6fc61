"""What a source holds, as data and as text: the answer of ``treeload.inspect``.

Owns ``Inventory``. Made from a source's specs; reads no array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treeload._names import Name, NameLike, as_name
from treeload._plan import SourceLeaf, _quantity
from treeload._specs import elements, nbytes, print_spec
from treeload.reports._groups import group
from treeload.sources._base import Source, fence


@dataclass(frozen=True)
class Inventory:
    """Every leaf of a source, without its values.

    Attributes:
        label: what the source is.
        leaves: its leaves, in the order of the file.
        ties: alias → the leaf it shares its array with.
        absent: slots the source knows to be empty: name → None or False.
        metadata: what the checkpoint says about itself.
        version: the version recorded in it; None where there is none.
    """

    label: str
    leaves: tuple[SourceLeaf, ...]
    ties: Mapping[Name, Name]
    absent: Mapping[Name, Any]
    metadata: Mapping[str, Any]
    version: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The printed names, in the order of the file."""
        return tuple(str(leaf.name) for leaf in self.leaves)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, tied ones once."""
        return sum(nbytes(leaf.spec) for leaf in self.leaves if leaf.name not in self.ties)

    @property
    def elements(self) -> int:
        """Elements of all arrays, tied ones once."""
        return sum(elements(leaf.spec) for leaf in self.leaves if leaf.name not in self.ties)

    def __len__(self) -> int:
        return len(self.leaves)

    def __getitem__(self, name: NameLike) -> SourceLeaf:
        """The leaf of that name.

        Raises:
            KeyError: there is none.
        """
        wanted = as_name(name)
        for leaf in self.leaves:
            if leaf.name == wanted:
                return leaf
        raise KeyError(f"{self.label} has no leaf {str(wanted)!r}")

    def to_dict(self) -> dict[str, Any]:
        """The inventory as JSON-like data."""
        return {
            "source": self.label,
            "leaves": [
                {"name": str(leaf.name), "shape": list(leaf.spec.shape), "dtype": str(leaf.spec.dtype),
                 "bytes": nbytes(leaf.spec)}
                for leaf in self.leaves
            ],
            "bytes": self.nbytes,
            "elements": self.elements,
            "ties": {str(alias): str(name) for alias, name in self.ties.items()},
            "absent": {str(name): value for name, value in self.absent.items()},
            "version": self.version,
            "metadata": dict(self.metadata),
        }  # fmt: skip

    def __str__(self) -> str:
        count = len(self.leaves) - len(self.ties)
        lines = [
            f"{count:,} {'leaf' if count == 1 else 'leaves'}, {_quantity(self.elements)} elements, "
            f"{_quantity(self.nbytes)}B in {self.label}"
        ]
        groups = group([(leaf.name, (print_spec(leaf.spec), leaf.name in self.ties)) for leaf in self.leaves])
        width = min(max((len(found.title) for found in groups), default=0), 54)
        if groups:
            lines.append("")
        for found in groups[:_MOST]:
            leaf = self.leaves[found.members[0]]
            tie = f"  = {self.ties[leaf.name]}" if leaf.name in self.ties else ""
            lines.append(f"  {found.title:<{width}}  {print_spec(leaf.spec)}{tie}")
        if len(groups) > _MOST:
            rest = sum(len(found.members) for found in groups[_MOST:])
            lines.append(f"  … and {rest:,} more; .leaves and to_dict() have them all")
        if self.absent:
            shown = group([(name, None) for name in self.absent])
            lines += ["", "absent: " + ", ".join(found.title for found in shown[:8])]
        if self.version is not None:
            lines += ["", f"version: {self.version}"]
        if self.metadata:
            lines += ["", "metadata"]
            for key, value in list(self.metadata.items())[:12]:
                text = repr(value)
                lines.append(f"  {_printable(str(key))}: {text if len(text) <= 60 else text[:57] + '...'}")
        return "\n".join(lines)


_MOST = 60


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def inventory(source: Source) -> Inventory:
    """Everything a source says of itself."""
    with fence(f"{source.label} does not say what it holds"):
        leaves = tuple(SourceLeaf(source.label, Name(name), spec) for name, spec in source.specs().items())
        metadata = dict(source.metadata)
        return Inventory(
            source.label, leaves, dict(source.ties()), dict(source.absent()), metadata, metadata.get("version")
        )
