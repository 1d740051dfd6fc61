"""Directories that people have: one checkpoint beside other files, and the cache of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path

import flax.serialization
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import treeload
from treeload import From, SourceError

WEIGHTS = {"w": np.arange(3, dtype=np.float32)}


def msgpack(path: Path) -> Path:
    path.write_bytes(flax.serialization.msgpack_serialize(WEIGHTS))
    return path


def beside(directory: Path) -> Path:
    """What lies beside weights: files that are no checkpoints."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text('{"width": 3}')
    (directory / "tokenizer.json").write_text('{"version": "1.0", "words": ["' + "a" * 9000 + '"]}')
    (directory / "README.md").write_text("# A model\n")
    (directory / "vocab.txt").write_text("a\nb\n")
    (directory / "log.bin").write_bytes(b"\x07\x01\xff\x00" * 8)
    (directory / "plots").mkdir()
    return directory


@pytest.mark.parametrize("name", ["weights", "model.msgpack", "params.ckpt", "9f8e7d"])
def test_the_only_checkpoint_among_other_files_is_opened_and_named(name: str, tmp_path: Path) -> None:
    msgpack(beside(tmp_path / "a") / name)
    assert treeload.open(tmp_path / "a").label == f"{str(tmp_path / 'a' / name)!r} (Flax msgpack)"
    assert treeload.load({"w": jnp.zeros(3)}, tmp_path / "a")["w"].tolist() == [0, 1, 2]


def test_several_are_refused_and_named(tmp_path: Path) -> None:
    msgpack(beside(tmp_path / "a") / "one")
    msgpack(tmp_path / "a" / "two.ckpt")
    with pytest.raises(SourceError, match="holds the checkpoints 'one' and 'two.ckpt': open one of them"):
        treeload.open(tmp_path / "a")


def test_a_damaged_file_that_bears_a_formats_name_may_be_the_one_that_is_meant(tmp_path: Path) -> None:
    msgpack(beside(tmp_path / "a") / "one")
    (tmp_path / "a" / "two.msgpack").write_bytes(b"")
    with pytest.raises(SourceError, match="holds the checkpoints 'one' and 'two.msgpack'"):
        treeload.open(tmp_path / "a")


def test_a_checkpoint_that_is_a_directory_counts_and_is_not_entered(tmp_path: Path) -> None:
    treeload.save(beside(tmp_path / "a") / "run", WEIGHTS)
    with pytest.raises(SourceError, match="it holds one, 'run': open"):
        treeload.open(tmp_path / "a")
    msgpack(tmp_path / "a" / "best")
    with pytest.raises(SourceError, match="holds the checkpoints 'best' and 'run'"):
        treeload.open(tmp_path / "a")


def test_among_more_files_than_are_looked_at_none_is_the_only_one(tmp_path: Path) -> None:
    msgpack(beside(tmp_path / "a") / "+best")
    for number in range(400):
        (tmp_path / "a" / f"{number}.txt").touch()
    with pytest.raises(SourceError, match="it holds one, '\\+best': open"):
        treeload.open(tmp_path / "a")


def test_hidden_files_and_digests_are_no_checkpoints(tmp_path: Path) -> None:
    msgpack(beside(tmp_path / "a") / "one")
    msgpack(tmp_path / "a" / ".one.tmp")
    treeload.digest(tmp_path / "a" / "one")
    assert treeload.verify(tmp_path / "a").ok  # the digests beside the file that is meant
    assert treeload.open(tmp_path / "a").label.startswith(repr(str(tmp_path / "a" / "one")))


def test_digests_of_a_directory_are_held_against_the_file_in_it(tmp_path: Path) -> None:
    file = msgpack(beside(tmp_path / "a") / "one")
    treeload.digest(tmp_path / "a")
    assert treeload.verify(tmp_path / "a").ok
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert not treeload.verify(tmp_path / "a").ok


def test_of_the_files_that_libraries_write_safetensors_come_before_msgpack(tmp_path: Path) -> None:
    msgpack(beside(tmp_path / "a") / "flax_model.msgpack")
    safetensors.numpy.save_file(WEIGHTS, tmp_path / "a" / "model.safetensors")
    assert treeload.open(tmp_path / "a").label == f"{str(tmp_path / 'a')!r} (safetensors)"
    assert "(Flax msgpack)" in treeload.plan(WEIGHTS, From(tmp_path / "a", format="msgpack")).sources[0].label


