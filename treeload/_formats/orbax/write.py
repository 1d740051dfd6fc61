"""Named leaves -> an Orbax checkpoint, complete or not there at all.

Owns what is written and how it takes its place. The leaves come from ``_trees``; ``_formats.orbax`` reads
them back. The tree itself is plain Orbax, so that ``ocp.load`` reads it without treeload; what Orbax cannot
hold (ties, absences, empty arrays, dtypes it does not know, digests) is in the record.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from treeload._errors import SaveError, SourceError
from treeload._files import replace
from treeload._files.digests import Digest, blocks_to_json, digests_of
from treeload._files.exchange import put_in_place
from treeload._files.interrupts import held_back
from treeload._files.meeting import together, told_by_first
from treeload._files.replace import NAME_LENGTH, PATTERN_SIGNS, workspace
from treeload._files.sync import make_directories
from treeload._formats.orbax.apart import digests_of_parts
from treeload._formats.orbax.later import made
from treeload._formats.orbax.layout import TREE_FILE, locate, read_json
from treeload._formats.orbax.leaves import all_at_once, takes
from treeload._formats.orbax.overwritten import check_target, is_replaceable
from treeload._formats.orbax.quiet import quiet
from treeload._formats.orbax.record import FORMAT, RECORD, Array, mark_of, seal_of
from treeload._formats.orbax.storable import (
    STORED,
    as_array,
    on_host,
    problems_of_names,
    problems_of_values,
    refuse,
)
from treeload._leaves.spec import elements, is_key
from treeload._naming.name import Name, print_name
from treeload._sources.provenance import Provenance
from treeload._sources.source import Absent, as_source_error
from treeload._sources.stamp import Stamp
from treeload._trees.collector import no_collections

_ITEM = "state"
"""What Orbax calls the tree of a checkpoint that holds one."""


_PLACEHOLDER = "treeload: no arrays"
"""The one slot, None, of a tree without arrays: Orbax refuses a tree without slots."""


_ORBAX = threading.Lock()
"""Held while Orbax writes: two writes of one process get in each other's way."""


@dataclass(frozen=True)
class Beside:
    """What is recorded beside the arrays of a tree.

    Attributes:
        aliases: further names of leaves → the name that their array is written under.
        absent: slots that hold None or False.
        version: the versions of the code's parameters, scope by scope; empty where nothing is recorded.
        left_out: what is no array and is not written → what it is.
        provenance: where leaves came from.
    """

    aliases: Mapping[Name, Name] = field(default_factory=dict)
    absent: Mapping[Name, Absent] = field(default_factory=dict)
    version: Stamp = field(default_factory=dict)
    left_out: Mapping[Name, str] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=dict)


@dataclass(frozen=True)
class How:
    """How it is written.

    Attributes:
        compression: with zstd.
        check_finite: only if no leaf holds NaN or infinity.
    """

    compression: bool = False
    check_finite: bool = False


def write(
    path: str | Path,
    leaves: Mapping[Name, Any],
    *,
    beside: Beside = Beside(),  # it never changes
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    how: How = How(),  # nor does this
) -> None:
    """Nothing; afterwards ``path`` is a complete Orbax checkpoint of ``leaves``, or is as it was.

    It is on the disk, and not only on its way there. In a job of several processes all of them call this,
    with one path on a file system that all see.

    Raises:
        SaveError: names, values or metadata that cannot be stored, all of them said at once; a path that
            exists (or, with ``overwrite``, is not a checkpoint and nothing else); or a file system that
            refuses.
    """
    with held_back(), no_collections(), _failures_as_save_error(path):
        with together("save it"):
            target = Path(os.path.realpath(os.path.expanduser(path)))
            _refuse_all_at_once(
                target, leaves, beside, metadata, overwrite=overwrite, check_finite=how.check_finite
            )
            tree, record, spread = _encode(leaves, beside.aliases, beside.absent)
            if beside.left_out:
                record["left_out"] = {print_name(name): what for name, what in beside.left_out.items()}
            if beside.version:
                record["version"] = dict(beside.version)
            if beside.provenance:
                record["provenance"] = dict(beside.provenance)
        for name, known in digests_of_parts(spread).items():
            record["digests"][name] = known.whole
            record.setdefault("blocks", {})[name] = blocks_to_json(known)
        custom = {**(metadata or {}), RECORD: record}
        record["seal"] = seal_of(custom)
        with _workspace(target) as new:
            with together("write it"), _ORBAX, quiet():
                _write_orbax(new, tree, custom, how.compression)
            with together("put it in place"):
                if jax.process_index() == 0:
                    _check_written(new, leaves, beside, seal=record["seal"])
                    check_target(target, overwrite=overwrite)  # again: a long time has passed
                    put_in_place(new, target)


# --- what is refused --------------------------------------------------------------------------------


