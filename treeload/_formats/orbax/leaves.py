"""The leaves of a save, written all at once: what Orbax asks of a handler for leaves, and hands them to.

Orbax makes the directory, completes it, writes the metadata of the tree and merges; its own handlers open
each array by itself, which takes a millisecond. Ours put the arrays into the same store, as the same keys and
bytes, in few transactions. Owns that, and the two files beside it that Orbax's handler of ``jax.Array``
writes: so whoever reads Orbax's checkpoints reads this one. Takes arrays that lie whole on one device or on
the host, in a job of one process; all others are left to Orbax's own.

On disk: zarr 3 with one shard of one chunk (https://zarr-specs.readthedocs.io, "Sharding codec") in an OCDBT
store. Orbax's interface: https://orbax.readthedocs.io, "Custom Leaf Handler".
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from treeload._formats.orbax.direct import prefix_of, shard_index
from treeload._formats.orbax.later import Later, made
from treeload._formats.orbax.storable import on_host
from treeload._leaves.spec import is_key

_PLAIN = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64 complex64 "
    "complex128".split()
)
"""Types whose bytes in an array are those in a store."""


_REFERRED = 1 << 20  # bytes from which on an array is not copied on its way


_TOGETHER = 512 << 20  # bytes of one transaction, which holds copies of the smaller arrays


_MADE = 64 << 20  # bytes of arrays that are made for it, which is what they are held by


_DATA_FILE = 2 << 30  # bytes, as Orbax has it


def takes(values: Iterable[Any]) -> bool:
    """Whether all of these can be written here: else Orbax's own handlers write them."""
    return jax.process_count() == 1 and all(map(_takes, values))


def _takes(value: Any) -> bool:
    if value is None or type(value) in (int, float):
        return True
    if not isinstance(value, jax.Array):
        return isinstance(value, np.ndarray) and value.dtype.name in _PLAIN
    is_whole = isinstance(value.sharding, jax.sharding.SingleDeviceSharding)
    return is_whole and (is_key(value.dtype) or value.dtype.name in _PLAIN)


def all_at_once(context: Any, item: str) -> Any:
    """Orbax's context, in which the tree called ``item`` is saved by these handlers."""
    from orbax.checkpoint import v1 as ocp

    registry = ocp.handlers.local_registry(include_global_registry=False)
    registry.add(_tree_handler(ocp.handlers.PyTreeHandler), checkpointable_name=item)
    context.checkpointables.registry = registry
    return context


@functools.cache
def _tree_handler(theirs: Any) -> Any:
    """Orbax's handler of trees, with our handlers of leaves."""

    def begin(self: Any) -> None:
        theirs.__init__(self, leaf_handler_registry=_Handlers())

    # It is recorded by what a tree is to be read: by Orbax's own.
    own = {"__init__": begin, "__module__": theirs.__module__, "__qualname__": theirs.__qualname__}
    return type(theirs.__name__, (theirs,), own)


class _Handlers:
    """Which handler takes leaves of a type (Orbax's ``LeafHandlerRegistry``)."""

    def get_all(self) -> list[tuple[Any, Any, Any]]:
        return [(kind, abstract, handler) for kind, abstract, handler, _ in _HANDLERS]

    def get(self, leaf_type: type) -> Any:
        return next(handler for kind, _, handler, _ in _HANDLERS if issubclass(leaf_type, kind))

    def get_abstract(self, abstract_type: type) -> Any:
        raise NotImplementedError  # for reading

    def is_handleable(self, leaf_type: type) -> bool:
        return any(issubclass(leaf_type, kind) for kind, _, _, _ in _HANDLERS)

    def is_abstract_handleable(self, abstract_type: type) -> bool:
        return False

    def get_secondary_typestrs(self, handler_type: Any) -> list[str]:
        return next([said] for _, _, handler, said in _HANDLERS if handler is handler_type)

    def add(self, *args: Any, **options: Any) -> None:
        raise NotImplementedError


class _Leaves:
    """Writes all leaves of one kind (Orbax's ``LeafHandler``)."""

    def __init__(self, *, context: Any = None) -> None:
        pass

    async def serialize(self, params: Sequence[Any], context: Any) -> Awaitable[None]:
        leaves = {param.name: param.value for param in params}

        async def write() -> None:
            directory = Path(str(await context.parent_dir.await_creation()))
            await asyncio.to_thread(self._write, directory, leaves, context.ts_context)

        return write()

    def _write(self, directory: Path, leaves: Mapping[str, Any], context: Any) -> None:
        store = str(directory / f"ocdbt.process_{jax.process_index()}")
        write_arrays(store, leaves, context or ts.Context())

    async def deserialize(self, params: Sequence[Any], context: Any) -> Any:
        raise NotImplementedError

    async def metadata(self, params: Sequence[Any], context: Any) -> Any:
        raise NotImplementedError


