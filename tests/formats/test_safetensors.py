"""What safetensors files give, and that a file which lies is refused before it costs anything."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.numpy import save_file

from treeload._errors import RuleError, SourceError
from treeload._files import pieces as _pieces
from treeload._files import read as _files
from treeload._files.open import look_at
from treeload._formats.safetensors.header import DTYPES
from treeload._formats.safetensors.source import SafetensorsSource, is_named, recognises
from treeload._naming.name import Name
from treeload._sources.source import Source
from treeload.testing import SourceConformance


def joined(leaves: Mapping[Name, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    return {".".join(name): array for name, array in leaves.items()}


def write_sharded(directory: Path, *shards: Mapping[str, np.ndarray[Any, Any]], **index: Any) -> Path:
    """A sharded directory; ``index`` replaces members of the index, tensors in ``weight_map`` one by one."""
    weight_map: dict[str, Any] = {}
    for number, tensors in enumerate(shards):
        filename = f"model-{number}.safetensors"
        save_file(dict(tensors), directory / filename)
        weight_map.update(dict.fromkeys(tensors, filename))
    weight_map.update(index.pop("weight_map", {}))
    content = {"metadata": {"total_size": 1}, "weight_map": weight_map, **index}
    (directory / "model.safetensors.index.json").write_text(json.dumps(content))
    return directory


def raw_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def requests(source: Source, *names: str) -> dict[Name, jax.ShapeDtypeStruct]:
    wanted = [Name.parse(name) for name in names] or source.specs()
    return {name: source.specs()[name] for name in wanted}


def read_all(source: Source) -> dict[str, np.ndarray[Any, Any]]:
    return {str(name): array for name, array in source.read(requests(source))}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A test that would hang fails instead."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"still busy after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class TestOneFile(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        save_file(joined(leaves), directory / "weights.safetensors")
        return SafetensorsSource(directory / "weights.safetensors")


class TestShardedDirectory(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        tensors = list(joined(leaves).items())
        write_sharded(directory, dict(tensors[::3]), dict(tensors[1::3]), dict(tensors[2::3]))
        return SafetensorsSource(directory)


class TestScatteredReads(TestOneFile):
    """The same laws where every leaf takes several reads, and threads wait for the consumer."""

    @pytest.fixture(autouse=True)
    def tiny_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_pieces, "CHUNK", 5)
        monkeypatch.setattr(_files, "_AHEAD", 16)


# --- What is in a file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", DTYPES)
def test_every_dtype_is_read_bit_for_bit(tmp_path: Path, code: str) -> None:
    dtype = DTYPES[code]
    data = bytes([0, 1, 1, 0, 1, 0]) if code == "BOOL" else bytes(range(200, 200 + 6 * dtype.itemsize))
    header = {"x": entry(code, [2, 3], [0, len(data)])}
    (tmp_path / "a.safetensors").write_bytes(raw_file(header, data))
    array = read_all(SafetensorsSource(tmp_path / "a.safetensors"))["x"]
    assert (array.dtype, array.shape, array.tobytes()) == (dtype, (2, 3), data)


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if "fnuz" not in d.name], ids=str)
def test_what_the_library_writes_has_the_dtype_that_was_written(tmp_path: Path, dtype: np.dtype[Any]) -> None:
    array = np.asarray([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    save_file({"x": array}, tmp_path / "a.safetensors")
    found = read_all(SafetensorsSource(tmp_path / "a.safetensors"))["x"]
    assert (found.dtype, found.tobytes()) == (dtype, array.tobytes())


def test_zero_size_and_scalar_tensors_are_leaves(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "none": np.zeros((0, 4), np.float32),
        "one": np.asarray(3, np.int8),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    found = read_all(SafetensorsSource(tmp_path / "a.safetensors"))
    assert found["none"].shape == (0, 4)
    assert (found["one"].shape, int(found["one"])) == ((), 3)


def test_a_name_that_is_the_prefix_of_another_stays_a_leaf(tmp_path: Path) -> None:
    save_file({"a": np.zeros(1), "a.b": np.ones(1)}, tmp_path / "a.safetensors")
    assert read_all(SafetensorsSource(tmp_path / "a.safetensors")) == {"a": [0], "a/b": [1]}


@pytest.mark.parametrize(
    ("separator", "name"), [(".", ("a", "b/c")), ("/", ("a.b", "c")), (None, ("a.b/c",)), ("::", ("a.b/c",))]
)
def test_names_are_split_at_the_separator(
    tmp_path: Path, separator: str | None, name: tuple[str, ...]
) -> None:
    save_file({"a.b/c": np.zeros(1)}, tmp_path / "a.safetensors")
    assert list(SafetensorsSource(tmp_path / "a.safetensors", separator=separator).specs()) == [name]


def test_an_empty_separator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="write None"):
        SafetensorsSource(tmp_path, separator="")


def test_metadata_is_what_the_file_says_of_itself(tmp_path: Path) -> None:
    save_file({"x": np.zeros(1)}, tmp_path / "a.safetensors", metadata={"format": "pt", "note": "ä\n"})
    assert SafetensorsSource(tmp_path / "a.safetensors").metadata == {"format": "pt", "note": "ä\n"}


def test_metadata_of_shards_is_the_indexs_and_what_they_agree_on(tmp_path: Path) -> None:
    write_sharded(tmp_path, {"x": np.zeros(1)}, {"y": np.zeros(1)}, metadata={"total_size": 16})
    save_file({"x": np.zeros(1)}, tmp_path / "model-0.safetensors", metadata={"format": "pt", "part": "0"})
    save_file({"y": np.zeros(1)}, tmp_path / "model-1.safetensors", metadata={"format": "pt", "part": "1"})
    assert SafetensorsSource(tmp_path).metadata == {"format": "pt", "total_size": 16}


def test_fields_that_the_format_does_not_know_are_ignored_as_the_library_does(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(raw_file({"x": entry(checksum="00")}, bytes(8)))
    assert read_all(SafetensorsSource(tmp_path / "a.safetensors"))["x"].shape == (2,)


def test_a_file_without_tensors_has_no_leaves(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(raw_file(b"{}   "))
    assert SafetensorsSource(tmp_path / "a.safetensors").specs() == {}


# --- Which files ---------------------------------------------------------------------------------------


def test_files_and_directories_have_names_that_hint_at_the_format(tmp_path: Path) -> None:
    assert is_named(tmp_path / "a.safetensors")
    assert is_named(tmp_path / "model.safetensors.index.json")
    assert not is_named(tmp_path / "a.npz")
    assert not is_named(tmp_path)
    (tmp_path / "a.safetensors").touch()
    assert is_named(tmp_path) and not recognises(tmp_path)


def test_files_and_directories_are_recognised_by_their_bytes(tmp_path: Path) -> None:
    save_file({"x": np.zeros(1)}, tmp_path / "a")
    assert recognises(tmp_path / "a") and not recognises(tmp_path) and not is_named(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "a.safetensors")
    assert recognises(tmp_path)


@pytest.mark.parametrize(
    "first", [b"", b"\0" * 8, b"\1" + b"\0" * 7 + b"[]", b"\2" + b"\0" * 7 + b"{", b"{" * 20]
)
def test_what_cannot_be_a_header_is_not_recognised(tmp_path: Path, first: bytes) -> None:
    (tmp_path / "a").write_bytes(first)
    assert not recognises(tmp_path / "a")


def test_the_only_file_of_a_directory_is_read(tmp_path: Path) -> None:
    save_file({"x": np.zeros(1)}, tmp_path / "weights.safetensors")
    (tmp_path / "._weights.safetensors").touch()  # what other systems leave beside a file
    assert list(SafetensorsSource(tmp_path).specs()) == [("x",)]


def test_several_files_without_an_index_are_listed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": np.zeros(1)}, tmp_path / f"{name}.safetensors")
    assert recognises(tmp_path)
    with pytest.raises(SourceError, match=r"2 .* files without an index: 'a.safetensors', 'b.safetensors'"):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize("directly", [False, True])
def test_an_index_of_any_name_is_found(tmp_path: Path, directly: bool) -> None:
    write_sharded(tmp_path, {"x": np.zeros(1)}, {"y": np.zeros(1)})
    index = (tmp_path / "model.safetensors.index.json").rename(tmp_path / "unet.safetensors.index.json")
    source = SafetensorsSource(index if directly else tmp_path)
    assert list(source.specs()) == [("x",), ("y",)]
    assert "2 shards" in source.label


def test_several_indices_are_listed_unless_one_is_the_models(tmp_path: Path) -> None:
    write_sharded(tmp_path, {"x": np.zeros(1)})
    model = tmp_path / "model.safetensors.index.json"
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors.index.json").write_bytes(model.read_bytes())
    assert list(SafetensorsSource(tmp_path).specs()) == [("x",)]
    model.unlink()
    with pytest.raises(SourceError, match="2 safetensors indices"):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize("name", ["missing.safetensors", "nul\0.safetensors", ""])
def test_what_is_not_there_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=r"cannot open|holds no \.safetensors"):
        SafetensorsSource(tmp_path / name)


@pytest.mark.parametrize("inside", [False, True], ids=["named", "found"])
def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path, inside: bool) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with within(5), pytest.raises(SourceError, match="is a pipe"):
        SafetensorsSource(tmp_path if inside else tmp_path / "a.safetensors")


def test_a_pipe_that_takes_a_files_place_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    (tmp_path / "regular").touch()
    status = os.stat(tmp_path / "regular")
    monkeypatch.setattr(os, "stat", lambda *_, **__: status)
    with within(5), pytest.raises(SourceError, match="is a pipe"):
        look_at(tmp_path / "a.safetensors")


def test_a_path_that_the_user_names_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    save_file({"x": np.zeros(1)}, tmp_path / "elsewhere")
    (tmp_path / "here" / "a.safetensors").symlink_to(tmp_path / "elsewhere")
    assert read_all(SafetensorsSource(tmp_path / "here" / "a.safetensors")) == {"x": [0]}


def test_a_file_found_in_a_directory_may_be_a_link_within_it(tmp_path: Path) -> None:
    save_file({"x": np.zeros(1)}, tmp_path / "blob")
    (tmp_path / "a.safetensors").symlink_to("blob")
    assert read_all(SafetensorsSource(tmp_path)) == {"x": [0]}


def test_a_directory_that_the_user_names_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write_sharded(tmp_path / "real", {"x": np.zeros(1)})
    (tmp_path / "link").symlink_to("real")
    assert read_all(SafetensorsSource(tmp_path / "link")) == {"x": [0]}


def test_a_file_found_in_a_directory_may_not_be_a_link_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    save_file({"x": np.zeros(1)}, tmp_path / "elsewhere")
    (tmp_path / "here" / "a.safetensors").symlink_to("../elsewhere")
    with pytest.raises(SourceError, match="link out of its directory"):
        SafetensorsSource(tmp_path / "here")


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").symlink_to("a.safetensors")
    with pytest.raises(SourceError, match="is a link to itself"):
        SafetensorsSource(tmp_path)


def hub_cache(root: Path, below: str = "") -> Path:
    """A model as a download cache keeps it: a snapshot of links to blobs."""
    snapshot, blobs = root / "snapshots" / "1a2b" / below, root / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    write_sharded(blobs, {"x": np.zeros(1)}, {"y": np.ones(1)})
    for number, blob in enumerate(sorted(blobs.iterdir())):
        blob.rename(blobs / f"{number}f")
        (snapshot / blob.name).symlink_to(os.path.relpath(blobs / f"{number}f", snapshot))
    return snapshot


@pytest.mark.parametrize("below", ["", "text/encoder"])
def test_links_of_a_download_cache_are_followed_to_its_blobs(tmp_path: Path, below: str) -> None:
    assert read_all(SafetensorsSource(hub_cache(tmp_path, below))) == {"x": [0], "y": [1]}


def test_a_blob_of_a_download_cache_may_not_be_a_link_out_of_it(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path / "cache")
    (tmp_path / "cache" / "blobs" / "0f").rename(tmp_path / "secret")
    (tmp_path / "cache" / "blobs" / "0f").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match="link out of its directory"):
        SafetensorsSource(snapshot)


def test_the_blobs_of_a_download_cache_may_not_be_a_link_out_of_it(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path / "cache")
    (tmp_path / "cache" / "blobs").rename(tmp_path / "secrets")
    (tmp_path / "cache" / "blobs").symlink_to(tmp_path / "secrets")
    with pytest.raises(SourceError, match="link out of its directory"):
        SafetensorsSource(snapshot)


# --- Headers that lie ------------------------------------------------------------------------------------

TWO = b'{"x":%s,"x":%s}' % ((json.dumps(entry()).encode(),) * 2)
LIES = {
    "an empty file": (b"", "has 0 bytes"),
    "a file shorter than the length": (b"\2\0\0\0", "has 4 bytes"),
    "a header longer than the file": (raw_file({}, length=3), "the file has 10"),
    "a header longer than the format allows": (raw_file({}, length=2**40), "at most 100,000,000 are allowed"),
    "a header length with the highest bit set": (raw_file({}, length=2**64 - 1), "at most 100,000,000"),
    "no header": (raw_file(b""), "does not begin with '{'"),
    "a header that begins with a space": (raw_file(b" {}"), "does not begin with '{'"),
    "a header that is a list": (raw_file(b"[]"), "does not begin with '{'"),
    "a header that is not UTF-8": (raw_file(b'{"\xff":1}'), "utf-8"),
    "a header that ends too soon": (raw_file(b'{"x":'), "'x' is not described"),
    "a header whose string does not end": (raw_file(b'{"x'), "Unterminated"),
    "a header with a comma too much": (raw_file(b'{"__metadata__":{},}'), "a string is expected"),
    "a header without a comma": (raw_file(b'{"__metadata__":{} "x":{}}'), "',' is expected"),
    "a header without a colon": (raw_file(b'{"x" {}}'), "':' is expected"),
    "something after the header's end": (raw_file(b"{} {}"), "something follows its end"),
    "NULs after the header's end": (raw_file(b"{}\0\0"), "something follows its end"),
    "a name that is no text": (raw_file(b'{"\\ud800":{}}'), "no Unicode text"),
    "a name that is there twice": (raw_file(TWO, bytes(8)), "'x' is there twice"),
    "metadata that is there twice": (raw_file(b'{"__metadata__":{},"__metadata__":{}}'), "is there twice"),
    "a key of metadata that is there twice": (
        raw_file(b'{"__metadata__":{"k":"1","k":"1"}}'),
        "'k'.*is there twice",
    ),
    "metadata that is no string": (raw_file({"__metadata__": {"k": 1}}), "a string is expected"),
    "metadata that is no object": (raw_file({"__metadata__": None}), "'{' is expected"),
    "a field that is there twice": (
        raw_file(b'{"x":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        "'x': .*'dtype' is there twice",
    ),
    "a tensor that is no object": (raw_file({"x": 1}), "'x' is not described"),
    "a tensor without a dtype": (
        raw_file({"x": {"shape": [], "data_offsets": [0, 0]}}),
        "'x': it has no 'dtype'",
    ),
    "a tensor without a shape": (
        raw_file({"x": {"dtype": "U8", "data_offsets": [0, 0]}}),
        "it has no 'shape'",
    ),
    "a tensor without offsets": (raw_file({"x": {"dtype": "U8", "shape": []}}), "it has no 'data_offsets'"),
    "an unknown dtype": (raw_file({"x": entry("F128")}, bytes(8)), "'x': its dtype 'F128' is not known"),
    "a dtype that is no string": (
        raw_file({"x": entry(["F32"])}, bytes(8)),
        "'x': its dtype .* is not known",
    ),
    "a dtype that packs several values into a byte": (
        raw_file({"x": entry("F4", [2], [0, 1])}, b"\0"),
        "'x': its dtype 'F4' packs several values",
    ),
    "a shape that is no list": (raw_file({"x": entry(shape=2)}, bytes(8)), "'x': its shape '2'"),
    "a negative size": (raw_file({"x": entry(shape=[-2])}, bytes(8)), r"'x': its shape '\[-2\]'"),
    "two negative sizes": (raw_file({"x": entry(shape=[-2, -1])}, bytes(8)), "'x': its shape"),
    "a size that is a float": (raw_file({"x": entry(shape=[2.0])}, bytes(8)), "'x': its shape"),
    "a size that is a boolean": (raw_file({"x": entry("F64", [True])}, bytes(8)), "'x': its shape"),
    "a size that is NaN": (raw_file({"x": entry(shape=[float("nan")])}, bytes(8)), "'x': NaN is not JSON"),
    "a size that fits no machine word": (
        raw_file({"x": entry(shape=[2**64 + 2])}, bytes(8)),
        "'x': its shape",
    ),
    "sizes whose product overflows to the right one": (
        raw_file({"x": entry(shape=[2**33, 2**31, 2])}, bytes(8)),
        "'x': .*larger than any array",
    ),
    "sizes that overflow beside a zero": (
        raw_file({"x": entry(shape=[0, 2**40, 2**40], offsets=[0, 0])}),
        "'x': .*larger than any array",
    ),
    "more dimensions than an array has": (
        raw_file({"x": entry("U8", [1] * 65, [0, 1])}, b"\0"),
        "'x': its shape",
    ),
    "a shape without end": (raw_file(b'{"x":{"shape":[' + b"1," * 10**6 + b"1]}}"), "'x' is not described"),
    "a number of ten thousand digits": (
        raw_file(b'{"x":{"shape":[' + b"1" * 10**4 + b"]}}"),
        "'x' is not described",
    ),
    "a number of four thousand digits": (
        raw_file(b'{"x":{"shape":[' + b"1" * 4000 + b"]}}"),
        "'x': it has no 'dtype'",
    ),
    "brackets without end in a tensor": (raw_file(b'{"x":' + b"[" * 10**6), "'x' is not described"),
    "braces without end in a tensor": (raw_file(b'{"x":' * 10**6), "'x' is not described"),
    "brackets nested in a field": (raw_file(b'{"x":{"shape":' + b"[" * 2000 + b"]" * 2000 + b"}}"), "'x': "),
    "brackets without end in metadata": (
        raw_file(b'{"__metadata__":{"k":' + b"[" * 10**6),
        "a string is expected",
    ),
    "offsets that are no pair": (
        raw_file({"x": entry(offsets=[0, 8, 8])}, bytes(8)),
        "'x': its data_offsets",
    ),
    "offsets that are turned round": (
        raw_file({"x": entry(offsets=[8, 0])}, bytes(8)),
        "'x': its data_offsets",
    ),
    "negative offsets": (raw_file({"x": entry(offsets=[-8, 0])}, bytes(8)), "'x': its data_offsets"),
    "offsets that are strings": (
        raw_file({"x": entry(offsets=["0", "8"])}, bytes(8)),
        "'x': its data_offsets",
    ),
    "offsets that do not fit shape and dtype": (
        raw_file({"x": entry(offsets=[0, 4])}, bytes(4)),
        r"'x': float32\[2\] takes 8 bytes, and its data_offsets '\[0, 4\]' give it 4",
    ),
    "offsets behind the end of the file": (
        raw_file({"x": entry()}, bytes(7)),
        "'x' ends at byte .* truncated",
    ),
    "offsets far behind the end of the file": (
        raw_file({"x": entry("U8", [2**62], [0, 2**62])}, b"\0"),
        "'x' ends at byte .* truncated",
    ),
    "two tensors in one place": (
        raw_file({"x": entry(), "y": entry()}, bytes(8)),
        "'y' overlaps 'x'",
    ),
    "two tensors that overlap": (
        raw_file({"x": entry(), "y": entry(offsets=[4, 12])}, bytes(12)),
        "'y' overlaps 'x'",
    ),
    "a hole between tensors": (
        raw_file({"x": entry(), "y": entry(offsets=[9, 17])}, bytes(17)),
        "'y' leaves a hole of 1 bytes behind 'x'",
    ),
    "a hole before the first tensor": (
        raw_file({"x": entry(offsets=[1, 9])}, bytes(9)),
        "'x' leaves a hole of 1 bytes behind the header",
    ),
    "bytes after the last tensor": (raw_file({"x": entry()}, bytes(9)), "1 bytes follow 'x'"),
    "a name that no terminal should print": (
        raw_file({"\x1b[2J" + "n" * 10**5: 1}),
        r"'\\x1b\[2Jn{100,120}\.\.\.'",
    ),
}


@pytest.mark.parametrize(("content", "message"), LIES.values(), ids=LIES)
def test_a_file_that_lies_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(content)
    with within(10), pytest.raises(SourceError, match=message) as caught:
        SafetensorsSource(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "content",
    [
        raw_file({"x": entry("U8", [2**40], [0, 2**40])}, b"\0"),
        raw_file({}, length=99_999_999),
        raw_file({"x": entry("U8", [0, 2**62], [0, 0])}),
    ],
    ids=["a tensor", "a header", "a zero-size tensor"],
)
def test_a_size_that_lies_allocates_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lie.safetensors").write_bytes(content)
    tracemalloc.start()
    try:
        with suppress(SourceError):  # the zero-size one tells the truth, in a shape that no array has
            read_all(SafetensorsSource(tmp_path / "lie.safetensors"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("start", [b'{"__metadata__":{"k":', b'{"x":', b'{"x":{"shape":'])
def test_a_header_that_is_a_bomb_costs_no_more_than_its_own_bytes(tmp_path: Path, start: bytes) -> None:
    size = 8 << 20
    bomb = start + b"[" + b"[]," * (size // 3)
    (tmp_path / "bomb.safetensors").write_bytes(raw_file(bomb))
    tracemalloc.start()
    try:
        with within(10), pytest.raises(SourceError, match="a string is expected|is not described by"):
            SafetensorsSource(tmp_path / "bomb.safetensors")
        assert tracemalloc.get_traced_memory()[1] < 3 * size
    finally:
        tracemalloc.stop()


GOOD = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a.b": entry("F32", [2, 1], [0, 8]),
        "c": entry("BOOL", [3], [8, 11]),
        "é": entry("BF16", [], [11, 13]),
        "z": entry("I64", [0], [13, 13]),
    },
    ensure_ascii=False,
).encode()
DATA = bytes([1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 1, 9, 9])


SPLINTERS = [b"", b"0", b"1", b"8", b"-", b'"', b"[", b"{", b",", b" ", b"e", b"\\", b"\xff"]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good file in which a few bytes of the header are exchanged, left out, or put in."""
    header = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(header)))
        cut = draw(st.integers(0, 2))
        header[at : at + cut] = draw(st.sampled_from(SPLINTERS))
    length = draw(st.one_of(st.just(len(header)), st.integers(0, 2 * len(header))))
    return raw_file(bytes(header), DATA, length)


