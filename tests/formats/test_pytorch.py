"""PyTorch's files as a source: names, places, ties and damage. Files of PyTorch's own: ``tests/interop``."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from archives import Made
from torch_files import named, nested, storage, tensor, write_legacy, write_zip

import treeload
from treeload import From, RuleError, SourceError
from treeload._files.open import read_bytes
from treeload._files.place import Handle
from treeload._formats.pytorch.source import PyTorchSource
from treeload._naming.name import Name
from treeload._sources.source import Source
from treeload.testing import SourceConformance

BOTH = pytest.mark.parametrize("write", [write_zip, write_legacy], ids=["zip", "legacy"])
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


class TestZipped(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return PyTorchSource(write_zip(directory / "x.pt", {".".join(name): v for name, v in leaves.items()}))


class TestLegacy(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        joined = {".".join(name): array for name, array in leaves.items()}
        return PyTorchSource(write_legacy(directory / "x.pth", joined))


class TestCompressed(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        joined = {".".join(name): array for name, array in leaves.items()}
        return PyTorchSource(write_zip(directory / "x.pt", joined, deflate=True))


class TestShards(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        items = [(".".join(name), array) for name, array in leaves.items()]
        return PyTorchSource(write_shards(directory, dict(items[:5]), dict(items[5:])))


def write_shards(directory: Path, *parts: Mapping[str, Any], stem: str = "pytorch_model") -> Path:
    where: dict[str, str] = {}
    for number, part in enumerate(parts):
        write_zip(directory / f"{stem}-{number}.bin", part)
        where |= dict.fromkeys(part, f"{stem}-{number}.bin")
    index = {"metadata": {"total_size": 3}, "weight_map": where}
    (directory / f"{stem}.bin.index.json").write_text(json.dumps(index))
    return directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.pt"


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    source = treeload.open(path)
    return {str(name): array for name, array in source.read(dict(source.specs()))}


# Which files, and under which names.


@BOTH
@pytest.mark.parametrize("name", ["x.pth.tar", "weights", "x.ckpt", "0a1b2c"])
def test_it_is_told_by_its_bytes(tmp_path: Path, name: str, write: Any) -> None:
    loaded = treeload.load({"a": {"b": jnp.zeros((3, 4))}}, write(tmp_path / name, {"a.b": VALUES}))
    np.testing.assert_array_equal(loaded["a"]["b"], VALUES)


@pytest.mark.parametrize("root", ["archive/", "my model/", "a/b/"])
def test_its_root_may_have_any_name(path: Path, root: str) -> None:
    assert list(read(write_zip(path, {"w": VALUES}, root=root))) == ["w"]


def test_an_archive_that_was_packed_again_is_one_too(path: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "first.pt", {"w": VALUES})
    with (
        zipfile.ZipFile(tmp_path / "first.pt") as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in sorted(old.namelist(), reverse=True):
            new.writestr(name, old.read(name))
        assert not new.namelist()[0].endswith("data.pkl")
    np.testing.assert_array_equal(read(path)["w"], VALUES)


def test_names_are_cut_where_it_is_said(path: Path) -> None:
    write_zip(path, {"a.b/c": VALUES})
    assert list(treeload.open(path).specs()) == [("a", "b/c")]
    assert list(PyTorchSource(path, separator=None).specs()) == [("a.b/c",)]
    assert treeload.plan({"a.b": {"c": jnp.zeros((3, 4))}}, From(path, separator="/")).ok
    with pytest.raises(RuleError):
        PyTorchSource(path, separator="")


def test_containers_become_names(path: Path) -> None:
    held = storage("0", "float32", 12)
    tree = {
        "model": {"a.w": tensor(held, (3, 4))},
        "list": [tensor(held, (2,)), {"x": tensor(held, (1,))}],
        "pair": (tensor(held, (3,)), 5),
        7: 1.5,
        "empty": [],
    }
    path.write_bytes(torch_files.zipped(tree, {"0": VALUES.tobytes()}))
    assert {str(name) for name in treeload.open(path).specs()} == {
        "model/a/w", "list/0", "list/1/x", "pair/0", "pair/1", "7",
    }  # fmt: skip


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict", "module", "_orig_mod"])
def test_a_wrapper_is_said_by_the_report_and_what_it_says_loads(path: Path, wrapper: str) -> None:
    inner = {"enc.w": VALUES, "enc.b": VALUES[0]}
    if wrapper in ("module", "_orig_mod"):
        write_zip(path, {f"{wrapper}.{name}": array for name, array in inner.items()})
    else:
        tensors, held = torch_files.described(inner)
        contents = {key: array.tobytes() for key, array in held.items()}
        path.write_bytes(torch_files.zipped({wrapper: tensors, "epoch": 3, "arch": "small"}, contents))
    model = {"enc": {"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)}}
    plan = treeload.plan(model, path)
    assert not plan.ok and f'From(src, subtree="{wrapper}")' in str(plan)
    loaded = treeload.load(model, From(path, subtree=wrapper))
    np.testing.assert_array_equal(loaded["enc"]["w"], VALUES)


@pytest.mark.parametrize("stem", ["pytorch_model", "diffusion_pytorch_model"])
def test_a_directory_is_its_index_or_its_file(tmp_path: Path, stem: str) -> None:
    write_zip(tmp_path / f"{stem}.bin", {"w": VALUES})
    (tmp_path / "config.json").write_text("{}")
    assert list(read(tmp_path)) == ["w"]
    write_shards(tmp_path, {"a": VALUES}, {"b": VALUES}, stem=stem)
    assert list(read(tmp_path)) == ["a", "b"]
    assert treeload.open(tmp_path).metadata == {"total_size": 3}
    assert list(read(tmp_path / f"{stem}.bin.index.json")) == ["a", "b"]


def test_a_directory_of_several_says_which(tmp_path: Path) -> None:
    for name in ("a_pytorch_model.bin", "b_pytorch_model.bin"):
        write_zip(tmp_path / name, {"w": VALUES})
    with pytest.raises(SourceError, match="2 PyTorch files: 'a_pytorch_model.bin', 'b_pytorch_model.bin'"):
        treeload.open(tmp_path)


def test_safetensors_come_before_pytorch_in_one_directory(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    write_zip(tmp_path / "pytorch_model.bin", {"old": VALUES})
    save_file({"new": VALUES}, tmp_path / "model.safetensors")
    assert list(treeload.open(tmp_path).specs()) == [("new",)]


def test_shards_hold_what_their_index_says(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a": VALUES}, {"b": VALUES})
    write_zip(tmp_path / "pytorch_model-1.bin", {"c": VALUES})
    with pytest.raises(SourceError, match="lacks 'b'"):
        treeload.open(tmp_path)


# What is read, and how much of it.


def test_a_plan_reads_the_pickle_and_no_storage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {f"layer{number}.w": np.zeros((500, 500), np.float32) for number in range(20)}
    counts: list[int] = []

    def counting(handle: Handle, count: int, offset: int) -> bytes:
        counts.append(count)
        return read_bytes(handle, count, offset)

    for module in ("zip", "unpack", "stream"):
        monkeypatch.setattr(f"treeload._files.{module}.read_bytes", counting)
    model = {f"layer{number}": {"w": jnp.zeros((500, 500))} for number in range(20)}
    assert treeload.plan(model, write_zip(path, arrays)).ok
    assert sum(counts) < 16_000 and len(counts) < 10
    counts.clear()
    assert treeload.plan(model, write_legacy(path.with_name("old.pt"), arrays)).ok
    assert sum(counts) <= (1 << 16) + 8192  # its first bytes tell what it is


def views(path: Path, *, order: bytes = b"little", deflate: bool = False) -> Path:
    """Views of one storage of 24 numbers, and one of a storage of which it is a small part."""
    big = order == b"big"
    held = storage("0", "float32", 24)
    tree = {
        "whole": tensor(held, (4, 6)),
        "transposed": tensor(held, (6, 4), strides=(1, 6)),
        "strided": tensor(held, (2, 3), strides=(12, 2), offset=1),
        "row": tensor(held, (6,), offset=12),
        "expanded": tensor(held, (3, 2), strides=(0, 1)),
        "far": tensor(storage("1", "complex64", 1000), (2, 2), strides=(1, 2), offset=500),
        "flags": tensor(storage("2", "bool", 4), (2, 2), strides=(1, 2)),
        "half": tensor(storage("3", "bfloat16", 3), (3,)),
    }
    contents = {
        "0": np.arange(24, dtype=">f4" if big else "<f4").tobytes(),
        "1": (np.arange(1000) * (1 + 2j)).astype(">c8" if big else "<c8").tobytes(),
        "2": bytes([1, 0, 1, 1]),
        "3": np.arange(3).astype(torch_files.BFLOAT16).view("u2").astype(">u2" if big else "<u2").tobytes(),
    }
    path.write_bytes(torch_files.zipped(tree, contents, order=order, deflate=deflate))
    return path


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("order", [b"little", b"big"])
def test_views_are_gathered_in_either_order_of_bytes(path: Path, order: bytes, deflate: bool) -> None:
    found = read(views(path, order=order, deflate=deflate))
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    far = (np.arange(1000) * (1 + 2j)).astype(np.complex64)[500:504].reshape(2, 2).T
    expected = {
        "whole": base, "transposed": base.T, "strided": base[::2, 1::2],
        "row": base[2], "expanded": np.broadcast_to(base[0, :2], (3, 2)), "far": far,
        "flags": np.array([[True, True], [False, True]]), "half": np.arange(3).astype(torch_files.BFLOAT16),
    }  # fmt: skip
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, strict=True)
        assert found[name].flags.c_contiguous


def test_views_are_placed_on_many_devices(path: Path) -> None:
    mesh = jax.make_mesh((2,), ("d",), devices=jax.devices()[:2])
    model = {
        name: jax.ShapeDtypeStruct(shape, np.float32, sharding=jax.sharding.NamedSharding(mesh, jax.P(*spec)))
        for name, shape, spec in (
            ("whole", (4, 6), (None, "d")),
            ("transposed", (6, 4), ("d",)),
            ("row", (6,), ("d",)),
        )
    }
    for deflate in (False, True):
        loaded = treeload.load(
            model, views(path, deflate=deflate), policy=treeload.Policy(unexpected="ignore")
        )
        np.testing.assert_array_equal(loaded["whole"], np.arange(24).reshape(4, 6))
        np.testing.assert_array_equal(loaded["transposed"], np.arange(24).reshape(4, 6).T)


def test_the_same_view_of_one_storage_is_a_tie(path: Path) -> None:
    held = storage("0", "float32", 12)
    tree = {
        "a": tensor(held, (3, 4)),
        "same": tensor(held, (3, 4)),
        "other shape": tensor(held, (12,)),
        "other start": tensor(held, (2, 4), offset=4),
        "alike": tensor(storage("1", "float32", 12), (3, 4)),
    }
    path.write_bytes(torch_files.zipped(tree, {"0": VALUES.tobytes(), "1": VALUES.tobytes()}))
    assert treeload.open(path).ties() == {("same",): ("a",)}


def test_a_part_of_an_older_storage(path: Path) -> None:
    tree = {
        "part": tensor(storage("0", "float32", 12, part=("1", 4, 8)), (2, 2), offset=2),
        "all": tensor(storage("0", "float32", 12, part=None), (12,)),
    }
    path.write_bytes(torch_files.legacy(tree, [("0", 12, VALUES.tobytes())]))
    np.testing.assert_array_equal(read(path)["part"], VALUES.reshape(-1)[6:10].reshape(2, 2))


def test_ordered_dicts_of_python_2(path: Path) -> None:
    held = tensor(storage("0", "float32", 12, part=None), (12,))
    tree = torch_files.called(named("collections", "OrderedDict"), [["a.w", held]])
    path.write_bytes(torch_files.legacy(tree, [("0", 12, VALUES.tobytes())]))
    assert list(read(path)) == ["a/w"]


# Damage.


def test_a_flipped_bit_in_a_storage_is_found(path: Path) -> None:
    content = bytearray(views(path).read_bytes())
    content[content.index(np.arange(24, dtype="<f4").tobytes()) + 50] ^= 1
    path.write_bytes(content)
    found = treeload.verify(path)
    # What is a part of the storage cannot be told to be intact, and is not said to be.
    assert {str(name) for name in found.damaged} == {"whole", "transposed", "strided"}
    assert {str(name) for name in found.unverified} == {"row", "expanded", "far"}
    with pytest.raises(SourceError, match="'whole' is damaged"):
        treeload.load({"whole": jnp.zeros((4, 6))}, path, policy=treeload.Policy(unexpected="ignore"))


def test_damage_is_let_through_where_it_is_asked_for(path: Path) -> None:
    for deflate in (False, True):
        made = Made("archive/data/0", VALUES.tobytes(), deflate, {"crc": 7}, {"crc": 7})
        tree = {"w": tensor(storage("0", "float32", 12), (3, 4))}
        path.write_bytes(torch_files.zipped(tree, {}, others=[made]))
        plan = treeload.plan({"w": jnp.zeros((3, 4))}, path)
        with pytest.raises(SourceError, match="is damaged"):
            plan.load()
        np.testing.assert_array_equal(plan.load(check_digests=False)["w"], VALUES)


@BOTH
def test_digests_beside_it_are_used(path: Path, write: Any) -> None:
    write(path, {"w": VALUES, "v": VALUES.copy()})
    treeload.digest(path)
    assert treeload.verify(path).ok
    write(path, {"w": VALUES + 1, "v": VALUES.copy()})
    assert treeload.verify(path).damaged == (("w",),)


def test_digests_are_of_views_too(path: Path) -> None:
    treeload.digest(views(path))
    assert treeload.verify(path).ok
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(24, dtype="<f4").tobytes()) + 50] ^= 1
    path.write_bytes(content)
    assert {str(name) for name in treeload.verify(path).damaged} == {"whole", "transposed", "strided", "row"}


def test_a_file_that_has_changed_is_not_read(path: Path) -> None:
    source = treeload.open(write_zip(path, {"w": VALUES}))
    write_zip(path, {"w": VALUES, "v": VALUES})
    with pytest.raises(SourceError, match="has changed"):
        list(source.read(dict(source.specs())))


def test_a_number_is_read_where_it_is_asked_for(path: Path) -> None:
    path.write_bytes(torch_files.zipped({"step": 7, "best": 0.5, "done": True, "big": 2**63, "w": []}, {}))
    source = treeload.open(path)
    assert source.numbers() == set(source.specs())
    loaded = treeload.load({"step": 0, "best": 0.0, "done": False, "big": np.uint64(0)}, path)
    assert loaded == {"step": 7, "best": 0.5, "done": True, "big": 2**63}
    device = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    ((_, array),) = source.read({Name(("done",)): jax.ShapeDtypeStruct((), bool, sharding=device)})
    assert array.sharding == device and bool(array)


def test_a_nested_tree_is_what_the_helper_says() -> None:
    assert nested({("a", "b"): 1, ("c",): 2}) == {"a": {"b": 1}, "c": 2}
