"""One array of an Orbax checkpoint: what its header says, and its way from the disk to where it is asked for.

Owns the zarr header and the placing of what was read. Opens nothing: ``source`` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from treeload._files.digests import Digest, checked_parts, covers
from treeload._files.pieces import aligned
from treeload._files.read import cutting
from treeload._files.regions import Box, boxes_of, extents_of, placed, whole_box
from treeload._formats.orbax.direct import Chunk
from treeload._formats.orbax.record import Array, array_of, read_dtype
from treeload._leaves.spec import Spec, print_spec
from treeload._naming.name import Name

# --- one stored array -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """One array on disk.

    Attributes:
        key: what it is stored under; None for one without elements, which is not.
        raw: what lies there.
        spec: the leaf that it stands for.
        impl: of the typed keys that it stands for.
        chunk: how it lies there, where it can be read without TensorStore.
    """

    key: str | None
    raw: Spec
    spec: Spec
    impl: str | None
    chunk: Chunk | None = None

    @property
    def array(self) -> Array:
        """As the record of ``treeload.save`` has it."""
        return array_of(_name_of(self.raw.dtype), tuple(self.raw.shape), self.impl)

    @classmethod
    def of(
        cls, key: str, raw: Spec, impl: str | None, encoded: str | None, chunk: Chunk | None = None
    ) -> Stored:
        if impl is not None:
            wrapped = jax.eval_shape(lambda data: jax.random.wrap_key_data(data, impl=impl), raw)
            return cls(key, raw, jax.ShapeDtypeStruct(wrapped.shape, wrapped.dtype), impl)
        if encoded is not None:
            dtype = read_dtype(encoded)
            if raw.dtype != np.uint8 or dtype.itemsize != 1:
                raise ValueError(f"it is recorded as {encoded}, which {print_spec(raw)} cannot hold")
            return cls(key, raw, jax.ShapeDtypeStruct(raw.shape, dtype), None, chunk)
        return cls(key, raw, raw, None, chunk)


@lru_cache(256)
def _name_of(dtype: Any) -> str:
    return str(dtype.name)


def read_header(header: Any, zarr3: bool) -> tuple[Spec, bool]:
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
class Piece:
    """A part of a leaf: where it lies in the whole, the memory it is read into, and when it is there."""

    box: Box
    buffer: np.ndarray[Any, Any]
    done: Any = None

    @classmethod
    def of(cls, box: Box, dtype: np.dtype[Any]) -> Piece:
        return cls(box, _buffer(extents_of(box), dtype))


@dataclass(frozen=True)
class Reading:
    """A leaf on its way: its pieces are being read, or lie there."""

    name: Name
    request: Spec
    stored: Stored
    pieces: tuple[Piece, ...]
    known: Digest | None

    @property
    def is_intact(self) -> bool:
        """Whether its bytes are those of its digest, where it has one."""
        parts = ((piece.box, piece.buffer) for piece in self.pieces)
        return checked_parts(parts, self.stored.raw.shape, self.known)

    def place(self) -> Any:
        """The leaf as it was asked for, once it is read."""
        request, stored = self.request, self.stored
        if stored.impl is not None:
            keys = self._keys(stored.impl)
            return keys if request.sharding is None else jax.device_put(keys, request.sharding)
        if not self.pieces:  # no elements, so nothing on disk
            return placed(request, lambda box: _buffer(extents_of(box), request.dtype))
        parts = [(piece.box, piece.buffer.view(stored.spec.dtype)) for piece in self.pieces]
        return placed(request, cutting(request, parts))

    def _keys(self, impl: str) -> Any:
        if not self.pieces:
            return jax.random.split(jax.random.key(0, impl=impl), self.request.shape)
        (piece,) = self.pieces
        return jax.random.wrap_key_data(jnp.asarray(piece.buffer), impl=impl)


def boxes_to_read(request: Spec, stored: Stored, known: Digest | None) -> tuple[Box, ...]:
    """Which parts of the stored array this process needs, to verify them too; of typed keys the whole."""
    whole = whole_box(stored.raw.shape)
    return covers(boxes_of(request), stored.raw.shape, known) if stored.impl is None else (whole,)


def _buffer(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    return aligned(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
