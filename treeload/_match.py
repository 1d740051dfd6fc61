"""Destination slots and source leaves, by name, under rules and a policy: a ``Plan``. Pure.

Owns every decision of a load: what happens to each destination leaf, and each disagreement with its
verdict. Refuses to own values: no array is read here; where a decision needs values (absent and zero,
ties) it leaves a check for ``_execute``.

In two passes. The first takes the leaves that simply agree (one name, one shape, one dtype), which is
nearly all of them in any tree that loads, at a fraction of a microsecond each. The second settles the
rest one by one, with words for whatever is wrong.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress, repeat
from typing import Any, TypeAlias

import jax
import numpy as np

from treeload._errors import RuleError
from treeload._names import Name, NearNames, print_name
from treeload._offers import Graft, Offers
from treeload._ops import Leaf, Value, ops_of
from treeload._patterns import Pattern, PatternLike, compile_pattern, quote
from treeload._plan import (
    PLAIN,
    Action,
    Entry,
    EqualCheck,
    Finding,
    Hands,
    Plan,
    Row,
    SourceLeaf,
    Unused,
    ZeroCheck,
)
from treeload._policy import Policy
from treeload._rules import Fed, Rule
from treeload._specs import Kind, Spec, bare, can_cast, cast_loses_kind, is_abstract, is_key, overflows, spec_of
from treeload._trees import Keys, Tree
from treeload.sources._memory import Number, number_of

Scope: TypeAlias = "PatternLike | Iterable[PatternLike] | Callable[[Name, Spec], bool] | None"


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
    offers = Offers.of(grafts, tuple(rules))
    return _Matcher(tree, offers, grafts, policy, _Scope.of(scope)).plan(hands)


# Where a load is restricted to.


@dataclass(frozen=True)
class _Scope:
    """A part of the destination, by patterns or by a predicate."""

    patterns: tuple[Pattern, ...]
    predicate: Callable[[Name, Spec], bool] | None

    @classmethod
    def of(cls, scope: Scope) -> _Scope | None:
        if scope is None:
            return None
        if isinstance(scope, str) or hasattr(scope, "fullmatch") or isinstance(scope, Name):
            return cls((compile_pattern(scope),), None)  # type: ignore[arg-type]  # one pattern
        if isinstance(scope, Iterable):
            return cls(tuple(map(compile_pattern, scope)), None)
        if callable(scope):
            return cls((), scope)
        raise RuleError(f"scope is a pattern, several, or a predicate on (name, spec); not {scope!r}")

    def holds(self, name: Keys, spec: Any) -> bool:
        if self.predicate is not None:
            return bool(self.predicate(Name(name), bare(spec)))
        printed = print_name(name)
        return any(pattern.matches(printed) for pattern in self.patterns)


# The decisions.


class _Nothing:
    """Stands for a source leaf that is not there: its shape and dtype equal no other."""

    shape = None
    dtype = None


_NOTHING = _Nothing()
_SHAPE, _DTYPE = operator.attrgetter("shape"), operator.attrgetter("dtype")


class _Matcher:
    """One run: the tables being filled, and a method for each question."""

    def __init__(
        self, tree: Tree, offers: Offers, grafts: Sequence[Graft], policy: Policy, scope: _Scope | None
    ) -> None:
        self.tree = tree
        self.offers = offers
        self.grafts = grafts
        self.policy = policy
        self.scope = scope
        self.sources = tuple(graft.source for graft in grafts)
        self.rows: list[Row] = [None] * len(tree.names)
        self.findings: list[Finding] = []
        self.checks: list[ZeroCheck | EqualCheck] = []
        self.unused: list[Unused] = []
        self.met: set[Keys] = set()  # offered names that met a destination slot or a structure finding
        self.said: set[tuple[str, Keys]] = set()  # structure findings given, each once
        self.opened: dict[Keys, Keys] = {}
        self.missing: list[Keys] = []

    def plan(self, hands: Hands) -> Plan:
        slow = self.take_what_agrees()
        leftover: set[Keys] = set()
        if slow or not self.offers.columns:
            leftover = self.offers.shaped.keys() - self.agreeing
            self.opened = self.offers.open_boxes(self.slots, self.slot_prefixes, leftover)
            leftover = (leftover - set(self.opened.values())) | self.opened.keys()
        for index in slow:
            self.settle(index)
        self.report_faults()
        if leftover:
            self.settle_leftovers(leftover)
        if self.scope is not None:
            self.check_scope()
        self.check_grafts(fed_plainly=len(slow) < len(self.rows))
        self.check_abstract(slow)
        self.add_near_names()
        return Plan(
            tree=self.tree, sources=self.sources, rows=self.rows, findings=self.findings, unused=self.unused,
            checks=tuple(self.checks), hands=hands,
        )  # fmt: skip

    # The first pass.

    def take_what_agrees(self) -> list[int]:
        """Marks the slots whose source leaf agrees in all; gives those to be settled one by one."""
        tree, rows = self.tree, self.rows
        if self.offers.plain is None or self.scope is not None:
            return list(range(len(rows)))
        where: Sequence[int] = range(len(rows))
        names, values = tree.names, tree.values
        if any(tree.kinds):
            where = [index for index, kind in enumerate(tree.kinds) if kind == Kind.ARRAY]
            names, values = [names[index] for index in where], [values[index] for index in where]
        # Column by column: the loops are those of map and operator, at half the time of one written out.
        columns = self.offers.columns
        if columns is not None and columns[0] == names:
            offered = columns[1]
        else:
            self.offers.columns = None
            offered = list(map(self.offers.shaped.get, names, repeat(_NOTHING)))
        shapes = map(operator.eq, map(_SHAPE, offered), map(_SHAPE, values))
        dtypes = map(operator.eq, map(_DTYPE, offered), map(_DTYPE, values))
        agrees = list(map(operator.and_, shapes, dtypes))
        # What no tree of plain arrays has is looked for once, not at each leaf.
        if Number in set(map(type, offered)):
            agrees = [same and type(one) is not Number for same, one in zip(agrees, offered, strict=True)]
        if jax.ShapeDtypeStruct in set(map(type, values)) and (wide := _wide_dtypes()):
            agrees = [
                same and not (is_abstract(one) and one.dtype in wide) for same, one in zip(agrees, values, strict=True)
            ]
        if tree.aliases:
            agrees = [same and name not in tree.aliases for same, name in zip(agrees, names, strict=True)]
        if len(where) == len(rows) and all(agrees):
            rows[:] = repeat(PLAIN, len(rows))
            return []
        for index in compress(where, agrees):
            rows[index] = PLAIN
        return [index for index, row in enumerate(rows) if row is not PLAIN]

    # Tables that only the second pass needs.

    @cached_property
    def agreeing(self) -> set[Keys]:
        """Names whose source leaf agreed in the first pass."""
        return {name for name, row in zip(self.tree.names, self.rows, strict=True) if row is PLAIN}

    @cached_property
    def slots(self) -> dict[Keys, int]:
        """Destination slots by name and alias."""
        found = {name: index for index, name in enumerate(self.tree.names)}
        for name, others in self.tree.aliases.items():
            found.update(dict.fromkeys(others, found[name]))
        return found

    @cached_property
    def slot_prefixes(self) -> set[Keys]:
        """Names of destination nodes above a leaf that may load."""
        return _prefixes(name for name, index in self.slots.items() if self.tree.kinds[index] <= Kind.SCALAR)

    @cached_property
    def offer_prefixes(self) -> set[Keys]:
        """Names of source nodes above a leaf."""
        return _prefixes(self.offers.shaped)

    # The second pass, destination side.

    def settle(self, index: int) -> None:
        name, value, kind = self.tree.names[index], self.tree.values[index], self.tree.kinds[index]
        if kind == Kind.STATIC:
            self.settle_static(name)
        elif kind == Kind.ABSENT:
            self.settle_absent(index, name, value)
        else:
            self.settle_leaf(index, name, value)

    def settle_static(self, name: Keys) -> None:
        offered = self.offers.shaped.get(name)
        if offered is None or not self.in_scope(name, offered):
            return
        self.met.add(name)
        leaf = self.leaf_at(name)
        if number_of(offered) is not None:
            self.leave(name, leaf, "a number; the destination has a static here, which never loads")
            return
        self.find(
            "structure", name, expected="a static", found=bare(offered), leaf=leaf,
            message="the destination has something here that is no array, the source an array",
            remedy=f'to keep the destination\'s own: Policy(structure={{"{quote(name)}": "keep"}})',
        )  # fmt: skip

    def settle_absent(self, index: int, name: Keys, value: None | bool) -> None:
        """A slot that holds None or False; a number or a boolean against False makes it a number."""
        offered = self.offers.shaped.get(name)
        if offered is None or value is None:
            return  # nothing on either side, or an array to be looked at with the leftovers
        boolean = offered.shape == () and offered.dtype == np.dtype(np.bool_)
        if number_of(offered) is not None or boolean:
            self.settle_leaf(index, name, value)

    def settle_leaf(self, index: int, name: Keys, value: Any) -> None:
        wanted = bare(spec_of(value))
        names = (name, *self.tree.aliases.get(name, ()))
        if self.scope is not None and not any(self.in_scope(each, wanted) for each in names):
            self.met.update(names)
            self.keep(index, "outside the scope")
            for each in names:
                if each in self.offers.shaped:
                    self.leave(each, self.leaf_at(each), "outside the scope")
            return
        self.collide(names)
        feeds = [(each, fed) for each in names if (fed := self.fed(each)) is not None]
        if not feeds:
            self.settle_unfed(index, names, wanted)
            return
        self.met.update(each for each, _ in feeds)
        broken = [each for each, fed in feeds if fed.value is None]
        if broken:
            if any(self.policy.verdict("rule", print_name(each)) == "error" for each in broken):
                self.keep(index, "a rule for it could not be applied")
            else:
                self.settle_unfed(index, names, wanted)
            return
        faults = [self.disagrees(each, fed, value, wanted) for each, fed in feeds]
        if any(faults):
            self.keep(index, next(fault for fault in faults if fault))
            for each, _ in feeds:
                self.leave(each, self.leaf_at(each), "its destination leaf is kept")
            return
        first = feeds[0][1]
        pending = self.check_ties(names, feeds)
        assert first.value is not None
        leaves = tuple(map(self.source_leaf, first.value.leaves()))
        old = self.opened.get(feeds[0][0])
        reason = "" if old is None else "its box's own segment, 'value', left out"
        self.rows[index] = Entry(
            Name(name), Action.LOAD, wanted, leaves, ops_of(first.value),
            cast=first.value.spec.dtype != wanted.dtype, rule=first.rule, reason=reason,
            aliases=tuple(map(Name, names[1:])), optional=name in self.tree.optional,
            needs_values=pending, value=first.value,
        )  # fmt: skip

    def settle_unfed(self, index: int, names: tuple[Keys, ...], wanted: Spec) -> None:
        name, value = names[0], self.tree.values[index]
        above = next((p for each in names for p in _proper_prefixes(each) if p in self.offers.shaped), None)
        if above is not None:
            self.leaf_against_subtree(above)
            self.keep(index, "the source has a leaf in place of a subtree")
        elif any(each in self.offer_prefixes for each in names):
            for each in names:
                if each in self.offer_prefixes:
                    self.subtree_against_leaf(each, wanted)
            self.keep(index, "the source has a subtree in place of the leaf")
        elif (static := next((each for each in names if each in self.offers.statics), None)) is not None:
            self.find(
                "structure", static, expected=wanted, found="a static",
                message="the destination has an array here, the source something that is no array",
                remedy=f'to keep the destination\'s own: Policy(structure={{"{quote(static)}": "keep"}})',
            )  # fmt: skip
            self.keep(index, "the source has no array here")
        elif name in self.tree.optional:
            self.keep(index, "optional, and the source has none")
        elif (false := next((each for each in names if self.offers.empty.get(each) is False), None)) and isinstance(
            value, (bool, int, float, complex)
        ):
            self.settle_false(index, false, value, wanted)
        elif not is_key(wanted.dtype) and any(self.policy.zero_if_absent(print_name(each)) for each in names):
            self.rows[index] = Entry(
                Name(name), Action.ZERO, wanted, reason="absent in the source, which means zero here",
                aliases=tuple(map(Name, names[1:])),
            )  # fmt: skip
        else:
            self.missing_leaf(index, names, wanted)

    def settle_false(self, index: int, name: Keys, value: Any, wanted: Spec) -> None:
        """The source's Python False against a Python number: a value, not an absence."""
        if isinstance(value, bool):
            self.rows[index] = Entry(Name(self.tree.names[index]), Action.ZERO, wanted, reason="False in the source")
            return
        self.find(
            "dtype", name, expected=wanted, found="False",
            message=f"the destination has a Python {type(value).__name__} here, the source False",
            remedy=f'to keep the destination\'s own: Policy(dtype={{"{quote(name)}": "keep"}})',
        )  # fmt: skip
        self.keep(index, "the source has False here")

    def missing_leaf(self, index: int, names: tuple[Keys, ...], wanted: Spec) -> None:
        name = names[0]
        empty = next((each for each in names if each in self.offers.empty), None)
        found = None if empty is None else str(self.offers.empty[empty])
        keep = f'to keep the destination\'s own: Policy(missing={{"{quote(name)}": "keep"}})'
        zero = f'for zeros: Policy(absent_is_zero=("{quote(name)}",))'
        bias = name[-1:] in (("bias",), ("b",))
        self.find(
            "missing", name, expected=wanted, found=found,
            message="the source has nothing here" if empty is None else f"the source has {found} here",
            remedy=f"{zero}; {keep}" if (bias or empty is not None) and not is_key(wanted.dtype) else keep,
        )  # fmt: skip
        self.missing.append(name)
        self.keep(index, "missing in the source")

    # The second pass, source side.

    def settle_leftovers(self, leftover: set[Keys]) -> None:
        for name in [name for name in self.offers.shaped if name in leftover and name not in self.met]:
            offered = self.offers.shaped[name]
            leaf = self.leaf_at(name)
            if not self.in_scope(name, offered):
                self.leave(name, leaf, "outside the scope")
                continue
            below = next((p for p in _proper_prefixes(name) if self.holds_leaf(p)), None)
            if below is not None:
                index = self.slots[below]
                static = self.tree.kinds[index] == Kind.STATIC
                self.subtree_against_leaf(below, "a static" if static else bare(spec_of(self.tree.values[index])))
                self.leave(name, leaf, f"below {print_name(below)}, which is a leaf in the destination")
            elif name in self.slot_prefixes:
                self.leaf_against_subtree(name)
                self.leave(name, leaf, "a subtree in the destination")
            elif self.canonical_feeds(name):
                self.leave(name, leaf, f"an alias of {print_name(self.offers.alias_of[name])}, which loads")
            else:
                self.unexpected_leaf(name, offered, leaf)
        for name, others in self.offers.extra.items():
            if name not in self.slots:
                for fed in others:
                    if fed.value is not None:
                        self.unexpected_value(name, fed.value)

    def unexpected_leaf(self, name: Keys, offered: Any, leaf: SourceLeaf) -> None:
        printed = print_name(name)
        zero = self.policy.zero_if_absent(printed) and not is_key(offered.dtype)
        fed = self.fed(name)
        if fed is None or fed.value is None:
            return
        if zero:
            finding = self.finding(
                "absent", name, expected="absent or all zero", found=bare(offered), leaf=leaf, rule=fed.rule,
                remedy=f'to leave it out anyway: take the pattern for it out of absent_is_zero, and Policy(unexpected={{"{quote(name)}": "ignore"}})',
            )  # fmt: skip
            self.checks.append(ZeroCheck(name, fed.value, finding))
            self.leave(name, leaf, "absent in the destination; must be all zero")
            return
        slot = self.slots.get(name)
        holds = None if slot is None else str(self.tree.values[slot])
        remedy = f'to leave it out: Policy(unexpected={{"{quote(name)}": "ignore"}})'
        if name[-1:] in (("bias",), ("b",)) or holds is not None:
            remedy = f'if it must be zero: Policy(absent_is_zero=("{quote(name)}",)); {remedy}'
        verdict = self.find(
            "unexpected", name, expected=holds, found=bare(offered), leaf=leaf, rule=fed.rule,
            message="the destination has nothing here" if holds is None else f"the destination has {holds} here",
            remedy=remedy,
        )  # fmt: skip
        self.leave(name, leaf, "unexpected" if verdict == "error" else "ignored by the policy")

    def unexpected_value(self, name: Keys, value: Value) -> None:
        leaf = self.source_leaf(next(value.leaves()))
        self.find(
            "unexpected", name, found=value.spec, leaf=leaf, message="the destination has nothing here",
            remedy=f'to leave it out: Policy(unexpected={{"{quote(name)}": "ignore"}})',
        )  # fmt: skip
        self.leave(name, leaf, "unexpected")

    def canonical_feeds(self, name: Keys) -> bool:
        """Whether this is one of several stored names of an array that loads under another of them."""
        canonical = self.offers.alias_of.get(name)
        if canonical is None:
            return any(of == name and self.loads(alias) for alias, of in self.offers.alias_of.items())
        family = [alias for alias, of in self.offers.alias_of.items() if of == canonical]
        return any(self.loads(each) for each in (canonical, *family))

    def loads(self, name: Keys) -> bool:
        index = self.slots.get(name)
        row = None if index is None else self.rows[index]
        return row is PLAIN or (isinstance(row, Entry) and row.action in (Action.LOAD, Action.TIE))

    # One disagreement each.

    def disagrees(self, name: Keys, fed: Fed, value: Any, wanted: Spec) -> str:
        """Why this value cannot go into this leaf, said as a finding too; nothing where it can."""
        assert fed.value is not None
        given, leaf = fed.value.spec, self.source_leaf(next(fed.value.leaves()))
        offered = self.offers.shaped[name]
        number = number_of(offered) if isinstance(fed.value, Leaf) else None
        keys = is_key(given.dtype), is_key(wanted.dtype)
        pattern = quote(name)
        if number is True and not isinstance(value, bool) and not _is_python_number(value):
            if wanted.shape != () or wanted.dtype != np.dtype(np.bool_):
                return self.structural(name, fed, leaf, "True", wanted, "the source has True in place of an array")
        if value is True and number is None and (given.shape != () or given.dtype != np.dtype(np.bool_)):
            return self.structural(name, fed, leaf, given, "True", "the destination has True in place of an array")
        if any(keys) and given.dtype != wanted.dtype:
            said = "PRNG keys load only into keys of the same implementation"
            return self.structural(name, fed, leaf, given, wanted, said)
        if given.shape != wanted.shape:
            self.find(
                "shape", name, expected=wanted, found=given, leaf=leaf, rule=fed.rule,
                message=f"shapes differ: {list(wanted.shape)} in the destination, {list(given.shape)} in the source"
                + _shape_hint(given.shape, wanted.shape),
                remedy=_shape_remedy(given.shape, wanted.shape) + f'to keep the destination\'s own: Policy(shape={{"{pattern}": "keep"}})',
            )  # fmt: skip
            return "shapes differ"
        casting = self.policy.verdict("casting", print_name(name))
        reason = _cast_fault(given.dtype, wanted.dtype, casting, value, number)
        if reason:
            loosen = "" if reason.endswith("jax_enable_x64") else f'to cast anyway: Policy(casting={{"{pattern}": "unsafe"}}); '
            self.find(
                "dtype", name, expected=wanted, found=given, leaf=leaf, rule=fed.rule, message=reason,
                remedy=f'{loosen}to keep the destination\'s own: Policy(dtype={{"{pattern}": "keep"}})',
            )  # fmt: skip
            return "dtypes differ"
        return ""

    def structural(
        self, name: Keys, fed: Fed, leaf: SourceLeaf, found: Spec | str, expected: Spec | str, said: str
    ) -> str:
        self.find(
            "structure", name, expected=expected, found=found, leaf=leaf, rule=fed.rule, message=said,
            remedy=f'to keep the destination\'s own: Policy(structure={{"{quote(name)}": "keep"}})',
        )  # fmt: skip
        return said

    def leaf_against_subtree(self, name: Keys) -> None:
        """The source has a leaf where the destination has a subtree."""
        offered = self.offers.shaped[name]
        self.met.add(name)
        if ("structure", name) in self.said:
            return
        self.said.add(("structure", name))
        self.find(
            "structure", name, expected="a subtree", found=bare(offered), leaf=self.leaf_at(name),
            message="the destination has a subtree here, the source one leaf",
            remedy=f'to keep the destination\'s own: Policy(structure={{"{quote(name)}": "keep"}})',
        )  # fmt: skip
        self.leave(name, self.leaf_at(name), "a subtree in the destination")

    def subtree_against_leaf(self, name: Keys, wanted: Spec | str) -> None:
        """The destination has a leaf where the source has a subtree."""
        if ("structure", name) in self.said:
            return
        self.said.add(("structure", name))
        below = sum(1 for each in self.offers.shaped if each[: len(name)] == name)
        self.find(
            "structure", name, expected=wanted, found=f"a subtree of {below:,} {'leaf' if below == 1 else 'leaves'}",
            message="the destination has one leaf here, the source a subtree",
            remedy=f'to keep the destination\'s own: Policy(structure={{"{quote(name)}": "keep"}})',
        )  # fmt: skip

    def collide(self, names: Sequence[Keys]) -> None:
        """A finding for each of these names that is fed more than once."""
        for name in names:
            others = self.offers.extra.get(name)
            first = self.fed(name)
            if not others or first is None or first.value is None:
                continue
            contenders = [first, *others]
            leaves = [self.source_leaf(next(one.value.leaves())) for one in contenders if one.value is not None]
            many = len(self.sources) > 1
            said = " and ".join(f"{print_name(leaf.name)}" + (f" of {leaf.source}" if many else "") for leaf in leaves)
            self.find(
                "collision", name, expected="one source leaf", found=f"{len(leaves)} source leaves", leaf=leaves[0],
                rule=first.rule, message=f"it is fed by {said}",
                remedy=f'to take the first: Policy(collision={{"{quote(name)}": "first"}}), or rules that give each a name of its own',
            )  # fmt: skip
            for leaf in leaves[1:]:
                self.leave(name, leaf, f"{print_name(leaves[0].name)} feeds its destination leaf")

    def check_ties(self, names: tuple[Keys, ...], feeds: list[tuple[Keys, Fed]]) -> bool:
        """Leaves a check where the source holds several of a tied leaf's names; whether it did."""
        pending = False
        distinct = [feeds[0]]
        for name, fed in feeds[1:]:
            if all(not self.same_stored(name, fed, other, one) for other, one in distinct):
                distinct.append((name, fed))
        shown = ", ".join(print_name(name) for name, _ in feeds)
        if len(distinct) > 1:
            finding = self.finding(
                "tie", names[0], expected="one value", found=f"{len(distinct)} values", leaf=self.leaf_at(names[0], feeds),
                remedy=f'to take the first: Policy(tie={{"{quote(names[0])}": "first"}})',
                message=f"one array in the destination, different values in the source: {shown}",
            )  # fmt: skip
            self.checks.append(
                EqualCheck(names[0], tuple((n, f.value) for n, f in distinct if f.value is not None), finding)
            )
            pending = True
        empty = [name for name in names if name in self.offers.empty and self.policy.zero_if_absent(print_name(name))]
        if empty and not is_key(feeds[0][1].value.spec.dtype if feeds[0][1].value is not None else None):
            for name, fed in distinct:
                assert fed.value is not None
                finding = self.finding(
                    "tie", names[0], expected="one value", found=f"an array and {self.offers.empty[empty[0]]}",
                    leaf=self.source_leaf(next(fed.value.leaves())),
                    message=f"one array in the destination; in the source {print_name(empty[0])} is absent, "
                    f"which means zero, and {print_name(name)} is not zero",
                    remedy=f'to take the array: Policy(tie={{"{quote(names[0])}": "first"}})',
                )  # fmt: skip
                self.checks.append(ZeroCheck(names[0], fed.value, finding))
            pending = True
        return pending

    def same_stored(self, name: Keys, fed: Fed, other: Keys, one: Fed) -> bool:
        """Whether two names are known to be one array of the source, so that no values need comparing."""
        if fed.value == one.value:
            return True
        canonical = self.offers.alias_of.get(name, name)
        if canonical == self.offers.alias_of.get(other, other):
            return _ops_of(fed) == _ops_of(one)
        plain = self.offers.shaped
        return self.offers.plain is not None and plain[name] is plain[other] and isinstance(plain[name], jax.Array)

    # The rest of what can be wrong.

    def report_faults(self) -> None:
        for fault in self.offers.faults:
            for taken in fault.taken:
                if (lost := self.leaf_named(taken)) is not None:
                    self.leave(fault.name or taken, lost, "its rule could not be applied")
            printed = fault.rule.landing() if fault.name is None else print_name(fault.name)
            name = _loose_name(fault.rule.landing()) if fault.name is None else Name(fault.name)
            leaf = self.leaf_named(fault.taken[0]) if fault.taken else None
            remedy = "correct the rule or leave it out" if fault.name is None else "correct the rule's ops"
            self.findings.append(
                Finding(
                    "rule", name, self.policy.verdict("rule", printed), expected=None, found=None if leaf is None else leaf.spec,
                    source=leaf, rule=fault.rule, message=fault.message,
                    remedy=f'{remedy}, or Policy(rule={{"{printed}": "ignore"}})',
                )
            )  # fmt: skip

    def check_scope(self) -> None:
        assert self.scope is not None
        printed = [print_name(name) for name in (*self.slots, *self.offers.shaped)]
        for pattern in self.scope.patterns:
            if not any(map(pattern.matches, printed)):
                self.findings.append(
                    Finding(
                        "rule", _loose_name(pattern.text), self.policy.verdict("rule", pattern.text),
                        message=f"scope {pattern.text!r} matches no leaf of the destination or the source",
                        remedy="correct the scope; names are matched whole, so a subtree is 'encoder/**'",
                    )
                )  # fmt: skip

    def check_grafts(self, *, fed_plainly: bool) -> None:
        """A finding for each ``From`` that feeds nothing."""
        if not any(graft.explicit for graft in self.grafts):
            return
        feeding = {0} if fed_plainly else set()
        for row in self.rows:
            if isinstance(row, Entry) and row.value is not None:
                feeding.update(leaf.index for leaf in row.value.leaves())
        for check in self.checks:
            values = (check.value,) if isinstance(check, ZeroCheck) else tuple(value for _, value in check.values)
            feeding.update(leaf.index for value in values for leaf in value.leaves())
        outside = {leaf.source for leaf in self.unused if leaf.why == "outside the scope"}
        for index, graft in enumerate(self.grafts):
            if graft.explicit and index not in feeding and graft.source.label not in outside:
                what = f"subtree {print_name(graft.subtree)!r} of " if graft.subtree else ""
                top = sorted({name[0] for name in graft.source.specs() if name})[:8]
                has = f"; the source has {', '.join(top)}" if graft.subtree else ""
                self.findings.append(
                    Finding(
                        "rule", Name(graft.into), self.policy.verdict("rule", print_name(graft.into)),
                        message=f"From({what}{graft.source.label}) feeds no leaf of the destination{has}",
                        remedy="correct subtree, into or rules, or leave the From out",
                    )
                )  # fmt: skip

    def check_abstract(self, slow: Iterable[int]) -> None:
        """A finding for each leaf that is to be kept and has no value to keep."""
        already = {finding.name for finding in self.findings if finding.verdict == "error"}
        for index in slow:
            row = self.rows[index]
            if not isinstance(row, Entry) or row.action != Action.KEEP or not is_abstract(self.tree.values[index]):
                continue
            broken = already.intersection((row.name, *row.aliases))
            if broken or any(row.name[:depth] in already for depth in range(len(row.name))):
                continue  # its own error comes first; mended, it will not be kept
            self.find(
                "abstract", row.name, expected=row.spec, found=None,
                message=f"it is to be kept ({row.reason}), and the destination is abstract: there is nothing to keep",
                remedy="load(..., init=fn), where fn() gives a concrete tree; or a concrete destination",
            )  # fmt: skip

    def add_near_names(self) -> None:
        """Fills in ``near``: for what is missing, what the source has left over; and the other way."""
        missing = [finding for finding in self.findings if finding.kind == "missing"]
        unexpected = [finding for finding in self.findings if finding.kind == "unexpected"]
        if not (missing and unexpected):
            return
        over = NearNames(tuple(finding.name) for finding in unexpected)
        lacking = NearNames(tuple(finding.name) for finding in missing)
        self.findings = [
            replace(finding, near=tuple(map(Name, (over if finding.kind == "missing" else lacking).near(finding.name))))
            if finding.kind in ("missing", "unexpected") else finding
            for finding in self.findings
        ]  # fmt: skip

    # Small steps.

    def holds_leaf(self, name: Keys) -> bool:
        """Whether the destination has something at ``name`` that nothing of the source met."""
        index = self.slots.get(name)
        return index is not None and self.tree.kinds[index] != Kind.ABSENT and not self.loads(name)

    def in_scope(self, name: Keys, spec: Any) -> bool:
        return self.scope is None or self.scope.holds(name, spec)

    def fed(self, name: Keys) -> Fed | None:
        """What feeds a destination-side name."""
        fed = self.offers.fed.get(name)
        if fed is not None:
            return fed
        offered = self.offers.shaped.get(name)
        if offered is None or self.offers.plain is None:
            return None
        own = self.opened.get(name, name)
        return Fed(Leaf(0, Name(own), bare(offered)), None, (own,))

    def leaf_at(self, name: Keys, feeds: Sequence[tuple[Keys, Fed]] = ()) -> SourceLeaf:
        fed = feeds[0][1] if feeds else self.fed(name)
        assert fed is not None and fed.value is not None
        return self.source_leaf(next(fed.value.leaves()))

    def leaf_named(self, name: Keys) -> SourceLeaf | None:
        for graft in self.grafts:
            for own in (name, (*graft.subtree, *name), (*graft.subtree, *name[len(graft.into) :])):
                spec = graft.source.specs().get(Name(own))
                if spec is not None:
                    return SourceLeaf(graft.source.label, Name(own), bare(spec))
        return None

    def source_leaf(self, leaf: Leaf) -> SourceLeaf:
        return SourceLeaf(self.sources[leaf.index].label, leaf.name, leaf.spec)

    def keep(self, index: int, reason: str) -> None:
        value, name = self.tree.values[index], self.tree.names[index]
        aliases = tuple(map(Name, self.tree.aliases.get(name, ())))
        self.rows[index] = Entry(
            Name(name), Action.KEEP, bare(spec_of(value)), reason=reason, aliases=aliases,
            optional=name in self.tree.optional,
        )  # fmt: skip

    def leave(self, name: Keys, leaf: SourceLeaf, why: str) -> None:
        self.unused.append(Unused(leaf.source, leaf.name, leaf.spec, Name(name), why))

    def finding(
        self, kind: str, name: Keys, *, expected: Spec | str | None = None, found: Spec | str | None = None,
        leaf: SourceLeaf | None = None, rule: Rule | None = None, message: str = "", remedy: str = "",
    ) -> Finding:  # fmt: skip
        verdict = self.policy.verdict(kind, print_name(name))
        return Finding(kind, Name(name), verdict, expected, found, leaf, rule, message, remedy)

    def find(self, kind: str, name: Keys, **facts: Any) -> str:
        """Notes a finding; its verdict."""
        finding = self.finding(kind, name, **facts)
        self.findings.append(finding)
        return finding.verdict


