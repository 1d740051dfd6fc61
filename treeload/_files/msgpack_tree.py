"""The leaves of a msgpack tree: what each is called, what it is, and how it is read.

Owns the names of what ``msgpack`` parses: keys and indices as names, the fields of early Flax's named tuples,
arrays in pieces as one. What a text means (an array elsewhere, or nothing) is for the format to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import numpy as np

from treeload._errors import SourceError
from treeload._files.digests import Digest, check_whole
from treeload._files.msgpack import Array, Static, parse_msgpack
from treeload._files.open import File, opened, read_bytes
from treeload._files.pieces import Stored, aligned
from treeload._files.read import read_stored
from treeload._files.regions import placed, slices_of
from treeload._files.request import check_requests
from treeload._leaves.spec import Spec, spec_of
from treeload._naming.bounds import name_from_file
from treeload._naming.name import Name, print_name

Number: TypeAlias = "bool | int | float | complex"


_NUMBERS = (bool, int, float, complex)


_CHUNKED = "__msgpack_chunked_array__"


_CHUNK = 16 << 20  # bytes that are read at a time


# --- what there is ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packed:
    """A leaf in a msgpack file: a number as it is, or where an array lies."""

    file: File
    value: Array | Number

    @property
    def is_number(self) -> bool:
        return not isinstance(self.value, Array)

    @property
    def spec(self) -> Spec:
        if isinstance(self.value, Array):
            return jax.ShapeDtypeStruct(self.value.shape, self.value.dtype)
        if type(self.value) is int and self.value >= 1 << 63:
            return jax.ShapeDtypeStruct((), np.dtype(np.uint64))
        return spec_of(self.value)


@dataclass(frozen=True)
class MsgpackTree:
    """What a msgpack file holds, in its order.

    Attributes:
        leaves: arrays and numbers.
        absent: slots that hold None.
        texts: slots that hold a text.
    """

    leaves: dict[Name, Packed] = field(default_factory=dict)
    absent: list[Name] = field(default_factory=list)
    texts: dict[Name, str] = field(default_factory=dict)


def read_tree(file: File) -> MsgpackTree:
    """The tree in ``file``; no array is read.

    Raises:
        ValueError: it is no such tree; whoever calls adds the file.
        SourceError: the file has changed.
    """
    tree = MsgpackTree()

    def walk(node: Any, keys: tuple[str, ...]) -> None:
        if isinstance(node, dict):
            if _CHUNKED in node:
                tree.leaves[name_from_file(keys)] = Packed(file, _joined(node, Name(keys)))
                return
            for key, child in (_fields_of(node) or node).items():
                walk(child, (*keys, key))
        elif isinstance(node, list):
            for index, child in enumerate(node):
                walk(child, (*keys, str(index)))
        elif isinstance(node, str):
            tree.texts[name_from_file(keys)] = node
        elif node is None:
            tree.absent.append(name_from_file(keys))
        elif not isinstance(node, Static):
            tree.leaves[name_from_file(keys)] = Packed(file, node)

    walk(parse_msgpack(file), ())
    return tree


def _fields_of(node: dict[str, Any]) -> dict[str, Any] | None:
    """Field → value, where a node is a named tuple as early Flax wrote it; else None.

    ``{"name": ..., "fields": ..., "values": ...}``, the two last in the form that Flax gives to tuples. Later
    Flax writes the fields as keys, and still reads this (``flax.serialization``, ``_restore_namedtuple``).
    """
    if node.keys() != {"name", "fields", "values"} or not isinstance(node["name"], str):
        return None
    fields, values = _in_order(node["fields"]), _in_order(node["values"])
    if fields is None or values is None or len(fields) != len(values):
        return None
    if not all(isinstance(each, str) for each in fields) or len(set(fields)) < len(fields):
        return None
    return dict(zip(fields, values, strict=True))


def _in_order(node: Any) -> list[Any] | None:
    """The elements of a tuple, which Flax gives their numbers as keys."""
    if isinstance(node, dict):
        numbers = list(map(str, range(len(node))))
        return [node[number] for number in numbers] if node.keys() == set(numbers) else None
    return node if isinstance(node, list) else None


def _joined(node: dict[str, Any], name: Name) -> Array:
    """The array whose flat pieces ``node`` holds."""
    shape, chunks = node.get("shape"), node.get("chunks")
    if not isinstance(shape, dict) or not isinstance(chunks, dict) or not chunks:
        raise ValueError(f"{print_name(name)!r} is an array in pieces without its shape or its pieces")
    try:
        sizes = tuple(shape[str(i)] for i in range(len(shape)))
        parts = [chunks[str(i)] for i in range(len(chunks))]
    except KeyError as error:
        raise ValueError(f"{print_name(name)!r} is an array in pieces and lacks {error}") from error
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError(f"{print_name(name)!r} is an array of shape {sizes!r}")
    if not all(isinstance(part, Array) and part.dtype == parts[0].dtype for part in parts):
        raise ValueError(f"{print_name(name)!r} is an array whose pieces are not arrays of one dtype")
    if sum(math.prod(part.shape) for part in parts) != math.prod(sizes):
        raise ValueError(f"{print_name(name)!r} is an array of shape {sizes} whose pieces do not fill it")
    return Array(sizes, parts[0].dtype, tuple(piece for part in parts for piece in part.pieces))


# --- read -------------------------------------------------------------------------------------------


def read_packed(
    leaves: Mapping[Name, Packed],
    requests: Mapping[Name, Spec],
    label: str,
    digests: Mapping[Name, Digest] = MappingProxyType({}),
) -> Iterator[tuple[Name, Any]]:
    """The leaves asked for, as ``Source.read`` says.

    Args:
        leaves: those that there are.
        requests: as ``Source.read`` has them.
        label: what holds the leaves, for messages.
        digests: what the bytes of leaves must give, where that is known.

    Raises:
        SourceError: as ``read_stored``.
    """
    check_requests(requests, {name: leaves[name].spec for name in requests if name in leaves}, label)
    whole: dict[Name, Stored] = {}
    for name in requests:
        leaf = leaves[name]
        if isinstance(leaf.value, Array) and len(leaf.value.pieces) == 1:
            whole[name] = Stored(leaf.file, leaf.value.pieces[0][0], leaf.spec)
    yield from read_stored(whole, {name: requests[name] for name in whole}, label, digests)
    for name, request in requests.items():
        if name not in whole:
            array = _read_whole(leaves[name], f"{label}: {print_name(name)!r}")
            check_whole(array, digests.get(name), f"{label}: {print_name(name)!r}")
            yield name, placed(request, lambda box: array[slices_of(box)])  # noqa: B023  # called at once


def _read_whole(leaf: Packed, what: str) -> np.ndarray[Any, Any]:
    """A number, or an array that lies in the file in pieces."""
    if not isinstance(leaf.value, Array):
        return np.asarray(leaf.value, leaf.spec.dtype)
    buffer = aligned(sum(size for _, size in leaf.value.pieces))
    at = 0
    with opened(leaf.file) as handle:
        for offset, size in leaf.value.pieces:
            end = at + size
            while at < end:
                part = read_bytes(handle, min(end - at, _CHUNK), offset + size - (end - at))
                if not part:
                    raise SourceError(f"{what}: {leaf.file} ends in the middle of it")
                buffer[at : at + len(part)] = np.frombuffer(part, np.uint8)
                at += len(part)
    return buffer.view(leaf.value.dtype).reshape(leaf.value.shape)
