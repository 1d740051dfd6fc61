"""What a load will do, as data: decided, counted, and nothing carried out.

Owns every question that a plan answers by looking at itself: its entries, its findings, how much loads. Made
by ``_matching``. What is done with it (load, verify, print) comes with ``treeload.Plan``, which is this and
more. Nothing here reads an array.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby
from typing import Any, Self

from treeload._errors import RuleError
from treeload._findings.finding import Finding, LaterFinding, Noted, written
from treeload._findings.kinds import KINDS
from treeload._inference.diagnosis import diagnose
from treeload._inference.suggest import suggest
from treeload._inference.suggestions import Suggestions
from treeload._leaves.spec import Spec, is_abstract, quantity, size_of, spec_of, without_sharding
from treeload._naming.name import Keys, Name, NameLike, as_name, print_name
from treeload._ops.expression import Expression, Leaf
from treeload._plans.as_dict import dated_dict, entry_dict, finding_dict, leaf_dict
from treeload._plans.check import Check
from treeload._plans.entry import (
    LEFT_AS_MISSING,
    MISSING,
    SAME_NAME,
    Action,
    Entry,
    IdlePattern,
    LaterUnused,
    Line,
    Unused,
)
from treeload._rules.rule import Rule
from treeload._sources.source import Source, SourceLeaf
from treeload._trees.collector import no_collections
from treeload._trees.seen import Seen
from treeload._trees.tree import Tree
from treeload._versions.version import Dated

_ORDER = {kind: at for at, kind in enumerate(KINDS)}

_DOES: Mapping[Any, Action] = {SAME_NAME: Action.LOAD, MISSING: Action.KEEP}


@dataclass(frozen=True)
class Regraft:
    """A ``From`` with another subtree, or into another part of the destination.

    Attributes:
        index: which source.
        subtree, into: those of the ``From`` now.
        words: what was wrong, and what to do.
        code: the option as it is to be written; empty where one is to be left out.
    """

    index: int
    subtree: Keys
    into: Keys
    words: str
    code: str


@dataclass(frozen=True)
class Otherwise:
    """The same load under other rules, and of its source given in another way.

    Attributes:
        rules: the rules, in place of those that were given.
        subtree: the part of the source.
        into: the part of the destination that it feeds.
        separator: what the source's names are split at; empty where they are not.
        regraft: one of its ``From``s, written otherwise.
    """

    rules: tuple[Rule, ...] = ()
    subtree: Keys = ()
    into: Keys = ()
    separator: str = ""
    regraft: Regraft | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Decisions:
    """What happens to each leaf, and everything that is wrong.

    Attributes:
        tree: the walked destination.
        sources: where values come from.
        lines: what is decided for each slot of the tree; ``entry`` writes one out.
        found: every disagreement, whatever its verdict, by kind and then in the destination's order; some of
            them to be written when somebody looks at ``findings``.
        left: source leaves that feed nothing, each with why; likewise, at ``unused``.
        checks: of values, to be done.
        done: those that were.
        given: the rules that were given.
        before_rules: the source's leaves under the names that those rules see.
        idle: finds the patterns of the policy that match no name.
        again: decides the same load otherwise; None where it cannot be done so.
        regrafts: finds what may have been meant by a ``From`` that names nothing.
        dated: for each source, between which versions of a history it stands; None where that is not known.
        seen: how the destination was; None where it has to be walked again to tell.
    """

    tree: Tree
    sources: tuple[Source, ...]
    lines: Sequence[Line]
    found: tuple[Finding | LaterFinding, ...]
    left: tuple[Unused | LaterUnused, ...]
    checks: tuple[Check, ...]
    done: tuple[Check, ...] = ()
    given: tuple[Rule, ...] = ()
    before_rules: Callable[[], Mapping[Keys, Spec]] = dict
    idle: Callable[[], tuple[IdlePattern, ...]] = tuple
    again: Callable[[Otherwise], Decisions | None] = lambda _: None
    regrafts: Callable[[], tuple[Regraft, ...]] = tuple
    dated: tuple[Dated | None, ...] = ()
    seen: Seen | None = None

    def __post_init__(self) -> None:
        # In runs of one kind, which are few, whatever there is of each.
        runs = [(_ORDER[kind], list(run)) for kind, run in groupby(self.found, operator.attrgetter("kind"))]
        runs.sort(key=operator.itemgetter(0))
        object.__setattr__(self, "found", tuple(chain.from_iterable(run for _, run in runs)))

    # Leaf by leaf.

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """One entry for each leaf of the destination, in the destination's order."""
        return tuple(self.entry(index) for index, line in enumerate(self.lines) if line is not None)

    def entry(self, index: int) -> Entry:
        """The entry for a slot, which is one of a leaf."""
        line = self.lines[index]
        assert line is not None  # or it is no leaf's
        if isinstance(line, Entry):
            return line
        return self._same_name(index) if line is SAME_NAME else self._missing(index)

    def _same_name(self, index: int) -> Entry:
        name, value = Name(self.tree.names[index]), self.tree.values[index]
        spec = without_sharding(value)
        label = self.sources[0].label
        return Entry(
            name, Action.LOAD, spec, (SourceLeaf(label, name, spec),),
            optional=self.tree.names[index] in self.tree.optional, value=Leaf(0, name, spec),
        )  # fmt: skip

    def _missing(self, index: int) -> Entry:
        name, spec = Name(self.tree.names[index]), without_sharding(spec_of(self.tree.values[index]))
        return Entry(name, Action.KEEP, spec, reason=LEFT_AS_MISSING)

    @cached_property
    def _by_name(self) -> dict[Name, Entry]:
        found = {entry.name: entry for entry in self.entries}
        for entry in self.entries:
            found.update(dict.fromkeys(entry.aliases, entry))
        return found

    def __getitem__(self, name: NameLike) -> Entry:
        """The entry of a leaf, by its name or by any alias.

        Raises:
            KeyError: the destination has no leaf of that name.
        """
        try:
            return self._by_name[as_name(name)]
        except KeyError:
            raise KeyError(f"the destination has no leaf {print_name(as_name(name))!r}") from None

    @cached_property
    def _names(self) -> frozenset[Keys]:
        """The names of all leaves, aliases too; entries are not made for them."""
        lines = [
            (name, line) for name, line in zip(self.tree.names, self.lines, strict=True) if line is not None
        ]
        aliases = (alias for _, line in lines if isinstance(line, Entry) for alias in line.aliases)
        return frozenset(chain((name for name, _ in lines), aliases))

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, (str, tuple)) and as_name(name) in self._names
        except (RuleError, TypeError):  # no name of anything
            return False

    @property
    def abstract_kept(self) -> list[int]:
        """Slots that are kept and hold only a spec, whose value ``init`` must give."""
        return [
            index
            for index, row in enumerate(self.lines)
            if (row is MISSING or (isinstance(row, Entry) and row.keeps_something))
            and is_abstract(self.tree.values[index])
        ]

    @cached_property
    def from_sources(self) -> Sequence[tuple[int, Expression]]:
        """The slots that are made of what sources have, each with of what, but for those of the same name."""
        return [
            (index, line.value)
            for index, line in enumerate(self.lines)
            if isinstance(line, Entry) and line.value is not None
        ]

    @cached_property
    def same_names(self) -> Sequence[int]:
        """The slots that load what the first source has under their names, as it is."""
        return [index for index, line in enumerate(self.lines) if line is SAME_NAME]

    @cached_property
    def from_nothing(self) -> Sequence[int]:
        """The slots that are zeroed, or load the source's False, for which there is no value to be read."""
        return [
            index
            for index, line in enumerate(self.lines)
            if isinstance(line, Entry)
            and (line.action == Action.ZERO or (line.action == Action.LOAD and line.value is None))
        ]

    # As a whole.

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Every disagreement, whatever its verdict, by kind and then in the destination's order."""
        with no_collections():
            return tuple(map(written, self.found))

    @cached_property
    def unused(self) -> tuple[Unused, ...]:
        """Source leaves that feed nothing, each with why."""
        with no_collections():
            return tuple(one if isinstance(one, Unused) else one.unused() for one in self.left)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings whose verdict is ``error``."""
        return tuple(finding for finding in self.findings if finding.verdict == "error")

    @cached_property
    def noted_errors(self) -> tuple[Noted, ...]:
        """The errors as they are noted: what is asked where only kinds, names and numbers are looked at."""
        return tuple(one for one in self.found if one.verdict == "error")

    @property
    def errors_despite_init(self) -> tuple[Finding, ...]:
        """The errors that are left where ``init`` makes what is kept and abstract."""
        return tuple(finding for finding in self.errors if not KINDS[finding.kind].settled_by_init)

    @property
    def pending(self) -> tuple[Name, ...]:
        """Names whose value check is still to be done, in ``verify()`` or ``load()``."""
        return tuple(dict.fromkeys(Name(check.name) for check in self.checks))

    @property
    def ok(self) -> bool:
        """Whether no error is known so far."""
        return not self.noted_errors

    def count(self) -> Mapping[Action, tuple[int, int]]:
        """Leaves and elements for each action, without making entries."""
        return self._count

    @cached_property
    def _count(self) -> dict[Action, tuple[int, int]]:
        count = dict.fromkeys(Action, (0, 0))
        for value, row in zip(self.tree.values, self.lines, strict=True):
            if row is not None:
                action = row.action if isinstance(row, Entry) else _DOES[row]
                leaves, size = count[action]
                count[action] = (leaves + 1, size + size_of(value))
        return count

    @property
    def leaves(self) -> int:
        """How many leaves the destination has."""
        return sum(leaves for leaves, _ in self._count.values())

    @property
    def coverage(self) -> float:
        """Elements loaded / elements in the destination, from 0.0 to 1.0.

        Leaves without elements have loaded all of them: 1.0. Where the destination has no leaves it is 1.0 if
        the source has none either, and 0.0 if it has. A leaf with a problem is not loaded, nor is one that
        is zeroed or kept. Tied leaves count once.
        """
        count = self.count()
        total = sum(size for _, size in count.values())
        loaded = count[Action.LOAD][1] + count[Action.TIE][1]
        if total or any(leaves for leaves, _ in count.values()):
            return loaded / total if total else 1.0
        return 0.0 if any(source.shaped() for source in self.sources) else 1.0

    def summary(self) -> str:
        """One line: ``148 of 150 leaves load (98.7 % of 86.6 M elements); 2 kept; 3 problems``."""
        count = self.count()
        total = sum(leaves for leaves, _ in count.values())
        size = sum(size for _, size in count.values())
        loaded = count[Action.LOAD][0] + count[Action.TIE][0]
        parts = [
            "the destination has no leaves"
            if not total
            else f"{loaded:,} of {total:,} {'leaf' if total == 1 else 'leaves'} "
            f"{'loads' if total == 1 else 'load'} ({percent(self.coverage)} of {quantity(size)} elements)"
        ]
        problems = len(self.noted_errors)
        for number, word in ((count[Action.ZERO][0], "zeroed"), (count[Action.KEEP][0], "kept")):
            if number:
                parts.append(f"{number:,} {word}")
        counted = sum(isinstance(row, Entry) and row.by_position for row in self.lines)
        if counted:
            parts.append(f"{counted:,} by position")
        forgiven = len(self.found) - problems
        if forgiven:
            parts.append(f"{forgiven:,} forgiven")
        if self.pending:
            parts.append(f"{len(self.pending):,} to check by value")
        parts.append(f"{problems:,} problem{'' if problems == 1 else 's'}" if problems else "no problems")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The whole plan as JSON-like data; nothing is grouped or cut."""
        return {
            "summary": self.summary(),
            "ok": self.ok,
            "coverage": self.coverage,
            "sources": [source.label for source in self.sources],
            "versions": [dated_dict(dated) for dated in self.dated],
            "entries": [entry_dict(entry) for entry in self.entries],
            "findings": [finding_dict(finding) for finding in self.findings],
            "pending": [str(name) for name in self.pending],
            "unused": [{**leaf_dict(leaf), "at": str(leaf.at), "why": leaf.why} for leaf in self.unused],
        }

    # What would help.

    @cached_property
    def suggestions(self) -> Suggestions:
        """Rules for what did not match; see ``Plan.suggest``."""
        about_rules = [one for one in self.found if KINDS[one.kind].about_rules]
        findings = list(map(written, about_rules))
        idle = [finding.rule for finding in findings if finding.rule is not None and not finding.source]
        given = [rule for rule in self.given if rule not in idle]
        return suggest(*self.without_rules, given=given)

    @cached_property
    def diagnosis(self) -> tuple[str, ...]:
        """What source and destination differ in as a whole, in sentences; nothing where the plan is ok."""
        return () if self.ok else diagnose(*self.without_rules)

    @cached_property
    def without_rules(self) -> tuple[dict[Keys, Spec], dict[Keys, Spec]]:
        """Destination and source without what the plan's rules feed and take."""
        # What is marked needs no Entry to be made for it; none that is optional is marked as missing.
        destination = {
            name: row.spec if isinstance(row, Entry) else without_sharding(spec_of(value))
            for name, value, row in zip(self.tree.names, self.tree.values, self.lines, strict=True)
            if row is not None
            and not (
                isinstance(row, Entry)
                and (row.rule is not None or (row.optional and row.action == Action.KEEP))
            )
        }
        # What a rule only copied is still there, under its own name too.
        patterns = [pattern for rule in self.given if not rule.copies for pattern in rule.patterns]
        source = {
            name: spec
            for name, spec in self.before_rules().items()
            if not any(pattern.matches(print_name(name)) for pattern in patterns)
        }
        return destination, source

    # With other findings.

    def with_findings(self, findings: Sequence[Finding]) -> Self:
        """The same with other findings."""
        return replace(self, found=tuple(findings))

    def verified(self, failed: Sequence[Finding]) -> Self:
        """The same with its value checks done, of which these failed."""
        if not failed and not self.checks:
            return self
        lines = [
            replace(row, needs_values=False) if isinstance(row, Entry) and row.needs_values else row
            for row in self.lines
        ]
        return replace(
            self, lines=lines, found=(*self.found, *failed), checks=(), done=(*self.done, *self.checks)
        )


def percent(share: float) -> str:
    """A share of elements, never rounded up to 100 %: what leaves anything out must not say it loads all."""
    return "100 %" if share >= 1 else f"{min(share * 100, 99.9):.1f} %"