@settings(max_examples=400, deadline=None)
@given(st.one_of(mutated(), st.binary(max_size=64), st.binary(max_size=64).map(raw_file)))
def test_whatever_the_bytes_a_source_is_right_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(content)
    try:
        with within(10):
            source = SafetensorsSource(path, separator=None)
            found = {name[0]: (spec.shape, spec.dtype) for name, spec in source.specs().items()}
            read = read_all(source)
    except SourceError:
        return
    # What we take, the library takes too, and finds the same in it.
    theirs = dict(deserialize(content))
    assert found == {name: (tuple(t["shape"]), DTYPES[t["dtype"]]) for name, t in theirs.items()}
    bytes_found = {Name.parse(name)[0]: array.tobytes() for name, array in read.items()}
    assert bytes_found == {name: bytes(tensor["data"]) for name, tensor in theirs.items()}


# --- Indices that lie -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shard",
    [
        "../out.safetensors",
        "/out.safetensors",
        "sub/out.safetensors",
        "..\\out.safetensors",
        "..",
        "",
        "nul\0",
    ],
)
def test_an_index_names_only_files_beside_it(tmp_path: Path, shard: str) -> None:
    (tmp_path / "here").mkdir()
    save_file({"y": np.zeros(1)}, tmp_path / "out.safetensors")
    write_sharded(tmp_path / "here", {"x": np.zeros(1)}, weight_map={"y": shard})
    with pytest.raises(SourceError, match="is not the name of a file beside the index"):
        SafetensorsSource(tmp_path / "here")