def _refuse_all_at_once(
    target: Path,
    leaves: Mapping[Name, Any],
    beside: Beside,
    metadata: Mapping[str, Any] | None,
    *,
    overwrite: bool,
    check_finite: bool,
) -> None:
    problems = [
        *problems_of_names(leaves, beside.aliases, beside.absent),
        *problems_of_values(leaves, check_finite=check_finite),
        *_problems_of_metadata({**(metadata or {})}),
        *_problems_of_path(target),
        *_problems_of_suffix(target),
    ]
    try:
        check_target(target, overwrite=overwrite)
    except SaveError as error:
        problems.append(str(error))
    refuse(problems)


def _problems_of_metadata(metadata: Mapping[Any, Any]) -> Iterator[str]:
    if RECORD in metadata:
        yield f"metadata cannot have the key {RECORD!r}: treeload keeps its own record there"
    for what, value in metadata.items():
        try:
            if not isinstance(what, str):
                raise TypeError(f"its key is of type {type(what).__name__}")
            same = json.loads(json.dumps(value, allow_nan=False)) == _lists(value)
        except (TypeError, ValueError, RecursionError) as error:
            yield f"metadata {what!r} cannot be written as JSON: {error}"
            continue
        if not same:
            yield f"metadata {what!r} would not come back from JSON as it is: {value!r}"


def _problems_of_path(target: Path) -> Iterator[str]:
    """Signs that TensorStore takes for another thing than a part of a name."""
    if "\\" in str(target):
        yield f"{str(target)!r}: TensorStore takes a backslash for a slash, and would write elsewhere"
    try:
        str(target).encode()
    except UnicodeEncodeError:
        yield f"{str(target)!r} is no valid text, which TensorStore asks of a path"


def _problems_of_suffix(target: Path) -> Iterator[str]:
    """A name that would be taken for a file of another format."""
    suffix = target.suffix.lower()
    if suffix not in _OF_FILES or is_replaceable(target):
        return
    shown, instead = str(target), str(target.with_suffix(""))
    if suffix == ".safetensors":
        called = str(target.with_suffix(suffix))
        other = f"for a safetensors file, treeload.export({called!r}, tree)"
    else:
        other = f"treeload writes no {suffix} files"
    yield (
        f"{shown!r} is called as a file, and save writes a directory of Orbax, such as {instead!r}; {other}"
    )


_OF_FILES = frozenset(
    (".safetensors", ".msgpack", ".npz", ".npy", ".pt", ".pth", ".h5", ".hdf5", ".keras", ".gguf", ".eqx")
)
"""Endings of files of other formats, which are no directories."""


