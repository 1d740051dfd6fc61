"""An Orbax checkpoint is read in two ways of ours that give the same: as it lies, or by TensorStore."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import v1 as ocp

import treeload
from treeload._files.crc32c import crc32c
from treeload._formats.orbax import source as _source
from treeload._formats.orbax import ways as _ways
from treeload._formats.orbax.btree import read_btree
from treeload._formats.orbax.direct import INDEX, shard_index
from treeload._formats.orbax.source import OrbaxSource

_spec = importlib.util.spec_from_file_location("orbax_writers", Path(__file__).with_name("orbax_writers.py"))
assert _spec is not None and _spec.loader is not None
writers = importlib.util.module_from_spec(_spec)
sys.modules["orbax_writers"] = writers
_spec.loader.exec_module(writers)

RNG = np.random.default_rng(0)
TREE: dict[str, Any] = {
    "large": RNG.random((300, 70), np.float32),
    "small": np.arange(5, dtype=np.int16),
    "scalar": np.array(2.5, np.float32),
    "zeros": np.zeros((64, 64), np.float32),
    "flags": np.array([True, False, True]),
    "half": RNG.random((40, 3)).astype(ml_dtypes.bfloat16),
    "deep": [{"w": RNG.random((2, 3, 4)), "n": 7} for _ in range(3)],
    "complex": np.array([1 + 2j, 3], np.complex64),
    "none": None,
}


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    source = OrbaxSource(path)
    return {str(name): np.asarray(array) for name, array in source.read(source.specs())}


def by_tensorstore(path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray[Any, Any]]:
    with monkeypatch.context() as patched:
        patched.setattr(_source, "only_chunk", lambda *args: None)
        return read(path)


def same(one: dict[str, np.ndarray[Any, Any]], other: dict[str, np.ndarray[Any, Any]]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and one[key].tobytes() == other[key].tobytes() for key in one
    )


def ways(path: Path) -> dict[str, int]:
    source = OrbaxSource(path)
    found = source._ways(source.specs())
    return {"plain": len(found.plain), "frames": len(found.frames), "others": len(found.others)}


@pytest.mark.parametrize("writer", writers.ORBAX, ids=lambda writer: str(writer.__name__))
def test_both_ways_give_what_was_written(
    writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = writer(tmp_path, TREE)
    found = read(path)
    assert same(found, by_tensorstore(path, monkeypatch))
    assert found["large"].tobytes() == TREE["large"].tobytes()
    assert found["deep/2/w"].tobytes() == TREE["deep"][2]["w"].tobytes()


@pytest.mark.parametrize("compression", [False, True])
def test_both_ways_give_what_treeload_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: bool
) -> None:
    tree = {**TREE, "key": jax.random.key(3), "small float": np.ones(3, ml_dtypes.float8_e4m3fn)}
    treeload.save(tmp_path / "x", tree, compression=compression)
    found = ways(tmp_path / "x")
    assert found["frames"] > 2
    assert found["others"] == 1  # the typed key
    assert found["plain"] == 0 if compression else found["plain"] > 1
    loaded = treeload.load(tree, tmp_path / "x")
    assert jax.random.key_data(loaded["key"]).tolist() == jax.random.key_data(tree["key"]).tolist()
    with monkeypatch.context() as patched:
        patched.setattr(_source, "only_chunk", lambda *args: None)
        others = treeload.load(tree, tmp_path / "x")
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(others), strict=True):
        if jax.dtypes.issubdtype(getattr(one, "dtype", np.float32), jax.dtypes.prng_key):
            continue
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("writer", [writers.v1, writers.v0_pytree, writers.v0_zarr3])
def test_what_orbax_writes_by_default_is_read_without_tensorstore(writer: Any, tmp_path: Path) -> None:
    path = writer(tmp_path, TREE)
    assert ways(path)["others"] == 0


def test_what_lies_in_several_chunks_is_read_through_tensorstore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("a", "b"))
    spread = jax.device_put(TREE["large"], NamedSharding(mesh, P("a", "b")))
    path = writers.v1(tmp_path, {"spread": spread, "alone": jnp.asarray(TREE["large"])})
    assert ways(path)["others"] == 1
    found = read(path)
    assert same(found, by_tensorstore(path, monkeypatch))
    assert found["spread"].tobytes() == found["alone"].tobytes() == TREE["large"].tobytes()


@pytest.mark.parametrize("save", [treeload.save, lambda path, tree: writers.v1(path.parent, tree)])
def test_a_device_reads_its_part_either_way(
    save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "v1", {"w": TREE["large"][:, :64]})
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("a", "b"))
    for spec in (P("a"), P(None, "b"), P("b", None), P("a", "b"), P(None, ("a", "b"))):
        wanted = jax.ShapeDtypeStruct((300, 64), np.float32, sharding=NamedSharding(mesh, spec))
        loaded = treeload.load({"w": wanted}, tmp_path / "v1")["w"]
        assert loaded.sharding == wanted.sharding
        assert np.asarray(loaded).tobytes() == np.ascontiguousarray(TREE["large"][:, :64]).tobytes()


def test_without_zstandard_tensorstore_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = writers.v1(tmp_path, TREE)
    found = read(path)
    monkeypatch.setattr(_ways, "CAN_UNPACK", False)
    assert ways(path)["frames"] == 0
    assert same(found, read(path))


# --- what TensorStore would notice is noticed -------------------------------------------------------


def shifted(path: Path, at: int, how: str) -> None:
    """Three bytes more or less in the data of a store, behind so many."""
    file = max(path.rglob("d/*"), key=lambda file: file.stat().st_size)
    content = file.read_bytes()
    new = content[:at] + (b"xyz" + content[at:] if how == "inserted" else content[at + 3 :])
    file.write_bytes(new[: len(content)].ljust(len(content), b"\0"))


@pytest.mark.parametrize("how", ["inserted", "deleted"])
@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_that_were_moved_are_noticed_in_what_orbax_wrote(
    tmp_path: Path, how: str, compressed: bool
) -> None:
    context = ocp.Context()
    context.array.saving.use_compression = compressed
    tree = {"w": RNG.random(3000), "v": RNG.random(3000)}
    with context:
        ocp.save(tmp_path / "x", tree)
    shifted(tmp_path / "x", 5000, how)
    with pytest.raises(treeload.SourceError):
        treeload.load(tree, tmp_path / "x")


def test_the_index_of_a_shard_is_that_of_tensorstore(tmp_path: Path) -> None:
    context = ocp.Context()
    context.array.saving.use_compression = False
    sizes = [1, 7, 100, 255, 256, 257, 70_000]
    with context:
        ocp.save(tmp_path / "x", {str(size): np.zeros(size, np.uint8) for size in sizes})
    values = read_btree(tmp_path / "x" / "state", 1000)
    for size in sizes:
        value = values[f"{size}/c/0".encode()]
        if not isinstance(value, bytes):
            with (tmp_path / "x" / "state" / value.path).open("rb") as file:
                file.seek(value.offset)
                value = file.read(value.length)
        assert value[-INDEX:] == shard_index(size)
    for count in (0, 2**31, 2**40 + 12345, 2**63):
        assert shard_index(count) == struct.pack("<QQI", 0, count, crc32c(struct.pack("<QQ", 0, count)))


def test_a_directory_of_the_store_may_be_a_link_within_it(tmp_path: Path) -> None:
    tree = {"w": RNG.random(3000)}
    path = writers.v1(tmp_path, tree)
    process = path / "state" / "ocdbt.process_0"
    (process / "d").rename(process / "elsewhere")
    (process / "d").symlink_to("elsewhere")
    assert treeload.load(tree, path)["w"].tobytes() == tree["w"].tobytes()


@pytest.mark.parametrize("key", ["x/", "x//", "/", "//", "/y", "a/b/", ""])
@pytest.mark.parametrize("size", [3, 700, 300_000])
@pytest.mark.filterwarnings("ignore")  # Orbax's advice about itself
def test_keys_with_slashes_are_written_and_read_as_orbax_does(tmp_path: Path, key: str, size: int) -> None:
    tree = {key: np.arange(float(size)), "other": np.arange(3.0)}
    treeload.save(tmp_path / "ours", tree)
    writers.v1(tmp_path, tree)
    for path in (tmp_path / "ours", tmp_path / "v1"):
        assert np.array_equal(ocp.load(path)[key], tree[key])
        assert np.array_equal(treeload.load(tree, path)[key], tree[key])


@pytest.mark.parametrize("keys", [("x", "x/"), ("", "/")])
def test_keys_that_would_lie_in_one_place_are_refused(tmp_path: Path, keys: tuple[str, str]) -> None:
    with pytest.raises(treeload.SaveError, match="cannot be in one checkpoint"):
        treeload.save(tmp_path / "x", {key: np.ones(3) for key in keys})
