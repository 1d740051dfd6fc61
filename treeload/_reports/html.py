"""A plan, an error or an inventory as a piece of HTML: what is wrong open, what loads folded away.

Owns the HTML: the same groups and words as the text, in tables. No scripts, no styles from elsewhere,
every text from a checkpoint escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from treeload._findings.finding import Noted
from treeload._findings.kinds import KINDS
from treeload._plans.decisions import Decisions
from treeload._reports.going_on import GoingOn, Step
from treeload._reports.leaves import Rows, entry_rows, pending_rows, unused_rows
from treeload._reports.page import counted, printable
from treeload._reports.problems import Problem, problems
from treeload._reports.verdict import bar, legend, modules, shares, steps_taken
from treeload._reports.ways import Way, ways
from treeload._trees.collector import no_collections

_MOST = 200  # rows of one list


_BAR = 80  # characters of the bar


_CELL = "style='text-align:left;vertical-align:top'"


def plan_html(plan: Decisions) -> str:
    """The report: a verdict, what repairs it, the problems with ways to go on, and the leaves in a fold."""
    with no_collections():  # of a plan's very many objects none is let go of here
        return _plan(plan)


def _plan(plan: Decisions) -> str:
    going_on = GoingOn(plan, plan.noted_errors)
    parts = [_verdict(plan, plan.summary()), *_repair_first(going_on)]
    forgiven = [
        one for one in plan.found if one.verdict in ("first", "ignore") and not KINDS[one.kind].among_unused
    ]
    parts += _titled("forgiven by the policy", _problems(plan, forgiven))
    if plan.pending:
        parts.append("<p>to be checked by value before anything is changed</p>")
        parts.append(_rows("plan.pending", pending_rows(plan, _MOST)))
    found = entry_rows(plan, _MOST, plain=True)
    because = f", {found.wrong:,} of them kept because of problems above" if found.wrong else ""
    head = f"{counted(plan.leaves, 'leaf', 'leaves')}{because}"
    parts += [_modules(plan), _fold(head, _rows("plan.entries", found.load, found.others))]
    unused = unused_rows(plan, _MOST)
    if unused.shown:
        parts.append(_fold("source leaves not used", _rows("plan.unused", unused)))
    return _block(parts)


def error_html(plan: Decisions, errors: Sequence[Noted]) -> str:
    """What a ``LoadError`` says: as the report of its plan, without the leaves that load."""
    with no_collections():
        return _error(plan, errors)


def _error(plan: Decisions, errors: Sequence[Noted]) -> str:
    head = f"{counted(len(errors), 'problem', 'problems')} in loading "
    head += counted(plan.leaves, "leaf", "leaves")
    parts = [_verdict(plan, head), *_repair_first(GoingOn(plan, errors)), _modules(plan)]
    return _block([*parts, "<p>Nothing was changed.</p>"])


def text_html(text: str) -> str:
    """Lines as they are."""
    lines = "\n".join(map(html_text, text.split("\n")))
    return _block([f"<pre>{lines}</pre>"])


def _block(parts: Iterable[str]) -> str:
    return "".join(("<div class='treeload'>", *parts, "</div>"))


def _verdict(plan: Decisions, head: str) -> str:
    """The headline, a bar with its legend, and the sources."""
    labels = " and ".join(html_text(source.label) for source in plan.sources)
    found = shares(plan)
    drawn = f"<br>{html_code(bar(found, _BAR).plain)}<br>{html_text(legend(found))}" if found else ""
    steps = "".join(f"<br>{html_text(words)}" for words in steps_taken(plan))
    return f"<p><b>{html_text(head)}</b>{drawn}<br>from {labels}{steps}</p>"


def _modules(plan: Decisions) -> str:
    found, rest = modules(plan)
    more = [f"{rest:,} modules more"] if rest else []
    return f"<p>{html_text(', '.join([*map(str, found), *more]))}</p>" if found else ""


def _repair_first(going_on: GoingOn) -> list[str]:
    """As the text: what repairs it, what that settles, what is left."""
    plan, after = going_on.plan, going_on.after
    steps = [*(_step(step) for step in going_on.idle()), *map(html_text, going_on.causes),
             *(_step(step) for step in going_on.steps())]  # fmt: skip
    listed = ["<ul>", *(f"<li>{each}</li>" for each in steps), "</ul>"] if steps else []
    left = _problems(after, going_on.left, forgiving=going_on.may_forgive)
    settled = [] if going_on.settles_at_once else going_on.settled
    return [
        *_titled("to go on", [*_problems(plan, going_on.rules), *listed]),
        *_titled("what that settles", _problems(plan, settled, advice=False)),
        *(_titled("what is left", left) if going_on.settled else left),
        *(f"<p>{_step(step)}</p>" for step in going_on.more()),
    ]


def _titled(title: str, body: list[str]) -> list[str]:
    return [f"<p>{html_text(title)}</p>", *body] if body else []


def _step(step: Step) -> str:
    if step.code.whole or not step.code.broken:
        return f"{html_text(step.words)} {html_code(step.code.whole)}".strip()
    lines = "\n".join(map(html_text, step.code.broken))
    return f"{html_text(step.words)}<pre><code>{lines}</code></pre>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], rest: int, where: str) -> str:
    """A table of texts that are HTML already; ``rest`` is what it does not hold, and ``where`` does."""
    header = "".join(f"<th {_CELL}>{html_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td {_CELL}>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    more = f"<p>… and {rest:,} more; {html_text(where)} has them all</p>" if rest else ""
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>{more}"


def html_code(text: str) -> str:
    """A name, a spec or code, as it stands."""
    return f"<code>{html_text(text)}</code>" if text else ""


def html_text(text: str) -> str:
    """Words, whatever they hold, as words."""
    return escape(printable(text))


def _fold(head: str, body: str) -> str:
    return f"<details><summary>{html_text(head)}</summary>{body}</details>"


def _problems(
    plan: Decisions, findings: Sequence[Noted], *, advice: bool = True, forgiving: bool = True
) -> list[str]:
    """A table, and below it the ways to go on; nothing where nothing is wrong."""
    if not findings:
        return []
    by_kind = problems(plan, findings)
    head = ("kind", "name", "destination", "source", "what is wrong")
    listed = [problem for same in by_kind.values() for problem in same.listed]
    rest = len(findings) - sum(problem.count for problem in listed[:_MOST])
    open_ways = [
        f"<li>{html_text(kind)}: {_way(way)}</li>"
        for kind, same in by_kind.items() if advice and same.listed[0].verdict == "error"
        for way in ways(same, forgiving=forgiving)
    ]  # fmt: skip
    rows = map(_problem, listed[:_MOST])
    return [
        table(head, rows, rest, "plan.findings"),
        *(["<ul>", *open_ways, "</ul>"] if open_ways else []),
    ]


def _problem(problem: Problem) -> tuple[str, ...]:
    destination, source = problem.expected, problem.found
    if problem.spec:
        inline = KINDS[problem.kind].inline
        destination, source = (problem.spec, "") if inline == "expected" else ("", problem.spec)
    facts = [f"{label}: {text}" for label, text in problem.facts if label not in ("destination", "source")]
    said = [problem.said, *facts, f"near: {problem.near}" if problem.near else ""]
    style = "color:#c33" if problem.verdict == "error" else ""
    return (
        f"<span style='{style}'>{html_text(problem.kind)}</span>",
        html_code(problem.group.title or "the root"), html_code(destination), html_code(source),
        "<br>".join(map(html_text, filter(None, said))),
    )  # fmt: skip


def _way(way: Way) -> str:
    return f"{html_text(way.whole_before)} {html_code(way.code.whole)}{html_text(way.after)}".strip()


def _rows(where: str, *lists: Rows) -> str:
    cells = [
        (html_text(row.action), html_code(row.title or "the root"), html_code(row.spec), html_text(row.tail))
        for rows in lists for row in rows.shown
    ]  # fmt: skip
    return table(("", "name", "spec", ""), cells, sum(rows.rest for rows in lists), where)
