"""What a source holds, under the names and in the layout of the newest version: steps at work.

Owns how a step meets the leaves below the nodes of its scope, and what is remembered of a leaf's way. Refuses
to own which steps there are (``version``), and what becomes of the leaves then (``_matching``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from treeload._findings.kinds import Kind
from treeload._naming.name import Keys, prefixes_of, print_name
from treeload._naming.pattern import Pattern
from treeload._naming.template import compile_template
from treeload._ops.expression import Expression
from treeload._rules.apply import Arrival, RuleFailure, apply_rules, rename_empty
from treeload._rules.rule import Rule
from treeload._versions.version import Version

Nothing: TypeAlias = "bool | None"


@dataclass(frozen=True, slots=True)
class Trail:
    """The way of a leaf through the steps.

    Attributes:
        stood: each step, and the name that the leaf has after it, relative to the node of its scope.
        scopes: the scopes of the steps whose rules took it.
        dropped: the step, if any, that names it among what its version has no longer.
    """

    stood: tuple[tuple[Version, Keys], ...] = ()
    scopes: frozenset[str] = frozenset()
    dropped: Version | None = None

    @classmethod
    def joined(cls, trails: Sequence[Trail]) -> Trail:
        """The way of what is made of several leaves: all of theirs."""
        return cls(
            tuple(dict.fromkeys(stood for trail in trails for stood in trail.stood)),
            frozenset(scope for trail in trails for scope in trail.scopes),
            next((trail.dropped for trail in trails if trail.dropped is not None), None),
        )

    def on(self, step: Version, name: Keys, *, by_rule: bool) -> Trail:
        """The way one step on, where the leaf is called ``name``."""
        scopes = self.scopes | {step.key} if by_rule else self.scopes
        gone = step.policy.names(Kind.UNEXPECTED, print_name(name))
        return Trail((*self.stood, (step, name)), scopes, step if gone else self.dropped)


@dataclass(frozen=True, slots=True)
class Moved:
    """A leaf of a source on its way, or at the end of it.

    Attributes:
        name: its name now.
        value: what it is made of.
        rule: the last rule that took it.
        trail: its way so far.
        spare: a rule copied it, so it is of use already.
    """

    name: Keys
    value: Expression
    rule: Rule | None
    trail: Trail
    spare: bool = False


@dataclass
class Migrated:
    """What is there after the steps.

    Attributes:
        leaves: the leaves.
        left: those that a step dropped, and a later one has a new leaf in the place of.
        absent: slots that hold nothing.
        statics: slots that hold what never loads.
        failures: rules that did not do their work.
        failed: names that a rule was to feed and did not.
    """

    leaves: list[Moved]
    absent: dict[Keys, Nothing]
    statics: set[Keys]
    left: list[Moved] = field(default_factory=list)
    failures: list[RuleFailure] = field(default_factory=list)
    failed: list[tuple[Keys, Arrival]] = field(default_factory=list)


def migrate(
    steps: Iterable[Version],
    values: Iterable[tuple[Keys, Expression]],
    absent: Mapping[Keys, Nothing],
    statics: Iterable[Keys],
) -> Migrated:
    """What a source holds after ``steps``, given what it holds under its own names."""
    held = Migrated([Moved(name, value, None, Trail()) for name, value in values], dict(absent), set(statics))
    for step in steps:
        _take(step, held)
    return held


def _take(step: Version, held: Migrated) -> None:
    """Takes everything one step on."""
    node_of, idle = _nodes(step), _Idle(step)

    def renamed(name: Keys) -> list[Keys]:
        """Where a name without a value goes: to several, where a rule copies it."""
        node = node_of(name)
        if node is None:
            return [name]
        return [(*node, *new) for new in rename_empty(name[len(node) :], step.rules)]

    # Where an earlier rule failed is said under the names of today.
    lost = held.failed
    held.failed = [(new, one) for name, one in lost for new in renamed(name)]
    held.failures = [
        one if one.name is None else replace(one, name=renamed(one.name)[0]) for one in held.failures
    ]
    below: dict[Keys | None, list[Moved]] = {} if step.nodes is not None else {(): []}
    for one in held.leaves:
        below.setdefault(node_of(one.name), []).append(one)
    held.leaves = below.pop(None, [])
    empty = _below(held.absent, node_of)
    failed = _below((name for name, _ in lost), node_of)
    for node, inside in below.items():
        assert node is not None
        failures = _take_node(step, node, inside, held)
        held.failures += idle.noted(node, failures, empty.get(node, ()), failed.get(node, ()))
    held.failures += idle.everywhere()
    held.absent = {new: nothing for name, nothing in held.absent.items() for new in renamed(name)}
    held.statics = {new for name in held.statics for new in renamed(name)}


def _take_node(step: Version, node: Keys, inside: Sequence[Moved], held: Migrated) -> list[RuleFailure]:
    """Takes the leaves below one node one step on; the rules that failed there."""
    by_name: dict[Keys, list[Moved]] = {}
    for one in inside:
        by_name.setdefault(one.name[len(node) :], []).append(one)
    own = [(name, one.value) for name, several in by_name.items() for one in several]
    arrived, failures = apply_rules(own, step.rules)
    for name, arrival in arrived:
        if arrival.value is None:
            held.failed.append(((*node, *name), arrival))
            continue
        made_of = [one for taken in arrival.taken for one in by_name[taken]]
        if arrival.rule is None:  # of two that have one name, each goes its own way
            made_of = [one for one in made_of if one.value is arrival.value]
        trail = Trail.joined([one.trail for one in made_of])
        spare = arrival.spare or (arrival.rule is None and made_of[0].spare)
        there = Moved((*node, *name), arrival.value, arrival.rule or made_of[0].rule, trail, spare)
        if trail.dropped is not None and _brings(step, name):
            held.left.append(there)
        else:
            trail = trail.on(step, name, by_rule=arrival.rule is not None)
            held.leaves.append(replace(there, trail=trail))
    return failures


def _brings(step: Version, name: Keys) -> bool:
    """Whether the step names a leaf among what its version brought, so that an older source has none."""
    printed = print_name(name)
    return step.policy.names(Kind.MISSING, printed) or step.policy.zero_if_absent(printed)


@dataclass
class _Idle:
    """The failures of one step: a rule is idle where it did nothing below any node of the scope."""

    step: Version
    found: dict[int, RuleFailure] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)

    def noted(
        self, node: Keys, failures: Sequence[RuleFailure], empty: Sequence[Keys], lost: Sequence[Keys]
    ) -> Iterator[RuleFailure]:
        """The failures below one node but for those of idle rules.

        A rule is not idle that moves a slot without a value, of ``empty``, or would have taken what an
        earlier rule failed to feed, of ``lost``.
        """
        failed = {id(one.rule): one for one in failures if not one.taken}
        for rule in self.step.rules:
            moves = any(rule.rename(name) is not None for name in empty)
            if id(rule) not in failed or moves or any(_takes(rule, print_name(name)) for name in lost):
                self.busy.add(id(rule))
            else:
                self.found.setdefault(id(rule), self._said(node, failed[id(rule)]))
        return (self._said(node, one) for one in failures if one.taken)

    def everywhere(self) -> list[RuleFailure]:
        """Those of the rules that did nothing at all."""
        return [one for rule, one in self.found.items() if rule not in self.busy]

    def _said(self, node: Keys, one: RuleFailure) -> RuleFailure:
        """A failure with its place in the whole, its step, and whether the step's policy forgives it."""
        forgiven = self.step.policy.verdict(Kind.RULE, one.destination_text) == "ignore"
        name = None if one.name is None else (*node, *one.name)
        return replace(one, name=name, into=node, message=f"{self.step}: {one.message}", forgiven=forgiven)


