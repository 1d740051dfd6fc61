"""Formats are told by their bytes: a name is a hint, and ``From(..., format=)`` states one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.serialization
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import treeload
from treeload import From, RuleError, SourceError
from treeload._files.beginning import beginning_of
from treeload._files.msgpack import begins_as_a_tree

WEIGHTS = {"w": np.arange(3, dtype=np.float32)}
BYTES: Mapping[str, Callable[[], bytes]] = {
    "safetensors": lambda: safetensors.numpy.save(WEIGHTS),
    "Flax msgpack": lambda: flax.serialization.msgpack_serialize(WEIGHTS),
}
NAMES = (
    "4f1b0a77d2", "weights", "x.mpk", "x.flax", "x.ckpt", "x.bin", "x.safetensors", "x.msgpack", "x.eqx",
    "x.pt", "x.npz", "x.h5", "x.gguf", "x.json", "checkpoint_3", "model.safetensors.index.json",
)  # fmt: skip


def values(src: Any) -> dict[str, Any]:
    source = treeload.open(src)
    return {str(name): array for name, array in source.read(source.specs())}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("label", "write"), BYTES.items(), ids=list(BYTES))
def test_a_file_is_what_its_bytes_say_whatever_it_is_called(
    label: str, write: Callable[[], bytes], name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(write())
    assert treeload.open(tmp_path / name).label == f"{str(tmp_path / name)!r} ({label})"
    np.testing.assert_array_equal(values(tmp_path / name)["w"], WEIGHTS["w"])


@pytest.mark.parametrize("name", ["weights", "x.msgpack", "x.safetensors"])
@pytest.mark.parametrize(
    "line",
    [
        b"", b'{"width": 3}\n', b'{"a": "' + b"x" * 9000 + b'"}\n', b"[1]\n",
        b'{"a": "' + b"x" * 500 + b'"}\n',  # what follows is cut by the first look
    ],
)  # fmt: skip
def test_equinoxs_records_are_told_with_and_without_their_line_of_json(
    name: str, line: bytes, tmp_path: Path
) -> None:
    with (tmp_path / name).open("wb") as file:
        file.write(line)
        eqx.tree_serialise_leaves(file, WEIGHTS)
    assert "(Equinox)" in treeload.open(tmp_path / name).label


def test_a_numpy_array_is_equinoxs_unless_its_name_says_that_it_is_numpys(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones(3))
    (tmp_path / "w").write_bytes((tmp_path / "w.npy").read_bytes())
    assert "(Equinox)" in treeload.open(tmp_path / "w").label
    with pytest.raises(SourceError, match="is one NumPy array"):
        treeload.open(tmp_path / "w.npy")
    stated = From(tmp_path / "w.npy", format="equinox", by_position=True)
    np.testing.assert_array_equal(treeload.load([jnp.zeros(3)], stated)[0], np.ones(3))


def test_a_blob_of_the_hugging_face_cache_opens(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / "9f8e7d"
    blob.write_bytes(safetensors.numpy.save(WEIGHTS))
    assert list(treeload.open(blob).specs()) == [("w",)]


@pytest.mark.parametrize(
    "first",
    [
        b"\x80", b"\x80\x04\x95\x00", b"\x80\xa1w\x01", b"\x81", b"\x81\x01\x01", b"\x81\xa1\xff\x01",
        b"\x81\xa1\n\x01",
        b"\x89HDF\r\n\x1a\n", b"\x89PNG\r\n\x1a\n", b"\x81\xa9short", b"\xde\x00", b"\x8bw",
        b"\x81\xd9\x05abc",
    ],
)  # fmt: skip
def test_what_only_seems_to_be_msgpack_needs_its_name(first: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(first)
    assert not begins_as_a_tree(beginning_of(tmp_path / "x"))
    with pytest.raises(SourceError):
        treeload.open(tmp_path / "x")


@pytest.mark.parametrize("size", [1, 31, 32, 255, 256, 1000, 5000])
@pytest.mark.parametrize("keys", [1, 15, 16, 70_000])
def test_a_map_of_any_size_with_a_key_of_any_length_is_told(size: int, keys: int, tmp_path: Path) -> None:
    if size < 1000 or keys < 17:
        tree = {f"{i:0{size}d}"[-size:] if i else "k" * size: i for i in range(min(keys, 10 ** min(size, 5)))}
        (tmp_path / "x").write_bytes(flax.serialization.msgpack_serialize(tree))
        assert begins_as_a_tree(beginning_of(tmp_path / "x"))


@pytest.mark.parametrize(("claimed", "why"), [("x.safetensors", "safetensors"), ("x.msgpack", "msgpack"),
                                              ("x.eqx", "NumPy array")])  # fmt: skip
def test_where_bytes_say_nothing_the_name_decides_who_explains(
    claimed: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / claimed).write_bytes(b"\x07\x01\xff\x00" * 8)
    with pytest.raises(SourceError, match=why) as caught:
        treeload.open(tmp_path / claimed)
    assert "It knows" not in str(caught.value)


def test_a_directory_whose_file_is_of_another_format_than_its_name_says_opens(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(flax.serialization.msgpack_serialize(WEIGHTS))
    assert "model.safetensors' (Flax msgpack)" in treeload.open(tmp_path).label


# An index, whatever it is called.


@pytest.mark.parametrize(
    "name", ["model.safetensors.index.json", "pytorch_model.bin.index.json", "x.index.json"]
)
def test_an_index_is_of_the_format_of_its_shards(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(safetensors.numpy.save({"a.w": np.ones(1)}))
    (tmp_path / "b.bin").write_bytes(safetensors.numpy.save({"b.w": np.ones(2)}))
    (tmp_path / name).write_text(json.dumps({"weight_map": {"a.w": "a.bin", "b.w": "b.bin"}}))
    source = treeload.open(tmp_path / name)
    assert source.label.endswith("(safetensors, 2 shards)") and set(values(tmp_path / name)) == {"a/w", "b/w"}


# One that is stated.


def test_a_stated_format_opens_what_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x81\x07\xca\x3f\x80\x00\x00")  # {7: 1.0}: a key that is a number
    with pytest.raises(SourceError, match=r'state it: From\(path, format="msgpack"\)'):
        treeload.open(tmp_path / "x")
    assert treeload.load({"7": 0.0}, From(tmp_path / "x", format="msgpack")) == {"7": 1.0}
    assert "7  float64[]" in str(treeload.inspect(From(tmp_path / "x", format="msgpack")))


def test_a_stated_format_that_is_not_the_one_says_both(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors.numpy.save(WEIGHTS))
    with pytest.raises(SourceError) as caught:
        treeload.plan(WEIGHTS, From(tmp_path / "x", format="msgpack"))
    assert str(caught.value).startswith(
        f"{str(tmp_path / 'x')!r} cannot be opened in the format 'msgpack', which was stated; by its bytes "
        "it is of the format 'safetensors': "
    )
    assert "bytes follow the end of the tree" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "but"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "stated; it is a pointer of Git LFS"),
     (safetensors.numpy.save(WEIGHTS)[:-1], "stated: .*it is truncated"), (b"\7\1\xff\0" * 9, "stated: ")],
)  # fmt: skip
def test_a_stated_format_whose_file_is_damaged_says_what_else_it_is(
    content: bytes, but: str, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(SourceError, match=f"in the format 'safetensors', which was {but}"):
        treeload.plan(WEIGHTS, From(tmp_path / "x", format="safetensors"))


def test_a_format_that_is_none_is_refused_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors.numpy.save(WEIGHTS))
    with pytest.raises(
        RuleError, match=r"no such format. Did you mean 'safetensors'\? There are 'safetensors', "
    ):
        treeload.plan(WEIGHTS, From(tmp_path / "x", format="safetensor"))
    with pytest.raises(RuleError, match="no such format. There are 'safetensors', 'hdf5'"):
        treeload.plan(WEIGHTS, From(tmp_path / "x", format="\x1b[31m"))
    with pytest.raises(RuleError, match="it is the name of a format"):
        From(tmp_path / "x", format=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("src", [WEIGHTS, treeload.From], ids=["tree", "source"])
def test_a_format_is_stated_of_a_path_alone(src: Any, tmp_path: Path) -> None:
    if src is treeload.From:
        (tmp_path / "x").write_bytes(safetensors.numpy.save(WEIGHTS))
        src = treeload.open(tmp_path / "x")
    with pytest.raises(RuleError, match=r"From\(format='msgpack'\) is for a path"):
        treeload.plan(WEIGHTS, From(src, format="msgpack"))


def test_a_path_that_does_not_exist_is_no_stated_format(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="x' does not exist"):
        treeload.plan(WEIGHTS, From(tmp_path / "x", format="msgpack"))


def test_an_optimizers_state_may_have_its_format_stated(tmp_path: Path) -> None:
    import optax

    params = {"w": jnp.ones(3)}
    optimizer = optax.adam(1e-3)
    (tmp_path / "x").write_bytes(flax.serialization.to_bytes({"opt_state": optimizer.init(params)}))
    for stated, fits in (("msgpack", True), ("equinox", False)):
        src = From(tmp_path / "x", format=stated)
        if fits:
            assert treeload.finetune.restore_optimizer(optimizer, params, src)
        else:
            with pytest.raises(SourceError, match="in the format 'equinox'"):
                treeload.finetune.restore_optimizer(optimizer, params, src)


def test_inspect_takes_what_says_how_to_open_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors.numpy.save({"a.w": np.ones(1)}))
    assert "a.w" in str(treeload.inspect(From(tmp_path / "x", separator="/")))
    with pytest.raises(RuleError, match="item, separator, format and whole alone"):
        treeload.inspect(From(tmp_path / "x", subtree="a"))
