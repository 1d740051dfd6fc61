"""Rules between several leaves and one leaf that holds them along an axis.

Owns ``Concat`` (separate q, k, v → fused) and ``Split`` (fused → separate). Sizes are exact: an axis that
cannot be cut evenly, or sizes that do not add up, are findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from treeload._errors import RuleError
from treeload._leaves.spec import print_spec
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import Pattern, PatternLike
from treeload._naming.template import Template, compile_template
from treeload._ops.expression import Expression, chain, derive
from treeload._ops.op import Op, as_ops, inverse_ops
from treeload._ops.several import ConcatArrays, TakeRange, axis_of
from treeload._rules.combine import join_parts, same_captures, say_once
from treeload._rules.rule import (
    Made,
    Matched,
    Rule,
    checked_axis,
    is_invertible,
    plain_pattern,
    print_rule,
    set_fields,
)


@dataclass(frozen=True, init=False)
class Concat(Rule):
    """Several leaves become one along an axis they have: separate q, k, v → fused.

    Args:
        sources: a pattern for each part, in order, all with the same captures.
        destination: the new name.
        ops: applied to each part before it is joined.
        axis: the axis.
        sizes: what each part must have along the axis; without it the rule has no inverse, since
            the sizes cannot be told from the whole.

    Raises:
        RuleError: patterns that cannot mean anything, or whose captures differ.
    """

    sources: tuple[Pattern, ...]
    destination: Template
    ops: tuple[Op, ...]
    axis: int
    sizes: tuple[int, ...] | None

    def __init__(
        self, sources: Iterable[PatternLike], destination: PatternLike, *ops: Op, axis: int = -1,
        sizes: Iterable[int] | None = None,
    ) -> None:  # fmt: skip
        patterns = same_captures(_several(sources, "Concat"), "Concat")
        if len({pattern.text for pattern in patterns}) < len(patterns):
            raise RuleError("Concat: two parts have one pattern, and a leaf is taken once")
        set_fields(
            self, sources=patterns, destination=compile_template(destination, patterns[0]),
            ops=as_ops(ops, "Concat"), axis=checked_axis(axis), sizes=_sizes(sizes, len(patterns), "Concat"),
        )  # fmt: skip

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return self.sources

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        return join_parts(taken, self.sources, self.destination, self._joined)

    def _joined(self, name: Keys, values: Sequence[Expression]) -> Expression:
        try:
            parts = [chain(value, self.ops) for value in values]
            return derive(ConcatArrays(self.axis, self.sizes), *parts)
        except RuleError as error:
            raise RuleError(f"{print_name(name)}: {error}") from error

    def inverse(self) -> Rule | None:
        ops = inverse_ops(self.ops)
        turns = all(is_invertible(pattern, self.destination) for pattern in self.sources)
        if ops is None or self.sizes is None or not turns:
            return None
        targets = [pattern.text for pattern in self.sources]
        return Split(self.destination.text, targets, *ops, axis=self.axis, sizes=self.sizes)

    def destination_text(self) -> str:
        return self.destination.text

    def __repr__(self) -> str:
        names = (self.sources, self.destination)
        return print_rule(self, names, self.ops, axis=self.axis, sizes=self.sizes)


@dataclass(frozen=True, init=False)
class Split(Rule):
    """One leaf becomes several along an axis: fused q, k, v → separate.

    Args:
        source: a pattern over the source's names.
        destinations: the new name of each piece, in order.
        ops: applied to each piece after it was cut.
        axis: the axis.
        sizes: the size of each piece along it; without it they are equal, and an axis that cannot be
            cut evenly is a finding.

    Raises:
        RuleError: patterns that cannot mean anything, sizes below 0, or not one for each piece.
    """

    source: Pattern
    destinations: tuple[Template, ...]
    ops: tuple[Op, ...]
    axis: int
    sizes: tuple[int, ...] | None

    def __init__(
        self, source: PatternLike, destinations: Iterable[PatternLike], *ops: Op, axis: int = -1,
        sizes: Iterable[int] | None = None,
    ) -> None:  # fmt: skip
        pattern = plain_pattern(source, "Split")
        templates = tuple(compile_template(target, pattern) for target in _several(destinations, "Split"))
        if len({template.text for template in templates}) < len(templates):
            raise RuleError(f"Split: two pieces of {pattern.text!r} have one name")
        set_fields(
            self, source=pattern, destinations=templates, ops=as_ops(ops, "Split"), axis=checked_axis(axis),
            sizes=_sizes(sizes, len(templates), "Split"),
        )  # fmt: skip

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return (self.source,)

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        for leaf in taken:
            names = [template.expand(leaf.match) for template in self.destinations]
            yield from say_once(
                Made.of(name, (leaf.name,), partial(self._piece, leaf.value, which))
                for which, name in enumerate(names)
            )

    def _piece(self, value: Expression, which: int) -> Expression:
        sizes = self._sizes_in(value)
        start = sum(sizes[:which])
        take = TakeRange(self.axis, start, start + sizes[which], sum(sizes))
        return chain(derive(take, value), self.ops)

    def _sizes_in(self, value: Expression) -> tuple[int, ...]:
        """The size of each piece of this leaf, which are all of it."""
        total = value.spec.shape[axis_of(self.axis, value.spec)]
        count = len(self.destinations)
        if self.sizes is None:
            if total % count:
                raise RuleError(
                    f"{total} on axis {self.axis} of {print_spec(value.spec)} is no multiple of {count}; "
                    "give sizes=(...), one for each piece"
                )
            return (total // count,) * count
        if sum(self.sizes) != total:
            raise RuleError(
                f"sizes {self.sizes} add up to {sum(self.sizes)}, "
                f"axis {self.axis} of {print_spec(value.spec)} is {total}"
            )
        return self.sizes

    def inverse(self) -> Rule | None:
        ops = inverse_ops(self.ops)
        if ops is None or not all(is_invertible(self.source, template) for template in self.destinations):
            return None
        parts = [template.text for template in self.destinations]
        return Concat(parts, self.source.text, *ops, axis=self.axis, sizes=self.sizes)

    def destination_text(self) -> str:
        return self.destinations[0].text

    def __repr__(self) -> str:
        names = (self.source, self.destinations)
        return print_rule(self, names, self.ops, axis=self.axis, sizes=self.sizes)


def _several(patterns: Iterable[PatternLike], rule: str) -> tuple[PatternLike, ...]:
    if isinstance(patterns, str):
        raise RuleError(f"{rule} takes a list of patterns, one for each part, not {patterns!r}")
    given = tuple(patterns)
    if not given:
        raise RuleError(f"{rule} takes at least one part")
    return given


def _sizes(sizes: Iterable[int] | None, count: int, rule: str) -> tuple[int, ...] | None:
    if sizes is None:
        return None
    given = tuple(sizes)
    if len(given) != count or any(
        isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in given
    ):
        raise RuleError(f"{rule}(sizes={given}): {count} sizes of 0 or more are needed, one for each part")
    return given
