"""Whether one source value can go into one destination leaf, and if not, why. Pure.

Owns the comparison of two leaves that have found each other by name: structure, shape, dtype. Refuses
to own how they found each other (``_matching``) and what is done about a disagreement (``policy``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from treeload._errors import RuleError
from treeload._findings import remedy
from treeload._findings.kinds import Kind
from treeload._findings.remedy import Remedy, UseOps
from treeload._inference.layouts import judge, says_embedding
from treeload._leaves.casts import can_cast, cast_loses_kind, overflows
from treeload._leaves.placement import unplaceable
from treeload._leaves.spec import Spec, is_abstract, is_key, spec_of
from treeload._naming.name import Keys
from treeload._ops.convert import Apply
from treeload._ops.resize import Pad, Slice

_BEYOND_FLOATS = 1 << 1024  # the first whole number that no float holds
_BOOLEAN, _INTEGER, _FLOAT = map(np.dtype, ("bool", "int64", "float64"))


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a value cannot go into a leaf: the facts of a finding, and the reason in a few words."""

    kind: Kind
    expected: Spec | str
    found: Spec | str
    message: str
    remedies: tuple[Remedy, ...]
    reason: str


def misfit(name: Keys, held: Any, wanted: Spec, given: Spec, number: Any, casting: str) -> Misfit | None:
    """Why a value of spec ``given`` cannot become the leaf ``name``; None where it can.

    Args:
        name: the destination's name for the leaf, for the remedy.
        held: what the destination holds there, an array, a spec or a Python number.
        wanted: its spec.
        given: the value's spec, after its rule's ops.
        number: the Python number that the value is, if it is one.
        casting: which casts the policy allows here.
    """
    structural = _structural(held, wanted, given, number)
    if structural is not None:
        expected, found, why = structural
        ways: tuple[Remedy, ...] = (*_for_keys(wanted, given), remedy.keep_own(Kind.STRUCTURE, name))
        return Misfit(Kind.STRUCTURE, expected, found, why, ways, why)
    if given.shape != wanted.shape:
        said = f"shapes differ: {list(wanted.shape)} in the destination, {list(given.shape)} in the source"
        ways = (*_for_rows(name, held, wanted, given), remedy.keep_own(Kind.SHAPE, name))
        reading = judge(name, given, name, wanted)
        if reading.change is not None:
            doubt = f" ({reading.why})" if reading.why and not reading.certain else ""
            said += f"; they match if {reading.change.words}{doubt}"
            ways = (UseOps(reading.change.ops, why=f"they match if {reading.change.words}:"), *ways)
        return Misfit(Kind.SHAPE, wanted, given, said, ways, "shapes differ")
    if is_abstract(held) and (why := unplaceable(held.shape, held.sharding)):
        return Misfit(Kind.SHAPE, wanted, given, why, (remedy.PLACE_OTHERWISE,), "it cannot be placed")
    narrowed = narrows(held, wanted.dtype)
    why = narrowed or _cast_fault(given.dtype, wanted.dtype, casting, held, number)
    if why:
        ways = (remedy.keep_own(Kind.DTYPE, name),)
        if narrowed:
            narrow = jax.dtypes.canonicalize_dtype(wanted.dtype)
            mend = remedy.SetUp(f"JAX_ENABLE_X64=1 in the environment, or {narrow} in the destination")
            ways = (mend, *ways)
        if not narrowed and _can_be_forced(given, held, number):
            ways = (remedy.cast_anyway(name), *ways)
        return Misfit(Kind.DTYPE, wanted, given, why, ways, "dtypes differ")
    return None


def _structural(
    held: Any, wanted: Spec, given: Spec, number: Any
) -> tuple[Spec | str, Spec | str, str] | None:
    """What is expected, what was found and why they are not of one nature; None where they are."""
    if number is True and not is_python_number(held) and not is_boolean(wanted):
        return wanted, "True", "the source has True in place of an array"
    if held is True and number is None and not is_boolean(given):
        return "True", given, "the destination has True in place of an array"
    if (is_key(given.dtype) or is_key(wanted.dtype)) and given.dtype != wanted.dtype:
        return wanted, given, "PRNG keys load only into keys of the same implementation"
    return None


