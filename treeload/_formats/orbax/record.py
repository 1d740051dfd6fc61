"""What ``treeload.save`` records in a checkpoint because a tree of Orbax cannot say it.

Owns the form of the record: ties, absences, empty arrays, dtypes stored as another, digests, what is
left out, where the leaves came from. ``write`` writes it, ``source`` reads it. It comes from a file, so
nothing in it is believed before it is checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import ml_dtypes
import numpy as np
import xxhash

from treeload._errors import SourceError
from treeload._leaves.spec import Spec, is_numeric
from treeload._naming.bounds import parse_from_file
from treeload._naming.name import Name
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
class Record:
    """What a tree of Orbax cannot say: ties, absences, empty arrays, digests. Made by ``write``."""

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
            )


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


def digest(array: np.ndarray[Any, Any]) -> str:
    """The xxh3-128, in hexadecimal, of an array's bytes in C order."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return xxhash.xxh3_128_hexdigest(flat.view(np.uint8).data)
