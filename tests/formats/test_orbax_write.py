"""What is saved comes back, plain Orbax reads it too, and a save that dies loses nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax_writers as writers
import pytest
from orbax.checkpoint import v1 as ocp

from treeload._errors import SaveError, SourceError
from treeload._files import exchange as _exchange
from treeload._files import replace as _replace
from treeload._formats.orbax import storable as _storable
from treeload._formats.orbax import write as _save
from treeload._formats.orbax.source import OrbaxSource, recognises
from treeload._formats.orbax.write import Beside, How, write
from treeload._naming.name import Name

WORK = "0123456789abcdef" * 2  # a workspace of a dead save
OLD = {Name(("w",)): np.zeros(3, np.float32)}
NEW = {Name(("w",)): np.ones(3, np.float32)}


def _name(text: str) -> Name:
    return Name.parse(text)


def _values(path: Path) -> dict[str, Any]:
    source = OrbaxSource(path)
    return {str(name): value for name, value in source.read(source.specs())}


def _is(path: Path, leaves: dict[Name, Any]) -> bool:
    return bool((_values(path)["w"] == leaves[Name(("w",))]).all())


def _plain_load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Orbax advises to pass a target
        return ocp.load(path)


# --- what comes back --------------------------------------------------------------------------------

DTYPES = (
    "bool int2 int4 int8 int16 int32 int64 uint2 uint4 uint8 uint16 uint32 uint64 float16 bfloat16 float32 "
    "float64 complex64 complex128 float4_e2m1fn float6_e2m3fn float6_e3m2fn float8_e3m4 float8_e4m3 "
    "float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"
).split()


def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path) -> None:
    leaves = {
        Name((dtype,)): np.asarray([[0, 1], [1, 0]]).astype(getattr(ml_dtypes, dtype, dtype))
        for dtype in DTYPES
    }
    write(tmp_path / "x", leaves)
    values = _values(tmp_path / "x")
    for (dtype,), array in leaves.items():
        assert values[dtype].dtype == array.dtype
        assert values[dtype].tobytes() == array.tobytes()


def test_jax_arrays_come_back_however_they_are_spread(tmp_path: Path) -> None:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:8]).reshape(4, 2), ("x", "y"))

    def spread(values: Any, *axes: str) -> jax.Array:
        return jax.device_put(values, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)))

    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    leaves = {
        "rows": spread(values, "x"),
        "blocks": spread(values, "x", "y"),
        "everywhere": spread(values),
        "four_bits": spread(values.astype(ml_dtypes.uint4), "x"),
    }
    write(tmp_path / "x", {Name((key,)): array for key, array in leaves.items()})
    assert set(map(str, OrbaxSource(tmp_path / "x").leaf_digests)) == set(leaves)
    for key, array in _values(tmp_path / "x").items():
        np.testing.assert_array_equal(array, np.asarray(leaves[key]))


def test_python_and_numpy_numbers_come_back_as_0d_arrays(tmp_path: Path) -> None:
    leaves = {"i": 2**62, "f": 0.1, "t": True, "c": 1 + 2j, "np": np.float32(0.1), "b": np.bool_(True)}
    write(tmp_path / "x", {Name((key,)): value for key, value in leaves.items()})
    values = _values(tmp_path / "x")
    expected = {"i": "int64", "f": "float64", "t": "bool", "c": "complex128", "np": "float32", "b": "bool"}
    assert {key: str(value.dtype) for key, value in values.items()} == expected
    for key, value in leaves.items():
        assert values[key].shape == ()
        assert values[key].item() == np.asarray(value).item()


def test_typed_keys_come_back_as_keys(tmp_path: Path) -> None:
    keys = jax.random.split(jax.random.key(3, impl="rbg"), 4)
    write(tmp_path / "x", {Name(("keys",)): keys, Name(("none",)): keys[:0]})
    values = _values(tmp_path / "x")
    assert values["keys"].dtype == keys.dtype == values["none"].dtype
    assert values["none"].shape == (0,)
    np.testing.assert_array_equal(jax.random.key_data(values["keys"]), jax.random.key_data(keys))


def test_arrays_that_are_no_plain_memory_come_back(tmp_path: Path) -> None:
    leaves = {
        Name(("swapped",)): np.arange(4, dtype=">f4"),
        Name(("fortran",)): np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        Name(("strided",)): np.arange(10)[::-3],
    }
    write(tmp_path / "x", leaves)
    for name, array in _values(tmp_path / "x").items():
        np.testing.assert_array_equal(array, leaves[Name((name,))])


def test_empty_arrays_ties_and_absences_come_back(tmp_path: Path) -> None:
    write(
        tmp_path / "x",
        {_name("embed"): np.ones(2), _name("z"): np.zeros((0, 3), np.int8)},
        beside=Beside(
            aliases={_name("head/kernel"): _name("embed")},
            absent={_name("head/bias"): None, _name("other/bias"): False},
        ),
    )
    source = OrbaxSource(tmp_path / "x")
    assert source.ties() == {_name("head/kernel"): _name("embed")}
    assert source.absent() == {_name("head/bias"): None, _name("other/bias"): False}
    assert (source.specs()[_name("z")].shape, source.specs()[_name("z")].dtype) == ((0, 3), np.int8)
    values = _values(tmp_path / "x")
    np.testing.assert_array_equal(values["head/kernel"], np.ones(2))
    assert values["z"].shape == (0, 3)


@pytest.mark.parametrize("absent", [{}, {_name("a/b"): None}, {_name("a"): False}])
def test_a_tree_without_arrays_is_saved_too(tmp_path: Path, absent: dict[Name, Any]) -> None:
    write(tmp_path / "x", {}, beside=Beside(absent=absent), metadata={"epoch": 1})
    source = OrbaxSource(tmp_path / "x")
    assert dict(source.specs()) == {}
    assert dict(source.absent()) == absent
    assert dict(source.metadata) == {"epoch": 1}


@pytest.mark.parametrize("name", [Name(), Name(("",))])
def test_a_tree_that_is_one_leaf_is_saved_too(tmp_path: Path, name: Name) -> None:
    write(tmp_path / "x", {name: np.ones(2)})
    source = OrbaxSource(tmp_path / "x")
    ((found, array),) = source.read(source.specs())
    assert found == name
    np.testing.assert_array_equal(array, np.ones(2))


KEYS = [
    *("a.b", "a/b", "", ".", "..", "../../x", "/", "a//b", "é\n", "zarr.json", "c", "0"),
    *("k" * 300, "\\", "#?*[0]"),
]


def test_any_text_may_be_a_key(tmp_path: Path) -> None:
    leaves = {Name((key, "leaf")): np.full(2, index) for index, key in enumerate(KEYS)}
    write(tmp_path / "x", leaves)
    source = OrbaxSource(tmp_path / "x")
    got = dict(source.read(source.specs()))
    assert {name: int(array[0]) for name, array in got.items()} == {
        name: int(array[0]) for name, array in leaves.items()
    }


def test_metadata_and_version_come_back(tmp_path: Path) -> None:
    write(
        tmp_path / "x",
        NEW,
        metadata={"epoch": 3, "tags": ["a"]},
        beside=Beside(version={"": 2, "**/attn": 3}),
    )
    source = OrbaxSource(tmp_path / "x")
    assert dict(source.metadata) == {"epoch": 3, "tags": ["a"]}
    assert source.version == {"": 2, "**/attn": 3}
    assert OrbaxSource(_written(tmp_path / "y", NEW)).version == {}


def _written(path: Path, leaves: dict[Name, Any]) -> Path:
    write(path, leaves)
    return path


def test_plain_orbax_reads_what_we_wrote(tmp_path: Path) -> None:
    leaves = {_name("a/b"): jnp.arange(3), _name("a/c"): np.ones(2), _name("step"): 7, _name("lr"): 0.5}
    write(tmp_path / "x", leaves, beside=Beside(absent={_name("a/d"): None}), metadata={"epoch": 3})
    tree = _plain_load(tmp_path / "x")
    assert (tree["step"], tree["lr"], tree["a"]["d"]) == (7, 0.5, None)
    np.testing.assert_array_equal(tree["a"]["b"], jnp.arange(3))
    described = ocp.metadata(tmp_path / "x")
    assert described.custom_metadata["epoch"] == 3
    assert described.metadata["a"]["b"].shape == (3,)


@pytest.mark.parametrize(("compression", "smaller"), [(False, False), (True, True)])
def test_compression_is_asked_for(tmp_path: Path, compression: bool, smaller: bool) -> None:
    write(tmp_path / "x", {Name(("w",)): np.zeros(100_000, np.float32)}, how=How(compression=compression))
    size = sum(file.stat().st_size for file in (tmp_path / "x").rglob("*") if file.is_file())
    assert (size < 100_000) is smaller


def test_relative_paths_and_missing_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("deep/er/x", NEW)
    assert _is(tmp_path / "deep" / "er" / "x", NEW)
    assert os.listdir(tmp_path) == ["deep"]
    assert os.listdir(tmp_path / "deep" / "er") == ["x"]


# --- what is refused --------------------------------------------------------------------------------


def test_names_that_dot_joining_confuses_are_both_named(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"'a\.b/c' and 'a/b\.c'.*'a\.b\.c'"):
        write(tmp_path / "x", {Name(("a.b", "c")): np.ones(1), Name(("a", "b.c")): np.ones(1)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("leaves", "word"),
    [
        ({"a": np.ones(1), "a/b": np.ones(1)}, "leaf"),
        ({"a": "text"}, "no array and no number"),
        ({"a": object()}, "no array and no number"),
        ({"a": np.asarray(["x"])}, "no array and no number"),
        ({"a": np.ones(2, np.longdouble)}, "cannot store"),
        ({"a": 2**70}, "64 bits"),
        ({"\ud800": np.ones(1)}, "no valid text"),
    ],
)
def test_leaves_that_cannot_be_saved(tmp_path: Path, leaves: dict[str, Any], word: str) -> None:
    named = {Name(tuple(key.split("/"))): value for key, value in leaves.items()}
    with pytest.raises(SaveError, match=word):
        write(tmp_path / "x", named)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "metadata",
    [{"treeload": 1}, {"x": object()}, {"x": {1: 2}}, {"x": float("nan")}, {1: 2}, {"x": np.ones(1)}],
)
def test_metadata_that_json_would_lose(tmp_path: Path, metadata: dict[Any, Any]) -> None:
    with pytest.raises(SaveError, match="metadata"):
        write(tmp_path / "x", NEW, metadata=metadata)
    assert os.listdir(tmp_path) == []


def test_aliases_and_absences_that_contradict_the_leaves(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="alias"):
        write(tmp_path / "x", NEW, beside=Beside(aliases={_name("v"): _name("no")}))
    with pytest.raises(SaveError, match="both a leaf and absent"):
        write(tmp_path / "x", NEW, beside=Beside(absent={_name("w"): None}))


def test_an_existing_checkpoint_stays_unless_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "x", OLD)
    with pytest.raises(SaveError, match="overwrite=True"):
        write(tmp_path / "x", NEW)
    assert _is(tmp_path / "x", OLD)
    write(tmp_path / "x", NEW, overwrite=True)
    assert _is(tmp_path / "x", NEW)
    assert os.listdir(tmp_path) == ["x"]


def _make_file(path: Path) -> None:
    path.write_text("thesis")


def _make_directory(path: Path) -> None:
    path.mkdir()
    _make_file(path / "thesis.tex")


def _make_several_checkpoints(path: Path) -> None:
    for step in ("1", "2"):
        write(path / step, OLD)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_make_file, "x' exists and is no Orbax checkpoint: it is never replaced$"),
        (_make_directory, "is no Orbax checkpoint: it is never replaced; save to a path in it, '.*x/NAME'"),
        (
            Path.mkdir,
            "is no Orbax checkpoint: it is never replaced; save to a path in it, '.*x/NAME'",
        ),
        (_make_several_checkpoints, "x' exists and holds checkpoints, one for each step.*'.*x/NAME'"),
    ],
)
def test_what_is_no_checkpoint_is_never_replaced(
    tmp_path: Path, make: Any, says: str, overwrite: bool
) -> None:
    make(tmp_path / "x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SaveError, match=says):
        write(tmp_path / "x", NEW, overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "suffix", [".safetensors", ".SafeTensors", ".msgpack", ".npz", ".pt", ".h5", ".gguf"]
)
def test_a_name_of_a_file_is_refused_but_for_a_checkpoint_that_has_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    with pytest.raises(SaveError, match="directory of Orbax, such as '.*/m'; ") as caught:
        write(path, NEW)
    export = f"treeload.export({str(tmp_path / 'm.safetensors')!r}, tree)"
    assert (export in str(caught.value)) is (suffix.lower() == ".safetensors")
    assert os.listdir(tmp_path) == []
    write(tmp_path / "other", OLD)
    (tmp_path / "other").rename(path)
    with pytest.raises(SaveError, match="pass overwrite=True"):
        write(path, NEW)
    write(path, NEW, overwrite=True)
    assert _is(path, NEW)


@pytest.mark.parametrize("make", [_make_file, _make_directory])
def test_a_checkpoint_with_foreign_files_in_it_is_not_replaced(tmp_path: Path, make: Any) -> None:
    write(tmp_path / "x", OLD)
    make(tmp_path / "x" / "mine")
    with pytest.raises(SaveError, match="x/mine.*would be lost"):
        write(tmp_path / "x", NEW, overwrite=True)
    assert _is(tmp_path / "x", OLD)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("make", [_make_file, _make_directory])
def test_what_appears_at_the_path_while_it_is_written_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, overwrite: bool
) -> None:
    _while_written(monkeypatch, lambda: make(tmp_path / "x"))
    with pytest.raises(SaveError, match="no Orbax checkpoint"):
        write(tmp_path / "x", NEW, overwrite=overwrite)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["thesis"]
    assert os.listdir(tmp_path) == ["x"]


def test_what_appears_in_a_checkpoint_while_the_next_is_written_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x", OLD)
    _while_written(monkeypatch, lambda: _make_file(tmp_path / "x" / "mine"))
    with pytest.raises(SaveError, match="x/mine.*would be lost"):
        write(tmp_path / "x", NEW, overwrite=True)
    assert (tmp_path / "x" / "mine").read_text() == "thesis"
    assert _is(tmp_path / "x", OLD)


def _while_written(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Does ``act`` when Orbax has written its last byte, and before that takes its place."""
    write_orbax = _save._write_orbax
    monkeypatch.setattr(_save, "_write_orbax", lambda *args: (write_orbax(*args), act()))


