"""The header of a safetensors file, parsed as a trust boundary: what it claims is checked before it is used.

https://github.com/huggingface/safetensors, "Format". Which file is meant is decided in ``source``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import ml_dtypes
import numpy as np

from treeload._errors import SourceError
from treeload._files.open import File, brief, opened, read_bytes
from treeload._files.strict_json import parse_json
from treeload._leaves.spec import Spec, print_spec

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "U8": np.dtype("<u1"),
        "I8": np.dtype("<i1"),
        "U16": np.dtype("<u2"),
        "I16": np.dtype("<i2"),
        "U32": np.dtype("<u4"),
        "I32": np.dtype("<i4"),
        "U64": np.dtype("<u8"),
        "I64": np.dtype("<i8"),
        "F16": np.dtype("<f2"),
        "F32": np.dtype("<f4"),
        "F64": np.dtype("<f8"),
        "C64": np.dtype("<c8"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
        "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
        "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
        "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
        "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    }
)


PROVENANCE = "treeload.provenance"
"""The key of the metadata under which an export keeps where its tensors came from, as JSON."""


_PACKED = ("F4", "F6_E2M3", "F6_E3M2")  # several values in a byte: no NumPy array has such bytes


_MAX_HEADER = 100_000_000  # the format's own limit


_MAX_ENTRY = 4096  # characters that describe one tensor; 64 dimensions of 19 digits take 1,280


_MAX_DIMENSIONS = 64  # NumPy's limit


_MAX_BYTES = 2**63 - 1


# --- The header ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tensor:
    spec: Spec
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Header:
    """What a file says of its tensors. ``data`` is where their bytes begin; offsets count from there."""

    tensors: Mapping[str, _Tensor]
    metadata: Mapping[str, str]
    data: int


def read_header(file: File) -> _Header:
    with opened(file) as descriptor:
        if file.size < 8:
            raise _malformed(file, f"it has {file.size} bytes, and a header takes 8 at least")
        length = int.from_bytes(read_bytes(descriptor, 8, 0), "little")
        if length > _MAX_HEADER:
            first = read_bytes(descriptor, min(file.size, 80), 0)
            if first.lstrip()[:1] in (b"{", b"[") and first.isascii():
                raise SourceError(
                    f"{file} is a JSON text, as servers send instead of a file: it begins "
                    f"{brief(first.decode(), 60)}; download it again"
                )
            raise _malformed(
                file, f"its header would have {length:,} bytes; at most {_MAX_HEADER:,} are allowed"
            )
        if length > file.size - 8:
            raise _malformed(file, f"its header would have {length:,} bytes; the file has {file.size:,}")
        raw = read_bytes(descriptor, length, 8)
    if len(raw) < length:
        raise _malformed(file, "it was cut short while it was read")
    try:
        header = _parse_header(file, raw.decode("utf-8"), 8 + length)
    except ValueError as error:  # JSON and UTF-8; what is about a tensor names it already
        raise _malformed(file, f"its header is not what the format says: {error}") from error
    _check_layout(file, header)
    return header


def _parse_header(file: File, text: str, data: int) -> _Header:
    # Tensor by tensor and not json.loads on the whole: a header that lies is refused where it begins to,
    # and 100 MB of brackets never become 2 GB of lists.
    tensors: dict[str, _Tensor] = {}
    metadata: dict[str, str] = {}
    keys: set[str] = set()

    def member(key: str, at: int) -> int:
        _add(keys, key)
        if key == "__metadata__":
            return _members(text, at, text_of_metadata)
        tensors[key], at = _parse_tensor(file, key, text, at)
        return at

    def text_of_metadata(key: str, at: int) -> int:
        if key in metadata:
            raise ValueError(f"the key {brief(key)} of its __metadata__ is there twice")
        metadata[key], at = _string(text, at)
        return at

    if not text.startswith("{"):
        raise ValueError("it does not begin with '{'")
    end = _members(text, 0, member)
    if _SPACE.match(text, end).end() != len(text):  # type: ignore[union-attr]  # it matches everywhere
        raise ValueError(f"something follows its end at character {end:,}")
    return _Header(tensors, metadata, data)


def _add(keys: set[str], key: str) -> None:
    if key in keys:
        raise ValueError(f"the name {brief(key)} is there twice")
    keys.add(key)


_SPACE = re.compile(r"[ \t\r\n]*")


_ENTRY = re.compile(rf"\{{[^{{}}]{{0,{_MAX_ENTRY}}}\}}")


_JSON = json.JSONDecoder()


def _members(text: str, at: int, member: Callable[[str, int], int]) -> int:
    """The end of the JSON object at ``at``; ``member(key, at)`` takes each value and gives back its end."""
    at = _skip(text, at, "{")
    if text.startswith("}", _space(text, at)):
        return _space(text, at) + 1
    while True:
        key, at = _string(text, _space(text, at))
        at = member(key, _space(text, _skip(text, _space(text, at), ":")))
        at = _space(text, at)
        if text.startswith("}", at):
            return at + 1
        at = _skip(text, at, ",")


def _space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches everywhere


def _skip(text: str, at: int, character: str) -> int:
    if not text.startswith(character, at):
        raise ValueError(f"{character!r} is expected at character {at:,}, not {brief(text[at : at + 20])}")
    return at + 1


def _string(text: str, at: int) -> tuple[str, int]:
    if not text.startswith('"', at):
        raise ValueError(f"a string is expected at character {at:,}, not {brief(text[at : at + 20])}")
    string, end = _JSON.raw_decode(text, at)
    if not string.isascii() and any("\ud800" <= character <= "\udfff" for character in string):
        raise ValueError(f"the string {brief(string)} is no Unicode text")
    return string, end


def _parse_tensor(file: File, tensor: str, text: str, at: int) -> tuple[_Tensor, int]:
    match = _ENTRY.match(text, at)
    if match is None:
        raise _malformed(file, f"{brief(tensor)} is not described by 'dtype', 'shape' and 'data_offsets'")
    try:
        return _tensor(parse_json(match.group())), match.end()
    except ValueError as error:
        raise _malformed(file, f"{brief(tensor)}: {error}") from error


def _tensor(entry: Mapping[str, Any]) -> _Tensor:
    """What one tensor's entry says, if it agrees with itself; other fields are not ours and are ignored."""
    for field in ("dtype", "shape", "data_offsets"):
        if field not in entry:
            raise ValueError(f"it has no {field!r}")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = DTYPES.get(code) if isinstance(code, str) else None
    if dtype is None:
        why = "packs several values into a byte" if code in _PACKED else "is not known"
        raise ValueError(f"its dtype {brief(str(code))} {why}, so it cannot be read")
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"its shape {brief(str(shape))} is no list of at most {_MAX_DIMENSIONS} sizes")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"its data_offsets {brief(str(offsets))} are no range of bytes")
    # Python's integers do not overflow, NumPy's do: also where another axis is 0.
    if math.prod(size or 1 for size in shape) * dtype.itemsize > _MAX_BYTES:
        raise ValueError(f"its shape {brief(str(shape))} is larger than any array")
    spec = jax.ShapeDtypeStruct(tuple(shape), dtype)
    expected = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != expected:
        raise ValueError(
            f"{print_spec(spec)} takes {expected:,} bytes, "
            f"and its data_offsets {brief(str(offsets))} give it {offsets[1] - offsets[0]:,}"
        )
    return _Tensor(spec, offsets[0], offsets[1])


def _are_counts(value: Any) -> bool:
    # type(), because True is an int.
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MAX_BYTES for n in value)


def _check_layout(file: File, header: _Header) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    at, before = 0, "the header"
    for tensor, place in sorted(header.tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if place.start != at:
            what = "overlaps" if place.start < at else f"leaves a hole of {place.start - at:,} bytes behind"
            raise _malformed(file, f"{brief(tensor)} {what} {before}")
        at, before = place.stop, brief(tensor)
    size = file.size - header.data
    if at > size:
        raise _malformed(
            file, f"{before} ends at byte {header.data + at:,} of {file.size:,}: it is truncated"
        )
    if at < size:
        raise _malformed(file, f"{size - at:,} bytes follow {before}, which no tensor claims")


def _malformed(file: File, why: str) -> SourceError:
    return SourceError(f"{file} is no valid safetensors file: {why}")