def test_a_shard_may_not_be_a_link_out_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    write_sharded(tmp_path / "here", {"x": np.zeros(1)})
    shard = (tmp_path / "here" / "model-0.safetensors").rename(tmp_path / "out.safetensors")
    (tmp_path / "here" / "model-0.safetensors").symlink_to(shard)
    with pytest.raises(SourceError, match="link out of its directory"):
        SafetensorsSource(tmp_path / "here")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"y": "gone.safetensors"}}, "cannot open .*gone.safetensors': No such file"),
        (
            {"weight_map": {"y": "model-0.safetensors"}},
            r"model-0.safetensors' lacks 'y', which .*index.json' finds there",
        ),
        ({"weight_map": {"x": 3}}, "has no 'weight_map'"),
        ({"metadata": []}, "its 'metadata' is no object"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, index: dict[str, Any], message: str) -> None:
    write_sharded(tmp_path, {"x": np.zeros(1)}, **index)
    with pytest.raises(SourceError, match=message):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[]", "has no 'weight_map'"),
        (b"{}", "has no 'weight_map'"),
        (b'{"weight_map":{},"weight_map":{}}', "'weight_map' is there twice"),
        (b'{"weight_map":{"x":"a","x":"b"}}', "'x' is there twice"),
        (b"\xff", "utf-8"),
        (b"[" * 10**6, "nested too deeply"),
        (b'{"weight_map":{},"metadata":{"n":NaN}}', "NaN is not JSON"),
    ],
)
def test_an_index_that_is_garbage_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        SafetensorsSource(tmp_path)


