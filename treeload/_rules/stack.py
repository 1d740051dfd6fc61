"""Rules between leaves that differ in an index and one leaf that has it as an axis.

Owns ``Stack`` (per-layer → scanned) and ``Unstack`` (scanned → per-layer). Each groups the leaves it took by
their captures and says by name what is missing from a group. Refuses to own the joining (``several``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product

from treeload._errors import RuleError
from treeload._leaves.spec import print_spec
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import Pattern, PatternLike
from treeload._naming.template import Template, compile_template
from treeload._ops.expression import Expression, chain, derive
from treeload._ops.op import Op, as_ops, inverse_ops
from treeload._ops.several import StackArrays, TakeIndex, place_of
from treeload._rules.combine import say_once
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
class Stack(Rule):
    """Leaves that differ in an index become one leaf with that index as an axis: per-layer → scanned.

    The index is the capture that the destination's pattern lacks; the other captures group. Two such
    captures (experts inside layers) become two axes, in the order of the source's pattern. Indices are
    numbers, sorted as numbers, and run from ``first`` without a gap.

    Args:
        source: a pattern over the source's names.
        destination: the new name, without the capture that is the index.
        ops: applied to each leaf before it is stacked.
        axis: where the new axis is in the result.
        first: the lowest index.

    Examples:
        >>> Stack("layers/{i}/{*rest}", "layers/{*rest}", axis=0)
        Stack('layers/{i}/{*rest}', 'layers/{*rest}', axis=0)

    Raises:
        RuleError: a pattern that cannot mean anything, or a destination that lacks no capture.
    """

    source: Pattern
    destination: Template
    ops: tuple[Op, ...]
    axis: int
    first: int

    def __init__(
        self, source: PatternLike, destination: PatternLike, *ops: Op, axis: int = 0, first: int = 0
    ) -> None:
        pattern = plain_pattern(source, "Stack")
        template = compile_template(destination, pattern)
        if not _lacking(pattern, template):
            raise RuleError(
                f"Stack({pattern.text!r}, {template.text!r}): the destination has every capture of the "
                "source, so there is no index to stack over; leave out the one that is the index"
            )
        many = [name for name in _lacking(pattern, template) if name in pattern.many]
        if many:
            raise RuleError(f"Stack: {{*{many[0]}}} captures many segments, so it is no index")
        set_fields(
            self,
            source=pattern,
            destination=template,
            ops=as_ops(ops, "Stack"),
            axis=checked_axis(axis),
            first=_checked_first(first),
        )

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return (self.source,)

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        over = _lacking(self.source, self.destination)
        for name, members in _by_name(taken, self.destination).items():
            names = tuple(leaf.name for leaf in members)
            yield Made.of(name, names, partial(self._stack, name, members, over))

    def _stack(self, name: Keys, members: Sequence[Matched], over: Sequence[str]) -> Expression:
        found: dict[tuple[int, ...], Matched] = {}
        for leaf in members:
            at = tuple([_number(leaf.match[capture], leaf.name) for capture in over])
            if at in found:
                raise RuleError(f"{print_name(leaf.name)} and {print_name(found[at].name)} have one index")
            if min(at) < self.first:
                raise RuleError(f"{print_name(leaf.name)} has an index below first={self.first}")
            found[at] = leaf
        runs = [range(self.first, 1 + max(each)) for each in zip(*found, strict=True)]
        if len(found) < math.prod(map(len, runs)):
            raise RuleError(f"{print_name(name)} cannot be stacked: {_gaps(found, runs, over)}")
        ordered = [found[at] for at in product(*runs)]
        values = [self._prepared(leaf) for leaf in ordered]
        first = values[0].spec
        for leaf, value in zip(ordered, values, strict=True):
            if value.spec.shape != first.shape or value.spec.dtype != first.dtype:
                raise RuleError(
                    f"{print_name(ordered[0].name)} is {print_spec(first)} and {print_name(leaf.name)} is "
                    f"{print_spec(value.spec)}: only equal shapes and dtypes can be stacked"
                )
        return derive(StackArrays(tuple(map(len, runs)), self.axis), *values)

    def _prepared(self, leaf: Matched) -> Expression:
        try:
            return chain(leaf.value, self.ops)
        except RuleError as error:
            raise RuleError(f"{print_name(leaf.name)}: {error}") from error

    def inverse(self) -> Rule | None:
        ops = inverse_ops(self.ops)
        if ops is None or not is_invertible(self.source, self.destination, but=self.source.captures):
            return None
        return Unstack(self.destination.text, self.source.text, *ops, axis=self.axis, first=self.first)

    def destination_text(self) -> str:
        return self.destination.text

    def __repr__(self) -> str:
        names = (self.source, self.destination)
        return print_rule(self, names, self.ops, axis=self.axis, first=self.first or None)


@dataclass(frozen=True, init=False)
class Unstack(Rule):
    """One leaf with an index as an axis becomes a leaf for each index: scanned → per-layer.

    The index is the capture that the source's pattern lacks; two of them take two axes.

    Args:
        source: a pattern over the source's names.
        destination: the new names, with a capture that the source lacks for the index.
        ops: applied to each leaf after it was taken out.
        axis: the axis that is the index.
        first: the lowest index.

    Raises:
        RuleError: a pattern that cannot mean anything, or a destination without an index.
    """

    source: Pattern
    destination: Template
    ops: tuple[Op, ...]
    axis: int
    first: int
    over: tuple[str, ...]

    def __init__(
        self, source: PatternLike, destination: PatternLike, *ops: Op, axis: int = 0, first: int = 0
    ) -> None:
        pattern = plain_pattern(source, "Unstack")
        target = plain_pattern(destination, "Unstack")
        over = tuple(name for name in target.captures if name not in pattern.captures)
        if not over:
            raise RuleError(
                f"Unstack({pattern.text!r}, {target.text!r}): the destination needs a capture that the "
                "source lacks, for the index"
            )
        if any(name in target.many for name in over):
            raise RuleError("Unstack: the index is one segment or a part of one, not {*many}")
        template = compile_template(target.text, _with_captures(pattern, over))
        set_fields(
            self, source=pattern, destination=template, ops=as_ops(ops, "Unstack"), axis=checked_axis(axis),
            first=_checked_first(first), over=over,
        )  # fmt: skip

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return (self.source,)

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        for leaf in taken:
            spec = leaf.value.spec
            at = place_of(self.axis, len(spec.shape), len(self.over))
            counts = () if at is None else spec.shape[at : at + len(self.over)]
            if not math.prod(counts or (0,)):
                name = self._name(leaf, (0,) * len(self.over))
                fault = (
                    f"{print_name(leaf.name)} is {print_spec(spec)}: nothing to unstack on axis {self.axis}"
                )
                yield Made(name, None, (leaf.name,), fault)
                continue
            # All have one shape, so what is wrong with one is wrong with all.
            yield from say_once(
                Made.of(self._name(leaf, at), (leaf.name,), partial(self._one, leaf.value, at, counts))
                for at in product(*map(range, counts))
            )

    def _one(self, value: Expression, indices: tuple[int, ...], counts: tuple[int, ...]) -> Expression:
        return chain(derive(TakeIndex(indices, self.axis, counts), value), self.ops)

    def _name(self, leaf: Matched, indices: tuple[int, ...]) -> Keys:
        numbers = {name: str(index + self.first) for name, index in zip(self.over, indices, strict=True)}
        return self.destination.expand({**leaf.match.groupdict(), **numbers})

    def inverse(self) -> Rule | None:
        ops = inverse_ops(self.ops)
        if ops is None or not is_invertible(self.source, self.destination, but=self.over):
            return None
        return Stack(self.destination.text, self.source.text, *ops, axis=self.axis, first=self.first)

    def destination_text(self) -> str:
        return self.destination.text

    def __repr__(self) -> str:
        names = (self.source, self.destination)
        return print_rule(self, names, self.ops, axis=self.axis, first=self.first or None)


def _lacking(pattern: Pattern, template: Template) -> tuple[str, ...]:
    """The captures of the pattern that the template does not use, in the pattern's order."""
    used = {part for capture, part in template.parts if capture}
    return tuple(name for name in pattern.captures if name not in used)


