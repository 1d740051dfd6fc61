"""Broken and hostile Orbax checkpoints: one test a malformation, each ends in a SourceError and silence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from treeload._errors import SourceError
from treeload._files import digests as _digests
from treeload._files.regions import extents_of, slices_of
from treeload._formats.orbax import layout as _layout
from treeload._formats.orbax import source as _orbax
from treeload._formats.orbax import tensors as _tensors
from treeload._formats.orbax import write as _save
from treeload._formats.orbax.arrays import Piece, Reading, Stored, boxes_to_read
from treeload._formats.orbax.record import mark_of, seal_of
from treeload._formats.orbax.source import OrbaxSource, recognises
from treeload._formats.orbax.tensors import Tensors
from treeload._naming.name import Name
from treeload._sources.source import Source
from treeload.testing import SourceConformance

P = jax.sharding.PartitionSpec
LEAF = Name(("encoder", "kernel"))


class TestWhatTreeloadSaves(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        _save.write(directory / "saved", leaves)
        return OrbaxSource(directory / "saved")


class TestWhatTreeloadSavesCompressed(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        _save.write(directory / "saved", leaves, how=_save.How(compression=True))
        return OrbaxSource(directory / "saved")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of ours: OCDBT, uncompressed, one leaf of 40 kB and a small one."""
    values = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    _save.write(tmp_path / "ckpt", {LEAF: jnp.asarray(values), Name(("step",)): 3})
    return tmp_path / "ckpt"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A checkpoint of Orbax's v0 without OCDBT: a directory an array, chunks are files."""
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(tmp_path / "plain", {"encoder": {"kernel": jnp.ones((100, 100), jnp.float32)}})
    return tmp_path / "plain"


def _read_all(path: Path) -> dict[Name, Any]:
    source = OrbaxSource(path)
    return dict(source.read(source.specs()))


def _data_files(path: Path) -> list[Path]:
    files = [file for file in path.rglob("*") if file.is_file() and file.parent.name == "d"]
    return sorted(files, key=lambda file: file.stat().st_size)


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Any:
    yield
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def _refused(path: Path, reason: str, *parts: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        _read_all(path)
    assert str(path) in str(caught.value)
    said = str(caught.value).replace(str(path.parent), "")  # pytest's folder is named after the test
    for part in (reason, *parts):
        assert part in said
    return caught.value


def test_a_missing_path(tmp_path: Path) -> None:
    assert not recognises(tmp_path / "none")
    _refused(tmp_path / "none", "does not exist")


def test_an_empty_directory(tmp_path: Path) -> None:
    assert not recognises(tmp_path)
    _refused(tmp_path, "is an empty directory")


def test_a_directory_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert not recognises(tmp_path)
    _refused(tmp_path, "is no Orbax checkpoint")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    _refused(tmp_path / "file", "is no directory")


def test_an_incomplete_checkpoint(saved: Path) -> None:
    left = saved.rename(saved.with_name("ckpt.orbax-checkpoint-tmp"))
    assert recognises(left)
    _refused(left, "incomplete")
    assert recognises(saved)
    _refused(saved, "never completed", left.name)


def test_a_directory_of_nothing_but_incomplete_steps(saved: Path) -> None:
    saved.rename(saved.with_name("7.orbax-checkpoint-tmp"))
    assert recognises(saved.parent)
    _refused(saved.parent, "no complete checkpoint", "7.orbax-checkpoint-tmp")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no JSON: Expecting value"),
        ("\0\1\2", "is no JSON: Expecting value"),
        ("[]", "is no JSON object"),
        ('"text"', "is no JSON object"),
        ("[" * 100_000, "is no JSON: nested too deeply"),
        ("{}", "lists no tree"),
        ('{"tree_metadata": 3}', "lists no tree"),
        ('{"tree_metadata": {"x": 3}}', "the entry 'x' is malformed"),
        (
            '{"tree_metadata": {"x": {"key_metadata": [3], "value_metadata": {"value_type": "np.ndarray"}}}}',
            "the entry 'x' is malformed",
        ),
        (
            '{"tree_metadata": {"x": {"key_metadata": [{"key": "x"}], "value_metadata": {}}}}',
            "the entry 'x' is malformed",
        ),
    ],
)
def test_tree_metadata_that_is_garbage(saved: Path, text: str, reason: str) -> None:
    (saved / "state" / "_METADATA").write_text(text)
    assert recognises(saved)
    _refused(saved, reason, "_METADATA")


