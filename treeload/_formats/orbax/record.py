"""What ``treeload.save`` records in a checkpoint because a tree of Orbax cannot say it.

Owns the form of the record: ties, absences, empty arrays, dtypes stored as another, digests, what is
left out, where the leaves came from. ``write`` writes it, ``source`` reads it. It comes from a file, so
nothing in it is believed before it is checked.

The record, and all metadata beside it, is sealed with a digest of its own, which is kept a second time in
another file: with the tree. So damage to either file is found, and the loss of either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import ml_dtypes
import numpy as np
import xxhash

from treeload._errors import SourceError
from treeload._files.digests import Digest, blocks_from_json
from treeload._leaves.spec import Spec, is_numeric
from treeload._naming.bounds import parse_from_file
from treeload._naming.name import Name, print_name
from treeload._sources.provenance import Provenance, read_provenance
from treeload._sources.source import Absent, as_source_error
from treeload._sources.stamp import Stamp, checked_stamp

RECORD = "treeload"
"""The key in a checkpoint's custom metadata under which ``treeload.save`` keeps its record."""


FORMAT = 1
"""The version of that record; one from the future is refused."""


@dataclass(frozen=True)
class Empty:
    """An array without elements, which Orbax does not store; ``impl`` where it is one of typed keys."""

    spec: Spec
    impl: str | None


@dataclass(frozen=True)
class Array:
    """An array as it lies on disk: its dtype's name and its shape; ``impl`` where it is typed keys' data."""

    dtype: str
    shape: tuple[int, ...]
    impl: str | None

    def to_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape)}
        return said if self.impl is None else {**said, "impl": self.impl}


@lru_cache(1 << 16)
def array_of(dtype: str, shape: tuple[int, ...], impl: str | None) -> Array:
    """One object for all that are alike: there are few, where leaves are many."""
    return Array(dtype, shape, impl)


@dataclass(frozen=True)
class Record:
    """What a tree of Orbax cannot say: ties, absences, empty arrays, digests. Made by ``write``.

    Attributes:
        digests: printed name → the digest of all of a leaf's bytes.
        arrays: what was stored; None where the record is older than that was noted.
        leaf_digests: as ``digests``, with those of the leaf's blocks.
    """

    is_present: bool
    aliases: dict[Name, Name]
    absent: dict[Name, Absent]
    empty: dict[Name, Empty]
    encoded: dict[str, str]
    scalars: frozenset[Name]
    digests: dict[str, str]
    version: Stamp
    left_out: Mapping[Name, str]
    provenance: Provenance
    arrays: Mapping[Name, Array] | None = None
    leaf_digests: Mapping[Name, Digest] = field(default_factory=dict)

    @classmethod
    def read(cls, record: Any, label: str) -> Record:
        if record is None:
            return cls(False, {}, {}, {}, {}, frozenset(), {}, {}, {}, {})
        version = record.get("format") if isinstance(record, dict) else None
        if not isinstance(version, int):
            raise SourceError(f"{label}: its record of treeload is malformed")
        if version > FORMAT:
            raise SourceError(
                f"{label} was saved by a newer treeload (format {version}, this one reads {FORMAT})"
            )
        with as_source_error(f"{label}: its record of treeload is malformed"):
            parse = lru_cache(None)(Name.parse)  # most names are there twice
            arrays = None if record.get("arrays") is None else _read_arrays(record["arrays"], parse)
            return cls(
                is_present=True,
                aliases={
                    parse_from_file(a): parse_from_file(c) for a, c in record.get("aliases", {}).items()
                },
                absent={parse_from_file(n): _read_absent(v) for n, v in record.get("absent", {}).items()},
                empty={parse_from_file(n): _read_empty(spec) for n, spec in record.get("empty", {}).items()},
                encoded=_strings(record.get("encoded", {})),
                scalars=frozenset(map(parse_from_file, _strings(record.get("scalars", {})))),
                digests=_strings(record.get("digests", {})),
                version=checked_stamp(record.get("version", {})),
                left_out={
                    parse_from_file(n): what for n, what in _strings(record.get("left_out", {})).items()
                },
                provenance=read_provenance(record.get("provenance", {})),
                arrays=arrays,
                leaf_digests=_read_digests(record, arrays, parse),
            )


