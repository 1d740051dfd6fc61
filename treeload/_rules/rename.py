"""``Rename``: leaves of one name become leaves of another, changed on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from treeload._errors import RuleError
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern
from treeload._naming.template import Template, compile_template
from treeload._ops.convert import Apply
from treeload._ops.expression import chain, derive
from treeload._ops.op import Op, as_ops, inverse_ops
from treeload._rules.combine import parts_by_name, same_captures
from treeload._rules.rule import Made, Matched, Rule, is_invertible, set_fields


@dataclass(frozen=True, init=False)
class Rename(Rule):
    """Leaves of one name become leaves of another, changed by ``ops`` on the way.

    Several leaves become one where ``source`` is a list and the first op is an ``Apply`` of a function
    of as many arrays: a low-rank update merged into its kernel, say.

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

    def __init__(self, source: PatternLike | list[PatternLike], destination: PatternLike, *ops: Op) -> None:
        patterns = same_captures(source, "Rename") if isinstance(source, list) else (compile_pattern(source),)
        if isinstance(source, list) and not (ops and isinstance(ops[0], Apply)):
            raise RuleError("Rename([...]) of several leaves needs an Apply that makes one array of them")
        set_fields(
            self, sources=patterns, destination=compile_template(destination, patterns[0]),
            ops=as_ops(ops, "Rename"),
        )  # fmt: skip

    @property
    def source(self) -> Pattern:
        """The pattern over the source's names; of several, the first."""
        return self.sources[0]

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return self.sources

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        if len(self.sources) > 1:
            yield from self._join(taken)
            return
        for leaf in taken:
            name = self.destination.expand(leaf.match)
            try:
                yield Made(name, chain(leaf.value, self.ops), (leaf.name,))
            except RuleError as error:
                yield Made(name, None, (leaf.name,), str(error))

    def _join(self, taken: Sequence[Matched]) -> Iterator[Made]:
        for name, parts, fault in parts_by_name(taken, self.sources, self.destination):
            names = tuple(leaf.name for leaf in parts)
            try:
                value = None if fault else derive(self.ops[0], *(leaf.value for leaf in parts))
                made = None if value is None else chain(value, self.ops[1:])
                yield Made(name, made, names, fault or None)
            except RuleError as error:
                yield Made(name, None, names, str(error))

    def inverse(self) -> Rule | None:
        undone = inverse_ops(self.ops)
        if undone is None or len(self.sources) > 1 or not is_invertible(self.source, self.destination):
            return None
        return Rename(self.destination.text, self.source.text, *undone)

    def rename(self, name: Keys) -> Keys | None:
        match = self.source.match(print_name(name)) if len(self.sources) == 1 else None
        return None if match is None else self.destination.expand(match)

    def destination_text(self) -> str:
        return str(self.destination)

    def __repr__(self) -> str:
        source = f"re.compile({self.source.text!r})" if self.source.opaque else repr(self.source.text)
        if len(self.sources) > 1:
            source = repr([pattern.text for pattern in self.sources])
        parts = [source, repr(self.destination.text), *map(repr, self.ops)]
        return f"Rename({', '.join(parts)})"
