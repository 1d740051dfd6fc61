"""Rules inferred from what did not match: what a user would have written, with why and how sure.

Owns the order of the inference: what agrees already, fused parts, pairs of
modules, what is left leaf by leaf, ties. Refuses to own the evidence (``pairing``), the shapes
(``relayouts``), the square kernels (``turns``) and the spelling (``proposals``). Works on names, shapes and
dtypes; applies nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from treeload._inference.changes import changes
from treeload._inference.evidence import Pair
from treeload._inference.fused import Fusion, fusions
from treeload._inference.joined import to_split
from treeload._inference.layouts import File, read
from treeload._inference.limits import LEAVES, Templates, sides
from treeload._inference.only_ones import only_ones
from treeload._inference.pairing import Decision, pair
from treeload._inference.parts import Part, best, is_of_optimizer, parts
from treeload._inference.proposals import Named, Proposal, Verdict, examples, gathered, proposals
from treeload._inference.reasons import reasons_for
from treeload._inference.relayouts import shapes
from treeload._inference.series import counted_otherwise, fits_moved, members, settle
from treeload._inference.suggestions import AS_GIVEN, Ambiguity, Suggestions
from treeload._inference.templates import HOLE, Leaves, Module, modules, templates
from treeload._inference.ties import tied_heads, ties
from treeload._inference.unsettled import ambiguity, unfed
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import quote
from treeload._rules.rename import Rename
from treeload._rules.rule import Rule
from treeload._trees.collector import no_collections

_NUMBERED = 5_000  # how many leaves are looked at once more, every digit taken for an index
_LITERAL = 1500  # how many leaves are looked at one by one, after templates have failed
_NOT_TRIED = {
    _NUMBERED: "it was not tried which of their digits may be indices",
    _LITERAL: "they were not looked at one by one",
}


def suggest(
    destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec], *, given: Sequence[Rule] = ()
) -> Suggestions:
    """Rules under which ``source`` would feed ``destination``, as far as names and shapes tell.

    Args:
        destination: every array leaf of the destination, tied ones once.
        source: every array leaf of the source, under the names that rules would see.
        given: rules that stand before the suggested ones. What they take and feed must be left out of
            the two sides.

    Examples:
        >>> import jax, numpy as np
        >>> spec = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
        >>> print(suggest({("up", "kernel"): spec(2, 3)}, {("model", "up", "weight"): spec(3, 2)}))
        rules = [
            # certain: 1 leaf; the names share up; no other shape fits; matches if transposed
            Rename('model/up/weight', 'up/kernel', Transpose()),
        ]
    """
    with no_collections():
        found = _Inference(destination, source).run()
    return Suggestions(
        (*given, *found),
        certain=(*given, *found.certain),
        reasons=(*(AS_GIVEN for _ in given), *found.reasons),
        ambiguous=found.ambiguous,
        instead=(*(() for _ in given), *found.instead),
        left=found.left,
        first=to_split(destination, source),
        possible=found.possible,
    )


class _Inference:
    """One run: what is left on either side, what was found, and what shapes taught about transposing."""

    def __init__(self, destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> None:
        agreeing = {
            name for name, spec in destination.items() if name in source and source[name].shape == spec.shape
        }
        self.series = counted_otherwise(destination, source)
        self.numbered_otherwise = members(self.series)
        by_accident = agreeing & self.numbered_otherwise
        self.agreeing = agreeing - by_accident
        self.destination = {name: spec for name, spec in destination.items() if name not in self.agreeing}
        self.source = {name: spec for name, spec in source.items() if name not in self.agreeing}
        self.held = {name: source[name] for name in self.agreeing}
        self.file = File()
        self.file.look_at(destination)
        self.file.look_at(source)
        self.singles: list[Proposal] = []
        self.ambiguous: list[Ambiguity] = []
        self.every = False
        self.fed = by_accident  # no rule is missed for what loads without one
        self.used: set[Keys] = set()  # the source's leaves that feed something
        self.decided: set[Keys] = set()  # of the destination
        self.turned: set[Keys] = set()  # held, and to be transposed
        self.known: Templates | None = None
        self.cut: list[str] = []  # what was not looked at, in sentences

    @cached_property
    def theirs(self) -> Mapping[Keys, Leaves]:
        """The destination's templates; made once, since it takes as long as all that is done with them."""
        return templates(self.destination) if self.known is None else self.known[0]

    @cached_property
    def ours(self) -> Mapping[Keys, Leaves]:
        """The source's."""
        return templates(self.source) if self.known is None else self.known[1]

    def run(self) -> Suggestions:
        if self.destination and not self.source:
            return Suggestions(possible=tied_heads(self.destination, self.held))
        if not self.destination:
            return self.result([], [])
        if (whole := self.whole()) is not None:
            return whole
        looked = sides(self.destination, self.source)
        self.cut += looked.cut
        self.known = looked.templates
        fused = list(fusions(looked.theirs, looked.ours))
        theirs, ours = _without(looked.theirs, looked.ours, fused)
        decisions = self.decide(theirs, ours)
        for decision in decisions:
            for kind, fit in decision.pair.fits.items():
                here, there = decision.pair.source.leaves[kind], decision.pair.destination.leaves[kind]
                self.file.learn(here, there, fit.changes)
        # Where rules name single indices, one leaf no longer stands for its template.
        self.every |= any(fit.moved for decision in decisions for fit in decision.pair.fits.values())
        held = self.turn_held()
        trusted = 2 * sum(map(_gives, decisions)) >= min(len(self.destination), len(self.source))
        for one in fused:
            self.singles.append(one.proposal(self.file, every=self.every))
            self.feeds(*(one.parts if one.how == "split" else [one.whole]), kinds=[one.kind])
            for module in [one.whole] if one.how == "split" else one.parts:
                self.used.update(module.leaves[one.kind].members)
        self.decided = {name for decision in decisions for name in _names(decision, "destination")}
        for decision in decisions:
            self.proposal(decision, trusted)
        if not decisions and not fused:
            self.singles += only_ones(self.destination, self.source)
            self.fed.update(self.destination if self.singles else ())
        return self.result(held, list(ties(decisions, theirs)))

    def whole(self) -> Suggestions | None:
        """One rule, where a part of the source is the destination in names and shapes; None elsewhere."""
        found = parts(self.destination, self.source) if not self.held else ()
        complete = [part for part in found if self.is_whole(part)]
        if not complete:
            return None
        first, *others = best(complete)
        here, there = (print_pattern(prefix) for prefix in (first.source, first.destination))
        if others:
            names = tuple(f"{print_pattern(part.source)}**" for part in (first, *others))
            self.ambiguous.append(Ambiguity((f"{there}**",), names, "each holds all of it"))
            return self.result([], [])
        reasons = [f"all names and shapes are those under {first.text}"]
        if any(part.kept_by == "optimizer" for part in complete[1:]):
            reasons.append("the others that hold them are an optimizer's")
        rule, count = Rename(f"{here}{{*rest}}", f"{there}{{*rest}}"), len(self.destination)
        self.fed.update(self.destination)
        return self.result([Proposal(rule, (), count, True, tuple(reasons))], [])

    def is_whole(self, part: Part) -> bool:
        """Whether all of the destination, and nothing else, is there."""
        below = [name for name in self.source if name[: len(part.source)] == part.source]
        return part.count == len(self.destination) == len(below)

    def decide(self, theirs: Sequence[Module], ours: Sequence[Module]) -> list[Decision]:
        """Which modules feed which; what stays open is noted."""
        pairing = pair(theirs, ours)
        found, open_ = self.told(pairing.decisions), list(pairing.open)
        numbered = [] if not open_ and _all_decided(found, theirs) else self.numbered(theirs, ours, found)
        if numbered:
            fed = {name for one in numbered for name in _names(one, "destination")}
            open_ = [group for group in open_ if not fed >= {name for one in group for name in _wanted(one)}]
            found = self.told([*found, *numbered])
            self.every = True
        # What was looked at one by one already is not tried again without its rivals.
        once = [
            [one.pair] for one in pairing.decisions
            if one not in found and not any(leaves.ranges for leaves in one.pair.destination.leaves.values())
        ]  # fmt: skip
        left = self.left_over(theirs, ours, found, [*open_, *once], most=_LITERAL)
        if all(left):
            looked = sides(*left, digits="none")
            again = pair(looked.theirs, looked.ours)
            found += [replace(decision, certain=False) for decision in again.decisions]
            open_ += again.open
            self.every |= bool(again.decisions)
        _, unknown = settle(found, self.series)
        found = self.told(found)
        unsure = members(unknown)
        self.ambiguous += [
            ambiguity(group) for group in open_ if not all(unsure.issuperset(_wanted(one)) for one in group)
        ]
        self.fed |= unsure & self.destination.keys()
        self.cut += [f"no rule for {one.noun}: {one}" for one in unknown]
        return [replace(one, certain=one.certain and not self.is_numbered_otherwise(one)) for one in found]

    def told(self, found: Sequence[Decision]) -> list[Decision]:
        """The decisions without those that guess which number of a series becomes which."""
        guessed, _ = settle(found, self.series)
        return [one for one in found if id(one) not in guessed]

    def is_numbered_otherwise(self, one: Decision) -> bool:
        """Whether a decision feeds a series that the other side counts otherwise."""
        return not self.numbered_otherwise.isdisjoint(_wanted(one.pair))

    def numbered(
        self, theirs: Sequence[Module], ours: Sequence[Module], found: Sequence[Decision]
    ) -> list[Decision]:
        """Modules that are merely numbered, ``Dense_0`` and ``conv3_BN``, and alike on both sides."""
        left = self.left_over(theirs, ours, found, (), most=_NUMBERED)
        if not all(left):
            return []
        looked = sides(*left, digits="any")
        return [
            replace(one, certain=False, why="numbered alike on both sides")
            for one in pair(looked.theirs, looked.ours).decisions
            if (fits_moved(one.pair) and self.is_numbered_otherwise(one))
            or all(fit.how == "rename" and fit.whole and not fit.moved for fit in one.pair.fits.values())
            if all(leaves.ranges for leaves in one.pair.destination.leaves.values())
        ]

    def left_over(
        self,
        theirs: Sequence[Module],
        ours: Sequence[Module],
        found: Sequence[Decision],
        open_: Sequence[Sequence[Pair]],
        *,
        most: int,
    ) -> tuple[dict[Keys, Spec], dict[Keys, Spec]]:
        """The leaves of both sides that are neither decided nor open.

        None where either side has more than ``most``; that too many are left is noted.
        """
        sides = []
        for side, modules_, specs in (
            ("destination", theirs, self.destination),
            ("source", ours, self.source),
        ):
            done = {name for one in found for name in _names(one, side)}
            waiting = {
                id(leaves) for group in open_ for one in group
                for leaves in getattr(one, side).leaves.values()
            }  # fmt: skip
            sides.append(
                {
                    name: specs[name] for module in modules_ for leaves in module.leaves.values()
                    if id(leaves) not in waiting for name in leaves.members if name not in done
                }
            )  # fmt: skip
        theirs_left, ours_left = sides
        if theirs_left and ours_left and max(map(len, sides)) > most:
            self.cut.append(f"more than {most:,} leaves are left: {_NOT_TRIED[most]}")
            return {}, {}
        return theirs_left, ours_left

    def feeds(self, *fed: Module, kinds: Iterable[str]) -> None:
        """Notes that a rule feeds these."""
        for module in fed:
            for kind in kinds:
                self.fed.update(module.leaves[kind].members)

    def result(self, held: Sequence[Proposal], more: Sequence[Proposal]) -> Suggestions:
        taken = {name for proposal in self.singles for name in proposal.takes}
        untouched = [] if not self.singles else self.untouched(taken)
        rules = gathered(self.singles, untouched)
        found = [*held, *self.shields(rules), *rules, *more]
        return Suggestions(
            (proposal.rule for proposal in found),
            certain=(proposal.rule for proposal in found if proposal.certain),
            reasons=(proposal.reason for proposal in found),
            ambiguous=self.ambiguous,
            instead=(proposal.instead for proposal in found),
            left=(*self.unfed(), *self.cut),
        )

    def unfed(self) -> tuple[str, ...]:
        """Sentences about the leaves for which there is neither a rule nor a choice of several."""
        if not self.source or len(self.fed) >= len(self.destination):
            return ()
        if self.known is None and len(self.destination) > LEAVES:
            return (f"no rule for {len(self.destination) - len(self.fed):,} leaves",)
        left = self.theirs
        if self.fed and len(self.destination) > LEAVES:  # too long to do it all again
            left = {text: leaves for text, leaves in left.items() if not self.fed.issuperset(leaves.members)}
        elif self.fed:
            left = templates({name: spec for name, spec in self.destination.items() if name not in self.fed})
        return unfed(left, self.ours, self.ambiguous)

    def shields(self, rules: Sequence[Proposal]) -> list[Proposal]:
        """A rule for each leaf that matches already and that a capture would take: it keeps its name."""
        patterns = [pattern for proposal in rules for pattern in proposal.rule.patterns if pattern.captures]
        if not patterns:
            return []
        named = Named(map(print_name, self.held))
        reached = set().union(*map(named.matched_by, patterns))
        kept = [name for name in self.held if name not in self.turned and print_name(name) in reached]
        reasons = ("it matches already, and a rule below would take it",)
        return [Proposal(Rename(name, name), (print_name(name),), 1, True, reasons) for name in kept]

    def untouched(self, taken: set[str]) -> list[str]:
        """Examples of what no proposal takes."""
        if self.known is None:  # too many templates: leaf by leaf
            return [print_name(name) for name in (*self.source, *self.held) if name not in self.used]
        found: list[str] = []
        ours = templates({**self.source, **self.held}) if self.held else self.ours
        for leaves in ours.values():
            found += examples(leaves, every=self.every)
        odd = [name for side in (self.source, self.held) for name in side if HOLE in "".join(name)]
        found += map(print_name, odd)
        return [name for name in found if name not in taken]

    def proposal(self, decision: Decision, trusted: bool) -> None:
        one = decision.pair
        for kind, fit in one.fits.items():
            here, there = one.source.leaves[kind], one.destination.leaves[kind]
            reading = read(here.template, there.template, fit.changes, shapes(here, there, fit), self.file)
            change = reading.change
            if change is None:
                self.ambiguous.append(Ambiguity((there.text(),), (here.text(),), reading.why))
                continue
            if not fit.moved and here.text() == there.text() and not change.ops and fit.how == "rename":
                continue  # the same name already
            rival = one.rival(kind) or self.twin(there)
            reasons = [
                *reasons_for(decision, fit, here, there, rival),
                *([reading.why] if reading.why else []),
            ]
            self.feeds(one.destination, kinds=[kind])
            self.used.update(here.members)
            reasons += [] if trusted else ["most of the two sides do not correspond"]
            certain = decision.certain and reading.certain and trusted and not rival
            instead = () if reading.certain else tuple(other.ops for other in reading.others[:1])
            verdict = Verdict(change.ops, certain, tuple(reasons), instead)
            self.singles += proposals(here, there, fit, verdict, every=self.every)

    def twin(self, there: Leaves) -> str:
        """What of an optimizer's state has the name and shape of a leaf as well, and nothing that feeds it.

        A moment lies in a step of a chain, whose number keeps it from being compared with what has none.
        """
        if is_of_optimizer(there.members[0]):
            return ""
        for leaves in self.moments.get(there.template[-1:], ()):
            ends = min(2, len(there.template) - 1, len(leaves.template) - 1)
            alike = leaves.distinct == there.distinct and len(leaves.shapes) == len(there.shapes)
            if alike and leaves.template[-ends:] == there.template[-ends:]:
                return "an optimizer's state in the destination"
        return ""

    @cached_property
    def moments(self) -> Mapping[Keys, list[Leaves]]:
        """The destination's templates of an optimizer's state that nothing feeds, by their last key."""
        found: dict[Keys, list[Leaves]] = {}
        for leaves in self.theirs.values():
            if is_of_optimizer(leaves.members[0]) and leaves.members[0] not in self.decided:
                found.setdefault(leaves.template[-1:], []).append(leaves)
        return found

    def turn_held(self) -> list[Proposal]:
        """Square kernels that match by name, in a file whose other kernels must be transposed."""
        found = []
        for module in modules(self.held):
            for leaves in module.leaves.values():
                options = {shape: changes(shape, shape) for shape in leaves.distinct}
                if not all(len(each) > 1 for each in options.values()):
                    continue
                shared = tuple(
                    change
                    for change in options.popitem()[1]
                    if all(change in each for each in options.values())
                )
                if len(shared) < 2:
                    continue
                pairs = [(shape, shape) for shape in sorted(leaves.distinct)]
                reading = read(leaves.template, leaves.template, shared, pairs, self.file)
                if reading.change is not None and reading.certain and reading.change.ops:
                    reasons = ("of the same name", reading.why)
                    for name in leaves.members:
                        rule = Rename(name, name, *reading.change.ops)
                        found.append(Proposal(rule, (print_name(name),), 1, True, reasons))
                        self.turned.add(name)
        return found


def _without(
    theirs: Sequence[Module], ours: Sequence[Module], fused: Sequence[Fusion]
) -> tuple[list[Module], list[Module]]:
    used = {id(module) for fusion in fused for module in (fusion.whole, *fusion.parts)}
    return [module for module in theirs if id(module) not in used], [
        module for module in ours if id(module) not in used
    ]


def _gives(decision: Decision) -> int:
    return min(decision.pair.source.count, decision.pair.destination.count)


def _names(one: Decision, side: str) -> Iterator[Keys]:
    """The leaves of one side that a decision is about."""
    module: Module = getattr(one.pair, side)
    return (name for kind in one.pair.fits for name in module.leaves[kind].members)


def _wanted(one: Pair) -> Iterator[Keys]:
    return (name for leaves in one.destination.leaves.values() for name in leaves.members)


def _all_decided(found: Sequence[Decision], theirs: Sequence[Module]) -> bool:
    done = {one.pair.destination.order for one in found}
    return all(module.order in done for module in theirs)


def print_pattern(prefix: Keys) -> str:
    """A prefix as the beginning of a pattern: ``params/``; empty for none."""
    return f"{quote(prefix)}/" if prefix else ""


__all__ = ["Ambiguity", "Suggestions", "suggest"]
