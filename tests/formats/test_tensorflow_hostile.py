"""One test for each way in which a bundle can be malformed: a SourceError that names the file and why."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from bundles import field

import treeload
from treeload import SourceError
from treeload._formats.tensorflow import bundle as reader

W = np.arange(6, dtype=np.float32).reshape(2, 3)


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


def index_of(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


# --- An entry that lies ------------------------------------------------------------------------------

LIES: dict[str, tuple[dict[str, Any], str]] = {
    "a dtype that nobody knows": ({"dtype": 99}, "its dtype number 99 cannot be read"),
    "a quantised dtype": ({"dtype": 12}, "its dtype DT_QUINT8 cannot be read"),
    "a packed dtype": ({"dtype": 29}, "its dtype DT_INT4 cannot be read"),
    "a reference": ({"dtype": 101}, "its dtype number 101 cannot be read"),
    "a size that is not the shape's": ({"size": 25}, r"float32\[2,3\] takes 24 bytes, and it has 25"),
    "a shape that is not the size's": ({"shape": bundles.shape([2, 4])}, "takes 32 bytes, and it has 24"),
    "a negative size": ({"size": -24}, "takes 24 bytes, and it has -24"),
    "a negative extent": ({"shape": bundles.shape([-2, -3])}, r"its shape \[-2, -3\] is none"),
    "a shape larger than any array": ({"shape": bundles.shape([2**40, 2**40])}, "none that an array"),
    "a large shape of nothing": ({"shape": bundles.shape([0, 2**62, 4])}, "none that an array"),
    "a shape that is not known": ({"shape": field(3, 1)}, "its shape is not known"),
    "too many dimensions": ({"shape": bundles.shape([1] * 65)}, "its shape has 65 dimensions"),
    "an offset behind the end": ({"offset": 8}, "is cut short: it has 24 bytes, and 'w' ends at byte 32"),
    "an offset past 64 bits of a sum": ({"offset": 2**63 - 8}, "is cut short"),
    "a negative offset": ({"offset": -8}, "it begins at byte -8"),
    "a data file that is none of them": ({"shard": 1}, "it lies in data file 1 of 1"),
    "a negative data file": ({"shard": -1}, "it lies in data file -1 of 1"),
    "slices": ({"more": field(7, field(1, b""))}, "it is a partitioned variable"),
    "a field of the wrong kind": ({"more": field(1, b"x")}, "its field 1 is no number"),
    "a message of the wrong kind": ({"more": field(7, 3)}, "its field 7 is no message"),
    "a number that does not end": ({"more": b"\x08\xff"}, "it ends in the middle of a number"),
    "a number of too many bytes": ({"more": b"\x08" + b"\xff" * 10 + b"\x01"}, "of more than 64 bits"),
    "a number of 70 bits": ({"more": b"\x08" + b"\xff" * 9 + b"\x7f"}, "of more than 64 bits"),
    "bytes that end behind it": ({"more": b"\x7a\x7f"}, "its field 15 ends behind it"),
    "a group": ({"more": b"\x7b"}, r"its field 15 is of a kind that is not in use \(3\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_an_entry_that_lies_is_refused_by_the_name_of_its_tensor(tmp_path: Path, case: str) -> None:
    lie, why = LIES[case]
    bundles.write(tmp_path / "x", {"w": W}, changed={"w": lie})
    text = refused(tmp_path / "x")
    assert "'w'" in text
    with pytest.raises(SourceError, match=why):
        treeload.open(tmp_path / "x")


def test_fields_that_nobody_knows_are_passed_over(tmp_path: Path) -> None:
    more = field(15, 1) + field(15, b"x") + bundles.varint(15 << 3 | 1) + bytes(8)
    bundles.write(tmp_path / "x", {"w": W}, changed={"w": {"more": more}})
    assert list(treeload.open(tmp_path / "x").specs()) == [("w",)]


def test_tensors_that_share_bytes_are_refused(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"a": W, "b": W}, changed={"b": {"offset": 4}})
    assert "'b' overlaps 'a'" in refused(tmp_path / "x")


def test_a_checksum_that_is_another_one_is_found_when_the_tensor_is_read(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"w": W}, changed={"w": {"crc": bytes(4)}})
    treeload.open(tmp_path / "x")
    assert "'w' is damaged" in refused(tmp_path / "x", read=True)


def test_a_boolean_that_is_neither_is_refused_though_its_checksum_is_right(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"w": np.array([1, 2], np.uint8)}, changed={"w": {"dtype": 10}})
    assert "neither 0 nor 1" in refused(tmp_path / "x", read=True)


# --- The header --------------------------------------------------------------------------------------

HEADERS = {
    "big-endian": (bundles.header(endianness=1), "written on a big-endian machine"),
    "newer": (bundles.header(min_consumer=2), "needs a reader of version 2"),
    "of no files": (bundles.header(0), "there are 0 data files"),
    "of too many files": (bundles.header(10**9), "there are 1,000,000,000 data files"),
    "of -1 files": (bundles.header(-1), "there are -1 data files"),
    "no message": (b"\xff", "in the middle of a number"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_cannot_be_followed_is_refused(tmp_path: Path, case: str) -> None:
    said, why = HEADERS[case]
    bundles.write(tmp_path / "x", {"w": W}, said=said)
    assert why in refused(tmp_path / "x")


def test_an_index_without_a_header_is_refused(tmp_path: Path) -> None:
    index_of(tmp_path / "x").write_bytes(bundles.table([(b"w", b"")]))
    assert "its first key is not the header's" in refused(tmp_path / "x")
    index_of(tmp_path / "x").write_bytes(bundles.table([]))
    assert "it holds nothing, not even the header" in refused(tmp_path / "x")


# --- The table ---------------------------------------------------------------------------------------

HEADER = (b"", bundles.header())
TEXT = bundles.entry(7, [], b"", 0)


def block_of(raw: bytes) -> bytes:
    """A block whose checksum is right, whatever is in it."""
    return bundles.sealed(raw)


def entries_of(raw: bytes) -> bytes:
    return block_of(raw + struct.pack("<II", 0, 1))


TABLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing but its end": (lambda: bundles.MAGIC, "it does not end as a table does"),
    "a footer that points behind": (
        lambda: (bundles.varint(2**40) * 4).ljust(40, b"\0") + bundles.MAGIC, "ends behind it"),
    "a footer of no numbers": (lambda: b"\xff" * 40 + bundles.MAGIC, "of more than 64 bits"),
    "a block behind the end": (
        lambda: bundles.of_blocks([bundles.block([HEADER])], [b""], offsets=[9000]), "ends behind it"),
    "one block twice": (
        lambda: bundles.of_blocks([bundles.block([HEADER])] * 2, [b"", b"a"], offsets=[0, 0]),
        "overlaps the one before it"),
    "keys twice": (lambda: bundles.table([HEADER, (b"w", TEXT), (b"w", TEXT)]), "its keys are not in order"),
    "keys out of order": (
        lambda: bundles.table([HEADER, (b"w", TEXT), (b"a", TEXT)]), "b'a' follows b'w'"),
    "keys out of order between blocks": (
        lambda: bundles.table([HEADER, (b"w", TEXT), (b"a", TEXT)], most=1), "b'a' follows b'w'"),
    "a compressed block": (
        lambda: bundles.of_blocks([bundles.block([HEADER], kind=1)], [b""]), "is compressed (snappy)"),
    "a block compressed in no known way": (
        lambda: bundles.of_blocks([bundles.block([HEADER], kind=9)], [b""]), "is compressed (method 9)"),
    "a block too short for its end": (
        lambda: bundles.of_blocks([block_of(b"\0\0")], [b""]), "a block without its end"),
    "restarts before the block": (
        lambda: bundles.of_blocks([block_of(struct.pack("<I", 2**32 - 1))], [b""]), "begin before it"),
    "a key that begins as none did": (
        lambda: bundles.of_blocks([entries_of(b"\x05\x00\x00")], [b""]), "says more than there is"),
    "a key that ends behind the block": (
        lambda: bundles.of_blocks([entries_of(b"\x00\x7f\x00a")], [b""]), "says more than there is"),
    "a value that ends behind the block": (
        lambda: bundles.of_blocks([entries_of(b"\x00\x00\x7fa")], [b""]), "says more than there is"),
    "an entry that is cut": (
        lambda: bundles.of_blocks([block_of(b"\x00\x80" + bytes(4))], [b""]), "in the middle of a number"),
    "a key that is no text": (lambda: bundles.table([HEADER, (b"\xff\xfe", b"")]), "is no text"),
    "a key that is longer than any": (
        lambda: bundles.table([HEADER, (b"a" * 20_000, b"")]), "a key of 20,000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_is_none_is_refused(tmp_path: Path, case: str) -> None:
    make, why = TABLES[case]
    index_of(tmp_path / "x").write_bytes(make())
    (tmp_path / "x.data-00000-of-00001").write_bytes(b"")
    text = refused(tmp_path / "x")
    assert why in text and "is no valid index of a TensorFlow checkpoint" in text


def test_every_flipped_bit_of_an_index_is_found(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"w": W, "v": W})
    index = index_of(tmp_path / "x")
    raw = index.read_bytes()
    footer = len(raw) - 48
    for at in range(footer):
        index.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :])
        assert "its checksum is another one" in refused(tmp_path / "x")


@pytest.mark.parametrize("left", [0, 1, 47, 48, 100])
def test_an_index_that_is_cut_short_is_refused(tmp_path: Path, left: int) -> None:
    bundles.write(tmp_path / "x", {"w": W})
    index = index_of(tmp_path / "x")
    index.write_bytes(index.read_bytes()[:left])
    for path in (tmp_path / "x", tmp_path / "x.index"):
        assert re.search("does not end as a table does|empty file|nothing but zeros", refused(path))


def test_a_short_index_does_not_make_endless_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"a" * 16_000
    raw = b"\0" + bundles.varint(len(key)) + b"\0" + key
    raw += b"".join(
        bundles.varint(len(key) - 1) + b"\x01\0" + bytes([98 + number % 2]) for number in range(9000)
    )
    index_of(tmp_path / "x").write_bytes(
        bundles.of_blocks([bundles.block([HEADER]), entries_of(raw)], [b"", b"b"])
    )
    tracemalloc.start()
    refused(tmp_path / "x")
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_keys_take_no_more_than_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treeload._formats.tensorflow.table._MOST_KEYS", 10)
    bundles.write(tmp_path / "x", {"abcdef": W, "abcdeg": W})
    assert "its keys take more than 10 bytes" in refused(tmp_path / "x")


def test_an_index_larger_than_any_is_not_read(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"w": W})
    with index_of(tmp_path / "x").open("r+b") as file:
        file.truncate(reader._MOST_BYTES + 1)
        file.seek(-8, os.SEEK_END)
        file.write(bundles.MAGIC)
    assert "are plenty" in refused(tmp_path / "x")


# --- Files -------------------------------------------------------------------------------------------


def test_a_data_file_that_is_missing_or_cut_short_is_named(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"v": W, "w": W}, shards=2)
    data = tmp_path / "x.data-00001-of-00002"
    data.write_bytes(data.read_bytes()[:-1])
    assert "x.data-00001-of-00002' is cut short" in refused(tmp_path / "x")
    data.unlink()
    assert "x.data-00001-of-00002" in refused(tmp_path / "x")


def test_a_data_file_is_no_link_out_of_its_directory(tmp_path: Path) -> None:
    bundles.write(tmp_path / "a" / "x", {"w": W})
    data = tmp_path / "a" / "x.data-00000-of-00001"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    assert "leads out" in refused(tmp_path / "a" / "x")


def test_a_data_file_that_is_a_pipe_is_not_opened(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"w": W})
    data = tmp_path / "x.data-00000-of-00001"
    data.unlink()
    os.mkfifo(data)
    assert "a pipe" in refused(tmp_path / "x")


def test_a_file_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"w": W})
    source = treeload.open(tmp_path / "x")
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(24))
    with pytest.raises(SourceError, match="has changed"):
        list(source.read(source.specs()))


@pytest.mark.parametrize("key", ["a/" * 150 + "b", "k" * 5000])
def test_a_name_longer_than_any_is_refused(tmp_path: Path, key: str) -> None:
    bundles.write(tmp_path / "x", {key: W})
    assert "at most" in refused(tmp_path / "x")


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"w": W, "w/.ATTRIBUTES/VARIABLE_VALUE": W})
    assert "two tensors are called 'w'" in refused(tmp_path / "x")


def test_a_checkpoint_file_that_says_nothing_is_refused(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"w": W})
    (tmp_path / "checkpoint").write_text("# model_checkpoint_path\n")
    assert "does not say which checkpoint is the latest" in refused(tmp_path)
