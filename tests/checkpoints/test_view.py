"""A view of sources is a source itself: as they are, under rules, and placed where it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from treeload import Name, Rename, Source, Transpose
from treeload._checkpoints.view import View
from treeload._formats.orbax import write as _save
from treeload._formats.orbax.source import OrbaxSource
from treeload._leaves.spec import Spec
from treeload._matching.parts import opened_parts
from treeload._trees.tree import nested
from treeload.testing import SourceConformance


class TestOfLeavesAsTheyAre(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        _save.write(directory / "saved", leaves)
        return View.of(opened_parts(OrbaxSource(directory / "saved"), "diff"))


class TestOfLeavesUnderRules(SourceConformance):
    """Every leaf has another name and is turned, so none is read into its place."""

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        _save.write(directory / "saved", {Name(("old", *name)): array.T for name, array in leaves.items()})
        rules = [Rename("old/{*rest}", "{*rest}", Transpose())]
        return View.of(opened_parts(OrbaxSource(directory / "saved"), "diff"), rules)


class TestOfATreeInMemory(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Any, np.ndarray[Any, Any]]) -> Source:
        return View.of(opened_parts(nested(leaves), "diff"))


class Asked(Source):
    """Zeros, and a note of what was asked for."""

    def __init__(self) -> None:
        self.requests: dict[Name, Spec] = {}

    def specs(self) -> Mapping[Name, Spec]:
        return {Name(("w",)): jax.ShapeDtypeStruct((8, 2), np.float32)}

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        self.requests.update(requests)
        for name, request in requests.items():
            zeros = np.zeros(request.shape, request.dtype)
            yield name, zeros if request.sharding is None else jax.device_put(zeros, request.sharding)


@pytest.mark.parametrize(
    ("rules", "placed_by_source"), [((), True), ((Rename("w", "w", Transpose()),), False)]
)
def test_a_leaf_as_it_is_is_read_into_its_place_and_one_that_changes_is_put_there_afterwards(
    rules: tuple[Rename, ...], placed_by_source: bool
) -> None:
    source = Asked()
    view = View.of(opened_parts(source, "diff"), rules)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    ((name, spec),) = view.specs().items()
    request = jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding)
    ((_, array),) = view.read({name: request})
    assert array.sharding == sharding
    (asked,) = source.requests.values()
    assert asked.sharding == (sharding if placed_by_source else None)
