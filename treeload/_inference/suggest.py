"""Rules inferred from what did not match: what a user would have written, with why and how sure.

Owns the order of the inference: what agrees already, fused parts, pairs of
modules, what is left leaf by leaf, ties. Refuses to own the evidence (``pairing``), the shapes
(``relayouts``), the square kernels (``turns``) and the spelling (``proposals``). Works on names, shapes and
dtypes; applies nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from treeload._inference.changes import changes
from treeload._inference.evidence import Pair
from treeload._inference.fused import Fusion, fusions
from treeload._inference.layouts import File, read
from treeload._inference.pairing import Decision, Pairing, pair
from treeload._inference.proposals import Proposal, Verdict, examples, gathered, proposals
from treeload._inference.relayouts import Fit, shapes
from treeload._inference.suggestions import Ambiguity, Suggestions
from treeload._inference.templates import Leaves, Module, modules
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, print_name
from treeload._rules.rename import Rename
from treeload._rules.rule import Rule
from treeload._rules.tie import Tie

_LITERAL = 1500  # how many leaves are looked at one by one, after templates have failed


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
    found = _Inference(destination, source).run()
    return Suggestions(
        (*given, *found),
        certain=(*given, *found.certain),
        reasons=(*("as given" for _ in given), *found.reasons),
        ambiguous=found.ambiguous,
        instead=(*(() for _ in given), *found.instead),
        left=found.left,
    )


class _Inference:
    """One run: what is left on either side, what was found, and what shapes taught about transposing."""

    def __init__(self, destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> None:
        self.agreeing = {
            name for name, spec in destination.items() if name in source and source[name].shape == spec.shape
        }
        self.destination = {name: spec for name, spec in destination.items() if name not in self.agreeing}
        self.source = {name: spec for name, spec in source.items() if name not in self.agreeing}
        self.held = {name: source[name] for name in self.agreeing}
        self.file = File()
        self.file.look_at(destination)
        self.file.look_at(source)
        self.singles: list[Proposal] = []
        self.ambiguous: list[Ambiguity] = []
        self.every = False
        self.turned: set[Keys] = set()  # held, and to be transposed

    def run(self) -> Suggestions:
        if not self.destination or not self.source:
            return self.result([], [])
        theirs, ours = modules(self.destination), modules(self.source)
        fused = list(fusions(theirs, ours))
        theirs, ours = _without(theirs, ours, fused)
        pairing = pair(theirs, ours)
        again = self.one_by_one(theirs, ours, pairing)
        decisions = [*pairing.decisions, *again.decisions]
        for decision in decisions:
            for kind, fit in decision.pair.fits.items():
                here, there = decision.pair.source.leaves[kind], decision.pair.destination.leaves[kind]
                self.file.learn(here, there, fit.changes)
        # Where rules name single indices, one leaf no longer stands for its template.
        self.every = bool(again.decisions) or any(
            fit.moved for decision in decisions for fit in decision.pair.fits.values()
        )
        held = self.turn_held()
        trusted = 2 * sum(map(_gives, decisions)) >= min(len(self.destination), len(self.source))
        for one in fused:
            self.singles.append(one.proposal(self.file, every=self.every))
        for decision in decisions:
            self.proposal(decision, trusted)
        for group in (*pairing.open, *again.open):
            self.ambiguous.append(_ambiguity(group))
        return self.result(held, list(self.ties(decisions, theirs)))

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
        )

    def shields(self, rules: Sequence[Proposal]) -> list[Proposal]:
        """A rule for each leaf that matches already and that a capture would take: it keeps its name."""
        patterns = [pattern for proposal in rules for pattern in proposal.rule.patterns if pattern.captures]
        kept = [
            name
            for name in self.held
            if name not in self.turned and any(pattern.matches(print_name(name)) for pattern in patterns)
        ]
        reasons = ("it matches already, and a rule below would take it",)
        return [Proposal(Rename(name, name), (print_name(name),), 1, True, reasons) for name in kept]

    def untouched(self, taken: set[str]) -> list[str]:
        """Examples of what no proposal takes."""
        found: list[str] = []
        for module in modules({**self.source, **self.held}):
            for leaves in module.leaves.values():
                found += examples(leaves, every=self.every)
        return [name for name in found if name not in taken]

    def one_by_one(self, theirs: Sequence[Module], ours: Sequence[Module], pairing: Pairing) -> Pairing:
        """What templates did not settle, each digit taken as part of its name."""
        sides = []
        for side, modules_ in (("destination", theirs), ("source", ours)):
            done = {
                id(getattr(decision.pair, side).leaves[kind])
                for decision in pairing.decisions
                for kind in decision.pair.fits
            }
            done |= {
                id(leaves)
                for group in pairing.open
                for one in group
                for leaves in getattr(one, side).leaves.values()
            }
            left = [
                leaves for module in modules_ for leaves in module.leaves.values() if id(leaves) not in done
            ]
            names = [name for leaves in left for name in leaves.names()]
            specs = self.destination if side == "destination" else self.source
            sides.append({name: specs[name] for name in names})
        if not all(sides) or max(map(len, sides)) > _LITERAL:
            return Pairing((), ())
        again = pair(modules(sides[0], digits="none"), modules(sides[1], digits="none"))
        return Pairing(tuple(replace(decision, certain=False) for decision in again.decisions), again.open)

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
            reasons = [*_reasons(decision, fit, here, there), *([reading.why] if reading.why else [])]
            reasons += [] if trusted else ["most of the two sides do not correspond"]
            certain = decision.certain and reading.certain and trusted
            instead = () if reading.certain else tuple(other.ops for other in reading.others[:1])
            verdict = Verdict(change.ops, certain, tuple(reasons), instead)
            self.singles += proposals(here, there, fit, verdict, every=self.every)

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
                    for name in leaves.names():
                        rule = Rename(name, name, *reading.change.ops)
                        found.append(Proposal(rule, (print_name(name),), 1, True, reasons))
                        self.turned.add(name)
        return found

    def ties(self, decisions: Sequence[Decision], theirs: Sequence[Module]) -> Iterator[Proposal]:
        """A head that the source does not hold, of the shape of an embedding that it does."""
        fed = {decision.pair.destination.order for decision in decisions}
        embeddings = [
            leaves for module in (decision.pair.destination for decision in decisions)
            if "embed" in module.context and not module.context & {"pos", "type"}
            for leaves in module.leaves.values()
            if not leaves.ranges and len(next(iter(leaves.distinct))) == 2
        ]  # fmt: skip
        for module in theirs:
            if module.order in fed or "head" not in module.context or "weight" not in module.leaves:
                continue
            head = module.leaves["weight"]
            fits = [
                (leaves, changes(next(iter(leaves.distinct)), next(iter(head.distinct))))
                for leaves in embeddings
            ]
            fits = [(leaves, options) for leaves, options in fits if options and not head.ranges]
            if len(fits) == 1 and len(fits[0][1]) == 1:
                leaves, options = fits[0]
                reasons = ("the source holds no head, and the embedding has its shape: tied weights",)
                yield Proposal(Tie(head.text(), leaves.text(), *options[0].ops), (), 1, False, reasons)


def _without(
    theirs: Sequence[Module], ours: Sequence[Module], fused: Sequence[Fusion]
) -> tuple[list[Module], list[Module]]:
    used = {id(module) for fusion in fused for module in (fusion.whole, *fusion.parts)}
    return [module for module in theirs if id(module) not in used], [
        module for module in ours if id(module) not in used
    ]


def _gives(decision: Decision) -> int:
    return min(decision.pair.source.count, decision.pair.destination.count)


def _reasons(decision: Decision, fit: Fit, here: Leaves, there: Leaves) -> Iterator[str]:
    one = decision.pair
    if one.source.path == one.destination.path:
        yield "the same name but for its last key"
    elif one.shared:
        yield f"the names share {', '.join(word.replace('#', ' ') for word in one.shared[:3])}"
    else:
        yield "the names share nothing"
    if decision.alone:
        yield "no other shape fits"
    if fit.how != "rename":
        side, count = ("destination", "stack") if fit.how == "stack" else ("source", "unstack")
        yield (
            f"the {side} is scanned: {count}ed on axis {fit.axis}"
            if count == "stack"
            else f"the {side} is scanned on axis {fit.axis}"
        )
        if fit.open:
            yield "another axis has that size too"
    if fit.moved:
        yield f"indices {_run(here)} become {_run(there)}, in order"
    elif not fit.whole:
        yield f"the source has {_run(here)}, the destination {_run(there)}"


def _run(leaves: Leaves) -> str:
    return " × ".join(f"{run[0]}..{run[-1]}" for run in leaves.ranges)


def _ambiguity(group: Sequence[Pair]) -> Ambiguity:
    sides = []
    for modules_ in ([one.destination for one in group], [one.source for one in group]):
        unique = {id(module): module for module in modules_}
        kinds = [kind for module in unique.values() for kind in group[0].fits if kind in module.leaves]
        sides.append(
            tuple(
                module.leaves[kind].text()
                for kind in dict.fromkeys(kinds)
                for module in unique.values()
                if kind in module.leaves
            )
        )
    return Ambiguity(sides[0], sides[1], "they fit by shape, and their names do not tell them apart")


__all__ = ["Ambiguity", "Suggestions", "suggest"]
