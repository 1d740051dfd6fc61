"""What the list of formats promises: one object a module, asked in order, imported only when asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import bundles
import equinox as eqx
import flax.serialization
import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import quants
import safetensors.numpy
import torch_files

import treeload
from treeload import From, SourceError
from treeload._formats import FORMATS, formats, open_source
from treeload._formats.orbax.write import write as write_orbax
from treeload._naming.name import Name
from treeload._sources.format import Format
from treeload._sources.source import Source

WEIGHTS = {"w": np.arange(3, dtype=np.float32)}
NAMES = ["safetensors", "hdf5", "gguf", "msgpack", "equinox", "tensorflow", "npz", "pytorch", "orbax"]


def write_safetensors(directory: Path) -> Path:
    safetensors.numpy.save_file(WEIGHTS, directory / "x.safetensors")
    return directory / "x.safetensors"


def write_msgpack(directory: Path) -> Path:
    (directory / "x.msgpack").write_bytes(flax.serialization.msgpack_serialize(WEIGHTS))
    return directory / "x.msgpack"


def write_equinox(directory: Path) -> Path:
    eqx.tree_serialise_leaves(directory / "x.eqx", WEIGHTS)
    return directory / "x.eqx"


def write_checkpoint(directory: Path) -> Path:
    write_orbax(directory / "x", {Name(("w",)): WEIGHTS["w"]})
    return directory / "x"


def write_tensorflow(directory: Path) -> Path:
    return bundles.write(directory / "x.ckpt", WEIGHTS).with_name("x.ckpt.index")


def write_hdf5(directory: Path) -> Path:
    with h5py.File(directory / "x.h5", "w") as file:
        file["w"] = WEIGHTS["w"]
    return directory / "x.h5"


def write_gguf(directory: Path) -> Path:
    return quants.write(directory / "x.gguf", WEIGHTS)


def write_npz(directory: Path) -> Path:
    np.savez(directory / "x.npz", w=WEIGHTS["w"])
    return directory / "x.npz"


def write_pytorch(directory: Path) -> Path:
    return torch_files.write_zip(directory / "x.pt", WEIGHTS)


WRITERS = dict(
    zip(
        NAMES,
        [
            write_safetensors,
            write_hdf5,
            write_gguf,
            write_msgpack,
            write_equinox,
            write_tensorflow,
            write_npz,
            write_pytorch,
            write_checkpoint,
        ],
        strict=True,
    )
)


def test_each_module_has_one_format_under_a_name_of_its_own() -> None:
    assert [each.name for each in formats()] == NAMES
    assert all(isinstance(each, Format) for each in formats())


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
def test_what_a_format_wrote_only_it_recognises_and_it_opens(
    name: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = write(tmp_path)
    (owner,) = [each for each in formats() if each.recognises(path)]
    assert owner.name == name
    source = owner.open(path, {})
    assert type(source) is type(open_source(path))
    assert [str(spec) for spec in source.specs().values()] == ["ShapeDtypeStruct(shape=(3,), dtype=float32)"]


def test_a_format_is_imported_only_when_it_is_asked(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path)
    code = (
        "import json, sys, treeload\n"
        "def asked(): return [m for m in json.loads(sys.argv[1]) if m in sys.modules]\n"
        "before = asked()\n"
        "treeload.open(sys.argv[2])\n"
        "print(json.dumps([before, asked()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(FORMATS), str(path)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [[], [FORMATS[0]]]


def test_who_stands_first_in_the_list_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Source):
        def specs(self) -> dict[Name, object]:  # type: ignore[override]
            return {}

        def read(self, requests: object) -> object:  # type: ignore[override]
            return iter(())

    module = ModuleType("other_format")
    module.FORMAT = Format("other", "Other", lambda path: True, lambda path: Other())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_format", module)
    path = write_safetensors(tmp_path)
    monkeypatch.setattr("treeload._formats.FORMATS", (*FORMATS, "other_format"))
    assert not isinstance(treeload.open(path), Other)
    monkeypatch.setattr("treeload._formats.FORMATS", ("other_format", *FORMATS))
    assert isinstance(treeload.open(path), Other)


@pytest.mark.parametrize("name", ["msgpack", "equinox", "safetensors", "npz", "pytorch"])
def test_an_item_is_asked_for_of_a_format_that_has_none(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path)
    with pytest.raises(SourceError, match=f"{path.name}' is no Orbax checkpoint, so it has no item 'ema'"):
        open_source(path, item="ema")


def test_a_separator_splits_the_joined_keys_of_a_format_that_joins_none(tmp_path: Path) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize({"dense/kernel": WEIGHTS["w"]}))
    assert list(open_source(path).specs()) == [("dense/kernel",)]
    assert list(open_source(path, separator="/").specs()) == [("dense", "kernel")]


@pytest.mark.parametrize("name", ["msgpack", "equinox", "orbax"])
def test_a_separator_that_no_name_holds_changes_nothing(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path)
    assert open_source(path, separator="/").specs() == open_source(path).specs()


def test_options_reach_the_format_that_has_them(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a/b": np.ones(1)}, tmp_path / "x.safetensors")
    assert list(open_source(tmp_path / "x.safetensors", separator="/").specs()) == [("a", "b")]
    assert list(open_source(write_checkpoint(tmp_path), item="state").specs()) == [("w",)]


def test_a_path_of_no_format_lists_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="is no checkpoint that treeload knows") as caught:
        treeload.open(tmp_path / "notes.txt")
    assert str(caught.value).splitlines()[1:] == [f"  {each.words}" for each in formats()]


def test_an_empty_directory_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is an empty directory"):
        treeload.open(tmp_path)


def test_a_path_that_does_not_exist_says_what_lies_near(tmp_path: Path) -> None:
    write_safetensors(tmp_path)
    with pytest.raises(SourceError, match=r"exist; near: 'x.safetensors'; '.*' holds x.safetensors$"):
        treeload.open(tmp_path / "y.safetensors")
    with pytest.raises(SourceError, match=r"other' does not exist; '.*' holds x.safetensors$"):
        treeload.open(tmp_path / "other")


def test_the_nearest_names_are_said_before_a_list_that_is_cut(tmp_path: Path) -> None:
    for name in (*"abcdefgh", "pretrained"):
        (tmp_path / name).mkdir()
    for typo in ("pretraned", "pretraned/15"):
        with pytest.raises(SourceError, match=r"near: 'pretrained'; '.*' holds a, b, c, d, e, f, g, h, …$"):
            treeload.open(tmp_path / typo)
    (tmp_path / "pretrained").rmdir()
    with pytest.raises(SourceError, match=r"exist; '.*' holds a, b, c, d, e, f, g, h$"):
        treeload.open(tmp_path / "pretraned")


def test_a_format_may_answer_for_a_path_that_does_not_exist(tmp_path: Path) -> None:
    write_checkpoint(tmp_path).rename(tmp_path / "x.orbax-checkpoint-tmp")
    with pytest.raises(SourceError, match="x.orbax-checkpoint-tmp' beside it was never completed"):
        treeload.open(tmp_path / "x")


def test_a_from_hands_its_options_on(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="so it has no item 'ema'"):
        treeload.plan({"w": jnp.zeros(3)}, From(write_safetensors(tmp_path), item="ema"))