def test_an_index_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").touch()
    os.truncate(tmp_path / "model.safetensors.index.json", 1 << 40)
    with within(5), pytest.raises(SourceError, match="is no index"):
        SafetensorsSource(tmp_path)


def test_a_tensor_that_the_index_does_not_list_is_refused(tmp_path: Path) -> None:
    write_sharded(tmp_path, {"x": np.zeros(1)})
    save_file({"x": np.zeros(1), "y": np.zeros(1)}, tmp_path / "model-0.safetensors")
    with pytest.raises(SourceError, match=r"model-0.safetensors' holds what .* does not list: 'y'"):
        SafetensorsSource(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    write_sharded(tmp_path, {"x": np.zeros(1)}, {"x": np.ones(1), "y": np.ones(1)})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "model-0.safetensors", "y": "model-1.safetensors"}}))
    with pytest.raises(SourceError, match=r"'x' is in 2 shards: 'model-0\.safetensors', 'model-1\."):
        SafetensorsSource(tmp_path)


# --- Reading ----------------------------------------------------------------------------------------------


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Ten tensors of 64 KiB, ``t0`` to ``t9``, each full of its number."""
    path = tmp_path / "ten.safetensors"
    save_file({f"t{i}": np.full((64, 256), i, np.float32) for i in range(10)}, path)
    return path


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    preadv = os.preadv

    def counting(*args: Any) -> int:
        counts.append(preadv(*args))
        return counts[-1]

    monkeypatch.setattr(os, "preadv", counting)
    return counts


def test_only_the_bytes_asked_for_are_read(ten: Path, bytes_read: list[int]) -> None:
    source = SafetensorsSource(ten)
    for name, array in source.read(requests(source, "t2", "t3", "t7")):
        assert (array == int(name[0][1])).all()
    assert sorted(bytes_read) == [64 << 10, 128 << 10]  # neighbours in one call


def test_leaves_come_in_the_order_of_the_file_however_they_are_asked_for(ten: Path) -> None:
    source = SafetensorsSource(ten)
    asked = requests(source, *reversed([f"t{i}" for i in range(10)]))
    assert [name[0] for name, _ in source.read(asked)] == [f"t{i}" for i in range(10)]


def test_a_leaf_is_its_own_memory_where_a_device_takes_it_over(ten: Path) -> None:
    source = SafetensorsSource(ten)
    for _, array in source.read(requests(source)):
        assert array.ctypes.data % 64 == 0
        assert array.flags.writeable
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        assert owner.nbytes <= array.nbytes + 64  # keeping one leaf keeps no other


@pytest.mark.parametrize("most", [1000, 12_289, 70_000])
def test_reads_that_come_up_short_go_on(ten: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    pread = os.pread

    def short(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        part = pread(descriptor, most, offset)
        count, at = min(len(part), sum(map(len, buffers))), 0
        for buffer in buffers:
            piece = part[at : min(count, at + len(buffer))]
            buffer[: len(piece)] = piece
            at += len(piece)
        return count

    monkeypatch.setattr(os, "preadv", short)
    found = read_all(SafetensorsSource(ten))
    assert len(found) == 10
    assert all((array == int(name[1])).all() for name, array in found.items())


def test_a_boolean_that_is_neither_0_nor_1_is_refused(tmp_path: Path) -> None:
    header = {"a": entry("U8", [2], [0, 2]), "b": entry("BOOL", [3], [2, 5])}
    (tmp_path / "a.safetensors").write_bytes(raw_file(header, b"\2\2\0\1\2"))
    source = SafetensorsSource(tmp_path / "a.safetensors")
    assert len(list(source.read(requests(source, "a")))) == 1
    with pytest.raises(SourceError, match=r"b in .*a.safetensors' holds a boolean that is neither"):
        list(source.read(requests(source, "b")))


def test_a_request_for_another_shape_or_dtype_is_refused(ten: Path) -> None:
    source = SafetensorsSource(ten)
    for spec in (jax.ShapeDtypeStruct((256, 64), np.float32), jax.ShapeDtypeStruct((64, 256), np.int32)):
        with pytest.raises(SourceError, match=r"'t0' is float32\[64,256\] and cannot be read as"):
            list(source.read({Name(("t0",)): spec}))


def test_64_bits_are_not_halved_on_their_way_to_a_device(tmp_path: Path) -> None:
    save_file({"x": np.asarray([2**40])}, tmp_path / "a.safetensors")
    source = SafetensorsSource(tmp_path / "a.safetensors")
    placed = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    request = {Name(("x",)): jax.ShapeDtypeStruct((1,), np.int64, sharding=placed)}
    with jax.enable_x64(True):
        ((_, array),) = source.read(request)
    assert (array.dtype, int(np.asarray(array)[0])) == (np.int64, 2**40)
    with pytest.raises(SourceError, match=r"'x' is .*jax_enable_x64"):
        list(source.read(request))


@pytest.mark.parametrize("change", ["touched", "longer", "shorter", "gone"])
def test_a_file_that_changes_after_planning_is_refused(ten: Path, change: str) -> None:
    source = SafetensorsSource(ten)
    if change == "touched":
        os.utime(ten, ns=(0, 0))
    elif change == "gone":
        ten.unlink()
    else:
        status = ten.stat()
        os.truncate(ten, status.st_size + (1 if change == "longer" else -1))
        os.utime(ten, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(SourceError, match="cannot open" if change == "gone" else "has changed since"):
        read_all(source)


def test_a_file_that_changes_while_it_is_read_is_refused(ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pieces, "CHUNK", 64 << 10)
    source = SafetensorsSource(ten)
    leaves = source.read(requests(source))
    next(leaves)
    os.utime(ten, ns=(0, 0))
    with pytest.raises(SourceError, match="has changed since"):
        list(leaves)


def test_a_file_that_ends_while_it_is_read_is_refused(ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SafetensorsSource(ten)
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    with pytest.raises(SourceError, match="ends before t0 does"):
        read_all(source)


def test_a_disk_that_fails_is_named_with_the_leaf(ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    source = SafetensorsSource(ten)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(SourceError, match=r"cannot read t4 from .*ten.safetensors': Input/output error"):
        list(source.read(requests(source, "t4")))


def test_a_leaf_too_large_for_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"x": np.zeros(3)}, tmp_path / "a.safetensors")
    source = SafetensorsSource(tmp_path / "a.safetensors")

    def refuse(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(_pieces, "aligned", refuse)
    with pytest.raises(SourceError, match=r"x \(float64\[3\], 24 bytes\) in .*: not enough memory"):
        read_all(source)


def test_what_is_held_is_bounded_while_leaves_are_dropped(ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pieces, "CHUNK", 16 << 10)
    monkeypatch.setattr(_files, "_AHEAD", 128 << 10)
    source = SafetensorsSource(ten)
    tracemalloc.start()
    try:
        for _ in source.read(requests(source)):
            pass
        assert tracemalloc.get_traced_memory()[1] < 5 * (64 << 10)
    finally:
        tracemalloc.stop()


def test_what_is_held_is_what_was_asked_for_while_leaves_are_kept(ten: Path) -> None:
    source = SafetensorsSource(ten)
    tracemalloc.start()
    try:
        kept = list(source.read(requests(source)))
        assert tracemalloc.get_traced_memory()[1] < 1.1 * sum(array.nbytes for _, array in kept)
    finally:
        tracemalloc.stop()


def test_a_reader_that_stops_early_leaves_no_thread_and_no_file(
    ten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pieces, "CHUNK", 16 << 10)
    opened: list[int] = []
    real_open = os.open

    def listed(*arguments: Any) -> int:
        opened.append(real_open(*arguments))
        return opened[-1]

    monkeypatch.setattr(os, "open", listed)
    source = SafetensorsSource(ten)
    leaves = source.read(requests(source))
    next(leaves)
    assert any(thread.name.startswith("treeload-read") for thread in threading.enumerate())
    assert isinstance(leaves, Generator)
    leaves.close()
    assert not any(thread.name.startswith("treeload-read") for thread in threading.enumerate())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[-1])


SPREAD = """
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from treeload._files import pieces, read
from treeload._formats.safetensors.source import SafetensorsSource