class _Arrays(_Leaves):
    """Of ``jax.Array``, with what Orbax notes of those beside them."""

    def _write(self, directory: Path, leaves: Mapping[str, Any], context: Any) -> None:
        super()._write(directory, leaves, context)
        described, places = [], {}
        for name, array in leaves.items():
            impl = {"random_key_impl": str(jax.random.key_impl(array))} if is_key(array.dtype) else None
            shape = list(jax.eval_shape(jax.random.key_data, array).shape if impl else array.shape)
            said = {"param_name": name, "write_shape": shape, "chunk_shape": shape, "ext_metadata": impl}
            described.append({"array_metadata": said})
            places[base64.b64encode(name.encode()).decode()] = _place(array.sharding)
        (directory / "array_metadatas").mkdir(exist_ok=True)
        file = directory / "array_metadatas" / f"process_{jax.process_index()}"
        file.write_text(json.dumps({"array_metadatas": described}))
        (directory / "_sharding").write_text(json.dumps(places, separators=(",", ":")))


class _Hosts(_Leaves):
    """Of NumPy's arrays."""


class _Numbers(_Leaves):
    """Of Python's numbers."""


_HANDLERS: tuple[tuple[type, type, type[_Leaves], str], ...] = (
    (jax.Array, jax.ShapeDtypeStruct, _Arrays, "jax.Array"),
    (np.ndarray, np.ndarray, _Hosts, "np.ndarray"),
    (int, int, _Numbers, "scalar"),
    (float, float, _Numbers, "scalar"),
)


def _place(sharding: Any) -> str:
    (device,) = sharding.device_set
    return _place_of(str(device))


@functools.cache
def _place_of(device: str) -> str:
    return json.dumps({"sharding_type": "SingleDeviceSharding", "device_str": device})


# --- one store ---------------------------------------------------------------------------------------


def write_arrays(store: str, leaves: Mapping[str, Any], context: Any) -> None:
    """Nothing; each leaf is an array in the store in the directory ``store`` afterwards, all of them or none.

    Raises:
        ValueError: TensorStore's, of a disk that is full and the like.
    """
    arrays: list[tuple[str, np.ndarray[Any, Any]]] = []
    size = 0
    for name, leaf in leaves.items():
        arrays.append((name, _host(leaf)))
        size += arrays[-1][1].nbytes * (_TOGETHER // _MADE if isinstance(leaf, Later) else 1)
        if size >= _TOGETHER:
            _write(arrays, store, context)
            arrays, size = [], 0
    if arrays or not leaves:
        _write(arrays, store, context)


def _host(leaf: Any) -> np.ndarray[Any, Any]:
    """As it goes into the store: of typed keys their data, of a number what NumPy makes of it."""
    if isinstance(leaf, jax.Array):
        found = on_host(leaf)
        assert found is not None  # it is on one device
        return np.ascontiguousarray(found).reshape(found.shape)
    array = np.asarray(made(leaf))
    return np.ascontiguousarray(array).reshape(array.shape)  # that one makes an axis where there is none


def _write(arrays: Sequence[tuple[str, np.ndarray[Any, Any]]], store: str, context: Any) -> None:
    transaction = ts.Transaction(atomic=True)
    keys = ts.KvStore.open(_ocdbt(store), context=context).result().with_transaction(transaction)
    written: list[Any] = []
    for name, array in arrays:
        prefix, header = prefix_of(name), _header(array.dtype.name, array.shape)
        if array.nbytes < _REFERRED:
            chunk = b"".join((array.reshape(-1).view(np.uint8).data, shard_index(array.nbytes)))
            written += [
                keys.write(prefix + "zarr.json", header),
                keys.write(prefix + "c" + "/0" * array.ndim, chunk),
            ]
            continue
        kvstore = {**_ocdbt(store), "path": prefix}
        spec = {
            "driver": "zarr3", "kvstore": kvstore, "metadata": json.loads(header),
            "store_data_equal_to_fill_value": True,  # or zeros would be none at all
        }  # fmt: skip
        opened = ts.open(spec, create=True, open=True, context=context, transaction=transaction).result()
        written.append(opened.write(array, can_reference_source_data_indefinitely=True))
    for each in written:
        each.result()
    transaction.commit_async().result()


def _ocdbt(store: str) -> dict[str, Any]:
    """As Orbax opens it: small values in the index, no file locked, as nobody else writes there."""
    return {
        "driver": "ocdbt",
        "base": {"driver": "file", "path": f"{store}/", "file_io_locking": {"mode": "non_atomic"}},
        "manifest": {"driver": "file", "path": f"{store}/"},
        "assume_config": True,
        "config": {
            "max_inline_value_bytes": 1024, "max_decoded_node_bytes": 100_000_000, "manifest_kind": "single",
        },
        "target_data_file_size": _DATA_FILE,
        "cache_pool": "cache_pool#ocdbt",
    }  # fmt: skip


@functools.lru_cache(65536)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    header = json.loads(_header_of(dtype))
    sizes = list(shape)
    header["shape"] = sizes
    header["chunk_grid"]["configuration"]["chunk_shape"] = sizes
    header["codecs"][0]["configuration"]["chunk_shape"] = sizes
    return json.dumps(header, separators=(",", ":"), sort_keys=True).encode()


@functools.cache
def _header_of(dtype: str) -> bytes:
    """TensorStore's own header of an array of one element."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    shard = {
        "chunk_shape": [1], "codecs": [little], "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }  # fmt: skip
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "memory", "path": "x/"},
        "metadata": {
            "shape": [1],
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
            "codecs": [{"name": "sharding_indexed", "configuration": shard}],
        },
    }
    keys = ts.open(spec, create=True).result().kvstore
    assert keys is not None  # an array of zarr has one
    found: bytes = keys.read("zarr.json").result().value
    return found
