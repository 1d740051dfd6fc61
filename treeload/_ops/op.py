"""What an op is: spec to spec at plan time, array to array at load time, and back.

Owns ``Op``, the base of all of them, and the checks of what a rule is given as ops. Whatever another room
wants to know of an op it asks the op: none but this room knows which ops there are.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from treeload._errors import RuleError
from treeload._leaves.spec import Spec

Array: TypeAlias = Any

Region: TypeAlias = tuple[Any, ...]
"""Where a part of an array lies: what is written between the brackets, ``array[region]``."""


class Op(abc.ABC):
    """One step on the way of a leaf: spec to spec at plan time, array to array at load time, and back.

    An op of your own says ``infer`` and ``apply``, is immutable and compares by value (a frozen dataclass),
    and prints as it is written. The law of every op: ``infer`` of the inputs' specs is the shape and dtype
    of what ``apply`` gives. All else has an answer that is safe, and is overridden where more is true.
    """

    @abc.abstractmethod
    def infer(self, *specs: Spec) -> Spec:
        """The result's shape and dtype, as a ``jax.ShapeDtypeStruct``; no array is there yet.

        Raises:
            RuleError: the op cannot be applied to arrays of these specs.
        """

    @abc.abstractmethod
    def apply(self, *arrays: Array) -> Array:
        """The result: a NumPy array of NumPy arrays, a JAX array of JAX arrays; a leaf stays where it lies.

        It may be a view; the inputs are not written to.
        """

    # What it is.

    @property
    def takes_several(self) -> bool:
        """Whether it makes one array of several, so that it may come first in ``Rename([...], op)``."""
        return False

    @property
    def moves_only(self) -> bool:
        """Whether every element of the result is an element of an input, but for a cast.

        Then what is done to a parameter may be done to its moments in an optimizer's state too. What a
        function of the values would have to do to a second moment nobody knows.
        """
        return False

    @property
    def elementwise(self) -> bool:
        """Whether each element of the result is made of the one at its place, whatever the array's shape."""
        return False

    @property
    def traceable(self) -> bool:
        """Whether ``apply`` may be given tracers, so that it runs under jit where leaves are spread.

        What it gives is the same there, bit for bit.
        """
        return False

    @property
    def on_host(self) -> bool:
        """Whether it computes a NumPy array with NumPy alone, and so may run while JAX waits for it."""
        return False

    # What it takes from the destination.

    @property
    def onto_destination(self) -> bool:
        """Whether a part of the result is the destination's own; see ``apply_onto``.

        Such an op is the last of a ``Rename``, a ``Copy`` or a ``Tie``.
        """
        return False

    def apply_onto(self, array: Array, destination: Array) -> Array:
        """The result where a part of it is the destination's own, in place of ``apply``.

        ``array`` has the destination's dtype already. Neither is written to.
        """
        raise NotImplementedError(f"{self!r} takes nothing from the destination")

    # The way back, for exports: an op joins, or takes a piece, or is undone by another op.

    def regions(self, *specs: Spec) -> tuple[Region, ...] | None:
        """Where each input lies in the result, where the result is nothing but its inputs; else None."""
        return None

    def region(self, spec: Spec) -> Region | None:
        """Where in its input the result lies, where it is one of the pieces of the whole; else None.

        The input comes back once all of its pieces are there.
        """
        return None

    @property
    def adds(self) -> bool:
        """Whether the result holds elements of the op's own.

        Then it is undone only where ``apply`` of what ``inverse`` gives is the array again: nothing but
        what the op itself had added may be cut off.
        """
        return False

    def inverse(self, spec: Spec | None = None) -> Op | None:
        """The op that undoes this one; None where something is lost.

        Args:
            spec: what it was applied to, where that is known: some ops can be undone only then.
        """
        return None


_MODULES = (("np", np), ("jnp", jnp))


def as_ops(ops: tuple[Any, ...], where: str) -> tuple[Op, ...]:
    """``ops`` checked to be ops.

    Raises:
        RuleError: something else was given.
    """
    for op in ops:
        if not isinstance(op, Op):
            said = f"{op!r}{_instead(op)}"
            raise RuleError(f"{where} takes ops such as Transpose() after its patterns, not {said}")
    filling = [op for op in ops if op.onto_destination]
    if filling and (where not in ("Rename", "Copy", "Tie") or filling != [ops[-1]]):
        raise RuleError(f"{filling[0]!r} fills up with the destination's own: it is the last op of a Rename")
    return ops


def _instead(given: Any) -> str:
    """What was probably meant by something that is no op."""
    if isinstance(given, type) and issubclass(given, Op):
        return f"; write {given.__name__}()"
    if isinstance(given, type) or not callable(given):
        return ""
    said = getattr(given, "__name__", "")
    called = [f"{short}.{said}" for short, module in _MODULES if getattr(module, said, None) is given]
    name = (called or [said if said.isidentifier() else "fn"])[0]
    transposes = given in (np.transpose, jnp.transpose)
    return f"; write {'Transpose() or ' if transposes else ''}Apply({name})"


def takes_several(ops: Sequence[Op]) -> bool:
    """Whether ``ops`` can begin with several arrays."""
    return bool(ops) and ops[0].takes_several


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


def says_itself(step: object) -> bool:
    """Whether something prints as more than its class and its address, which is another in each run."""
    inherited: object = object.__repr__
    return type(step).__repr__ is not inherited