def test_flax_weights_open_where_the_safetensors_beside_them_never_came(tmp_path: Path) -> None:
    msgpack(beside(tmp_path / "a") / "flax_model.msgpack")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert treeload.open(tmp_path / "a").label == f"{str(tmp_path / 'a')!r} (Flax msgpack)"


# The cache of Hugging Face.


def hub(path: Path, *revisions: str, main: str | None = None) -> Path:
    home = path / "models--org--name"
    for folder in ("refs", "blobs", "snapshots"):
        (home / folder).mkdir(parents=True)
    for revision in revisions:
        (home / "snapshots" / revision).mkdir()
        safetensors.numpy.save_file(WEIGHTS, home / "blobs" / f"b{revision}")
        (home / "snapshots" / revision / "model.safetensors").symlink_to(f"../../blobs/b{revision}")
    if main is not None:
        (home / "refs" / "main").write_text(main)
    return home


def test_the_only_snapshot_of_a_repository_is_opened_and_said(tmp_path: Path) -> None:
    home = hub(tmp_path, "1f2e")
    assert treeload.open(home).label == f"{str(home / 'snapshots' / '1f2e')!r} (safetensors)"
    assert treeload.open(home / "snapshots" / "1f2e").label == treeload.open(home).label
    assert treeload.load({"w": jnp.zeros(3)}, home)["w"].tolist() == [0, 1, 2]


def test_of_several_snapshots_that_of_main_is_opened(tmp_path: Path) -> None:
    home = hub(tmp_path, "1f2e", "9c8d", main="1f2e\n")
    assert treeload.open(home).label == f"{str(home / 'snapshots' / '1f2e')!r} (safetensors)"
    stated = From(home, format="safetensors")
    assert treeload.plan(WEIGHTS, stated).sources[0].label == treeload.open(home).label


@pytest.mark.parametrize("main", [None, "7777", "../../../elsewhere", "", "\xff" * 200])
def test_where_main_is_none_of_several_snapshots_they_are_named(main: str | None, tmp_path: Path) -> None:
    home = hub(tmp_path, "1f2e", "9c8d", main=main)
    (home / "refs" / "v1").write_text("9c8d")
    first, second = (repr(str(home / "snapshots" / revision)) for revision in ("1f2e", "9c8d"))
    with pytest.raises(SourceError) as caught:
        treeload.open(home)
    assert str(caught.value).endswith(f"open one of its snapshots, {first}, {second} (v1)")


def test_of_many_snapshots_some_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="and 2 more$"):
        treeload.open(hub(tmp_path, *(f"a{number}" for number in range(8))))


def test_a_repository_of_which_nothing_was_downloaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no snapshot: nothing was downloaded"):
        treeload.open(hub(tmp_path))


def test_a_snapshot_without_its_weights_is_not_passed_over(tmp_path: Path) -> None:
    home = hub(tmp_path, "1f2e", main="1f2e")
    (home / "blobs" / "b1f2e").unlink()
    with pytest.raises(SourceError, match="model.safetensors"):
        treeload.open(home)


def test_a_directory_of_repositories_names_them(tmp_path: Path) -> None:
    hub(tmp_path, "1f2e")
    with pytest.raises(SourceError, match="it holds one, 'models--org--name': open"):
        treeload.open(tmp_path)


# One file of several.


def test_one_shard_says_which_it_is_and_where_the_others_are(tmp_path: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, leaf in zip(names, "qw", strict=True):
        safetensors.numpy.save_file({leaf: np.ones(2, np.float32)}, tmp_path / name)
    first, index = tmp_path / names[0], tmp_path / "model.safetensors.index.json"
    assert "shard 1" not in treeload.open(first).label
    index.write_text(json.dumps({"weight_map": dict(zip("qw", names, strict=True))}))
    (tmp_path / "a.index.json").write_text("{}")
    told = f"{str(first)!r} (safetensors, shard 1 of 2; for all of them open {str(index)!r})"
    assert treeload.open(first).label == told
    dst = {"q": np.zeros(2, np.float32), "w": np.zeros(2, np.float32)}
    assert told in str(treeload.plan(dst, first)).replace("\n ", "")
    assert treeload.load({"q": dst["q"]}, treeload.From(first))["q"].sum() == 2
    assert treeload.load(dst, index)["w"].sum() == 2
    index.write_text(json.dumps({"weight_map": {"w": names[1]}}))
    assert "shard 1" not in treeload.open(first).label
