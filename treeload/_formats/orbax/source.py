"""Orbax checkpoints as a source.

Owns what a checkpoint's leaves are, by the stored array headers, and which way each is read: as it lies in
the files, where the store's index was read and the array is one chunk (``ways``); else through TensorStore
(``tensors``); and what neither knows through Orbax's own restore (``restored``). That one comes last on
purpose: it casts and reshapes silently, resolves the topology of the machine that saved, takes ten times as
long for many small leaves, and prints tracebacks from its threads. Which directory is meant is decided in
``layout``.

Trees of early Orbax keep values in a msgpack file too (``early``), which are read as Flax's are.

On disk (https://orbax.readthedocs.io, "checkpoint format"): ``_METADATA`` lists the true key paths; each
array is a zarr (v2 or v3) array stored under its keys joined with ``.``, in directories of its own or
together in an OCDBT key-value store.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from types import MappingProxyType
from typing import Any

import tensorstore as ts

from treeload._errors import SourceError
from treeload._files.frames import read_frames
from treeload._files.msgpack_tree import read_packed
from treeload._files.place import Remote
from treeload._files.places import AnyPlace, place_of
from treeload._files.read import read_stored
from treeload._files.request import check_requests
from treeload._files.strict_json import parse_json
from treeload._formats.orbax import layout as _orbax_layout
from treeload._formats.orbax.arrays import Stored, read_header
from treeload._formats.orbax.btree import Extent, Value, read_btree
from treeload._formats.orbax.chunks import check_chunks
from treeload._formats.orbax.direct import Chunk, only_chunk, prefix_of
from treeload._formats.orbax.layout import recognises
from treeload._formats.orbax.record import RECORD, Record, check_seal, misfit
from treeload._formats.orbax.restored import HANDLED, Restored
from treeload._formats.orbax.tensors import LEAVES_AT_ONCE, Tensors
from treeload._formats.orbax.ways import Store, Ways
from treeload._leaves.spec import Spec, print_spec
from treeload._naming.name import Name, print_name
from treeload._sources.format import Format
from treeload._sources.source import Absent, Source, as_source_error, read_again

_KEYS = 4  # of the store's index for each leaf: an array that is one chunk has two


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
        self._restored: Restored | None = None
        self._others: Mapping[Name, Spec] = {}  # which Orbax restores
        self._no_arrays: Mapping[Name, str] = {}  # which it would, and which are no arrays
        if not self._tree.is_known:
            self._leave_to_orbax(None, self._unlisted)
        self._specs: Mapping[Name, Spec] | None = None
        self._files: _orbax_layout.Files | None = None
        self._values: Mapping[bytes, Value] = {}

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
            if RECORD in custom and not self._tree.is_known:
                raise SourceError(self._unlisted)
            # Where the tree's own directory was opened, what lies above it is not asked for.
            if RECORD in custom or self._layout.tree != self._layout.root:
                check_seal(custom, mark, self.label)
            custom.pop(RECORD, None)
        self.metadata = MappingProxyType({**custom, **self._tree.custom})

    @property
    def _unlisted(self) -> str:
        file = str(self._layout.tree / _orbax_layout.TREE_FILE)
        return f"{file!r} lists no tree ('tree_metadata' is missing)"

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
        if self._specs is None:
            self._specs = MappingProxyType(self._read_specs())
        return self._specs

    def _read_specs(self) -> dict[Name, Spec]:
        stored = self._open_headers()
        specs = {name: leaf.spec for name, leaf in stored.items()}
        specs |= {name: leaf.spec for name, leaf in self._tree.packed.items()}
        specs |= self._others
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
        self._open_headers()
        return {**self._record.left_out, **self._no_arrays}

    def statics(self) -> frozenset[tuple[str, ...]]:
        return frozenset(self.left_out())

    def numbers(self) -> frozenset[tuple[str, ...]]:
        self._open_headers()
        stored = (leaf.name for leaf in self._tree.leaves if leaf.kind == "scalar")
        packed = (name for name, leaf in self._tree.packed.items() if leaf.is_number)
        others = () if self._restored is None else self._others.keys() & self._restored.numbers()
        return frozenset((*stored, *packed, *others, *self._record.scalars))

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        check_requests(requests, self.specs(), self.label)
        with self._of_one_moment():
            # Again, since TensorStore opens them by name: what was put in the place of one is not opened.
            if _orbax_layout.check_files(self._layout) != self._files:
                raise _orbax_layout.changed(self.label)
        packed = {name: spec for name, spec in requests.items() if name in self._tree.packed}
        with as_source_error(f"cannot read {self.label}"):
            yield from read_packed(self._tree.packed, packed, self.label, self.leaf_digests)
        stored = {name: spec for name, spec in requests.items() if name not in packed}
        for left, leaf in enumerate(self._read_stored(stored), 1 - len(stored)):
            if left == 0:
                with self._of_one_moment():  # before the last leaf goes: whoever reads all sees it
                    pass
            yield leaf

    def _read_stored(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        """The leaves that are no part of a file of the tree's structure, each by its way."""
        others = {name: spec for name, spec in requests.items() if name in self._others}
        requests = {name: spec for name, spec in requests.items() if name not in others}
        ways, digests = self._ways(requests), self.leaf_digests

        def of(way: Mapping[Name, Any]) -> dict[Name, Spec]:
            return {name: requests[name] for name in way}

        with self._noticing_changes():
            yield from read_stored(ways.plain, of(ways.plain), self.label, digests)
            yield from read_frames(ways.frames, of(ways.frames), self.label, digests)
        yield from self._tensors.read(ways.others, of(ways.others), digests)
        if others and self._restored is not None:
            with self._noticing_changes():
                yield from self._restored.read(others, digests)

    # --- which way ---

    def _ways(self, requests: Mapping[Name, Spec]) -> Ways:
        stored, wanted = self._open_headers(), {}
        for name in requests:
            canonical = self._record.aliases.get(name, name)
            empty = self._record.empty.get(canonical)
            wanted[name] = (
                stored[canonical] if empty is None else Stored(None, empty.spec, empty.spec, empty.impl)
            )
        return self._store.ways(wanted, self.leaf_digests)

    @property
    def _store(self) -> Store:
        assert self._files is not None  # the headers were read
        return Store(self.label, self._layout, self._files, self._values)

    @property
    def _tensors(self) -> Tensors:
        return Tensors(
            self.label, self._kvstore, self._tree.zarr3, self._tree.stores_fill,
            self._as_source_error,
        )  # fmt: skip

    # --- headers ---

    def _open_headers(self) -> dict[Name, Stored]:
        if self._stored is None:
            with as_source_error(f"cannot read the array headers of {self.label}"), self._of_one_moment():
                self._files = _orbax_layout.check_files(self._layout)
                self._stored = self._read_headers(self._files.total)
            if self._stored and not any(map(self._store.lies_in_one_piece, self._stored.values())):
                self.label = _label(self._path, self._layout, "through TensorStore")
        return self._stored

    def _read_headers(self, bytes_there: int) -> dict[Name, Stored]:
        impls = _orbax_layout.read_key_impls(self._layout)
        parsed: dict[bytes, tuple[Spec, Chunk | None]] = {}  # most of them are alike
        stored: dict[Name, Stored] = {}
        lacking: list[_orbax_layout.StoredLeaf] = []
        for leaf, text in self._header_texts():
            name = leaf.name
            if text is None:
                lacking.append(leaf)
                continue
            with as_source_error(f"{self.label}: cannot read the header of {print_name(name)!r}"):
                known = parsed.get(text)
                if known is None:
                    known = parsed[text] = self._checked_header(name, text, bytes_there)
                encoded = self._record.encoded.get(print_name(name)) if self._record.encoded else None
                stored[name] = Stored.of(leaf.stored, known[0], impls.get(leaf.stored), encoded, known[1])
        if lacking:
            self._leave_lacking_to_orbax(lacking, is_known=bool(stored))
        wrong = misfit(self._record, stored.keys(), lambda name: stored[name].array)
        if wrong is not None:
            raise SourceError(f"{self.label} is damaged: its record {wrong}")
        return stored

    # --- what Orbax restores ---

    def _leave_lacking_to_orbax(self, lacking: Sequence[_orbax_layout.StoredLeaf], *, is_known: bool) -> None:
        """What is not where Orbax keeps arrays is its own to read, or it is lost.

        Lost is what its own handlers wrote where they wrote others too (``is_known``), or so treeload says.
        """

        def stores_none(leaf: _orbax_layout.StoredLeaf) -> str:
            kind = "" if leaf.kind in HANDLED else f" as {leaf.kind[:100]!r}"
            return (
                f"{self.label}: {print_name(leaf.name)!r} is listed in its metadata{kind}, but "
                f"{str(self._layout.tree)!r} stores no array for it"
            )

        lost = next((leaf for leaf in lacking if leaf.kind in HANDLED), None)
        if lost is not None and (is_known or self._record.is_present):
            raise SourceError(stores_none(lost))
        self._leave_to_orbax(lacking, stores_none(lacking[0]))

    def _leave_to_orbax(self, leaves: Sequence[_orbax_layout.StoredLeaf] | None, unless: str) -> None:
        """Has Orbax restore these leaves, or all that it knows; ``unless`` it can, that is what is wrong."""
        layout = self._layout
        if self._record.is_present or isinstance(layout.tree, Remote):
            raise SourceError(unless)
        item = None if layout.tree == layout.root else layout.tree.name
        foreign = frozenset(leaf.name for leaf in leaves or () if leaf.kind not in HANDLED)
        restored = Restored(self.label, layout.root, item, foreign)
        try:
            specs = restored.specs()
        except SourceError as error:
            raise SourceError(f"{unless}; {str(error).removeprefix(self.label).lstrip(': ')}") from error
        names = restored.said if leaves is None else [leaf.name for leaf in leaves]
        lost = next((name for name in names if name not in restored.said), None)
        if lost is not None:
            raise SourceError(unless)
        self._restored = restored
        impls = _orbax_layout.read_key_impls(layout)
        self._others = {
            name: Stored.of("", specs[name], impls.get(".".join(name)), None).spec
            for name in names
            if name in specs
        }
        self._no_arrays = {name: restored.what(name) for name in names if name not in specs}
        part = f"{len(names):,} of {len(self._tree.leaves):,} leaves " if self._tree.is_known else ""
        self.label = _label(self._path, layout, f"{part}restored by Orbax itself")

    def _header_texts(self) -> Iterator[tuple[_orbax_layout.StoredLeaf, bytes | None]]:
        """Every leaf with the text of its array's header; None where there is none."""
        header = "zarr.json" if self._tree.zarr3 else ".zarray"
        tree = self._layout.tree
        if not isinstance(tree, Remote) and self._is_together():
            with as_source_error(f"{self.label} is damaged: {str(tree)!r} cannot be read"):
                self._values = read_btree(tree, _KEYS * len(self._tree.leaves) + 1_000)
        store: Any = None
        todo = iter(self._tree.leaves)
        while batch := list(islice(todo, LEAVES_AT_ONCE)):
            keys = [f"{prefix_of(leaf.stored)}{header}" for leaf in batch]
            held = [self._values.get(key.encode()) for key in keys] if self._values else []
            if held and not any(isinstance(value, Extent) for value in held):
                yield from zip(batch, held, strict=True)
                continue
            store = store or ts.KvStore.open(self._kvstore("")).result()
            futures = [store.read(key) for key in keys]
            for leaf, future in zip(batch, futures, strict=True):
                with as_source_error(f"{self.label}: cannot read the header of {print_name(leaf.name)!r}"):
                    found = future.result()
                yield leaf, found.value if found.state == "value" else None

    def _checked_header(self, name: Name, text: bytes, bytes_there: int) -> tuple[Spec, Chunk | None]:
        """What a header says that there is, if all files together can hold it; and how it lies there."""
        header = parse_json(text.decode())
        spec, compressed = read_header(header, self._tree.zarr3)
        spec_bytes = math.prod(spec.shape) * spec.dtype.itemsize
        limit = bytes_there * (_BEST_COMPRESSION if compressed else 1)
        if self._tree.stores_fill and spec_bytes > limit:
            raise SourceError(
                f"{self.label}: {print_name(name)!r} claims {spec_bytes} bytes ({print_spec(spec)}), but all "
                f"files together hold {bytes_there}"
            )
        check_chunks(header, self._tree.zarr3, bytes_there if self._tree.stores_fill else None)
        return spec, only_chunk(header, spec, self._tree.zarr3) if self._values else None

    def _is_together(self) -> bool:
        """Whether all arrays lie in one store of OCDBT; else each in a directory of its own."""
        return (self._layout.tree / "manifest.ocdbt").exists()

    def _kvstore(self, key: str) -> dict[str, Any]:
        base = self._base()
        if self._is_together():
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

    @contextmanager
    def _as_source_error(self, name: Name) -> Iterator[None]:
        where = f"from {str(self._layout.tree)!r}"
        with (
            self._noticing_changes(),
            as_source_error(f"{self.label}: cannot read {print_name(name)!r} {where}"),
        ):
            yield

    @contextmanager
    def _noticing_changes(self) -> Iterator[None]:
        try:
            yield
        except SourceError as error:  # nothing is damaged where another checkpoint has taken its place
            if _orbax_layout.identity(self._layout.root) != self._identity:
                raise _orbax_layout.changed(self.label) from error
            raise


def _label(path: AnyPlace, layout: _orbax_layout.Layout, *more: str) -> str:
    facts = ["Orbax", *more]
    if layout.step is not None:
        facts.append(f"step {layout.step}")
    if layout.item is not None:
        facts.append(f"item {layout.item!r}")
    return f"{str(path)!r} ({', '.join(facts)})"


FORMAT = Format(
    name="orbax",
    words="Orbax: a checkpoint, a step directory, or a manager's root",
    recognises=recognises,
    opens=OrbaxSource,
    options=frozenset({"item"}),
    claims_missing=recognises,  # a save that died halfway left it beside
)
