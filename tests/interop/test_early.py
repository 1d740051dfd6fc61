"""What Orbax and Flax wrote in their early years, by their own code of that time: ``tests/data/early``."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from orbax_writers import _warnings_of_others

import treeload
from treeload import SourceError

DATA = Path(__file__).parent.parent / "data" / "early"
ORBAX = (
    "orbax_0_1_6/stored",  # a msgpack file of the structure, and arrays
    "orbax_0_1_6/packed",  # all values in that file
    "orbax_0_2_0/mixed",  # some of them
    "orbax_0_4_3/mixed",  # beside a _METADATA
    "flax_0_7_5/mixed",  # and with OCDBT
    "flax_0_6_9/checkpoint_3",
    "flax_0_7_5/flax/checkpoint_12",
)


def made(name: str) -> Any:
    spec = importlib.util.spec_from_file_location("make", DATA / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


EARLY = made("EARLY")


def named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def values(path: Path) -> dict[str, Any]:
    source = treeload.open(path)
    return {str(name): array for name, array in source.read(source.specs())}


@pytest.mark.parametrize("path", ORBAX)
def test_early_orbax_is_read_bit_for_bit(path: str) -> None:
    found, wanted = values(DATA / path), named(EARLY)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == np.asarray(value).dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("path", ORBAX)
def test_early_orbax_is_read_as_orbax_reads_it(path: str) -> None:
    with _warnings_of_others():
        theirs = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore((DATA / path).absolute())
    found, wanted = values(DATA / path), named(theirs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], np.asarray(value), err_msg=name)


@pytest.mark.parametrize("path", ORBAX)
def test_early_orbax_loads_into_its_tree_on_any_device(path: str) -> None:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("x",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    dst = jax.tree.map(lambda x: jnp.zeros_like(x) if isinstance(x, np.ndarray) else x, EARLY)
    dst["params"]["embed"] = jax.device_put(dst["params"]["embed"], spread)
    dst["params"]["dense"]["kernel"] = jax.device_put(dst["params"]["dense"]["kernel"], spread)
    loaded = treeload.load(dst, DATA / path)
    for name, value in named(EARLY).items():
        np.testing.assert_array_equal(named(loaded)[name], value, err_msg=name)
    assert loaded["params"]["embed"].sharding == spread
    assert type(loaded["step"]) is int and type(loaded["rate"]) is float


@pytest.mark.parametrize(
    ("root", "step"), [("flax_0_6_9", 3), ("flax_0_7_5/flax", 12), ("orbax_0_1_6/run", 10)]
)
def test_a_directory_of_early_steps_means_the_latest(root: str, step: int) -> None:
    assert treeload.open(DATA / root).label == f"{str(DATA / root)!r} (Orbax, step {step})"


def test_an_early_training_is_resumed() -> None:
    def never() -> Any:
        raise AssertionError("there is a checkpoint")

    state, step = treeload.resume(
        {"w": jnp.zeros(2, jnp.int32)}, DATA / "orbax_0_1_6" / "run", otherwise=never
    )
    assert (state["w"].tolist(), step) == ([10, 10], 10)
    assert treeload.resume(EARLY, DATA / "flax_0_7_5" / "flax", otherwise=never)[1] == 12


@pytest.mark.parametrize("path", ORBAX)
def test_digests_beside_an_early_checkpoint_cover_all_of_its_leaves(path: str, tmp_path: Path) -> None:
    copy = shutil.copytree(DATA / path, tmp_path / "c")
    treeload.digest(copy)
    assert treeload.verify(copy).ok and len(treeload.verify(copy).checked) == len(named(EARLY))
    packed = copy / "checkpoint"
    changed = packed.read_bytes().replace(
        np.ones(3, np.float16).tobytes(), np.full(3, 2, np.float16).tobytes()
    )
    if changed != packed.read_bytes():
        packed.write_bytes(changed)
        assert list(map(str, treeload.verify(copy).damaged)) == ["params/dense/bias"]


def test_an_early_checkpoint_is_never_replaced_by_a_save(tmp_path: Path) -> None:
    copy = shutil.copytree(DATA / "orbax_0_1_6" / "packed", tmp_path / "c")
    with pytest.raises(treeload.SaveError, match="of an older Orbax: it is never replaced; save to another"):
        treeload.save(copy, EARLY, overwrite=True)
    assert values(copy)


# No file of the structure.


def test_where_no_file_has_the_structure_the_directories_of_the_arrays_are_it(tmp_path: Path) -> None:
    copy = shutil.copytree(DATA / "orbax_0_1_6" / "stored", tmp_path / "c")
    (copy / "checkpoint").unlink()
    with _warnings_of_others():
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
        theirs = named(ocp.Checkpointer(handler).restore(copy))
    (copy / "commit_success.txt").touch()  # as on some file systems
    found = values(copy)
    assert set(found) == set(named(EARLY))
    for name in named(EARLY):
        np.testing.assert_array_equal(found[name], np.asarray(theirs[name]), err_msg=name)


def test_a_later_tree_that_lost_its_metadata_is_not_taken_for_an_early_one(tmp_path: Path) -> None:
    with (
        _warnings_of_others(),
        ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer,
    ):
        checkpointer.save(tmp_path / "c", {"a.b": jnp.ones(2)})
    (tmp_path / "c" / "_METADATA").unlink()
    with pytest.raises(SourceError, match="'_METADATA' is neither in it nor in a child"):
        treeload.open(tmp_path / "c")


# Early Flax.


def test_named_tuples_of_early_flax_have_their_fields() -> None:
    wanted = made("NAMED")
    path = DATA / "flax_0_3_3" / "named.msgpack"
    assert list(values(path)) == ["0/count", "0/mu/w", "2/rate"]
    loaded = treeload.load(jax.tree.map(lambda x: x * 0, wanted), path)
    assert loaded[0].count == 4 and loaded[0].mu["w"].tolist() == [0, 1, 2] and loaded[2]["rate"] == 0.5
