"""Plans and errors as text for a terminal of 80 columns or more.

Owns the layout: what is wrong first, grouped; then what happens to each leaf; then what is not used.
Refuses to own facts: everything printed is in the plan, and where a page is not enough the plan's
``to_dict`` has the rest. Text never holds an escape sequence, whatever a checkpoint's names hold.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from treeload._names import Name, print_name
from treeload._patterns import quote
from treeload._plan import Action, Entry, Finding, Plan, SourceLeaf
from treeload._policy import VERDICTS
from treeload._specs import Spec, print_spec
from treeload.reports._groups import Group, group, siblings

WIDTH = 80
_KIND = max(map(len, VERDICTS)) + 2  # the column that names start in, behind the two of the margin
_PER_KIND = 8  # groups of findings shown for one kind
_PER_LIST = 24  # groups of leaves shown in one list


def error_text(plan: Plan, errors: Sequence[Finding]) -> str:
    """The text of a ``LoadError``: a headline, then every kind of problem."""
    many = f"{len(errors):,} problem{'' if len(errors) == 1 else 's'}"
    leaves = f"{len(plan.entries):,} {'leaf' if len(plan.entries) == 1 else 'leaves'}"
    lines = [f"{many} in loading {leaves} from {_labels(plan)}; nothing was changed", ""]
    lines += _findings(errors)
    return "\n".join(lines)


def plan_text(plan: Plan) -> str:
    """The whole report of a plan, the summary first."""
    lines = [*_wrapped(plan.summary(), ""), *_wrapped(f"from {_labels(plan)}", "")]
    errors = plan.errors
    forgiven = [finding for finding in plan.findings if finding.verdict != "error"]
    if errors:
        lines += ["", *_findings(errors)]
    if forgiven:
        lines += ["", "forgiven by the policy", *_findings(forgiven)]
    if plan.pending:
        shown = _list_names(plan.pending)
        lines += ["", "to be checked by value before anything is changed", *_wrapped(shown, "  ")]
    lines += ["", "leaves", *_entries(plan.entries)]
    if plan.unused:
        lines += ["", "not used", *_unused(plan)]
    return "\n".join(lines)


def _labels(plan: Plan) -> str:
    return " and ".join(source.label for source in plan._sources)


# Findings.


def _findings(findings: Sequence[Finding]) -> list[str]:
    lines: list[str] = []
    for kind in VERDICTS:
        same = [finding for finding in findings if finding.kind == kind]
        if same:
            lines += _kind(kind, same)
    return lines


def _kind(kind: str, findings: Sequence[Finding]) -> list[str]:
    lines: list[str] = []
    groups = _grouped(findings)
    for shown, (found, members) in enumerate(groups):
        if shown == _PER_KIND and len(groups) > _PER_KIND + 1:
            rest = sum(len(others) for _, others in groups[shown:])
            lines.append(" " * (_KIND + 2) + f"… and {rest:,} more; plan.findings and to_dict() have them all")
            break
        lines += _finding(kind if shown == 0 else "", found, members)
    return lines


def _grouped(findings: Sequence[Finding]) -> list[tuple[Group, list[Finding]]]:
    """Findings with equal facts as one; siblings that are only missing or unexpected, too."""
    numbered = group([(finding.name, _facts(finding)) for finding in findings])
    pairs = []
    for found in numbered:
        first = findings[found.members[0]]
        plain = first.kind in ("missing", "unexpected") and first.found is None or first.kind == "unexpected"
        pairs.append((found, (first.kind, first.message, bool(first.near)) if plain else found.members))
    return [(found, [findings[member] for member in found.members]) for found, _ in siblings(pairs)]


def _facts(finding: Finding) -> tuple[object, ...]:
    specs = tuple(print_spec(s) if isinstance(s, Spec) else s for s in (finding.expected, finding.found))
    message = "" if finding.kind in ("collision", "tie", "absent") else finding.message
    own = finding.name if finding.kind in ("collision", "tie", "absent", "rule") else ()
    rule = repr(finding.rule) if finding.rule is not None else ""
    return (*specs, message, rule, own, finding.verdict)


def _finding(kind: str, found: Group, findings: Sequence[Finding]) -> list[str]:
    first = findings[0]
    margin = " " * (_KIND + 2)
    head = f"  {kind:<{_KIND}}" + found.title
    specs = _specs(findings, "expected" if first.kind == "missing" else "found")
    lines: list[str] = []
    if first.kind in ("missing", "unexpected"):
        inline = f"{head}   {specs}"
        lines += [inline] if len(inline) <= WIDTH else [head, *_wrapped(specs, margin)]
        said = [first.message] if (first.found if first.kind == "missing" else first.expected) is not None else []
    else:
        lines.append(head)
        if first.expected is not None:
            lines.append(f"{margin}destination  {_side(first.expected)}")
        if first.found is not None:
            lines.append(f"{margin}source       {_side(first.found)}")
        said = [first.message]
    own = _own_names(findings)
    if own:
        lines += _wrapped(f"in the source: {own}", margin)
    for text in said:
        lines += _wrapped(text, margin)
    if first.rule is not None and repr(first.rule) not in first.message:
        lines += _wrapped(f"by {first.rule!r}", margin)
    if any(finding.near for finding in findings):
        lines += _wrapped(f"near: {_near(findings)}", margin)
    if first.verdict == "error":
        for way in _remedies(findings, found):
            lines += _wrapped(way, margin)
    return lines


def _side(side: Spec | str) -> str:
    return side if isinstance(side, str) else print_spec(side)


def _specs(findings: Sequence[Finding], side: str) -> str:
    texts = list(dict.fromkeys(_side(s) for finding in findings if (s := getattr(finding, side)) is not None))
    return ", ".join(texts[:4]) + (", …" if len(texts) > 4 else "")


def _own_names(findings: Sequence[Finding]) -> str:
    """The names in the file, where they are not the names in the destination."""
    leaves = [finding.source for finding in findings if finding.source is not None]
    if not leaves or all(leaf.name == finding.name for leaf, finding in zip(leaves, findings, strict=False)):
        return ""
    return _leaf_names(leaves)


def _leaf_names(leaves: Sequence[SourceLeaf]) -> str:
    groups = group([(leaf.name, None) for leaf in leaves])
    shown = ", ".join(found.text for found in groups[:3])
    return shown + (f", … ({len(leaves):,} leaves)" if len(groups) > 3 else "")


def _near(findings: Sequence[Finding]) -> str:
    names = list(dict.fromkeys(finding.near[0] for finding in findings if finding.near))
    if len(findings) == 1:
        names = list(findings[0].near)
    return _list_names(names, most=3)


def _list_names(names: Sequence[Name], most: int = 12) -> str:
    groups = group([(name, None) for name in names])
    shown = ", ".join(found.title for found in groups[:most])
    return shown + (f", … ({len(names):,} in all)" if len(groups) > most else "")


def _remedies(findings: Sequence[Finding], found: Group) -> list[str]:
    """The ways to go on that are open to all of a group, with the pattern that matches all of it."""
    ways: list[list[str]] = []
    for finding in findings:
        own = f'"{quote(finding.name)}"'
        pattern = own if len(findings) == 1 else f'"{found.pattern}"'
        ways.append([way.replace(own, pattern) for way in finding.remedy.split("; ") if way])
    return [way for way in ways[0] if all(way in others for others in ways)]


# Leaves.


def _entries(entries: Sequence[Entry]) -> list[str]:
    if not entries:
        return ["  none"]
    groups = group([(entry.name, _entry_facts(entry)) for entry in entries])
    shown = groups[:_PER_LIST]
    titles = [f"{entries[found.members[0]].action:<6}{found.title}" for found in shown]
    width = min(max(map(len, titles)), 46)
    lines: list[str] = []
    for title, found in zip(titles, shown, strict=True):
        members = [entries[member] for member in found.members]
        tail = " ".join((print_spec(members[0].spec), *_details(members)))
        line = f"  {title:<{width}}  {tail}"
        lines += [line] if len(line) <= WIDTH else [f"  {title}", *_wrapped(tail, " " * 10)]
    if len(groups) > _PER_LIST:
        rest = sum(len(found.members) for found in groups[_PER_LIST:])
        lines.append(f"  … and {rest:,} more; plan.entries has them all")
    return lines


def _entry_facts(entry: Entry) -> tuple[object, ...]:
    renamed = bool(entry.sources) and (len(entry.sources) > 1 or entry.sources[0].name != entry.name)
    return (
        entry.action, print_spec(entry.spec), tuple(map(repr, entry.ops)), entry.cast, repr(entry.rule), entry.reason,
        len(entry.sources), renamed, bool(entry.aliases), entry.needs_values,
        tuple(print_spec(leaf.spec) for leaf in entry.sources[:1]),
    )  # fmt: skip


def _details(members: Sequence[Entry]) -> Iterator[str]:
    first = members[0]
    leaves = [leaf for entry in members for leaf in entry.sources]
    if leaves and any(len(entry.sources) != 1 or entry.sources[0].name != entry.name for entry in members):
        yield f"<- {_leaf_names(leaves)}"
    for op in first.ops:
        yield repr(op)
    if first.cast:
        yield f"cast from {first.sources[0].spec.dtype}"
    if first.action != Action.LOAD or first.reason:
        yield f"({first.reason})" if first.reason else ""
    if first.aliases:
        yield "= " + ", ".join(str(alias) for entry in members[:2] for alias in entry.aliases[:3])


def _unused(plan: Plan) -> list[str]:
    leaves = plan.unused
    groups = group([(leaf.at, (leaf.why, print_spec(leaf.spec))) for leaf in leaves])
    lines: list[str] = []
    for found in groups[:_PER_LIST]:
        members = [leaves[member] for member in found.members]
        own = "" if all(leaf.name == leaf.at for leaf in members) else f" (in the source: {_leaf_names(members)})"
        lines += _wrapped(f"{found.title}   {print_spec(members[0].spec)}{own}: {members[0].why}", "  ", deeper=4)
    if len(groups) > _PER_LIST:
        rest = sum(len(found.members) for found in groups[_PER_LIST:])
        lines.append(f"  … and {rest:,} more; plan.unused has them all")
    return lines


def _wrapped(text: str, margin: str, deeper: int = 2) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=margin, subsequent_indent=margin + " " * deeper, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def printed(name: Name) -> str:
    """A name as reports print it; the root has a word of its own there."""
    return print_name(name) or "the root"
