"""NumPy's archives: written by NumPy itself, malformed by hand."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from archives import Made, archive, write

import treeload
from treeload import From, RuleError, SourceError
from treeload._files.open import read_bytes
from treeload._files.place import Handle
from treeload._formats.npz import NpzSource
from treeload._naming.name import Name
from treeload._sources.source import Source
from treeload.testing import SourceConformance


def npy(array: Any, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version)
    return stream.getvalue()


def save(path: Path, arrays: Mapping[str, Any], *, compressed: bool = False) -> Path:
    write: Any = np.savez_compressed if compressed else np.savez
    write(path, **arrays)
    return path


class TestStored(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return NpzSource(save(directory / "x.npz", {"/".join(name): v for name, v in leaves.items()}))


class TestCompressed(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        joined = {"/".join(name): array for name, array in leaves.items()}
        return NpzSource(save(directory / "x.npz", joined, compressed=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.npz"


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    source = treeload.open(path)
    return {str(name): array for name, array in source.read(dict(source.specs()))}


ARRAYS: dict[str, Any] = {
    "bf16": np.arange(4).astype(ml_dtypes.bfloat16),
    "big": np.arange(4, dtype=">f4"),
    "big complex": np.array([1 + 2j, 3], ">c16"),
    "columns": np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)),
    "big columns": np.asfortranarray(np.arange(6, dtype=">i8").reshape(2, 3)),
    "nothing": np.zeros((0, 3), np.float32),
    "scalar": np.float32(3),
    "flags": np.array([True, False]),
    "one row": np.asfortranarray(np.ones((1, 5), np.float32)),
}


@pytest.mark.parametrize("write_npz", [np.savez, np.savez_compressed])
def test_every_order_and_dtype_comes_back(path: Path, write_npz: Any) -> None:
    write_npz(path, **ARRAYS)
    found = read(path)
    assert list(treeload.open(path).specs()) == [(name,) for name in ARRAYS]
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype.newbyteorder("=") and found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("name", ["x.ckpt", "weights", "x.bin"])
def test_it_is_told_by_its_bytes(tmp_path: Path, name: str) -> None:
    save(tmp_path / "made.npz", {"a/b": np.ones(2, np.float32)})
    (tmp_path / "made.npz").rename(tmp_path / name)
    loaded = treeload.load({"a": {"b": jnp.zeros(2)}}, tmp_path / name)
    np.testing.assert_array_equal(loaded["a"]["b"], np.ones(2))


def test_names_are_cut_where_it_is_said(path: Path) -> None:
    save(path, {"a/b.c": np.ones(2)})
    assert list(treeload.open(path).specs()) == [("a", "b.c")]
    assert list(NpzSource(path, separator=None).specs()) == [("a/b.c",)]
    assert treeload.plan(
        {"a/b": {"c": jnp.zeros(2)}}, From(path, separator="."), policy=treeload.Policy(dtype="keep")
    ).entries
    with pytest.raises(RuleError):
        NpzSource(path, separator="")


def test_an_empty_one_holds_nothing(path: Path) -> None:
    np.savez(path)
    assert treeload.inspect(path).leaves == ()


def test_texts_and_times_are_statics(path: Path) -> None:
    np.savez(
        path, w=np.ones(2), text=np.array(["a", "b"]), raw=np.array(b"x"), day=np.array("2020-01-01", "M8[D]")
    )
    assert treeload.open(path).statics() == {("text",), ("raw",), ("day",)}
    assert list(treeload.open(path).specs()) == [("w",)]


def test_headers_of_every_version_are_read(path: Path) -> None:
    write(path, {"one.npy": npy(np.ones(3), (1, 0)), "two.npy": npy(np.ones(3), (2, 0))})
    assert [spec.shape for spec in treeload.open(path).specs().values()] == [(3,), (3,)]


def test_a_long_header_is_read_on(path: Path) -> None:
    array = np.zeros((1,) * 60, np.float32)
    for deflate in (False, True):
        write(path, {"a.npy": npy(array), "b.npy": npy(np.ones(2, np.float32))}, deflate=deflate)
        assert read(path)["a"].shape == array.shape


def test_it_loads_onto_many_devices(path: Path) -> None:
    array = np.arange(64, dtype=np.float32).reshape(8, 8)
    for write_npz in (np.savez, np.savez_compressed):
        write_npz(path, w=array)
        mesh = jax.make_mesh((len(jax.devices()),), ("d",))
        for spec in (jax.P("d"), jax.P(None, "d")):
            sharding = jax.sharding.NamedSharding(mesh, spec)
            loaded = treeload.load({"w": jax.ShapeDtypeStruct((8, 8), np.float32, sharding=sharding)}, path)
            np.testing.assert_array_equal(loaded["w"], array)


def test_a_plan_reads_the_directory_and_a_header_of_each(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path, {f"layer{number}": np.zeros((1000, 1000), np.float32) for number in range(5)})
    counts: list[int] = []

    def counting(handle: Handle, count: int, offset: int) -> bytes:
        counts.append(count)
        return read_bytes(handle, count, offset)

    for module in ("zip", "unpack"):
        monkeypatch.setattr(f"treeload._files.{module}.read_bytes", counting)
    plan = treeload.plan({f"layer{number}": jnp.zeros((1000, 1000)) for number in range(5)}, path)
    assert plan.ok
    assert sum(counts) < 4096 and len(counts) < 12


# Damage.


@pytest.mark.parametrize("write_npz", [np.savez, np.savez_compressed])
def test_every_flipped_bit_of_an_array_is_found(path: Path, write_npz: Any) -> None:
    write_npz(path, w=np.random.default_rng(0).random(500, np.float32))
    whole = path.read_bytes()
    for at in range(1000, len(whole) - 120, 97):
        changed = bytearray(whole)
        changed[at] ^= 4
        path.write_bytes(changed)
        with pytest.raises(SourceError, match="'w'.*is damaged"):
            treeload.load({"w": jnp.zeros(500)}, path)
        assert treeload.verify(path).damaged == (("w",),)


def test_a_large_array_is_held_against_its_sum_in_parts(path: Path) -> None:
    array = np.random.default_rng(0).random(5 << 20, np.float32)  # 20 MiB, more than is read at once
    np.savez(path, w=array)
    assert treeload.verify(path).checked == (("w",),)
    with path.open("r+b") as stream:
        stream.seek(15 << 20)
        stream.write(b"\xff\xff\xff\xff")
    assert treeload.verify(path).damaged == (("w",),)
    loaded = treeload.plan({"w": jnp.zeros(5 << 20)}, path).load(check_digests=False)
    assert np.isnan(loaded["w"]).any()


def test_damage_is_let_through_where_it_is_asked_for(path: Path) -> None:
    for deflate in (False, True):
        path.write_bytes(
            archive([Made("w.npy", npy(np.ones(3, np.float32)), deflate, {"crc": 7}, {"crc": 7})])
        )
        plan = treeload.plan({"w": jnp.zeros(3)}, path)
        with pytest.raises(SourceError, match="is damaged"):
            plan.load()
        np.testing.assert_array_equal(plan.load(check_digests=False)["w"], np.ones(3))


def test_it_vouches_for_itself_and_takes_digests_all_the_same(path: Path) -> None:
    for write_npz in (np.savez, np.savez_compressed):
        write_npz(path, w=np.arange(5, dtype=np.float32), f=np.asfortranarray(np.ones((2, 2), np.float32)))
        assert treeload.verify(path).ok
        assert "cannot be verified" not in str(treeload.inspect(path))
        beside = treeload.digest(path)
        assert treeload.verify(path).ok and treeload.open(path).leaf_digests
        write_npz(path, w=np.arange(1, 6, dtype=np.float32), f=np.ones((2, 2), np.float32))
        assert treeload.verify(path).damaged == (("w",),)
        beside.unlink()


# What is refused.


class Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_objects_are_refused_by_name_and_nothing_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    np.savez(path, w=np.ones(2), evil=np.array([Runs()], object))
    with pytest.raises(SourceError, match="'evil.npy' holds Python objects"):
        treeload.open(path)
    assert not Path("ran").exists()


def test_a_dtype_of_one_byte_is_refused_since_it_may_be_any(path: Path) -> None:
    np.savez(path, w=np.ones(2, ml_dtypes.float8_e4m3fn))
    with pytest.raises(SourceError, match="'w.npy' has a dtype of one byte that NumPy does not know"):
        treeload.open(path)


def header(text: Any) -> bytes:
    text = str(text) + " " * 60 + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


ONE = {"descr": "<f4", "fortran_order": False, "shape": (1,)}
MALFORMED = {
    "no array": ({"a.npy": b"nothing"}, "is no NumPy array: it does not begin as one"),
    "nothing at all": ({"a.npy": b""}, "is no NumPy array"),
    "another file": ({"a.npy": npy(np.ones(1)), "readme.txt": b"x"}, "'readme.txt' is no array"),
    "a version to come": ({"a.npy": b"\x93NUMPY\x09\x00" + bytes(90)}, "is no NumPy array"),
    "names of fields": ({"a.npy": npy(np.zeros(2, [("ü", "<f4")]), (3, 0))}, "no number's"),
    "fields": ({"a.npy": npy(np.zeros(2, [("x", "<f4")]))}, "which is no number's"),
    "other bytes": ({"a.npy": npy(np.zeros(2, "V3"))}, "which is no number's"),
    "too few bytes": ({"a.npy": npy(np.ones(3))[:-1]}, "takes 24 bytes, and it has 23"),
    "too many bytes": ({"a.npy": npy(np.ones(3)) + b"x"}, "takes 24 bytes, and it has 25"),
    "an endless header": (
        {"a.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(100)},
        "its header would have",
    ),
    "a header cut short": ({"a.npy": header(ONE)[:-70]}, "is no NumPy array"),
    "no dict": ({"a.npy": header("[1, 2]")}, "is no NumPy array"),
    "code": ({"a.npy": header("__import__('os').mkdir('ran')")}, "is no NumPy array"),
    "brackets": ({"a.npy": header("(" * 9000)}, "is no NumPy array"),
    "a negative size": ({"a.npy": header({**ONE, "shape": (-1,)})}, "is no NumPy array"),
    "a size of True": ({"a.npy": header({**ONE, "shape": (True,)}) + bytes(4)}, "is no NumPy array"),
    "more than memory": ({"a.npy": header({**ONE, "shape": (2**40,)})}, "is damaged"),
    "more than any": ({"a.npy": header({**ONE, "shape": (2**62, 2**62, 0)})}, "is larger than any"),
    "a name too long": ({"a" * 5000 + ".npy": npy(np.ones(1))}, "has a name of 5,000 characters"),
    "a name too deep": ({"/".join("a" * 101) + ".npy": npy(np.ones(1))}, "has a name of 101 keys"),
    "one below another": ({"a.npy": npy(1.0), "a/b.npy": npy(1.0)}, "lies below another leaf"),
}


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize(("members", "why"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_one_is_refused(path: Path, members: dict[str, bytes], why: str, deflate: bool) -> None:
    with pytest.raises(SourceError, match=why) as caught:
        NpzSource(write(path, members, deflate=deflate))
    assert str(path) in str(caught.value)


def test_a_member_that_would_expand_past_its_array_does_not(path: Path) -> None:
    bomb = npy(np.ones(3, np.float32)) + bytes(10**7)
    said = {"size": 140}
    path.write_bytes(archive([Made("a.npy", bomb, True, said, said)]))
    plan = treeload.plan({"a": jnp.zeros(3)}, path)
    with pytest.raises(SourceError, match="it does not have 140 bytes"):
        plan.load()


def test_a_flag_is_0_or_1(path: Path) -> None:
    raw = npy(np.array([True, False]))[:-1] + b"\x02"
    for deflate in (False, True):
        write(path, {"a.npy": raw}, deflate=deflate)
        with pytest.raises(SourceError, match="a boolean that is neither 0 nor 1"):
            read(path)


def test_a_file_that_has_changed_is_not_read(path: Path) -> None:
    np.savez_compressed(path, w=np.ones(2))
    source = treeload.open(path)
    np.savez_compressed(path, w=np.ones(2), v=np.ones(3))
    with pytest.raises(SourceError, match="has changed"):
        list(source.read(dict(source.specs())))


def test_a_folder_in_it_is_no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.npy", npy(np.ones(2)))
        made.mkdir("sub")
    assert list(treeload.open(path).specs()) == [("a",)]
