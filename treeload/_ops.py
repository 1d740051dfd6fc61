"""What may be done to arrays on their way: ops that know their result's spec before any array is read.

Owns the ops and the expressions made of them: ``Leaf`` (a leaf of a source) and ``Derived`` (an op on
other values), each with its spec. Refuses to own which leaf gets which op (``_rules``) and when it is
computed (``_execute``). The law of every op: ``op.infer(spec) == spec_of(op.apply(array))``.

Ops compute with NumPy on NumPy arrays and with JAX on JAX arrays, so that a leaf stays where it lies.
"""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from treeload._errors import RuleError, TreeloadError
from treeload._names import Name, print_name
from treeload._specs import Spec, can_cast, is_key, is_numeric, make_spec, print_spec

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
    inputs: tuple[Value, ...]
    spec: Spec

    def leaves(self) -> Iterator[Leaf]:
        """The source leaves it is made of, in order."""
        for value in self.inputs:
            yield from value.leaves()


Value: TypeAlias = Leaf | Derived


def derive(op: Op, *inputs: Value) -> Derived:
    """``op`` applied to ``inputs``, as an expression.

    Raises:
        RuleError: the op cannot be applied to arrays of these specs.
    """
    return Derived(op, inputs, op.infer(*(value.spec for value in inputs)))


def chain(value: Value, ops: tuple[Op, ...]) -> Value:
    """``ops`` applied to ``value`` one after the other."""
    for op in ops:
        value = derive(op, value)
    return value


def evaluate(value: Value, arrays: Mapping[Leaf, Array]) -> Array:
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


def ops_of(value: Value) -> tuple[Op, ...]:
    """The ops of an expression in the order they run, each step once."""
    if isinstance(value, Leaf):
        return ()
    steps: list[tuple[Op, ...]] = []
    for part in map(ops_of, value.inputs):
        if part and part not in steps:
            steps.append(part)
    return (*(op for part in steps for op in part), value.op)


def fills_up(value: Value) -> bool:
    """Whether the last op of an expression takes a part of its result from the destination."""
    return isinstance(value, Derived) and value.op.onto_destination


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