def test_tree_metadata_in_bytes_that_are_no_text(saved: Path) -> None:
    (saved / "state" / "_METADATA").write_bytes(b"\xff\xfe{}")
    _refused(saved, "is no JSON", "_METADATA")


def test_checkpoint_metadata_that_is_garbage(saved: Path) -> None:
    (saved / "_CHECKPOINT_METADATA").write_text("{")
    _refused(saved, "is no JSON", "_CHECKPOINT_METADATA")


def test_array_metadata_that_is_garbage(saved: Path) -> None:
    (saved / "state" / "array_metadatas" / "process_0").write_text('{"array_metadatas": [{}]}')
    _refused(saved, "is malformed", "process_0")


TWICE = "is no JSON: the key 'zzz' is there twice"


def _say_twice(file: Path) -> None:
    """Puts a key twice into the object of a JSON file, which Python's parser would let pass."""
    text = file.read_text()
    file.write_text('{"zzz": 1, "zzz": 2, ' + text[text.index("{") + 1 :])


def test_a_key_twice_in_the_tree_metadata(saved: Path) -> None:
    _say_twice(saved / "state" / "_METADATA")
    _refused(saved, "_METADATA", TWICE)


def test_a_key_twice_in_the_checkpoint_metadata(saved: Path) -> None:
    _say_twice(saved / "_CHECKPOINT_METADATA")
    _refused(saved, "_CHECKPOINT_METADATA", TWICE)


def test_a_key_twice_in_the_array_metadata(saved: Path) -> None:
    _say_twice(saved / "state" / "array_metadatas" / "process_0")
    _refused(saved, "process_0", TWICE)


def test_a_key_twice_in_an_array_header(plain: Path) -> None:
    _say_twice(plain / "encoder.kernel" / ".zarray")
    _refused(plain, "encoder/kernel", "the key 'zzz' is there twice")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_no_number_in_an_array_header(plain: Path, constant: str) -> None:
    header = plain / "encoder.kernel" / ".zarray"
    header.write_text(header.read_text().replace("{", '{"zzz": ' + constant + ", ", 1))
    _refused(plain, "encoder/kernel", f"{constant} is not JSON")


def test_no_number_in_the_array_metadata(saved: Path) -> None:
    file = saved / "state" / "array_metadatas" / "process_0"
    file.write_text(file.read_text().replace("{", '{"zzz": NaN, ', 1))
    _refused(saved, "process_0", "NaN is not JSON")


def test_a_loss_that_was_nan_is_metadata_of_the_users_and_orbax_writes_it(tmp_path: Path) -> None:
    from orbax.checkpoint import v1 as ocp

    ocp.save(tmp_path / "x", {"w": np.ones(2)}, custom_metadata={"loss": float("nan")})
    assert np.isnan(OrbaxSource(tmp_path / "x").metadata["loss"])


METADATA_FILES = ["_CHECKPOINT_METADATA", "state/_METADATA", "state/array_metadatas/process_0"]


