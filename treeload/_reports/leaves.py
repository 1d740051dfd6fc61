"""What happens to each leaf, and which source leaves feed nothing: the long lists of a report, grouped.

Owns which leaves are one line and what that line says. Refuses to own how it is laid out (``text``,
``html``), and to repeat what a report has said as a problem before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from treeload._findings.finding import Finding
from treeload._findings.kinds import KINDS
from treeload._leaves.spec import Spec, print_spec
from treeload._naming.name import Keys, Name
from treeload._plans.check import EqualCheck, ZeroCheck
from treeload._plans.decisions import Decisions
from treeload._plans.entry import MISSING, OUTSIDE, SAME_NAME, Action, Entry, Line, Unused
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


@dataclass(frozen=True)
class Lists:
    """What happens to leaves.

    Attributes:
        load: those that load.
        others: those that do not.
        plain: how many load under their own name, unchanged, and are in no row.
        wrong: how many have a problem of their own; they are in no row, since a report has said of them
            what there is to say.
    """

    load: Rows
    others: Rows
    plain: int
    wrong: int


def entry_rows(plan: Decisions, most: int, *, plain: bool) -> Lists:
    """What happens to each leaf, at most ``most`` rows each; ``plain``: those too that load as they are."""
    names = {noted.name for noted in plan.noted_errors}
    noted = (one for one in plan.found if one.verdict == "keep")
    forgiven = {f.name: f for f in noted if isinstance(f, Finding) and isinstance(f.found, Spec)}
    entries: list[Entry] = []
    left_out = wrong = 0
    for index, (name, line) in enumerate(zip(plan.tree.names, plan.lines, strict=True)):
        if is_wrong(name, line, names):
            wrong += 1
        elif line is not None and not plain and _is_plain(line):
            left_out += 1
        elif line is not None:
            entries.append(plan.entry(index))
    groups = group([(entry.name, _facts(entry, forgiven)) for entry in entries])
    groups.sort(key=lambda found: _ORDER.index(entries[found.members[0]].action))

    def row(found: Group) -> Row:
        members = [entries[member] for member in found.members]
        tail = ", ".join(_details(members, forgiven))
        return Row(str(members[0].action), found.title, print_spec(members[0].spec), tail)

    load = [found for found in groups if entries[found.members[0]].action == Action.LOAD]
    others = groups[len(load) :]
    return Lists(_rows(load, row, most), _rows(others, row, most), left_out, wrong)


def _is_plain(line: Line) -> bool:
    """Whether a leaf loads under its own name, unchanged."""
    if isinstance(line, Entry):
        return line.action == Action.LOAD and not any(_details([line], {}))
    return line is SAME_NAME


def _rows(groups: Sequence[Group], row: Callable[[Group], Row], most: int) -> Rows:
    """The first rows; texts are made for these alone. One row more is no longer than to say that it lacks."""
    most = most if len(groups) > most + 1 else most + 1
    return Rows(list(map(row, groups[:most])), sum(len(found.members) for found in groups[most:]))


def is_wrong(name: Keys, line: Line, wrong: Collection[Keys]) -> bool:
    """Whether the leaf is kept because of a problem of its own, or of a node above it."""
    if not wrong:
        return False
    if isinstance(line, Entry):
        if line.action != Action.KEEP or line.optional:
            return False
        return any(_is_at(each, wrong) for each in (line.name, *line.aliases))
    return line is MISSING and _is_at(name, wrong)


def _is_at(name: Keys, nodes: Collection[Keys]) -> bool:
    """Whether a name is one of these nodes, or below one."""
    return name in nodes or any(name[:depth] in nodes for depth in range(len(name)))


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
    noted = [leaf for leaf in plan.left if not _is_at(leaf.at, elsewhere)]
    leaves = [leaf if isinstance(leaf, Unused) else leaf.unused() for leaf in noted]
    groups = group([(leaf.at, (leaf.why, print_spec(leaf.spec), leaf.name == leaf.at)) for leaf in leaves])
    many = len(plan.sources) > 1
    return _rows(
        groups, lambda found: _unused_row(found.title, [leaves[m] for m in found.members], many=many), most
    )


def _told(plan: Decisions) -> set[Keys]:
    """Names of which a finding, a check or a line elsewhere says what happens to the source's leaf."""
    kept = {noted.name for noted in plan.found if noted.verdict == "keep" and noted.name in plan}
    others = {noted.name for noted in plan.found if noted.verdict in ("error", "first")}
    outside = {
        name for line in plan.lines
        if isinstance(line, Entry) and line.action == Action.KEEP and line.reason == OUTSIDE
        for name in (line.name, *line.aliases)
    }  # fmt: skip
    return kept | others | outside | set(plan.pending)


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
