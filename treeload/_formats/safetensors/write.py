"""Named arrays -> one safetensors file, complete or not there at all.

Owns the writing half of the format (https://github.com/huggingface/safetensors, "Format"): eight bytes of
header length, a JSON header padded with spaces, the arrays in order. Arrays are asked for one at a time, so
that the peak is the largest of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from treeload._errors import SaveError
from treeload._files.exchange import publish
from treeload._files.replace import workspace
from treeload._files.sync import make_directories
from treeload._formats.safetensors.header import DTYPES, PROVENANCE
from treeload._leaves.spec import Spec, nbytes, print_spec
from treeload._naming.name import Name
from treeload._sources.provenance import Provenance

Leaving: TypeAlias = tuple[tuple[str, ...], Spec, Callable[[], Any]]
"""A leaf's name, its spec, and what makes its array when it is wanted."""


_METADATA = "__metadata__"


_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


def write(
    path: Path,
    leaves: Sequence[Leaving],
    metadata: Mapping[str, Any],
) -> None:
    """Nothing; afterwards ``path`` is a safetensors file of these leaves, names joined with ``.``.

    Raises:
        SaveError: a dtype the format has not, two names that join alike, a path that exists, or a
            file system that refuses.
    """
    header = _header(leaves, metadata)
    try:
        path = Path(os.path.abspath(path))
        if os.path.lexists(path):
            raise SaveError(f"{str(path)!r} exists; an export replaces nothing")
        make_directories(path.parent)
        with workspace(path) as new:
            _write(new, header, leaves)
            publish(new, path)
    except OSError as error:
        raise SaveError(f"{str(path)!r} could not be written: {error}") from error


def with_provenance(metadata: Mapping[str, Any], provenance: Provenance) -> Mapping[str, Any]:
    """The metadata, and in it where the leaves came from, by the names of their tensors."""
    if not provenance:
        return metadata
    joined = {".".join(Name.parse(name)): link for name, link in provenance.items()}
    return {**metadata, PROVENANCE: json.dumps(joined, ensure_ascii=False)}


def _write(new: Path, header: bytes, leaves: Sequence[Leaving]) -> None:
    with new.open("xb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name, spec, array in leaves:
            host = np.ascontiguousarray(np.asarray(array()))
            if host.shape != spec.shape and host.size == 1:
                host = host.reshape(spec.shape)  # ascontiguousarray makes one dimension of none
            if host.shape != spec.shape or host.dtype != spec.dtype:
                raise SaveError(f"{'.'.join(name)} was to be {print_spec(spec)} and is {print_spec(host)}")
            file.write(host.reshape(-1).view(np.uint8).data)


def _header(leaves: Sequence[Leaving], metadata: Mapping[str, Any]) -> bytes:
    table: dict[str, Any] = {_METADATA: {key: _as_text(key, value) for key, value in metadata.items()}}
    start = 0
    for name, spec, _ in leaves:
        joined = ".".join(name)
        if joined == _METADATA:
            raise SaveError(f"{joined!r} cannot be a leaf's name: safetensors keeps its metadata there")
        if joined in table:
            raise SaveError(f"two leaves are both {joined!r} when their names are joined with '.'")
        if spec.dtype not in _NAMES:
            raise SaveError(f"{joined!r} is {print_spec(spec)}, and safetensors has no such dtype")
        stop = start + nbytes(spec)
        table[joined] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    if not metadata:
        del table[_METADATA]
    try:
        text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise SaveError(f"{error.object[error.start : error.end]!r} is no valid text") from error
    return text + b" " * (-len(text) % 8)


def _as_text(key: Any, value: Any) -> str:
    """A value of the metadata, which the format wants to be text: other things as JSON."""
    try:
        if not isinstance(key, str):
            raise TypeError(f"its key is of type {type(key).__name__}")
        return value if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise SaveError(f"metadata {key!r} cannot be written as text: {error}") from error
