"""Plans and errors as text for a terminal of 80 columns or more.

Owns the layout: what is wrong first, grouped; then what happens to each leaf; then what is not used.
Refuses to own facts: everything printed is in the plan, and where a page is not enough the plan's
``to_dict`` has the rest. Text never holds an escape sequence, whatever a checkpoint's names hold; the
``rich`` forms are the same lines with colours, which only a terminal shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from treeload._findings.finding import Finding
from treeload._findings.kinds import KINDS
from treeload._plans.decisions import Decisions
from treeload._plans.entry import Action
from treeload._reports.leaves import Row, Rows, entry_rows, pending_rows, unused_rows
from treeload._reports.page import (
    CODE,
    HEAD,
    MARGIN,
    QUIET,
    WIDTH,
    WRONG,
    code,
    counted,
    labelled,
    line,
    printable,
    sentence,
)
from treeload._reports.problems import Problem, problems, ways

_KIND = max(map(len, KINDS)) + 2  # the column of kinds; names stand behind it


_INDENT = MARGIN + " " * _KIND


_LABEL = len("destination") + 2


_TITLE = 46  # the widest column of names that something is aligned behind


_SPEC = 18  # likewise of specs


_PAGE = 44  # lines that the problems of a plan take, about


_DEEP = " " * 10  # what goes on below a line of a list


_WHOLE = 4  # problems from which on it helps to be told what they have in common


_LIST = 24  # lines of leaves, or of groups of them


def error_text(plan: Decisions, errors: Sequence[Finding]) -> str:
    """The text of a ``LoadError``: a headline, every kind of problem, and that nothing was changed."""
    return error_rich(plan, errors).plain


def plan_text(plan: Decisions) -> str:
    """The whole report of a plan, the summary first."""
    return plan_rich(plan).plain


def error_rich(plan: Decisions, errors: Sequence[Finding]) -> Text:
    """``error_text`` for a rich console."""
    leaves = counted(len(plan.entries), "leaf", "leaves")
    head = f"{counted(len(errors), 'problem', 'problems')} in loading {leaves} from"
    return _joined(
        [
            *_from(plan, head, HEAD), *_whole(plan), Text(), *_problems(plan, errors), Text(),
            line("Nothing was changed."),
        ]
    )  # fmt: skip


def plan_rich(plan: Decisions) -> Text:
    """``plan_text`` for a rich console."""
    lines = [
        *sentence(plan.summary(), "", hanging=MARGIN, style=HEAD), *_from(plan, "from", ""), *_whole(plan),
    ]  # fmt: skip
    forgiven = [finding for finding in plan.findings if finding.verdict in ("first", "ignore")]
    for head, body in (
        ("", _problems(plan, plan.errors)),
        # Only what no leaf below tells of: that one is kept or not used is said there.
        ("forgiven by the policy", _problems(plan, [f for f in forgiven if not KINDS[f.kind].among_unused])),
        (
            "to be checked by value before anything is changed",
            _table(pending_rows(plan, _LIST), "plan.pending"),
        ),
        ("leaves", _entries(plan)),
        ("not used", _table(unused_rows(plan, _LIST), "plan.unused")),
    ):
        if body:
            lines += [Text(), *([line((head, HEAD))] if head else []), *body]
    return _joined(lines)


def _joined(lines: Sequence[Text]) -> Text:
    return Text("\n").join(lines)


def _whole(plan: Decisions) -> list[Text]:
    """In what the two sides differ as a whole, where there are problems."""
    if len(plan.errors) < _WHOLE:
        return []
    said = [row for text in plan.diagnosis for row in sentence(printable(text), MARGIN, hanging=MARGIN * 2)]
    return [Text(), line("seen as a whole"), *said] if said else []


def _from(plan: Decisions, head: str, style: str) -> list[Text]:
    """``head`` and what the plan's sources are, each on its own line where one line is too short."""
    labels = [printable(source.label) for source in plan.sources]
    text = f"{head} {' and '.join(labels)}"
    if len(text) <= WIDTH:
        return [line((text, style))]
    if len(labels) > 1:
        head = f"{head} {len(labels)} sources"
    return [line((head, style)), *(line(MARGIN, label) for label in labels)]