@pytest.mark.parametrize("at", METADATA_FILES)
@pytest.mark.parametrize(
    ("what", "reason"),
    [("pipe", "is a pipe"), ("link", "is a link"), ("other", "changed (since|while)")],
)
def test_what_takes_a_metadata_files_place_once_it_was_looked_at(
    saved: Path, at: str, what: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the opening it becomes a pipe, a link outside, or another file each time."""
    file, outside = saved / at, saved.parent / "outside"
    outside.write_bytes(file.read_bytes())
    look = _layout.look_within

    def look_then_exchange(root: Path, path: Path) -> Any:
        found = look(root, path)
        if path == file:
            file.unlink()
            if what == "pipe":
                os.mkfifo(file)
            elif what == "link":
                file.symlink_to(outside)
            else:
                file.write_text("{}")
        return found

    monkeypatch.setattr(_layout, "look_within", look_then_exchange)
    with pytest.raises(SourceError, match=reason):
        _read_all(saved)


@pytest.mark.parametrize("at", METADATA_FILES[:2])  # the third is in a directory that is walked before
def test_a_pipe_that_takes_a_metadata_files_place_while_it_is_looked_at(
    saved: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, stat = os.stat(saved / at), os.stat
    real = os.path.realpath(saved / at)
    monkeypatch.setattr(os, "stat", lambda path, **how: status if str(path) == real else stat(path, **how))
    (saved / at).unlink()
    os.mkfifo(saved / at)
    with pytest.raises(SourceError, match="is a pipe"):
        _read_all(saved)


def test_a_metadata_file_that_is_too_large_is_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_layout, "_MOST_METADATA_BYTES", 10)
    _refused(saved, "is too large for a metadata file")


@pytest.mark.parametrize("size", [0, 100, 30_000])
def test_a_truncated_data_file(saved: Path, size: int) -> None:
    file = _data_files(saved)[-1]
    content = file.read_bytes()
    file.write_bytes(content[:size])
    _refused(saved, "claims 40000 bytes", "all files together hold", "encoder/kernel")


def test_a_deleted_data_file(saved: Path) -> None:
    _data_files(saved)[-1].unlink()
    _refused(saved, "claims 40000 bytes", "all files together hold", "encoder/kernel")


def test_deleted_data_altogether(saved: Path) -> None:
    for file in _data_files(saved):
        file.unlink()
    _refused(saved, "is damaged", "NOT_FOUND", "/state/d/")


def test_a_deleted_store(saved: Path) -> None:
    (saved / "state" / "manifest.ocdbt").unlink()
    _refused(saved, "stores no array", "encoder/kernel")


def test_a_garbage_store(saved: Path) -> None:
    (saved / "state" / "manifest.ocdbt").write_bytes(b"garbage")
    _refused(saved, "is damaged", "Error decoding manifest", "/state/manifest.ocdbt")


def test_a_flipped_bit_in_what_we_saved(saved: Path) -> None:
    file = _data_files(saved)[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    _refused(saved, "is damaged", "encoder/kernel")


def test_a_flipped_bit_is_found_on_the_way_to_a_device(saved: Path) -> None:
    test_a_flipped_bit_in_what_we_saved(saved)
    source = OrbaxSource(saved)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    request = jax.ShapeDtypeStruct((100, 100), np.float32, sharding=sharding)
    with pytest.raises(SourceError, match="damaged"):
        list(source.read({LEAF: request}))


def test_a_flipped_bit_is_found_where_every_device_gets_the_whole(saved: Path) -> None:
    test_a_flipped_bit_in_what_we_saved(saved)
    source = OrbaxSource(saved)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("x",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    request = jax.ShapeDtypeStruct((100, 100), np.float32, sharding=everywhere)
    with pytest.raises(SourceError, match="damaged"):
        list(source.read({LEAF: request}))


def test_a_flipped_bit_is_found_under_each_name_of_a_tied_leaf(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    alias = Name(("decoder", "kernel"))
    _save.write(tmp_path / "ckpt", {LEAF: values}, beside=_save.Beside(aliases={alias: LEAF}))
    file = _data_files(tmp_path / "ckpt")[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    source = OrbaxSource(tmp_path / "ckpt")
    for name in (LEAF, alias):
        with pytest.raises(SourceError, match=f"'{name}' is damaged"):
            list(source.read({name: source.specs()[name]}))


PARTS = {
    "rows": P("x", None), "columns": P(None, "y"), "a grid": P("x", "y"), "rows over all": P(("x", "y")),
    "the whole": P(),
}  # fmt: skip


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 1 kB instead of 4 MB."""
    monkeypatch.setattr(_digests, "BLOCK_BYTES", 1024)
    monkeypatch.setattr(_digests, "_LEAST_PART", 64)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("saved_in", PARTS.values(), ids=PARTS)
def test_a_flipped_bit_is_found_whatever_part_of_a_leaf_each_device_gets(
    tmp_path: Path, saved_in: P, parts: P
) -> None:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()).reshape(4, 2), ("x", "y"))
    values = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    _save.write(tmp_path / "x", {LEAF: jax.device_put(values, jax.sharding.NamedSharding(mesh, saved_in))})
    spec = jax.ShapeDtypeStruct(values.shape, np.float32, sharding=jax.sharding.NamedSharding(mesh, parts))
    ((_, array),) = OrbaxSource(tmp_path / "x").read({LEAF: spec})
    np.testing.assert_array_equal(array, values)
    place = values.tobytes()[1000:1016]  # within one row, so that it lies somewhere in one piece
    (file,) = [each for each in _data_files(tmp_path / "x") if place in each.read_bytes()][:1]
    content = bytearray(file.read_bytes())
    content[content.index(place) + 3] ^= 1
    for each in _data_files(tmp_path / "x"):
        if place in each.read_bytes():
            each.write_bytes(content)
    with pytest.raises(
        SourceError, match="'encoder/kernel' is damaged: its bytes are not those of its digest"
    ):
        list(OrbaxSource(tmp_path / "x").read({LEAF: spec}))


