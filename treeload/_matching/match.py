"""Destination slots and source leaves, by name, under rules and a policy: ``Decisions``. Pure.

Owns the order in which a load is decided. No array is read here: where a decision needs values (absent
and zero, ties) a check is left for later.

In two passes. The first takes the leaves that simply agree (one name, one shape, one dtype), which is
nearly all of them in any tree that loads (``agree``). The second decides the rest one by one, with words for
whatever is wrong: the destination's side (``slots``), the source's (``leftovers``), the whole (``whole``).
Where the other side plainly has nothing the words come later (``apart``): of wrong names there may be as many
as leaves.
They ask the ``Sides``, which are frozen, and write into one ``Ledger``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from treeload._errors import TreeloadError
from treeload._findings.kinds import Kind
from treeload._findings.policy import Verdicts
from treeload._leaves.selection import Scope, Within
from treeload._matching.agree import Agreement, take_what_agrees
from treeload._matching.apart import Apart
from treeload._matching.boxes import open_boxes
from treeload._matching.follow_ties import follow_ties
from treeload._matching.idle import idle_patterns
from treeload._matching.ledger import Ledger
from treeload._matching.leftovers import decide_leftovers
from treeload._matching.offers import Offers, offered
from treeload._matching.parts import OpenedPart
from treeload._matching.positions import Miscount, by_number, by_position, miscount
from treeload._matching.regraft import regrafts
from treeload._matching.sides import Sides
from treeload._matching.slots import decide, without_spare
from treeload._matching.versions import note_undated, with_steps
from treeload._matching.whole import audit, refuse_miscount
from treeload._plans.decisions import Decisions, Otherwise
from treeload._plans.entry import SAME_NAME
from treeload._rules.apply import Arrival
from treeload._rules.rule import Rule
from treeload._rules.tie import Tie
from treeload._sources.separated import SeparatedSource
from treeload._sources.stamp import WHOLE
from treeload._trees.seen import seen
from treeload._trees.tree import Tree
from treeload._versions.forgive import StepVerdicts
from treeload._versions.version import Steps


def match(
    tree: Tree, parts: Sequence[OpenedPart], *, rules: Sequence[Rule], policy: Verdicts, scope: Scope,
    history: Steps | None = None,
) -> Decisions:  # fmt: skip
    """What a load into ``tree`` will do; reads names, shapes and dtypes only.

    Raises:
        SourceError: a source's ``specs`` could not be had, or what it says of its version is none.
        RuleError: a scope that cannot mean anything; ties in a circle; a version stated without a history.
    """
    opened, undated = with_steps(parts, history)

    def is_right(index: int, number: int) -> bool:
        """Whether nothing else is wrong if the source there is of this version."""
        stated = replace(parts[index], stated={WHOLE: number})
        tried = [*parts[:index], stated, *parts[index + 1 :]]
        made = match(tree, tried, rules=rules, policy=policy, scope=scope, history=history)
        return all(finding.kind == Kind.VERSION for finding in made.errors)

    within = Within.of(scope)
    ties = [rule for rule in rules if isinstance(rule, Tie)]
    offers, agreement = _offered(tree, opened, [rule for rule in rules if not isinstance(rule, Tie)])
    wrong = [one for part in offers.parts if part.by_position for one in [miscount(tree, part)] if one]
    if wrong:
        offers = offers.with_arrivals(_blocked(offers, wrong))
    if within is not None:
        agreement = Agreement([None] * len(tree.names), range(len(tree.names)))
    stepped = any(part.steps for part in offers.parts)
    of_steps = StepVerdicts(policy, offers.stood) if stepped else None
    sides = Sides(tree, offers, of_steps or policy, within, of_steps)
    rows, slow = list(agreement.rows), list(agreement.rest)
    followed = follow_ties(sides, ties) if ties else None
    if followed is not None:
        sides, slow = followed.sides, sorted({*slow, *followed.slots})
        for index in followed.slots:
            rows[index] = None
    sides = without_spare(sides)
    ledger = Ledger(sides, rows)
    for each in undated:
        note_undated(ledger, each, partial(is_right, each.part))
    for one in wrong:
        refuse_miscount(ledger, one)
    if followed is not None:
        followed.note(ledger)
    if slow or not agreement.nothing_left:
        agreeing = {name for name, row in zip(tree.names, rows, strict=True) if row is SAME_NAME}
        apart = Apart(sides, ledger.neighbours)
        for index in slow:
            if (plain := apart.missing(index)) is not None:
                ledger.keep_missing(index, plain)
            else:
                decide(sides, ledger, index)
        decide_leftovers(sides, ledger, [name for name in sides.offers.shaped if name not in agreeing], apart)
    audit(sides, ledger, slow)
    return Decisions(
        tree=tree,
        sources=tuple(part.source for part in opened),
        lines=ledger.rows,
        found=tuple(ledger.findings),
        left=tuple(ledger.unused),
        checks=tuple(ledger.checks),
        given=tuple(rules),
        before_rules=sides.offers.before_rules,
        idle=partial(idle_patterns, sides, tuple(ledger.findings)),
        again=partial(_again, tree, tuple(parts), policy, scope, history),
        regrafts=partial(regrafts, sides),
        dated=tuple(part.dated for part in opened),
        seen=None if all(part.source.in_memory for part in opened) else seen(tree),
    )


def _again(
    tree: Tree, parts: Sequence[OpenedPart], policy: Verdicts, scope: Scope, history: Steps | None,
    other: Otherwise,
) -> Decisions | None:  # fmt: skip
    """The same load otherwise; None where it cannot be: of several sources, of one with its own rules."""
    if other.subtree or other.into or other.separator:
        if len(parts) > 1 or not parts[0].keeps_names:
            return None
        source = parts[0].source
        if other.separator:
            source = SeparatedSource(source, other.separator)
        parts = [replace(parts[0], source=source, subtree=other.subtree, into=other.into, explicit=True)]
    if other.regraft is not None:
        at = other.regraft.index
        meant = replace(parts[at], subtree=other.regraft.subtree, into=other.regraft.into)
        parts = [*parts[:at], meant, *parts[at + 1 :]]
    try:
        return match(tree, parts, rules=other.rules, policy=policy, scope=scope, history=history)
    except TreeloadError:  # names that split into one another, say
        return None


def _offered(tree: Tree, parts: Sequence[OpenedPart], rules: Sequence[Rule]) -> tuple[Offers, Agreement]:
    """What the parts offer, their boxes open, and what of it simply agrees."""
    named = [by_position(tree, part) if part.by_position else part for part in parts]
    offers = offered(named, rules)
    agreement = take_what_agrees(tree, offers)
    if agreement.nothing_left:
        return offers, agreement
    aliases = [alias for several in tree.aliases.values() for alias in several]
    opened = [by_number(tree, open_boxes(part, (*tree.names, *aliases), rules)) for part in named]
    if opened == named:
        return offers, agreement
    offers = offered(opened, rules)
    return offers, take_what_agrees(tree, offers)


def _blocked(offers: Offers, wrong: Sequence[Miscount]) -> dict[tuple[str, ...], Arrival]:
    """Nothing, for each leaf that a source with a wrong count was to feed: else it would be missing too."""
    return {
        name: Arrival(None, None, ())
        for one in wrong for name in one.names if offers.arrival(name) is None
    }  # fmt: skip
