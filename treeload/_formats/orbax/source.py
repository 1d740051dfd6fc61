"""Orbax checkpoints as a source.

Owns the reading of arrays: their specs from the stored array headers, their values through TensorStore,
which is what Orbax itself reads with. Orbax's own restore is passed by on purpose: it casts and
reshapes silently, resolves the topology of the machine that saved, takes twice as long for many small
leaves, and prints tracebacks from its threads. Which directory is meant is decided in ``layout``.

On disk (https://orbax.readthedocs.io, "checkpoint format"): ``_METADATA`` lists the true key paths; each
array is a zarr (v2 or v3) array stored under its keys joined with ``.``, in directories of its own or
together in an OCDBT key-value store.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts

from treeload._errors import SourceError
from treeload._files.read import aligned
from treeload._files.regions import Box, boxes_of, extents_of, placed, slices_of, whole_box
from treeload._files.request import check_requests
from treeload._files.strict_json import parse_json
from treeload._formats.orbax import layout as _orbax_layout
from treeload._formats.orbax.chunks import check_chunks
from treeload._formats.orbax.layout import recognises
from treeload._formats.orbax.record import RECORD, Record, digest, read_dtype
from treeload._leaves.spec import Spec, nbytes, print_spec
from treeload._naming.name import Name, print_name
from treeload._sources.format import Format
from treeload._sources.source import Absent, Source, as_source_error

_LEAVES_AT_ONCE = 512


_BYTES_AT_ONCE = 256 << 20


_BEST_COMPRESSION = 40_000  # what zstd makes of zeros; a header that claims more is lying


class OrbaxSource(Source):
    """The leaves of an Orbax checkpoint, of any layout that has a ``_METADATA`` file.

    Reads metadata when it is opened, array headers when specs are asked for, arrays when they are read.
    Leaves that ``treeload.save`` wrote are checked against their digests wherever they are read whole.

    Attributes:
        step: the step that was chosen among several, or None.
        digests: printed name → xxh3-128 of the leaf's bytes, for what ``treeload.save`` wrote.

    Raises:
        SourceError: no complete checkpoint there, or several items and no ``item``.
    """

    gives_away = True

    def __init__(self, path: str | Path, *, item: str | None = None) -> None:
        self.label = f"{str(path)!r} (Orbax)"
        with as_source_error(f"cannot open {self.label}"):
            self._layout = _orbax_layout.locate(Path(path), item)
            self._tree = _orbax_layout.read_tree_metadata(self._layout)
            custom = _orbax_layout.read_custom_metadata(self._layout)
            self._record = Record.read(custom.pop(RECORD, None), self.label)
        self.step = self._layout.step
        self.label = _label(path, self._layout)
        self.metadata = MappingProxyType({**custom, **self._tree.custom})
        self.version = self._record.version
        self.provenance = MappingProxyType(dict(self._record.provenance))
        self.digests: Mapping[str, str] = MappingProxyType(self._record.digests)
        self._stored: dict[Name, _Stored] | None = None

    def specs(self) -> Mapping[Name, Spec]:
        stored = self._open_headers()
        specs = {name: leaf.spec for name, leaf in stored.items()}
        specs.update({name: empty.spec for name, empty in self._record.empty.items()})
        for alias, canonical in self._record.aliases.items():
            if canonical not in specs or alias in specs:
                raise SourceError(
                    f"{self.label}: the record says that {print_name(alias)!r} is {print_name(canonical)!r}, "
                    "which does not fit the leaves that are there"
                )
            specs[alias] = specs[canonical]
        for names, how in ((self.absent(), "absent"), (self.left_out(), "left out")):
            for name in names:
                if name in specs:
                    raise SourceError(f"{self.label}: {print_name(name)!r} is there, but recorded as {how}")
        return specs

    def ties(self) -> Mapping[Name, Name]:
        return self._record.aliases

    def absent(self) -> Mapping[Name, Absent]:
        if self._record.is_present:
            return self._record.absent
        return dict.fromkeys(self._tree.nones)

    def left_out(self) -> Mapping[Name, str]:
        return self._record.left_out

    def statics(self) -> frozenset[tuple[str, ...]]:
        return frozenset(self._record.left_out)

    def numbers(self) -> frozenset[tuple[str, ...]]:
        stored = (leaf.name for leaf in self._tree.leaves if leaf.number)
        return frozenset((*stored, *self._record.scalars))

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        check_requests(requests, self.specs(), self.label)
        pending: deque[tuple[_Reading, int]] = deque()
        held = 0
        todo = iter(requests.items())
        context = ts.Context()  # one for all leaves: they share the open store, ten times faster than without
        while batch := list(islice(todo, _LEAVES_AT_ONCE)):
            opening = [(name, request, self._open(name, context)) for name, request in batch]
            for name, request, opened in opening:
                size = nbytes(request)
                while pending and held + size > _BYTES_AT_ONCE:
                    reading, freed = pending.popleft()
                    yield reading.name, self._finish(reading)
                    held -= freed
                pending.append((self._start(name, request, opened), size))
                held += size
        while pending:
            reading, _ = pending.popleft()
            yield reading.name, self._finish(reading)

    # --- headers ---

    def _open_headers(self) -> dict[Name, _Stored]:
        if self._stored is None:
            with as_source_error(f"cannot read the array headers of {self.label}"):
                bytes_there = _orbax_layout.check_files(self._layout)
                self._stored = self._read_headers(bytes_there)
        return self._stored

    def _read_headers(self, bytes_there: int) -> dict[Name, _Stored]:
        header = "zarr.json" if self._tree.zarr3 else ".zarray"
        impls = _orbax_layout.read_key_impls(self._layout)
        store = ts.KvStore.open(self._kvstore("")).result()
        stored: dict[Name, _Stored] = {}
        todo = iter(self._tree.leaves)
        while batch := list(islice(todo, _LEAVES_AT_ONCE)):
            futures = [store.read(_prefix(leaf.stored) + header) for leaf in batch]
            for leaf, future in zip(batch, futures, strict=True):
                with as_source_error(f"{self.label}: cannot read the header of {print_name(leaf.name)!r}"):
                    raw = self._checked_header(leaf.name, future.result(), bytes_there)
                    encoded = self._record.encoded.get(print_name(leaf.name))
                    stored[leaf.name] = _Stored.of(leaf.stored, raw, impls.get(leaf.stored), encoded)
        return stored

    def _checked_header(self, name: Name, found: Any, bytes_there: int) -> Spec:
        """What an array's header says that there is, if all files together can hold it."""
        if found.state != "value":
            raise SourceError(
                f"{self.label}: {print_name(name)!r} is listed in its metadata, but "
                f"{str(self._layout.tree)!r} stores no array for it"
            )
        header = parse_json(found.value.decode())
        spec, compressed = _read_header(header, self._tree.zarr3)
        spec_bytes = math.prod(spec.shape) * spec.dtype.itemsize
        limit = bytes_there * (_BEST_COMPRESSION if compressed else 1)
        if self._tree.stores_fill and spec_bytes > limit:
            raise SourceError(
                f"{self.label}: {print_name(name)!r} claims {spec_bytes} bytes ({print_spec(spec)}), but all "
                f"files together hold {bytes_there}"
            )
        check_chunks(header, self._tree.zarr3, bytes_there if self._tree.stores_fill else None)
        return spec

    def _kvstore(self, key: str) -> dict[str, Any]:
        tree = str(self._layout.tree) + "/"
        if (self._layout.tree / "manifest.ocdbt").exists():
            return {"driver": "ocdbt", "base": {"driver": "file", "path": tree}, "path": key}
        return {"driver": "file", "path": tree + key}

    # --- values ---

    def _open(self, name: Name, context: Any) -> Any:
        """A future of the TensorStore of one leaf; None for what is not on disk."""
        canonical = self._record.aliases.get(name, name)
        if canonical in self._record.empty:
            return None
        assert self._stored is not None
        with self._as_source_error(name):
            spec = {
                "driver": "zarr3" if self._tree.zarr3 else "zarr",
                "kvstore": self._kvstore(_prefix(self._stored[canonical].key)),
                "recheck_cached_data": False,
                "recheck_cached_metadata": False,
                # Else TensorStore reads what is lost as zeros.
                "fill_missing_data_reads": not self._tree.stores_fill,
            }
            return ts.open(spec, open=True, read=True, context=context)

    def _start(self, name: Name, request: Spec, opened: Any) -> _Reading:
        canonical = self._record.aliases.get(name, name)
        if opened is None:
            empty = self._record.empty[canonical]
            return _Reading(name, request, _Stored("", empty.spec, empty.spec, empty.impl), ())
        assert self._stored is not None
        stored = self._stored[canonical]
        with self._as_source_error(name):
            array = opened.result()
            if array.shape != stored.raw.shape or array.dtype.numpy_dtype != stored.raw.dtype:
                raise SourceError(
                    f"{self.label}: {print_name(name)!r} changed while it was open: it was "
                    f"{print_spec(stored.raw)} and is {array.dtype.name}{list(array.shape)}"
                )
            pieces = []
            for box in _boxes(request, stored):
                part = array[slices_of(box)]
                buffer = _buffer(part.shape, stored.raw.dtype)
                target = ts.array(buffer)
                if buffer.ndim:  # a part keeps its place in the whole; the buffer begins at 0
                    part = part[ts.d[:].translate_to[(0,) * buffer.ndim]]
                pieces.append(_Piece(box, buffer, target.write(part)))
        return _Reading(name, request, stored, tuple(pieces))

    def _finish(self, reading: _Reading) -> Any:
        with self._as_source_error(reading.name):
            for piece in reading.pieces:
                if piece.done is not None:
                    piece.done.result()
            self._check_digest(reading)
            return _place(reading)

    def _check_digest(self, reading: _Reading) -> None:
        canonical = self._record.aliases.get(reading.name, reading.name)
        expected = self.digests.get(print_name(canonical))
        if expected is None or len(reading.pieces) != 1:
            return
        (piece,) = reading.pieces
        if piece.buffer.shape != reading.stored.raw.shape:  # a part: another process holds the rest
            return
        if digest(piece.buffer) != expected:
            raise SourceError(
                f"{self.label}: {print_name(reading.name)!r} is damaged: its bytes are not those that were "
                f"saved (in {str(self._layout.tree)!r})"
            )

    def _as_source_error(self, name: Name) -> Any:
        return as_source_error(
            f"{self.label}: cannot read {print_name(name)!r} from {str(self._layout.tree)!r}"
        )


