"""The digests beside a checkpoint of others: every later open uses them, and only those that fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import save_file

import treeload
from treeload import Name, Source, SourceError
from treeload._files import digests as _digests
from treeload._sources import sidecar
from treeload._sources.sidecar import Checked, digest_leaf
from treeload._sources.source import unverifiable
from treeload.testing import SourceConformance

P = jax.sharding.PartitionSpec
TREE: dict[str, Any] = {
    "a": {"w": np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)},
    "n": np.arange(8, dtype=np.int64),
}


def _safetensors(path: Path) -> Path:
    save_file({"a.w": TREE["a"]["w"], "n": TREE["n"]}, path.with_suffix(".safetensors"), {"by": "me"})
    return path.with_suffix(".safetensors")


def _msgpack(path: Path) -> Path:
    path.with_suffix(".msgpack").write_bytes(flax.serialization.to_bytes(TREE))
    return path.with_suffix(".msgpack")


def _orbax(path: Path) -> Path:
    context = ocp.Context()
    context.array.saving.use_compression = False
    with context:
        ocp.save(path, TREE, custom_metadata={"by": "me"})
    return path


WRITERS = {"safetensors": _safetensors, "msgpack": _msgpack, "orbax": _orbax}


@pytest.fixture(params=list(WRITERS.values()), ids=list(WRITERS))
def foreign(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of others, of a leaf that has blocks and one that has none."""
    monkeypatch.setattr(_digests, "BLOCK_BYTES", 1024)
    path: Path = request.param(tmp_path / "x")
    return path


def _flip(path: Path, value: np.ndarray[Any, Any]) -> None:
    """Flips a bit in the middle of a leaf, wherever it lies."""
    place = value.tobytes()[value.nbytes // 2 :][:16]
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    hit = [file for file in files if place in file.read_bytes()]
    assert hit
    for file in hit:
        content = bytearray(file.read_bytes())
        content[content.index(place)] ^= 4
        file.write_bytes(content)


def _wanted(spec: P | None) -> Any:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()).reshape(4, 2), ("x", "y"))
    sharding = None if spec is None else jax.sharding.NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct((64, 32), np.float32, sharding=sharding)


@pytest.mark.parametrize("spec", [None, P(), P("x"), P(None, "y"), P("x", "y")], ids=str)
def test_a_flipped_bit_is_found_once_there_are_digests_on_any_topology(foreign: Path, spec: P | None) -> None:
    file = treeload.digest(foreign)
    assert file == foreign.with_name(foreign.name + ".digests.json")
    dst = {"a": {"w": _wanted(spec)}, "n": np.zeros(8, np.int64)}
    loaded = treeload.load(dst, foreign)
    np.testing.assert_array_equal(loaded["a"]["w"], TREE["a"]["w"])
    _flip(foreign, TREE["a"]["w"])
    plan = treeload.plan(dst, foreign)
    with pytest.raises(SourceError, match="'a/w' is damaged: its bytes are not those"):
        plan.load()
    past = plan.load(check_digests=False)
    assert np.asarray(past["a"]["w"] != TREE["a"]["w"]).sum() == 1
    np.testing.assert_array_equal(past["n"], TREE["n"])


