"""Which arrays of a store are one chunk that is read without TensorStore, and what its index may say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import SourceError
from treeload._formats.orbax import btree as _btree
from treeload._formats.orbax import source as _source
from treeload._formats.orbax.btree import Extent, _extent, read_btree
from treeload._formats.orbax.direct import Chunk, only_chunk
from treeload._formats.orbax.source import OrbaxSource
from treeload._naming.name import Name

SPEC = jax.ShapeDtypeStruct((2, 3), np.float32)
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
ZARR3: dict[str, Any] = {
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}},
    "chunk_key_encoding": {"name": "default"},
    "codecs": [LITTLE],
    "data_type": "float32",
    "shape": [2, 3],
}
SHARD: dict[str, Any] = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [2, 3],
        "codecs": [LITTLE, {"name": "zstd", "configuration": {"level": 3}}],
        "index_codecs": [LITTLE, {"name": "crc32c"}],
    },
}
ZARR2: dict[str, Any] = {
    "chunks": [2, 3], "compressor": None, "dimension_separator": ".", "dtype": "<f4", "fill_value": None,
    "filters": None, "order": "C", "shape": [2, 3],
}  # fmt: skip


def changed(header: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The header with another value at a path such as ``codecs.0.name``."""
    header = copy.deepcopy(header)
    node: Any = header
    *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    for key in parents:
        node = node[key]
    node[last] = value
    return header


def test_an_array_that_is_one_chunk() -> None:
    assert only_chunk(ZARR3, SPEC, True) == Chunk("c/0/0", False, 0)
    assert only_chunk({**ZARR3, "codecs": [SHARD]}, SPEC, True) == Chunk("c/0/0", True, 20)
    assert only_chunk(ZARR2, SPEC, False) == Chunk("0.0", False, 0)
    assert only_chunk({**ZARR2, "compressor": {"id": "zstd"}}, SPEC, False) == Chunk("0.0", True, 0)
    assert only_chunk({**ZARR2, "dimension_separator": "/"}, SPEC, False) == Chunk("0/0", False, 0)
    scalar = changed({**ZARR3, "shape": []}, "chunk_grid.configuration.chunk_shape", [])
    assert only_chunk(scalar, jax.ShapeDtypeStruct((), np.float32), True) == Chunk("c", False, 0)
    assert only_chunk(
        {**ZARR2, "chunks": [], "shape": []}, jax.ShapeDtypeStruct((), np.float32), False
    ) == Chunk("0", False, 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("chunk_grid.name", "rectilinear"),
        ("chunk_grid.configuration.chunk_shape", [1, 3]),
        ("chunk_key_encoding.name", "v2"),
        ("chunk_key_encoding", None),
        ("codecs", []),
        ("codecs", [changed(LITTLE, "configuration.endian", "big")]),
        ("codecs", [{"name": "transpose", "configuration": {"order": [1, 0]}}, LITTLE]),
        ("codecs", [LITTLE, {"name": "gzip"}]),
        ("codecs", [LITTLE, {"name": "crc32c"}]),
        ("codecs", [SHARD, {"name": "crc32c"}]),
        ("codecs", [changed(SHARD, "configuration.chunk_shape", [1, 3])]),
        ("codecs", [changed(SHARD, "configuration.index_codecs", [LITTLE])]),
        ("codecs", [changed(SHARD, "configuration.index_location", "start")]),
        ("codecs", [changed(SHARD, "configuration.codecs", [SHARD])]),
        ("storage_transformers", [{"name": "new"}]),
    ],
)
def test_what_lies_otherwise_is_left_to_tensorstore(path: str, value: Any) -> None:
    assert only_chunk(changed(ZARR3, path, value), SPEC, True) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chunks", [2, 1]), ("order", "F"), ("filters", [{"id": "delta"}]), ("dtype", ">f4"),
        ("dtype", [["a", "<f4"]]), ("compressor", {"id": "blosc"}),
    ],
)  # fmt: skip
def test_so_is_what_lies_otherwise_in_zarr_2(key: str, value: Any) -> None:
    assert only_chunk({**ZARR2, key: value}, SPEC, False) is None


# --- the index ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    ["value:a:b:1", "value:a:b:1:2:3", "node:a:b:1:2", "value:a:b:-1:2", "value:a:b:1:-2", "value:a:b:x:2"],
)
def test_an_index_that_says_no_place_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"index|unpack|invalid literal"):
        _extent(said)


def test_places_are_said_with_their_signs_escaped() -> None:
    assert _extent("value:a%3Ab/:d/x%20y:3:4") == Extent("a:b/d/x y", 3, 4)


class Dumps:
    """TensorStore's reading of nodes, which gives these."""

    def __init__(self, root: Any, nodes: dict[str, Any]) -> None:
        self.root, self.nodes = root, nodes

    def __call__(self, base: Any, node: str | None = None) -> Any:
        found = {"versions": [self.root]} if node is None else self.nodes[node]

        class Future:
            def result(self) -> Any:
                return found

        return Future()