def _label(path: str | Path, layout: _orbax_layout.Layout) -> str:
    facts = ["Orbax"]
    if layout.step is not None:
        facts.append(f"step {layout.step}")
    if layout.item is not None:
        facts.append(f"item {layout.item!r}")
    return f"{str(path)!r} ({', '.join(facts)})"


# --- one stored array -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stored:
    """One array on disk: its key, what lies there (``raw``), and the leaf that it stands for (``spec``)."""

    key: str
    raw: Spec
    spec: Spec
    impl: str | None

    @classmethod
    def of(cls, key: str, raw: Spec, impl: str | None, encoded: str | None) -> _Stored:
        if impl is not None:
            wrapped = jax.eval_shape(lambda data: jax.random.wrap_key_data(data, impl=impl), raw)
            return cls(key, raw, jax.ShapeDtypeStruct(wrapped.shape, wrapped.dtype), impl)
        if encoded is not None:
            dtype = read_dtype(encoded)
            if raw.dtype != np.uint8 or dtype.itemsize != 1:
                raise ValueError(f"it is recorded as {encoded}, which {print_spec(raw)} cannot hold")
            return cls(key, raw, jax.ShapeDtypeStruct(raw.shape, dtype), None)
        return cls(key, raw, raw, None)


def _prefix(key: str) -> str:
    """Where in the store an array lies. A tree that is one leaf, or whose key is empty, has no prefix."""
    return f"{key}/" if key else ""


