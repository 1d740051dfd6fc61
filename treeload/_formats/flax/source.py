"""Flax's msgpack files as a source: ``flax_model.msgpack``, its shards, and the legacy ``checkpoint_N``.

Owns what is Flax's own in such files. How they are parsed and read is in ``_files`` (``msgpack``,
``msgpack_tree``), since early Orbax kept values in the same form; which files a path means is in ``choice``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from treeload._errors import SourceError
from treeload._files.msgpack_tree import MsgpackTree, Packed, read_packed, read_tree
from treeload._files.places import AnyPlace, place_of
from treeload._files.request import check_requests
from treeload._formats.flax.choice import choose, is_named, recognises
from treeload._leaves.spec import Spec
from treeload._naming.name import Name, print_name
from treeload._sources.format import Format
from treeload._sources.source import Absent, Source, as_source_error

_MULTI_PROCESS = "//GDAPlaceholder:"


class MsgpackSource(Source):
    """The leaves of a Flax msgpack file, or of several with their index.

    Of a directory, ``flax_model.msgpack`` or its index is read, or of ``checkpoint_N`` files the latest.

    Attributes:
        step: the step that was chosen among several, or None.

    Raises:
        SourceError: no such file, or one that is not, to its last byte, what Flax writes; shards that are not
            those of their index.
    """

    gives_away = True
    checks_digests = True

    def __init__(self, path: AnyPlace) -> None:
        shown = repr(str(path))
        chosen = choose(place_of(path))
        self.step = None if chosen.step is None else chosen.step.number
        said = f", step {self.step}" if self.step is not None else ""
        said = f", {len(chosen.files)} shards" if chosen.index is not None else said
        self.label = f"{shown} (Flax msgpack{said})"
        with as_source_error(f"cannot read {self.label}"):
            trees = {name: _read(name, chosen.files) for name in chosen.files}
        if chosen.index is not None:
            chosen.index.check({name: _joined_names(tree) for name, tree in trees.items()})
            self.metadata = MappingProxyType(dict(chosen.index.metadata))
        self._leaves: dict[Name, Packed] = {}
        self._absent: dict[Name, Absent] = {}
        for tree in trees.values():
            self._leaves |= tree.leaves
            self._absent |= dict.fromkeys(tree.absent)
        self._specs = MappingProxyType({name: leaf.spec for name, leaf in self._leaves.items()})

    def specs(self) -> Mapping[Name, Spec]:
        return self._specs

    def absent(self) -> Mapping[Name, Absent]:
        return self._absent

    def numbers(self) -> frozenset[tuple[str, ...]]:
        return frozenset(name for name, leaf in self._leaves.items() if leaf.is_number)

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        check_requests(requests, self._specs, self.label)
        with as_source_error(f"cannot read {self.label}"):
            yield from read_packed(self._leaves, requests, self.label, self.leaf_digests)


def _read(name: str, files: Mapping[str, Any]) -> MsgpackTree:
    """The tree of one file; of several, what is wrong is said of that one."""
    file = files[name]
    try:
        tree = read_tree(file)
        for slot, text in tree.texts.items():
            if text.startswith(_MULTI_PROCESS):
                raise ValueError(
                    f"{print_name(slot)!r} lies outside of {str(file.path)!r}, in the '_gda' directory of a "
                    "multi-process save, which treeload does not read"
                )
    except (ValueError, TypeError) as error:
        if len(files) == 1:
            raise
        raise SourceError(f"cannot read {file} (Flax msgpack): {error}") from error
    return tree


def _joined_names(tree: MsgpackTree) -> list[str]:
    """The names as the index has them."""
    return ["/".join(name) for name in (*tree.leaves, *tree.absent)]


FORMAT = Format(
    name="msgpack",
    words="Flax msgpack: a file, shards with their index, or a directory of checkpoint_N files",
    recognises=recognises,
    is_named=is_named,
    opens=MsgpackSource,
)
