"""What Orbax and Flax wrote, in every layout, is what treeload reads."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pytrees import nest

from treeload._errors import SourceError
from treeload._formats.flax.source import MsgpackSource
from treeload._formats.flax.source import recognises as recognises_msgpack
from treeload._formats.orbax.source import OrbaxSource, recognises
from treeload._naming.name import Name
from treeload._sources.source import Source
from treeload.testing import SourceConformance

# pytest's importlib mode puts no test directory on the path.
_spec = importlib.util.spec_from_file_location("orbax_writers", Path(__file__).with_name("orbax_writers.py"))
assert _spec is not None and _spec.loader is not None
writers = importlib.util.module_from_spec(_spec)
sys.modules["orbax_writers"] = writers
_spec.loader.exec_module(writers)


class _Layout(SourceConformance):
    write: Any

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return OrbaxSource(type(self).write(directory, nest(leaves)))


class TestV1(_Layout):
    write = writers.v1


class TestV0WithOcdbt(_Layout):
    write = writers.v0_standard


class TestV0WithoutOcdbt(_Layout):
    write = writers.v0_without_ocdbt


class TestV0Zarr3WithoutOcdbt(_Layout):
    write = writers.v0_zarr3_without_ocdbt


class TestManagerStep(_Layout):
    write = writers.manager_step


class TestManagerRoot(_Layout):
    write = writers.manager_root


class TestFlaxStepThroughOrbax(_Layout):
    write = writers.flax_step


class TestFlaxMsgpack(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return MsgpackSource(writers.flax_msgpack_root(directory, nest(leaves)))


TREE = {
    "a.b": np.arange(3, dtype=np.float32),
    "layers": [{"w": np.ones((2, 3), np.float32)}, {"w": np.zeros((2, 3), np.float32)}],
    "pair": (np.ones(1, np.int32), np.ones(2, np.int32)),
    "step": 3,
    "lr": 0.5,
    "flag": True,
    "hole": None,
    "nothing": {},
}
SPECS = {
    "a.b": "float32[3]",
    "layers/0/w": "float32[2,3]",
    "layers/1/w": "float32[2,3]",
    "pair/0": "int32[1]",
    "pair/1": "int32[2]",
    "step": "int64[]",
    "lr": "float64[]",
    "flag": "bool[]",
}


def _printed(source: Source) -> dict[str, str]:
    return {
        str(name): f"{spec.dtype}[{','.join(map(str, spec.shape))}]" for name, spec in source.specs().items()
    }


def _values(source: Source) -> dict[str, Any]:
    return {str(name): value for name, value in source.read(source.specs())}


@pytest.mark.parametrize("write", writers.ORBAX, ids=lambda write: write.__name__)
def test_every_layout_gives_true_names_scalars_and_holes(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path, TREE)
    assert recognises(path)
    source = OrbaxSource(path)
    assert _printed(source) == SPECS
    assert dict(source.absent()) == {Name(("hole",)): None}
    values = _values(source)
    assert (values["step"], values["lr"], values["flag"]) == (3, 0.5, True)
    np.testing.assert_array_equal(values["a.b"], np.arange(3))


@pytest.mark.parametrize("write", [writers.v1, writers.v0_pytree, writers.v0_without_ocdbt])
def test_text_is_no_leaf(write: Any, tmp_path: Path) -> None:
    assert _printed(OrbaxSource(write(tmp_path, {"text": "gelu", "w": np.ones(2)}))) == {"w": "float64[2]"}


@pytest.mark.parametrize("write", [writers.v1, writers.v0_pytree, writers.v0_without_ocdbt])
def test_typed_keys_come_back_as_keys_of_their_implementation(write: Any, tmp_path: Path) -> None:
    tree = {"one": jax.random.key(1), "many": jax.random.split(jax.random.key(2, impl="rbg"), 3)}
    source = OrbaxSource(write(tmp_path, tree))
    assert _printed(source) == {"one": "key<fry>[]", "many": "key<rbg>[3]"}
    values = _values(source)
    for name, key in tree.items():
        assert values[name].dtype == key.dtype
        np.testing.assert_array_equal(jax.random.key_data(values[name]), jax.random.key_data(key))


@pytest.mark.parametrize("write", [writers.v1, writers.v0_without_ocdbt])
def test_reads_straight_into_another_sharding_than_was_saved(write: Any, tmp_path: Path) -> None:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:8]).reshape(4, 2), ("x", "y"))

    def sharded(*axes: str | tuple[str, ...] | None) -> jax.sharding.NamedSharding:
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    values = np.arange(8 * 6, dtype=np.float32).reshape(8, 6)
    source = OrbaxSource(write(tmp_path, {"w": jax.device_put(values, sharded("x", None))}))
    for wanted in (sharded("y", None), sharded(None, "y"), sharded(("x", "y")), sharded()):
        request = jax.ShapeDtypeStruct((8, 6), np.float32, sharding=wanted)
        ((_, array),) = source.read({Name(("w",)): request})
        assert array.sharding == wanted
        np.testing.assert_array_equal(array, values)


def test_several_items_are_listed_until_one_is_chosen(tmp_path: Path) -> None:
    path = writers.v1_checkpointables(tmp_path, {"params": {"w": jnp.ones(2)}, "opt": {"m": jnp.ones(3)}})
    with pytest.raises(SourceError, match=r"'opt', 'params'.*item="):
        OrbaxSource(path)
    source = OrbaxSource(path, item="opt")
    assert _printed(source) == {"m": "float32[3]"}
    assert source.label == f"{str(path)!r} (Orbax, item 'opt')"
    with pytest.raises(SourceError, match=r"no item 'nope'.*'opt', 'params'"):
        OrbaxSource(path, item="nope")


def test_an_item_is_chosen_below_a_managers_root_too(tmp_path: Path) -> None:
    path = writers.manager_items(tmp_path, {"params": {"w": np.ones(2)}, "opt": {"m": np.ones(3)}})
    source = OrbaxSource(path, item="params")
    assert _printed(source) == {"w": "float64[2]"}
    assert source.label.endswith("(Orbax, step 3, item 'params')")
    with pytest.raises(SourceError, match="no item 'notes'"):  # there, but JSON
        OrbaxSource(path, item="notes")


def test_a_root_means_its_latest_step_by_number_and_says_so(tmp_path: Path) -> None:
    source = OrbaxSource(writers.manager_root(tmp_path, {"w": np.ones(2)}, steps=(9, 10)))
    assert source.step == 10
    assert source.label.endswith("(Orbax, step 10)")
    assert _printed(source) == {"w": "float64[2]"}


def test_a_root_with_prefixed_padded_steps_is_understood(tmp_path: Path) -> None:
    root = writers.manager_root(tmp_path, {"w": np.ones(2)}, step_prefix="ckpt", step_format_fixed_length=6)
    assert OrbaxSource(root).step == 10


def test_an_incomplete_latest_step_is_passed_over(tmp_path: Path) -> None:
    root = writers.manager_root(tmp_path, {"w": np.ones(2)})
    (root / "11.orbax-checkpoint-tmp" / "default").mkdir(parents=True)
    (root / "12").mkdir()
    assert OrbaxSource(root).step == 10


def test_a_damaged_latest_step_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    root = writers.manager_root(tmp_path, {"w": np.ones(2)})
    (root / "10" / "default" / "_METADATA").write_text("{")
    with pytest.raises(SourceError, match=r"10/default/_METADATA"):
        OrbaxSource(root)


def test_two_series_of_steps_in_one_directory_are_no_choice_of_ours(tmp_path: Path) -> None:
    root = writers.manager_root(tmp_path, {"w": np.ones(2)}, steps=(2, 3))
    (root / "3").rename(root / "best_3")
    with pytest.raises(SourceError, match="several series"):
        OrbaxSource(root)


def test_flax_msgpack_steps_are_found_and_named(tmp_path: Path) -> None:
    root = writers.flax_msgpack_root(tmp_path, {"w": np.ones(2)})
    assert recognises_msgpack(root) and not recognises(root)
    source = MsgpackSource(root)
    assert source.label == f"{str(root)!r} (Flax msgpack, step 10)"
    assert _printed(source) == {"w": "float64[2]"}


def test_of_flax_files_and_directories_the_later_step_decides(tmp_path: Path) -> None:
    root = writers.flax_msgpack_root(tmp_path, {"w": np.ones(2)})
    writers.flax_root(tmp_path / "other", {"w": np.ones(2)})
    (tmp_path / "other" / "flax" / "checkpoint_10").rename(root / "checkpoint_11")
    assert recognises(root) and not recognises_msgpack(root)
    (root / "checkpoint_11").rename(root / "checkpoint_9")
    assert recognises_msgpack(root) and not recognises(root)


def test_custom_metadata_of_others_is_the_sources_metadata(tmp_path: Path) -> None:
    from orbax.checkpoint import v1 as ocp

    ocp.save(tmp_path / "x", {"w": np.ones(2)}, custom_metadata={"epoch": 4})
    assert dict(OrbaxSource(tmp_path / "x").metadata) == {"epoch": 4}


def test_names_that_orbax_stored_as_one_are_refused(tmp_path: Path) -> None:
    path = writers.v1(tmp_path, {"a.b": np.ones(2), "a": {"b": np.zeros(2)}})
    listed = json.loads((path / "state" / "_METADATA").read_text())["tree_metadata"]
    assert len(listed) == 2  # Orbax says nothing
    with pytest.raises(SourceError, match=r"'a(\.|/)b' and 'a(\.|/)b' are both stored as 'a\.b'"):
        OrbaxSource(path)
