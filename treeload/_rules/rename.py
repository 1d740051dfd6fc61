"""``Rename``: leaves of one name become leaves of another, changed on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from treeload._errors import RuleError
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern
from treeload._naming.template import Template, compile_template
from treeload._ops.expression import chain, combine
from treeload._ops.op import Op, as_ops, inverse_ops, takes_several
from treeload._rules.combine import join_parts, same_captures
from treeload._rules.rule import Made, Matched, Rule, is_invertible, print_rule, set_fields


@dataclass(frozen=True, init=False)
class Rename(Rule):
    """Leaves of one name become leaves of another, changed by ``ops`` on the way.

    Several leaves become one where ``source`` is a list and the first op takes as many arrays (an
    ``Apply`` of a function of them): a low-rank update merged into its kernel, say.

    Args:
        source: a pattern over the source's names, or a list of them with the same captures.
        destination: the new name, with the pattern's captures filled in.
        ops: applied to each leaf, left to right.

    Examples:
        >>> from treeload import Transpose
        >>> Rename("layer_{i}/weight", "layers/{i}/kernel", Transpose())
        Rename('layer_{i}/weight', 'layers/{i}/kernel', Transpose())

    Raises:
        RuleError: a pattern or a template that cannot mean anything, or something that is no op.
    """

    sources: tuple[Pattern, ...]
    destination: Template
    ops: tuple[Op, ...]

    def __init__(
        self, source: PatternLike | list[str] | list[PatternLike], destination: PatternLike, *ops: Op
    ) -> None:
        said = type(self).__name__
        given = as_ops(ops, said)
        patterns = same_captures(source, said) if isinstance(source, list) else (compile_pattern(source),)
        if isinstance(source, list) and not takes_several(given):
            raise RuleError(f"{said}([...]) of several leaves needs an Apply that makes one array of them")
        set_fields(self, sources=patterns, destination=compile_template(destination, patterns[0]), ops=given)

    @property
    def source(self) -> Pattern:
        """The pattern over the source's names; of several, the first."""
        return self.sources[0]

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return self.sources

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        if len(self.sources) > 1:
            yield from join_parts(
                taken, self.sources, self.destination, lambda _, values: combine(self.ops, values)
            )
            return
        for leaf in taken:
            name = self.destination.expand(leaf.match)
            yield Made.of(name, (leaf.name,), partial(chain, leaf.value, self.ops))

    def inverse(self) -> Rule | None:
        undone = inverse_ops(self.ops)
        if undone is None or len(self.sources) > 1 or not is_invertible(self.source, self.destination):
            return None
        return Rename(self.destination.text, self.source.text, *undone)

    def rename(self, name: Keys) -> Keys | None:
        match = self.source.match(print_name(name)) if len(self.sources) == 1 else None
        return None if match is None else self.destination.expand(match)

    def of_subtree(self) -> Rule | None:
        if len(self.sources) > 1 or self.source.opaque or not (self.source.text and self.destination.text):
            return None
        rest = "{*rest}" if "rest" not in self.source.captures else "{*below}"
        return Rename(f"{self.source}/{rest}", f"{self.destination}/{rest}", *self.ops)

    def destination_text(self) -> str:
        return str(self.destination)

    def __repr__(self) -> str:
        source = self.source if len(self.sources) == 1 else self.sources
        return print_rule(self, (source, self.destination), self.ops)
