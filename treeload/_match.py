"""Destination slots and source leaves, by name, under rules and a policy: a ``Plan``. Pure.

Owns the order in which a load is decided. No array is read here: where a decision needs values (absent
and zero, ties) a check is left for ``_execute``.

In two passes. The first takes the leaves that simply agree (one name, one shape, one dtype), which is
nearly all of them in any tree that loads, at a fraction of a microsecond each. The second settles the
rest one by one, with words for whatever is wrong: the destination's side (``_settle``), the source's
(``_leftovers``), the whole (``_audit``). All of them write into one ``Draft``.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import compress, repeat
from typing import Any

import jax

from treeload._audit import audit
from treeload._draft import Draft
from treeload._fit import wide_dtypes
from treeload._leftovers import settle_leftovers
from treeload._offers import Graft, Offers
from treeload._plan import PLAIN, Hands, Plan
from treeload._policy import Policy
from treeload._positions import by_position, refuse_miscounts
from treeload._rules import Rule
from treeload._scope import Scope, Within
from treeload._settle import settle
from treeload._specs import Kind, is_abstract
from treeload._ties import Tie
from treeload._trees import Tree
from treeload._tying import offer_ties
from treeload.sources._memory import Number


def match(
    tree: Tree,
    grafts: Sequence[Graft],
    *,
    rules: Sequence[Rule],
    policy: Policy,
    scope: Scope,
    hands: Hands,
) -> Plan:
    """The plan of a load into ``tree``; reads names, shapes and dtypes only.

    Raises:
        SourceError: a source's ``specs`` could not be had.
        RuleError: a scope that cannot mean anything.
    """
    grafts = [by_position(tree, graft) if graft.by_position else graft for graft in grafts]
    ties = [rule for rule in rules if isinstance(rule, Tie)]
    offers = Offers.of(grafts, tuple(rule for rule in rules if not isinstance(rule, Tie)))
    draft = Draft(tree, offers, grafts, policy, Within.of(scope))
    draft.findings += refuse_miscounts(tree, offers, policy)
    slow = _take_what_agrees(draft)
    if ties:
        slow = _without(draft, slow, offer_ties(draft, ties))
    if slow or offers.columns is None:
        _settle_the_rest(draft, slow)
    audit(draft, slow)
    return Plan(
        given=tuple(rules),
        before_rules=offers.before_rules,
        tree=tree,
        sources=tuple(graft.source for graft in grafts),
        rows=draft.rows,
        findings=draft.findings,
        unused=draft.unused,
        checks=tuple(draft.checks),
        hands=hands,
    )


class _Nothing:
    """Stands for a source leaf that is not there: its shape and dtype equal no other."""

    shape = None
    dtype = None


_NOTHING = _Nothing()
_SHAPE, _DTYPE, _AVAL = map(operator.attrgetter, ("shape", "dtype", "aval"))


def _take_what_agrees(draft: Draft) -> list[int]:
    """Marks the slots whose source leaf agrees in all; gives those to be settled one by one."""
    tree, rows, offers = draft.tree, draft.rows, draft.offers
    if offers.plain is None or draft.scope is not None:
        offers.columns = None
        return list(range(len(rows)))
    where: Sequence[int] = range(len(rows))
    names, values = tree.names, tree.values
    if any(tree.kinds):
        where = [index for index, kind in enumerate(tree.kinds) if kind == Kind.ARRAY]
        names, values = [names[index] for index in where], [values[index] for index in where]
    # Column by column: the loops are those of map and operator, at half the time of one written out.
    if offers.columns is not None and offers.columns[0] == names:
        offered = offers.columns[1]
    else:
        offers.columns = None  # from here on, whoever looks at it learns that the names differ
        offered = list(map(offers.shaped.get, names, repeat(_NOTHING)))
    agrees = _same_specs(offered, values)
    # What no tree of plain arrays has is looked for once, not at each leaf.
    if Number in set(map(type, offered)):
        agrees = [same and type(one) is not Number for same, one in zip(agrees, offered, strict=True)]
    if jax.ShapeDtypeStruct in set(map(type, values)) and (wide := wide_dtypes()):
        agrees = [
            same and not (is_abstract(one) and one.dtype in wide)
            for same, one in zip(agrees, values, strict=True)
        ]
    if tree.aliases:
        agrees = [same and name not in tree.aliases for same, name in zip(agrees, names, strict=True)]
    if len(where) == len(rows) and all(agrees):
        rows[:] = repeat(PLAIN, len(rows))
        return []
    for index in compress(where, agrees):
        rows[index] = PLAIN
    return [index for index, row in enumerate(rows) if row is not PLAIN]


def _without(draft: Draft, slow: Sequence[int], tied: set[int]) -> list[int]:
    """Those to be settled one by one, with the tied slots among them."""
    for index in tied:
        draft.rows[index] = None
    return sorted({*slow, *tied})


def _same_specs(some: Sequence[Any], others: Sequence[Any]) -> list[bool]:
    """Whether each pair has one shape and one dtype."""
    if all(issubclass(cls, jax.Array) for cls in {*map(type, some), *map(type, others)}):
        # JAX makes one aval for all arrays alike, and to ask for it costs a third of shape and dtype.
        agrees = list(map(operator.is_, map(_AVAL, some), map(_AVAL, others)))
        if all(agrees):
            return agrees
    shapes = map(operator.eq, map(_SHAPE, some), map(_SHAPE, others))
    dtypes = map(operator.eq, map(_DTYPE, some), map(_DTYPE, others))
    return list(map(operator.and_, shapes, dtypes))


def _settle_the_rest(draft: Draft, slow: Sequence[int]) -> None:
    offers = draft.offers
    leftover = offers.shaped.keys() - draft.agreeing
    draft.opened = offers.open_boxes(draft.slots, draft.slot_prefixes, leftover)
    for index in slow:
        settle(draft, index)
    leftover = (leftover - set(draft.opened.values())) | draft.opened.keys()
    settle_leftovers(draft, [name for name in offers.shaped if name in leftover])
