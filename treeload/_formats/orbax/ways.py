"""Which way each leaf of an Orbax store is read: as it lies in a file, unpacked, or through TensorStore.

Owns the choice, by the store's index and by what lies behind a chunk. Reads no leaf.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from treeload._errors import SourceError
from treeload._files.frames import CAN_UNPACK, Frame
from treeload._files.open import File, look_within, opened, read_bytes
from treeload._files.pieces import Stored as Plain
from treeload._formats.orbax import layout as _orbax_layout
from treeload._formats.orbax.arrays import Stored
from treeload._formats.orbax.btree import Extent, Value
from treeload._formats.orbax.direct import INDEX, prefix_of, shard_index
from treeload._leaves.spec import nbytes
from treeload._naming.name import Name, print_name


@dataclass
class Ways:
    """The leaves that are read as they lie in files, those that are unpacked, and the others."""

    plain: dict[Name, Plain] = field(default_factory=dict)
    frames: dict[Name, Frame] = field(default_factory=dict)
    others: dict[Name, Stored] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """One store on this machine.

    Attributes:
        label: what holds the leaves, for messages.
        layout: where it lies.
        files: those that were there when its index was read.
        values: its index; empty where that was not read.
    """

    label: str
    layout: _orbax_layout.Layout
    files: _orbax_layout.Files
    values: Mapping[bytes, Value]

    def ways(self, stored: Mapping[Name, Stored], digested: Container[Name]) -> Ways:
        """Which way each leaf is read; of those that are ``digested`` damage is noticed later.

        Raises:
            SourceError: a file is cut short, or another one by now.
        """
        ways = Ways()
        in_files: dict[str, list[tuple[Name, Stored, Extent]]] = {}
        for name, leaf in stored.items():
            value = self._value(leaf)
            if leaf.chunk is None or value is None:
                ways.others[name] = leaf
            elif isinstance(value, Extent):
                in_files.setdefault(value.path, []).append((name, leaf, value))
            elif leaf.chunk.behind and value[-INDEX:] != shard_index(len(value) - INDEX):
                ways.others[name] = leaf
            else:
                held = value[: len(value) - leaf.chunk.behind]
                ways.frames[name] = Frame(leaf.spec, leaf.chunk.is_packed, held)
        for path, leaves in in_files.items():
            self._in_file(self._file(path), leaves, ways, digested)
        return ways

    def lies_in_one_piece(self, leaf: Stored) -> bool:
        """Whether a leaf may be read without TensorStore, as far as the index tells."""
        return self._value(leaf) is not None

    def _in_file(
        self, file: File, leaves: list[tuple[Name, Stored, Extent]], ways: Ways, digested: Container[Name]
    ) -> None:
        """The ways of leaves that lie in one file of the store.

        Where a leaf has no digest, the index behind its chunk tells whether it was moved or cut; TensorStore
        finds the words for that.
        """
        with opened(file) as handle:
            for name, leaf, value in leaves:
                assert leaf.chunk is not None  # or it does not lie in one
                if value.offset + value.length > file.size:
                    raise SourceError(f"{file} ends before {print_name(name)} does: it was cut short")
                length = value.length - leaf.chunk.behind
                if (
                    leaf.chunk.behind
                    and name not in digested
                    and read_bytes(handle, INDEX, value.offset + length) != shard_index(length)
                ):
                    ways.others[name] = leaf
                elif leaf.chunk.is_packed:
                    ways.frames[name] = Frame(leaf.spec, True, None, file, value.offset, length)
                else:
                    ways.plain[name] = Plain(file, value.offset, leaf.spec)

    def _value(self, leaf: Stored) -> Value | None:
        """What the index has for the one chunk of an array; None where that cannot be all of its bytes."""
        if leaf.chunk is None or leaf.impl is not None or (leaf.chunk.is_packed and not CAN_UNPACK):
            return None
        value = self.values.get(f"{prefix_of(leaf.key or '')}{leaf.chunk.key}".encode())
        size = value.length if isinstance(value, Extent) else len(value or b"")
        size -= leaf.chunk.behind
        fits = size > 0 if leaf.chunk.is_packed else size == nbytes(leaf.raw)
        return value if fits else None

    def _file(self, path: str) -> File:
        """A file of the store, if it is the one that was there when the index was read."""
        tree = self.layout.tree
        file = look_within(self.layout.root, tree / path)
        known = self.files.identities
        # Below a directory that is a link it is known by the name that it has where that leads.
        if file.identity != known.get(str(tree / path)) and file.identity not in known.values():
            raise _orbax_layout.changed(self.label)
        return file
