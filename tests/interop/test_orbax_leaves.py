"""What our handlers of leaves write is what Orbax's own write: the same keys, bytes and files beside them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp_v0
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import v1 as ocp

import treeload
from treeload._formats.orbax import leaves as _leaves
from treeload._formats.orbax import write as _write
from treeload._formats.orbax.btree import Value, read_btree
from treeload._formats.orbax.leaves import all_at_once, takes

RNG = np.random.default_rng(0)
DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16",
    "float32", "float64", "complex64", "complex128",
]  # fmt: skip
TREE: dict[str, Any] = {
    "a": {"k": jnp.ones((3, 4)), "b": np.arange(5, dtype=np.int16)},
    "number": 3,
    "float": 0.5,
    "none": None,
    "large": jnp.asarray(RNG.random((600, 600))),
    "large zeros": jnp.zeros((600, 600)),
    "small zeros": np.zeros(300),
    "large on the host": RNG.random((600, 600)),
    "key": jax.random.key(1),
    "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
    "scalar": np.zeros((), np.float32),
    "sl/ash": np.ones(300),
    "ünï": np.ones(2),
    "columns first": np.asfortranarray(RNG.random((20, 30))),
    "every second row": RNG.random((40, 30))[::2],
    "backwards": np.arange(5.0)[::-1],
    **{dtype: np.ones(7, getattr(ml_dtypes, dtype, dtype)) for dtype in DTYPES},
    **{
        f"jax {dtype}": jnp.ones((2, 3), dtype)
        for dtype in DTYPES
        if "64" not in dtype and "128" not in dtype
    },
}


def save(path: Path, tree: Any, *, by_ours: bool) -> Path:
    context = ocp.Context()
    context.array.saving.use_compression = False
    if by_ours:
        assert takes(jax.tree.leaves(tree))
        context = all_at_once(context, "state")
    with warnings.catch_warnings(), context:
        warnings.simplefilter("ignore")  # Orbax's advice about itself
        ocp.save(path, tree)
    return path


def values(path: Path) -> dict[bytes, bytes]:
    """Every key of the store, and its bytes, wherever they lie."""
    tree = path / "state"

    def read(value: Value) -> bytes:
        if isinstance(value, bytes):
            return value
        return (tree / value.path).read_bytes()[value.offset : value.offset + value.length]

    return {key: read(value) for key, value in read_btree(tree, 1_000).items()}


def said(path: Path, file: str) -> Any:
    found = json.loads((path / "state" / file).read_text())
    for entry in found.get("tree_metadata", {}).values():
        entry["value_metadata"].pop(
            "write_shape", None
        )  # which Orbax notes of its own handler's leaves alone
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("both")
    return save(folder / "theirs", TREE, by_ours=False), save(folder / "ours", TREE, by_ours=True)


def test_the_store_is_the_same_to_the_byte(both: tuple[Path, Path]) -> None:
    theirs, ours = map(values, both)
    assert theirs.keys() == ours.keys()
    assert [key for key in theirs if theirs[key] != ours[key]] == []


@pytest.mark.parametrize("file", ["_METADATA", "_sharding", "array_metadatas/process_0"])
def test_what_lies_beside_it_is_the_same(both: tuple[Path, Path], file: str) -> None:
    theirs, ours = (said(path, file) for path in both)
    assert theirs == ours


def test_it_is_recorded_as_a_tree_of_orbax(both: tuple[Path, Path]) -> None:
    theirs, ours = (json.loads((path / "_CHECKPOINT_METADATA").read_text())["item_handlers"] for path in both)
    assert theirs == ours


def same(one: Any, other: Any) -> bool:
    leaves = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    return str(jax.tree.structure(one)) == str(jax.tree.structure(other)) and all(
        type(a) is type(b) and np.asarray(plain(a)).tobytes() == np.asarray(plain(b)).tobytes()
        for a, b in leaves
    )


def plain(value: Any) -> Any:
    is_key = isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(value) if is_key else value


@pytest.mark.filterwarnings("ignore")  # Orbax's advice about itself
def test_orbax_reads_both_alike(both: tuple[Path, Path]) -> None:
    theirs, ours = both
    assert same(ocp.load(theirs), ocp.load(ours))
    target = {"a": {"k": jax.ShapeDtypeStruct((3, 4), jnp.float32), "b": np.zeros(5, np.int16)}}
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        assert same(ocp.load(theirs, target), ocp.load(ours, target))
    with ocp_v0.PyTreeCheckpointer() as checkpointer:
        assert same(checkpointer.restore(theirs / "state"), checkpointer.restore(ours / "state"))


@pytest.mark.filterwarnings("ignore")
def test_orbax_reads_what_treeload_saves(tmp_path: Path) -> None:
    treeload.save(tmp_path / "x", TREE)
    loaded = ocp.load(tmp_path / "x")
    assert np.asarray(loaded["large"]).tobytes() == np.asarray(TREE["large"]).tobytes()
    assert loaded["number"] == 3 and loaded["a"]["b"].tolist() == [0, 1, 2, 3, 4]


@settings(deadline=None, max_examples=25)
@given(
    arrays=st.lists(
        hnp.arrays(st.sampled_from([np.float32, np.int8, np.bool_]), hnp.array_shapes(min_dims=0)),
        min_size=1, max_size=6,
    ),
    referred=st.sampled_from([0, 64, 1 << 20]),
    together=st.sampled_from([1, 100, 1 << 20]),
)  # fmt: skip
def test_however_they_are_taken_together(
    tmp_path_factory: pytest.TempPathFactory, arrays: list[Any], referred: int, together: int
) -> None:
    tree = {str(at): array for at, array in enumerate(arrays)}
    path = tmp_path_factory.mktemp("together") / "x"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_leaves, "_REFERRED", referred)
        patched.setattr(_leaves, "_TOGETHER", together)
        treeload.save(path, tree)
    loaded = treeload.load(tree, path)
    for key, array in tree.items():
        assert loaded[key].tobytes() == array.tobytes() and loaded[key].shape == array.shape


# --- what is left to Orbax ---------------------------------------------------------------------------


def test_what_does_not_lie_whole_on_one_device_is_left_to_orbax() -> None:
    mesh = Mesh(np.array(jax.devices()[:2]), ("a",))
    spread = jax.device_put(np.ones(4), NamedSharding(mesh, P("a")))
    copied = jax.device_put(np.ones(4), NamedSharding(mesh, P()))
    assert not takes([np.ones(3), spread])
    assert not takes([copied])
    assert not takes([jnp.ones(4, jnp.int4)])
    assert not takes([jnp.ones(4, jnp.float8_e4m3fn)])
    assert not takes([True]) and not takes(["text"])
    assert takes([]) and takes([None, 1, 1.5, np.ones(2), jnp.ones(2), jax.random.key(0)])


def test_of_several_processes_orbax_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert not takes([np.ones(2)])


@pytest.mark.parametrize(
    ("tree", "compression", "ours"),
    [
        ({"w": np.ones(3)}, False, True),
        ({"w": np.ones(3)}, True, False),
        ({"w": jnp.ones(3, jnp.int4)}, False, False),
        ({"w": np.ones(3, ml_dtypes.float8_e5m2)}, False, False),
        ({}, False, True),
    ],
)
def test_who_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Any, compression: bool, ours: bool
) -> None:
    asked: list[str] = []

    def watched(context: Any, item: str) -> Any:
        asked.append(item)
        return all_at_once(context, item)

    monkeypatch.setattr(_write, "all_at_once", watched)
    treeload.save(tmp_path / "x", tree, compression=compression)
    assert bool(asked) is ours
    loaded = treeload.load(tree, tmp_path / "x")
    assert str(jax.tree.structure(loaded)) == str(jax.tree.structure(tree))