def _with_captures(pattern: Pattern, more: Sequence[str]) -> Pattern:
    """A pattern that a template with further captures can be checked against."""
    return Pattern(pattern.text, (*pattern.captures, *more), pattern.many, pattern.regex)


def _by_name(taken: Sequence[Matched], template: Template) -> dict[Keys, list[Matched]]:
    groups: dict[Keys, list[Matched]] = {}
    for leaf in taken:
        groups.setdefault(template.expand(leaf.match), []).append(leaf)
    return groups


def _number(text: str, name: Keys) -> int:
    # Nineteen digits and more count nothing that exists, and Python itself refuses to read thousands of them.
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        raise RuleError(f"{text!r} in {print_name(name)} is no index: only numbers can be stacked over")
    return int(text)


def _checked_first(first: int) -> int:
    if isinstance(first, bool) or not isinstance(first, int) or first < 0:
        raise RuleError(f"first is the lowest index, an integer of 0 or more, not {first!r}")
    return first


def _gaps(found: Collection[tuple[int, ...]], runs: Sequence[range], over: Sequence[str]) -> str:
    """Which indices are missing, in words: those of which nothing is there, then single ones."""
    # One index may be 10**9: what is missing is counted, and looked at only as far as it is shown.
    present = [sorted(set(each)) for each in zip(*found, strict=True)]
    missing: list[str] = []
    for capture, run, there in zip(over, runs, present, strict=True):
        lacking = len(run) - len(there)
        some = islice((index for index in run if index not in set(there)), 5) if lacking else ()
        missing += [f"{capture}={index}" for index in some]
        missing += [f"{lacking - 5:,} more of {{{capture}}}"] if lacking > 5 else []
    lacking = math.prod(map(len, present)) - len(found)
    for at in islice((at for at in product(*present) if at not in found), 5):
        missing.append(" with ".join(f"{capture}={index}" for capture, index in zip(over, at, strict=True)))
    missing += [f"{lacking - 5:,} more"] if lacking > 5 else []
    shown = ", ".join(
        f"{capture} runs from {run[0]} to {run[-1]}" for capture, run in zip(over, runs, strict=True)
    )
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, where {shown}"
