"""Plans and errors as text for a terminal of 80 columns or more.

Owns the layout: what is wrong first, grouped; then what happens to each leaf; then what is not used.
Refuses to own facts: everything printed is in the plan, and where a page is not enough the plan's
``to_dict`` has the rest. Text never holds an escape sequence, whatever a checkpoint's names hold; the
``rich`` forms are the same lines with colours, which only a terminal shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, ConsoleOptions
from rich.text import Text

from treeload._findings.finding import Noted
from treeload._findings.kinds import KINDS
from treeload._plans.decisions import Decisions
from treeload._plans.entry import Action
from treeload._reports.going_on import GoingOn, Step
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
from treeload._reports.problems import Problem, Problems, problems
from treeload._reports.trust import unverified
from treeload._reports.verdict import bar, legend, module_lines, shares, steps_taken
from treeload._reports.ways import Way, ways
from treeload._trees.collector import no_collections

_KIND = max(map(len, KINDS)) + 2  # the column of kinds; names stand behind it


_INDENT = MARGIN + " " * _KIND


_LABEL = len("destination") + 2


_TITLE = 46  # the widest column of names that something is aligned behind


_SPEC = 18  # likewise of specs


_PAGE = 44  # lines that the problems of a plan take, about


_SETTLED = 12  # likewise what is settled by what is said before


_DEEP = " " * 10  # what goes on below a line of a list


_LIST = 24  # lines of leaves, or of groups of them


def error_text(plan: Decisions, errors: Sequence[Noted]) -> str:
    """The text of a ``LoadError``: a headline, every kind of problem, and that nothing was changed."""
    return error_rich(plan, errors).plain


def plan_text(plan: Decisions, going_on: GoingOn) -> str:
    """The whole report of a plan, the summary first, where it is known already how to go on."""
    return _plan(plan, going_on).plain


def error_rich(plan: Decisions, errors: Sequence[Noted]) -> Report:
    """``error_text`` for a rich console."""
    with no_collections():  # of a plan's very many objects none is let go of here
        return _error(plan, errors)


def _error(plan: Decisions, errors: Sequence[Noted]) -> Report:
    leaves = counted(plan.leaves, "leaf", "leaves")
    head = f"{counted(len(errors), 'problem', 'problems')} in loading {leaves} from"
    going_on = GoingOn(plan, errors)
    return Report(
        plan, [*_from(plan, head, HEAD), *_versions(plan)],
        [*_repair_first(going_on), *_section("leaves by module", list(module_lines(plan))), Text(),
         line("Nothing was changed.")],
    )  # fmt: skip


def plan_rich(plan: Decisions) -> Report:
    """The whole report of a plan, the summary first, for a rich console."""
    with no_collections():
        return _plan(plan, GoingOn(plan, plan.noted_errors))


def _plan(plan: Decisions, going_on: GoingOn) -> Report:
    head = sentence(plan.summary(), "", hanging=MARGIN, style=HEAD)
    forgiven = [noted for noted in plan.found if noted.verdict in ("first", "ignore")]
    trust = sentence(unverified(plan.sources), MARGIN, style=QUIET)
    lines = [
        *_from(plan, "from", ""),
        *trust,
        *_versions(plan),
        *_repair_first(going_on),
    ]
    for title, body in (
        # Only what no leaf below tells of: that one is kept or not used is said there.
        ("forgiven by the policy", _problems(plan, [f for f in forgiven if not KINDS[f.kind].among_unused])),
        (
            "to be checked by value before anything is changed",
            _table(pending_rows(plan, _LIST), "plan.pending"),
        ),
        ("leaves", _entries(plan)),
        ("not used", _table(unused_rows(plan, _LIST), "plan.unused")),
    ):
        lines += _section(title, body)
    return Report(plan, head, lines)


class Report:
    """A report, whose bar is as wide as the terminal that it is shown on; as text it has 80 columns."""

    def __init__(self, plan: Decisions, head: Sequence[Text], body: Sequence[Text]) -> None:
        self._shares, self._head, self._body = shares(plan), head, body

    @property
    def plain(self) -> str:
        """The report without colours."""
        return self._joined(WIDTH).plain

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield self._joined(max(WIDTH, options.max_width))

    def _joined(self, width: int) -> Text:
        found = self._shares
        drawn = [bar(found, width), *sentence(legend(found), "")] if found else []
        return Text("\n").join([*self._head, *drawn, *self._body])


def _section(title: str, body: Sequence[Text]) -> list[Text]:
    """Lines under a title; nothing where there are none."""
    return [Text(), *([line((title, HEAD))] if title else []), *body] if body else []


# What is wrong: first what repairs it, then what it was.


def _repair_first(going_on: GoingOn) -> list[Text]:
    plan, steps = going_on.plan, list(going_on.steps())
    said = [row for text in going_on.causes for row in sentence(printable(text), MARGIN, hanging=MARGIN * 2)]
    rules = _problems(plan, going_on.rules)
    first = [*rules, *_steps(going_on.idle())]
    title = "to go on" if first or steps else "seen as a whole"
    lines = _section(title, [*first, *said, *_steps(steps)])
    if going_on.settled and not going_on.settles_at_once:
        lines += _section("what that settles", _problems(plan, going_on.settled, advice=False, page=_SETTLED))
    left = _problems(going_on.after, going_on.left, forgiving=going_on.may_forgive)
    lines += _section("what is left" if going_on.settled else "", left)
    return lines + _section("", _steps(going_on.more()))


def _steps(steps: Iterable[Step]) -> list[Text]:
    lines: list[Text] = []
    for step in steps:
        if step.code.whole:
            lines += code(step.words, step.code, "", MARGIN)
        else:
            lines += sentence(step.words, MARGIN, hanging=MARGIN * 2)
            lines += [line(MARGIN * 2, (each, CODE)) for each in step.code.broken]
    return lines


def _from(plan: Decisions, head: str, style: str) -> list[Text]:
    """``head`` and what the plan's sources are, each on its own line where one line is too short."""
    labels = [printable(source.label) for source in plan.sources]
    text = f"{head} {' and '.join(labels)}"
    if len(text) <= WIDTH:
        return [line((text, style))]
    if len(labels) > 1:
        head = f"{head} {len(labels)} sources"
    return [line((head, style)), *(line(MARGIN, label) for label in labels)]


