"""Destination leaves that a ``Tie`` feeds from what feeds another destination leaf.

Owns how a tie is followed to its end, and what it means that the source holds the tied leaf too. The tied
value is offered under the leaf's own name before the slots are decided, so shapes, dtypes and all else are
judged as for any other leaf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from treeload._errors import RuleError
from treeload._findings import remedy
from treeload._findings.kinds import Kind
from treeload._leaves.spec import SlotKind
from treeload._matching.ledger import Feed, Ledger, found
from treeload._matching.sides import Sides
from treeload._naming.name import Keys, print_name
from treeload._ops.expression import Derived, Expression, combine
from treeload._plans.check import EqualCheck
from treeload._rules.apply import Arrival, RuleFailure
from treeload._rules.tie import Tie

Tied: TypeAlias = "Mapping[Keys, tuple[int, Tie, tuple[Keys, ...]]]"
"""Name of a tied leaf → its slot, its rule, and the leaves it is made of."""


@dataclass(frozen=True)
class Followed:
    """Ties, followed to their ends.

    Attributes:
        sides: the two sides, with each tied leaf's value offered under its name.
        slots: the slots concerned, to be decided one by one.
        targets: the leaves that feed others by a tie: even one that the destination has not is no leftover.
        contested: tied leaves that the source holds too, with another expression: name, own, and the tie's.
    """

    sides: Sides
    slots: frozenset[int]
    targets: frozenset[Keys]
    contested: tuple[tuple[Keys, Expression, Expression], ...]
    tied: Tied

    def note(self, ledger: Ledger) -> None:
        """Writes what the source's own values of tied leaves mean."""
        ledger.accounted_for.update(self.targets)
        for name, own, other in self.contested:
            _, _, targets = self.tied[name]
            of = " and ".join(map(print_name, targets))
            finding = found(
                self.sides,
                Kind.TIE,
                name,
                (f"the value of {of}", own.spec),
                feed=Feed(name, own, None),
                message=f"it is tied to {of}, and the source holds it too, with another value",
                remedies=(remedy.take_first(Kind.TIE, name, f"the value of {of}"),),
            )
            ledger.check(EqualCheck(name, ((targets[0], other), (name, own)), finding))
            ledger.leave(name, own, f"tied to {of}, whose value it must have")


def follow_ties(sides: Sides, ties: Sequence[Tie]) -> Followed:
    """Every tied leaf's value, offered under its name.

    Raises:
        RuleError: ties in a circle.
    """
    claimed = list(_claimed(sides, ties))
    used = {id(tie) for _, _, tie, _ in claimed}
    idle = [RuleFailure(tie, None, (), _nothing(tie)) for tie in ties if id(tie) not in used]
    # What is one array in the destination already needs no rule to be one.
    follower = _Follower(
        sides,
        {
            name: (index, tie, targets)
            for name, index, tie, targets in claimed if tie.ops or targets[0] not in sides.names_of(index)
        },
    )  # fmt: skip
    # Every value first: what a tie offers must not be what another one follows.
    offered = {name: arrival for name in follower.tied if (arrival := follower.follow(name, ())) is not None}
    contested = [
        (name, own.value, arrival.value)
        for name, arrival in offered.items()
        if (own := sides.offers.arrival(name)) is not None and own.value is not None
        and arrival.value is not None and own.value != arrival.value
    ]  # fmt: skip
    offers = sides.offers.with_arrivals(offered, (*idle, *follower.failures))
    return Followed(
        replace(sides, offers=offers),
        frozenset(index for index, _, _ in follower.tied.values()),
        frozenset(target for _, _, targets in follower.tied.values() for target in targets),
        tuple(contested),
        follower.tied,
    )


def _claimed(sides: Sides, ties: Sequence[Tie]) -> Iterator[tuple[Keys, int, Tie, tuple[Keys, ...]]]:
    """For each name of a leaf that a tie matches: its slot, the first such tie, and the tie's targets."""
    for index, kind in enumerate(sides.tree.kinds):
        for name in sides.names_of(index) if kind <= SlotKind.SCALAR else ():
            for tie in ties:
                targets = tie.targets(name)
                if targets:
                    yield name, index, tie, targets
                    break


def _nothing(tie: Tie) -> str:
    return f"{tie!r} matched nothing: no leaf of the destination is called '{tie.destination_text()}'"


@dataclass
class _Follower:
    """One walk along the ties, and the rules that failed on it."""

    sides: Sides
    tied: Tied
    failures: list[RuleFailure] = field(default_factory=list)

    def follow(self, name: Keys, trail: tuple[Keys, ...]) -> Arrival | None:
        """What feeds a leaf, by its tie if it has one; None where nothing does."""
        if name in trail:
            circle = " -> ".join(print_name(each) for each in (*trail[trail.index(name) :], name))
            raise RuleError(f"ties in a circle: {circle}")
        arrival = self.sides.offers.arrival
        if name not in self.tied:
            index = self.sides.slots.get(name)
            names = (name,) if index is None else self.sides.names_of(index)
            return next((one for each in names if (one := arrival(each)) is not None), None)
        _, tie, targets = self.tied[name]
        several = [self.follow(target, (*trail, name)) for target in targets]
        values = [one.value for one in several if one is not None and one.value is not None]
        if len(values) < len(several):
            return next((one for one in several if one is not None and one.value is None), None)
        taken = tuple(own for one in several if one is not None for own in one.taken)
        try:
            _filled_by_their_sources(values)
            return Arrival(combine(tie.ops, values), tie, taken)
        except RuleError as error:
            leaves = tuple(leaf for value in values for leaf in value.leaves())
            self.failures.append(RuleFailure(tie, name, taken, str(error), leaves))
            return Arrival(None, tie, taken)


def _filled_by_their_sources(values: Sequence[Expression]) -> None:
    """Nothing, where no value is filled up with what its own leaf of the destination has.

    Raises:
        RuleError: one is: what another leaf has there is not its value.
    """
    for value in values:
        if isinstance(value, Derived) and value.op.onto_destination:
            raise RuleError(
                f"{value.op!r} fills up with what the destination has there, which a tie cannot pass on: "
                "give the tied leaf a rule of its own, such as Copy"
            )
