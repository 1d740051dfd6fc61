"""What a hostile file cannot do: take the memory, the time, the terminal (docs/threat-model.md)."""

from __future__ import annotations

import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
import tensorstore as ts
from flax import serialization

import treeload
from treeload import From, SourceError, TreeloadError
from treeload._naming.bounds import MOST_CHARACTERS, MOST_KEYS

ESC = "\x1b]0;owned\x07\x1b[31m\u202e"
DEEP = 2000


def safetensors(path: Path, names: list[str]) -> Path:
    header = {n: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, n in enumerate(names)}
    text = json.dumps(header).encode()
    path = path.with_suffix(".safetensors")
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(len(names)))
    return path


def orbax(path: Path) -> Path:
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(path, {"w": jnp.arange(1024, dtype=jnp.float32), "v": jnp.ones(2)})
    return path


def header_of(path: Path, leaf: str = "w") -> Path:
    (found,) = path.rglob(f"{leaf}/.zarray")
    return found


def change(file: Path, **members: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **members}))


def nested(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"x": np.zeros(1, np.float32)}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


# Names.


@pytest.mark.parametrize(
    "names",
    [[f"{i}." + "a." * DEEP + "w" for i in range(DEEP)], ["a." * MOST_KEYS + "w"],
     ["a" * (MOST_CHARACTERS + 1)], ["." * (1 << 20)]],
    ids=["many-deep", "deep", "long", "all-dots"],
)  # fmt: skip
def test_names_longer_than_any_are_refused_at_once(tmp_path: Path, names: list[str]) -> None:
    path = safetensors(tmp_path / "x", names)
    start = time.process_time()
    with pytest.raises(SourceError, match="a name of .* at most"):
        treeload.open(path)
    assert time.process_time() - start < 5


def test_the_longest_names_are_read(tmp_path: Path) -> None:
    keys = ".".join(["a"] * MOST_KEYS)
    long = "b" * MOST_CHARACTERS
    assert len(treeload.open(safetensors(tmp_path / "x", [keys, long])).specs()) == 2


def test_the_names_of_the_other_formats_are_bounded_too(tmp_path: Path) -> None:
    (tmp_path / "deep.msgpack").write_bytes(serialization.msgpack_serialize(nested(MOST_KEYS)))
    with pytest.raises(SourceError, match=f"a name of {MOST_KEYS + 1} keys"):
        treeload.open(tmp_path / "deep.msgpack")
    (tmp_path / "fine.msgpack").write_bytes(serialization.msgpack_serialize(nested(MOST_KEYS - 1)))
    assert treeload.open(tmp_path / "fine.msgpack").specs()
    path = orbax(tmp_path / "ckpt")
    (metadata,) = path.rglob("_METADATA")
    said = json.loads(metadata.read_text())
    (first, *_) = said["tree_metadata"].values()
    first["key_metadata"] = first["key_metadata"] * (MOST_KEYS + 1)
    metadata.write_text(json.dumps(said))
    with pytest.raises(SourceError, match=f"has a name of {MOST_KEYS + 1} keys"):
        treeload.open(path)
    treeload.save(tmp_path / "joined", {"a/" * MOST_KEYS + "w": jnp.zeros(1)})
    with pytest.raises(SourceError, match=f"a name of {MOST_KEYS + 1} keys"):
        treeload.plan({"w": jnp.zeros(1)}, From(tmp_path / "joined", separator="/"))


def test_the_names_in_a_record_are_bounded(tmp_path: Path) -> None:
    treeload.save(tmp_path / "ckpt", {"w": jnp.zeros(1), "none": None})
    for file in (tmp_path / "ckpt").rglob("_*METADATA"):
        file.write_text(file.read_text().replace('"none"', '"' + "a/" * MOST_KEYS + 'w"'))
    with pytest.raises(SourceError):
        treeload.inspect(tmp_path / "ckpt")


# Compressed payloads, chunks.


@pytest.mark.parametrize(
    "chunks", [[2**40], [1025], [0], [-1], [1.5], [True], [1, 1], [], "all", None, [2**70]]
)
def test_chunks_that_are_no_part_of_the_array_are_refused(tmp_path: Path, chunks: Any) -> None:
    path = orbax(tmp_path / "ckpt")
    change(header_of(path), chunks=chunks)
    with pytest.raises(SourceError, match="'w'"):
        treeload.open(path).specs()


def test_more_chunks_than_there_are_bytes_are_refused(tmp_path: Path) -> None:
    path = orbax(tmp_path / "ckpt")
    change(header_of(path), shape=[10**7], chunks=[1])
    with pytest.raises(SourceError, match="it has 10,000,000 chunks"):
        treeload.open(path).specs()


def zarr3(inner: list[int]) -> dict[str, Any]:
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    return {
        "shape": [1024], "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1024]}},
        "codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": inner, "codecs": codecs}}],
    }  # fmt: skip


def test_chunks_within_a_chunk_are_checked_too() -> None:
    from treeload._formats.orbax.chunks import check_chunks

    check_chunks(zarr3([256]), True, None)
    with pytest.raises(ValueError, match="larger than the chunk that they lie in"):
        check_chunks(zarr3([2**40]), True, None)


