"""Files as ``torch.save`` writes them, made without PyTorch: well-formed ones, and such as lie.

``Raw`` are opcodes of a pickle as they are; everything else is encoded as protocol 2 has it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # a benchmark's process has not what pytest's has

from archives import Made, archive

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}


@dataclass(frozen=True)
class Raw:
    """Opcodes."""

    code: bytes


def named(module: str, name: str) -> Raw:
    """A global."""
    return Raw(b"c" + f"{module}\n{name}\n".encode())


def called(function: Raw, *arguments: Any) -> Raw:
    return Raw(function.code + encoded(tuple(arguments)) + b"R")


def encoded(value: Any) -> bytes:
    """The opcodes that make a value."""
    if isinstance(value, Raw):
        return value.code
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        if 0 <= value < 256:
            return b"K" + bytes([value])
        size = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(raw)) + raw
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(encoded, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(encoded, value)) + b"e"
    assert isinstance(value, Mapping)
    return b"}(" + b"".join(encoded(key) + encoded(each) for key, each in value.items()) + b"u"


def storage(key: str, dtype: str, elements: Any, *, part: Any = ..., place: str = "cpu") -> Raw:
    """A storage by its persistent id; ``part`` is the older container's view of one."""
    kind = named("torch", STORAGES.get(dtype, "UntypedStorage"))
    said = ("storage", kind, key, place, elements, *(() if part is ... else (part,)))
    return Raw(encoded(said) + b"Q")


def tensor(
    held: Raw,
    shape: Any,
    *,
    strides: Any = None,
    offset: Any = 0,
    dtype: str | None = None,
    metadata: Any = None,
) -> Raw:
    """A tensor over a storage; with a dtype, as newer dtypes are written."""
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    hooks = called(named("collections", "OrderedDict"))
    rest = () if metadata is None else (metadata,)
    if dtype is None:
        function, last = "_rebuild_tensor_v2", rest
    else:
        function, last = "_rebuild_tensor_v3", (named("torch", dtype), *rest)
    return called(named("torch._utils", function), held, offset, tuple(shape), strides, False, hooks, *last)


def pickled(tree: Any) -> bytes:
    return b"\x80\x02" + encoded(tree) + b"."


def zipped(
    tree: Any,
    storages: Mapping[str, bytes],
    *,
    root: str = "archive/",
    order: bytes | None = b"little",
    others: Sequence[Made] = (),
    deflate: bool = False,
) -> bytes:
    """The container of 1.6 and later; its members begin on 64 bytes, as PyTorch's do."""
    members = [Made(f"{root}data.pkl", pickled(tree), deflate)]
    if order is not None:
        members.append(Made(f"{root}byteorder", order, deflate))
    members += [Made(f"{root}data/{key}", content, deflate) for key, content in storages.items()]
    at, padded = 0, []
    for each in (*members, Made(f"{root}version", b"3\n"), *others):
        begins = at + 30 + len(each.name.encode())
        extra = b"" if deflate else b"FB" + struct.pack("<H", -(begins + 4) % 64) + bytes(-(begins + 4) % 64)
        padded.append(Made(each.name, each.content, each.deflate, each.said, each.local, extra))
        at = begins + len(extra) + len(each.content)
    return archive(padded)


SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def legacy(
    tree: Any,
    storages: Iterable[tuple[str, int, bytes]],
    *,
    magic: Any = 0x1950A86A20F9469CFC6C,
    protocol: Any = 1001,
    system: Any = SYSTEM,
    keys: Any = None,
) -> bytes:
    """The container before: ``storages`` are key, count of elements and bytes."""
    storages = list(storages)
    listed = [key for key, _, _ in storages] if keys is None else keys
    start = b"".join(map(pickled, (magic, protocol, system, tree, listed)))
    return start + b"".join(struct.pack("<q", count) + content for _, count, content in storages)


def nested(leaves: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in leaves.items():
        node = tree
        for key in name[:-1]:
            node = node.setdefault(key, {})
        node[name[-1]] = value
    return tree


def described(
    arrays: Mapping[Any, np.ndarray[Any, Any]],
) -> tuple[dict[Any, Raw], dict[str, np.ndarray[Any, Any]]]:
    """Each array as a tensor over a storage of its own (one that is there twice, over one), and these."""
    tensors, held = {}, {}
    keys: dict[int, int] = {}
    for name, array in arrays.items():
        key = keys.setdefault(id(array), len(keys))
        dtype = array.dtype.name
        old = dtype in STORAGES
        raw = storage(str(key), dtype, array.size if old else array.nbytes)
        tensors[name] = tensor(raw, array.shape, dtype=None if old else dtype)
        held[str(key)] = array
    return tensors, held


def write_zip(path: Path, tree: Mapping[str, Any], **options: Any) -> Path:
    """A state dict of arrays, its keys as they are."""
    tensors, held = described(tree)
    path.write_bytes(zipped(tensors, {key: array.tobytes() for key, array in held.items()}, **options))
    return path


def write_legacy(path: Path, tree: Mapping[str, Any]) -> Path:
    tensors, held = described(tree)
    counts = {
        key: array.size if array.dtype.name in STORAGES else array.nbytes for key, array in held.items()
    }
    path.write_bytes(legacy(tensors, [(key, counts[key], array.tobytes()) for key, array in held.items()]))
    return path


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
