"""The rule that feeds one destination leaf from what feeds another.

Owns ``Tie``. Refuses to own what is fed (``_matching``, which asks a tie for its target).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from treeload._errors import RuleError
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern
from treeload._naming.template import Template, compile_template
from treeload._ops.op import Op, as_ops, takes_several
from treeload._rules.rule import Made, Matched, Rule, print_rule, set_fields


@dataclass(frozen=True, init=False)
class Tie(Rule):
    """A destination leaf is fed by what feeds another destination leaf.

    Both names are the destination's. Ties are transitive. Where the source holds the tied leaf itself,
    both must have one value; that is checked before anything is changed.

    Args:
        destination: a pattern over the destination's names.
        of: the name of the other destination leaf; or a list of names, where the first op takes as
            many arrays (an ``Apply`` of a function of them): a leaf that the source lacks,
            computed from others.
        ops: applied to the other's value.

    Examples:
        >>> from treeload import Transpose
        >>> Tie("lm_head/kernel", "embed/embedding", Transpose())
        Tie('lm_head/kernel', 'embed/embedding', Transpose())

    Raises:
        RuleError: a pattern that cannot mean anything; at plan time, ties in a circle.
    """

    destination: Pattern
    of: tuple[Template, ...]
    ops: tuple[Op, ...]

    def __init__(
        self, destination: PatternLike, of: PatternLike | list[str] | list[PatternLike], *ops: Op
    ) -> None:
        pattern = compile_pattern(destination)
        given = as_ops(ops, "Tie")
        several = of if isinstance(of, list) else [of]
        if isinstance(of, list) and not (of and takes_several(given)):
            raise RuleError("Tie(..., [...]) to several leaves needs an Apply that makes one array of them")
        targets = tuple(compile_template(each, pattern) for each in several)
        set_fields(self, destination=pattern, of=targets, ops=given)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return ()  # it takes no leaf of the source

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        yield from ()

    def targets(self, name: Keys) -> tuple[Keys, ...]:
        """The other destination leaves, where this rule ties ``name``; none where it does not."""
        match = self.destination.match(print_name(name))
        return () if match is None else tuple(template.expand(match) for template in self.of)

    def inverse(self) -> Rule | None:
        return None  # a tied leaf is left out of an export, after a check that it is still tied

    def destination_text(self) -> str:
        return self.destination.text

    def __repr__(self) -> str:
        return print_rule(self, (self.destination, self.of[0] if len(self.of) == 1 else self.of), self.ops)
