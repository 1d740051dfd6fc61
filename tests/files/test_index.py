"""The index of a sharded directory says which file holds which tensor, and is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._errors import SourceError
from treeload._files import index as module
from treeload._files.index import ShardIndex, read_index
from treeload._files.open import File

NAME = "model.index.json"


def written(directory: Path, content: Any, *shards: str) -> Path:
    for shard in shards:
        (directory / shard).write_bytes(b"shard")
    text = content if isinstance(content, str) else json.dumps(content)
    (directory / NAME).write_text(text)
    return directory


def index_of(tensors: dict[str, str]) -> ShardIndex:
    files = {shard: File(Path(shard), shard, 0, ()) for shard in tensors.values()}
    return ShardIndex(File(Path(NAME), NAME, 0, ()), files, tensors, {})


MAPS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.sampled_from(["x", "y", "z"]), max_size=6)


@given(MAPS)
def test_shards_that_hold_what_the_index_says_pass(tensors: dict[str, str]) -> None:
    found: dict[str, list[str]] = {shard: [] for shard in tensors.values()}
    for tensor, shard in tensors.items():
        found[shard].append(tensor)
    index_of(tensors).check(found)


@given(MAPS.filter(bool), st.data())
def test_a_tensor_that_is_lacking_moved_or_twice_is_found_out(
    tensors: dict[str, str], data: st.DataObject
) -> None:
    found: dict[str, list[str]] = {shard: [] for shard in "xyz"}
    for tensor, shard in tensors.items():
        found[shard].append(tensor)
    tensor = data.draw(st.sampled_from(sorted(tensors)))
    home = tensors[tensor]
    other = data.draw(
        st.sampled_from([shard for shard in dict.fromkeys(tensors.values()) if shard != home] or [home])
    )
    change = data.draw(st.sampled_from(["lacks", "moved"] if other == home else ["lacks", "moved", "twice"]))
    if change != "twice":
        found[home].remove(tensor)
    if change != "lacks" and other != home:
        found[other].append(tensor)
    with pytest.raises(SourceError, match="lacks|is in 2 shards"):
        index_of(tensors).check(found)


def test_a_tensor_that_the_index_does_not_list_is_named_with_its_shard() -> None:
    with pytest.raises(SourceError, match=r"'x' holds what 'model.index.json' does not list: 'b', 'c'"):
        index_of({"a": "x"}).check({"x": ["a", "b", "c"]})


def test_order_is_that_of_the_index(tmp_path: Path) -> None:
    written(tmp_path, {"weight_map": {"b": "2", "a": "1", "c": "2"}}, "1", "2")
    index = read_index(tmp_path, NAME)
    assert list(index.tensors) == ["b", "a", "c"]
    assert list(index.shards) == ["2", "1"]
    assert index.metadata == {}
    assert index.shards["1"].size == 5


def test_metadata_is_what_it_says_besides(tmp_path: Path) -> None:
    written(tmp_path, {"weight_map": {}, "metadata": {"total_size": 3}, "other": 1})
    assert read_index(tmp_path, NAME).metadata == {"total_size": 3}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "no 'weight_map'"),
        ({}, "no 'weight_map'"),
        ({"weight_map": ["a"]}, "no 'weight_map'"),
        ({"weight_map": {"a": 1}}, "no 'weight_map'"),
        ({"weight_map": {}, "metadata": []}, "'metadata' is no object"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "the key 'a' is there twice"),
        ('{"weight_map": {}, "metadata": {"n": NaN}}', "NaN is not JSON"),
        ("{", "no valid index"),
        ({"weight_map": {"a": "missing"}}, "cannot open"),
        ({"weight_map": {"a": "../x"}}, "is not the name of a file beside the index"),
    ],
)
def test_an_index_that_is_none_says_why(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        read_index(written(tmp_path, content), NAME)


def test_bytes_that_are_no_text_are_no_index(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match="no valid index"):
        read_index(tmp_path, NAME)


def test_an_index_of_just_the_largest_size_is_read_and_of_one_byte_more_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps({"weight_map": {}})
    monkeypatch.setattr(module, "_MAX_INDEX", len(text))
    assert read_index(written(tmp_path, text), NAME).tensors == {}
    with pytest.raises(SourceError, match="are plenty"):
        read_index(written(tmp_path, text + " "), NAME)
