"""What the sources offer, under the names it would have in the destination.

Owns the way of a source leaf's name: the subtree that a ``From`` looks at, its own rules, where it is
grafted in, the plan's rules. Refuses to own what the leaf meets there (``_match``). Reads names, shapes
and dtypes only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from treeload._errors import RuleError
from treeload._names import Name, NameLike, as_name
from treeload._ops import Leaf, Value
from treeload._rules import Fault, Fed, Rule, apply_rules, rename_empty
from treeload._specs import bare
from treeload._trees import Keys
from treeload.sources._base import Source, fence
from treeload.sources._memory import MemorySource


@dataclass(frozen=True, init=False)
class From:
    """One of several sources: a part of it, changed by its own rules, grafted somewhere.

    First the subtree is taken, then ``rules`` are applied to the names in it, then what comes out goes
    below ``into``; the plan's own rules come after that.

    Args:
        src: a path, a tree in memory, or a ``Source``.
        subtree: the name of the part that is looked at; its leaves lose this prefix. No pattern.
        into: the name of the destination's subtree that it feeds. No pattern.
        rules: rules on the names within the subtree.
        item: which item of an Orbax checkpoint that holds several.
        separator: at which to split joined names, such as ``"."`` for a flat dict of
            ``"encoder.layer.0.weight"``.

    Raises:
        RuleError: a name or a rule that cannot mean anything.
    """

    src: Any
    subtree: Name
    into: Name
    rules: tuple[Rule, ...]
    item: str | None
    separator: str | None

    def __init__(
        self,
        src: Any,
        *,
        subtree: NameLike | None = None,
        into: NameLike | None = None,
        rules: Rule | Iterable[Rule] = (),
        item: str | None = None,
        separator: str | None = None,
    ) -> None:
        if isinstance(src, From):
            raise RuleError("a From is made of a path, a tree or a Source, not of another From")
        if separator == "":
            raise RuleError("From(separator='') splits nothing")
        given = (rules,) if isinstance(rules, Rule) else tuple(rules)
        for rule in given:
            if not isinstance(rule, Rule):
                raise RuleError(f"From(rules=...) takes Rename(...) and the like, not {rule!r}")
        for field, value in (
            ("src", src), ("subtree", as_name(subtree or ())), ("into", as_name(into or ())), ("rules", given),
            ("item", item), ("separator", separator),
        ):  # fmt: skip
            object.__setattr__(self, field, value)


@dataclass(frozen=True)
class Graft:
    """One source, the part of it that is looked at, and where that part goes.

    Attributes:
        source: the source.
        subtree: the name of the part; its leaves lose this prefix.
        into: the name of the destination's subtree it feeds; its leaves gain this prefix.
        rules: its own rules, on the names between the two.
        explicit: it was written as a ``From``, so it is expected to feed something.
    """

    source: Source
    subtree: Keys = ()
    into: Keys = ()
    rules: tuple[Rule, ...] = ()
    explicit: bool = False


class Offers:
    """Every source leaf under the name it has after ``From``s and rules.

    ``shaped`` maps each name to something with a shape and a dtype. Where a leaf simply kept its name
    in the only source, that is all there is; otherwise ``fed`` says how it came there. ``extra`` holds
    further leaves for names that are taken (collisions).
    """

    def __init__(self) -> None:
        self.columns: tuple[list[Keys], list[Any]] | None = None
        self.fed: dict[Keys, Fed] = {}
        self.extra: dict[Keys, list[Fed]] = {}
        self.empty: dict[Keys, None | bool] = {}
        self.statics: set[Keys] = set()
        self.alias_of: dict[Keys, Keys] = {}
        self.faults: list[Fault] = []
        self.rule_order: dict[int, int] = {}
        self.plain: Source | None = None

    @classmethod
    def of(cls, grafts: Sequence[Graft], rules: tuple[Rule, ...]) -> Offers:
        offers = cls()
        if len(grafts) == 1 and not rules and not (grafts[0].rules or grafts[0].subtree or grafts[0].into):
            source = grafts[0].source
            with fence(f"{source.label} does not say what it holds"):
                offers.plain = source
                offers.columns = source.columns() if isinstance(source, MemorySource) else None
                offers.empty = dict(source.absent())
                offers.statics = set(source.statics())
                offers.alias_of = dict(source.ties())
            return offers
        offers.gather(grafts, rules)
        return offers

    @cached_property
    def shaped(self) -> dict[Keys, Any]:
        """Every offered leaf, as something with a shape and a dtype; in a plain load, as the source has it."""
        if self.plain is None:
            return {}
        with fence(f"{self.plain.label} does not say what it holds"):
            shaped = self.plain.shaped()
            return shaped if type(shaped) is dict else dict(shaped)  # never written to; see open_boxes

    def gather(self, grafts: Sequence[Graft], rules: tuple[Rule, ...]) -> None:
        everything: list[tuple[Keys, Value]] = []
        via: dict[int, Fed] = {}  # id of a value -> the rule of its own From that gave it its name
        for index, graft in enumerate(grafts):
            with fence(f"{graft.source.label} does not say what it holds"):
                specs, absent = graft.source.specs(), graft.source.absent()
                statics, ties = graft.source.statics(), graft.source.ties()
            depth = len(graft.subtree)
            inside = [
                (tuple(name[depth:]), Leaf(index, Name(name), bare(spec)))
                for name, spec in specs.items() if tuple(name[:depth]) == graft.subtree
            ]  # fmt: skip
            fed, faults = apply_rules(inside, graft.rules)
            self.faults += [
                replace(fault, name=None if fault.name is None else (*graft.into, *fault.name)) for fault in faults
            ]
            for name, one in fed:
                if one.value is None:
                    self.keep_fault((*graft.into, *name), one)
                else:
                    everything.append(((*graft.into, *name), one.value))
                    via[id(one.value)] = one

            def moved(name: Keys, graft: Graft = graft, depth: int = depth) -> Keys | None:
                if tuple(name[:depth]) != graft.subtree:
                    return None
                return rename_empty((*graft.into, *rename_empty(tuple(name[depth:]), graft.rules)), rules)

            for name, value in absent.items():
                if (new := moved(tuple(name))) is not None:
                    self.empty[new] = value
            self.statics.update(new for name in statics if (new := moved(tuple(name))) is not None)
            for alias, canonical in ties.items():
                there, of = moved(tuple(alias)), moved(tuple(canonical))
                if there is not None and of is not None:
                    self.alias_of[there] = of
        fed, faults = apply_rules(everything, rules)
        self.faults += faults
        order = {id(rule): number for number, rule in enumerate(rules)}
        for graft in grafts:
            order.update({id(rule): len(order) + number for number, rule in enumerate(graft.rules)})
        self.rule_order = order
        groups: dict[Keys, list[Fed]] = {}
        for name, one in fed:
            if one.value is None:
                self.keep_fault(name, one)
                continue
            if one.rule is None:
                earlier = via.get(id(one.value))
                one = Fed(one.value, earlier.rule if earlier else None, one.taken)
            groups.setdefault(name, []).append(one)
        for name, several in groups.items():
            if len(several) > 1:
                several.sort(key=lambda one: self.precedence(one))
                self.extra[name] = several[1:]
            self.fed[name] = several[0]
            assert several[0].value is not None
            self.shaped[name] = several[0].value.spec

    def precedence(self, one: Fed) -> tuple[Any, ...]:
        """Sources in order, then rules, then names: who wins a collision under ``"first"``."""
        leaf = next(one.value.leaves()) if one.value is not None else None
        rule = len(self.rule_order) if one.rule is None else self.rule_order.get(id(one.rule), 0)
        return (leaf.index if leaf else 0, rule, leaf.name if leaf else ())

    def keep_fault(self, name: Keys, one: Fed) -> None:
        self.fed[name] = one

    def open_boxes(self, slots: Mapping[Keys, int], slot_prefixes: set[Keys], leftover: set[Keys]) -> dict[Keys, Keys]:
        """Takes the last ``value`` off names of a stored checkpoint whose boxes were not transparent.

        Only where a subtree holds that one leaf, the destination has a slot in its place, and none of
        the longer name; or, for leaves that meet nothing, where every leaf of the sources ends in it.
        Returns new name → old name.
        """
        ends = [name for name in leftover if len(name) > 1 and name[-1] == "value"]
        if not ends:
            return {}
        children: dict[Keys, int] = {}
        for name in self.shaped:
            for depth in range(len(name)):
                prefix = name[:depth]
                children[prefix] = children.get(prefix, 0) + 1
        everywhere = all(name[-1:] == ("value",) for name in self.shaped)
        opened: dict[Keys, Keys] = {}
        for name in ends:
            box = name[:-1]
            alone = children[box] == 1 and box not in self.shaped
            unknown = name not in slots and name not in slot_prefixes
            if alone and unknown and (box in slots or (everywhere and box not in slot_prefixes)):
                opened[box] = name
        if opened:
            self.shaped = dict(self.shaped)
        for box, name in opened.items():
            self.shaped[box] = self.shaped.pop(name)
            for table in (self.fed, self.extra, self.alias_of):
                if name in table:
                    table[box] = table.pop(name)  # type: ignore[attr-defined]  # each keeps its own value type
        back = {old: new for new, old in opened.items()}
        self.alias_of = {alias: back.get(of, of) for alias, of in self.alias_of.items()}
        return opened
