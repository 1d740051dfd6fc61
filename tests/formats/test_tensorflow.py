"""TensorFlow's checkpoints: the laws of a source, which bundle a path means, names, checksums."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bundles
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import From, Name, SourceError
from treeload._files.crc32c import crc32c
from treeload._formats.tensorflow.source import TensorflowSource
from treeload.testing import SourceConformance

W = np.arange(6, dtype=np.float32).reshape(2, 3)


class TestTensorflow(SourceConformance):
    dtypes = tuple(bundles.CODES)

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> TensorflowSource:
        named = {"/".join(name): array for name, array in leaves.items()}
        return TensorflowSource(bundles.write(directory / "model.ckpt", named, shards=3))


def names(path: Path, **options: Any) -> list[str]:
    return [str(name) for name in TensorflowSource(path, **options).specs()]


# Which bundle.


def write(prefix: Path, value: float = 0.0) -> Path:
    return bundles.write(prefix, {"dense/kernel": W + np.float32(value), "step": np.int64(7)})


def first(path: Path) -> float:
    ((_, array),) = TensorflowSource(path).read(
        {Name("dense/kernel"): jax.ShapeDtypeStruct((2, 3), np.float32)}
    )
    return float(array[0, 0])


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_a_bundle_is_opened_by_its_name_and_by_any_of_its_files(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "network.040")
    (tmp_path / "network.040.meta").write_bytes(b"a graph")
    source = treeload.open(tmp_path / f"network.040{ending}")
    assert isinstance(source, TensorflowSource)
    assert [str(name) for name in source.specs()] == ["dense/kernel", "step"]


def test_a_directory_means_the_latest_that_it_says(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        write(tmp_path / f"model.ckpt-{number}", number)
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-9"\nall_model_checkpoint_paths: "model.ckpt-10"\n'
    )
    assert first(tmp_path) == 9.0
    source = treeload.open(tmp_path)
    assert source.label == f"{str(tmp_path)!r} (TensorFlow, model.ckpt-9)"
    assert isinstance(source, TensorflowSource) and source.step == 9


def test_the_latest_may_be_said_by_its_whole_path_and_lie_deeper(tmp_path: Path) -> None:
    write(tmp_path / "a" / "ckpt-1", 1.0)
    (tmp_path / "checkpoint").write_text("model_checkpoint_path: 'a/ckpt-1'\n")
    assert first(tmp_path) == 1.0
    (tmp_path / "a" / "checkpoint").write_text(f'model_checkpoint_path: "{tmp_path / "a" / "ckpt-1"}"\n')
    assert first(tmp_path / "a") == 1.0


@pytest.mark.parametrize("said", ["{other}/ckpt-1", "../other/ckpt-1", "ckpt-2", "", "link/ckpt-1"])
def test_the_latest_is_never_outside_of_its_directory(tmp_path: Path, said: str) -> None:
    write(tmp_path / "other" / "ckpt-1")
    write(tmp_path / "run" / "ckpt-1")
    (tmp_path / "run" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "run" / "checkpoint").write_text(
        f'model_checkpoint_path: "{said.format(other=tmp_path / "other")}"\n'
    )
    with pytest.raises(SourceError, match="outside|not in its directory|there is no|leads out"):
        treeload.open(tmp_path / "run")


def test_a_directory_that_was_moved_says_which_of_it_was_the_latest(tmp_path: Path) -> None:
    write(tmp_path / "new" / "ckpt-1")
    (tmp_path / "new" / "checkpoint").write_text(f'model_checkpoint_path: "{tmp_path}/old/ckpt-1"\n')
    with pytest.raises(SourceError, match=f"open '{tmp_path}/new/ckpt-1'"):
        treeload.open(tmp_path / "new")


def test_a_directory_of_one_bundle_means_it_and_of_several_none(tmp_path: Path) -> None:
    write(tmp_path / "network.001", 1.0)
    assert first(tmp_path) == 1.0
    write(tmp_path / "network.002", 2.0)
    with pytest.raises(
        SourceError, match="2 checkpoints of TensorFlow.*'network.001', 'network.002'; open one"
    ):
        treeload.open(tmp_path)


def test_a_saved_model_means_its_variables(tmp_path: Path) -> None:
    write(tmp_path / "variables" / "variables", 3.0)
    (tmp_path / "saved_model.pb").write_bytes(b"a graph")
    assert first(tmp_path) == 3.0


def test_a_checkpoint_file_of_others_is_none_of_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"\x81\xa1w\x01")
    assert not isinstance(treeload.open(tmp_path), TensorflowSource)


# Names.


def test_names_are_split_at_slashes_or_where_asked(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"a/b.c": W})
    assert list(treeload.open(tmp_path / "x").specs()) == [("a", "b.c")]
    assert list(TensorflowSource(tmp_path / "x", separator=None).specs()) == [("a/b.c",)]
    plan = treeload.plan({"a/b": {"c": W}}, From(tmp_path / "x", separator="."))
    assert plan.ok


def test_an_objects_variable_is_called_by_the_way_to_it(tmp_path: Path) -> None:
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    bundles.write(
        tmp_path / "ckpt-1",
        {f"model/a.Sb..c/kernel{value}": W, f"model/a.Sb..c/kernel/.OPTIMIZER_SLOT/opt/m{value}": W,
         f"save_counter{value}": np.int64(1)},
        more={"_CHECKPOINTABLE_OBJECT_GRAPH": bundles.entry(7, [], b"", 0)},
    )  # fmt: skip
    source = treeload.open(tmp_path / "ckpt-1")
    assert list(source.specs()) == [
        ("model", "a/b.c", "kernel"),
        ("model", "a/b.c", "kernel", ".OPTIMIZER_SLOT", "opt", "m"),
        ("save_counter",),
    ]
    assert source.statics() == {("_CHECKPOINTABLE_OBJECT_GRAPH",)}
    policy = treeload.Policy(unexpected="ignore")
    loaded = treeload.load(
        {"model": {"a/b.c": {"kernel": jnp.zeros((2, 3))}}}, tmp_path / "ckpt-1", policy=policy
    )
    np.testing.assert_array_equal(loaded["model"]["a/b.c"]["kernel"], W)


def test_a_model_of_returnn_loads_by_its_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    leaves = {
        "global_step": np.int64(40), "learning_rate": np.float32(0.1),
        "lstm0_fw/rec/W_re": rng.normal(size=(4, 16)).astype("f"),
        "lstm0_fw/rec/b": np.zeros(16, "f"), "output/rec/output_prob/W": rng.normal(size=(4, 5)).astype("f"),
        "optimize/lstm0_fw/rec/W_re/Adam": np.zeros((4, 16), "f"),
    }  # fmt: skip
    bundles.write(tmp_path / "net-model" / "network.040", leaves)
    model = {"lstm": {"kernel": jnp.zeros((4, 16)), "bias": jnp.ones(16)}, "out": jnp.zeros((4, 5))}
    rules = [
        treeload.Rename("lstm0_fw/rec/W_re", "lstm/kernel"), treeload.Rename("lstm0_fw/rec/b", "lstm/bias"),
        treeload.Rename("output/rec/output_prob/W", "out"),
    ]  # fmt: skip
    policy = treeload.Policy(
        unexpected={"global_step": "ignore", "learning_rate": "ignore", "optimize/**": "ignore"}
    )
    loaded = treeload.load(model, tmp_path / "net-model" / "network.040", rules=rules, policy=policy)
    np.testing.assert_array_equal(loaded["lstm"]["kernel"], leaves["lstm0_fw/rec/W_re"])
    np.testing.assert_array_equal(loaded["out"], leaves["output/rec/output_prob/W"])


# Checksums and digests.


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x10
    path.write_bytes(raw)


def test_a_flipped_bit_of_a_tensor_is_found_when_it_is_read_and_by_verify(tmp_path: Path) -> None:
    write(tmp_path / "x")
    assert treeload.verify(tmp_path / "x").ok
    assert "verified" not in str(treeload.inspect(tmp_path / "x"))
    flip(tmp_path / "x.data-00000-of-00001", 5)
    found = treeload.verify(tmp_path / "x")
    assert [str(name) for name in found.damaged] == ["dense/kernel"]
    assert [str(name) for name in found.checked] == ["step"]
    plan = treeload.plan({"dense": {"kernel": W}, "step": 0}, tmp_path / "x")
    with pytest.raises(SourceError, match="'dense/kernel' is damaged"):
        plan.load()
    assert plan.load(check_digests=False)["step"] == 7


def test_a_part_of_a_tensor_is_checked_too(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x", {"w": np.arange(64, dtype=np.float32).reshape(8, 8)})
    mesh = jax.make_mesh((len(jax.devices()),), ("d",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "d"))
    spec = jax.ShapeDtypeStruct((8, 8), np.float32, sharding=sharding)
    loaded = treeload.load({"w": spec}, tmp_path / "x")["w"]
    assert loaded.sharding == sharding
    np.testing.assert_array_equal(loaded, np.arange(64).reshape(8, 8))
    flip(tmp_path / "x.data-00000-of-00001", 130)
    with pytest.raises(SourceError, match="'w' is damaged"):
        treeload.load({"w": spec}, tmp_path / "x")


def test_digests_beside_it_hold_as_for_other_formats(tmp_path: Path) -> None:
    write(tmp_path / "x")
    treeload.digest(tmp_path / "x")
    source = treeload.open(tmp_path / "x")
    assert isinstance(source, TensorflowSource) and source.leaf_digests
    source._checksums[Name("dense/kernel")] ^= (
        1  # which is of the whole, and asked where nothing else is known
    )
    list(source.read(source.specs()))
    np.testing.assert_array_equal(
        treeload.load({"dense": {"kernel": W * 0}, "step": 0}, tmp_path / "x")["dense"]["kernel"], W
    )
    flip(tmp_path / "x.data-00000-of-00001", 5)
    assert not treeload.verify(tmp_path / "x").ok


LONG = 8 * (5685 + 16 * 4323)  # bytes of one window of the long way


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        3,
        4,
        5,
        9,
        64,
        4097,
        32767,
        32769,
        131071,
        131072,
        131079,
        LONG - 1,
        LONG,
        LONG + 5,
        LONG + 34_585,
    ],
)
def test_the_checksum_is_that_of_the_definition(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    assert crc32c(data) == bundles.crc32c(data)


def test_the_checksum_is_that_of_the_standard() -> None:  # RFC 3720, B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
