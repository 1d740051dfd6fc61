"""Expressions of ops: ``Leaf`` (a leaf of a source) and ``Derived`` (an op on other values).

Owns how ops are put together, each step with its spec, and how an expression is evaluated. Refuses to own
which leaf gets which ops (the rules) and when it is computed (the loading).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from treeload._errors import TreeloadError
from treeload._leaves.spec import Spec, print_spec
from treeload._naming.name import Name, print_name
from treeload._ops.op import Array, Op


@dataclass(frozen=True, slots=True)  # there are as many as source leaves: a dict less for each
class Leaf:
    """A leaf of a source, as part of an expression.

    Attributes:
        index: which of the plan's sources.
        name: the leaf's own name there.
        spec: its shape and dtype there.
    """

    index: int
    name: Name
    spec: Spec

    def leaves(self) -> Iterator[Leaf]:
        """Itself."""
        yield self


@dataclass(frozen=True, slots=True)  # there are as many as source leaves: a dict less for each
class Derived:
    """The result of an op on other values.

    Attributes:
        op: the op.
        inputs: what it is applied to.
        spec: the result's shape and dtype.
    """

    op: Op
    inputs: tuple[Expression, ...]
    spec: Spec

    def leaves(self) -> Iterator[Leaf]:
        """The source leaves it is made of, in order."""
        for value in self.inputs:
            yield from value.leaves()


Expression: TypeAlias = Leaf | Derived


def derive(op: Op, *inputs: Expression) -> Derived:
    """``op`` applied to ``inputs``, as an expression.

    Raises:
        RuleError: the op cannot be applied to arrays of these specs.
    """
    return Derived(op, inputs, op.infer(*(value.spec for value in inputs)))


def chain(value: Expression, ops: tuple[Op, ...]) -> Expression:
    """``ops`` applied to ``value`` one after the other."""
    for op in ops:
        value = derive(op, value)
    return value


def evaluate(value: Expression, arrays: Mapping[Leaf, Array]) -> Array:
    """The array that an expression stands for, given those of its leaves.

    Raises:
        TreeloadError: an op gave something else than its ``infer`` said.
    """
    if isinstance(value, Leaf):
        return arrays[value]
    result = value.op.apply(*(evaluate(each, arrays) for each in value.inputs))
    if result.shape != value.spec.shape or result.dtype != value.spec.dtype:
        raise TreeloadError(
            f"{value.op!r} was to give {print_spec(value.spec)} and gave {print_spec(result)} "
            f"for {', '.join(print_name(leaf.name) for leaf in value.leaves())}"
        )
    return result


def ops_of(value: Expression) -> tuple[Op, ...]:
    """The ops of an expression in the order they run, each step once."""
    if isinstance(value, Leaf):
        return ()
    steps: list[tuple[Op, ...]] = []
    for part in map(ops_of, value.inputs):
        if part and part not in steps:
            steps.append(part)
    return (*(op for part in steps for op in part), value.op)


def fills_from_destination(value: Expression) -> bool:
    """Whether the last op of an expression takes a part of its result from the destination."""
    return isinstance(value, Derived) and value.op.onto_destination