counts, preadv = [], os.preadv
def counting(*args):
    counts.append(preadv(*args))
    return counts[-1]
os.preadv = counting
taken, aligned = [], read.aligned
def taking(count):
    taken.append(count)
    return aligned(count)
read.aligned = pieces.aligned = taking

source = SafetensorsSource(sys.argv[1])
(name, spec), = source.specs().items()
expected = np.arange(16 * 8 * 4, dtype=np.float32).reshape(16, 8, 4)
mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ("x", "y"))
part = jax.sharding.Mesh(np.array(jax.devices()[4:6]), ("z",))
for sharding in [
    *(NamedSharding(mesh, p) for p in [
        P(), P("x"), P("y"), P(("x", "y")), P(None, "y"), P("x", "y"), P("y", None, "x"), P(None, None, "y"),
    ]),
    NamedSharding(part, P("z")), NamedSharding(part, P(None, "z")),
    jax.sharding.SingleDeviceSharding(jax.devices()[3]),
]:
    counts.clear(), taken.clear()
    (_, array), = source.read({name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding)})
    assert array.sharding == sharding and array.committed, sharding
    np.testing.assert_array_equal(np.asarray(array), expected)
    for shard in array.addressable_shards:
        np.testing.assert_array_equal(np.asarray(shard.data), expected[shard.index])
    assert sum(counts) == expected.nbytes, (sharding, counts)
    rows = sharding.shard_shape(spec.shape)[1:] == spec.shape[1:]
    # Whole rows are read where they stay; what is cut out of rows is a second copy for a moment.
    assert sum(taken) == (expected.nbytes if rows else 2 * expected.nbytes), (sharding, taken)
