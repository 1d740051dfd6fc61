"""A plan or an inventory as a piece of HTML for notebooks: what is wrong open, what loads folded away.

Owns the HTML: the same groups and words as the text, in tables. No scripts, no styles from elsewhere,
every text from a checkpoint escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from treeload._findings.finding import Finding
from treeload._findings.kinds import KINDS
from treeload._plans.decisions import Decisions
from treeload._reports.leaves import Rows, entry_rows, pending_rows, unused_rows
from treeload._reports.page import counted, printable
from treeload._reports.problems import Problem, Way, problems, ways

_MOST = 200  # rows of one list


_CELL = "style='text-align:left;vertical-align:top'"


def plan_html(plan: Decisions) -> str:
    """The report: a summary, the problems with the ways to go on, and the leaves in a fold."""
    labels = " and ".join(_text(source.label) for source in plan.sources)
    parts = [f"<div class='treeload'><p><b>{_text(plan.summary())}</b><br>from {labels}</p>"]
    parts += _problems(plan, plan.errors)
    forgiven = [
        f for f in plan.findings if f.verdict in ("first", "ignore") and not KINDS[f.kind].among_unused
    ]
    if forgiven:
        parts += ["<p>forgiven by the policy</p>", *_problems(plan, forgiven)]
    if plan.pending:
        parts.append("<p>to be checked by value before anything is changed</p>")
        parts.append(_rows("plan.pending", pending_rows(plan, _MOST)))
    load, others, wrong = entry_rows(plan, _MOST)
    because = f", {wrong:,} of them kept because of problems above" if wrong else ""
    head = f"{counted(len(plan.entries), 'leaf', 'leaves')}{because}"
    parts.append(_fold(head, _rows("plan.entries", load, others)))
    unused = unused_rows(plan, _MOST)
    if unused.shown:
        parts.append(_fold("source leaves not used", _rows("plan.unused", unused)))
    return "".join((*parts, "</div>"))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], rest: int, where: str) -> str:
    """A table of texts that are HTML already; ``rest`` is what it does not hold, and ``where`` does."""
    header = "".join(f"<th {_CELL}>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td {_CELL}>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    more = f"<p>… and {rest:,} more; {_text(where)} has them all</p>" if rest else ""
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>{more}"


def html_code(text: str) -> str:
    """A name, a spec or code, as it stands."""
    return f"<code>{_text(text)}</code>" if text else ""


def _text(text: str) -> str:
    return escape(printable(text))


def _fold(head: str, body: str) -> str:
    return f"<details><summary>{_text(head)}</summary>{body}</details>"


def _problems(plan: Decisions, findings: Sequence[Finding]) -> list[str]:
    """A table, and below it the ways to go on; nothing where nothing is wrong."""
    if not findings:
        return []
    by_kind = problems(plan, findings)
    head = ("kind", "name", "destination", "source", "what is wrong")
    listed = [problem for same in by_kind.values() for problem in same]
    rest = sum(len(problem.findings) for problem in listed[_MOST:])
    open_ways = [
        f"<li>{_text(kind)}: {_way(way)}</li>"
        for kind, same in by_kind.items() if same[0].findings[0].verdict == "error"
        for way in ways(same)
    ]  # fmt: skip
    rows = map(_problem, listed[:_MOST])
    return [
        table(head, rows, rest, "plan.findings"),
        *(["<p>to go on</p><ul>", *open_ways, "</ul>"] if open_ways else []),
    ]


def _problem(problem: Problem) -> tuple[str, ...]:
    destination, source = problem.expected, problem.found
    if problem.spec:
        inline = KINDS[problem.kind].inline
        destination, source = (problem.spec, "") if inline == "expected" else ("", problem.spec)
    facts = [f"{label}: {text}" for label, text in problem.facts if label not in ("destination", "source")]
    said = [problem.said, *facts, f"near: {problem.near}" if problem.near else ""]
    style = "color:#c33" if problem.findings[0].verdict == "error" else ""
    return (
        f"<span style='{style}'>{_text(problem.kind)}</span>", html_code(problem.group.title or "the root"),
        html_code(destination), html_code(source), "<br>".join(map(_text, filter(None, said))),
    )  # fmt: skip


def _way(way: Way) -> str:
    return f"{_text(way.before)} {html_code(way.code.whole)}{_text(way.after)}".strip()


def _rows(where: str, *lists: Rows) -> str:
    cells = [
        (_text(row.action), html_code(row.title or "the root"), html_code(row.spec), _text(row.tail))
        for rows in lists for row in rows.shown
    ]  # fmt: skip
    return table(("", "name", "spec", ""), cells, sum(rows.rest for rows in lists), where)
