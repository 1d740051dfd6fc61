"""Flax's msgpack files as a source: ``flax_model.msgpack``, and the legacy ``checkpoint_N``.

Owns a parser that walks such a file and remembers where its arrays lie, so that specs are known without
reading arrays, and each array is read alone. ``flax.serialization`` reads the whole file into memory at
once and believes every size in it. Nothing is executed, no size is allocated before it is checked.

The format (https://github.com/msgpack/msgpack/blob/master/spec.md) with Flax's three extension types:
1 is an array and 3 a NumPy scalar, both ``[shape, dtype name, bytes]`` in msgpack again; 2 is a complex
number, ``[real, imaginary]``. Arrays above 1 GiB are dictionaries of flat pieces.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import jax
import ml_dtypes
import numpy as np

from treeload._errors import SourceError
from treeload._files.digests import check_whole
from treeload._files.open import look_at, opened, read_bytes
from treeload._files.read import Stored, aligned, read_stored
from treeload._files.regions import placed, slices_of
from treeload._files.request import check_requests
from treeload._files.steps import Step, in_order, is_numbered, step_of
from treeload._leaves.spec import Spec, is_numeric, spec_of
from treeload._naming.bounds import name_from_file
from treeload._naming.name import Name, print_name
from treeload._sources.format import Format
from treeload._sources.source import Absent, Source, as_source_error

_PREFIX = "checkpoint_"
"""Flax's own name for steps, under which a directory may be a step too, written through Orbax."""


SUFFIX = ".msgpack"


_SHARD = re.compile(r"-[0-9]+-of-[0-9]+")  # whose number says no step


_CHUNKED = "__msgpack_chunked_array__"


_MULTI_PROCESS = "//GDAPlaceholder:"


_SIZE_BYTES = {0xDE: 2, 0xDF: 4}  # of maps of more than 15 keys


_TEXTS = (0xD9, 0xDA, 0xDB)  # that are longer than 31 bytes


_DEEPEST = 200


_MOST_TEXT_BYTES = 1 << 24


def recognises(path: Path) -> bool:
    """Whether ``path`` is a Flax msgpack file, or a directory of steps of which the latest is one."""
    path = Path(path)
    if not path.is_dir():
        return _is_flax(path)
    steps = _steps(path)
    try:
        latest = _latest(path, steps)
    except SourceError:  # which is the latest cannot be told: it is refused when it is opened
        return any(_begins_as_a_map(path / name) for name in steps)
    return latest is not None and _begins_as_a_map(path / latest)


def _is_flax(file: Path) -> bool:
    """Whether a file is called as Flax's are, or is numbered, and begins as they do."""
    if file.suffix == SUFFIX or _is_flaxs_own(file.name):
        return _begins_as_a_map(file)
    return is_numbered(file.name) and _begins_as_a_map(file, with_a_key=True)


def _begins_as_a_map(file: Path, *, with_a_key: bool = False) -> bool:
    """Whether a file's first byte begins a map; with a key, its next one a text."""
    if not file.is_file():
        return False
    try:
        with opened(look_at(file)) as descriptor:  # by now it may be a pipe
            start = read_bytes(descriptor, 6, 0)
    except SourceError:  # whoever opens it will say why
        return False
    if not start or not (0x80 <= start[0] <= 0x8F or start[0] in _SIZE_BYTES):
        return False
    key = start[1 + _SIZE_BYTES.get(start[0], 0) :]
    return not with_a_key or (start[0] != 0x80 and bool(key) and (0xA0 <= key[0] <= 0xBF or key[0] in _TEXTS))