def _lists(value: Any) -> Any:
    """``value`` with its tuples as the lists that JSON makes of them."""
    if isinstance(value, (list, tuple)):
        return [_lists(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _lists(part) for key, part in value.items()}
    return value


# --- what is written --------------------------------------------------------------------------------


def _encode(
    leaves: Mapping[Name, Any], aliases: Mapping[Name, Name], absent: Mapping[Name, Absent]
) -> tuple[Any, dict[str, Any], dict[str, jax.Array]]:
    """The nested dict for Orbax, the record of what it does not say, and what no process has whole."""
    digests: dict[str, Digest] = {}
    spread: dict[str, jax.Array] = {}
    arrays: dict[str, Any] = {}
    encoded: dict[str, str] = {}
    scalars: dict[str, str] = {}
    empty: dict[str, Any] = {}
    slots: dict[Name, Any] = {}
    for name, value in leaves.items():
        printed = print_name(name)
        if type(value) in (bool, int, float, complex):
            scalars[printed] = type(value).__name__
        array = as_array(name, value)
        if elements(array) == 0:
            empty[printed] = {"shape": list(array.shape), "dtype": str(array.dtype), "impl": _impl(array)}
            continue
        host = on_host(array)
        if host is None:
            spread[printed] = array
        else:
            digests[printed] = digests_of(host, _part(array))
        if not is_key(array.dtype) and array.dtype.name not in STORED:
            if host is None or array.dtype.itemsize != 1:
                raise SaveError(f"{printed!r}: Orbax cannot store {array.dtype}")
            encoded[printed] = array.dtype.name
            array = host.view(np.uint8)
        stored = jax.random.key_data(array) if is_key(array.dtype) else array
        arrays[printed] = Array(stored.dtype.name, stored.shape, _impl(array)).to_json()
        # Plain numbers go as such, so that plain Orbax gives them back as such.
        slots[name] = value if type(value) in (int, float) else array
    for name, marker in absent.items():
        if marker is None:
            slots[name] = None
    record: dict[str, Any] = {
        "format": FORMAT, "digests": {name: known.whole for name, known in digests.items()}, "arrays": arrays,
    }  # fmt: skip
    if not slots:
        slots[Name((_PLACEHOLDER,))] = None
    optional = {
        "aliases": {print_name(alias): print_name(canonical) for alias, canonical in aliases.items()},
        "absent": {print_name(name): marker for name, marker in absent.items()},
        "empty": empty,
        "encoded": encoded,
        "scalars": scalars,
        "blocks": {name: said for name, known in digests.items() if (said := blocks_to_json(known))},
    }
    record.update({key: value for key, value in optional.items() if value})
    return _nest(slots), record, spread


def _impl(array: Any) -> str | None:
    return str(jax.random.key_impl(array)) if is_key(array.dtype) else None


def _part(array: Any) -> tuple[int, ...] | None:
    """The extents of the parts that a leaf lies in: who reads it later is likely to ask for the same."""
    if not isinstance(array, jax.Array) or is_key(array.dtype):
        return None
    return tuple(array.sharding.shard_shape(array.shape))


def _nest(slots: Mapping[Name, Any]) -> Any:
    """The nested dict; that no leaf stands where a subtree should is known by now."""
    if Name() in slots:
        return slots[Name()]
    tree: dict[str, Any] = {}
    for name, value in slots.items():
        node = tree
        for key in name[:-1]:
            node = node.setdefault(key, {})
        node[name[-1]] = value
    return tree


def _write_orbax(new: Path, tree: Any, custom: dict[str, Any], compression: bool) -> None:
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.array.saving.use_compression = compression
    if not compression and takes(_slots(tree)):
        context = all_at_once(context, _ITEM)
    else:
        tree = jax.tree.map(made, tree)  # Orbax's own take what stands there for the values
    with context, _plainly_named(new) as plain:
        ocp.save(plain, tree, custom_metadata=custom)


def _slots(tree: Any) -> Iterator[Any]:
    """What stands in the slots of a nested dict."""
    if isinstance(tree, dict):
        for below in tree.values():
            yield from _slots(below)
    else:
        yield tree


@contextmanager
def _plainly_named(new: Path) -> Iterator[Path]:
    """The same place under a name that Orbax, which looks for files by patterns, takes for no pattern."""
    if not any(sign in str(new) for sign in PATTERN_SIGNS):
        yield new
        return
    descriptor = os.open(new.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        plain = Path(f"/proc/self/fd/{descriptor}")
        if jax.process_count() > 1 or not plain.exists():
            raise SaveError(
                f"Orbax takes one of the signs {PATTERN_SIGNS} in a directory's name for a pattern"
            )
        yield plain / new.name
    finally:
        os.close(descriptor)


def _check_written(new: Path, leaves: Mapping[Name, Any], beside: Beside, *, seal: str) -> None:
    """Raises SaveError unless what was written, once it is sealed, can be opened and holds what it should.

    Whatever a backend does wrong, the old checkpoint is there as long as the new one is none.
    """
    from treeload._formats.orbax.source import OrbaxSource  # it is imported only when something is read

    try:
        _mark_tree(new, seal)
        found = OrbaxSource(new).specs()
    except SourceError as error:
        raise SaveError(f"what was written cannot be read: {error}") from error
    expected = {name: as_array(name, value) for name, value in leaves.items()}
    expected |= {alias: expected[name] for alias, name in beside.aliases.items()}
    wrong = sorted(
        print_name(name)
        for name in expected.keys() | found.keys()
        if name not in found
        or name not in expected
        or (found[name].shape, found[name].dtype) != (expected[name].shape, expected[name].dtype)
    )
    if wrong:
        raise SaveError(f"what was written is not what was to be: {', '.join(map(repr, wrong[:5]))}")


def _mark_tree(new: Path, seal: str) -> None:
    """Notes with the tree which record belongs to it; Orbax keeps a place for that in its metadata."""
    tree = locate(new, None).tree
    assert isinstance(tree, Path)  # as the new one is
    file = tree / TREE_FILE
    described = read_json(file, new, allow_nan=True)
    described["custom_metadata"] = {**(described.get("custom_metadata") or {}), **mark_of(seal)}
    file.write_text(json.dumps(described))


# --- several processes, failures --------------------------------------------------------------------


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """Where all processes write together; the first one makes it and clears it away."""
    with ExitStack() as made:
        new: Path | None = None
        with together("make a place to write to"):
            if jax.process_index() == 0:
                make_directories(target.parent)
                new = made.enter_context(workspace(target))
        name = told_by_first((new.parent.name if new else "").encode().ljust(NAME_LENGTH))
        new = replace.beside(target) / name.decode() / "new"
        with together("write there"):
            _try_to_write(new.parent)
        yield new


def _try_to_write(folder: Path) -> None:
    """Raises OSError where this process cannot, as on a file system that it does not see, or only reads.

    Asked before Orbax writes: its processes wait for each other, and for one that has failed for minutes.
    """
    probe = folder / f"process_{jax.process_index()}"
    probe.write_bytes(b"\0" * 4096)
    probe.unlink()


@contextmanager
def _failures_as_save_error(target: str | Path) -> Iterator[None]:
    try:
        with as_source_error(f"cannot save to {str(target)!r}"):
            yield
    except SourceError as error:
        raise SaveError(str(error)) from error.__cause__
