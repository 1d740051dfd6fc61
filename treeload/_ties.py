"""The rule that feeds one destination leaf from what feeds another.

Owns ``Tie``. Refuses to own what is fed (``_match``, which asks a tie for its target).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from treeload._names import print_name
from treeload._ops import Op, as_ops
from treeload._patterns import Pattern, PatternLike, Template, compile_pattern, compile_template
from treeload._rules import Given, Keys, Rule, Taken, print_rule, set_fields


@dataclass(frozen=True, init=False)
class Tie(Rule):
    """A destination leaf is fed by what feeds another destination leaf.

    Both names are the destination's. Ties are transitive. Where the source holds the tied leaf itself,
    both must have one value; that is checked before anything is changed.

    Args:
        destination: a pattern over the destination's names.
        of: the name of the other destination leaf.
        ops: applied to the other's value.

    >>> from treeload._ops import Transpose
    >>> Tie("lm_head/kernel", "embed/embedding", Transpose())
    Tie('lm_head/kernel', 'embed/embedding', Transpose())

    Raises:
        RuleError: a pattern that cannot mean anything; at plan time, ties in a circle.
    """

    destination: Pattern
    of: Template
    ops: tuple[Op, ...]

    def __init__(self, destination: PatternLike, of: PatternLike, *ops: Op) -> None:
        pattern = compile_pattern(destination)
        set_fields(self, destination=pattern, of=compile_template(of, pattern), ops=as_ops(ops, "Tie"))

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return ()  # it takes no leaf of the source

    def give(self, taken: Sequence[Taken]) -> Iterator[Given]:
        yield from ()

    def target(self, name: Keys) -> Keys | None:
        """The other destination leaf, where this rule ties ``name``."""
        match = self.destination.match(print_name(name))
        return None if match is None else self.of.expand(match)

    def inverse(self) -> Rule | None:
        return None  # a tied leaf is left out of an export, after a check that it is still tied

    def landing(self) -> str:
        return self.destination.text

    def __repr__(self) -> str:
        return print_rule(self, repr(self.destination.text), repr(self.of.text))