class MsgpackSource(Source):
    """The leaves of a Flax msgpack file; of a directory of ``checkpoint_N`` files, those of the latest.

    Raises:
        SourceError: no such file, or one that is not, to its last byte, what Flax writes.
    """

    gives_away = True
    checks_digests = True

    def __init__(self, path: str | Path) -> None:
        shown = repr(str(path))
        file = _find(Path(path))
        if file is None:
            raise SourceError(f"{shown} does not exist, or holds no 'checkpoint_N' file")
        step = _step_of(file.name) if file != Path(path) else None
        self.step = None if step is None else step.number
        self.label = f"{shown} (Flax msgpack{'' if step is None else f', step {step.number}'})"
        self._file = look_at(file)
        with (
            as_source_error(f"cannot read {self.label}"),
            opened(self._file) as descriptor,
            open(descriptor, "rb", closefd=False) as stream,
        ):
            leaves = _leaves(_Parser(stream).parse_file(), str(file))
        self._arrays = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, _Array)}
        self._numbers = {name: leaf for name, leaf in leaves.items() if type(leaf) in _NUMBERS}
        self._absent: dict[Name, Absent] = {name: None for name, leaf in leaves.items() if leaf is None}
        self._specs: Mapping[Name, Spec] = MappingProxyType(
            {name: _spec(leaf) for name, leaf in leaves.items() if isinstance(leaf, (_Array, *_NUMBERS))}
        )

    def specs(self) -> Mapping[Name, Spec]:
        return self._specs

    def absent(self) -> Mapping[Name, Absent]:
        return self._absent

    def numbers(self) -> frozenset[tuple[str, ...]]:
        return frozenset(self._numbers)

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        check_requests(requests, self._specs, self.label)
        whole = {
            name: Stored(self._file, leaf.pieces[0][0], self._specs[name])
            for name, leaf in self._arrays.items()
            if name in requests and len(leaf.pieces) == 1
        }
        yield from read_stored(whole, {name: requests[name] for name in whole}, self.label, self.leaf_digests)
        rest = {name: request for name, request in requests.items() if name not in whole}
        with opened(self._file) as descriptor:
            for name, request in rest.items():
                with as_source_error(f"{self.label}: cannot read {print_name(name)!r}"):
                    array = self._read_leaf(descriptor, name)
                    check_whole(array, self.leaf_digests.get(name), f"{self.label}: {print_name(name)!r}")
                    value = placed(request, lambda box: array[slices_of(box)])  # noqa: B023  # called at once
                yield name, value

    def _read_leaf(self, descriptor: int, name: Name) -> np.ndarray[Any, Any]:
        """A number, or an array that lies in the file in pieces."""
        if name in self._numbers:
            return np.asarray(self._numbers[name], self._specs[name].dtype)
        leaf = self._arrays[name]
        buffer = aligned(sum(size for _, size in leaf.pieces))
        at = 0
        for offset, size in leaf.pieces:
            end = at + size
            while at < end:
                count = os.preadv(descriptor, [buffer.data[at:end]], offset + size - (end - at))
                if count == 0:
                    raise SourceError(f"{self.label} ends in the middle of {print_name(name)!r}")
                at += count
        return buffer.view(leaf.dtype).reshape(leaf.shape)


def _find(path: Path) -> Path | None:
    """The file that ``path`` means: itself, or the step in it that has the largest number."""
    if not path.is_dir():
        return path if path.exists() else None
    latest = _latest(path, _steps(path))
    return path / latest if latest is not None and (path / latest).is_file() else None


def _latest(directory: Path, steps: Mapping[str, Step | None]) -> str | None:
    return in_order(steps, repr(str(directory)))[-1][0] if steps else None


def _steps(directory: Path) -> dict[str, Step | None]:
    """The names of steps in a directory: of Flax's own series, else of those that have a file of its kind."""
    children = sorted(child for child in directory.iterdir() if child.is_file() or child.is_dir())
    numbered = {
        child: _step_of(child.name) for child in children if is_numbered(child.name.removesuffix(SUFFIX))
    }
    own = {child.name: step for child, step in numbered.items() if _is_flaxs_own(child.name)}
    if own or any(child.is_dir() for child in numbered):
        return own
    files = {child: step for child, step in numbered.items() if not _SHARD.search(child.name)}
    series = {step.series for child, step in files.items() if step is not None and _is_flax(child)}
    return {child.name: step for child, step in files.items() if step is not None and step.series in series}


def _is_flaxs_own(name: str) -> bool:
    return name.startswith(_PREFIX) and is_numbered(name)


def _step_of(name: str) -> Step | None:
    return step_of(name, SUFFIX if name.endswith(SUFFIX) else "")


