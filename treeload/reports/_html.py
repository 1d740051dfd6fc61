"""A plan as a piece of HTML for notebooks: what is wrong open, what loads folded away.

Owns the HTML. No scripts, no styles from elsewhere, every text from a checkpoint escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from treeload._plan import Finding, Plan
from treeload._specs import Spec, print_spec


def plan_html(plan: Plan) -> str:
    """The report: a summary, a table of findings, and the leaves in a fold."""
    parts = [f"<div class='treeload'><p><b>{escape(plan.summary())}</b></p>"]
    if plan.findings:
        rows = (
            (f.kind, str(f.name), f.verdict, _side(f.expected), _side(f.found), f.message, f.remedy) for f in plan.findings
        )
        head = ("kind", "name", "verdict", "destination", "source", "what is wrong", "to go on")
        parts.append(_table(head, rows))
    entries = (
        (str(e.action), str(e.name), print_spec(e.spec), ", ".join(str(leaf.name) for leaf in e.sources),
         " ".join(map(repr, e.ops)) + (" cast" if e.cast else ""), e.reason)
        for e in plan.entries
    )  # fmt: skip
    head = ("action", "name", "destination", "from", "ops", "why")
    parts.append(f"<details><summary>{len(plan.entries):,} leaves</summary>{_table(head, entries)}</details>")
    if plan.unused:
        unused = ((str(leaf.name), print_spec(leaf.spec), str(leaf.at), leaf.why) for leaf in plan.unused)
        table = _table(("source leaf", "spec", "would be", "why"), unused)
        parts.append(f"<details><summary>{len(plan.unused):,} source leaves not used</summary>{table}</details>")
    return "".join((*parts, "</div>"))


def _side(side: Finding | Spec | str | None) -> str:
    if side is None:
        return ""
    return print_spec(side) if isinstance(side, Spec) else str(side)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = "".join(f"<th style='text-align:left'>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