class _Part:
    """A sharding of a job of several processes, as one of them sees it: it holds one box of a leaf."""

    device_set = range(8)
    memory_kind = None

    def __init__(self, *box: tuple[int, int]) -> None:
        self.index = tuple(slice(*axis) for axis in box)

    def addressable_devices_indices_map(self, shape: Any) -> Any:
        return {0: self.index}


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    "box", [((8, 16), (0, 32)), ((9, 10), (3, 4)), ((0, 64), (16, 32)), ((63, 64), (0, 32))]
)
@pytest.mark.parametrize("columns", [32, 16])
def test_of_a_large_leaf_the_blocks_that_hold_a_part_are_read_and_verified(
    tmp_path: Path, box: Any, columns: int
) -> None:
    """Not the whole: and so damage elsewhere is no matter, but damage in the part always is."""
    values = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    known = _digests.digests_of(values, (64, columns))
    spec = jax.ShapeDtypeStruct(values.shape, np.float32)
    stored = Stored("", spec, spec, None)
    request: Any = SimpleNamespace(shape=values.shape, dtype=values.dtype, sharding=_Part(*box))
    boxes = boxes_to_read(request, stored, known)
    assert 0 < sum(np.prod(extents_of(each)) for each in boxes) <= values.size * columns // 32
    for at in np.ndindex(values.shape):
        damaged = values.copy()
        damaged[at] += 1
        inside = all(start <= index < stop for index, (start, stop) in zip(at, box, strict=True))
        read = any(all(a <= i < b for i, (a, b) in zip(at, each, strict=True)) for each in boxes)
        pieces = tuple(Piece(each, damaged[slices_of(each)].copy()) for each in boxes)
        assert Reading(LEAF, request, stored, pieces, known).is_intact is not read
        assert read or not inside


def test_a_leaf_that_is_whole_is_read_beside_one_that_is_damaged(saved: Path) -> None:
    test_a_flipped_bit_in_what_we_saved(saved)
    source = OrbaxSource(saved)
    step = Name(("step",))
    assert [(name, int(value)) for name, value in source.read({step: source.specs()[step]})] == [(step, 3)]


def test_an_array_without_its_chunk_is_not_zeros(plain: Path) -> None:
    (plain / "encoder.kernel" / "0.0").unlink()
    _refused(plain, 'encoder.kernel/0.0" is missing', "encoder/kernel")


def test_an_array_with_a_truncated_chunk(plain: Path) -> None:
    (plain / "encoder.kernel" / "0.0").write_bytes(b"\x28\xb5\x2f\xfd")
    assert _refused(plain, "Truncated Zstd", "encoder/kernel").__cause__ is not None