def _read_header(header: Any, zarr3: bool) -> tuple[Spec, bool]:
    """The spec of a stored array, and whether its bytes are compressed, from its zarr metadata.

    https://zarr-specs.readthedocs.io, v2 "Metadata" and v3 "Array metadata".
    """
    shape = tuple(header["shape"])
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"its header gives the shape {header['shape']!r}")
    dtype = read_dtype(header["data_type" if zarr3 else "dtype"])
    compressed = _is_compressed(header["codecs"]) if zarr3 else header.get("compressor") is not None
    return jax.ShapeDtypeStruct(shape, dtype), compressed


def _is_compressed(codecs: Sequence[Any]) -> bool:
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            if _is_compressed(codec["configuration"]["codecs"]):
                return True
        elif codec["name"] not in ("bytes", "transpose", "crc32c"):
            return True
    return False


# --- one leaf on its way ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A part of a leaf: where it lies in the whole, the memory it is read into, and when it is there."""

    box: Box
    buffer: np.ndarray[Any, Any]
    done: Any


@dataclass(frozen=True)
class _Reading:
    name: Name
    request: Spec
    stored: _Stored
    pieces: tuple[_Piece, ...]


def _boxes(request: Spec, stored: _Stored) -> tuple[Box, ...]:
    """Which parts of the stored array this process needs; of typed keys always the whole."""
    return boxes_of(request) if stored.impl is None else (whole_box(stored.raw.shape),)


def _buffer(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    return aligned(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


def _place(reading: _Reading) -> Any:
    request, stored = reading.request, reading.stored
    if stored.impl is not None:
        keys = _keys(reading)
        return keys if request.sharding is None else jax.device_put(keys, request.sharding)
    if not reading.pieces:  # no elements, so nothing on disk
        return placed(request, lambda box: _buffer(extents_of(box), request.dtype))
    buffers = {piece.box: piece.buffer.view(stored.spec.dtype) for piece in reading.pieces}
    return placed(request, buffers.__getitem__)


def _keys(reading: _Reading) -> Any:
    impl = reading.stored.impl
    if not reading.pieces:
        return jax.random.split(jax.random.key(0, impl=impl), reading.request.shape)
    (piece,) = reading.pieces
    return jax.random.wrap_key_data(jnp.asarray(piece.buffer), impl=impl)


FORMAT = Format(
    name="orbax",
    words="Orbax: a checkpoint, a step directory, or a manager's root",
    recognises=recognises,
    opens=OrbaxSource,
    options=frozenset({"item"}),
    claims_missing=recognises,  # a save that died halfway left it beside
)
