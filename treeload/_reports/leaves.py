"""What happens to each leaf, and which source leaves feed nothing: the long lists of a report, grouped.

Owns which leaves are one line and what that line says. Refuses to own how it is laid out (``text``,
``html``), and to repeat what a report has said as a problem before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from treeload._findings.finding import Finding
from treeload._findings.kinds import KINDS
from treeload._leaves.spec import Spec, print_spec
from treeload._naming.name import Name
from treeload._plans.check import EqualCheck, ZeroCheck
from treeload._plans.decisions import Decisions
from treeload._plans.entry import Action, Entry, Unused
from treeload._reports.groups import Group, group, print_names

_ORDER = list(Action)
_ORDER.sort(key=[Action.LOAD, Action.TIE, Action.ZERO, Action.KEEP].index)


@dataclass(frozen=True)
class Row:
    """One line for leaves of which the same is to be said.

    Attributes:
        action: what happens to them; empty where they are no leaves of the destination.
        title: their names.
        spec: their shape and dtype.
        tail: what else there is to say.
    """

    action: str
    title: str
    spec: str
    tail: str


@dataclass(frozen=True)
class Rows:
    """The first rows of a list, and how many leaves are in the others."""

    shown: list[Row]
    rest: int


def as_they_are(plan: Decisions) -> tuple[int, list[Entry]]:
    """How many leaves load under their own name, unchanged; and all the others."""
    rest = [
        row
        for row in plan.rows
        if isinstance(row, Entry) and not (row.action == Action.LOAD and not any(_details([row], {})))
    ]
    return sum(row is not None for row in plan.rows) - len(rest), rest


def entry_rows(plan: Decisions, of: Sequence[Entry], most: int) -> tuple[Rows, Rows, int]:
    """What happens to leaves: to those that load, to all others, and how many have a problem of their own.

    The third are in no row: a report has said of them what there is to say. At most ``most`` rows each.
    """
    wrong = {finding.name for finding in plan.errors}
    forgiven = {f.name: f for f in plan.findings if f.verdict == "keep" and isinstance(f.found, Spec)}
    entries = [entry for entry in of if not is_wrong(entry, wrong)] if wrong else list(of)
    groups = group([(entry.name, _facts(entry, forgiven)) for entry in entries])
    groups.sort(key=lambda found: _ORDER.index(entries[found.members[0]].action))

    def row(found: Group) -> Row:
        members = [entries[member] for member in found.members]
        tail = ", ".join(_details(members, forgiven))
        return Row(str(members[0].action), found.title, print_spec(members[0].spec), tail)

    load = [found for found in groups if entries[found.members[0]].action == Action.LOAD]
    others = groups[len(load) :]
    return _rows(load, row, most), _rows(others, row, most), len(of) - len(entries)


def _rows(groups: Sequence[Group], row: Callable[[Group], Row], most: int) -> Rows:
    """The first rows; texts are made for these alone. One row more is no longer than to say that it lacks."""
    most = most if len(groups) > most + 1 else most + 1
    return Rows(list(map(row, groups[:most])), sum(len(found.members) for found in groups[most:]))


def is_wrong(entry: Entry, wrong: set[Name]) -> bool:
    """Whether the leaf is kept because of a problem of its own, or of a node above it."""
    if entry.action != Action.KEEP or entry.optional:
        return False
    names = (entry.name, *entry.aliases)
    return any(name[:depth] in wrong for name in names for depth in range(len(name) + 1))


def _facts(entry: Entry, forgiven: Mapping[Name, Finding]) -> Hashable:
    renamed = len(entry.sources) != 1 or entry.sources[0].name != entry.name
    finding = forgiven.get(entry.name) if forgiven else None
    return (
        entry.action, entry.spec.shape, entry.spec.dtype, tuple(map(repr, entry.ops)), _cast(entry),
        entry.reason, len(entry.sources), renamed, bool(entry.aliases), entry.needs_values,
        print_spec(finding.found) if finding is not None else "",
    )  # fmt: skip


def _details(members: Sequence[Entry], forgiven: Mapping[Name, Finding]) -> Iterator[str]:
    first = members[0]
    leaves = [leaf for entry in members for leaf in entry.sources]
    if leaves and any(len(entry.sources) != 1 or entry.sources[0].name != entry.name for entry in members):
        # The order of the parts of a leaf is the order in which it is made of them.
        yield f"<- {print_names([leaf.name for leaf in leaves], most=3, in_order=len(first.sources) > 1)}"
    yield from map(repr, first.ops)
    if first.cast:
        yield _cast(first)
    if first.aliases:
        yield f"tied with {print_names([alias for entry in members for alias in entry.aliases], most=3)}"
    if first.name in forgiven:
        yield f"{first.reason}: {print_spec(forgiven[first.name].found)} in the source"
    elif first.reason:
        yield first.reason


def _cast(entry: Entry) -> str:
    """From which dtype: that of the value after its ops."""
    return f"cast from {entry.value.spec.dtype}" if entry.cast and entry.value is not None else ""


def unused_rows(plan: Decisions, most: int) -> Rows:
    """Source leaves that feed nothing, but for those that the report speaks of elsewhere."""
    elsewhere = _told(plan)
    leaves = [
        leaf for leaf in plan.unused if not any(leaf.at[:n] in elsewhere for n in range(len(leaf.at) + 1))
    ]
    groups = group([(leaf.at, (leaf.why, print_spec(leaf.spec), leaf.name == leaf.at)) for leaf in leaves])
    many = len(plan.sources) > 1
    return _rows(
        groups, lambda found: _unused_row(found.title, [leaves[m] for m in found.members], many=many), most
    )


def _told(plan: Decisions) -> set[Name]:
    """Names whose finding or pending check, printed elsewhere, says what happens to the source's leaf."""
    kept = {f.name for f in plan.findings if f.verdict == "keep" and f.name in plan}
    others = {f.name for f in plan.findings if f.verdict in ("error", "first")}
    return kept | others | set(plan.pending)


def _unused_row(title: str, leaves: Sequence[Unused], *, many: bool) -> Row:
    said = [leaves[0].why]
    if any(leaf.name != leaf.at for leaf in leaves):
        said.append(f"called {print_names([leaf.name for leaf in leaves], most=3)} in the source")
    if many:
        said.append("from " + " and ".join(dict.fromkeys(leaf.source for leaf in leaves)))
    return Row("", title, print_spec(leaves[0].spec), ", ".join(said))


def pending_rows(plan: Decisions, most: int) -> Rows:
    """Leaves whose values are looked at before anything is changed, and what they must be."""
    checks = list({(check.name, check.finding.kind): check for check in plan.checks}.values())

    def row(found: Group) -> Row:
        members = [checks[member] for member in found.members]
        others = [
            leaf.name
            for check in members if isinstance(check, EqualCheck)
            for _, value in check.values
            for leaf in value.leaves() if leaf.name != check.name
        ]  # fmt: skip
        return Row("", found.title, *_must(members[0], others))

    return _rows(group([(check.name, _must(check, ())) for check in checks]), row, most)


def _must(check: ZeroCheck | EqualCheck, others: Sequence[Name]) -> tuple[str, str]:
    """The spec of what is looked at, and what it must be."""
    if isinstance(check, EqualCheck):
        return print_spec(check.values[0][1].spec), f"must equal {print_names(others, most=3)} in the source"
    return print_spec(check.value.spec), f"must be zero: absent {KINDS[check.finding.kind].absent_where}"
