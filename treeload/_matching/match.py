"""Destination slots and source leaves, by name, under rules and a policy: a ``Plan``. Pure.

Owns the order in which a load is decided. No array is read here: where a decision needs values (absent
and zero, ties) a check is left for ``_loading``.

In two passes. The first takes the leaves that simply agree (one name, one shape, one dtype), which is
nearly all of them in any tree that loads, at a fraction of a microsecond each. The second decides the
rest one by one, with words for whatever is wrong: the destination's side (``slots``), the source's
(``leftovers``), the whole (``whole``). All of them write into one ``Draft``.
"""

from __future__ import annotations

from collections.abc import Sequence

from treeload._findings.policy import Verdicts
from treeload._leaves.selection import Scope, Within
from treeload._matching.agree import take_what_agrees
from treeload._matching.follow_ties import offer_ties
from treeload._matching.ledger import Draft
from treeload._matching.leftovers import decide_leftovers
from treeload._matching.offers import Offers, OpenedPart
from treeload._matching.positions import by_position, refuse_miscounts
from treeload._matching.slots import decide
from treeload._matching.whole import audit
from treeload._plan import Hands, Plan
from treeload._rules.rule import Rule
from treeload._rules.tie import Tie
from treeload._trees.tree import Tree


def match(
    tree: Tree,
    parts: Sequence[OpenedPart],
    *,
    rules: Sequence[Rule],
    policy: Verdicts,
    scope: Scope,
    hands: Hands,
) -> Plan:
    """The plan of a load into ``tree``; reads names, shapes and dtypes only.

    Raises:
        SourceError: a source's ``specs`` could not be had.
        RuleError: a scope that cannot mean anything.
    """
    parts = [by_position(tree, part) if part.by_position else part for part in parts]
    ties = [rule for rule in rules if isinstance(rule, Tie)]
    offers = Offers.of(parts, tuple(rule for rule in rules if not isinstance(rule, Tie)))
    draft = Draft(tree, offers, parts, policy, Within.of(scope))
    draft.findings += refuse_miscounts(tree, offers, policy)
    slow = take_what_agrees(draft)
    if ties:
        slow = _without(draft, slow, offer_ties(draft, ties))
    if slow or offers.columns is None:
        _decide_the_rest(draft, slow)
    audit(draft, slow)
    return Plan(
        given=tuple(rules),
        before_rules=offers.before_rules,
        tree=tree,
        sources=tuple(part.source for part in parts),
        rows=draft.rows,
        findings=draft.findings,
        unused=draft.unused,
        checks=tuple(draft.checks),
        hands=hands,
    )


def _without(draft: Draft, slow: Sequence[int], tied: set[int]) -> list[int]:
    """Those to be decided one by one, with the tied slots among them."""
    for index in tied:
        draft.rows[index] = None
    return sorted({*slow, *tied})


def _decide_the_rest(draft: Draft, slow: Sequence[int]) -> None:
    offers = draft.offers
    leftover = offers.shaped.keys() - draft.agreeing
    draft.opened = offers.open_boxes(draft.slots, draft.slot_prefixes, leftover)
    for index in slow:
        decide(draft, index)
    leftover = (leftover - set(draft.opened.values())) | draft.opened.keys()
    decide_leftovers(draft, [name for name in offers.shaped if name in leftover])
