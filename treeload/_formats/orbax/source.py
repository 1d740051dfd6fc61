"""Orbax checkpoints as a source.

Owns the reading of arrays: their specs from the stored array headers, their values through TensorStore,
which is what Orbax itself reads with. Orbax's own restore is passed by on purpose: it casts and
reshapes silently, resolves the topology of the machine that saved, takes twice as long for many small
leaves, and prints tracebacks from its threads. Which directory is meant is decided in ``layout``.

Trees of early Orbax keep values in a msgpack file too (``early``), which are read as Flax's are.

On disk (https://orbax.readthedocs.io, "checkpoint format"): ``_METADATA`` lists the true key paths; each
array is a zarr (v2 or v3) array stored under its keys joined with ``.``, in directories of its own or
together in an OCDBT key-value store.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import islice
from types import MappingProxyType
from typing import Any

import tensorstore as ts

from treeload._errors import SourceError
from treeload._files.msgpack_tree import read_packed
from treeload._files.place import Remote
from treeload._files.places import AnyPlace, place_of
from treeload._files.regions import slices_of
from treeload._files.request import check_requests
from treeload._files.strict_json import parse_json
from treeload._formats.orbax import layout as _orbax_layout
from treeload._formats.orbax.arrays import Piece, Reading, Stored, boxes_to_read, read_header
from treeload._formats.orbax.chunks import check_chunks
from treeload._formats.orbax.layout import recognises
from treeload._formats.orbax.record import RECORD, Record, check_seal, misfit
from treeload._leaves.spec import Spec, nbytes, print_spec
from treeload._naming.name import Name, print_name
from treeload._sources.format import Format
from treeload._sources.source import Absent, Source, as_source_error, read_again

_LEAVES_AT_ONCE = 512


_BYTES_AT_ONCE = 256 << 20


_BEST_COMPRESSION = 40_000  # what zstd makes of zeros; a header that claims more is lying


class OrbaxSource(Source):
    """The leaves of an Orbax checkpoint, of any layout.

    Reads metadata when it is opened, array headers when specs are asked for, arrays when they are read.
    Leaves that ``treeload.save`` wrote are checked against their digests, whatever part of them is read.

    Attributes:
        step: the step that was chosen among several, or None.
        digests: printed name → xxh3-128 of the leaf's bytes, for what ``treeload.save`` wrote.

    Raises:
        SourceError: no complete checkpoint there, or several items and no ``item``.
    """

    gives_away = True
    checks_digests = True

    def __init__(self, path: AnyPlace, *, item: str | None = None) -> None:
        self.label = f"{str(path)!r} (Orbax)"
        self._path, self._item = place_of(path), item
        with as_source_error(f"cannot open {self.label}"):
            read_again(self._read_metadata)
        self.step = self._layout.step
        self.label = _label(path, self._layout)
        self.version = self._record.version
        self.provenance = MappingProxyType(dict(self._record.provenance))
        known = self._record.leaf_digests
        tied = {alias: known[name] for alias, name in self._record.aliases.items() if name in known}
        self.leaf_digests = MappingProxyType({**known, **tied})
        self._stored: dict[Name, Stored] | None = None
        self._files: _orbax_layout.Files | None = None

    def _read_metadata(self) -> None:
        with _orbax_layout.of_one_moment(self._path, _orbax_layout.identity(self._path), self.label):
            self._layout = _orbax_layout.locate(self._path, self._item)
            self._base()
        self._identity = _orbax_layout.identity(self._layout.root)
        with self._of_one_moment():
            self._tree = _orbax_layout.read_tree_metadata(self._layout)
            custom = _orbax_layout.read_custom_metadata(self._layout)
            self._record = Record.read(custom.get(RECORD), self.label)
            mark = self._tree.custom.pop(RECORD, None)
            # Where the tree's own directory was opened, what lies above it is not asked for.
            if RECORD in custom or self._layout.tree != self._layout.root:
                check_seal(custom, mark, self.label)
            custom.pop(RECORD, None)
        self.metadata = MappingProxyType({**custom, **self._tree.custom})

    def _of_one_moment(self) -> AbstractContextManager[None]:
        return _orbax_layout.of_one_moment(self._layout.root, self._identity, self.label)

    def opened_again(self) -> Source | None:
        now: Source = OrbaxSource(self._path, item=self._item)
        facts = [
            (each.specs(), each.ties(), each.absent(), each.numbers(), each.left_out())
            for each in (self, now)
        ]
        if facts[0] != facts[1]:
            raise SourceError(
                f"{self.label} changed while it was read, and holds other leaves by now: plan again",
                changed=True,
            )
        # Digests from beside the checkpoint stay what they were: they are not of another one.
        return now if now.leaf_digests or not self.leaf_digests else now.with_digests(self.leaf_digests)

    def specs(self) -> Mapping[Name, Spec]:
        stored = self._open_headers()
        specs = {name: leaf.spec for name, leaf in stored.items()}
        specs |= {name: leaf.spec for name, leaf in self._tree.packed.items()}
        for name, empty in self._record.empty.items():
            if name in specs:
                raise SourceError(f"{self.label}: {print_name(name)!r} is there, but recorded as empty")
            specs[name] = empty.spec
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
        packed = (name for name, leaf in self._tree.packed.items() if leaf.is_number)
        return frozenset((*stored, *packed, *self._record.scalars))

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        check_requests(requests, self.specs(), self.label)
        with self._of_one_moment():
            # Again, since TensorStore opens them by name: what was put in the place of one is not opened.
            if _orbax_layout.check_files(self._layout) != self._files:
                raise _orbax_layout.changed(self.label)
        packed = {name: spec for name, spec in requests.items() if name in self._tree.packed}
        with as_source_error(f"cannot read {self.label}"):
            yield from read_packed(self._tree.packed, packed, self.label, self.leaf_digests)
        yield from self._read_stored({name: spec for name, spec in requests.items() if name not in packed})

    def _read_stored(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        """The leaves that are arrays of their own, several on their way at a time."""
        pending: deque[tuple[Reading, int]] = deque()
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
            value = self._finish(reading)
            if not pending:
                with self._of_one_moment():  # before the last leaf goes: whoever reads all sees it
                    pass
            yield reading.name, value

    # --- headers ---

    def _open_headers(self) -> dict[Name, Stored]:
        if self._stored is None:
            with as_source_error(f"cannot read the array headers of {self.label}"), self._of_one_moment():
                self._files = _orbax_layout.check_files(self._layout)
                self._stored = self._read_headers(self._files.total)
        return self._stored

    def _read_headers(self, bytes_there: int) -> dict[Name, Stored]:
        header = "zarr.json" if self._tree.zarr3 else ".zarray"
        impls = _orbax_layout.read_key_impls(self._layout)
        store = ts.KvStore.open(self._kvstore("")).result()
        stored: dict[Name, Stored] = {}
        todo = iter(self._tree.leaves)
        while batch := list(islice(todo, _LEAVES_AT_ONCE)):
            futures = [store.read(_prefix(leaf.stored) + header) for leaf in batch]
            for leaf, future in zip(batch, futures, strict=True):
                with as_source_error(f"{self.label}: cannot read the header of {print_name(leaf.name)!r}"):
                    raw = self._checked_header(leaf.name, future.result(), bytes_there)
                    encoded = self._record.encoded.get(print_name(leaf.name))
                    stored[leaf.name] = Stored.of(leaf.stored, raw, impls.get(leaf.stored), encoded)
        wrong = misfit(self._record, {name: leaf.array for name, leaf in stored.items()})
        if wrong is not None:
            raise SourceError(f"{self.label} is damaged: its record {wrong}")
        return stored

    def _checked_header(self, name: Name, found: Any, bytes_there: int) -> Spec:
        """What an array's header says that there is, if all files together can hold it."""
        if found.state != "value":
            raise SourceError(
                f"{self.label}: {print_name(name)!r} is listed in its metadata, but "
                f"{str(self._layout.tree)!r} stores no array for it"
            )
        header = parse_json(found.value.decode())
        spec, compressed = read_header(header, self._tree.zarr3)
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
        tree, base = self._layout.tree, self._base()
        if (tree / "manifest.ocdbt").exists():
            return {"driver": "ocdbt", "base": base, "path": key}
        return {**base, "path": base["path"] + key}

    def _base(self) -> dict[str, Any]:
        """TensorStore's way to the tree's directory."""
        tree = self._layout.tree
        base = tree.server.kvstore(tree.path) if isinstance(tree, Remote) else None
        if isinstance(tree, Remote) and base is None:
            raise SourceError(
                f"{self.label} is read on this machine, at s3:// and at gs:// only: copy or mount it"
            )
        return base or {"driver": "file", "path": f"{tree}/"}

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

    def _start(self, name: Name, request: Spec, opened: Any) -> Reading:
        canonical = self._record.aliases.get(name, name)
        if opened is None:
            empty = self._record.empty[canonical]
            return Reading(name, request, Stored("", empty.spec, empty.spec, empty.impl), (), None)
        assert self._stored is not None
        stored, known = self._stored[canonical], self.leaf_digests.get(name)
        with self._as_source_error(name):
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
        with self._as_source_error(reading.name):
            for piece in reading.pieces:
                if piece.done is not None:
                    piece.done.result()
            if not reading.is_intact:
                raise SourceError(
                    f"{self.label}: {print_name(reading.name)!r} is damaged: its bytes are not those "
                    f"that were saved (in {str(self._layout.tree)!r})"
                )
            return reading.place()

    @contextmanager
    def _as_source_error(self, name: Name) -> Iterator[None]:
        where = f"from {str(self._layout.tree)!r}"
        try:
            with as_source_error(f"{self.label}: cannot read {print_name(name)!r} {where}"):
                yield
        except SourceError as error:  # nothing is damaged where another checkpoint has taken its place
            if _orbax_layout.identity(self._layout.root) != self._identity:
                raise _orbax_layout.changed(self.label) from error
            raise


def _label(path: AnyPlace, layout: _orbax_layout.Layout) -> str:
    facts = ["Orbax"]
    if layout.step is not None:
        facts.append(f"step {layout.step}")
    if layout.item is not None:
        facts.append(f"item {layout.item!r}")
    return f"{str(path)!r} ({', '.join(facts)})"


def _prefix(key: str) -> str:
    """Where in the store an array lies. A tree that is one leaf, or whose key is empty, has no prefix."""
    return f"{key}/" if key else ""


FORMAT = Format(
    name="orbax",
    words="Orbax: a checkpoint, a step directory, or a manager's root",
    recognises=recognises,
    opens=OrbaxSource,
    options=frozenset({"item"}),
    claims_missing=recognises,  # a save that died halfway left it beside
)
