"""What an op is: spec to spec at plan time, array to array at load time, and back.

Owns ``Op``, the base of all of them, and the checks of what a rule is given as ops. The law of every op:
``op.infer(spec) == spec_of(op.apply(array))``. Ops compute with NumPy on NumPy arrays and with JAX on JAX
arrays, so that a leaf stays where it lies.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from treeload._errors import RuleError
from treeload._leaves.spec import Spec

Array: TypeAlias = Any


class Op(abc.ABC):
    """One step on the way of a leaf: spec to spec at plan time, array to array at load time.

    Most ops take one array; those that join leaves take several.
    """

    @property
    def onto_destination(self) -> bool:
        """Whether a part of the result is the destination's own; see ``apply_onto``."""
        return False

    def apply_onto(self, array: Array, destination: Array) -> Array:
        """The result where a part of it is the destination's own."""
        raise NotImplementedError(f"{self!r} takes nothing from the destination")

    @abc.abstractmethod
    def infer(self, *specs: Spec) -> Spec:
        """The spec of the result.

        Raises:
            RuleError: the op cannot be applied to arrays of these specs.
        """

    @abc.abstractmethod
    def apply(self, *arrays: Array) -> Array:
        """The result, a NumPy array for NumPy arrays and a JAX array for JAX arrays."""

    def inverse(self, spec: Spec | None = None) -> Op | None:
        """The op that undoes this one; None where something is lost.

        Args:
            spec: what it was applied to, where that is known: some ops can be undone only then.
        """
        return None


def as_ops(ops: tuple[Any, ...], where: str) -> tuple[Op, ...]:
    """``ops`` checked to be ops.

    Raises:
        RuleError: something else was given.
    """
    for op in ops:
        if not isinstance(op, Op):
            hint = f"; write {op.__name__}()" if isinstance(op, type) and issubclass(op, Op) else ""
            raise RuleError(f"{where} takes ops such as Transpose() after its patterns, not {op!r}{hint}")
    filling = [op for op in ops if op.onto_destination]
    if filling and (where not in ("Rename", "Tie") or filling != [ops[-1]]):
        raise RuleError(f"{filling[0]!r} fills up with the destination's own: it is the last op of a Rename")
    return ops


def inverse_ops(ops: Sequence[Op]) -> tuple[Op, ...] | None:
    """The ops that undo ``ops``, in the order they run; None where one cannot be undone."""
    undone = tuple(op.inverse() for op in reversed(ops))
    return None if None in undone else tuple(op for op in undone if op is not None)


def integers(values: tuple[Any, ...], what: str) -> tuple[int, ...]:
    """``values`` checked to be integers, or the one sequence of them that was given."""
    if len(values) == 1 and isinstance(values[0], (tuple, list)):
        values = tuple(values[0])
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise RuleError(f"{what} takes integers, not {value!r}")
    return tuple(int(value) for value in values)