@pytest.mark.parametrize("spec", [None, P(), P("x"), P(None, "y"), P("x", "y")], ids=str)
def test_blocks_that_lie_in_the_file_in_pieces_are_verified_too(
    tmp_path: Path, spec: P | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a writer may cut them that knows how a leaf will be read: not into whole rows."""
    monkeypatch.setattr(_digests, "BLOCK_BYTES", 1024)
    monkeypatch.setattr(_digests, "_LEAST_PART", 64)
    path, w = _safetensors(tmp_path / "x"), Name(("a", "w"))
    known = _digests.digests_of(TREE["a"]["w"], (64, 8))
    assert known.block == (32, 8)
    ((_, value),) = treeload.open(path).with_digests({w: known}).read({w: _wanted(spec)})
    np.testing.assert_array_equal(value, TREE["a"]["w"])
    _flip(path, TREE["a"]["w"])
    with pytest.raises(SourceError, match="'a/w' is damaged"):
        list(treeload.open(path).with_digests({w: known}).read({w: _wanted(spec)}))


def test_without_digests_it_is_not_found_but_it_is_said_that_nothing_vouches(foreign: Path) -> None:
    dst = {"a": {"w": np.zeros((64, 32), np.float32)}, "n": np.zeros(8, np.int64)}
    assert "\n  cannot be verified: it holds no digests\n" in str(treeload.plan(dst, foreign))
    assert "\ncannot be verified: it holds no digests\n" in str(treeload.inspect(foreign))
    assert sorted(treeload.inspect(foreign).to_dict()["unverifiable"]) == ["a/w", "n"]
    found = treeload.verify(foreign)
    assert not found.ok and set(found.unverified) == {("a", "w"), ("n",)} and not found.damaged
    treeload.digest(foreign)
    assert "verified" not in str(treeload.plan(dst, foreign)) + str(treeload.inspect(foreign))
    assert treeload.inspect(foreign).unverifiable == ()
    assert treeload.verify(foreign).checked == found.unverified
    _flip(foreign, TREE["a"]["w"])
    found = treeload.verify(foreign)
    assert (found.damaged, found.checked) == ((("a", "w"),), (("n",),))


def test_where_names_are_split_does_not_matter(tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "x")
    treeload.digest(path)
    dst = {"a.w": np.zeros((64, 32), np.float32), "n": np.zeros(8, np.int64)}
    source = treeload.From(path, separator="/")
    np.testing.assert_array_equal(treeload.load(dst, source)["a.w"], TREE["a"]["w"])
    _flip(path, TREE["a"]["w"])
    with pytest.raises(SourceError, match=r"'a.w' is damaged"):
        treeload.load(dst, source)


def test_names_split_by_others_than_the_format_are_verified_too(tmp_path: Path) -> None:
    ocp.save(tmp_path / "x", {"a/w": TREE["n"]})
    treeload.digest(tmp_path / "x")
    dst, source = {"a": {"w": np.zeros(8, np.int64)}}, treeload.From(tmp_path / "x", separator="/")
    plan = treeload.plan(dst, source)
    assert set(plan.sources[0].leaf_digests) == {("a", "w")}
    np.testing.assert_array_equal(plan.load(check_digests=False)["a"]["w"], TREE["n"])
    assert not plan.sources[0].unchecked().leaf_digests


def test_the_leaves_of_equinox_are_verified(tmp_path: Path) -> None:
    eqx.tree_serialise_leaves(tmp_path / "x.eqx", [TREE["a"]["w"], 3])
    treeload.digest(tmp_path / "x.eqx")
    assert treeload.verify(tmp_path / "x.eqx").ok
    _flip(tmp_path / "x.eqx", TREE["a"]["w"])
    assert treeload.verify(tmp_path / "x.eqx").damaged == (("0",),)


def test_typed_keys_and_empty_arrays_of_others_are_verified(tmp_path: Path) -> None:
    ocp.save(tmp_path / "x", {"key": jax.random.key(3), "w": np.ones(3)})
    treeload.digest(tmp_path / "x")
    assert treeload.verify(tmp_path / "x").checked == (("key",), ("w",))
    loaded = treeload.load({"key": jax.random.key(0), "w": np.zeros(3)}, tmp_path / "x")
    assert loaded["key"] == jax.random.key(3)
    save_file({"none": np.zeros((0, 3), np.float32)}, tmp_path / "e.safetensors")
    treeload.digest(tmp_path / "e.safetensors")
    assert treeload.verify(tmp_path / "e.safetensors").ok


def test_what_save_wrote_carries_its_digests(tmp_path: Path) -> None:
    treeload.save(tmp_path / "x", TREE)
    with pytest.raises(SourceError, match="carries the digests of its leaves"):
        treeload.digest(tmp_path / "x")


def test_what_save_wrote_is_not_held_against_what_was_there_before(tmp_path: Path) -> None:
    _orbax(tmp_path / "x")
    treeload.digest(tmp_path / "x")
    treeload.save(tmp_path / "x", {"w": np.ones(2)}, overwrite=True)
    assert treeload.verify(tmp_path / "x").ok


def test_digests_of_an_earlier_step_are_not_of_the_latest(tmp_path: Path) -> None:
    _orbax(tmp_path / "run/1")
    treeload.digest(tmp_path / "run")
    assert treeload.verify(tmp_path / "run").ok
    ocp.save(tmp_path / "run/2", {"w": np.ones(2)})
    assert treeload.verify(tmp_path / "run").unverified == (("w",),)


CHANGES: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "digest": (lambda said: said["leaves"]["n"].update(digest="0" * 32), "its own digest is another one"),
    "no seal": (lambda said: said.pop("seal"), "its own digest is another one"),
    "no format": (lambda said: said.pop("format"), "it says no format"),
    "newer": (lambda said: said.update(format=99), "is of a newer treeload"),
}


@pytest.mark.parametrize(("change", "word"), CHANGES.values(), ids=CHANGES)
def test_digests_that_are_damaged_themselves_are_refused(tmp_path: Path, change: Any, word: str) -> None:
    path = _safetensors(tmp_path / "x")
    file = treeload.digest(path)
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said))
    with pytest.raises(SourceError, match=word) as raised:
        treeload.open(path)
    assert "make them again with treeload.digest, or remove it" in str(raised.value)
    treeload.digest(path)  # is made of what is there, whatever lies beside it
    assert treeload.verify(path).ok


LIES: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "shape": (lambda said: said["leaves"]["n"].update(shape=[9]), r"'n' was int64\[9\], and is int64\[8\]"),
    "one more": (
        lambda said: said["leaves"].update(m=said["leaves"]["n"]),
        "'m' was int64.8., and is not there",
    ),
    "one less": (lambda said: said["leaves"].pop("n"), "'n' was not there, and is int64"),
    "blocks": (lambda said: said["leaves"]["n"].update(blocks={"extents": [3], "digests": []}), "malformed"),
    "no leaves": (lambda said: said.pop("leaves"), "malformed"),
    "metadata": (lambda said: said.update(facts="0"), "what it says of itself besides its arrays"),
    "control": (lambda said: said["leaves"]["n"].update(dtype="\x1b[2J"), r"was \\x1b\[2J"),
}


@pytest.mark.parametrize(("change", "word"), LIES.values(), ids=LIES)
def test_digests_of_something_else_are_refused(tmp_path: Path, change: Any, word: str) -> None:
    path = _safetensors(tmp_path / "x")
    file = treeload.digest(path)
    said = json.loads(file.read_text())
    change(said)
    said["seal"] = sidecar._seal(said)
    file.write_text(json.dumps(said))
    with pytest.raises(SourceError, match=word):
        treeload.open(path)


def test_metadata_that_changed_is_found(tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "x")
    treeload.digest(path)
    path.write_bytes(path.read_bytes().replace(b'"by":"me"', b'"by":"ME"'))
    with pytest.raises(SourceError, match="what it says of itself besides its arrays"):
        treeload.open(path)


def test_digests_of_other_bytes_are_not_replaced_in_silence(tmp_path: Path) -> None:
    file = _safetensors(tmp_path / "x")
    treeload.digest(file)
    treeload.digest(file)  # of the same: no warning
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.warns(
        treeload.TreeloadWarning, match="^a/w is not what it was when the digests in .* if nobody"
    ):
        treeload.digest(file)
    assert treeload.verify(file).ok  # they were asked for


def test_digests_of_other_leaves_and_damaged_ones_are_replaced_as_the_errors_say(tmp_path: Path) -> None:
    file = _safetensors(tmp_path / "x")
    beside = treeload.digest(file)
    save_file({"other": TREE["n"]}, file)
    treeload.digest(file)
    beside.write_text("{}")
    treeload.digest(file)
    assert treeload.verify(file).ok


def test_where_the_digests_cannot_be_written_that_is_a_save_error(tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "x")
    sidecar.beside(path).mkdir()
    with pytest.raises(treeload.SaveError, match="could not be written"):
        treeload.digest(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.safetensors", "x.safetensors.digests.json"]


class Careless(Source):
    """A source that checks nothing, and gives what it holds."""

    def __init__(self, leaves: Mapping[Name, Any]) -> None:
        self.leaves = leaves

    def specs(self) -> Mapping[Name, Any]:
        return {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in self.leaves.items()}

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        for name, request in requests.items():
            if name not in self.leaves:
                raise SourceError(f"no {name}")
            if self.leaves[name].shape != request.shape or self.leaves[name].dtype != request.dtype:
                raise SourceError(f"{name} is another")
            value = self.leaves[name]
            value = value.copy() if isinstance(value, np.ndarray) else value
            yield name, value if request.sharding is None else jax.device_put(value, request.sharding)


class TestASourceThatIsCheckedFromOutside(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return Checked(Careless(leaves), {name: digest_leaf(value) for name, value in leaves.items()})


@pytest.mark.parametrize("spec", [None, P(), P("x", "y")], ids=str)
def test_a_source_that_checks_nothing_is_checked_from_outside(spec: P | None) -> None:
    w, key = Name(("w",)), Name(("key",))
    leaves = {w: TREE["a"]["w"].copy(), key: jax.random.key(1)}
    source = Checked(Careless(leaves), {name: digest_leaf(value) for name, value in leaves.items()})
    request = {w: _wanted(spec)}
    ((_, value),) = source.read(request)
    np.testing.assert_array_equal(value, TREE["a"]["w"])
    leaves[w][3, 3] += 1
    with pytest.raises(SourceError, match="'w' is damaged"):
        list(source.read(request))
    assert len(list(source.unchecked().read(request))) == 1
    leaves[key] = jax.random.key(2)
    with pytest.raises(SourceError, match="'key' is damaged"):
        list(source.read({key: source.specs()[key]}))


def test_a_tree_in_memory_needs_no_digests() -> None:
    assert unverifiable(treeload.plan({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}).sources[0]) == ()
