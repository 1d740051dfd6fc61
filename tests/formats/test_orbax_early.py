"""Trees of early Orbax: every source's laws, and one test a malformation; the real ones are in interop."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import numpy as np
import pytest
import tensorstore as ts
from pytrees import nest

import treeload
from treeload import SourceError
from treeload._formats.orbax.early import is_early
from treeload._naming.name import Name
from treeload._sources.source import Source
from treeload.testing import SourceConformance


def structure(directory: Path, tree: Any) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(tree))
    return directory


def array(directory: Path, value: np.ndarray[Any, Any]) -> Path:
    """One array as Orbax stores it."""
    kvstore = {"driver": "file", "path": f"{directory}/"}
    header = {"compressor": {"id": "gzip", "level": 1}, "shape": value.shape, "chunks": value.shape}
    dtype = {"bool": "|b1", "int8": "|i1", "uint8": "|u1"}.get(value.dtype.name)
    header["dtype"] = dtype or ("bfloat16" if value.dtype.name == "bfloat16" else value.dtype.str)
    store = ts.open({"driver": "zarr", "kvstore": kvstore, "metadata": header, "create": True}).result()
    store.write(value).result()
    return directory


class TestPacked(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return treeload.open(structure(directory / "c", nest(leaves)))


class TestHalfPacked(SourceConformance):
    """Every other leaf is an array of its own."""

    dtypes = ("float32", "float16", "int32", "int8", "bool", "bfloat16")

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        tree: dict[Name, Any] = dict(leaves)
        for name in list(leaves)[::2]:
            if leaves[name].size:
                tree[name] = f"PLACEHOLDER://{'.'.join(name)}"
                array(directory / "c" / ".".join(name), leaves[name])
        return treeload.open(structure(directory / "c", nest(tree)))


def values(path: Path) -> dict[str, Any]:
    source = treeload.open(path)
    return {str(name): np.asarray(value).tolist() for name, value in source.read(source.specs())}


def test_numbers_none_and_text_are_what_they_are(tmp_path: Path) -> None:
    path = structure(tmp_path / "c", {"i": 3, "f": 0.5, "n": None, "s": "relu", "w": np.ones(1), "e": {}})
    source = treeload.open(path)
    assert source.numbers() == {("i",), ("f",)} and source.absent() == {("n",): None}
    assert values(path) == {"i": 3, "f": 0.5, "w": [1]}


def test_an_item_and_a_step_may_be_early(tmp_path: Path) -> None:
    for step in (8, 11):
        (tmp_path / "run" / str(step)).mkdir(parents=True)
        structure(tmp_path / "run" / str(step) / "default", {"w": np.full(1, step)})
    assert treeload.open(tmp_path / "run").label.endswith("(Orbax, step 11)")
    assert values(tmp_path / "run") == {"w": [11]}
    structure(tmp_path / "run" / "11" / "ema", {"w": np.zeros(1)})
    with pytest.raises(SourceError, match="several items: 'default', 'ema'"):
        treeload.open(tmp_path / "run")


@pytest.mark.parametrize(
    "later", ["_METADATA", "_CHECKPOINT_METADATA", "_sharding", "array_metadatas", ".zgroup"]
)
def test_directories_alone_are_no_early_tree_where_anything_of_a_later_time_is(
    later: str, tmp_path: Path
) -> None:
    array(tmp_path / "c" / "w", np.ones(2))
    assert is_early(tmp_path / "c")
    (tmp_path / "c" / later).write_text("{}")
    assert not is_early(tmp_path / "c")


def test_a_neighbour_that_may_not_be_looked_into_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure(tmp_path / "5", {"w": np.ones(1)})
    (tmp_path / "private").mkdir()
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert values(tmp_path) == {"w": [1]}


def test_a_checkpoint_file_of_tensorflow_is_none_of_orbaxs(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    assert not is_early(tmp_path)


# Malformed.

BYTES = np.ones(2, np.float32)


def stored(path: Path) -> Path:
    """A tree of one packed leaf and one that is an array of its own, with the metadata of a later time."""
    structure(path, {"w": "PLACEHOLDER://w", "v": BYTES})
    array(path / "w", BYTES)
    return path


def metadata(path: Path, **leaves: str) -> Path:
    entries = {
        str((name,)): {
            "key_metadata": [{"key": name, "key_type": 2}],
            "value_metadata": {"value_type": kind, "skip_deserialize": False},
        }
        for name, kind in leaves.items()
    }
    (path / "_METADATA").write_text(json.dumps({"tree_metadata": entries}))
    return path


def moved_out(file: Path) -> None:
    """The file, or the directory, is elsewhere, and a link in its place leads there."""
    file.rename(file.parent.parent / "out")
    file.symlink_to("../out")


def as_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def test_the_sound_form_of_the_malformed_ones_is_read(tmp_path: Path) -> None:
    assert values(stored(tmp_path / "c")) == {"w": [1, 1], "v": [1, 1]}
    assert values(metadata(tmp_path / "c", w="jax.Array", v="jax.Array")) == {"w": [1, 1], "v": [1, 1]}


def test_what_the_structure_says_is_none_or_text_is_no_array_whatever_the_metadata_says(
    tmp_path: Path,
) -> None:
    structure(tmp_path / "c", {"w": BYTES, "n": None, "s": "relu"})
    source = treeload.open(metadata(tmp_path / "c", w="jax.Array", n="jax.Array", s="jax.Array"))
    assert list(source.specs()) == [("w",)] and source.absent() == {("n",): None}


MALFORMED: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    "a structure that is cut short": (
        lambda p: (p / "checkpoint").write_bytes((p / "checkpoint").read_bytes()[:-1]),
        "checkpoint' is no structure of an Orbax checkpoint: it ends at byte",
    ),
    "a structure with a key twice": (
        lambda p: (p / "checkpoint").write_bytes(b"\x82\xa1w\x01\xa1w\x02"),
        "the key 'w' is there twice",
    ),
    "a structure that is another thing": (
        lambda p: (p / "checkpoint").write_bytes(b"[" * 100),
        "its file 'checkpoint' is not what that wrote",
    ),
    "an array that is not there": (
        lambda p: structure(p, {"x": "PLACEHOLDER://x", "w": "PLACEHOLDER://w"}),
        "'x' is listed in its metadata, but",
    ),
    "an array whose name leads out": (
        lambda p: (array(p.parent / "out", BYTES), structure(p, {"../out": "PLACEHOLDER://../out"})),
        "cannot read the header of '..\\\\/out'",
    ),
    "two leaves stored as one": (
        lambda p: structure(p, {"a.b": "PLACEHOLDER://a.b", "a": {"b": "PLACEHOLDER://a.b"}}),
        "are both stored as 'a.b'",
    ),
    "a name of too many keys": (
        lambda p: structure(p, nest({Name(["a"] * 101): "PLACEHOLDER://a"})),
        "a name of 101 keys",
    ),
    "a structure that is a link outwards": (
        lambda p: moved_out(p / "checkpoint"),
        "leads out to",
    ),
    "an array that is a link outwards": (
        lambda p: moved_out(p / "w"),
        "leads out to",
    ),
    "an array's chunk that is a pipe": (
        lambda p: as_a_pipe(p / "w" / "0"),
        "is no regular file",
    ),
    "a packed leaf that the metadata lacks": (
        lambda p: metadata(p, w="jax.Array"),
        "_METADATA' lists no leaf 'v', and 'checkpoint' beside it holds one",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), MALFORMED.values(), ids=list(MALFORMED))
def test_a_malformed_tree_is_refused_by_name(
    spoil: Callable[[Path], Any], reason: str, tmp_path: Path
) -> None:
    spoil(stored(tmp_path / "c"))
    if reason.startswith("its file"):
        (tmp_path / "c" / "w" / ".zarray").unlink()
    with pytest.raises(SourceError, match=re.escape(reason)):
        treeload.plan({"w": BYTES}, treeload.From(tmp_path / "c", format="orbax"))


def test_a_structure_that_is_a_link_outwards_is_refused_before_it_is_read(tmp_path: Path) -> None:
    moved_out(stored(tmp_path / "c") / "checkpoint")
    with pytest.raises(SourceError, match="leads out to"):
        treeload.open(tmp_path / "c")


DIRECTORIES: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    "a directory that is no array": (
        lambda p: (p / "x").mkdir(),
        "each directory is an array, and 'x' is none",
    ),
    "a leaf below another": (lambda p: array(p / "w.v", BYTES), "'w/v' lies below another one, 'w'"),
    "a name of too many keys": (lambda p: array(p / ".".join("a" * 101), BYTES), "a name of 101 keys"),
}


@pytest.mark.parametrize(("spoil", "reason"), DIRECTORIES.values(), ids=list(DIRECTORIES))
def test_directories_that_are_no_tree_are_refused_by_name(
    spoil: Callable[[Path], Any], reason: str, tmp_path: Path
) -> None:
    array(tmp_path / "c" / "w", BYTES)
    assert values(tmp_path / "c") == {"w": [1, 1]}
    spoil(tmp_path / "c")
    with pytest.raises(SourceError, match=re.escape(reason)):
        treeload.plan({"w": BYTES}, treeload.From(tmp_path / "c", format="orbax"))


def test_an_empty_key_is_one_and_what_other_programs_hide_is_none(tmp_path: Path) -> None:
    array(tmp_path / "c" / ".w", BYTES)
    array(tmp_path / "c" / "v", BYTES)
    (tmp_path / "c" / ".cache").mkdir()
    assert values(tmp_path / "c") == {r"\e/w": [1, 1], "v": [1, 1]}


def test_a_structure_that_changes_once_it_was_looked_at_is_not_read(tmp_path: Path) -> None:
    source = treeload.open(stored(tmp_path / "c"))
    structure(tmp_path / "c", {"w": "PLACEHOLDER://w", "v": BYTES * 2})
    with pytest.raises(SourceError, match="changed"):
        list(source.read(source.specs()))
