"""Named leaves -> an Orbax checkpoint, complete or not there at all.

Owns what is written and how it takes its place. The leaves come from ``_trees``; ``_formats.orbax`` reads
them back. The tree itself is plain Orbax, so that ``ocp.load`` reads it without treeload; what Orbax cannot
hold (ties, absences, empty arrays, dtypes it does not know, digests) is in the record.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from treeload._errors import SaveError, SourceError
from treeload._files import replace as _exchange
from treeload._files.digests import Digest, blocks_to_json, digests_of
from treeload._formats.orbax.layout import CHECKPOINT_FILE, TREE_FILE, locate, read_json
from treeload._formats.orbax.record import FORMAT, RECORD, Array, mark_of, seal_of
from treeload._leaves.spec import elements, is_key, is_numeric
from treeload._naming.name import Name, print_name
from treeload._sources.provenance import Provenance
from treeload._sources.source import Absent, as_source_error
from treeload._sources.stamp import Stamp

_PLACEHOLDER = "treeload: no arrays"
"""The one slot, None, of a tree without arrays: Orbax refuses a tree without slots."""


# What TensorStore can store under its own name. Other one-byte types go as uint8, with a record.
_STORED = frozenset(
    "bool int2 int4 int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64 "
    "complex64 complex128 float4_e2m1fn float8_e3m4 float8_e4m3fn float8_e4m3fnuz float8_e4m3b11fnuz "
    "float8_e5m2 float8_e5m2fnuz float8_e8m0fnu".split()
)


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


def write(
    path: str | Path,
    leaves: Mapping[Name, Any],
    *,
    beside: Beside = Beside(),  # it never changes
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    compression: bool = False,
) -> None:
    """Nothing; afterwards ``path`` is a complete Orbax checkpoint of ``leaves``, or is as it was.

    In a job of several processes all of them call this, with one path on a file system that all see.

    Raises:
        SaveError: a name, value or metadata that cannot be stored, a path that exists (or, with
            ``overwrite``, is not a checkpoint and nothing else), or a file system that refuses.
    """
    target = Path(os.path.realpath(os.path.expanduser(path)))
    _check_names(leaves, beside.aliases, beside.absent)
    tree, record = _encode(leaves, beside.aliases, beside.absent)
    if beside.left_out:
        record["left_out"] = {print_name(name): what for name, what in beside.left_out.items()}
    if beside.version:
        record["version"] = dict(beside.version)
    if beside.provenance:
        record["provenance"] = dict(beside.provenance)
    custom = _check_metadata(metadata, record)
    first = jax.process_index() == 0
    with _failures_as_save_error(target):
        _check_target(target, overwrite)
        if first:
            target.parent.mkdir(parents=True, exist_ok=True)
        with _workspace(target, first) as new:
            with _quiet_orbax():
                _write_orbax(new, tree, custom, compression)
            _meet("written")
            if first:
                _mark_tree(new, custom[RECORD]["seal"])
                _check_target(target, overwrite)  # again: a long time has passed
                _exchange.put_in_place(new, target)
            _meet("placed")


# --- what is refused --------------------------------------------------------------------------------


def _check_names(
    leaves: Mapping[Name, Any], aliases: Mapping[Name, Name], absent: Mapping[Name, Absent]
) -> None:
    stored: dict[str, Name] = {}
    for name in leaves:
        joined = ".".join(name)
        if joined in stored:
            raise SaveError(
                f"{print_name(stored[joined])!r} and {print_name(name)!r} cannot be in one checkpoint: "
                f"Orbax joins keys with '.' and would store both as {joined!r}; rename one"
            )
        stored[joined] = name
    for name in (*leaves, *aliases, *absent):
        try:
            ".".join(name).encode()
        except UnicodeEncodeError as error:
            raise SaveError(f"{print_name(name)!r} is no valid text: {error.reason}") from error
    for alias, canonical in aliases.items():
        if canonical not in leaves or alias in leaves:
            raise SaveError(f"{print_name(alias)!r} cannot be an alias of {print_name(canonical)!r}")
    for name in absent:
        if name in leaves or name in aliases:
            raise SaveError(f"{print_name(name)!r} is both a leaf and absent")


def _check_metadata(metadata: Mapping[str, Any] | None, record: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(metadata or {})
    if RECORD in metadata:
        raise SaveError(f"metadata cannot have the key {RECORD!r}: treeload keeps its own record there")
    custom = {**metadata, RECORD: record}
    for what, value in metadata.items():
        try:
            if not isinstance(what, str):
                raise TypeError(f"its key is of type {type(what).__name__}")
            same = json.loads(json.dumps(value, allow_nan=False)) == _lists(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise SaveError(f"metadata {what!r} cannot be written as JSON: {error}") from error
        if not same:
            raise SaveError(f"metadata {what!r} would not come back from JSON as it is: {value!r}")
    record["seal"] = seal_of(custom)
    return custom


def _lists(value: Any) -> Any:
    """``value`` with its tuples as the lists that JSON makes of them."""
    if isinstance(value, (list, tuple)):
        return [_lists(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _lists(part) for key, part in value.items()}
    return value


_OWN_FILES = frozenset(
    "_CHECKPOINT_METADATA _METADATA _sharding _strings.json _PYTREE_PROCESS_METADATA manifest.ocdbt d "
    "array_metadatas commit_success.txt orbax.checkpoint descriptor metadata metrics checkpoint".split()
)


def _check_target(target: Path, overwrite: bool) -> None:
    """Raises SaveError unless ``target`` is free, or is a checkpoint that may be replaced."""
    target = _exchange.finish_dead_save(target)
    if not os.path.lexists(target):
        return
    marks = (target / CHECKPOINT_FILE, target / TREE_FILE)
    if not any(mark.is_file() for mark in marks):
        raise SaveError(f"{str(target)!r} exists and is no Orbax checkpoint: it is never replaced")
    if not overwrite:
        raise SaveError(f"{str(target)!r} exists: pass overwrite=True to replace that checkpoint")
    for entry in sorted(os.scandir(target), key=lambda entry: entry.name):
        if entry.name not in _OWN_FILES and not _belongs(entry, target):
            raise SaveError(
                f"{entry.path!r} is no part of the checkpoint that it lies in and would be lost: move it away"
            )


def _belongs(entry: os.DirEntry[str], target: Path) -> bool:
    """Whether a directory in a checkpoint is one of its items, arrays, or stores."""
    if not entry.is_dir(follow_symlinks=False):
        return False
    if entry.name.startswith("ocdbt.process_") or (target / TREE_FILE).is_file():
        return True  # without OCDBT a tree has a directory an array, under any name
    if os.path.isfile(os.path.join(entry.path, TREE_FILE)):
        return True
    try:
        handlers = read_json(target / CHECKPOINT_FILE, target, allow_nan=True).get("item_handlers")
    except SourceError:
        return False
    return isinstance(handlers, dict) and entry.name in handlers


# --- what is written --------------------------------------------------------------------------------


def _encode(
    leaves: Mapping[Name, Any], aliases: Mapping[Name, Name], absent: Mapping[Name, Absent]
) -> tuple[Any, dict[str, Any]]:
    """The nested dict for Orbax, and the record of what it does not say."""
    digests: dict[str, Digest] = {}
    arrays: dict[str, Any] = {}
    encoded: dict[str, str] = {}
    scalars: dict[str, str] = {}
    empty: dict[str, Any] = {}
    slots: dict[Name, Any] = {}
    for name, value in leaves.items():
        printed = print_name(name)
        if type(value) in (bool, int, float, complex):
            scalars[printed] = type(value).__name__
        array = _as_array(name, value)
        if elements(array) == 0:
            empty[printed] = {"shape": list(array.shape), "dtype": str(array.dtype), "impl": _impl(array)}
            continue
        host = _on_host(array)
        if host is not None:
            digests[printed] = digests_of(host, _part(array))
        if not is_key(array.dtype) and array.dtype.name not in _STORED:
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
    return _nest(slots), record


def _as_array(name: Name, value: Any) -> Any:
    """``value`` as a jax.Array or as a NumPy array of this machine's byte order."""
    if isinstance(value, jax.Array):
        return value
    try:
        array = np.asarray(value, np.int64) if type(value) is int else np.asarray(value)
    except OverflowError as error:
        raise SaveError(f"{print_name(name)!r}: {value} does not fit into 64 bits") from error
    if not is_numeric(array.dtype) or isinstance(value, (str, bytes)):
        raise SaveError(f"{print_name(name)!r} is no array and no number, but {type(value).__name__}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _impl(array: Any) -> str | None:
    return str(jax.random.key_impl(array)) if is_key(array.dtype) else None


def _on_host(array: Any) -> np.ndarray[Any, Any] | None:
    """The whole array on the host, typed keys as their data; None where other processes hold parts."""
    if isinstance(array, np.ndarray):
        return array
    if is_key(array.dtype):
        array = jax.random.key_data(array)
    if array.is_fully_replicated:
        # Not np.asarray(array): that would keep the copy alive as long as the array.
        return np.asarray(array.addressable_data(0))
    if not array.is_fully_addressable:
        return None
    host = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            host[shard.index] = np.asarray(shard.data)
    return host


def _part(array: Any) -> tuple[int, ...] | None:
    """The extents of the parts that a leaf lies in: who reads it later is likely to ask for the same."""
    if not isinstance(array, jax.Array) or is_key(array.dtype):
        return None
    return tuple(array.sharding.shard_shape(array.shape))


def _nest(slots: Mapping[Name, Any]) -> Any:
    if Name() in slots:
        if len(slots) > 1:
            raise SaveError("a tree that is one leaf has no other leaves")
        return slots[Name()]
    tree: dict[str, Any] = {}
    for name, value in slots.items():
        node = tree
        for key in name[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise SaveError(f"{print_name(name)!r}: there is a leaf where its subtree should be")
        if name[-1] in node:
            raise SaveError(f"{print_name(name)!r} is a leaf and a subtree")
        node[name[-1]] = value
    return tree


def _write_orbax(new: Path, tree: Any, custom: dict[str, Any], compression: bool) -> None:
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.array.saving.use_compression = compression
    with context:
        ocp.save(new, tree, custom_metadata=custom)


def _mark_tree(new: Path, seal: str) -> None:
    """Notes with the tree which record belongs to it; Orbax keeps a place for that in its metadata."""
    file = locate(new, None).tree / TREE_FILE
    described = read_json(file, new, allow_nan=True)
    described["custom_metadata"] = {**(described.get("custom_metadata") or {}), **mark_of(seal)}
    file.write_text(json.dumps(described))


# --- several processes, failures --------------------------------------------------------------------


@contextmanager
def _workspace(target: Path, first: bool) -> Iterator[Path]:
    """Where all processes write together; the first one makes it and clears it away."""
    if not first:
        _meet("ready")
        yield _exchange.beside(target) / "new"
        return
    with _exchange.workspace(target) as new:
        _meet("ready")
        yield new


def _meet(point: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"treeload.save {point}")


@contextmanager
def _failures_as_save_error(target: Path) -> Iterator[None]:
    try:
        with as_source_error(f"cannot save to {str(target)!r}"):
            yield
    except SourceError as error:
        raise SaveError(str(error)) from error.__cause__


@contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Orbax's threads log a failure with its traceback, each of them; we raise it, once."""
    logger = logging.getLogger("absl")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