print("ok")
"""


def test_a_leaf_is_spread_over_devices_and_each_byte_read_once(tmp_path: Path) -> None:
    save_file({"x": np.arange(16 * 8 * 4, dtype=np.float32).reshape(16, 8, 4)}, tmp_path / "a.safetensors")
    command = [sys.executable, "-c", SPREAD, str(tmp_path / "a.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "ok", done.stderr


@pytest.mark.parametrize(
    ("parts", "read"),
    [
        (((2, 4), (0, 3)), [(6 * 4, 6 * 4)]),
        (((2, 4), (0, 3), (6, 8), (0, 3)), [(6 * 4, 6 * 4), (18 * 4, 6 * 4)]),
        (((2, 4), (0, 1), (2, 4), (1, 2)), [(6 * 4, 6 * 4)]),
        (((3, 4), (0, 1), (3, 4), (1, 2)), [(9 * 4, 4), (10 * 4, 4)]),
    ],
    ids=["rows", "rows apart", "columns of some rows", "parts of one row"],
)
def test_a_host_reads_only_what_its_devices_hold(
    tmp_path: Path, parts: tuple[tuple[int, int], ...], read: list[tuple[int, int]]
) -> None:
    (tmp_path / "a").touch()
    boxes = [tuple(slice(*axis) for axis in box) for box in zip(parts[::2], parts[1::2], strict=True)]
    here = SimpleNamespace(
        device_set=range(8), addressable_devices_indices_map=lambda _: dict(enumerate(boxes))
    )
    request: Any = SimpleNamespace(shape=(8, 3), dtype=np.dtype(np.float32), sharding=here)
    leaf = _pieces.prepared(Name(("x",)), _pieces.Stored(look_at(tmp_path / "a"), 0, request), request)
    assert [(piece.offset, len(piece.buffer)) for piece in leaf.pieces] == read
