"""Arrays of an Orbax store through TensorStore, which is what Orbax itself reads with.

Owns how many are on their way at a time. What each is was told by its header, which TensorStore reads again
and is held against.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import tensorstore as ts

from treeload._errors import SourceError
from treeload._files.budget import in_flight
from treeload._files.digests import Digest, damaged
from treeload._files.regions import slices_of
from treeload._formats.orbax.arrays import Piece, Reading, Stored, boxes_to_read
from treeload._formats.orbax.direct import prefix_of
from treeload._leaves.spec import Spec, nbytes, print_spec
from treeload._naming.name import Name, print_name

LEAVES_AT_ONCE = 512


_BYTES_AT_ONCE = 256 << 20


@dataclass(frozen=True)
class Tensors:
    """The arrays of one store.

    Attributes:
        label: what holds the leaves, for messages.
        kvstore: TensorStore's way to what lies under a key.
        zarr3: the arrays' version.
        stores_fill: every chunk was written, so one that lacks is damage.
        of_leaf: what an error at a leaf is said to be.
    """

    label: str
    kvstore: Callable[[str], dict[str, Any]]
    zarr3: bool
    stores_fill: bool
    of_leaf: Callable[[Name], AbstractContextManager[None]]

    def read(
        self,
        stored: Mapping[Name, Stored],
        requests: Mapping[Name, Spec],
        digests: Mapping[Name, Digest],
    ) -> Iterator[tuple[Name, Any]]:
        """The leaves asked for, several on their way at a time.

        Args:
            stored: what each of them is; a key that is None lies nowhere, as it has no elements.
            requests: as ``Source.read`` has them.
            digests: what the bytes of leaves must give, where that is known.

        Raises:
            SourceError: what is read is damaged, or another array by now.
        """
        pending: deque[tuple[Reading, int]] = deque()
        held = 0
        todo = iter(requests.items())
        context = ts.Context()  # one for all leaves: they share the open store, ten times faster than without
        while batch := list(islice(todo, LEAVES_AT_ONCE)):
            opening = [(name, request, self._open(name, stored[name], context)) for name, request in batch]
            for name, request, opened in opening:
                size = nbytes(request)
                while pending and held + size > in_flight(_BYTES_AT_ONCE):
                    reading, freed = pending.popleft()
                    yield reading.name, self._finish(reading)
                    held -= freed
                pending.append((self._start(name, request, stored[name], opened, digests.get(name)), size))
                held += size
        while pending:
            reading, _ = pending.popleft()
            yield reading.name, self._finish(reading)

    def _open(self, name: Name, stored: Stored, context: Any) -> Any:
        """A future of the TensorStore of one leaf; None for what is not on disk."""
        if stored.key is None:
            return None
        with self.of_leaf(name):
            spec = {
                "driver": "zarr3" if self.zarr3 else "zarr",
                "kvstore": self.kvstore(prefix_of(stored.key)),
                "recheck_cached_data": False,
                "recheck_cached_metadata": False,
                # Else TensorStore reads what is lost as zeros.
                "fill_missing_data_reads": not self.stores_fill,
            }
            return ts.open(spec, open=True, read=True, context=context)

    def _start(self, name: Name, request: Spec, stored: Stored, opened: Any, known: Digest | None) -> Reading:
        if opened is None:
            return Reading(name, request, stored, (), None)
        with self.of_leaf(name):
            array = opened.result()
            if array.shape != stored.raw.shape or array.dtype.numpy_dtype != stored.raw.dtype:
                raise SourceError(
                    f"{self.label}: {print_name(name)!r} changed while it was open: it was "
                    f"{print_spec(stored.raw)} and is {array.dtype.name}{list(array.shape)}"
                )
            pieces = []
            for box in boxes_to_read(request, stored, known):
                part = array[slices_of(box)]
                piece = Piece.of(box, stored.raw.dtype)
                if piece.buffer.ndim:  # a part keeps its place in the whole; the buffer begins at 0
                    part = part[ts.d[:].translate_to[(0,) * piece.buffer.ndim]]
                pieces.append(replace(piece, done=ts.array(piece.buffer).write(part)))
        return Reading(name, request, stored, tuple(pieces), known)

    def _finish(self, reading: Reading) -> Any:
        with self.of_leaf(reading.name):
            for piece in reading.pieces:
                if piece.done is not None:
                    piece.done.result()
            if not reading.is_intact:
                raise damaged(f"{self.label}: {print_name(reading.name)!r}")
            return reading.place()
