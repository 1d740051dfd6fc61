"""Where a directory keeps its tree, told from names of files alone; arrays are in ``test_orbax``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from treeload._errors import SourceError
from treeload._formats.orbax.layout import (
    Layout,
    check_files,
    is_checkpoint,
    is_incomplete,
    locate,
    read_custom_metadata,
    read_key_impls,
    read_tree_metadata,
    recognises,
)

TMP = ".orbax-checkpoint-tmp"


def tree_at(path: Path, content: Any = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "_METADATA").write_text(json.dumps({"tree_metadata": {}} if content is None else content))
    return path


def entry(*keys: str, kind: str = "np.ndarray") -> dict[str, Any]:
    return {"key_metadata": [{"key": key} for key in keys], "value_metadata": {"value_type": kind}}


def layout_of(path: Path, *entries: dict[str, Any], **options: Any) -> Layout:
    tree_at(path, {"tree_metadata": {str(n): each for n, each in enumerate(entries)}, **options})
    return Layout(path, path, None, None)


# --- where the tree is ------------------------------------------------------------------------------


def test_a_directory_may_be_the_tree_itself(tmp_path: Path) -> None:
    root = tree_at(tmp_path / "c")
    assert locate(root, None) == Layout(root, root, None, None)
    with pytest.raises(SourceError, match="holds one tree and no items, so no item 'x'"):
        locate(root, "x")


def test_the_only_item_is_meant_and_of_several_one_is_chosen(tmp_path: Path) -> None:
    state = tree_at(tmp_path / "state")
    assert locate(tmp_path, None) == Layout(tmp_path, state, None, None)
    tree_at(tmp_path / "ema")
    with pytest.raises(SourceError, match="holds several items: 'ema', 'state'; choose one"):
        locate(tmp_path, None)
    assert locate(tmp_path, "state") == Layout(tmp_path, state, None, "state")
    with pytest.raises(SourceError, match="it has the items 'ema', 'state'"):
        locate(tmp_path, "other")


@pytest.mark.parametrize("numbers", [[9, 10], [10, 9, 100], [0]])
def test_of_several_steps_the_latest_complete_one_is_meant(tmp_path: Path, numbers: list[int]) -> None:
    for number in numbers:
        tree_at(tmp_path / str(number) / "default")
    tree_at(tmp_path / f"999{TMP}-1" / "default")
    (tmp_path / "1000").mkdir()  # a number, but no checkpoint
    found = locate(tmp_path, None)
    assert (found.step, found.tree) == (max(numbers), tmp_path / str(max(numbers)) / "default")


def test_a_later_file_of_flaxs_takes_the_steps_out_of_our_hands(tmp_path: Path) -> None:
    tree_at(tmp_path / "checkpoint_3")
    (tmp_path / "checkpoint_2").write_bytes(b"msgpack")
    assert locate(tmp_path, None).step == 3 and recognises(tmp_path)
    (tmp_path / "checkpoint_4").write_bytes(b"msgpack")
    assert not recognises(tmp_path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "does not exist$"),
        (lambda p: p.write_text(""), "is no directory"),
        (lambda p: p.mkdir(), "is an empty directory"),
        (lambda p: tree_at(p / f"3{TMP}-7"), f"holds no complete checkpoint, only '3{TMP}-7'"),
        (lambda p: tree_at(p.with_name(p.name + TMP)), "beside it was never completed"),
        (lambda p: (p.mkdir(), (p / "checkpoint").write_text("")), "may be of an early Orbax"),
        (lambda p: (p / "x").mkdir(parents=True), "is no Orbax checkpoint"),
        (lambda p: (p.mkdir(), (p / "_CHECKPOINT_METADATA").write_text("{}")), "holds no tree"),
    ],
)
def test_where_there_is_no_tree_it_is_said_why(tmp_path: Path, make: Any, says: str) -> None:
    make(tmp_path / "c")
    with pytest.raises(SourceError, match=says):
        locate(tmp_path / "c", None)


def test_a_directory_that_its_writer_did_not_finish_is_recognised_and_refused(tmp_path: Path) -> None:
    path = tree_at(tmp_path / f"5{TMP}")
    assert is_incomplete(path.name) and recognises(path)
    with pytest.raises(SourceError, match="its writer died before it was done"):
        locate(path, None)


def test_a_directory_of_steps_is_not_itself_a_checkpoint(tmp_path: Path) -> None:
    tree_at(tmp_path / "1")
    assert not is_checkpoint(tmp_path) and is_checkpoint(tmp_path / "1")
    tree_at(tmp_path / "state")
    assert is_checkpoint(tmp_path)


# --- what its files say -----------------------------------------------------------------------------


def test_leaves_nones_and_empty_nodes_are_told_apart(tmp_path: Path) -> None:
    metadata = read_tree_metadata(
        layout_of(
            tmp_path, entry("b", "w"), entry("n", kind="scalar"), entry("no", kind="None"),
            entry("e", kind="Dict"), entry("s", kind="string"), use_zarr3=True, custom_metadata={"a": 1},
        )
    )  # fmt: skip
    assert [(leaf.name, leaf.stored, leaf.kind) for leaf in metadata.leaves] == [
        (("b", "w"), "b.w", "np.ndarray"),
        (("n",), "n", "scalar"),
    ]
    assert metadata.nones == (("no",),)
    assert (metadata.zarr3, metadata.stores_fill, metadata.custom) == (True, False, {"a": 1})


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([entry("a", "b"), entry("a.b")], "are both stored as 'a.b', so that one has overwritten the other"),
        ([entry("a"), entry("a")], "lists the leaf 'a' twice"),
        ([entry("a", kind="None"), entry("a")], "lists the leaf 'a' twice"),
        ([{}], "the entry '0' is malformed"),
        ([{"key_metadata": 3}], "the entry '0' is malformed"),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(tmp_path: Path, entries: Any, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        read_tree_metadata(layout_of(tmp_path, *entries))


@pytest.mark.parametrize("value", [1, "true", None, [], {}])
def test_only_true_is_true(tmp_path: Path, value: Any) -> None:
    assert not read_tree_metadata(layout_of(tmp_path, use_zarr3=value)).zarr3


def test_custom_metadata_of_the_whole_is_a_mapping_or_nothing(tmp_path: Path) -> None:
    layout = layout_of(tmp_path)
    assert read_custom_metadata(layout) == {}
    for written, read in (('{"custom_metadata": {"loss": NaN}}', ["loss"]), ('{"custom_metadata": 3}', [])):
        (tmp_path / "_CHECKPOINT_METADATA").write_text(written)
        assert list(read_custom_metadata(layout)) == read


def test_implementations_of_keys_are_gathered_from_every_file(tmp_path: Path) -> None:
    layout = layout_of(tmp_path)
    assert read_key_impls(layout) == {}
    (tmp_path / "array_metadatas").mkdir()
    for n, extra in enumerate(({"random_key_impl": "rbg"}, None, {})):
        described = {"array_metadata": {"param_name": f"k{n}", "ext_metadata": extra}}
        (tmp_path / "array_metadatas" / str(n)).write_text(json.dumps({"array_metadatas": [described]}))
    assert read_key_impls(layout) == {"k0": "rbg"}


def test_the_bytes_of_every_file_are_counted_and_what_could_hang_is_refused(tmp_path: Path) -> None:
    layout = layout_of(tmp_path)
    before = check_files(layout).total
    (tmp_path / "d").mkdir()
    (tmp_path / "d/chunk").write_bytes(bytes(100))
    (tmp_path / "link").symlink_to("d/chunk")
    assert check_files(layout).total == before + 200
    os.mkfifo(tmp_path / "d/pipe")
    with pytest.raises(SourceError, match="is no regular file"):
        check_files(layout)