def test_an_array_without_its_directory(plain: Path) -> None:
    shutil.rmtree(plain / "encoder.kernel")
    _refused(plain, "stores no array", "encoder/kernel")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shape": [-1, 100]}, "gives the shape [-1, 100]"),
        ({"shape": "many"}, "gives the shape 'many'"),
        ({"shape": [100, True]}, "gives the shape [100, True]"),
        ({"dtype": "<U8"}, "gives the dtype '<U8'"),
        ({"dtype": "|O"}, "gives the dtype '|O'"),
        ({"dtype": [["a", "<f4"]]}, "gives the dtype [['a', '<f4']]"),
        ({"dtype": 7}, "gives the dtype 7"),
        ({"shape": [200, 200], "compressor": None}, "claims 160000 bytes (float32[200,200])"),
        ({"shape": [10**9, 10**9]}, "claims 4000000000000000000 bytes"),
        ({"dtype": "<f8"}, "Not enough data"),
        ({"shape": [200, 200]}, '" is missing'),
        ({"chunks": [10**12, 10**12]}, "larger than the array"),
        ({"chunks": [0, 0]}, "gives chunks of '[0, 0]'"),
        ({"compressor": {"id": "nonsense"}}, 'object member "compressor"'),
        ({"filters": [{"id": "nonsense"}]}, 'object member "filters"'),
        ({"zarr_format": 9}, 'object member "zarr_format"'),
    ],
)
def test_an_array_header_that_lies(plain: Path, change: dict[str, Any], reason: str) -> None:
    header = plain / "encoder.kernel" / ".zarray"
    header.write_text(json.dumps({**json.loads(header.read_text()), **change}))
    _refused(plain, reason, "encoder/kernel")


def test_an_array_that_compresses_well_is_no_lie(tmp_path: Path) -> None:
    """What an array claims is held against its file only as far as a compressor can go."""
    zeros = np.zeros((1000, 1000), np.float32)
    _save.write(tmp_path / "zeros", {LEAF: zeros}, how=_save.How(compression=True))
    there = sum(file.stat().st_size for file in (tmp_path / "zeros").rglob("*") if file.is_file())
    assert there < zeros.nbytes / 100
    np.testing.assert_array_equal(_read_all(tmp_path / "zeros")[LEAF], zeros)


def test_an_array_header_that_is_garbage(plain: Path) -> None:
    (plain / "encoder.kernel" / ".zarray").write_text("{")
    _refused(plain, "JSONDecodeError", "encoder/kernel")


def test_a_leaf_whose_name_leads_out_of_the_directory(plain: Path) -> None:
    shutil.copytree(plain / "encoder.kernel", plain.parent / "outside")
    metadata = plain / "_METADATA"
    content = json.loads(metadata.read_text())
    (entry,) = content["tree_metadata"].values()
    entry["key_metadata"] = [{"key": "/../../outside", "key_type": 2}]
    metadata.write_text(json.dumps(content))
    _refused(plain, "Invalid key", "outside")


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("_METADATA", "holds no tree"),
        ("encoder.kernel/0.0", "is no regular file"),
        ("encoder.kernel/.zarray", "is no regular file"),
        ("more", "is no regular file"),
    ],
)
def test_a_pipe_is_never_opened(plain: Path, at: str, reason: str) -> None:
    (plain / at).unlink(missing_ok=True)
    os.mkfifo(plain / at)
    _refused(plain, reason)


@pytest.mark.parametrize("at", ["_METADATA", "encoder.kernel/0.0", "array_metadatas"])
def test_a_link_out_of_the_checkpoint_is_not_followed(plain: Path, at: str) -> None:
    outside = plain.parent / "outside"
    (plain / at).rename(outside)
    (plain / at).symlink_to(outside)
    _refused(plain, "leads out", at)


def test_a_link_within_the_checkpoint_is_followed(plain: Path) -> None:
    chunk = plain / "encoder.kernel" / "0.0"
    chunk.rename(plain / "blob")
    chunk.symlink_to("../blob")
    assert _read_all(plain)[LEAF].sum() == 100 * 100


def test_links_of_the_hugging_face_cache_are_followed(plain: Path) -> None:
    snapshot = plain.parent / "models--me" / "snapshots" / "abc"
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(p for p in plain.rglob("*") if p.is_file())):
        link = snapshot / file.relative_to(plain)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(file.rename(blobs / str(number)), link.parent))
    assert _read_all(snapshot)[LEAF].sum() == 100 * 100


