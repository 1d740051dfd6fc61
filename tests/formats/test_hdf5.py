"""HDF5: the laws of a source, names, parts, what is refused; and Keras' archives around one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import jax
import ml_dtypes
import numpy as np
import pytest

import treeload
from treeload import From, Name, SourceError
from treeload._files.open import look_at, opened
from treeload._files.stream import Stream
from treeload._formats.hdf5 import datasets, pages
from treeload._formats.hdf5.source import Hdf5Source
from treeload.testing import SourceConformance

W = np.arange(6, dtype=np.float32).reshape(2, 3)
DTYPES = (
    "float32", "float16", "bfloat16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool", "complex64", "complex128",
)  # fmt: skip


def write(path: Path, leaves: Mapping[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in leaves.items():
            file.create_dataset(name, data=array, **(options if np.ndim(array) else {}))
    return path


def joined(leaves: Mapping[Name, Any]) -> dict[str, Any]:
    return {"/".join(name): array for name, array in leaves.items()}


class TestPlain(SourceConformance):
    dtypes = DTYPES

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Hdf5Source:
        return Hdf5Source(write(directory / "x.h5", joined(leaves)))


class TestCompressed(SourceConformance):
    dtypes = DTYPES

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Hdf5Source:
        options = {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": True}
        return Hdf5Source(write(directory / "x.h5", joined(leaves), **options))


class TestKerasArchive(SourceConformance):
    dtypes = DTYPES

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Hdf5Source:
        return Hdf5Source(
            archive(directory / "x.keras", write(directory / "x.h5", joined(leaves)).read_bytes())
        )


def archive(path: Path, weights: bytes, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("metadata.json", '{"keras_version": "3.0"}')
        made.writestr("config.json", "{}")
        made.writestr("model.weights.h5", weights, **options)
    return path


# What is read.


@pytest.mark.parametrize("name", ["x.weights.h5", "x.hdf5", "weights.bin", "weights"])
def test_a_file_is_told_by_its_bytes(tmp_path: Path, name: str) -> None:
    assert isinstance(treeload.open(write(tmp_path / name, {"a/b": W})), Hdf5Source)


def test_an_archive_is_told_by_its_bytes_and_is_no_copy_in_memory(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "weights.bin", write(tmp_path / "x.h5", {"layers/dense/vars/0": W}).read_bytes()
    )
    source = treeload.open(path)
    assert source.label.endswith("(Keras)")
    ((_, array),) = source.read(source.specs())
    np.testing.assert_array_equal(array, W)


def test_the_output_of_a_variable_is_no_part_of_its_name(tmp_path: Path) -> None:
    old = {"model_weights/dense_1/dense_1/kernel:0": W, "a": W, "a:0": W, "b:1": W}
    source = treeload.open(write(tmp_path / "x.h5", old))
    assert {str(name) for name in source.specs()} == {
        "model_weights/dense_1/dense_1/kernel",
        "a",
        "a:0",
        "b:1",
    }
    plan = treeload.plan({"dense_1": {"kernel": W}}, From(tmp_path / "x.h5", subtree="model_weights/dense_1"))
    assert plan.load()["dense_1"]["kernel"].tolist() == W.tolist()


def test_one_dataset_under_two_names_is_a_tie(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/w"] = W
        file["b/w"] = file["a/w"]
    source = treeload.open(tmp_path / "x.h5")
    assert source.ties() == {("b", "w"): ("a", "w")}
    assert dict(source.read(source.specs()))[Name("b/w")].tolist() == W.tolist()


def test_texts_and_spaces_without_elements_are_no_leaves(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", {"w": W, "t": "text", "s": np.array([b"ab"]), "n": h5py.Empty("f4")})
    source = treeload.open(path)
    assert list(source.specs()) == [("w",)]
    assert source.statics() == {("t",), ("s",), ("n",)}


def test_arrays_of_another_order_of_bytes_are_this_machines(tmp_path: Path) -> None:
    source = treeload.open(write(tmp_path / "x.h5", {"w": W.astype(">f4"), "n": np.arange(3, dtype=">i8")}))
    assert {str(spec.dtype) for spec in source.specs().values()} == {"float32", "int64"}
    found = dict(source.read(source.specs()))
    np.testing.assert_array_equal(found[Name("w")], W)


def test_an_array_of_no_elements_is_one(tmp_path: Path) -> None:
    source = treeload.open(write(tmp_path / "x.h5", {"e": np.zeros((0, 3), np.float32)}))
    ((_, array),) = source.read(source.specs())
    assert array.shape == (0, 3)


@pytest.mark.parametrize(
    "options", [{}, {"chunks": (64, 64), "compression": "gzip"}], ids=["plain", "chunked"]
)
def test_of_a_leaf_that_is_spread_only_its_part_is_read(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    path = write(tmp_path / "x.h5", {"w": values}, **options)
    mesh = jax.make_mesh((len(jax.devices()),), ("d",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    loaded = treeload.load({"w": jax.ShapeDtypeStruct((512, 512), np.float32, sharding=sharding)}, path)["w"]
    assert loaded.sharding == sharding
    np.testing.assert_array_equal(loaded, values)


@pytest.mark.parametrize("options", [{}, {"chunks": True, "compression": "gzip"}], ids=["plain", "chunked"])
def test_digests_beside_it_find_a_changed_value(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write(tmp_path / "x.h5", {"w": W}, **options)
    assert not treeload.verify(path).ok
    treeload.digest(path)
    assert treeload.verify(path).ok
    write(path, {"w": W + 1}, **options)
    assert [str(name) for name in treeload.verify(path).damaged] == ["w"]


def test_a_plan_takes_few_reads_and_none_of_them_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.h5", {f"layers/{number}/vars/0": W for number in range(200)})
    read: list[int] = []
    original = Stream.readinto

    def noted(stream: Stream, buffer: Any) -> int:
        read.append(stream.tell())
        return original(stream, buffer)

    monkeypatch.setattr(Stream, "readinto", noted)
    treeload.open(path)
    assert 1 <= len(read) <= -(-path.stat().st_size // (1 << 16))


def test_pages_read_as_the_file_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_PAGE", 7)
    monkeypatch.setattr(pages, "_MOST", 3)
    raw = bytes(range(100))
    (tmp_path / "x").write_bytes(raw)
    rng = np.random.default_rng(0)
    with opened(look_at(tmp_path / "x")) as handle:
        stream = pages.Pages(Stream(handle, 10, 95), 85)
        for _ in range(300):
            at, count = int(rng.integers(0, 90)), int(rng.integers(0, 60))
            stream.seek(at)
            assert stream.read(count) == raw[10:95][at : at + count]
            assert stream.tell() == at + len(raw[10:95][at : at + count])
        assert stream.seek(-3, os.SEEK_END) == 82 and stream.seek(2, os.SEEK_CUR) == 84
        assert len(stream._kept) <= 3
        assert pages.Pages(Stream(handle, 90, 100), 50).read(20) == raw[90:]  # cut short meanwhile


def test_without_h5py_the_error_names_the_extra(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", {"w": W})
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "import treeload\n"
        "try: treeload.open(sys.argv[1])\n"
        "except treeload.SourceError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert 'pip install "treeload[h5]"' in done.stdout and repr(str(path)) in done.stdout


# --- What is refused: one test for each way to lie or to lead out ------------------------------------


def refused(path: Path, *, read: bool = False) -> str:
    with pytest.raises(SourceError) as caught:
        _used(path, read)
    text = str(caught.value)
    assert path.name in text and text.isprintable()
    return text


def _used(path: Path, read: bool) -> None:
    source = treeload.open(path)
    if read:
        list(source.read(source.specs()))


def linked(file: Any, link: Any) -> None:
    file["w"] = W
    file["inside"] = link


def cycle(file: Any) -> None:
    file.create_group("a")
    file["a/b"] = file["a"]


def to_the_root(file: Any) -> None:
    file["a/b"] = file["/"]


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((2, 3), np.float32)
    layout[...] = h5py.VirtualSource("/etc/passwd", "w", (2, 3))
    file.create_virtual_dataset("v", layout)


def filtered(code: int) -> Callable[[Any], None]:
    def make(file: Any) -> None:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((2, 3))
        made.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((2, 3))
        h5py.h5d.create(file.id, b"f", h5py.h5t.IEEE_F32LE, space, made)

    return make


def sparse(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Callable[[Any], None]:
    free = (None,) * len(shape)
    return lambda file: file.create_dataset("w", shape, np.float32, chunks=chunks, maxshape=free)


def opaque(file: Any) -> None:
    file["w"] = np.ones(3, ml_dtypes.float8_e4m3fn)


MAKERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a link into another file": (
        lambda file: linked(file, h5py.ExternalLink("/etc/passwd", "/")), "is a link into another file"),
    "a symbolic link": (lambda file: linked(file, h5py.SoftLink("/w")), "'inside' is a symbolic link"),
    "a group in itself": (cycle, "'a/b' is the same group as 'a'"),
    "the root in itself": (to_the_root, "'a/b' is the same group as ''"),
    "a virtual dataset": (virtual, "'v' is a virtual dataset"),
    "values in another file": (
        lambda file: file.create_dataset("w", (2, 3), "f4", external=[("/etc/passwd", 0, 24)]),
        "'w' has its values in other files"),
    "a filter of a library": (filtered(32015), "'f' is compressed by a filter that is not read: 32015"),
    "a filter that is not in use": (
        lambda file: file.create_dataset("w", data=np.arange(9), scaleoffset=4), "not read: scaleoffset"),
    "a compound": (lambda file: file.create_dataset("w", (2,), [("a", "f4"), ("b", "i4")]), "no number's"),
    "lists": (lambda file: file.create_dataset("w", (2,), h5py.vlen_dtype("f4")), "holds what is no number"),
    "references": (lambda file: file.create_dataset("w", (2,), h5py.ref_dtype), "holds what is no number"),
    "an opaque dtype": (opaque, "'w' has an opaque dtype of 1 bytes"),
    "arrays as elements": (lambda file: file.create_dataset("w", (2,), "(3,)f4"), "holds what is no number"),
    "a large chunk": (sparse((3,), (1 << 28,)), "chunks of 1,073,741,824 bytes, and takes 12 itself"),
    "a shape past 64 bits": (sparse((2**40, 2**40), (1, 1)), "larger than any array"),
    "more than a hundred keys": (
        lambda file: file.create_dataset("a/" * 120 + "w", data=W), "at most 100 are read"),
    "a long name": (lambda file: file.create_dataset("a" * 5000, data=W), "at most 4,096 are read"),
    "a name that is no text": (
        lambda file: h5py.h5g.create(file.id, b"\xff\xfe"), "is no text"),
}  # fmt: skip


@pytest.mark.parametrize("case", MAKERS)
def test_what_cannot_be_followed_is_refused_by_its_name(tmp_path: Path, case: str) -> None:
    make, why = MAKERS[case]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        make(file)
    assert why in refused(tmp_path / "x.h5")


def test_values_that_are_not_stored_are_refused_when_they_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        sparse((2**20, 2**20), (1024, 1024))(file)
    treeload.inspect(tmp_path / "x.h5")
    assert "is said to take 4,398,046,511,104 bytes, and 0 are stored" in refused(
        tmp_path / "x.h5", read=True
    )
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("w", (64, 64), np.float32, chunks=(32, 32))[:32, :32] = 1.0
    assert "it has 1 chunks of 4" in refused(tmp_path / "x.h5", read=True)


def test_more_objects_than_any_model_has_are_not_gone_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "_MOST_OBJECTS", 2)
    path = write(tmp_path / "x.h5", {"a": W, "b": W, "c": W})
    assert "it holds more than 2 objects" in refused(path)


@pytest.mark.parametrize("left", [10, 100, 900, 2000])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, left: int) -> None:
    path = write(tmp_path / "x.h5", {"w": W, "v": np.zeros((20, 20))})
    path.write_bytes(path.read_bytes()[:left])
    refused(path, read=True)


def test_values_behind_the_end_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", {"w": np.full((3, 3), 7.0)})
    raw = path.read_bytes()
    with h5py.File(path) as file:
        offset = file["w"].id.get_offset()
    layout = b"\x03\x01" + offset.to_bytes(8, "little")
    assert raw.count(layout) == 1
    path.write_bytes(raw.replace(layout, b"\x03\x01" + (len(raw) - 8).to_bytes(8, "little")))
    assert re.search(
        f"invalid dataset size|from byte {len(raw) - 8:,} on", refused(path)
    )  # by whom, is HDF5's


def test_values_are_within_the_bytes_that_are_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", {"w": np.full((3, 3), 7.0)})
    with opened(look_at(path)) as handle:
        stream = pages.Pages(Stream(handle, 0, path.stat().st_size), path.stat().st_size)
        with pytest.raises(
            ValueError, match=r"'w' is float64\[3,3\] from byte 2,048 on, and the file has 2,100"
        ):
            datasets.look(stream, 2100)


@pytest.mark.parametrize("options", [{}, {"chunks": (2,), "compression": "gzip"}], ids=["plain", "chunked"])
def test_a_boolean_that_is_neither_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("w", data=np.array([1, 2], np.int8).view(np.bool_), **options)
    text = refused(path, read=True)
    assert "neither 0 nor 1" in text


def test_a_file_with_something_before_it_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=512) as file:
        file["w"] = W
    assert "does not begin as one" in refused(tmp_path / "x.h5")


def test_a_damaged_chunk_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", {"w": np.full((8, 8), 3.0)}, chunks=(8, 8), fletcher32=True)
    with h5py.File(path) as file:
        at = file["w"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[at + 3] ^= 1
    path.write_bytes(raw)
    assert "cannot read 'w'" in refused(path, read=True)


# Archives.


def test_an_archive_whose_weights_are_not_there_once_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as made:
        made.writestr("config.json", "{}")
    assert "it holds 0 files called 'model.weights.h5'" in refused(tmp_path / "x.keras")
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as made:
        made.writestr("model.weights.h5", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("model.weights.h5", b"")
    assert "it holds 2 files" in refused(tmp_path / "x.keras")


def test_an_archive_whose_weights_are_compressed_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.keras", bytes(10_000), compress_type=zipfile.ZIP_DEFLATED)
    assert "is compressed or encrypted" in refused(path)


def test_an_archive_whose_weights_are_no_hdf5_file_is_refused(tmp_path: Path) -> None:
    assert "its 'model.weights.h5' is no HDF5 file" in refused(archive(tmp_path / "x.keras", bytes(100)))


@pytest.mark.parametrize(
    ("field", "why"), [(20, "ends behind it"), (24, "ends behind it"), (42, "not where")]
)
def test_an_archive_that_lies_of_a_place_is_refused(tmp_path: Path, field: int, why: str) -> None:
    path = archive(tmp_path / "x.keras", write(tmp_path / "x.h5", {"w": W}).read_bytes())
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + field : at + field + 4] = (5 if field == 42 else 2**31 - 1).to_bytes(4, "little")
    path.write_bytes(raw)
    assert why in refused(path)


def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.keras", write(tmp_path / "x.h5", {"w": W}).read_bytes())
    os.truncate(path, 1000)
    assert "is no archive of Keras'" in refused(path)


def test_a_text_under_the_name_of_keras_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("Not Found: the file that you asked for\n")
    assert "text file" in refused(tmp_path / "x.h5")
    (tmp_path / "y.h5").write_bytes(b"\x01\x02\x03\x04" * 8)
    assert "does not begin as one" in refused(tmp_path / "y.h5")
