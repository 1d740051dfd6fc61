"""GGUF: the laws of a source, quantised tensors, metadata, split models, and headers that lie."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest
import quants
from gguf import GGMLQuantizationType as Kind

import treeload
from treeload import Name, SourceError
from treeload._files.place import Handle
from treeload._formats.gguf import header as reader
from treeload._formats.gguf.source import GgufSource
from treeload.testing import SourceConformance

W = np.arange(6, dtype=np.float32).reshape(2, 3)
VALUES = np.random.default_rng(0).normal(size=(4, 6, 512)).astype(np.float32)
KINDS = [
    Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.TQ1_0, Kind.TQ2_0,
]  # fmt: skip


class TestGguf(SourceConformance):
    dtypes = ("float32", "float16", "bfloat16", "float64", "int8", "int16", "int32", "int64")

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> GgufSource:
        return GgufSource(
            quants.write(directory / "x.gguf", {".".join(name): leaf for name, leaf in leaves.items()})
        )


# What is read.


def test_a_file_is_told_by_its_bytes(tmp_path: Path) -> None:
    assert isinstance(treeload.open(quants.write(tmp_path / "weights.bin", {"w": W})), GgufSource)


def test_shapes_are_numpys_and_names_are_split_at_dots(tmp_path: Path) -> None:
    path = quants.write(tmp_path / "x.gguf", {"blk.0.attn_q.weight": W})
    (tensor,) = gguf.GGUFReader(path).tensors
    assert tensor.shape.tolist() == [3, 2]  # as ggml has it
    source = treeload.open(path)
    assert {name: spec.shape for name, spec in source.specs().items()} == {
        ("blk", "0", "attn_q", "weight"): (2, 3)
    }
    assert list(GgufSource(path, separator=None).specs()) == [("blk.0.attn_q.weight",)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_quantised_tensor_is_the_floats_that_it_stands_for(tmp_path: Path, kind: Kind) -> None:
    path = quants.write(
        tmp_path / "x.gguf", {"w": VALUES, "row": VALUES[0, 0]}, quantised={"w": kind, "row": kind}
    )
    source = treeload.open(path)
    assert {str(spec.dtype) for spec in source.specs().values()} == {"float32"}
    found = dict(source.read(source.specs()))
    expected = {tensor.name: gguf.dequantize(tensor.data, kind) for tensor in gguf.GGUFReader(path).tensors}
    np.testing.assert_array_equal(found[Name("w")], expected["w"].reshape(VALUES.shape))
    np.testing.assert_array_equal(found[Name("row")], expected["row"].reshape(-1))


def test_a_part_of_a_quantised_tensor_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quants.write(
        tmp_path / "x.gguf", {"w": VALUES, "row": VALUES[0, 0]}, quantised={"w": Kind.Q8_0, "row": Kind.Q8_0}
    )
    source = GgufSource(path)
    whole = dict(source.read(source.specs()))
    read: list[int] = []
    original = treeload._formats.gguf.source.read_bytes  # type: ignore[attr-defined]

    def noted(handle: Handle, count: int, offset: int) -> bytes:
        read.append(count)
        return original(handle, count, offset)

    monkeypatch.setattr("treeload._formats.gguf.source.read_bytes", noted)
    from treeload._files.open import opened
    from treeload._formats.gguf.source import _box

    for name, box in [("w", ((1, 2), (2, 5), (100, 300))), ("row", ((40, 100),))]:
        place = source._places[Name(name)]
        with opened(place.file) as handle:
            part = _box(handle, place, box)  # type: ignore[arg-type]
        np.testing.assert_array_equal(part, whole[Name(name)][tuple(slice(*each) for each in box)])
    assert read == [6 * 512 // 32 * 34, 3 * 34]


def test_a_quantised_tensor_is_spread_over_devices(tmp_path: Path) -> None:
    path = quants.write(tmp_path / "x.gguf", {"w": VALUES}, quantised={"w": Kind.Q8_0})
    mesh = jax.make_mesh((len(jax.devices()),), ("d",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, None, "d"))
    spec = jax.ShapeDtypeStruct(VALUES.shape, np.float32, sharding=sharding)
    loaded = treeload.load({"w": spec}, path)["w"]
    assert loaded.sharding == sharding
    np.testing.assert_allclose(loaded, VALUES, atol=0.05)


def test_digests_beside_it_find_a_changed_value(tmp_path: Path) -> None:
    tensors = {"w": VALUES, "b": W}
    path = quants.write(tmp_path / "x.gguf", tensors, quantised={"w": Kind.Q8_0})
    treeload.digest(path)
    assert treeload.verify(path).ok
    raw = bytearray(path.read_bytes())
    place = GgufSource(path)._places[Name("w")]
    raw[place.offset + 7] ^= 0x10
    path.write_bytes(raw)
    assert [str(name) for name in treeload.verify(path).damaged] == ["w"]


def test_what_it_says_of_its_model_is_metadata(tmp_path: Path) -> None:
    def says(writer: gguf.GGUFWriter) -> None:
        writer.add_name("tiny")
        writer.add_uint32("llama.block_count", 2)
        writer.add_float32("llama.rope.freq_base", 0.5)
        writer.add_bool("tokenizer.ggml.add_bos_token", True)
        writer.add_array("llama.sizes", [1, 2, 3])
        writer.add_token_list([f"t{number}" for number in range(5000)])
        writer.add_token_scores([0.0] * 5000)
        writer.add_chat_template("x" * 100_000)

    metadata = treeload.open(quants.write(tmp_path / "x.gguf", {"w": W}, says=says)).metadata
    assert metadata["general.name"] == "tiny" and metadata["llama.block_count"] == 2
    assert metadata["llama.rope.freq_base"] == 0.5 and metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["llama.sizes"] == [1, 2, 3]
    assert metadata["tokenizer.ggml.tokens"] == "5,000 texts"
    assert metadata["tokenizer.ggml.scores"] == "5,000 numbers"
    assert metadata["tokenizer.chat_template"] == "a text of 100,000 bytes"


def test_another_alignment_is_kept(tmp_path: Path) -> None:
    path = quants.write(tmp_path / "x.gguf", {"a": W, "b": W + 1}, says=lambda w: w.add_custom_alignment(256))
    source = GgufSource(path)
    assert all(place.offset % 256 == 0 for place in source._places.values())
    assert dict(source.read(source.specs()))[Name("b")].tolist() == (W + 1).tolist()


def split(directory: Path, count: int = 3, **lies: Any) -> list[Path]:
    paths = []
    for number in range(count):
        says = {"split.no": number, "split.count": count, "split.tensors.count": count, **lies}

        def tell(writer: gguf.GGUFWriter, says: dict[str, int] = says) -> None:
            for key, value in says.items():
                writer.add_uint16(key, value)

        path = directory / f"m-{number + 1:05d}-of-{count:05d}.gguf"
        paths.append(quants.write(path, {f"w{number}": W + number}, says=tell))
    return paths


def test_a_model_that_was_split_is_opened_by_any_of_its_files(tmp_path: Path) -> None:
    for path in split(tmp_path):
        source = treeload.open(path)
        assert [str(name) for name in source.specs()] == ["w0", "w1", "w2"]
        assert source.label.endswith("(GGUF, 3 files)")
        assert dict(source.read(source.specs()))[Name("w2")].tolist() == (W + 2).tolist()


def test_a_split_model_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    paths = split(tmp_path)
    paths[1].rename(tmp_path / "other.gguf")
    assert "m-00002-of-00003.gguf" in refused(paths[0], named=False)
    assert "not called NAME-00001-of-00003.gguf" in refused(tmp_path / "other.gguf")
    split(tmp_path, **{"split.no": 0})
    assert "is no file 2 of 3: it says 0 and 3" in refused(paths[0], named=False)
    split(tmp_path, **{"split.tensors.count": 4})
    assert "its files hold 3 tensors, and it says 4" in refused(paths[0])


def test_without_gguf_plain_tensors_are_read_and_quantised_ones_name_the_extra(tmp_path: Path) -> None:
    plain = quants.write(tmp_path / "plain.gguf", {"w": W})
    quantised = quants.write(tmp_path / "q.gguf", {"w": VALUES}, quantised={"w": Kind.Q8_0})
    code = (
        "import sys; sys.modules['gguf'] = None\n"
        "import treeload\n"
        "print(list(treeload.open(sys.argv[1]).read(treeload.open(sys.argv[1]).specs())))\n"
        "try: treeload.open(sys.argv[2])\n"
        "except treeload.SourceError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(plain), str(quantised)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "[3., 4., 5.]" in done.stdout
    assert 'pip install "treeload[gguf]"' in done.stdout


# --- A hostile header: one test for each way to lie --------------------------------------------------


def refused(path: Path, *, named: bool = True) -> str:
    with pytest.raises(SourceError) as caught:
        treeload.open(path)
    text = str(caught.value)
    assert (path.name in text or not named) and text.isprintable()
    return text


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def info(name: str | bytes = "w", sizes: tuple[int, ...] = (3, 2), code: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, code, offset)


def made(
    *infos: bytes, keys: tuple[bytes, ...] = (), data: int = 24, version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:  # fmt: skip
    tensors, said = counts or (len(infos), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, said) + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(data)


def key(name: str, code: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", code) + value


def array(code: int, count: int, value: bytes = b"") -> bytes:
    return struct.pack("<IQ", code, count) + value


HEADERS = {
    "nothing": (b"GGUF", "in the middle of its header"),
    "version 1": (made(version=1), "it is of version 1"),
    "version 4": (made(version=4), "it is of version 4"),
    "big-endian": (made(version=3 << 24), "written for a big-endian machine"),
    "more tensors than there can be": (made(counts=(2**60, 0)), "in the middle of its header"),
    "more keys than there can be": (made(counts=(0, 2**60)), "in the middle of its header"),
    "fewer tensors than it says": (made(info(), counts=(2, 0))[:75], "in the middle of its header"),
    "a name that does not end": (made(struct.pack("<Q", 2**62) + bytes(60)), "in the middle of its header"),
    "a name longer than any": (made(info("w" * 5000)), "a name of 5,000 bytes"),
    "a name of too many keys": (made(info("w." * 150)), "at most 100 are read"),
    "a name that is no text": (made(info(b"\xff\xfe")), "a text that is none"),
    "a tensor twice": (made(info(), info(offset=32), data=96), "the tensor 'w' is there twice"),
    "a key twice": (made(keys=(key("a", 0, b"\1"),) * 2), "the key 'a' is there twice"),
    "a value of no type": (made(keys=(key("a", 13, bytes(8)),)), "a value of type 13"),
    "an array of no type": (made(keys=(key("a", 9, array(99, 1, bytes(8))),)), "an array of type 99"),
    "an array that does not end": (made(keys=(key("a", 9, array(0, 2**62)),)), "in the middle of its header"),
    "texts that do not end": (made(keys=(key("a", 9, array(8, 2**58)),)), "in the middle of its header"),
    "arrays in arrays": (
        made(keys=(key("a", 9, array(9, 1, array(9, 1, array(9, 1, array(9, 1, array(9, 1, bytes(99))))))),)),
        "in 4 others"),
    "too many dimensions": (made(info(sizes=(1,) * 65)), "has 65 dimensions"),
    "a shape larger than any": (made(info(sizes=(2**40, 2**40))), "larger than any array"),
    "a large shape of nothing": (made(info(sizes=(0, 2**62))), "larger than any array"),
    "a type that nobody knows": (made(info(code=999)), "its type 999 is not known"),
    "a type that is no more": (made(info(code=4)), "its type 4 is not known"),
    "a type that is no floats": (made(info(sizes=(256,), code=15), data=999), "Q8_K cannot be turned"),
    "rows that are no blocks": (made(info(code=8)), "Q8_0 has blocks of 32 numbers"),
    "no rows at all": (made(info(sizes=(), code=8)), "its shape is []"),
    "a place between two": (made(info(offset=8), data=64), "begins at byte 8, which is no multiple of 32"),
    "a place behind the end": (made(info(offset=2**62)), "it is truncated"),
    "data that is cut short": (made(info(), data=23), "it is truncated"),
    "quantised data that is cut short": (made(info(sizes=(32, 2), code=8), data=67), "it is truncated"),
    "tensors on each other": (made(info("a", (16,)), info("b", (16,), offset=32), data=99), "'b' overlaps"),
    "an alignment of nothing": (
        made(info(), keys=(key("general.alignment", 4, bytes(4)),)), "its alignment '0' is no power of two"),
    "an alignment of 3": (
        made(info(), keys=(key("general.alignment", 4, b"\3\0\0\0"),)), "its alignment '3' is no"),
    "an alignment in words": (
        made(info(), keys=(key("general.alignment", 8, text("a")),)), "its alignment 'a' is no power of two"),
    "an alignment past the file": (
        made(info(), keys=(key("general.alignment", 10, struct.pack("<Q", 2**40)),)), "is no power of two"),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path: Path, case: str) -> None:
    raw, why = HEADERS[case]
    (tmp_path / "x.gguf").write_bytes(raw)
    assert why in refused(tmp_path / "x.gguf")


def test_a_header_that_is_right_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(
        made(info(), info("v", (32,), 8, 32), keys=(key("a", 7, b"\1"),), data=66)
    )
    source = treeload.open(tmp_path / "x.gguf")
    assert source.metadata == {"a": True}
    assert {str(name): spec.shape for name, spec in source.specs().items()} == {"w": (2, 3), "v": (32,)}
    assert all(not array.any() for _, array in source.read(source.specs()))


def test_more_texts_than_any_vocabulary_has_are_not_gone_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_MOST_VALUES", 100)
    (tmp_path / "x.gguf").write_bytes(made(keys=(key("a", 9, array(8, 101, bytes(808))),)))
    assert "more than 100 texts" in refused(tmp_path / "x.gguf")


def test_a_large_vocabulary_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(made(keys=(key("a", 9, array(8, 200_000, text("token") * 200_000)),)))
    tracemalloc.start()
    treeload.open(tmp_path / "x.gguf")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("left", [3, 20, 40, 100])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, left: int) -> None:
    path = quants.write(tmp_path / "x.gguf", {"w": W})
    path.write_bytes(path.read_bytes()[:left])
    refused(path)


def test_another_file_under_its_name_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("<!DOCTYPE html>\n<html>not found</html>")
    assert "web page" in refused(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").write_bytes(b"\1\2\3\4" * 9)
    assert "does not begin with 'GGUF'" in refused(tmp_path / "x.gguf")
