"""What would make a plan load, before anything is forgiven: words and code, each tried before it is printed.

Owns what a report of what is wrong says first, and in which order: patterns that did nothing, the part of the
source that is meant, rules; and which findings that settles. Refuses to own the trying (``_plans.repairs``)
and layout (``text``, ``html``).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from treeload._findings.finding import Finding, Noted, written
from treeload._findings.kinds import KINDS
from treeload._findings.remedy import Remedy
from treeload._inference.parts import Part, is_of_optimizer, share_state
from treeload._inference.suggestions import AS_GIVEN
from treeload._naming.name import print_name
from treeload._plans.decisions import Decisions
from treeload._plans.entry import IdlePattern
from treeload._plans.repairs import LEAVES, GiveRules, MendFrom, Reorder, Repair, TakePart, loaded, repairs
from treeload._reports.page import MARGIN, NO_CODE, WIDTH, Code, counted
from treeload._sources.separated import split_name
from treeload._trees.marks import holds_nnx

_RULES = 22  # lines of rules that are shown: half a page


_CODE = WIDTH - 2 * len(MARGIN)  # characters of a line of them


_LEAST = 0.02  # of all elements must load, where sizes differ: to forgive another model's helps nobody


_WHOLE = 4  # problems from which on it helps to be told what they have in common


_OPEN = 3  # sentences about what no rule was found for


_EXPLAIN = "treeload explain "


@dataclass(frozen=True)
class Step:
    """One thing to do, or to know: words, then code, which may be empty."""

    words: str
    code: Code = NO_CODE


@dataclass(frozen=True)
class GoingOn:
    """How to go on from what is wrong with a plan.

    Attributes:
        plan: the plan.
        errors: those of its findings that are reported, as they are noted: where they are very many, most
            are never written.
    """

    plan: Decisions
    errors: Sequence[Noted]

    @cached_property
    def _written(self) -> tuple[Finding, ...]:
        return tuple(map(written, self.errors))

    @cached_property
    def first(self) -> dict[Finding, Remedy]:
        """The findings that leave nothing else wrong once they are mended, each with the way."""
        # What is to be written later has no such way.
        findings = (noted for noted in self.errors if isinstance(noted, Finding))
        ways = ((finding, way) for finding in findings for way in finding.remedies)
        return {finding: way for finding, way in ways if way.settles_all}

    @cached_property
    def repairs(self) -> tuple[Repair, ...]:
        """What was tried and helps."""
        return repairs(self.plan) if self.errors and not self.first else ()

    @cached_property
    def after(self) -> Decisions:
        """What is decided once all of it is done."""
        return self.repairs[-1].after if self.repairs else self.plan

    @cached_property
    def settled(self) -> list[Finding]:
        """The findings that the repairs settle."""
        if self.first:
            return [finding for finding in self._written if finding not in self.left]
        if not self.repairs:
            return []
        at = {finding.name for finding in self.after.errors}
        own = {self._own_name(finding) for finding in self.after.errors}
        idle = [f for f in self._written if KINDS[f.kind].about_rules and f not in self.rules]
        others = [
            f for f in self._written if KINDS[f.kind].settled_by_rules
            and (self._own_name(f) not in own if KINDS[f.kind].among_unused else f.name not in at)
        ]  # fmt: skip
        return idle + others

    def _own_name(self, finding: Finding) -> tuple[str, ...]:
        """What the source calls a leaf, its names split if a repair splits them; of no leaf nothing."""
        name: tuple[str, ...] = finding.source.name if finding.source is not None else ()
        separators = [repair.separator for repair in self.repairs if isinstance(repair, TakePart)]
        for separator in filter(None, separators):
            name = split_name(name, separator)
        return name

    @cached_property
    def left(self) -> list[Noted]:
        """What is wrong all the same; rules that did nothing are not in it, as they are said first."""
        if self.first:
            kinds = {finding.kind for finding in self.first}
            return [finding for finding in self.errors if finding.kind in kinds]
        if not self.repairs:
            return [finding for finding in self.errors if not KINDS[finding.kind].about_rules]
        after = self.after.noted_errors
        known = {(finding.kind, finding.name) for finding in after}
        others = [
            f for f in self.errors if not KINDS[f.kind].settled_by_rules and (f.kind, f.name) not in known
        ]
        return [finding for finding in (*after, *others) if not KINDS[finding.kind].about_rules]

    @property
    def rules(self) -> list[Finding]:
        """Rules, sources and scopes that did nothing or cannot be applied, whatever else is repaired."""
        if self.first:
            return []
        left = {finding.name for finding in self.after.noted_errors if KINDS[finding.kind].about_rules}
        about_rules = [written(noted) for noted in self.errors if KINDS[noted.kind].about_rules]
        return [finding for finding in about_rules if finding.rule is not None or finding.name in left]

    @property
    def may_forgive(self) -> bool:
        """Whether anything would load if the rest were forgiven, or more than a rest of another model."""
        if self.repairs or self.plan.coverage >= _LEAST:
            return loaded(self.after) > 0
        sizes = sum(KINDS[noted.kind].told_by_sides for noted in self.errors)
        return loaded(self.plan) > 0 and (sizes < 2 or 2 * sizes < len(self.errors))

    @property
    def causes(self) -> tuple[str, ...]:
        """What the two sides differ in as a whole, where something can be done or much is wrong."""
        if self.first or self.settles_at_once:
            return ()
        much = len(self.errors) >= _WHOLE or (loaded(self.after) > 0 and not self.may_forgive)
        return self.plan.diagnosis if self.repairs or much else ()

    def idle(self) -> Iterator[Step]:
        """The patterns of the policy that forgive nothing, and what was meant."""
        return map(_idle_pattern, self.plan.idle())

    def steps(self) -> Iterator[Step]:
        """What to do, in order."""
        if self.first:
            for finding, way in self.first.items():
                where = f"for {finding.name}: " if finding.name else ""
                yield Step(where + way.before, _code(*way.lines))
            return
        for number, repair in enumerate(self.repairs):
            yield from self._repair(repair, number > 0)
        yield from self._without_rules()
        ours = [noted.name for noted in self.errors if not KINDS[noted.kind].among_unused]
        in_state = [name for name in ours if is_of_optimizer(name) and name in self.plan]
        if in_state and share_state(in_state, chain.from_iterable(s.specs() for s in self.plan.sources)):
            given = "optimizer, model" if holds_nnx(self.plan.tree.root) else "tx, params"
            yield Step(
                "an optimizer's state goes by parameter name, whatever its chain:",
                _code(f"treeload.finetune.restore_optimizer({given}, src)"),
            )

    def _repair(self, repair: Repair, then: bool) -> Iterator[Step]:
        match repair:
            case TakePart():
                yield _part(repair)
            case GiveRules():
                yield _rules(repair, then)
            case Reorder():  # which rules is said with them
                yield Step(f"in that order {_how_much_loads(repair.after)}")
            case MendFrom():
                said = f"{repair.meant[0].words}; {_how_much_loads(repair.after)}"
                codes = [meant.code for meant in repair.meant if meant.code]
                how = "with either" if repair.is_choice else "with" if codes else "then"
                yield Step(f"{said} {how}", _code(*codes) if codes else NO_CODE)

    @property
    def settles_at_once(self) -> bool:
        """Whether what is settled is not worth a list: it was wrong since a source gave nothing at all."""
        return any(isinstance(repair, MendFrom) for repair in self.repairs)

    def more(self) -> Iterator[Step]:
        """Where to read about what is wrong: one command; nothing where nothing is."""
        there = {noted.kind for noted in chain(self.errors, self.left)}  # what is left may be of another kind
        kinds = " ".join(kind for kind in KINDS if kind in there)
        lines = [
            f"treeload explain {some}" for some in textwrap.wrap(kinds, _CODE - len("treeload explain "))
        ]
        if lines:
            yield Step(f"more about {'it' if len(self.errors) == 1 else 'these'}:", _code(*lines))

    @property
    def _gives_rules(self) -> bool:
        """Whether rules were found, which say themselves what they leave; or most loads without any."""
        given = any(isinstance(repair, GiveRules) for repair in self.repairs)
        return given or 2 * loaded(self.after) >= self.plan.leaves

    def _without_rules(self) -> Iterator[Step]:
        """Why there is no rule for what both sides have left, where that is most of it."""
        sides = {finding.kind for finding in self.left if KINDS[finding.kind].counterpart is not None}
        if len(self.errors) > LEAVES:
            yield Step("to look for rules:", _code("print(plan.suggest())"))
        elif len(sides) > 1 and not self._gives_rules:
            found = self.after.suggestions
            open_ = [*map(str, found.ambiguous), *found.left]
            for words in open_[:_OPEN]:
                yield Step(words)
            if len(open_) > _OPEN:
                yield Step(f"and {len(open_) - _OPEN:,} more that plan.suggest() prints")
        if self.left and len(self.errors) <= LEAVES:
            yield from map(Step, self.after.suggestions.possible)
        if self.left and not self.may_forgive:
            least = "next to nothing" if loaded(self.after) else "nothing"
            yield Step(f"no policy is offered: to forgive all of it would be to load {least}")


def _idle_pattern(idle: IdlePattern) -> Step:
    written = f"{idle.setting}={{{_literal(idle.text)}: ...}}"
    if idle.setting == "absent_is_zero":  # a pattern alone, or one of several
        written = f"{_literal(idle.text)} in {idle.setting}"
    said = f"{written} of the policy matches no name"
    if idle.meant is None:
        return Step(said)
    return Step(f"{said}; {_literal(idle.meant.text)} matches {counted(idle.meant.count, 'name', 'names')}")


def _part(repair: TakePart) -> Step:
    if repair.is_choice:
        choices = tuple(_from(repair.separator, part) for part in repair.parts)
        return Step(f"give one part of the source; each holds {_how_many(repair.parts[0])}:", _code(*choices))
    part = repair.parts[0] if repair.parts else None
    if repair.separator:
        what = f"the source's names are joined by {_literal(repair.separator)}: split them"
    else:
        what = "give that part of the source" if part and part.source else "say where the source goes"
    then = f"{what}; {_how_much_loads(repair.after)} then:" if loaded(repair.after) else f"{what}:"
    return Step(then, _code(_from(repair.separator, part)))


def _how_much_loads(plan: Decisions) -> str:
    count = loaded(plan)
    return "everything loads" if plan.leaves == count else f"{count:,} of {plan.leaves:,} leaves load"


def _how_many(part: Part) -> str:
    return f"{part.count:,} of {counted(part.of, 'leaf', 'leaves')}"


def _from(separator: str, part: Part | None) -> str:
    said = {
        "separator": separator,
        "subtree": print_name(part.source) if part else "",
        "into": print_name(part.destination) if part else "",
    }
    return f"From({', '.join(['src', *(f'{key}={_literal(text)}' for key, text in said.items() if text)])})"


def _rules(repair: GiveRules, then: bool) -> Step:
    found = repair.rules
    given = found.reasons.count(AS_GIVEN)
    new, certain = len(found) - given, len(found.certain) - given
    how_sure = "certain" if certain == new == 1 else f"{'all' if certain == new else f'{certain:,}'} certain"
    feed = "feeds" if new == 1 else "feed"
    said = (
        f"{'then ' if then else ''}{counted(new, 'rule', 'rules')} from plan.suggest(), {how_sure}, {feed} "
        f"{repair.fed:,} of {counted(repair.of, 'leaf', 'leaves')} without a value:"
    )
    lines = tuple(each for text in str(found).splitlines() for each in _folded(text))
    return Step(said, _code(*lines) if len(lines) <= _RULES else _code("rules=plan.suggest()"))


def _folded(text: str) -> list[str]:
    """A line of code; a comment that is too long for a page goes on in the next."""
    code = text.lstrip()
    if not code.startswith("#") or len(text) <= _CODE:
        return [text]
    indent = " " * (len(text) - len(code)) + "# "
    return textwrap.wrap(
        code.removeprefix("#").lstrip(), _CODE, initial_indent=indent, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _code(*lines: str) -> Code:
    return Code(lines[0] if len(lines) == 1 else "", lines)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