# Problems.


def _problems(plan: Decisions, findings: Sequence[Finding]) -> list[Text]:
    lines: list[Text] = []
    by_kind = problems(plan, findings)
    for same in by_kind.values():
        lines += _kind(same, _PAGE // len(by_kind))
    return lines


def _kind(same: Sequence[Problem], most: int) -> list[Text]:
    """The problems of one kind in about so many lines, and the ways to go on from them."""
    column = min(max(len(problem.group.title) for problem in same), _TITLE - _KIND)
    lines: list[Text] = []
    for number, problem in enumerate(same):
        if len(lines) >= most and number < len(same) - 1:
            rest = sum(len(other.findings) for other in same[number:])
            lines.append(
                line(_INDENT, (f"… and {rest:,} more; plan.findings and to_dict() have them all", QUIET))
            )
            break
        lines += _problem(problem, column)
    if same[0].findings[0].verdict == "error":
        for way in ways(same):
            if way.code.whole:
                lines += code(way.before, way.code, way.after, _INDENT)
            else:
                lines += sentence(way.before, _INDENT, hanging=_INDENT + MARGIN)
    return lines


def _problem(problem: Problem, column: int) -> list[Text]:
    style = WRONG if problem.findings[0].verdict == "error" else QUIET
    title = printable(problem.group.title) or "the root"
    head = (MARGIN, (f"{problem.kind:<{_KIND}}", style))
    if problem.spec and _KIND + len(f"{title:<{column}}{problem.spec}") + 5 <= WIDTH:
        lines = [line(*head, f"{title:<{column}}   {problem.spec}")]
    else:
        lines = [line(*head, title), *sentence(problem.spec, _INDENT + MARGIN)]
    for label, text in problem.facts:
        lines += labelled(label, text, _INDENT, width=_LABEL, style=CODE if label == "by rule" else "")
    if problem.said:
        rules = {repr(finding.rule) for finding in problem.findings[:1]}
        lines += sentence(problem.said, _INDENT, hanging=_INDENT + MARGIN, whole=rules)
    if problem.near:
        lines += sentence(f"near: {problem.near}", _INDENT, hanging=_INDENT + MARGIN)
    return lines


# Leaves.


def _entries(plan: Decisions) -> list[Text]:
    """Those that load first: they are the ones that a page may lack room for."""
    load, others, wrong = entry_rows(plan, _LIST)
    aligned = [*load.shown, *others.shown]
    lines = _table(load, "plan.entries", aligned) + _table(others, "plan.entries", aligned)
    if wrong:
        because = f"because of {'a problem' if wrong == 1 else 'problems'} above"
        lines.append(line(MARGIN, f"{Action.KEEP:<6}{counted(wrong, 'leaf', 'leaves')} {because}"))
    return lines or [line(MARGIN, "none")]


def _table(rows: Rows, where: str, aligned: Sequence[Row] = ()) -> list[Text]:
    """Rows in columns; what is too long for its line goes on below it, further in. ``where`` has the rest."""
    aligned = aligned or rows.shown
    width = min(max((len(_title(row)) for row in aligned), default=0), _TITLE)
    spec_width = min(max((len(row.spec) for row in aligned), default=0), _SPEC)
    lines: list[Text] = []
    for row in rows.shown:
        spec_at = f"{MARGIN}{_title(row):<{width}}  "
        tail_at = f"{spec_at}{row.spec:<{spec_width}}  "
        if len(spec_at + row.spec) > WIDTH:
            lines += [line(MARGIN, _title(row)), *sentence(f"{row.spec} {row.tail}", _DEEP)]
        elif len(tail_at + row.tail) > WIDTH and row.tail:
            lines += [line(spec_at, row.spec), *sentence(row.tail, _DEEP)]
        else:
            lines.append(line((tail_at + row.tail).rstrip()))
    if rows.rest:
        lines.append(line(MARGIN, (f"… and {rows.rest:,} more; {where} has them all", QUIET)))
    return lines


def _title(row: Row) -> str:
    return f"{row.action:<6}{row.title or 'the root'}" if row.action else row.title or "the root"
