"""Leaves that lie in a file are read bit for bit, in the file's order, wherever they are wanted."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from treeload import Name
from treeload._errors import SourceError
from treeload._files import pieces
from treeload._files import read as module
from treeload._files.open import look_at
from treeload._files.pieces import Stored, aligned
from treeload._files.read import read_stored

DTYPES = [np.dtype(each) for each in ("float32", "int8", "bool", "uint16", ml_dtypes.bfloat16)]
MESH = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))


def stored(path: Path, arrays: dict[str, np.ndarray[Any, Any]], *, gap: int = 0) -> dict[Name, Stored]:
    """The arrays in one file, each ``gap`` bytes behind the one before."""
    at, places, content = 0, {}, b""
    for key, array in arrays.items():
        content += b"\xff" * gap + array.tobytes()
        places[Name((key,))] = (at + gap, jax.ShapeDtypeStruct(array.shape, array.dtype))
        at = len(content)
    path.write_bytes(content)
    file = look_at(path)
    return {name: Stored(file, offset, spec) for name, (offset, spec) in places.items()}


def asked(leaves: dict[Name, Stored], sharding: Any = None) -> dict[Name, Any]:
    return {
        name: jax.ShapeDtypeStruct(leaf.spec.shape, leaf.spec.dtype, sharding=sharding)
        for name, leaf in leaves.items()
    }


def same(found: Any, expected: Any) -> bool:
    a, b = np.asarray(found), np.asarray(expected)
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, np.ndarray[Any, Any]]:
    made = {}
    for number in range(draw(st.integers(0, 6))):
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        count = math.prod(shape)
        made[f"k{number}"] = (
            ((np.arange(count) + number) % 7).reshape(shape).astype(draw(st.sampled_from(DTYPES)))
        )
    return made


# --- laws -------------------------------------------------------------------------------------------


@given(arrays(), st.integers(0, 9), st.data())
def test_whatever_is_asked_for_comes_bit_for_bit_and_in_the_files_order(
    given_arrays: dict[str, np.ndarray[Any, Any]], gap: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        leaves = stored(Path(folder) / "f", given_arrays, gap=gap)
        names = data.draw(st.permutations(list(leaves)))[: data.draw(st.integers(0, len(leaves)))]
        found = list(read_stored(leaves, asked({name: leaves[name] for name in names}), "here"))
    offsets = [leaves[name].offset for name, _ in found]
    assert sorted(name for name, _ in found) == sorted(names) and offsets == sorted(offsets)
    assert all(same(array, given_arrays[name[0]]) for name, array in found)


SPECS = [
    PartitionSpec(*spec) for spec in ((), ("a",), ("b",), (None, "b"), ("a", "b"), (("a", "b"),), ("b", "a"))
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("shape", [(8, 8), (16, 8, 3)])
def test_a_leaf_is_spread_over_eight_devices_bit_for_bit(tmp_path: Path, spec: Any, shape: Any) -> None:
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    leaves = stored(tmp_path / "f", {"w": array}, gap=5)
    sharding = NamedSharding(MESH, spec)
    ((_, result),) = read_stored(leaves, asked(leaves, sharding), "here")
    assert result.sharding == sharding
    assert same(result, array)
    assert all(same(shard.data, array[shard.index]) for shard in result.addressable_shards)


@pytest.mark.parametrize("most", [1, 7, 64])
def test_chunks_segments_and_short_reads_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    preadv = os.preadv
    monkeypatch.setattr(pieces, "CHUNK", 16)
    monkeypatch.setattr(pieces, "SEGMENTS", 3)
    monkeypatch.setattr(module, "_AHEAD", 40)
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:most]], offset))
    made = {f"k{n}": np.arange(n * 5, dtype=np.int16) for n in range(9)}
    leaves = stored(tmp_path / "f", made, gap=1)
    found = dict(read_stored(leaves, asked(leaves), "here"))
    assert all(same(found[Name((key,))], array) for key, array in made.items())


@given(st.integers(0, 300))
def test_a_buffer_begins_where_jax_takes_it_over(count: int) -> None:
    buffer = aligned(count)
    assert buffer.shape == (count,) and buffer.dtype == np.uint8
    # An empty array has no address of its own.
    assert not count or buffer.__array_interface__["data"][0] % 64 == 0


# --- examples ---------------------------------------------------------------------------------------


def test_leaves_of_several_files_come_file_by_file(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.int8)
    one = stored(tmp_path / "1", {"b": array, "d": array})
    other = stored(tmp_path / "2", {"a": array, "c": array})
    leaves = {**other, **one}
    assert [name[0] for name, _ in read_stored(leaves, asked(leaves), "here")] == ["b", "d", "a", "c"]


def test_nothing_asked_for_opens_no_file(tmp_path: Path) -> None:
    leaves = stored(tmp_path / "f", {"a": np.zeros(2)})
    (tmp_path / "f").unlink()
    assert list(read_stored(leaves, {}, "here")) == []


def test_one_device_gets_what_it_asks_for_beside_the_host(tmp_path: Path) -> None:
    made = {key: np.arange(4, dtype=np.float32) for key in "abc"}
    leaves = stored(tmp_path / "f", made)
    device = jax.devices()[3]
    requests = asked(leaves)
    requests[Name(("b",))] = asked(leaves, SingleDeviceSharding(device))[Name(("b",))]
    found = {name[0]: array for name, array in read_stored(leaves, requests, "here")}
    assert found["b"].devices() == {device}
    assert isinstance(found["a"], np.ndarray) and isinstance(found["c"], np.ndarray)
    assert all(same(found[key], made[key]) for key in "abc")


def test_what_is_read_on_the_host_is_writable_and_nobody_elses(tmp_path: Path) -> None:
    leaves = stored(tmp_path / "f", {"a": np.zeros(2, np.int8), "b": np.zeros(2, np.int8)})
    found = dict(read_stored(leaves, asked(leaves), "here"))
    found[Name(("a",))][:] = 1
    assert found[Name(("b",))].tolist() == [0, 0]


# --- what is refused --------------------------------------------------------------------------------


def test_a_leaf_that_is_not_there_is_refused_before_a_file_is_opened(tmp_path: Path) -> None:
    leaves = stored(tmp_path / "f", {"a": np.zeros(2)})
    (tmp_path / "f").unlink()
    request = asked(leaves)[Name(("a",))]
    with pytest.raises(SourceError, match="here has no leaf 'b/c'"):
        list(read_stored(leaves, {Name(("b", "c")): request}, "here"))


def test_a_file_that_changed_since_it_was_looked_at_is_refused(tmp_path: Path) -> None:
    leaves = stored(tmp_path / "f", {"a": np.zeros(2)})
    (tmp_path / "f").write_bytes(bytes(17))
    with pytest.raises(SourceError, match="has changed since it was opened"):
        list(read_stored(leaves, asked(leaves), "here"))


def test_a_leaf_beyond_the_end_of_its_file_is_named(tmp_path: Path) -> None:
    leaves = stored(tmp_path / "f", {"a": np.zeros(2, np.int8)})
    (name,) = leaves
    beyond = {name: Stored(leaves[name].file, 1, leaves[name].spec)}
    with pytest.raises(SourceError, match="ends before a does: it was cut short"):
        list(read_stored(beyond, asked(leaves), "here"))


@pytest.mark.parametrize("byte", [2, 255])
def test_a_boolean_is_0_or_1(tmp_path: Path, byte: int) -> None:
    (tmp_path / "f").write_bytes(bytes([0, 1, byte]))
    leaf = Stored(look_at(tmp_path / "f"), 0, jax.ShapeDtypeStruct((3,), np.dtype(bool)))
    with pytest.raises(SourceError, match="flag in .* holds a boolean that is neither 0 nor 1"):
        list(read_stored({Name(("flag",)): leaf}, asked({Name(("flag",)): leaf}), "here"))


def test_a_leaf_that_memory_does_not_hold_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = stored(tmp_path / "f", {"a": np.zeros(2, np.float32)})

    def full(count: int) -> Any:
        raise MemoryError

    monkeypatch.setattr(pieces, "aligned", full)
    with pytest.raises(SourceError, match=r"a \(float32\[2\], 8 bytes\) in .*: not enough memory"):
        list(read_stored(leaves, asked(leaves), "here"))
