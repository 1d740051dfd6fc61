"""What is spread over processes is loaded by all of them together; all else by whoever asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import treeload
from treeload import _plan
from treeload._loading.shardings import span_processes

MESH = Mesh(np.array(jax.devices()[:2]), ("a",))
SPREAD = NamedSharding(MESH, PartitionSpec("a"))


@pytest.fixture
def meetings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """As if this were one of two processes: what was done together, and by which sign."""
    found: list[tuple[str, str]] = []

    @contextmanager
    def together(what: str, error: type[Exception], *, sign: str = "") -> Iterator[None]:
        yield
        found.append((what, sign))

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(_plan, "together", together)
    return found


def test_what_is_not_spread_is_loaded_alone(meetings: list[Any]) -> None:
    treeload.plan({"w": np.zeros(2)}, {"w": np.ones(2)}).load()
    assert meetings == []


def test_what_is_spread_is_loaded_together(meetings: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "span_processes", lambda values, shardings: True)
    plans = [treeload.plan({"w": np.zeros(size)}, {"w": np.ones(size)}) for size in (2, 2, 3)]
    for plan in plans:
        plan.load()
    signs = [sign for _, sign in meetings]
    assert [what for what, _ in meetings] == ["load it"] * 3
    assert signs[0] == signs[1] != signs[2]


def test_an_update_is_put_in_once_all_have_read(meetings: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    before = float(model.kernel[0, 0])
    seen: list[float] = []

    @contextmanager
    def together(what: str, error: type[Exception], *, sign: str) -> Iterator[None]:
        yield
        seen.append(float(model.kernel[0, 0]))  # where the others are waited for

    monkeypatch.setattr(_plan, "span_processes", lambda values, shardings: True)
    monkeypatch.setattr(_plan, "together", together)
    plan = treeload.plan(model, {"kernel": np.full((1, 1), 7.0, np.float32), "bias": np.ones(1, np.float32)})
    plan.update()
    assert seen == [before] and float(model.kernel[0, 0]) == 7


@pytest.mark.parametrize(
    ("values", "shardings", "spread"),
    [
        ([np.zeros(2), 3, None], None, False),
        ([jax.ShapeDtypeStruct((2,), np.float32, sharding=SPREAD)], None, False),  # all of it is here
        ([], SPREAD, False),
        ([], {"w": SPREAD, "b": None}, False),
        ([], PartitionSpec("a"), True),
        ([], {"w": PartitionSpec("a")}, True),
        ([], lambda name, spec: SPREAD, True),
    ],
)
def test_what_spans_processes(values: list[Any], shardings: Any, spread: bool) -> None:
    assert span_processes(values, shardings) is spread


def test_a_sharding_over_devices_of_others_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NamedSharding, "is_fully_addressable", property(lambda self: False))
    spec = jax.ShapeDtypeStruct((2,), np.float32, sharding=NamedSharding(MESH, PartitionSpec("a")))
    assert span_processes([spec])
    assert span_processes([], NamedSharding(MESH, PartitionSpec()))