def test_a_path_that_is_a_link_is_followed(saved: Path) -> None:
    link = saved.parent / "latest"
    link.symlink_to(saved)
    assert set(_read_all(link)) == {LEAF, Name(("step",))}


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (3, "record of treeload is malformed"),
        ({}, "record of treeload is malformed"),
        ({"format": 99}, "newer treeload"),
        ({"format": 1, "aliases": {"a": "no/such"}}, "does not fit"),
        ({"format": 1, "absent": {"step": None}}, "recorded as absent"),
        ({"format": 1, "absent": {"hole": 3}}, "3 is no absence"),
        ({"format": 1, "empty": {"z": {"shape": [10**12], "dtype": "float32"}}}, "is not empty"),
        ({"format": 1, "encoded": {"step": "uint4"}}, "cannot hold"),
        ({"format": 1, "digests": {"step": 3}}, "not a mapping of strings"),
    ],
)
def test_a_record_of_ours_that_lies(saved: Path, record: Any, word: str) -> None:
    _with_record(saved, lambda was: {"digests": {}, **record} if record and type(record) is dict else record)
    _refused(saved, word)


def _with_record(saved: Path, change: Callable[[Any], Any], *, sealed: bool = False) -> None:
    """Gives a checkpoint another record, without a seal as an earlier treeload wrote it, or sealed."""
    file, tree = saved / "_CHECKPOINT_METADATA", saved / "state/_METADATA"
    content, described = json.loads(file.read_text()), json.loads(tree.read_text())
    custom = content["custom_metadata"]
    record = custom["treeload"] = change(custom["treeload"])
    described["custom_metadata"] = None
    if sealed:
        record["seal"] = seal_of(custom)
        described["custom_metadata"] = mark_of(record["seal"])
    elif isinstance(record, dict):
        record.pop("seal", None)
    file.write_text(json.dumps(content))
    tree.write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"empty": {"step": {"shape": [0], "dtype": "int8"}}}, "'step' is there, but recorded as empty"),
        ({"digests": {"no/such": "00"}, "arrays": None}, "has a digest of 'no/such', which is not there"),
        ({"digests": None}, "malformed"),
    ],
)
@pytest.mark.parametrize("sealed", [False, True])
def test_a_record_of_ours_that_contradicts_the_tree(
    saved: Path, change: Any, word: str, sealed: bool
) -> None:
    _with_record(saved, lambda was: {**was, **change}, sealed=sealed)
    _refused(saved, word)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda arrays: arrays.pop("step"), "was not stored, and it is int64"),
        (
            lambda arrays: arrays["step"].update(shape=[1]),
            r"'step' was stored as int64[1], and it is int64[]",
        ),
        (
            lambda arrays: arrays["step"].update(impl="fry"),
            "was stored as int64[] of fry keys, and it is int64[]",
        ),
        (
            lambda arrays: arrays.update(more=arrays["step"]),
            "'more' was stored as int64[], and it is not there",
        ),
    ],
    ids=["one more", "shape", "kind", "one less"],
)
def test_arrays_that_are_not_those_that_were_stored(saved: Path, change: Any, word: str) -> None:
    def changed(record: Any) -> Any:
        arrays = {name: dict(array) for name, array in record["arrays"].items()}
        change(arrays)
        digests = {name: each for name, each in record["digests"].items() if name in arrays}
        return {**record, "arrays": arrays, "digests": digests}

    _with_record(saved, changed, sealed=True)
    _refused(saved, "is damaged: its record says that", word)


