"""``separator=`` splits joined keys wherever they are: in any tree, and in every source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import treeload
from treeload import From, Name, SourceError
from treeload._leaves.spec import spec_of
from treeload._sources.memory import MemorySource
from treeload._sources.separated import SeparatedSource
from treeload.testing import SourceConformance

JOINED = {"params": {"dense/kernel": np.ones((2, 3), np.float32), "dense/bias": np.ones(3, np.float32)}}
DST = {"params": {"dense": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}}}


class TestSeparatedSource(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> treeload.Source:
        treeload.save(directory / "run", {"|".join(name): array for name, array in leaves.items()})
        return SeparatedSource(treeload.open(directory / "run"), "|")


def orbax(path: Path) -> Any:
    treeload.save(path / "run", JOINED)
    return path / "run"


def msgpack(path: Path) -> Any:
    (path / "w.msgpack").write_bytes(flax.serialization.msgpack_serialize(JOINED))
    return path / "w.msgpack"


def safetensors_file(path: Path) -> Any:
    flat = {f"params/{key}": value for key, value in JOINED["params"].items()}
    safetensors.numpy.save_file(flat, path / "w.safetensors")
    return path / "w.safetensors"


SOURCES = {
    "memory": lambda _: JOINED,
    "Source": lambda _: MemorySource(JOINED),
    "Orbax": orbax,
    "opened": lambda path: treeload.open(orbax(path)),
    "msgpack": msgpack,
    "safetensors": safetensors_file,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_keys_are_split_in_every_source(source: Any, tmp_path: Path) -> None:
    found = source(tmp_path)
    assert not treeload.plan(DST, From(found)).ok
    loaded = treeload.load(DST, From(found, separator="/"))
    assert loaded["params"]["dense"]["kernel"].sum() == 6 and loaded["params"]["dense"]["bias"].sum() == 3
    assert treeload.plan(DST["params"], From(found, separator="/", subtree="params")).ok


@pytest.mark.parametrize("source", [lambda _, tree: tree, lambda path, tree: saved(path, tree)])
def test_names_that_collide_once_they_are_split_are_refused(source: Any, tmp_path: Path) -> None:
    twice = source(tmp_path, {"a/b": np.ones(1), "a": {"b": np.ones(1)}})
    with pytest.raises(SourceError, match=r"split at '/': .* have one name, 'a/b'"):
        treeload.plan({}, From(twice, separator="/"))


def saved(path: Path, tree: Any) -> Path:
    treeload.save(path / "run", tree)
    return path / "run"


def test_absences_ties_and_numbers_are_split_with_their_leaves(tmp_path: Path) -> None:
    shared = nnx.Param(jnp.ones(2))
    tree = {"a|x": shared, "b|x": shared, "c|bias": None, "d|n": 3}
    for source in (
        SeparatedSource(treeload.open(saved(tmp_path, tree)), "|"),
        MemorySource(tree, separator="|"),
    ):
        assert dict(source.ties()) == {("b", "x"): ("a", "x")}
        assert dict(source.absent()) == {("c", "bias"): None}
        assert {("a", "x"), ("b", "x"), ("d", "n")} == set(source.specs())
    assert SeparatedSource(treeload.open(tmp_path / "run"), "|").numbers() == {("d", "n")}


def test_what_a_users_source_gives_is_still_copied() -> None:
    class Mine(treeload.Source):
        array = np.ones(2, np.float32)

        def specs(self) -> Any:
            return {Name(("a|b",)): spec_of(self.array)}

        def read(self, requests: Any) -> Any:
            for name in requests:
                yield name, self.array

    source = Mine()
    loaded = treeload.load({"a": {"b": np.zeros(2, np.float32)}}, From(source, separator="|"))
    source.array[:] = 5
    assert loaded["a"]["b"].tolist() == [1, 1]