def bomb(size: int) -> bytes:
    """A zstd frame of ``size`` zeros, four bytes for each 128 KiB of them."""
    block = 128 << 10
    blocks = [
        struct.pack("<I", block << 3 | 2 | (at == size // block - 1))[:3] for at in range(size // block)
    ]
    return b"\x28\xb5\x2f\xfd\x00\x38" + b"\x00".join(blocks) + b"\x00"


def test_a_small_frame_that_expands_to_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    path = orbax(tmp_path / "ckpt")
    file = header_of(path)
    change(file, compressor={"id": "zstd", "level": 1})
    (file.parent / "0").write_bytes(bomb(4 << 30))
    code = (
        "import sys, resource, numpy as np, treeload\n"
        "source = treeload.open(sys.argv[1]); source.specs()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: treeload.load({'w': np.zeros(1024, np.float32), 'v': np.zeros(2, np.float32)}, source)\n"
        "except treeload.SourceError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120
    )
    said, grown = done.stdout.strip().rsplit("\n", 1)
    assert "cannot read 'w'" in said and int(grown) < 200, (said, done.stderr)


def test_a_chunk_says_no_more_than_its_array() -> None:
    """What TensorStore is trusted with: it stops at the size of a chunk, whatever a frame claims."""
    store = ts.open(
        {"driver": "zarr", "kvstore": "memory://", "create": True,
         "metadata": {"shape": [4], "chunks": [4], "dtype": "<f4", "compressor": {"id": "zstd", "level": 1}}}
    ).result()  # fmt: skip
    assert store.kvstore is not None
    store.kvstore.write("0", bomb(1 << 30)).result()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="uncompressed byte"):
        store.read().result()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


# JSON.


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": 1e999}',
        "[" * 66 + "]" * 66,
        "[" * 10**6,
        "9" * 5000,
        '{"a": -Infinity}',
    ],
    ids=["twice", "nan", "large", "deep", "endless", "digits", "infinite"],
)
def test_json_is_strict(text: str) -> None:
    from treeload._files.strict_json import parse_json

    with pytest.raises(ValueError):
        parse_json(text)


def test_a_million_keys_of_which_one_is_there_twice_take_a_moment() -> None:
    from treeload._files.strict_json import parse_json

    text = "{" + ",".join(f'"{i}":0' for i in range(300_000)) + ',"299999":1}'
    start = time.process_time()
    with pytest.raises(ValueError, match="'299999' is there twice"):
        parse_json(text)
    assert time.process_time() - start < 5


def test_json_of_sixty_four_levels_is_read() -> None:
    from treeload._files.strict_json import parse_json

    assert parse_json("[" * 65 + "]" * 65)


# Files.


def test_no_code_in_a_file_runs(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "harm"),))

    np.save(tmp_path / "x.npy", np.array([Harm()]), allow_pickle=True)
    pickled = (tmp_path / "x.npy").read_bytes()
    for name, held in (
        ("x.eqx", pickled),
        ("y.pkl", pickle.dumps(Harm())),
        ("y.msgpack", pickle.dumps(Harm())),
    ):
        (tmp_path / name).write_bytes(held)
        with pytest.raises(SourceError):
            treeload.open(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_a_pipe_in_the_place_of_a_step_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "checkpoint_1")
    os.mkfifo(tmp_path / "model.msgpack")
    for path in (tmp_path, tmp_path / "model.msgpack", tmp_path / "checkpoint_1"):
        with pytest.raises(TreeloadError):
            treeload.open(path)


# What is printed.


def _acts(text: str) -> list[str]:
    return [c for c in text if not c.isprintable() and c != "\n"]


def error_of(path: Any, dst: Any = None) -> str:
    with pytest.raises(TreeloadError) as raised:
        treeload.plan(dst or {"w": jnp.zeros(1)}, path).load()
    return str(raised.value)


def test_a_neighbours_name_does_not_act_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / f"a{ESC}\nb").touch()
    said = error_of(tmp_path / "nothing")
    assert "\\x1b]0;owned" in said and not _acts(said) and "\n" not in said


def test_a_key_impl_does_not(tmp_path: Path) -> None:
    path = orbax(tmp_path / "ckpt")
    (tree,) = (file.parent for file in path.rglob("_METADATA"))
    (tree / "array_metadatas").mkdir(exist_ok=True)
    entry = {"array_metadata": {"param_name": "w", "ext_metadata": {"random_key_impl": ESC}}}
    (tree / "array_metadatas" / "process_0").write_text(json.dumps({"array_metadatas": [entry]}))
    said = error_of(path)
    assert "owned" in said and not _acts(said)


def test_a_dtype_does_not(tmp_path: Path) -> None:
    path = orbax(tmp_path / "ckpt")
    change(header_of(path), dtype=ESC)
    said = error_of(path)
    assert "owned" in said and not _acts(said)
    array = msgpack.ExtType(1, msgpack.packb(((1,), ESC, b"\0\0\0\0"), use_bin_type=True))
    (tmp_path / "x.msgpack").write_bytes(msgpack.packb({"w": array}, use_bin_type=True))
    said = error_of(tmp_path / "x.msgpack")
    assert "owned" in said and not _acts(said)


def test_names_metadata_and_pages_do_not(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "x", [f"{ESC}<script>alert(1)</script>"])
    plan = treeload.plan({"w": jnp.zeros(1)}, path)
    found = treeload.inspect(path)
    for text in (str(plan), error_of(path), str(found), plan.to_html(), plan._repr_html_(),
                 found.to_html(), found._repr_html_(), repr(plan)):  # fmt: skip
        assert not _acts(text.replace("\t", ""))
        assert "<script>alert" not in text or "<div" not in text  # as text it is no markup


@pytest.mark.parametrize(
    "error", [TreeloadError, SourceError, treeload.RuleError, treeload.SaveError, treeload.LockError]
)
def test_no_error_does_whatever_its_text(error: type[Exception]) -> None:
    assert str(error(f"one{ESC}\ntwo")) == "one\\x1b]0;owned\\x07\\x1b[31m\\u202e\ntwo"
