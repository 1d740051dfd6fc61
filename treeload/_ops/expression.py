"""Expressions of ops: ``Leaf`` (a leaf of a source) and ``Derived`` (an op on other values).

Owns how ops are put together, each step with its spec, and how an expression is evaluated. Refuses to own
which leaf gets which ops (the rules) and when it is computed (the loading).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from treeload._errors import TreeloadError
from treeload._leaves.placement import cast
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
    spec: Spec = field(hash=False)  # which would take longer than all else that is done with a leaf

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
"""A source leaf, or an op on other expressions; its ``spec`` is the shape and dtype of what it stands for."""


def derive(op: Op, *inputs: Expression) -> Derived:
    """``op`` applied to ``inputs``, as an expression; nothing is computed before the load.

    Examples:
        >>> import jax, numpy as np
        >>> from treeload import Name, Transpose
        >>> leaf = Leaf(0, Name("w"), jax.ShapeDtypeStruct((2, 3), np.float32))
        >>> derive(Transpose(), leaf).spec.shape
        (3, 2)

    Raises:
        RuleError: the op cannot be applied to arrays of these specs.
    """
    return Derived(op, inputs, op.infer(*(value.spec for value in inputs)))


def chain(value: Expression, ops: Sequence[Op]) -> Expression:
    """``ops`` applied to ``value`` one after the other.

    Raises:
        RuleError: an op cannot be applied to an array of its spec.
    """
    for op in ops:
        value = derive(op, value)
    return value


def combine(ops: Sequence[Op], values: Sequence[Expression]) -> Expression:
    """One value of several: the first op makes one of them, the others follow. One value takes all in turn.

    Raises:
        RuleError: an op cannot be applied to arrays of these specs.
    """
    if len(values) == 1:
        return chain(values[0], ops)
    return chain(derive(ops[0], *values), ops[1:])


def evaluate(value: Expression, arrays: Mapping[Leaf, Array], *, destination: Array = None) -> Array:
    """The array that an expression stands for, given those of its leaves.

    Args:
        value: the expression.
        arrays: the array of each of its leaves.
        destination: what the result is to replace, for a last op that takes a part of it: the result then
            has its dtype.

    Raises:
        TreeloadError: an op gave something else than its ``infer`` said.
    """
    if isinstance(value, Leaf):
        return arrays[value]
    inputs = [evaluate(each, arrays) for each in value.inputs]
    dtype = value.spec.dtype
    if value.op.onto_destination:
        assert destination is not None  # it is the last op of what feeds a destination leaf
        dtype = destination.dtype
        result = value.op.apply_onto(cast(inputs[0], dtype), destination)
    else:
        result = value.op.apply(*inputs)
    if result.shape != value.spec.shape or result.dtype != dtype:
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
