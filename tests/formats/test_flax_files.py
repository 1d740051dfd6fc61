"""Which msgpack files a path means: shards with their index, steps under any prefix; early named tuples."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import jax.numpy as jnp
import numpy as np
import pytest
from orbax_writers import flax_root
from pytrees import nest

import treeload
from treeload import SourceError
from treeload._formats.flax.source import MsgpackSource
from treeload._naming.name import Name
from treeload._sources.source import Source
from treeload.testing import SourceConformance

INDEX = "flax_model.msgpack.index.json"


def write(path: Path, tree: Any) -> Path:
    path.write_bytes(flax.serialization.msgpack_serialize(tree))
    return path


def shard(directory: Path, leaves: Mapping[Name, Any], *, count: int = 2) -> Path:
    """As transformers writes them: each shard a tree; the index has the names joined with ``/``."""
    directory.mkdir(exist_ok=True)
    files = [f"flax_model-{i + 1:05}-of-{count:05}.msgpack" for i in range(count)]
    weight_map: dict[str, str] = {}
    for i, file in enumerate(files):
        mine = dict(list(leaves.items())[i::count])
        write(directory / file, nest(mine))
        weight_map |= {"/".join(name): file for name in mine}
    index = {"metadata": {"total_size": 12}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index))
    return directory


class TestShards(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return treeload.open(shard(directory, leaves, count=min(2, len(leaves))))


LEAVES = {Name(("a", "w")): np.ones(2, np.float32), Name(("a", "b")): np.zeros(1), Name(("c",)): np.int8(3)}


def values(src: Any) -> dict[str, Any]:
    source = treeload.open(src)
    return {str(name): np.asarray(array).tolist() for name, array in source.read(source.specs())}


@pytest.mark.parametrize("by", ["", INDEX])
def test_shards_open_by_their_directory_and_by_their_index(by: str, tmp_path: Path) -> None:
    where = shard(tmp_path / "m", LEAVES) / by
    (tmp_path / "m" / "config.json").write_text("{}")
    source = treeload.open(where)
    assert source.label == f"{str(where)!r} (Flax msgpack, 2 shards)"
    assert source.metadata == {"total_size": 12}
    assert values(where) == {"a/w": [1, 1], "a/b": [0], "c": 3}


def test_a_number_and_a_none_are_leaves_of_a_shard_too(tmp_path: Path) -> None:
    source = treeload.open(shard(tmp_path, {Name(("n",)): 3, Name(("x",)): None, Name(("w",)): np.ones(1)}))
    assert source.numbers() == {("n",)} and source.absent() == {("x",): None}


def test_one_shard_alone_is_a_file_of_its_own(tmp_path: Path) -> None:
    shard(tmp_path, LEAVES)
    assert values(tmp_path / "flax_model-00002-of-00002.msgpack") == {"a/b": [0]}


def test_the_file_of_transformers_is_meant_by_its_directory(tmp_path: Path) -> None:
    write(tmp_path / "flax_model.msgpack", {"w": np.ones(1)})
    write(tmp_path / "opt_state.msgpack", {"w": np.zeros(1)})
    assert values(tmp_path) == {"w": [1]}


def change(file: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(how(content) or content))


def moved_out(file: Path) -> None:
    """The file is elsewhere, and a link in its place leads there."""
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to("../elsewhere")


WRONG: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    "a shard that is not there": (
        lambda p: (p / "flax_model-00002-of-00002.msgpack").unlink(),
        "flax_model-00002-of-00002.msgpack",
    ),
    "a leaf that its shard lacks": (
        lambda p: change(p / INDEX, lambda c: c["weight_map"].update(d="flax_model-00001-of-00002.msgpack")),
        "lacks 'd'",
    ),
    "a leaf that the index lacks": (
        lambda p: change(p / INDEX, lambda c: c["weight_map"].pop("c") and None),
        "does not list: 'c'",
    ),
    "a leaf in two shards": (
        lambda p: write(p / "flax_model-00002-of-00002.msgpack", {"a": {"b": np.zeros(1)}, "c": 3}),
        "'c' is in 2 shards",
    ),
    "a shard outside of the directory": (
        lambda p: change(p / INDEX, lambda c: c["weight_map"].update(c="../c.msgpack")),
        "is not the name of a file beside the index",
    ),
    "a shard that is a link outwards": (
        lambda p: moved_out(p / "flax_model-00002-of-00002.msgpack"),
        "leads out to",
    ),
    "a shard that is damaged": (
        lambda p: (p / "flax_model-00002-of-00002.msgpack").write_bytes(b"\x81\xa1w"),
        "flax_model-00002-of-00002.msgpack' (Flax msgpack): it ends at byte 3",
    ),
    "an index that is none": (lambda p: change(p / INDEX, lambda c: {"weights": 1}), "has no 'weight_map'"),
    "an index of no text": (lambda p: (p / INDEX).write_bytes(b"\xff"), "is no valid index"),
    "both the file and its index": (
        lambda p: write(p / "flax_model.msgpack", {"w": 1}),
        f"several msgpack checkpoints: 'flax_model.msgpack', '{INDEX}'",
    ),
    "the index and steps": (
        lambda p: write(p / "checkpoint_3", {"w": 1}),
        f"several msgpack checkpoints: '{INDEX}', 'checkpoint_3'",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_with_shards_is_refused_by_name(
    spoil: Callable[[Path], Any], reason: str, tmp_path: Path
) -> None:
    spoil(shard(tmp_path / "m", LEAVES))
    with pytest.raises(SourceError, match=re.escape(reason)):
        treeload.open(tmp_path / "m")


# Steps.


@pytest.mark.parametrize("prefix", ["checkpoint_", "model_", "ckpt", "", "run-a_", "v1.5_"])
def test_flaxs_own_files_open_under_any_prefix(prefix: str, tmp_path: Path) -> None:
    root = flax_root(tmp_path, {"w": np.full(2, 10)}, orbax=False, prefix=prefix)
    (root / "config.json").write_text("{}")
    assert values(root / f"{prefix}2") == {"other": 1}
    assert values(root) == {"w": [10, 10]}
    assert treeload.open(root).label == f"{str(root)!r} (Flax msgpack, step 10)"


def test_steps_of_two_prefixes_are_refused_with_their_names(tmp_path: Path) -> None:
    for name in ("model_1", "ema_2"):
        write(tmp_path / name, {"w": np.ones(1)})
    with pytest.raises(SourceError, match="steps of several series: 'ema_2', 'model_1'"):
        treeload.open(tmp_path)


def test_a_step_that_is_a_link_outwards_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write(tmp_path / "elsewhere", {"w": np.ones(1)})
    (tmp_path / "run" / "checkpoint_1").symlink_to("../elsewhere")
    with pytest.raises(SourceError, match="leads out to"):
        treeload.open(tmp_path / "run")


# The named tuples of early Flax.


def named_tuple(name: Any, fields: Any, content: Any) -> dict[str, Any]:
    return {"name": name, "fields": fields, "values": content}


@pytest.mark.parametrize("form", [lambda each: {str(i): x for i, x in enumerate(each)}, list])
def test_a_named_tuple_of_early_flax_is_read_with_its_fields_as_names(form: Any, tmp_path: Path) -> None:
    inner = named_tuple("TraceState", form(["trace"]), form([{"w": np.ones(2)}]))
    empty = named_tuple("EmptyState", form([]), form([]))
    state = named_tuple("ScaleByAdamState", form(["count", "mu"]), form([np.int32(4), inner]))
    source = treeload.open(write(tmp_path / "x", {"opt": {"0": state, "1": empty}}))
    assert list(map(str, source.specs())) == ["opt/0/count", "opt/0/mu/trace/w"]
    assert values(tmp_path / "x") == {"opt/0/count": 4, "opt/0/mu/trace/w": [1, 1]}


def test_flax_itself_reads_that_form(tmp_path: Path) -> None:
    import optax

    optimizer = optax.scale_by_adam()
    params = {"w": jnp.ones(2)}
    mu, nu = {"w": np.full(2, 3.0, np.float32)}, {"w": np.full(2, 5.0, np.float32)}
    fields, content = ["count", "mu", "nu"], [np.int32(7), mu, nu]
    early = named_tuple("State", *({str(i): x for i, x in enumerate(each)} for each in (fields, content)))
    theirs = flax.serialization.from_state_dict(optimizer.init(params), early)
    ours = treeload.load(optimizer.init(params), write(tmp_path / "x", early))
    assert type(ours) is type(theirs) and ours.count == theirs.count == 7
    assert ours.mu["w"].tolist() == theirs.mu["w"].tolist() and ours.nu["w"].tolist() == [5, 5]


@pytest.mark.parametrize(
    "tree",
    [
        named_tuple(np.ones(1), {"0": "a"}, {"0": np.ones(1)}),
        named_tuple("T", {"0": "a"}, {"0": np.ones(1), "1": np.ones(1)}),
        named_tuple("T", {"0": "a", "2": "b"}, {"0": np.ones(1), "2": np.ones(1)}),
        named_tuple("T", {"0": "a", "1": "a"}, {"0": np.ones(1), "1": np.ones(1)}),
        named_tuple("T", {"0": np.ones(1)}, {"0": np.ones(1)}),
        named_tuple("T", "a", {"0": np.ones(1)}),
        {**named_tuple("T", {"0": "a"}, {"0": np.ones(1)}), "more": np.ones(1)},
    ],
)
def test_what_only_has_those_three_keys_keeps_them(tree: Any, tmp_path: Path) -> None:
    names = list(map(str, MsgpackSource(write(tmp_path / "x", tree)).specs()))
    assert "a" not in names and any(name.startswith("values/") for name in names)