# --- the parser -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Array:
    """An array in the file: where its bytes lie, as (offset, size), in order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: tuple[tuple[int, int], ...]


class _Static:
    """A value that is no leaf: text, or bytes."""


_NUMBERS = (bool, int, float, complex)


_FIXED = {  # first byte → struct format of the value that follows
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip


_SIZED = {  # first byte → (what, struct format of the size that follows)
    0xC4: ("bin", ">B"), 0xC5: ("bin", ">H"), 0xC6: ("bin", ">I"),
    0xC7: ("ext", ">B"), 0xC8: ("ext", ">H"), 0xC9: ("ext", ">I"),
    0xD9: ("str", ">B"), 0xDA: ("str", ">H"), 0xDB: ("str", ">I"),
    0xDC: ("array", ">H"), 0xDD: ("array", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip


class _Parser:
    """Reads msgpack, and skips what arrays hold. Every size is checked against what is left.

    Whatever is wrong is a ValueError here; whoever calls it adds the file.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._end = os.fstat(stream.fileno()).st_size

    def parse_file(self) -> Any:
        value = self._value(0)
        if self._stream.tell() != self._end:
            raise ValueError(f"{self._end - self._stream.tell()} bytes follow the end of the tree")
        return value

    def _value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f"its tree is deeper than {_DEEPEST} levels")
        what, value = self._head()
        if what == "value":
            return value
        if what == "map":
            return self._map(value, depth)
        if what == "array":
            self._check(value)  # each element takes a byte at least
            return [self._value(depth + 1) for _ in range(value)]
        if what == "str":
            return self._text(value)
        if what == "bin":
            self._skip(value)
            return _Static()
        return self._extension(value)

    def _head(self) -> tuple[str, Any]:
        """What comes next, and its value where it has one, else its size."""
        first = self._bytes(1)[0]
        if first <= 0x7F:
            return "value", first
        if first >= 0xE0:
            return "value", first - 0x100
        if first <= 0x8F:
            return "map", first & 0x0F
        if first <= 0x9F:
            return "array", first & 0x0F
        if first <= 0xBF:
            return "str", first & 0x1F
        if first in (0xC0, 0xC2, 0xC3):
            return "value", {0xC0: None, 0xC2: False, 0xC3: True}[first]
        if first in _FIXED:
            return "value", self._number(_FIXED[first])
        if first in _SIZED:
            what, form = _SIZED[first]
            return what, self._number(form)
        if 0xD4 <= first <= 0xD8:
            return "ext", 1 << (first - 0xD4)
        raise ValueError(f"byte {self._stream.tell() - 1} is 0x{first:02x}, which begins no msgpack value")

    def _map(self, size: int, depth: int) -> dict[str, Any]:
        self._check(2 * size)
        result: dict[str, Any] = {}
        for _ in range(size):
            what, value = self._head()
            if what == "str":
                key = self._text(value)
            elif what == "value" and type(value) is int:
                key = str(value)
            else:
                raise ValueError(f"byte {self._stream.tell()}: a key that is neither text nor a number")
            if key in result:
                raise ValueError(f"the key {key!r} is there twice")
            result[key] = self._value(depth + 1)
        return result

    def _extension(self, size: int) -> Any:
        (code,) = struct.unpack(">b", self._bytes(1))
        self._check(size)
        end = self._stream.tell() + size
        if code in (1, 3):
            value: Any = self._array()
        elif code == 2:
            parts = self._value(_DEEPEST - 1)
            if not (isinstance(parts, list) and len(parts) == 2 and all(type(p) is float for p in parts)):
                raise ValueError("a complex number that is not two floats")
            value = complex(*parts)
        else:
            raise ValueError(f"an extension of type {code}, which Flax does not write")
        if self._stream.tell() != end:
            raise ValueError(f"an extension whose size ({size} bytes) is not that of what it holds")
        return value

    def _array(self) -> _Array:
        what, size = self._head()
        if (what, size) != ("array", 3):
            raise ValueError("an array that is not [shape, dtype, bytes]")
        shape = self._value(_DEEPEST - 1)
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"an array of shape {shape!r}")
        what, size = self._head()
        if what not in ("str", "bin"):
            raise ValueError("an array whose dtype is no text")
        dtype = _dtype(self._text(size))
        what, size = self._head()
        if what != "bin" or size != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"an array of shape {shape} and dtype {dtype} with {size} bytes")
        offset = self._stream.tell()
        self._skip(size)
        return _Array(tuple(shape), dtype, ((offset, size),))

    def _text(self, size: int) -> str:
        if size > _MOST_TEXT_BYTES:
            raise ValueError(f"a text of {size} bytes")
        return self._bytes(size).decode()

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _bytes(self, size: int) -> bytes:
        self._check(size)
        return self._stream.read(size)

    def _skip(self, size: int) -> None:
        self._check(size)
        self._stream.seek(size, os.SEEK_CUR)

    def _check(self, size: int) -> None:
        if self._stream.tell() + size > self._end:
            raise ValueError(f"it ends at byte {self._end}, in the middle of a value")


def _dtype(name: str) -> np.dtype[Any]:
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    if not is_numeric(dtype):
        raise ValueError(f"an array of dtype {name!r}")
    return dtype


# --- parsed -> leaves -------------------------------------------------------------------------------


def _leaves(tree: Any, file: str) -> dict[Name, Any]:
    leaves: dict[Name, Any] = {}

    def walk(node: Any, keys: tuple[str, ...]) -> None:
        if isinstance(node, dict):
            if _CHUNKED in node:
                leaves[name_from_file(keys)] = _join(node, Name(keys))
                return
            for key, child in node.items():
                walk(child, (*keys, key))
        elif isinstance(node, list):
            for index, child in enumerate(node):
                walk(child, (*keys, str(index)))
        elif isinstance(node, str):
            if node.startswith(_MULTI_PROCESS):
                raise ValueError(
                    f"{print_name(keys)!r} lies outside of {file!r}, in the '_gda' directory of a "
                    "multi-process save, which treeload does not read"
                )
        else:
            leaves[name_from_file(keys)] = node

    walk(tree, ())
    return leaves


def _join(node: dict[str, Any], name: Name) -> _Array:
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
    if not all(isinstance(part, _Array) and part.dtype == parts[0].dtype for part in parts):
        raise ValueError(f"{print_name(name)!r} is an array whose pieces are not arrays of one dtype")
    if sum(math.prod(part.shape) for part in parts) != math.prod(sizes):
        raise ValueError(f"{print_name(name)!r} is an array of shape {sizes} whose pieces do not fill it")
    return _Array(sizes, parts[0].dtype, tuple(piece for part in parts for piece in part.pieces))


def _spec(leaf: Any) -> Spec:
    if isinstance(leaf, _Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    if type(leaf) is int and leaf >= 1 << 63:
        return jax.ShapeDtypeStruct((), np.dtype(np.uint64))
    return spec_of(leaf)


FORMAT = Format(
    name="msgpack",
    words="Flax msgpack: a file, or a directory of checkpoint_N files",
    recognises=recognises,
    opens=MsgpackSource,
)