@pytest.mark.parametrize(
    ("file", "damage", "word"),
    [
        ("_CHECKPOINT_METADATA", None, "the record of it, with the digests of its leaves, is lost"),
        ("_CHECKPOINT_METADATA", (b'"treeload"', b'"treeloae"'), "is lost"),
        ("_CHECKPOINT_METADATA", (b'"custom_metadata"', b'"custom_metadatb"'), "is lost"),
        ("_CHECKPOINT_METADATA", (b'"seal"', b'"seam"'), "is not what was saved"),
        ("_CHECKPOINT_METADATA", (b'"lr": 0.5', b'"lr": 0.7'), "is not what was saved"),
        ("_CHECKPOINT_METADATA", (b'"scalars"', b'"scalarr"'), "is not what was saved"),
        ("state/_METADATA", (b'"treeload"', b'"treeloae"'), "is not what was saved"),
        ("state/_METADATA", (b'"seal"', b'"seam"'), "is not what was saved"),
    ],
)
def test_damage_to_the_metadata_of_what_we_saved(tmp_path: Path, file: str, damage: Any, word: str) -> None:
    """No digest of a leaf can find it: without the seal nothing would vouch for such a checkpoint."""
    _save.write(tmp_path / "x", {Name(("w",)): 3}, metadata={"lr": 0.5})
    if damage is None:
        (tmp_path / "x" / file).unlink()
    else:
        content = (tmp_path / "x" / file).read_bytes()
        assert damage[0] in content
        (tmp_path / "x" / file).write_bytes(content.replace(*damage))
    _refused(tmp_path / "x", "is damaged", word)


def test_a_checkpoint_of_a_treeload_that_did_not_seal_is_read(saved: Path) -> None:
    _with_record(saved, lambda was: {"format": 1, "digests": was["digests"], "scalars": was["scalars"]})
    assert set(OrbaxSource(saved).leaf_digests) == set(_read_all(saved)) == {LEAF, Name(("step",))}


def test_the_directory_of_a_tree_alone_is_read_as_one_of_plain_orbax(saved: Path) -> None:
    source = OrbaxSource(saved / "state")
    assert set(source.specs()) == {LEAF, Name(("step",))} and not source.leaf_digests and not source.metadata


def test_a_request_of_another_shape_or_dtype_is_refused(saved: Path) -> None:
    source = OrbaxSource(saved)
    for request in (jax.ShapeDtypeStruct((100,), np.float32), jax.ShapeDtypeStruct((100, 100), np.int32)):
        with pytest.raises(SourceError, match=r"encoder/kernel.*float32\[100,100\].*cannot be read as"):
            list(source.read({LEAF: request}))


def test_64_bits_are_not_halved_on_the_way_to_a_device(saved: Path) -> None:
    source = OrbaxSource(saved)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    request = jax.ShapeDtypeStruct((), np.int64, sharding=sharding)
    with pytest.raises(SourceError, match="jax_enable_x64"):
        list(source.read({Name(("step",)): request}))


def test_specs_open_no_array(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("an array was opened")

    monkeypatch.setattr(_tensors.ts, "open", fail)
    monkeypatch.setattr(_orbax, "read_stored", fail)
    monkeypatch.setattr(_orbax, "read_frames", fail)
    source = OrbaxSource(saved)
    assert len(source.specs()) == 2
    with pytest.raises(AssertionError, match="an array was opened"):
        list(source.read(source.specs()))


def test_reads_more_leaves_than_one_batch_in_the_order_asked(tmp_path: Path) -> None:
    leaves = {Name((f"l{i}",)): np.full(3, i, np.int32) for i in range(700)}
    _save.write(tmp_path / "many", leaves)
    source = OrbaxSource(tmp_path / "many")
    wanted = {name: source.specs()[name] for name in reversed(leaves)}
    got = list(source.read(wanted))
    assert [name for name, _ in got] == list(wanted)
    assert all((array == leaves[name]).all() for name, array in got)


def test_holds_a_bounded_part_of_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save.write(tmp_path / "many", {Name((f"l{i}",)): np.zeros(1000, np.uint8) for i in range(20)})
    monkeypatch.setattr(_orbax, "only_chunk", lambda *args: None)  # so that TensorStore reads them
    monkeypatch.setattr(_tensors, "_BYTES_AT_ONCE", 3000)
    begun: list[int] = []
    start = Tensors._start

    def counted(self: Tensors, *args: Any) -> Any:
        begun.append(1)
        return start(self, *args)

    monkeypatch.setattr(Tensors, "_start", counted)
    source = OrbaxSource(tmp_path / "many")
    for taken, _ in enumerate(source.read(source.specs())):
        assert len(begun) <= taken + 4


def test_host_arrays_begin_where_jax_takes_them_without_a_copy(saved: Path) -> None:
    assert all(array.ctypes.data % 64 == 0 for array in _read_all(saved).values())
