"""What an Orbax checkpoint can hold, and all of a tree that it cannot, said at once.

Owns the check of names, types and values before the first byte is written. How what can be stored is
stored is in ``write``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from treeload._errors import SaveError
from treeload._formats.orbax.direct import prefix_of
from treeload._formats.orbax.later import Later, made
from treeload._leaves.spec import is_abstract, is_key, is_numeric
from treeload._naming.name import Name, print_name
from treeload._sources.source import Absent

# What TensorStore can store under its own name. Other one-byte types go as uint8, with a record.
STORED = frozenset(
    "bool int2 int4 int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64 "
    "complex64 complex128 float4_e2m1fn float8_e3m4 float8_e4m3fn float8_e4m3fnuz float8_e4m3b11fnuz "
    "float8_e5m2 float8_e5m2fnuz float8_e8m0fnu".split()
)


_SHOWN = 20


_AT_ONCE = 1 << 20  # elements whose finiteness is asked at once


def refuse(problems: list[str]) -> None:
    """Raises one SaveError of all the problems, if there are any."""
    if len(problems) == 1:
        raise SaveError(problems[0], problems=problems)
    if problems:
        shown = [f"  {problem}" for problem in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            shown.append(f"  and {len(problems) - _SHOWN:,} more")
        text = "\n".join((f"{len(problems):,} things cannot be saved:", *shown))
        raise SaveError(text, problems=problems)


def problems_of_names(
    leaves: Mapping[Name, Any], aliases: Mapping[Name, Name], absent: Mapping[Name, Absent]
) -> Iterator[str]:
    """What is wrong with the names, in words."""
    stored: dict[str, Name] = {}
    for name in leaves:
        key = ".".join(name)
        other = stored.setdefault(prefix_of(key), name)
        if other is not name:
            yield (
                f"{print_name(other)!r} and {print_name(name)!r} cannot be in one checkpoint: "
                f"Orbax joins keys with '.', and would store both as {key!r}; rename one"
            )
    for name in (*leaves, *aliases, *absent):
        try:
            ".".join(name).encode()
        except UnicodeEncodeError as error:
            yield f"{print_name(name)!r} is no valid text: {error.reason}"
    slots = {*leaves, *(name for name, marker in absent.items() if marker is None)}
    for name in sorted(slots):
        above = next((name[:depth] for depth in range(len(name)) if name[:depth] in slots), None)
        if above is not None:
            what = repr(print_name(above)) if above else "the whole tree"
            yield f"{what} is a leaf and a subtree, which holds {print_name(name)!r}"
    for alias, canonical in aliases.items():
        if canonical not in leaves or alias in leaves:
            yield f"{print_name(alias)!r} cannot be an alias of {print_name(canonical)!r}"
    for name in absent:
        if name in leaves or name in aliases:
            yield f"{print_name(name)!r} is both a leaf and absent"


def problems_of_values(leaves: Mapping[Name, Any], *, check_finite: bool) -> Iterator[str]:
    """Which leaves cannot be stored; on request also which hold NaN or infinity, in this process's part."""
    for name, value in leaves.items():
        try:
            array = as_array(name, value)
        except SaveError as error:
            yield str(error)
            continue
        dtype = array.dtype
        if not is_key(dtype) and dtype.name not in STORED and (dtype.itemsize != 1 or not _is_here(array)):
            yield f"{print_name(name)!r}: Orbax cannot store {dtype}"
        elif check_finite and jax.dtypes.issubdtype(dtype, np.inexact) and (said := _not_finite(array)):
            yield f"{print_name(name)!r} holds {said} among its {array.size:,} numbers"


def as_array(name: Name, value: Any) -> Any:
    """``value`` as a jax.Array or as a NumPy array of this machine's byte order, made or to be made.

    Raises:
        SaveError: it is no array and no number, or one that does not fit.
    """
    if isinstance(value, (jax.Array, Later)):
        return value
    if is_abstract(value):
        raise SaveError(
            f"{print_name(name)!r} is abstract: it has a shape and a dtype, and no values to save"
        )
    try:
        array = np.asarray(value, np.int64) if type(value) is int else np.asarray(value)
    except OverflowError as error:
        raise SaveError(f"{print_name(name)!r}: {value} does not fit into 64 bits") from error
    if not is_numeric(array.dtype) or isinstance(value, (str, bytes)):
        raise SaveError(f"{print_name(name)!r} is no array and no number, but {type(value).__name__}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _is_here(array: Any) -> bool:
    """Whether this process sees all of it."""
    return not isinstance(array, jax.Array) or array.is_fully_replicated or array.is_fully_addressable


def on_host(array: Any) -> np.ndarray[Any, Any] | None:
    """The whole array on the host, typed keys as their data; None where other processes hold parts."""
    if isinstance(array, np.ndarray):
        return np.asarray(made(array))
    if is_key(array.dtype):
        array = jax.random.key_data(array)
    if array.is_fully_replicated:
        # Not np.asarray(array): that would keep the copy alive as long as the array.
        return np.asarray(array.addressable_data(0))
    if not array.is_fully_addressable:
        return None
    host = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            host[shard.index] = np.asarray(shard.data)
    return host


def _not_finite(array: Any) -> str:
    """How many NaN and infinities this process sees in an array, in words; nothing where there are none."""
    whole = on_host(array)
    parts = [shard.data for shard in array.addressable_shards] if whole is None else [whole]
    nan = infinite = 0
    for part in parts:
        flat = np.asarray(part).reshape(-1)
        for start in range(0, flat.size, _AT_ONCE):
            piece = flat[start : start + _AT_ONCE]
            finite = np.isfinite(piece)
            if not finite.all():
                is_nan = np.isnan(piece)
                nan += int(is_nan.sum())
                infinite += int((~is_nan & ~finite).sum())
    return " and ".join(f"{count:,} {what}" for count, what in ((nan, "NaN"), (infinite, "Inf")) if count)
