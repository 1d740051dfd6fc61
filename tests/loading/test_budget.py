"""``budget``: how many bytes are read and not yet in their places, whichever way a leaf is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import save_file

import treeload
from treeload._files import frames, pieces
from treeload._formats.orbax import source as orbax_source
from treeload._formats.orbax.arrays import Piece

SIZE = 1 << 20
COUNT = 24
TREE = {f"l{at:02}": np.full(SIZE // 4, at, np.float32) for at in range(COUNT)}


@pytest.fixture(params=["safetensors", "orbax, as it lies", "orbax, packed", "orbax, by TensorStore"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "safetensors":
        save_file(TREE, tmp_path / "x.safetensors")
        return tmp_path / "x.safetensors"
    if request.param == "orbax, packed":
        ocp.save(tmp_path / "x", TREE)
    else:
        treeload.save(tmp_path / "x", TREE)
    if request.param == "orbax, by TensorStore":
        monkeypatch.setattr(orbax_source, "only_chunk", lambda *args: None)
    return tmp_path / "x"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many buffers were made, so far."""
    count = [0]

    def counting(make: Any) -> Any:
        def counted(*args: Any) -> Any:
            count[0] += 1
            return make(*args)

        return counted

    monkeypatch.setattr(pieces, "aligned", counting(pieces.aligned))
    monkeypatch.setattr(frames, "aligned", counting(frames.aligned))
    monkeypatch.setattr(Piece, "of", counting(Piece.of))
    return count


class Watched(treeload.Source):
    """A source that is asked for its leaves one by one, and notes how many lie ready at each."""

    gives_away = True

    def __init__(self, source: Any, taken: list[int]) -> None:
        self._source, self._taken, self.label = source, taken, source.label
        self.most = 0

    def specs(self) -> Any:
        return self._source.specs()

    def read(self, requests: Any) -> Iterator[Any]:
        for given, leaf in enumerate(self._source.read(requests)):
            self.most = max(self.most, self._taken[0] - given)
            yield leaf


@pytest.mark.parametrize("budget", [1, 2 * SIZE, 8 * SIZE])
def test_no_more_is_on_its_way(path: Path, taken: list[int], budget: int) -> None:
    watched = Watched(treeload.open(path), taken)
    wanted = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in TREE.items()}
    plan = treeload.plan(wanted, watched)
    loaded = plan.load(budget=budget)
    assert all(np.array_equal(loaded[name], TREE[name]) for name in TREE)
    # What is being handed on, and the next, each a leaf or what the budget holds of leaves.
    assert watched.most <= 2 * max(1, budget // SIZE) + 2


def test_without_one_more_is_on_its_way(path: Path, taken: list[int]) -> None:
    watched = Watched(treeload.open(path), taken)
    treeload.load(dict(TREE), watched)
    assert watched.most >= 4


def test_an_update_has_one_too(path: Path) -> None:
    model = nnx.Dict({name: nnx.Param(np.zeros_like(leaf)) for name, leaf in TREE.items()})
    treeload.update(model, path, budget=SIZE)
    assert np.array_equal(model["l03"].get_value(), TREE["l03"])


@pytest.mark.parametrize(
    ("budget", "error"),
    [("1", TypeError), (1.5, TypeError), (True, TypeError), (0, ValueError), (-1, ValueError)],
)
def test_what_is_no_budget_is_refused(budget: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="budget= takes a number of bytes"):
        treeload.load({"w": np.zeros(1)}, {"w": np.ones(1)}, budget=budget)
