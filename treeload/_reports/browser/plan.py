"""The page of a plan: what becomes of each leaf, why, and above it what the report says first.

Owns which word and which facts a leaf has on the page. Which findings are one problem, and what is to be done
about them, is found by the rooms that the text is made from, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from treeload._findings.explained import meaning
from treeload._findings.finding import Noted, facts
from treeload._findings.kinds import KINDS
from treeload._leaves.spec import nbytes, spec_of
from treeload._naming.name import Keys
from treeload._plans.decisions import Decisions
from treeload._plans.entry import LEFT_AS_MISSING, SAME_NAME, Action, Entry, Line, Unused
from treeload._reports.browser.fill import filled
from treeload._reports.browser.leaf import Leaf, Word, leaf_data, side_text, spec_text
from treeload._reports.browser.modules import modules, stretches
from treeload._reports.going_on import GoingOn
from treeload._reports.leaves import is_wrong, pending_rows
from treeload._reports.page import counted
from treeload._reports.problems import Problem, problems
from treeload._reports.text import plan_text
from treeload._reports.trust import unverified
from treeload._reports.verdict import legend_of, shares, steps_taken
from treeload._reports.ways import Way, ways
from treeload._trees.collector import no_collections

_MOST = 200  # problems of one list

_AT_FIRST = 8  # of them that are not folded

_WORDS = (
    Word("load", "good", "takes the value of a source leaf, after its ops and cast"),
    Word("tie", "tie", "takes what another leaf of the destination is fed with"),
    Word("zero", "zero", "is filled with zeros: the source has none, and the policy says that means zero"),
    Word("keep", "keep", "keeps the destination's own value"),
    Word("wrong", "bad", "would be kept because of a problem: nothing loads until that is mended"),
    Word("not used", "unused", "a leaf of the source that feeds nothing"),
)

_OF_SHARE = {"loaded": "load", "zeroed": "zero", "kept": "keep", "wrong": "wrong"}


def plan_page(plan: Decisions) -> str:
    """The page, as the text of one HTML file."""
    with no_collections():  # of a plan's very many objects none is let go of here
        return _page(plan)


def _page(plan: Decisions) -> str:
    going_on = GoingOn(plan, plan.noted_errors)
    leaves = list(_Leaves(plan))
    destination = [leaf for leaf in leaves if leaf.word != "not used"]
    forgiven = [f for f in plan.found if f.verdict in ("first", "ignore") and not KINDS[f.kind].among_unused]
    said = {
        "what": "plan", "tone": "bad" if plan.noted_errors else "good", "title": _verdict(plan),
        "summary": plan.summary(), "sources": [source.label for source in plan.sources],
        "notes": [text for text in (unverified(plan.sources), *steps_taken(plan)) if text],
        "bar": _bar(plan), "modules": modules(destination, _WORDS, "load"),
        "causes": going_on.causes, "steps": [*going_on.idle(), *going_on.steps()],
        "rules": _problems(plan, going_on.rules),
        "settled": _problems(plan, going_on.settled, advice=False),
        "left": _problems(going_on.after, going_on.left, forgiving=going_on.may_forgive),
        "more": list(going_on.more()), "forgiven": _problems(plan, forgiven),
        "pending": pending_rows(plan, _MOST) if plan.pending else None,
        "text": plan_text(plan, going_on),
    }  # fmt: skip
    data = leaf_data(
        leaves, words=_WORDS, tags=_tags(plan), asked=("action", "finding"), whole="load",
        sides=("destination", "source"),
    )  # fmt: skip
    return filled("plan.html", said, data)


def _verdict(plan: Decisions) -> str:
    errors = len(plan.noted_errors)
    if errors:
        return f"Does not load: {counted(errors, 'problem', 'problems')}"
    pending = len(plan.pending)
    if pending:
        return f"Loads, once {counted(pending, 'leaf is', 'leaves are')} checked by value"
    return "Loads"


def _bar(plan: Decisions) -> Any:
    by_word = {word.word: word for word in _WORDS}
    found = shares(plan)
    return stretches(
        [
            (by_word[_OF_SHARE[one.word]], one.size, said)
            for one, said in zip(found, legend_of(found), strict=True)
        ]
    )


def _tags(plan: Decisions) -> list[Word]:
    errors = {noted.kind for noted in plan.noted_errors}
    return [
        *(Word(str(kind), "bad" if kind in errors else "keep", manner.meaning)
          for kind, manner in KINDS.items()),
        Word("to be checked", "tie", "its values are looked at before anything is changed"),
    ]  # fmt: skip


# Problems, as cards.


@dataclass(frozen=True, slots=True)
class _Card:
    """A problem on the page: of one side, or with both; a text is empty where there is nothing to say."""

    tone: str
    title: str
    spec: str
    destination: str
    source: str
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Cards:
    """The problems of one kind, the ways to go on from them, and how many findings are in no card."""

    kind: str
    meaning: str
    first: tuple[_Card, ...]
    others: tuple[_Card, ...]
    ways: tuple[Way, ...]
    rest: int


def _problems(
    plan: Decisions, findings: Sequence[Noted], *, advice: bool = True, forgiving: bool = True
) -> list[_Cards]:
    found = []
    for kind, same in problems(plan, findings).items() if findings else ():
        shown = same.listed[:_MOST]
        cards = tuple(map(_card, shown))
        at_first = _AT_FIRST if len(cards) > _AT_FIRST + 1 else len(cards)
        open_ways = ways(same, forgiving=forgiving) if advice and shown[0].verdict == "error" else []
        found.append(
            _Cards(
                str(kind),
                meaning(kind),
                cards[:at_first],
                cards[at_first:],
                tuple(open_ways),
                same.count - sum(problem.count for problem in shown),
            )
        )
    return found


def _card(problem: Problem) -> _Card:
    told = [f"{label}: {text}" for label, text in problem.facts if label not in ("destination", "source")]
    said = (problem.said, *told, f"near: {problem.near}" if problem.near else "")
    return _Card(
        "bad" if problem.verdict == "error" else "keep", problem.group.title or "the root", problem.spec,
        problem.expected, problem.found, tuple(filter(None, said)),
    )  # fmt: skip


# Leaves.


class _Leaves:
    """The leaves of both sides, as the page has them: the destination's, then those of no use.

    Findings that are noted are not written for this: there may be very many.
    """

    def __init__(self, plan: Decisions) -> None:
        self._plan = plan
        self._wrong = {noted.name for noted in plan.noted_errors}
        self._at: dict[Keys, list[Noted]] = {}
        for noted in plan.found:
            self._at.setdefault(noted.name, []).append(noted)
        # A problem of a node is one of its leaves; one of the whole is no leaf's.
        self._nodes = {name for name in self._at if name}
        self._pending = {tuple(name) for name in plan.pending}
        self._several = len(plan.sources) > 1

    def __iter__(self) -> Iterator[Leaf]:
        plan = self._plan
        rows = zip(plan.tree.names, plan.tree.values, plan.lines, strict=True)
        there = set()
        for name, value, line in rows:
            if line is not None:
                there.add(name)
                yield self._leaf(name, value, line)
        for one in plan.left:
            if not (one.at in there and one.at in self._at):  # else it is the other side of that problem
                yield self._unused(one if isinstance(one, Unused) else one.unused())

    def _leaf(self, name: Keys, value: Any, line: Line) -> Leaf:
        spec = spec_of(value)
        noted = self._noted(name, line.aliases if isinstance(line, Entry) else ())
        tags = [str(one.kind) for one in noted]
        told = list(_of_findings(noted))
        word = Action.LOAD if line is SAME_NAME else Action.KEEP
        if isinstance(line, Entry):
            word = line.action
            told += self._of_entry(line, "" if noted else line.reason)
            if line.needs_values or name in self._pending:
                tags.append("to be checked")
        elif line is SAME_NAME:
            told.append(("from", self._plan.sources[0].label))
        elif not noted:
            told.append(("why", LEFT_AS_MISSING))
        said = "wrong" if is_wrong(name, line, self._wrong) else str(word)
        return Leaf(name, said, spec_text(spec), nbytes(spec), tuple(dict.fromkeys(tags)), tuple(told))

    def _noted(self, name: Keys, aliases: Sequence[Keys]) -> list[Noted]:
        """What is wrong with a leaf, under any of its names, or with a node above it."""
        if not self._nodes:
            return []
        own = [self._at[each] for each in (name, *aliases) if each in self._at]
        above = [self._at[node] for depth in range(1, len(name)) if (node := name[:depth]) in self._nodes]
        return [one for several in (*own, *above) for one in several]

    def _of_entry(self, entry: Entry, why: str) -> Iterator[tuple[str, str]]:
        renamed = len(entry.sources) != 1 or entry.sources[0].name != entry.name
        for leaf in entry.sources:
            called = f"{leaf.name} {spec_text(leaf.spec)}" if renamed or entry.ops or entry.cast else ""
            yield "source leaf", called
        yield "from", " and ".join(dict.fromkeys(leaf.source for leaf in entry.sources))
        yield "by rule", "" if entry.rule is None else repr(entry.rule)
        yield "ops", ", ".join(map(repr, entry.ops))
        cast = entry.cast and entry.value is not None
        yield "cast", f"from {entry.value.spec.dtype}" if cast and entry.value is not None else ""
        yield "tied with", ", ".join(map(str, entry.aliases))
        yield "why", why
        yield "matched", "by position" if entry.by_position else ""
        yield "values", "to be checked before anything is changed" if entry.needs_values else ""

    def _unused(self, leaf: Unused) -> Leaf:
        noted = self._noted(leaf.at, ())
        told = [
            *_of_findings(noted), ("why", leaf.why if not noted else ""),
            ("source leaf", str(leaf.name) if leaf.name != leaf.at else ""),
            ("from", leaf.source),
        ]  # fmt: skip
        tags = [str(one.kind) for one in noted] + ["to be checked"] * (leaf.at in self._pending)
        spec, size = spec_text(leaf.spec), nbytes(leaf.spec)
        return Leaf(leaf.at, "not used", spec, size, tuple(dict.fromkeys(tags)), tuple(told))


def _of_findings(noted: Sequence[Noted]) -> Iterator[tuple[str, str]]:
    """What findings say of one leaf, both sides first."""
    for one in noted:
        said = facts(one)
        manner = KINDS[one.kind]
        both = {"destination": side_text(said.expected), "source": side_text(said.found)}
        if manner.counterpart is not None:
            both = {side: text or "nothing" for side, text in both.items()}
        if not manner.in_words:
            yield from both.items()
        yield str(one.kind), said.message
        yield "by rule", said.rule if said.rule not in said.message else ""
        yield "the policy says", one.verdict if one.verdict != "error" else ""