def _for_keys(wanted: Spec, given: Spec) -> tuple[Remedy, ...]:
    """An op that makes a PRNG key of a raw one, or the other way round, where one of JAX's own does."""
    for function, written, why in (
        (jax.random.wrap_key_data, "jax.random.wrap_key_data", "to make a typed key of a raw one:"),
        (jax.random.key_data, "jax.random.key_data", "to make a raw key of a typed one:"),
    ):
        if is_key(given.dtype) == (function is jax.random.key_data) and is_key(wanted.dtype) != is_key(
            given.dtype
        ):
            op = Apply(function)
            try:
                made = op.infer(given)
            except RuleError:
                continue
            if (made.shape, made.dtype) == (wanted.shape, wanted.dtype):
                return (UseOps((op,), why=why, written=f"Apply({written})"),)
    if is_key(wanted.dtype) and is_key(given.dtype):
        said = f"make the destination's key with jax.random.key(..., impl={_implementation(given)!r})"
        return (remedy.Advice(said),)
    return ()


def _implementation(spec: Spec) -> str:
    """What ``jax.random.key(impl=...)`` calls the implementation of such keys."""
    said: list[Any] = []
    jax.eval_shape(lambda key: said.append(jax.random.key_impl(key)), spec)
    return str(said[0])


def _for_rows(name: Keys, held: Any, wanted: Spec, given: Spec) -> tuple[Remedy, ...]:
    """An op for a table of embeddings with more rows or fewer: how many there are is a matter of choice.

    Its other axis is the width of a model, which no op makes right; a grid of positions is to be resized.
    """
    if len(wanted.shape) != 2 or len(given.shape) != 2 or not says_embedding(name):
        return ()
    if wanted.shape[1:] != given.shape[1:]:
        return ()
    (size, _), (count, _) = wanted.shape, given.shape
    if size < count:
        return (UseOps((Slice(size),), why=f"to take the first {size:,} rows:"),)
    if is_abstract(held):
        return (UseOps((Pad(size),), why="to fill up with zeros:"),)
    return (UseOps((Pad(size, fill="destination"),), why="to fill up with the destination's own rows:"),)


def is_boolean(spec: Spec) -> bool:
    """Whether a leaf is a single boolean, as which a Python flag loads."""
    return bool(spec.shape == () and spec.dtype == _BOOLEAN)


def is_python_number(value: Any) -> bool:
    """Whether a value is a number of Python's own, not a NumPy scalar."""
    return isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic)


def _cast_fault(given: Any, wanted: Any, casting: str, held: Any, number: Any) -> str:
    """Why a value of dtype ``given`` cannot become ``wanted``; empty where it can.

    Python numbers have a kind and no width, so what counts for them is that kind, and whether the value
    fits.
    """
    if casting == "unsafe":
        return ""
    if number is not None:
        given = spec_of(number).dtype  # an integer is one of any size
    if is_python_number(held):
        if cast_loses_kind(given, wanted, exact=True) and not _int_to_float(given, held, casting):
            return f"{given} is no Python {type(held).__name__}"
    elif number is not None:
        if cast_loses_kind(given, wanted):
            return f"a Python {type(number).__name__} does not become {wanted}"
    if number is not None:
        return f"{number!r} overflows {wanted}" if overflows(number, wanted) else ""
    if is_python_number(held) or can_cast(given, wanted, casting):
        return ""
    return f"{given} does not become {wanted} under casting={casting!r}"


def _can_be_forced(given: Spec, held: Any, number: Any) -> bool:
    """Whether an unsafe cast makes anything of it: no Python number is made of a complex one."""
    if is_python_number(held) and not isinstance(held, complex):
        if isinstance(number, complex) or jax.dtypes.issubdtype(given.dtype, np.complexfloating):
            return False
    return not (isinstance(number, int) and abs(number) >= _BEYOND_FLOATS)


def _int_to_float(given: Any, held: Any, casting: str) -> bool:
    """Whether a whole number meets a Python float, and ``casting`` makes floats of integers at all."""
    whole = jax.dtypes.issubdtype(given, np.integer)
    return whole and type(held) is float and can_cast(_INTEGER, _FLOAT, casting)


def narrows(held: Any, wanted: Any) -> str:
    """Why JAX cannot make the array that an abstract leaf asks for; empty where it can."""
    if is_abstract(held) and wanted in wide_dtypes():
        return f"JAX makes {jax.dtypes.canonicalize_dtype(wanted)} of {wanted} without jax_enable_x64"
    return ""


def wide_dtypes() -> frozenset[Any]:
    """The dtypes that JAX, as it is set up now, makes narrower without a word."""
    wide = map(np.dtype, ("int64", "uint64", "float64", "complex128"))
    return frozenset(dtype for dtype in wide if jax.dtypes.canonicalize_dtype(dtype) != dtype)
