"""What a source holds, as data and as text: the answer of ``treeload.inspect``.

Owns ``Inventory``. Made from a source's specs; reads no array.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

from rich.text import Text

from treeload._leaves.spec import elements, in_bytes, nbytes, print_spec, quantity
from treeload._naming.name import Name, NameLike, as_name, print_name
from treeload._naming.pattern import PatternLike, compile_pattern
from treeload._reports.browser.inventory import inventory_page
from treeload._reports.groups import group, print_names
from treeload._reports.html import html_code, table
from treeload._reports.origins import came_from_lines
from treeload._reports.page import HEAD, MARGIN, QUIET, WIDTH, counted, line, printable, sentence
from treeload._sources.provenance import Provenance
from treeload._sources.source import Source, SourceLeaf, as_source_error, stamp_of, unverifiable
from treeload._sources.stamp import Stamp, print_stamp


@dataclass(frozen=True, repr=False)
class Inventory:
    """Every leaf of a source, without its values.

    Attributes:
        label: what the source is.
        leaves: its leaves, in the order of the file.
        ties: alias → the leaf it shares its array with.
        absent: slots the source knows to be empty: name → None or False.
        left_out: what the saved tree held that is no array, and is not here: name → what it was.
        metadata: what the checkpoint says about itself.
        version: at which versions of the code's parameters it was saved: scope → number, ``""`` for the
            whole; empty where it does not say so.
        provenance: where its leaves came from, as far as that was kept: see ``Source.provenance``.
        unverifiable: the leaves that have no digest, so that damage to them would not be noticed.
    """

    label: str
    leaves: tuple[SourceLeaf, ...]
    ties: Mapping[Name, Name]
    absent: Mapping[Name, Any]
    metadata: Mapping[str, Any]
    version: Stamp = field(default_factory=dict)
    left_out: Mapping[Name, str] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=dict)
    unverifiable: tuple[Name, ...] = ()

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
            "left_out": {str(name): what for name, what in self.left_out.items()},
            "unverifiable": [str(name) for name in self.unverifiable],
            "version": dict(self.version),
            "metadata": dict(self.metadata),
            "provenance": dict(self.provenance),
        }  # fmt: skip

    def matching(self, pattern: PatternLike) -> Inventory:
        """The inventory of the leaves alone that a pattern matches.

        Raises:
            RuleError: a pattern that cannot mean anything.
        """
        matches = compile_pattern(pattern).matches
        leaves = tuple(leaf for leaf in self.leaves if matches(str(leaf.name)))
        names = {leaf.name for leaf in leaves}
        return replace(
            self, leaves=leaves,
            ties={alias: name for alias, name in self.ties.items() if {alias, name} <= names},
            absent={name: value for name, value in self.absent.items() if matches(str(name))},
            left_out={name: what for name, what in self.left_out.items() if matches(str(name))},
            unverifiable=tuple(name for name in self.unverifiable if name in names),
        )  # fmt: skip

    def __str__(self) -> str:
        return self.__rich__().plain

    def __rich__(self) -> Text:
        """The same text for a rich console, with colours where it is a terminal."""
        return Text("\n").join([*self._head(), *self._leaf_lines(), *self._rest()])

    def head(self) -> str:
        """What is said of the source as a whole, above its leaves."""
        return Text("\n").join([*self._head(), Text()]).plain

    def rest(self) -> str:
        """What is said below the leaves: what is absent or was left out, where they came from, metadata."""
        return Text("\n").join(self._rest()).plain

    def _rest(self) -> list[Text]:
        lines: list[Text] = []
        for head, body in self._sections():
            lines += [Text(), line((head, HEAD)), *body]
        return lines

    def _sections(self) -> Iterator[tuple[str, list[Text]]]:
        for head, body in (
            ("absent", self._absent_lines()),
            ("left out by the save", self._left_out_lines()),
            ("came from", came_from_lines(self.provenance)),
            ("metadata", self._metadata_lines()),
        ):
            if body:
                yield head, body

    def __repr__(self) -> str:
        return f"<Inventory: {self._summary()} in {printable(self.label)}>"

    def to_html(self) -> str:
        """What the source holds as a page: one HTML file that fetches nothing, every leaf in a tree."""
        sections = [(title, [each.plain for each in body]) for title, body in self._sections()]
        return inventory_page(self, self._summary(), self._notes(), sections)

    def _repr_html_(self) -> str:
        """The leaves as a table, for notebooks."""
        rows = [tuple(map(html_code, (row.title, row.spec, row.size, row.tied_with))) for row in self._rows()]
        body = table(("name", "spec", "bytes", "tied with"), rows, 0, ".leaves")
        head = f"<b>{escape(self._summary())}</b><br>in {escape(printable(self.label))}"
        return f"<div class='treeload'><p>{head}</p>{body}</div>"

    def _summary(self) -> str:
        leaves = counted(len(self.leaves) - len(self.ties), "leaf", "leaves")
        size = f"{quantity(self.elements)} element{'' if self.elements == 1 else 's'}"
        return f"{leaves}, {size}, {in_bytes(self.nbytes)}"

    def _head(self) -> list[Text]:
        whole = f"{self._summary()} in {printable(self.label)}"
        lines = [line((whole, HEAD))]
        if len(whole) > WIDTH:
            lines = [line((f"{self._summary()} in", HEAD)), line(MARGIN, self.label)]
        return [*lines, *(row for note in self._notes() for row in sentence(note, "", hanging=MARGIN))]

    def _notes(self) -> list[str]:
        version = [printable(f"version {print_stamp(self.version)}")] if self.version else []
        return [*version, *([self._verifiable()] if self.unverifiable else [])]

    def _verifiable(self) -> str:
        if len(self.unverifiable) == len(self.leaves):
            return "cannot be verified: it holds no digests"
        names = print_names(self.unverifiable, most=8)
        return f"cannot be verified, since they have no digests: {names}"

    def _rows(self) -> list[_Row]:
        groups = group([(leaf.name, (print_spec(leaf.spec), leaf.name in self.ties)) for leaf in self.leaves])
        rows = []
        for found in groups:
            leaves = [self.leaves[member] for member in found.members]
            tied = [self.ties[leaf.name] for leaf in leaves if leaf.name in self.ties]
            size = "" if tied else in_bytes(sum(nbytes(leaf.spec) for leaf in leaves))
            tied_with = print_names(tied, most=3)
            rows.append(
                _Row(found.title or "the root", print_spec(leaves[0].spec), size, tied_with, len(leaves))
            )
        return rows

    def _leaf_lines(self) -> list[Text]:
        rows = self._rows()
        shown = rows[:_MOST] if len(rows) > _MOST + 1 else rows
        width = min(max((len(row.title) for row in shown), default=0), _TITLE)
        spec_width = min(max((len(row.spec) for row in shown), default=0), _SPEC)
        size_width = max((len(row.size) for row in shown), default=0)
        lines = [Text()] if shown else []
        for row in shown:
            head = f"{MARGIN}{row.title:<{width}}  {row.spec:<{spec_width}}  {row.size:>{size_width}}"
            tied = f"tied with {row.tied_with}" if row.tied_with else ""
            if len(head.rstrip()) > WIDTH:
                lines += [line(MARGIN, row.title), *sentence(f"{row.spec} {row.size} {tied}", _DEEP)]
            elif tied and len(f"{head}  {tied}") > WIDTH:
                lines += [line(head.rstrip()), *sentence(tied, _DEEP)]
            else:
                lines.append(line(f"{head}  {tied}".rstrip()))
        if len(rows) > len(shown):
            rest = sum(row.count for row in rows[len(shown) :])
            lines.append(line(MARGIN, (f"… and {rest:,} more; .leaves and to_dict() have them all", QUIET)))
        return lines

    def _absent_lines(self) -> list[Text]:
        return sentence(print_names(self.absent, most=8), MARGIN) if self.absent else []

    def _left_out_lines(self) -> list[Text]:
        said = [
            printable(f"{print_name(name)} ({what})") for name, what in list(self.left_out.items())[:_MOST]
        ]
        if len(self.left_out) > len(said):
            said.append(f"and {len(self.left_out) - len(said):,} more")
        return sentence(", ".join(said), MARGIN) if said else []

    def _metadata_lines(self) -> list[Text]:
        lines = []
        for key, value in list(self.metadata.items())[:_MOST_METADATA]:
            text = f"{MARGIN}{printable(str(key))}: {printable(_SHORT.repr(value))}"
            lines.append(line(text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"))
        if len(self.metadata) > _MOST_METADATA:
            rest = len(self.metadata) - _MOST_METADATA
            lines.append(line(MARGIN, (f"… and {rest:,} more; .metadata has them all", QUIET)))
        return lines


@dataclass(frozen=True)
class _Row:
    """One line for leaves that share a spec."""

    title: str
    spec: str
    size: str
    tied_with: str
    count: int


_MOST = 60  # lines of leaves


_MOST_METADATA = 12


_TITLE = 46  # the widest columns that something is aligned behind


_SPEC = 18


_DEEP = " " * 10  # what goes on below a line


_SHORT = reprlib.Repr()  # metadata is whatever a file says it is: of any size, of any depth


_SHORT.maxstring = _SHORT.maxother = WIDTH


def inventory(source: Source) -> Inventory:
    """Everything a source says of itself."""
    with as_source_error(f"{source.label} does not say what it holds"):
        leaves = tuple(SourceLeaf(source.label, Name(name), spec) for name, spec in source.specs().items())
        metadata = dict(source.metadata)
        version = stamp_of(source)
        return Inventory(
            source.label,
            leaves,
            dict(source.ties()),
            dict(source.absent()),
            metadata,
            version,
            dict(source.left_out()),
            dict(source.provenance),
            unverifiable(source),
        )