def _versions(plan: Decisions) -> list[Text]:
    """Which steps of a history each source takes, where it takes any."""
    return [each for text in steps_taken(plan) for each in sentence(text, "", hanging=MARGIN)]


# Problems.


def _problems(
    plan: Decisions, findings: Sequence[Noted], *, advice: bool = True, forgiving: bool = True,
    page: int = _PAGE,
) -> list[Text]:  # fmt: skip
    """Findings, grouped; with ``advice`` the ways to go on from errors, with ``forgiving`` all of them."""
    lines: list[Text] = []
    by_kind = problems(plan, findings)
    for same in by_kind.values():
        open_ways = ways(same, forgiving=forgiving) if advice and same.listed[0].verdict == "error" else []
        lines += _kind(same, page // len(by_kind), open_ways, near=advice)
        lines += _ways(way for way in open_ways if way.alone is None)
    return lines


def _kind(of_kind: Problems, most: int, open_ways: Sequence[Way], *, near: bool) -> list[Text]:
    """The problems of one kind in about so many lines, each with the ways that are open to it alone."""
    same, shown = of_kind.listed, 0
    column = min(max(len(problem.group.title) for problem in same), _TITLE - _KIND)
    lines: list[Text] = []
    for number, problem in enumerate(same):
        if len(lines) >= most and number < len(same) - 1:
            break
        lines += _problem(problem, column, near=near)
        lines += _ways(way for way in open_ways if way.alone is problem)
        shown += problem.count
    if rest := of_kind.count - shown:
        lines.append(
            line(_INDENT, (f"… and {rest:,} more; plan.findings and to_dict() have them all", QUIET))
        )
    return lines


def _ways(open_ways: Iterable[Way]) -> list[Text]:
    """Ways to go on."""
    lines: list[Text] = []
    for way in open_ways:
        if way.code.whole:
            lines += code(way.before, way.code, way.after, _INDENT)
        else:
            lines += sentence(way.before, _INDENT, hanging=_INDENT + MARGIN)
    return lines


def _problem(problem: Problem, column: int, *, near: bool) -> list[Text]:
    style = WRONG if problem.verdict == "error" else QUIET
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
    if problem.near and near:
        lines += sentence(f"near: {problem.near}", _INDENT, hanging=_INDENT + MARGIN)
    return lines


# Leaves.


def _entries(plan: Decisions) -> list[Text]:
    """The modules, then leaves; those that load first: they are the ones that a page may lack room for."""
    lines = list(module_lines(plan))
    found = entry_rows(plan, _LIST, plain=False)
    if found.plain:
        as_it_is = counted(found.plain, "leaf as it is", "leaves as they are")
        lines.append(line(MARGIN, f"{Action.LOAD:<6}{as_it_is}"))
    aligned = [*found.load.shown, *found.others.shown]
    lines += _table(found.load, "plan.entries", aligned) + _table(found.others, "plan.entries", aligned)
    if found.wrong:
        because = f"because of {'a problem' if found.wrong == 1 else 'problems'} above"
        lines.append(line(MARGIN, f"{Action.KEEP:<6}{counted(found.wrong, 'leaf', 'leaves')} {because}"))
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
