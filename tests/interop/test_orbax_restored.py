"""What neither of our ways to an Orbax checkpoint knows is restored by Orbax itself, and by it alone."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint.experimental.v1._src.serialization.registry import StandardLeafHandlerRegistry

import treeload
from treeload._formats.orbax import restored as _restored
from treeload._formats.orbax import source as _source
from treeload._formats.orbax.source import OrbaxSource

_spec = importlib.util.spec_from_file_location("orbax_writers", Path(__file__).with_name("orbax_writers.py"))
assert _spec is not None and _spec.loader is not None
writers = importlib.util.module_from_spec(_spec)
sys.modules["orbax_writers"] = writers
_spec.loader.exec_module(writers)

RNG = np.random.default_rng(0)
TREE: dict[str, Any] = {
    "large": RNG.random((64, 70), np.float32),
    "small": np.arange(5, dtype=np.int16),
    "double": RNG.random(3),
    "scalar": np.array(2.5, np.float32),
    "half": RNG.random((40, 3)).astype(ml_dtypes.bfloat16),
    "deep": [{"w": RNG.random((2, 3, 4)), "n": 7} for _ in range(2)],
    "none": None,
    "key": jax.random.key(3),
}


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """No array lies where it is looked for, as in a layout of tomorrow."""
    monkeypatch.setattr(
        OrbaxSource, "_header_texts", lambda self: ((leaf, None) for leaf in self._tree.leaves)
    )


def read(source: treeload.Source) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    def facts(array: Any) -> tuple[str, tuple[int, ...], bytes]:
        data = jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array
        return str(array.dtype), tuple(array.shape), np.asarray(data).tobytes()

    return {str(name): facts(array) for name, array in source.read(source.specs())}


# --- three ways, one content -------------------------------------------------------------------------


def in_three_ways(path: Path) -> list[dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """What is read as it lies, through TensorStore, and by Orbax; each way is taken."""
    found = [read(OrbaxSource(path))]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_source, "only_chunk", lambda *args: None)
        source = OrbaxSource(path)
        found.append(read(source))
        assert not source._open_headers() or "through TensorStore" in source.label
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            OrbaxSource, "_header_texts", lambda self: ((leaf, None) for leaf in self._tree.leaves)
        )
        source = OrbaxSource(path)
        found.append(read(source))
        assert "restored by Orbax itself" in source.label
    return found


@pytest.mark.parametrize("writer", writers.ORBAX, ids=lambda writer: str(writer.__name__))
def test_the_three_ways_give_the_same_of_every_writer(writer: Any, tmp_path: Path) -> None:
    as_it_lies, by_tensorstore, by_orbax = in_three_ways(writer(tmp_path, TREE))
    assert as_it_lies == by_tensorstore == by_orbax
    assert as_it_lies["large"][2] == TREE["large"].tobytes()


DTYPES = [np.dtype(name) for name in ("float32", "float64", "int8", "uint16", "int64", "bool", "complex64")]
DTYPES += [np.dtype(ml_dtypes.bfloat16)]


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))
    dtype = draw(st.sampled_from(DTYPES))
    return np.asarray(draw(st.integers(0, 100)) * np.ones(shape)).astype(dtype)


leaves = st.one_of(arrays(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.none())
trees = st.recursive(
    st.dictionaries(st.text("abc", min_size=1, max_size=2), leaves, min_size=1, max_size=3),
    lambda inner: st.one_of(
        st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, min_size=1, max_size=3),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees, writer=st.sampled_from(writers.ORBAX[:4]))
def test_the_three_ways_give_the_same_of_any_tree(
    tmp_path_factory: pytest.TempPathFactory, tree: Any, writer: Any
) -> None:
    if not jax.tree.leaves(tree):
        return
    as_it_lies, by_tensorstore, by_orbax = in_three_ways(writer(tmp_path_factory.mktemp("x"), tree))
    assert as_it_lies == by_tensorstore == by_orbax


@pytest.mark.usefixtures("unknown")
def test_a_layout_of_tomorrow_is_loaded_onto_a_mesh(tmp_path: Path) -> None:
    path = writers.v1(tmp_path, {"w": TREE["large"], "key": jax.random.split(jax.random.key(3), 8)})
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("a", "b"))
    for spec in (P("a", "b"), P(None, "b"), P()):
        wanted = jax.ShapeDtypeStruct((64, 70), np.float32, sharding=NamedSharding(mesh, spec))
        keys = jax.ShapeDtypeStruct((8,), jax.random.key(0).dtype)
        loaded = treeload.load({"w": wanted, "key": keys}, path)
        assert loaded["w"].sharding == wanted.sharding
        assert np.asarray(loaded["w"]).tobytes() == TREE["large"].tobytes()
        expected = jax.random.split(jax.random.key(3), 8)
        assert (jax.random.key_data(loaded["key"]) == jax.random.key_data(expected)).all()


@pytest.mark.usefixtures("unknown")
def test_orbax_is_asked_for_what_is_wanted_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = writers.v1(tmp_path, TREE)
    asked: list[Any] = []
    load = ocp.load

    def noted(path: Any, target: Any, **more: Any) -> Any:
        asked.append(target)
        return load(path, target, **more)

    monkeypatch.setattr(ocp, "load", noted)
    treeload.load({"small": np.zeros(5, np.int16)}, path, policy=treeload.Policy(unexpected="ignore"))
    (target,) = asked
    assert target["small"].shape == (5,)
    assert target["large"] is ... and target["deep"][0]["w"] is ...


@pytest.mark.usefixtures("unknown")
def test_what_lies_beside_it_verifies_what_orbax_restores(tmp_path: Path) -> None:
    path = writers.v1(tmp_path, {"w": TREE["large"]})
    treeload.digest(path)
    assert treeload.verify(path).ok
    sidecar = next(file for file in tmp_path.rglob("*digest*") if file.is_file())
    said = sidecar.read_text()
    digest = next(part for part in said.split('"') if len(part) == 32 and part.isalnum())
    sidecar.write_text(said.replace(digest, digest[::-1]))
    with pytest.raises(treeload.TreeloadError, match="damaged"):
        treeload.load({"w": np.zeros_like(TREE["large"])}, path)


def test_another_form_of_the_list_of_leaves_is_orbaxs_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = writers.v1(tmp_path, {**TREE, "key": None})
    expected = read(OrbaxSource(path))
    metadata = ocp.metadata(path)
    load = ocp.load(path)
    file = path / "state" / "_METADATA"
    said = json.loads(file.read_text())
    said["leaves"] = said.pop("tree_metadata")
    file.write_text(json.dumps(said))
    with pytest.raises(treeload.SourceError, match=r"lists no tree \('tree_metadata' is missing\)"):
        treeload.inspect(path)  # the Orbax that is installed does not know it either

    def partly(path: Any, target: Any, **more: Any) -> Any:
        return jax.tree.map(lambda wanted, found: wanted if wanted is ... else found, target, load)

    with monkeypatch.context() as patched:  # one that does
        patched.setattr(ocp, "metadata", lambda *args: metadata)
        patched.setattr(ocp, "load", partly)
        source = OrbaxSource(path)
        assert source.label.endswith("(Orbax, restored by Orbax itself)")
        assert read(source) == expected
        assert source.numbers() == {("deep", "0", "n"), ("deep", "1", "n")}


# --- leaves of the user's own handlers ---------------------------------------------------------------


@dataclasses.dataclass
class Packed:
    """A leaf that Orbax does not know."""

    values: np.ndarray[Any, Any]
    scale: float


@dataclasses.dataclass
class AbstractPacked:
    shape: tuple[int, ...]
    dtype: Any


class Vocabulary:
    """Another, which is no array."""

    def __init__(self, words: list[str]) -> None:
        self.words = words


@dataclasses.dataclass
class AbstractVocabulary:
    size: int


class _Handler:
    """Writes leaves into files of its own (Orbax's ``LeafHandler``)."""

    def __init__(self, *, context: Any = None) -> None:
        pass

    async def serialize(self, params: Sequence[Any], context: Any) -> Any:
        async def write() -> None:
            directory = Path(str(await context.parent_dir.await_creation()))
            for param in params:
                await asyncio.to_thread(
                    (directory / f"{param.name}.mine").write_bytes, pickle.dumps(param.value)
                )

        return write()

    async def deserialize(self, params: Sequence[Any], context: Any) -> Any:
        async def read() -> list[Any]:
            return [self.value(self._stored(param, context)) for param in params]

        return read()

    async def metadata(self, params: Sequence[Any], context: Any) -> Any:
        return [self.said(self._stored(param, context)) for param in params]

    def _stored(self, param: Any, context: Any) -> Any:
        return pickle.loads((Path(str(context.parent_dir)) / f"{param.name}.mine").read_bytes())

    value: Any = staticmethod(lambda stored: stored)
    said: Any


class PackedHandler(_Handler):
    value = staticmethod(lambda stored: stored.values * np.float32(stored.scale))
    said = staticmethod(lambda stored: AbstractPacked(stored.values.shape, np.dtype(np.float32)))


class LyingHandler(PackedHandler):
    said = staticmethod(lambda stored: AbstractPacked((99,), np.dtype(np.float32)))


class VocabularyHandler(_Handler):
    said = staticmethod(lambda stored: AbstractVocabulary(len(stored.words)))


def context(packed: Any = PackedHandler) -> Any:
    handlers = StandardLeafHandlerRegistry()
    handlers.add(Packed, AbstractPacked, packed, secondary_typestrs=["packed"])
    handlers.add(Vocabulary, AbstractVocabulary, VocabularyHandler, secondary_typestrs=["words"])
    theirs: Any = ocp.handlers.PyTreeHandler

    def begin(self: Any) -> None:
        theirs.__init__(self, leaf_handler_registry=handlers)

    own = {"__init__": begin, "__module__": theirs.__module__, "__qualname__": theirs.__qualname__}
    registry = ocp.handlers.local_registry(include_global_registry=False)
    registry.add(type("PyTreeHandler", (theirs,), own), checkpointable_name="state")
    found = ocp.Context()
    found.checkpointables.registry = registry
    return found


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    tree = {
        "w": np.ones((2, 3), np.float32),
        "n": 3,
        "q": Packed(np.arange(4, dtype=np.float32), 2.0),
        "words": Vocabulary(["a", "b"]),
    }
    with context():
        ocp.save_checkpointables(tmp_path / "x", {"state": tree})
    return tmp_path / "x"


WANTED = {"w": np.zeros((2, 3), np.float32), "n": 0, "q": np.zeros(4, np.float32)}


def test_a_leaf_of_the_users_own_handler_is_loaded_within_their_context(foreign: Path) -> None:
    with context():
        plan = treeload.plan(WANTED, foreign)
        assert "2 of 4 leaves restored by Orbax itself" in str(plan)
        loaded = plan.load()
    assert loaded["q"].tolist() == [0, 2, 4, 6]
    assert loaded["n"] == 3 and loaded["w"].sum() == 6


def test_what_its_handler_says_is_no_array_is_left_out_by_name(foreign: Path) -> None:
    with context():
        assert OrbaxSource(foreign).left_out() == {("words",): "what Orbax calls AbstractVocabulary"}
        assert "words" in str(treeload.inspect(foreign))


def test_without_its_handler_the_leaf_is_named_and_what_to_do(foreign: Path) -> None:
    with pytest.raises(treeload.SourceError) as caught:
        treeload.inspect(foreign)
    assert str(caught.value) == (
        f"{str(foreign)!r} (Orbax): 'q' is listed in its metadata as 'packed', but "
        f"{str(foreign / 'state')!r} stores no array for it; Orbax has no handler here for leaves that are "
        "stored there: load them within the ocp.Context whose registry has the handler that wrote them"
    )


def test_a_handler_that_gives_another_array_than_it_said_is_refused(foreign: Path) -> None:
    with context(LyingHandler):
        plan = treeload.plan({**WANTED, "q": np.zeros(99, np.float32)}, foreign)
        with pytest.raises(treeload.SourceError, match=r"Orbax said that 'q' is float32\[99\], and gives"):
            plan.load()


# --- what is lost is not Orbax's to find -------------------------------------------------------------


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(self: Any, act: Any) -> Any:
        raise AssertionError("Orbax was asked")

    monkeypatch.setattr(_restored.Restored, "_ask", asked)


@pytest.mark.usefixtures("never")
def test_one_array_that_lacks_among_others_is_damage(tmp_path: Path) -> None:
    path = writers.v0_without_ocdbt(tmp_path, {"a": np.ones(3), "b": np.ones(4)})
    (path / "b" / ".zarray").unlink()
    with pytest.raises(treeload.SourceError, match="'b' is listed in its metadata, but .* stores no array"):
        treeload.inspect(path)


@pytest.mark.usefixtures("never")
def test_what_treeload_saved_is_never_orbaxs_to_restore(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    treeload.save(tmp_path / "x", {"a": np.ones(3)})
    request.getfixturevalue("unknown")
    with pytest.raises(treeload.SourceError, match="stores no array for it"):
        treeload.inspect(tmp_path / "x")


def test_all_arrays_lost_is_said_as_before(tmp_path: Path) -> None:
    path = writers.v0_without_ocdbt(tmp_path, {"a": np.ones(3)})
    (path / "a" / ".zarray").unlink()
    with pytest.raises(treeload.SourceError, match="'a' is listed in its metadata, but .* stores no array"):
        treeload.inspect(path)
