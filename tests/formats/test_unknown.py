"""What no format takes is said by what it is, whatever it is called."""

from __future__ import annotations

import gzip
import pickle
import re
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch_files
from safetensors.numpy import save_file

import treeload
from treeload import SourceError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
NAMES = ("model.safetensors", "flax_model.msgpack", "model.eqx", "checkpoint_3", "weights.bin", "weights")


def said(path: Path) -> str:
    with pytest.raises(SourceError) as error:
        treeload.open(path)
    text = str(error.value)
    assert text.startswith(repr(str(path))), text
    return text


def zipped(path: Path, member: str) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"x" * 100)
    return path.read_bytes()


CONTENTS = [
    (LFS, "git lfs pull"),
    (b"<!DOCTYPE html>\n<html><body>404</body></html>", "web page"),
    (b"\xef\xbb\xbf\n  <HTML lang='en'>" + b" " * 5000, "web page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    (b"GGUF\x01\x00\x00\x00" + bytes(100), "GGUF"),
    (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    (pickle.dumps({"w": np.ones(3)}, protocol=4), "pickle"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "PyTorch"),
    (gzip.compress(b"x" * 100), "gzip"),
    (b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n" + bytes(range(256)), "tokenizer of SentencePiece"),
    (b"", "empty file"),
    (bytes(100), "zeros"),
    (b"Not Found: the file that you asked for\n", "text file, which begins 'Not Found"),
    ("Wörter in einer Datei\n".encode() * 300, "text file"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("content", "what"), CONTENTS, ids=[what for _, what in CONTENTS])
def test_a_file_is_told_by_its_first_bytes(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert what in said(tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("member", "what"),
    [("archive/data.pkl", "PyTorch"), ("w.npy", "npz"), ("config.json", "Keras"), ("a.txt", "zip archive")],
)
def test_a_zip_file_is_told_by_what_is_in_it(tmp_path: Path, name: str, member: str, what: str) -> None:
    (tmp_path / name).write_bytes(zipped(tmp_path / "made.zip", member))
    assert what in said(tmp_path / name)


@pytest.mark.parametrize("text", ['{"error": "Repository not found"}', '[{"error": 1}] ' * 30])
def test_what_a_server_says_instead_of_a_file_is_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.safetensors").write_text(text)
    begins = text[:60].replace("'", "")[:30]
    with pytest.raises(SourceError, match="JSON text, as servers send instead of a file") as caught:
        treeload.open(tmp_path / "m.safetensors")
    assert begins in str(caught.value) and "download it again" in str(caught.value)


def test_shards_without_their_index_are_said_to_be_shards(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({f"l{number}": np.ones(2)}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    with pytest.raises(SourceError, match="holds all 2 shards of a checkpoint and not their index"):
        treeload.open(tmp_path)
    shards = sorted(tmp_path.iterdir())
    assert treeload.plan({"l1": np.zeros(2), "l2": np.zeros(2)}, shards).ok  # as it says
    shards[0].rename(tmp_path / "model-00007-of-00009.safetensors")
    with pytest.raises(SourceError, match="holds 2 safetensors files without an index"):
        treeload.open(tmp_path)
    shards[1].rename(tmp_path / "model-00008-of-00009.safetensors")
    with pytest.raises(SourceError, match="holds 2 of 9 shards of a checkpoint and not their index"):
        treeload.open(tmp_path)


def test_a_single_array_of_numpys_is_said_to_be_one(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones(3))
    assert "numpy.load" in said(tmp_path / "w.npy")


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x4B50, 0x8B1F, 0x5A42])
def test_a_damaged_file_is_not_taken_for_another_by_the_length_it_begins_with(
    tmp_path: Path, length: int
) -> None:
    (tmp_path / "m.safetensors").write_bytes(length.to_bytes(8, "little") + b"{" + b" " * 100)
    with pytest.raises(SourceError, match=r"no valid safetensors file: its header would have"):
        treeload.open(tmp_path / "m.safetensors")


def test_a_clone_without_its_large_files_is_said_to_be_one(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes(LFS)
    assert "'config.json' in it is a pointer of Git LFS" in said(tmp_path)


def test_a_broken_checkpoint_is_not_explained_by_an_empty_file_in_it(tmp_path: Path) -> None:
    save(tmp_path / "run")
    (tmp_path / "run" / "_CHECKPOINT_METADATA").write_text("{")
    with pytest.raises(SourceError, match="is no JSON"):
        treeload.open(tmp_path / "run")
    (tmp_path / "run" / "_CHECKPOINT_METADATA").write_bytes(LFS)
    assert "'_CHECKPOINT_METADATA' in it is a pointer of Git LFS" in said(tmp_path / "run")


# Directories.


def save(path: Path) -> Path:
    treeload.save(path, {"w": jnp.ones(2)})
    return path


def test_a_directory_above_checkpoints_names_them(tmp_path: Path) -> None:
    save(tmp_path / "b")
    assert f"it holds one, 'b': open {str(tmp_path / 'b')!r}" in said(tmp_path)
    save(tmp_path / "a")
    assert "holds the checkpoints 'a' and 'b': open one of them" in said(tmp_path)
    (tmp_path / "c").mkdir()
    safetensors.numpy.save_file({"w": np.ones(3)}, tmp_path / "c" / "model.safetensors")
    assert "'a', 'b' and 'c'" in said(tmp_path)
    for number in range(7):
        save(tmp_path / f"d{chr(97 + number)}" / "x")
    assert "'da/x', 'db/x', 'dc/x' and 4 more" in said(tmp_path)


@pytest.mark.parametrize(
    "inside", ["state/_METADATA", "state/manifest.ocdbt", "_CHECKPOINT_METADATA", "state/d"]
)
def test_what_lies_in_a_checkpoint_is_part_of_it(tmp_path: Path, inside: str) -> None:
    save(tmp_path / "run" / "7")
    where = tmp_path / "run" / "7" / inside
    assert f"is part of the checkpoint {str(tmp_path / 'run' / '7')!r}: open that" in said(where)


def test_what_lies_beside_the_weights_points_to_them(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert f"JSON text, no checkpoint; the directory it lies in is a checkpoint: {str(tmp_path)!r}" in said(
        tmp_path / "config.json"
    )


def test_weights_beside_it_are_named_where_the_directory_cannot_be_opened(tmp_path: Path) -> None:
    for name in "ab":
        save_file({"w": np.ones(3)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "config.json").write_text('{"a": 1}')
    weights = ", ".join(repr(str(tmp_path / f"{name}.safetensors")) for name in "ab")
    assert said(tmp_path / "config.json").endswith(f"no checkpoint; weights lie beside it, {weights}")
    for number in range(7):
        save_file({"w": np.ones(3)}, tmp_path / f"c{number}.safetensors")
    assert said(tmp_path / "config.json").endswith("c3.safetensors' and 3 more")


@pytest.mark.parametrize("beside", ["config.json", "tokenizer.json", "vocab.txt"])
def test_a_model_without_its_weights_is_said(tmp_path: Path, beside: str) -> None:
    (tmp_path / beside).write_text("{}")
    (tmp_path / "README.md").write_text("a model")
    assert f"holds {beside!r} of a model, and no weights" in said(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(LFS)
    assert "git lfs pull" in said(tmp_path)


def test_a_directory_of_another_library_says_whose_it_is(tmp_path: Path) -> None:
    (tmp_path / "tf").mkdir()
    (tmp_path / "tf" / "model.ckpt-9.index").write_bytes(b"\1\2\3\4")
    assert "called as the index of a TensorFlow checkpoint" in said(tmp_path / "tf")
    (tmp_path / "tf" / "saved_model.pb").write_bytes(b"\1\2\3\4")
    assert "is a SavedModel of TensorFlow without its variables" in said(tmp_path / "tf")


def test_a_directory_whose_pytorch_file_never_came_says_so(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(LFS)
    assert "'pytorch_model.bin' in it is a pointer of Git LFS" in said(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.eqx", "x.ckpt"])
def test_archives_of_another_name_are_what_their_bytes_say(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "made.npz", w=np.ones(2))
    (tmp_path / "made.npz").rename(tmp_path / name)
    assert treeload.open(tmp_path / name).label.endswith("(npz)")
    for write in (torch_files.write_zip, torch_files.write_legacy):
        assert treeload.open(write(tmp_path / name, {"w": np.ones(2)})).label.endswith("(PyTorch)")


def test_a_directory_of_nothing_that_is_known_lists_the_formats(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here, really")
    assert "It knows" in said(tmp_path)


def test_what_it_says_of_a_hostile_text_is_printable(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"hello \t\x0c there, \xe2\x80\xae" + b"x" * 100)
    text = said(tmp_path / "w.safetensors")
    assert text.isprintable() and re.search("text file|safetensors", text)