def _prefixes(names: Iterable[Keys]) -> set[Keys]:
    return {prefix for name in names for prefix in _proper_prefixes(name)}


def _proper_prefixes(name: Keys) -> list[Keys]:
    return [name[:depth] for depth in range(len(name))]


def _ops_of(fed: Fed) -> tuple[object, ...]:
    return () if fed.value is None else ops_of(fed.value)


def _loose_name(text: str) -> Name:
    """The name for findings about a pattern: its text, cut at ``/`` where it can be."""
    try:
        return Name.parse(text)
    except RuleError:
        return Name((text,))


def _wide_dtypes() -> frozenset[Any]:
    """The dtypes that JAX, as it is set up now, makes narrower without a word."""
    if jax.config.jax_enable_x64:
        return frozenset()
    return frozenset(map(np.dtype, ("int64", "uint64", "float64", "complex128")))


def _is_python_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic)


def _cast_fault(given: Any, wanted: Any, casting: str, value: Any, number: Any) -> str:
    """Why a value of dtype ``given`` cannot become ``wanted``; empty where it can.

    ``value`` is what the destination holds, ``number`` the source's Python number if it is one: Python
    numbers have a kind and no width, so what counts for them is that kind, and whether the value fits.
    """
    if is_abstract(value) and wanted in _wide_dtypes():
        return f"JAX makes {jax.dtypes.canonicalize_dtype(wanted)} of {wanted} without jax_enable_x64"
    if casting == "unsafe":
        return ""
    if _is_python_number(value):
        kind = type(value).__name__
        return "" if not cast_loses_kind(given, wanted, exact=True) else f"{given} is no Python {kind}"
    if number is not None:
        if cast_loses_kind(given, wanted):
            return f"a Python {type(number).__name__} does not become {wanted}"
        return f"{number!r} overflows {wanted}" if overflows(number, wanted) else ""
    if can_cast(given, wanted, casting):
        return ""
    return f"{given} does not become {wanted} under casting={casting!r}"


def _shape_hint(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    return "; they match if transposed" if _transposition(given, wanted) else ""


def _shape_remedy(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    op = _transposition(given, wanted)
    return f"{op} in a Rename; " if op else ""


def _transposition(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """The usual transposition that makes one shape of the other, as code; empty where there is none."""
    if len(given) < 2 or given == wanted:
        return ""
    if given[::-1] == wanted:
        return "Transpose()"
    # PyTorch's convolutions: out, in, *space -> *space, in, out.
    conv = (*range(2, len(given)), 1, 0)
    if len(given) > 2 and tuple(given[axis] for axis in conv) == wanted:
        return f"Transpose({', '.join(map(str, conv))})"
    return ""