def leaf(*keys: bytes) -> dict[str, Any]:
    return {"height": 0, "entries": [{"key": key, "inline_value": b"v" + key} for key in keys]}


def inner(height: int, **below: str) -> dict[str, Any]:
    entries = [
        {"key": prefix.encode(), "subtree_common_prefix": prefix.encode(), "location": where}
        for prefix, where in below.items()
    ]
    return {"height": height, "entries": entries}


@pytest.fixture
def dumped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def dump(root: Any, **nodes: Any) -> dict[bytes, Any]:
        monkeypatch.setattr(_btree.ts.ocdbt, "dump", Dumps(root, nodes))
        return read_btree(tmp_path, 100)

    return dump


def test_keys_below_inner_nodes_begin_with_what_these_share(dumped: Any) -> None:
    root = {"root": {"location": "r", "statistics": {"num_keys": 3}}, "root_height": 2}
    found = dumped(
        root, r=inner(2, a="m", b="n"), m=inner(1, x="p"), n=inner(1, y="q"), p=leaf(b"1"), q=leaf(b"", b"2")
    )
    assert found == {b"ax1": b"v1", b"by": b"v", b"by2": b"v2"}


def test_an_index_of_very_many_keys_is_not_read(dumped: Any) -> None:
    root = {"root": {"location": "r", "statistics": {"num_keys": 101}}, "root_height": 0}
    assert dumped(root, r=leaf(b"a")) == {}


def test_a_store_without_keys(dumped: Any) -> None:
    assert dumped({"root": {"statistics": {}}, "root_height": 0}) == {}


@pytest.mark.parametrize("height", [-1, 17, 10**9])
def test_an_index_of_an_absurd_height_is_refused(dumped: Any, height: int) -> None:
    with pytest.raises(ValueError, match="circles"):
        dumped({"root": {"location": "r", "statistics": {"num_keys": 3}}, "root_height": height}, r=leaf())


def test_an_index_that_goes_round_in_circles_is_refused(dumped: Any) -> None:
    root = {"root": {"location": "r", "statistics": {"num_keys": 3}}, "root_height": 2}
    with pytest.raises(ValueError, match="circles"):
        dumped(root, r=inner(2, a="m", b="m"), m=inner(1, a="p"), p=leaf(b"x"))
    with pytest.raises(ValueError, match="no tree"):
        dumped(root, r=inner(2, a="m"), m=inner(2, a="r"))


# --- what it says is not believed --------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    treeload.save(tmp_path / "x", {"w": np.arange(1000, dtype=np.float32)})
    (tmp_path / "secret").write_bytes(bytes(4096))
    return tmp_path / "x"


@pytest.mark.parametrize("path", ["../../secret", "{outside}", "d/../../../secret", "link"])
def test_no_file_outside_of_the_checkpoint_is_opened(
    saved: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    secret = saved.parent / "secret"
    source = OrbaxSource(saved)
    specs = source.specs()
    if path == "link":
        (saved / "state" / "link").symlink_to(secret)
    place = Extent(path.format(outside=secret), 0, 4020)
    monkeypatch.setattr(source, "_values", dict.fromkeys(source._values, place))
    with pytest.raises(SourceError, match=r"leads out|changed while it was read"):
        list(source.read(specs))


def test_a_place_behind_the_end_of_its_file_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = OrbaxSource(saved)
    specs = source.specs()
    key, place = next((key, value) for key, value in source._values.items() if isinstance(value, Extent))
    monkeypatch.setattr(source, "_values", {key: Extent(place.path, place.offset + 30_000, place.length)})
    with pytest.raises(SourceError, match="ends before w does"):
        list(source.read(specs))


@pytest.mark.parametrize("length", [0, 20, 4019, 4021])
def test_what_cannot_be_all_of_an_array_is_left_to_tensorstore(
    saved: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    source = OrbaxSource(saved)
    specs = source.specs()
    key, place = next((key, value) for key, value in source._values.items() if isinstance(value, Extent))
    assert place.length == 4020
    monkeypatch.setattr(source, "_values", {key: Extent(place.path, place.offset, length)})
    ((name, array),) = source.read(specs)
    assert name == Name(("w",)) and array.tolist() == list(range(1000))


def test_headers_that_do_not_lie_in_the_index_are_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = read_btree(saved / "state", 100)
    elsewhere = {
        key: Extent("gone", 0, 9) if key.endswith(b"zarr.json") else value for key, value in values.items()
    }
    monkeypatch.setattr(_source, "read_btree", lambda tree, most: elsewhere)
    assert dict(OrbaxSource(saved).specs())[Name(("w",))].shape == (1000,)
