"""What differs between two trees or checkpoints, as data and as text: the answer of ``treeload.diff``.

Owns ``Diff``. What is in it was found by ``_checkpoints.compare``; here no array is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from rich.text import Text

from treeload._leaves.spec import Spec, elements, nbytes, print_spec
from treeload._naming.name import Keys, Name, NameLike, as_name
from treeload._reports.browser.diff import Compared, diff_page
from treeload._reports.browser.leaf import Leaf
from treeload._reports.groups import Group, group
from treeload._reports.html import html_code, html_text, table
from treeload._reports.page import HEAD, MARGIN, WIDTH, counted, line, sentence
from treeload._reports.renamed import as_many_shapes, one_prefix
from treeload._rules.rename import Rename

Kind: TypeAlias = Literal["only in a", "only in b", "shape", "dtype", "values", "equal"]


@dataclass(frozen=True, slots=True)
class LeafDiff:
    """What differs at one name.

    Attributes:
        name: the leaf's name.
        a, b: its shape and dtype on each side; None where that side has no such leaf.
        differing: how many elements differ; None where they cannot be compared one by one.
        largest: the largest absolute difference; NaN where one side is NaN and the other is not.
        relative: the largest difference relative to the larger of its two elements, from 0 to 2.
    """

    name: Name
    a: Spec | None
    b: Spec | None
    differing: int | None = None
    largest: float | None = None
    relative: float | None = None

    @property
    def kind(self) -> Kind:
        """What there is to say, the first of it: a missing leaf, then shapes, dtypes, values."""
        if self.a is None:
            return "only in b"
        if self.b is None:
            return "only in a"
        if self.a.shape != self.b.shape:
            return "shape"
        if self.a.dtype != self.b.dtype:
            return "dtype"
        return "values" if self.differing else "equal"


@dataclass(frozen=True, repr=False)
class Diff:
    """What differs between two trees or checkpoints.

    Attributes:
        a, b: what was compared.
        leaves: every leaf, those of ``a`` in its order and then those that only ``b`` has.
        by_rules: whether the names of ``a`` are those that rules made.
    """

    a: str
    b: str
    leaves: tuple[LeafDiff, ...]
    by_rules: bool = False

    @property
    def equal(self) -> bool:
        """Whether both have the same leaves with the same shapes, dtypes and values; NaN equals NaN."""
        return all(leaf.kind == "equal" for leaf in self.leaves)

    @property
    def only_in_a(self) -> tuple[LeafDiff, ...]:
        """Leaves that ``b`` lacks."""
        return self._of("only in a")

    @property
    def only_in_b(self) -> tuple[LeafDiff, ...]:
        """Leaves that ``a`` lacks."""
        return self._of("only in b")

    @property
    def shapes(self) -> tuple[LeafDiff, ...]:
        """Leaves whose shapes differ; their values are not compared."""
        return self._of("shape")

    @property
    def dtypes(self) -> tuple[LeafDiff, ...]:
        """Leaves of one shape whose dtypes differ; numbers are compared all the same."""
        return self._of("dtype")

    @property
    def values(self) -> tuple[LeafDiff, ...]:
        """Leaves of one shape and dtype whose values differ."""
        return self._of("values")

    def _of(self, kind: Kind) -> tuple[LeafDiff, ...]:
        return tuple(leaf for leaf in self.leaves if leaf.kind == kind)

    @cached_property
    def _by_name(self) -> dict[Name, LeafDiff]:
        return {leaf.name: leaf for leaf in self.leaves}

    def __getitem__(self, name: NameLike) -> LeafDiff:
        """What differs at one name.

        Raises:
            KeyError: neither side has it.
        """
        try:
            return self._by_name[as_name(name)]
        except KeyError:
            raise KeyError(f"neither {self.a} nor {self.b} has a leaf {str(as_name(name))!r}") from None

    def __len__(self) -> int:
        return len(self.leaves)

    def __iter__(self) -> Iterator[LeafDiff]:
        return iter(self.leaves)

    def __bool__(self) -> bool:
        """Always true: ask ``equal``, since "if diff" could be read either way."""
        return True

    def to_dict(self) -> dict[str, Any]:
        """The whole as JSON-like data; what JSON has no number for (NaN, infinity) is a string."""
        return {
            "a": self.a,
            "b": self.b,
            "equal": self.equal,
            "leaves": [
                {"name": str(leaf.name), "kind": leaf.kind, "a": _spec(leaf.a), "b": _spec(leaf.b),
                 "differing": leaf.differing, "largest": _number(leaf.largest),
                 "relative": _number(leaf.relative)}
                for leaf in self.leaves
            ],
        }  # fmt: skip

    def summary(self) -> str:
        """One line: ``3 of 12 leaves differ: 1 only in a, 2 in values``."""
        parts = [
            f"{len(several):,} {words}"
            for several, words in (
                (self.only_in_a, "only in a"), (self.only_in_b, "only in b"), (self.shapes, "in shape"),
                (self.dtypes, "in dtype"), (self.values, "in values"),
            ) if several
        ]  # fmt: skip
        if not parts:
            return f"{counted(len(self.leaves), 'leaf', 'leaves')}, no difference"
        many = sum(leaf.kind != "equal" for leaf in self.leaves)
        differ = "differs" if len(self.leaves) == 1 else "differ"
        return f"{many:,} of {counted(len(self.leaves), 'leaf', 'leaves')} {differ}: {', '.join(parts)}"

    @property
    def renamed(self) -> Rename | None:
        """The rule after which both sides have the same names and specs, where one prefix makes it.

        None where rules were given: a further one would be over names that these took already.
        """
        return None if self.by_rules else one_prefix(*self._apart)

    @property
    def _apart(self) -> tuple[dict[Keys, Spec], dict[Keys, Spec], list[Keys]]:
        """What only the one side has, what only the other, and the names that both have."""
        a = {tuple(leaf.name): leaf.a for leaf in self.leaves if leaf.a is not None and leaf.b is None}
        b = {tuple(leaf.name): leaf.b for leaf in self.leaves if leaf.b is not None and leaf.a is None}
        return a, b, [tuple(leaf.name) for leaf in self.leaves if leaf.a is not None and leaf.b is not None]

    def _hint(self) -> str:
        """What to do where the two may be one tree under other names; else empty."""
        rule = self.renamed
        if self.by_rules:
            return ""
        if rule is not None:
            return f"the names differ in how they begin, and in nothing else: rules=[{rule!r}]"
        a, b, both = self._apart
        fewer = min(len(a), len(b))
        alike = as_many_shapes(a, b)
        if len(both) > fewer or 2 * alike <= fewer:
            return ""
        under = "few leaves are" if both else "nothing is"
        return (
            f"{under} under one name, and {alike:,} of {counted(fewer, 'leaf', 'leaves')} have a shape that "
            "the other side has, too: rules=[Rename(...), ...] say how a is called in b"
        )

    def _by_kind(self) -> Iterator[tuple[str, tuple[LeafDiff, ...]]]:
        """What differs, under the titles of the report."""
        for title, leaves in (
            ("only in a", self.only_in_a), ("only in b", self.only_in_b), ("other shapes", self.shapes),
            ("other dtypes", self.dtypes), ("other values", self.values),
        ):  # fmt: skip
            if leaves:
                yield title, leaves

    def __str__(self) -> str:
        return self.__rich__().plain

    def __rich__(self) -> Text:
        """The same text for a rich console, with colours where it is a terminal."""
        lines = sentence(self.summary(), "", hanging=MARGIN, style=HEAD)
        lines += [line(MARGIN, "a  ", self.a), line(MARGIN, "b  ", self.b)]
        for title, leaves in self._by_kind():
            lines += [Text(), line((title, HEAD)), *map(line, _listed(leaves))]
        if hint := self._hint():
            lines += [Text(), *sentence(hint, "")]
        return Text("\n").join(lines)

    def __repr__(self) -> str:
        return f"<Diff: {self.summary()}>"

    def to_html(self) -> str:
        """The report as a page: one HTML file that fetches nothing, every leaf in a tree."""
        sections = []
        for title, leaves in self._by_kind():
            rows, rest = _rows(leaves)
            sections.append((title, rows, rest))
        return diff_page(Compared(self.a, self.b, self.summary(), _page(self), sections, str(self)))

    def _repr_html_(self) -> str:
        """The differences as tables, for notebooks."""
        head = (
            f"<p><b>{html_text(self.summary())}</b><br>a: {html_text(self.a)}<br>b: {html_text(self.b)}</p>"
        )
        parts = [f"<div class='treeload'>{head}"]
        for title, leaves in self._by_kind():
            rows, rest = _rows(leaves)
            cells = [(html_code(name), html_code(facts), html_text(values)) for name, facts, values in rows]
            parts += [f"<p>{title}</p>", table(("name", "spec", "how far apart"), cells, rest, ".leaves")]
        return "".join((*parts, "</div>"))


_MOST = 24  # lines of one kind


_ROWS = 200  # rows of one kind in HTML


def _listed(leaves: Sequence[LeafDiff]) -> Iterator[str]:
    groups = _grouped(leaves)
    shown = groups[:_MOST]
    width = min(max(len(found.title) for found in shown), 46)
    for found in shown:
        members = [leaves[member] for member in found.members]
        parts = [f"  {found.title:<{width}}", _facts(members[0]), _values(members)]
        # What does not fit is broken off from the right, column by column.
        for first in (3, 2, 1):
            head = "  ".join(parts[:first]).rstrip()
            if len(head) <= WIDTH or first == 1:
                yield head
                if rest := "  ".join(filter(None, parts[first:])):
                    yield f"    {rest}"
                break
    if len(groups) > _MOST:
        left = sum(len(found.members) for found in groups[_MOST:])
        yield f"  … and {left:,} more; .leaves and to_dict() have them all"


def _rows(leaves: Sequence[LeafDiff]) -> tuple[list[tuple[str, str, str]], int]:
    """Names, specs and how far apart, in groups; and how many leaves are in no row."""
    groups = _grouped(leaves)
    rows = []
    for found in groups[:_ROWS]:
        members = [leaves[member] for member in found.members]
        rows.append((found.title or "the root", _facts(members[0]), _values(members)))
    return rows, sum(len(found.members) for found in groups[_ROWS:])


def _page(found: Diff) -> list[Leaf]:
    """The leaves as the page has them."""
    return [
        Leaf(
            leaf.name, leaf.kind, _facts(leaf),
            max(nbytes(spec) for spec in (leaf.a, leaf.b) if spec is not None),
            facts=(*_sides(leaf), ("differ", _values([leaf]))),
        )
        for leaf in found.leaves
    ]  # fmt: skip


def _sides(leaf: LeafDiff) -> Iterator[tuple[str, str]]:
    """What each side has, where that is not the same."""
    if leaf.kind not in ("equal", "values"):
        for side, spec in (("a", leaf.a), ("b", leaf.b)):
            yield side, "nothing" if spec is None else print_spec(spec)


def _grouped(leaves: Sequence[LeafDiff]) -> list[Group]:
    return group([(leaf.name, (_facts(leaf), bool(leaf.differing))) for leaf in leaves])


def _facts(leaf: LeafDiff) -> str:
    a, b = ("" if spec is None else print_spec(spec) for spec in (leaf.a, leaf.b))
    return f"{a} -> {b}" if a and b and a != b else a or b


def _values(members: Sequence[LeafDiff]) -> str:
    """How far the values of these leaves are apart, in words; empty where they are not."""
    compared = [leaf for leaf in members if leaf.differing]
    if not compared:
        return ""
    differing = sum(leaf.differing or 0 for leaf in compared)
    total = sum(elements(leaf.a) for leaf in members)
    said = f"{differing:,} of {total:,}"
    worst = max(compared, key=lambda leaf: math.inf if _is_nan(leaf.largest) else leaf.largest or 0.0)
    if worst.largest is not None:
        said += f", max |Δ| {worst.largest:.3g}"
        relative = [leaf.relative for leaf in compared if leaf.relative is not None]
        if relative and not any(map(_is_nan, relative)):
            said += f", relative {max(relative):.2g}"
    return said


def _is_nan(number: float | None) -> bool:
    return number is not None and math.isnan(number)


def _spec(spec: Spec | None) -> Any:
    return None if spec is None else {"shape": list(spec.shape), "dtype": str(spec.dtype)}


def _number(number: float | None) -> float | str | None:
    return number if number is None or math.isfinite(number) else str(number)
