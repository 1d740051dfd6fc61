"""Flax's msgpack files: what is read from them, and one test a malformation."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pytrees import nest

import treeload
from treeload._errors import SourceError
from treeload._formats.flax.source import MsgpackSource, is_named, recognises
from treeload._naming.name import Name
from treeload._sources.source import Source
from treeload.testing import SourceConformance


def _write(path: Path, tree: Any) -> Path:
    path.write_bytes(flax.serialization.msgpack_serialize(tree))
    return path


class TestFlaxMsgpack(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return MsgpackSource(_write(directory / "flax_model.msgpack", nest(leaves)))


class TestFlaxMsgpackInPieces(SourceConformance):
    """As Flax writes arrays above a gibibyte."""

    @pytest.fixture(autouse=True)
    def _small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 16)

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return MsgpackSource(_write(directory / "flax_model.msgpack", nest(leaves)))


def _values(path: Path) -> dict[str, Any]:
    source = MsgpackSource(path)
    return {str(name): array for name, array in source.read(source.specs())}


def test_numbers_text_and_none(tmp_path: Path) -> None:
    tree = {"i": -3, "big": 2**63, "f": 0.5, "t": True, "c": 1 + 2j, "np": np.float16(2), "s": "x", "n": None}
    path = _write(tmp_path / "x.msgpack", tree)
    values = _values(path)
    assert {key: (str(value.dtype), value.item()) for key, value in values.items()} == {
        "i": ("int64", -3),
        "big": ("uint64", 2**63),
        "f": ("float64", 0.5),
        "t": ("bool", True),
        "c": ("complex128", 1 + 2j),
        "np": ("float16", 2),
    }
    assert MsgpackSource(path).absent() == {Name(("n",)): None}


def test_lists_and_numbered_keys_are_names_alike(tmp_path: Path) -> None:
    assert set(_values(_write(tmp_path / "x.msgpack", {"a": [1, 2], "b": {3: 4}}))) == {"a/0", "a/1", "b/3"}


def test_a_sharded_request_is_placed(tmp_path: Path) -> None:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:4]), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    source = MsgpackSource(_write(tmp_path / "x.msgpack", {"w": jnp.arange(8)}))
    ((_, array),) = source.read({Name(("w",)): jax.ShapeDtypeStruct((8,), np.int32, sharding=sharding)})
    assert array.sharding == sharding
    np.testing.assert_array_equal(array, np.arange(8))


def _packed(payload: bytes, *, code: int = 1) -> bytes:
    """A map of one key, ``w``, whose value is an extension."""
    return b"\x81\xa1w" + b"\xc7" + bytes([len(payload), code]) + payload


SOUND = b"\x93\x91\x02\xa7float32\xc4\x08" + bytes(8)  # [[2], "float32", 8 bytes]

MALFORMED = {
    "nothing": (b"", "it ends at byte 0"),
    "a byte that begins no value": (b"\xc1", "byte 0 is 0xc1, which begins no msgpack value"),
    "a map that ends early": (b"\x82\xa1w\x01", "it ends at byte 4"),
    "a map larger than the file": (b"\xdf\xff\xff\xff\xff", "it ends at byte 5"),
    "an array larger than the file": (b"\xdd\xff\xff\xff\xff", "it ends at byte 5"),
    "a text larger than the file": (b"\x81\xdb\x00\xff\xff\xff", "it ends at byte 6"),
    "bytes larger than the file": (b"\x81\xa1w\xc6\xff\xff\xff\xff", "it ends at byte 8"),
    "an extension larger than the file": (b"\x81\xa1w\xc9\xff\xff\xff\xff\x01", "it ends at byte 9"),
    "a key twice": (b"\x82\xa1w\x01\xa1w\x02", "the key 'w' is there twice"),
    "a key that is no text": (b"\x81\xc0\x01", "a key that is neither text nor a number"),
    "a key that is no UTF-8": (b"\x81\xa1\xff\x01", "'utf-8' codec can't decode byte 0xff"),
    "bytes after the end": (b"\x80\x00", "1 bytes follow the end of the tree"),
    "no end of nesting": (b"\x91" * 100_000, "its tree is deeper than 200 levels"),
    "an unknown extension": (_packed(b"", code=9), "an extension of type 9, which Flax does not write"),
    "an array that is no triple": (
        _packed(b"\x92\x91\x02\x01"),
        "an array that is not [shape, dtype, bytes]",
    ),
    "an array of negative shape": (
        _packed(SOUND.replace(b"\x91\x02", b"\x91\xff")),
        "an array of shape [-1]",
    ),
    "an array of fractional shape": (
        _packed(b"\x93\x91\xcb" + bytes(8) + SOUND[3:]),
        "an array of shape [0.0]",
    ),
    "an array of too few bytes": (
        _packed(SOUND.replace(b"\x91\x02", b"\x91\x03")),
        "an array of shape [3] and dtype float32 with 8 bytes",
    ),
    "an array of an enormous shape": (
        _packed(SOUND.replace(b"\x91\x02", b"\x91\xcf" + b"\xff" * 8)),
        "an array of shape [18446744073709551615] and dtype float32 with 8 bytes",
    ),
    "an array of Python objects": (
        _packed(SOUND.replace(b"\xa7float32", b"\xa6object")),
        "an array of dtype 'object'",
    ),
    "an array of a dtype that is none": (
        _packed(SOUND.replace(b"\xa7float32", b"\xa7flaot32")),
        "data type 'flaot32' not understood",
    ),
    "an array that ends before its extension": (
        _packed(SOUND + b"\x00"),
        "an extension whose size (22 bytes) is not that of what it holds",
    ),
    "a complex number of three": (
        _packed(b"\x93" + (b"\xcb" + bytes(8)) * 3, code=2),
        "a complex number that is not two floats",
    ),
    "pieces without a shape": (
        b"\x82\xb9__msgpack_chunked_array__\xc3\xa6chunks\x80",
        "an array in pieces without its shape or its pieces",
    ),
    "arrays of another process": (
        b"\x81\xa1w\xb2//GDAPlaceholder:w",
        "in the '_gda' directory of a multi-process save",
    ),
}


def test_the_sound_form_of_the_malformed_ones_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.msgpack").write_bytes(_packed(SOUND))
    assert _values(tmp_path / "x.msgpack")["w"].tolist() == [0, 0]


@pytest.mark.parametrize(("content", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=f"x.msgpack.*{re.escape(reason)}"):
        MsgpackSource(path)


def test_a_file_that_is_cut_short_afterwards_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.msgpack", {"w": np.ones(100)})
    source = MsgpackSource(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError, match="x.msgpack' has changed since"):
        list(source.read(source.specs()))


@pytest.mark.parametrize("size", [16, 1 << 30], ids=["in pieces", "whole"])
@pytest.mark.parametrize(
    ("name", "was", "now"),
    [("n", b"\xa1n\x03", b"\xa1n\x04"), ("w", b"\x3f", b"\x3e")],
    ids=["number", "array"],
)
def test_a_changed_byte_is_found_by_the_digests_beside_it_in_a_number_and_in_pieces(
    name: str, was: bytes, now: bytes, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", size)
    path = _write(tmp_path / "x", {"n": 3, "w": np.ones(100, np.float32)})
    treeload.digest(path)
    assert treeload.verify(path).ok
    path.write_bytes(path.read_bytes().replace(was, now, 1))
    assert list(map(str, treeload.verify(path).damaged)) == [name]


def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.msgpack")
    assert not recognises(tmp_path / "x.msgpack")
    with pytest.raises(SourceError, match="x.msgpack' is a pipe"):
        MsgpackSource(tmp_path / "x.msgpack")


def test_what_is_recognised(tmp_path: Path) -> None:
    sound = _write(tmp_path / "x.msgpack", {"w": np.ones(2)})
    assert recognises(sound)
    assert not recognises(tmp_path)
    assert not recognises(tmp_path / "missing")
    assert recognises(_write(tmp_path / "x.other", {"w": 1}))
    assert not is_named(tmp_path / "x.other")
    (tmp_path / "y.msgpack").write_bytes(b"text")
    assert not recognises(tmp_path / "y.msgpack") and is_named(tmp_path / "y.msgpack")
    sound.rename(tmp_path / "checkpoint_3")
    assert recognises(tmp_path / "checkpoint_3") and recognises(tmp_path)