def _nodes(step: Version) -> Callable[[Keys], Keys | None]:
    """What tells the innermost node of the step's scope that a leaf lies below; None where there is none."""
    nodes = step.nodes
    if nodes is None:
        return lambda name: ()
    known: dict[Keys, Keys | None] = {}

    def node_of(name: Keys) -> Keys | None:
        parent = name[:-1]
        if parent not in known:
            above = reversed(prefixes_of(name))
            known[parent] = next((node for node in above if nodes.matches(print_name(node))), None)
        return known[parent]

    return node_of


def _below(names: Iterable[Keys], node_of: Callable[[Keys], Keys | None]) -> dict[Keys, list[Keys]]:
    """Each node of a scope, and the names below it, relative to it."""
    found: dict[Keys, list[Keys]] = {}
    for name in names:
        node = node_of(name)
        if node is not None:
            found.setdefault(node, []).append(name[len(node) :])
    return found


# The way back.


def origins(steps: Sequence[Version], name: Keys) -> Iterator[tuple[Version, Keys]]:
    """Each step, the last first, and the names that a leaf called ``name`` in the end may have after it.

    Relative to the node of its scope. As far as the rules can be turned round: for what has no value, and
    so left no trail.
    """
    names = [name]
    for step in reversed(steps):
        before: list[Keys] = []
        for each in names:
            node = _nodes(step)(each)
            if node is None:
                before.append(each)
                continue
            within = each[len(node) :]
            yield step, within
            before += [(*node, *own) for own in names_before(step.rules, within)]
        names = before


def names_before(rules: Sequence[Rule], name: Keys) -> list[Keys]:
    """The names that ``rules`` make into ``name``, as far as the rules can be turned round.

    Of leaves that an index tells apart it is the first.
    """
    printed = print_name(name)
    found = [] if any(_takes(rule, printed) for rule in rules) else [name]
    for rule in rules:
        inverse = rule.inverse()
        matches = [] if inverse is None else [pattern.match(printed) for pattern in inverse.patterns]
        for match in matches:
            for pattern in rule.patterns if match is not None else ():
                assert match is not None
                own = _filled(pattern, match.groupdict())
                first = own and next((one for one in rules if _takes(one, print_name(own))), None)
                if own is not None and first is rule:
                    found.append(own)
    return found


def _takes(rule: Rule, printed: str) -> bool:
    return any(pattern.matches(printed) for pattern in rule.patterns)


def _filled(pattern: Pattern, captures: Mapping[str, str]) -> Keys | None:
    """A name that a pattern matches with these captures, an index of 0 for one that lacks; else None."""
    if pattern.opaque or pattern.wild or not pattern.many.issubset(captures):
        return None
    return compile_template(pattern.text, pattern).expand(
        {**dict.fromkeys(pattern.captures, "0"), **captures}
    )