@pytest.mark.parametrize(
    "within",
    ["state", "state/d", "state/ocdbt.process_0", "state/ocdbt.process_0/d", "state/array_metadatas"],
)
@pytest.mark.parametrize("make", [_make_file, _make_directory, lambda path: path.symlink_to("nowhere")])
def test_a_foreign_file_deep_in_a_checkpoint_is_not_lost(tmp_path: Path, within: str, make: Any) -> None:
    write(tmp_path / "x", OLD)
    (tmp_path / "x" / within).mkdir(exist_ok=True)
    make(tmp_path / "x" / within / "mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SaveError, match=f"x/{within}/mine.*would be lost"):
        write(tmp_path / "x", NEW, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_foreign_files_beside_the_chunks_of_an_array_and_in_other_items_are_not_lost(tmp_path: Path) -> None:
    import orbax.checkpoint as ocp_v0

    with ocp_v0.Checkpointer(ocp_v0.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(tmp_path / "v0", {"w": np.zeros(3, np.float32)})
    ocp.save_checkpointables(tmp_path / "items", {"params": {"w": np.zeros(3)}, "notes": {"a": "b"}})
    mine = [tmp_path / "v0/w/mine", tmp_path / "v0/plots/mine", tmp_path / "items/notes/mine"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        _make_file(file)
    with pytest.raises(SaveError, match=r"v0/plots', '.*v0/w/mine' are no part .* would be lost"):
        write(tmp_path / "v0", NEW, overwrite=True)
    with pytest.raises(SaveError, match="items/notes/mine' is no part .* would be lost"):
        write(tmp_path / "items", NEW, overwrite=True)
    assert {file.read_text() for file in mine} == {"thesis"}


def test_checkpoints_of_other_layouts_are_replaced(tmp_path: Path) -> None:
    import orbax.checkpoint as ocp_v0

    with ocp_v0.Checkpointer(ocp_v0.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(tmp_path / "v0", {"w": np.zeros(3, np.float32)})
    ocp.save_checkpointables(tmp_path / "items", {"params": {"w": np.zeros(3)}, "notes": {"a": "b"}})
    for path in (tmp_path / "v0", tmp_path / "items"):
        write(path, NEW, overwrite=True)
        assert _is(path, NEW)


@pytest.mark.parametrize("made", writers.ORBAX)
def test_no_file_of_orbaxs_own_is_taken_for_the_users(tmp_path: Path, made: Any) -> None:
    path = made(tmp_path, {"a": {"b": jnp.zeros((8, 8))}, "w": np.zeros(3, np.float32)})
    if any(
        (path / mark).is_file() for mark in ("_METADATA", "_CHECKPOINT_METADATA")
    ):  # else it is no checkpoint
        write(path, NEW, overwrite=True)
        assert _is(path, NEW)


def test_a_checkpoint_of_every_kind_of_item_is_replaced(tmp_path: Path) -> None:
    import orbax.checkpoint as ocp_v0

    how = ocp_v0.CheckpointManagerOptions(best_fn=lambda metrics: metrics["x"])
    args = ocp_v0.args
    with ocp_v0.CheckpointManager(tmp_path, options=how) as manager:
        items = {
            "tree": args.StandardSave({"w": np.zeros(3)}),
            "array": args.ArraySave(np.ones(3)),
            "jax_random": args.JaxRandomKeySave(jax.random.key(0)),
            "numpy_random": args.NumpyRandomKeySave(np.random.get_state()),
            "notes": args.JsonSave({"a": 1}),
        }
        manager.save(1, args=args.Composite(**items), metrics={"x": 1.0})
        manager.wait_until_finished()
    write(tmp_path / "1", NEW, overwrite=True)
    assert _is(tmp_path / "1", NEW)


def test_through_a_link_its_target_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "real", OLD)
    (tmp_path / "latest").symlink_to("real")
    write(tmp_path / "latest", NEW, overwrite=True)
    assert (tmp_path / "latest").is_symlink()
    assert _is(tmp_path / "real", NEW)


def test_a_file_system_that_refuses_is_a_save_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="cannot save to") as caught:
        write(tmp_path / "file" / "x", NEW)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_failure_inside_orbax_is_quiet_and_leaves_the_old_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(tmp_path / "x", OLD)
    capfd.readouterr()
    caplog.clear()
    monkeypatch.setattr(_save, "STORED", frozenset({"float128"}))
    monkeypatch.setattr(_storable, "STORED", frozenset({"float128"}))
    with pytest.raises(SaveError, match="cannot save to") as caught:
        write(tmp_path / "x", {Name(("w",)): np.ones(2, np.longdouble)}, overwrite=True)
    assert caught.value.__cause__ is not None
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []  # outside of pytest, which takes them first, these go to stderr
    assert _is(tmp_path / "x", OLD)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("disabled", [False, True])
def test_what_orbax_logs_for_others_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disabled: bool
) -> None:
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "disabled", disabled)
    write(tmp_path / "x", NEW)
    assert logger.disabled is disabled


# --- a save that dies -------------------------------------------------------------------------------


@pytest.fixture(params=["exchange", "two renames"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without the system call that exchanges two names in one step."""
    if request.param == "two renames":
        monkeypatch.setattr(_exchange, "_swap", lambda one, other: False)
    return str(request.param)


def test_overwriting_works_either_way(tmp_path: Path, system: str) -> None:
    write(tmp_path / "x", OLD)
    write(tmp_path / "x", NEW, overwrite=True)
    assert _is(tmp_path / "x", NEW)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux's")
def test_the_exchange_is_one_step_here(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).mkdir()
    assert _exchange._swap(tmp_path / "one", tmp_path / "other")
    assert os.listdir(tmp_path / "one") == ["other"]
    assert os.listdir(tmp_path / "other") == ["one"]


def _save_in_dying_process(path: Path, code: str) -> None:
    """Runs a save of NEW over ``path`` in a process that ``code`` makes die on its way."""
    program = f"""
import os, sys
import numpy as np
from treeload._files import exchange as _exchange
from treeload._files import replace as _replace
from treeload._formats.orbax import write as _save
from treeload._naming.name import Name
def die(*args, **options):
    os.kill(os.getpid(), {int(signal.SIGKILL)})
{code}
_save.write({str(path)!r}, {{Name(("w",)): np.ones(3, np.float32)}}, overwrite=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


_TWO_RENAMES = """
_exchange._swap = lambda one, other: False
rename, seen = os.rename, []
def counted(one, other):
    if str(other).endswith("/x") or str(one).endswith("/x"):
        seen.append(1)
        if len(seen) == {number}: die()
    rename(one, other)
_exchange.os.rename = counted
"""
DEATHS = {
    "before anything is written": "_save._write_orbax = die",
    "before the exchange": "_save.put_in_place = die",
    "before the first of two renames": _TWO_RENAMES.format(number=1),
    "after the exchange": "_replace.shutil.rmtree = die",
    "after two renames": "_exchange._swap = lambda one, other: False\n_replace.shutil.rmtree = die",
}


@pytest.mark.parametrize("when", list(DEATHS))
def test_a_killed_save_leaves_a_whole_checkpoint_and_the_next_one_cleans(tmp_path: Path, when: str) -> None:
    write(tmp_path / "x", OLD)
    _save_in_dying_process(tmp_path / "x", DEATHS[when])
    assert _is(tmp_path / "x", NEW if when.startswith("after") else OLD)
    assert _replace.beside(tmp_path / "x").is_dir()  # what the dead one left
    write(tmp_path / "x", NEW, overwrite=True)
    assert _is(tmp_path / "x", NEW)
    assert os.listdir(tmp_path) == ["x"]


def test_a_save_killed_between_two_renames_is_finished_by_whoever_opens(tmp_path: Path) -> None:
    write(tmp_path / "x", OLD)
    _save_in_dying_process(tmp_path / "x", _TWO_RENAMES.format(number=2))
    assert not (tmp_path / "x").exists()
    assert recognises(tmp_path / "x")
    assert _is(tmp_path / "x", NEW)
    assert os.listdir(tmp_path) == ["x"]


def _between_two_renames(path: Path) -> None:
    """The directories as they lie there between the two renames."""
    folder = _replace.beside(path) / WORK
    write(folder / "new", NEW)
    write(folder / "old", OLD)


def test_a_save_killed_between_two_renames_counts_as_existing(tmp_path: Path) -> None:
    _between_two_renames(tmp_path / "x")
    with pytest.raises(SaveError, match="overwrite=True"):
        write(tmp_path / "x", OLD)
    assert _is(tmp_path / "x", NEW)


def test_where_nothing_can_be_renamed_the_complete_one_is_read_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _between_two_renames(tmp_path / "x")

    def refuse(*args: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(_exchange.os, "rename", refuse)
    assert _is(tmp_path / "x", NEW)
    assert not (tmp_path / "x").exists()


def test_what_lies_beside_is_nothing_without_both_halves(tmp_path: Path) -> None:
    write(_replace.beside(tmp_path / "x") / WORK / "new", NEW)
    with pytest.raises(SourceError, match="does not exist"):
        OrbaxSource(tmp_path / "x")
    write(tmp_path / "x", OLD)
    assert _is(tmp_path / "x", OLD)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_rename_that_fails_leaves_the_old_one_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write(tmp_path / "x", OLD)
    rename = os.rename
    seen: list[Any] = []

    def failing(one: Any, other: Any) -> None:
        if _replace.beside(tmp_path / "x") in Path(other).parents or Path(other) == tmp_path / "x":
            if "orbax" not in str(one):
                seen.append(1)
                if len(seen) == number:
                    raise PermissionError(13, "no", str(one))
        rename(one, other)

    monkeypatch.setattr(_exchange, "_swap", lambda one, other: False)
    monkeypatch.setattr(_exchange.os, "rename", failing)
    with pytest.raises(SaveError, match="PermissionError"):
        write(tmp_path / "x", NEW, overwrite=True)
    assert _is(tmp_path / "x", OLD)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.skipif(_replace.fcntl is None, reason="needs file locks")
def test_a_second_save_to_one_path_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    write(tmp_path / "x", OLD)
    with _replace.workspace(tmp_path / "x") as new:
        new.mkdir()
        with pytest.raises(SaveError, match="another process"):
            write(tmp_path / "x", NEW, overwrite=True)
        assert new.is_dir()
    assert os.listdir(tmp_path) == ["x"]


@pytest.fixture
def ours_is_removed(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Path], None]]:
    """Between our opening of a workspace and our lock on it, the save before us removes it, once.

    What is put into the list happens right then.
    """
    lock, then = _replace.fcntl.flock, list[Callable[[Path], None]]()

    def late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(_replace.fcntl, "flock", lock)
        folder = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        folder.rmdir()
        for act in then:
            act(folder)
        lock(descriptor, how)

    monkeypatch.setattr(_replace.fcntl, "flock", late)
    return then


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs file locks and /proc")
def test_a_workspace_removed_by_the_save_before_is_made_anew(
    tmp_path: Path, ours_is_removed: list[Callable[[Path], None]]
) -> None:
    write(tmp_path / "x", NEW)
    assert _is(tmp_path / "x", NEW)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs file locks and /proc")
def test_a_workspace_that_a_third_save_made_meanwhile_is_left_to_it(
    tmp_path: Path, ours_is_removed: list[Callable[[Path], None]]
) -> None:
    """Else two saves would write to one place, each with a lock on a folder of its own."""
    theirs: list[int] = []

    def third(folder: Path) -> None:
        folder.mkdir()
        (folder / "new").mkdir()
        theirs.append(os.open(folder, os.O_RDONLY))
        _replace.fcntl.flock(theirs[0], _replace.fcntl.LOCK_EX)

    ours_is_removed.append(third)
    try:
        with pytest.raises(SaveError, match="another process or thread is saving there"):
            write(tmp_path / "x", NEW)
    finally:
        os.close(theirs[0])
    assert (_replace.beside(tmp_path / "x") / "new").is_dir()
    assert not (tmp_path / "x").exists()


def test_the_record_says_which_format_it_has(tmp_path: Path) -> None:
    write(tmp_path / "x", NEW)
    custom = json.loads((tmp_path / "x" / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    assert custom["treeload"]["format"] == 1
    assert list(custom["treeload"]["digests"]) == ["w"]