@dataclass(frozen=True, init=False)
class Transpose(Op):
    """Axes in another order, as ``numpy.transpose``; without axes, reversed.

    ``Transpose(1, 0)`` and ``Transpose((1, 0))`` are the same.

    Examples:
        >>> import jax, numpy as np
        >>> Transpose().infer(jax.ShapeDtypeStruct((2, 3), np.float32)).shape
        (3, 2)

    Raises:
        RuleError: axes that are no permutation, or another number of axes than the array has.
    """

    axes: tuple[int, ...] | None

    def __init__(self, *axes: int | tuple[int, ...]) -> None:
        if len(axes) == 1 and axes[0] is None:
            axes = ()
        given = integers(axes, "Transpose") if axes else None
        if given is not None:
            rank = len(given)
            if sorted(axis + rank if axis < 0 else axis for axis in given) != list(range(rank)):
                raise RuleError(f"Transpose{given} is no permutation of {rank} axes")
        object.__setattr__(self, "axes", given)

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        if self.axes is None:
            return make_spec(spec.shape[::-1], spec.dtype)
        if len(self.axes) != len(spec.shape):
            raise RuleError(f"{self} is for {len(self.axes)} axes, the leaf is {print_spec(spec)}")
        return make_spec(tuple(spec.shape[axis] for axis in self.axes), spec.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        return array.transpose(self.axes) if self.axes is not None else array.transpose()

    def inverse(self, spec: Spec | None = None) -> Op | None:
        if self.axes is None:
            return self
        rank = len(self.axes)
        positive = [axis % rank for axis in self.axes]
        return Transpose(tuple(positive.index(axis) for axis in range(rank)))

    def __repr__(self) -> str:
        return "Transpose(())" if self.axes == () else f"Transpose({', '.join(map(str, self.axes or ()))})"


@dataclass(frozen=True, init=False)
class Reshape(Op):
    """The same elements in C order under another shape; one size may be -1.

    ``Reshape(2, 3)`` and ``Reshape((2, 3))`` are the same; ``Reshape(())`` makes a scalar. It knows
    no way back, since it does not know the shape it came from; see ``Reshape(..., source=...)``.

    Args:
        shape: the shape of the result.
        source: the shape the leaf must have, which makes the op invertible.

    Examples:
        >>> import jax, numpy as np
        >>> Reshape(2, -1).infer(jax.ShapeDtypeStruct((6,), np.float32)).shape
        (2, 3)

    Raises:
        RuleError: sizes below -1, more than one -1, or another number of elements.
    """

    shape: tuple[int, ...]
    source: tuple[int, ...] | None

    def __init__(self, *shape: int | tuple[int, ...], source: tuple[int, ...] | None = None) -> None:
        given = integers(shape, "Reshape")
        if any(size < -1 for size in given) or given.count(-1) > 1:
            raise RuleError(f"Reshape{given}: sizes are 0 or more, and one at most is -1")
        object.__setattr__(self, "shape", given)
        object.__setattr__(self, "source", None if source is None else integers(tuple(source), "source"))

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        if self.source is not None and spec.shape != self.source:
            raise RuleError(f"{self} is for {list(self.source)}, the leaf is {print_spec(spec)}")
        total, known = math.prod(spec.shape), math.prod(size for size in self.shape if size != -1)
        if -1 in self.shape:
            fits = known > 0 and total % known == 0
            shape = tuple(total // known if size == -1 else size for size in self.shape) if fits else ()
        else:
            fits, shape = known == total, self.shape
        if not fits:
            raise RuleError(f"{self} does not fit the {total} elements of {print_spec(spec)}")
        return make_spec(shape, spec.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        return array.reshape(self.shape)

    def inverse(self, spec: Spec | None = None) -> Op | None:
        if spec is not None:
            return Reshape(spec.shape)
        if self.source is None:
            return None
        return Reshape(self.source, source=None if -1 in self.shape else self.shape)

    def __repr__(self) -> str:
        sizes = ", ".join(map(str, self.shape)) or "()"
        return f"Reshape({sizes})" if self.source is None else f"Reshape({sizes}, source={self.source})"


@dataclass(frozen=True, init=False)
class Cast(Op):
    """Another dtype, asked for by name: the policy's ``casting`` is not consulted for it.

    Examples:
        >>> import jax, numpy as np
        >>> Cast("bfloat16").infer(jax.ShapeDtypeStruct((2,), np.float32)).dtype
        dtype(bfloat16)

    Raises:
        RuleError: an unknown dtype, or a leaf of PRNG keys.
    """

    dtype: np.dtype[Any]

    def __init__(self, dtype: Any) -> None:
        try:
            given = jnp.dtype(dtype)
        except TypeError as error:
            raise RuleError(f"Cast takes a dtype, not {dtype!r}") from error
        if dtype is None or not is_numeric(given):  # NumPy reads None as float64
            raise RuleError(f"Cast takes a dtype that JAX has, not {given}")
        object.__setattr__(self, "dtype", given)

    def infer(self, *specs: Spec) -> Spec:
        (spec,) = specs
        if is_key(spec.dtype):
            raise RuleError(f"{self} cannot be applied to PRNG keys, {print_spec(spec)}")
        return make_spec(spec.shape, self.dtype)

    def apply(self, *arrays: Array) -> Array:
        (array,) = arrays
        if isinstance(array, jax.Array) and jax.dtypes.canonicalize_dtype(self.dtype) != self.dtype:
            array = np.asarray(array)  # JAX would make 32 bits of 64 without a word
        if not isinstance(array, jax.Array) and not np.can_cast(array.dtype, self.dtype, "unsafe"):
            array = array.astype(np.float32)  # NumPy has no direct way between some of the smallest dtypes
        return array.astype(self.dtype)

    def inverse(self, spec: Spec | None = None) -> Op | None:
        # Only what was made wider comes back bit for bit. NumPy alone calls float8 -> float4 safe as well.
        if spec is None or not can_cast(spec.dtype, self.dtype, "safe"):
            return None
        real_to_complex = self.dtype.kind == "c" and spec.dtype.kind != "c"
        wider = self.dtype.itemsize > spec.dtype.itemsize and not real_to_complex
        return Cast(spec.dtype) if wider or self.dtype == spec.dtype else None

    def __repr__(self) -> str:
        return f"Cast({str(self.dtype)!r})"


@dataclass(frozen=True, init=False)
class Apply(Op):
    """Any JAX-traceable function of one array (or of several, where a rule joins leaves).

    Args:
        fn: the function; traced at plan time by ``jax.eval_shape``, run op by op at load.
        inverse: the function that undoes it, for exports.

    Examples:
        >>> import jax, numpy as np
        >>> Apply(lambda x: x.sum(0)).infer(jax.ShapeDtypeStruct((2, 3), np.float32)).shape
        (3,)

    Raises:
        RuleError: the function cannot be traced with a leaf's spec, or gives no single array.
    """

    fn: Callable[..., Array]
    undo: Callable[..., Array] | None

    def __init__(self, fn: Callable[..., Array], inverse: Callable[..., Array] | None = None) -> None:
        if not callable(fn) or not (inverse is None or callable(inverse)):
            raise RuleError(f"Apply takes functions, not {fn!r} and {inverse!r}")
        object.__setattr__(self, "fn", fn)
        object.__setattr__(self, "undo", inverse)

    def infer(self, *specs: Spec) -> Spec:
        try:
            with jax.enable_x64(True) if _is_wide(*specs) else contextlib.nullcontext():
                result = jax.eval_shape(self.fn, *(make_spec(spec.shape, spec.dtype) for spec in specs))
        except Exception as error:
            given = ", ".join(map(print_spec, specs))
            raise RuleError(f"{self} fails for {given}: {type(error).__name__}: {error}") from error
        if not isinstance(result, jax.ShapeDtypeStruct):
            raise RuleError(f"{self} gives a {type(result).__name__}, not one array")
        return make_spec(result.shape, result.dtype)

    def apply(self, *arrays: Array) -> Array:
        if not _is_wide(*arrays):
            return self.fn(*map(jnp.asarray, arrays))
        with jax.enable_x64(True):
            return np.asarray(self.fn(*map(jnp.asarray, arrays)))

    def inverse(self, spec: Spec | None = None) -> Op | None:
        return None if self.undo is None else Apply(self.undo, self.fn)

    def __repr__(self) -> str:
        return f"Apply({getattr(self.fn, '__name__', repr(self.fn))})"


def _is_wide(*values: Any) -> bool:
    """Whether JAX, as it is set up, would make 32 bits of 64 of any of them without a word."""
    return any(jax.dtypes.canonicalize_dtype(v.dtype, allow_extended_dtype=True) != v.dtype for v in values)