def _read_arrays(said: Mapping[str, Any], parse: Callable[[str], Name]) -> dict[Name, Array]:
    arrays: dict[Name, Array] = {}
    for name, array in said.items():
        dtype, shape, impl = array["dtype"], tuple(map(int, array["shape"])), array.get("impl")
        arrays[parse(name)] = array_of(str(dtype), shape, None if impl is None else str(impl))
    return arrays


def _read_digests(
    record: Mapping[str, Any], arrays: Mapping[Name, Array] | None, parse: Callable[[str], Name]
) -> dict[Name, Digest]:
    blocks = record.get("blocks", {})
    found: dict[Name, Digest] = {}
    for printed, whole in _strings(record["digests"]).items():
        name = parse(printed)
        if arrays is not None and name not in arrays:
            raise ValueError(f"it has a digest of {printed!r}, which was not stored")
        shape = () if arrays is None else arrays[name].shape
        found[name] = blocks_from_json(whole, None if arrays is None else blocks.get(printed), shape)
    return found


def _read_absent(value: Any) -> Absent:
    if value is not None and value is not False:
        raise ValueError(f"{value!r} is no absence")
    return value


def _read_empty(record: Any) -> Empty:
    shape, impl = tuple(map(int, record["shape"])), record.get("impl")
    if math.prod(shape) != 0:
        raise ValueError(f"an array of shape {shape} is not empty")
    if impl is None:
        return Empty(jax.ShapeDtypeStruct(shape, read_dtype(record["dtype"])), None)
    dtype = jax.eval_shape(lambda: jax.random.key(0, impl=str(impl))).dtype
    return Empty(jax.ShapeDtypeStruct(shape, dtype), str(impl))


def _strings(mapping: Any) -> dict[str, str]:
    if not isinstance(mapping, dict) or not all(isinstance(value, str) for value in mapping.values()):
        raise ValueError("not a mapping of strings")
    return mapping


def read_dtype(name: Any) -> np.dtype[Any]:
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name) if isinstance(name, str) else None
    if dtype is None or not is_numeric(dtype):
        raise ValueError(f"its header gives the dtype {name!r}")
    return dtype.newbyteorder("=")


# --- The seal ----------------------------------------------------------------------------------------


def seal_of(custom: Mapping[str, Any]) -> str:
    """The digest of custom metadata, the record in it without its own seal."""
    record = {key: value for key, value in custom[RECORD].items() if key != "seal"}
    text = json.dumps({**custom, RECORD: record}, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


def mark_of(seal: str) -> dict[str, Any]:
    """What is written into the metadata of the tree: that a record with this seal belongs to it."""
    return {RECORD: {"seal": seal}}


def check_seal(custom: Mapping[str, Any], mark: Any, label: str) -> None:
    """Nothing, if the record and the mark in the tree are those that were written together, or of no seal.

    Args:
        custom: the custom metadata of the checkpoint, with the record.
        mark: what the tree's metadata has under ``RECORD``; None where it has nothing.
        label: the checkpoint, for messages.

    Raises:
        SourceError: one of them is lost, or damaged.
    """
    record = custom.get(RECORD)
    seal = record.get("seal") if isinstance(record, dict) else None
    if mark is None and seal is None:  # of plain Orbax, or of a treeload that did not seal
        return
    if record is None:
        raise SourceError(
            f"{label} is damaged: it was saved by treeload, and the record of it, with the digests of its "
            "leaves, is lost"
        )
    if not isinstance(record, dict) or mark != mark_of(str(seal))[RECORD] or seal_of(custom) != seal:
        raise SourceError(
            f"{label} is damaged: its metadata, or its record of treeload, is not what was saved"
        )


def misfit(record: Record, found: Collection[Name], array: Callable[[Name], Array]) -> str | None:
    """How the arrays that are there differ from those recorded, in words; None where they do not.

    ``array`` says of one that is there what it is.
    """
    if record.arrays is None:
        strange = [name for name in record.leaf_digests if name not in found]
        return f"has a digest of {print_name(strange[0])!r}, which is not there" if strange else None
    for name in (*record.arrays, *found):
        recorded, there = record.arrays.get(name), array(name) if name in found else None
        if recorded != there:
            was = "not stored" if recorded is None else f"stored as {_print(recorded)}"
            now = "is not there" if there is None else f"is {_print(there)}"
            return f"says that {print_name(name)!r} was {was}, and it {now}"
    return None


def _print(array: Array) -> str:
    kind = "" if array.impl is None else f" of {array.impl} keys"
    return ascii(f"{array.dtype}{list(array.shape)}{kind}")[1:-1]  # a file says so: it may say anything
