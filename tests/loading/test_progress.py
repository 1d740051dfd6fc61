"""How far a load is: what is counted, when a bar comes, that it goes, what a function is told."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nbclient
import nbformat
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from safetensors.numpy import save_file

import treeload
from treeload import Copy, From, Name, Rename, Tie, Transpose
from treeload._loading import progress
from treeload._loading.progress import Bar, Count, following

SRC = {"a": np.ones(2, np.float32), "b": np.ones((3, 2), np.float32)}
A, B = (0, ("a",)), (0, ("b",))
Told = list[tuple[int, int, Name]]


def console(**how: Any) -> Console:
    return Console(file=io.StringIO(), **how)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> treeload.Plan:
    """A plan of 32 bytes, on a terminal."""
    monkeypatch.setattr(progress, "Console", lambda **how: console(force_terminal=True))
    return treeload.plan({"a": np.zeros(2, np.float32), "b": np.zeros((3, 2), np.float32)}, SRC)


def made(plan: Any, *, patience: float = 0.0) -> Bar:
    return Bar(plan, console(force_terminal=True), patience=patience)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """The bars that come."""
    come: list[Bar] = []

    class Noted(Bar):
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            come.append(self)

    monkeypatch.setattr(progress, "Bar", Noted)
    return come


def rich_bar(bar: Bar) -> Any:
    assert isinstance(bar.shown, progress._OnTerminal)
    return bar.shown.bar


# Bars.


def test_a_bar_counts_bytes_of_all_that_loads(plan: Any) -> None:
    bar = made(plan)
    bar.advance(*A)
    assert (rich_bar(bar).tasks[0].completed, rich_bar(bar).tasks[0].total) == (8, 32)
    bar.advance(*B)
    assert rich_bar(bar).tasks[0].completed == 32 and rich_bar(bar).finished
    bar.stop()
    assert not rich_bar(bar).live.is_started


def test_where_nobody_wants_to_know_there_is_nothing_to_tell(
    plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with following(plan, False) as advance:
        assert advance is None
    monkeypatch.setattr(progress, "Console", lambda **how: console())
    with following(plan, None) as advance:
        assert advance is None
    with following(plan, True) as advance:
        assert advance is not None


def test_a_bar_waits_a_second_unless_it_was_asked_for(
    plan: Any, bars: list[Bar], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with following(plan, None) as advance:
        assert advance is not None
        now[0] += 0.5
        advance(*A)
        assert bars[0].shown is None
        now[0] += 0.5
        advance(*B)
        assert rich_bar(bars[0]).tasks[0].completed == 32
    with following(plan, True) as advance:
        assert advance is not None
        advance(*A)
        assert rich_bar(bars[1]).tasks[0].completed == 8


def test_a_bar_stops_when_the_load_fails(plan: Any, bars: list[Bar]) -> None:

    def failing() -> None:
        with following(plan, True) as advance:
            assert advance is not None
            advance(*A)
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        failing()
    assert not rich_bar(bars[0]).live.is_started


CELLS = """
import numpy as np, treeload
from treeload._loading import progress
src = {name: np.ones(250_000, np.float32) for name in "abc"}
plan = treeload.plan({name: np.zeros(250_000, np.float32) for name in "abc"}, src)
plan.load(progress=True)
progress._PATIENCE = 0.0
plan.load()
None
"""


def test_a_notebook_shows_a_bar_of_its_own_and_needs_no_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELLS)])
    client = nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120)
    seen: list[Any] = []
    process = client.process_message

    def noting(message: Any, *rest: Any) -> Any:
        seen.append(message)
        return process(message, *rest)

    monkeypatch.setattr(client, "process_message", noting)
    client.execute()
    pictures = [
        msg["content"]["data"]["text/html"]
        for msg in seen
        if msg["msg_type"] in ("display_data", "update_display_data")
    ]
    assert [msg for msg in seen if msg["msg_type"] in ("stream", "error")] == []
    for shown in (pictures[: len(pictures) // 2], pictures[len(pictures) // 2 :]):
        assert shown[0].startswith("loading <progress value='0' max='3000000'></progress> 0.0 of 3.0 MB")
        assert shown[-2].endswith("3.0 of 3.0 MB") and shown[-1] == ""


# What is counted.


def counted(plan: Any) -> tuple[int, int, int]:
    """What a load of the plan counts: bytes done and in all, and how often it told."""
    told: Told = []
    plan.load(progress=lambda *what: told.append(what))
    done, total, _ = told[-1]
    assert total == Count(plan).total
    return done, total, len(told)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_leaf_that_feeds_several_counts_once(where: str, tmp_path: Path) -> None:
    src: Any = {"a": np.ones((2, 3), np.float32)}
    if where == "file":
        save_file(src, src := tmp_path / "x.safetensors")
    dst = {name: np.zeros((2, 3), np.float32) for name in "abc"}
    for rules in ([Copy("a", "b"), Copy("a", "c")], [Tie("b", "a"), Tie("c", "b")]):
        assert counted(treeload.plan(dst, src, rules=rules)) == (24, 24, 1)


def test_leaves_that_lie_where_they_are_wanted_count_too() -> None:
    src = {name: jnp.ones((2, 3)) for name in "ab"}
    assert counted(treeload.plan(jax.tree.map(jnp.zeros_like, src), src)) == (48, 48, 2)


def test_bytes_are_those_of_the_source_and_of_all_sources_and_not_of_what_is_kept() -> None:
    dst = {"x": {"w": np.zeros((3, 2), np.float64)}, "y": {"v": np.zeros(4, np.float32)}, "k": np.zeros(9)}
    sources = [
        From({"t": np.ones((2, 3), np.float16)}, into="x", rules=[Rename("t", "w", Transpose())]),
        From({"v": np.ones(4, np.float32)}, into="y"),
    ]
    plan = treeload.plan(dst, sources, policy=treeload.Policy(missing={"k": "keep"}))
    assert counted(plan) == (12 + 16, 28, 2)


# A function.


def test_a_function_is_told_bytes_done_bytes_in_all_and_the_leaf_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"m.a": SRC["a"], "m.b": SRC["b"]}, path)
    dst = {"m": {"a": np.zeros(2, np.float32), "c": np.zeros((3, 2), np.float32)}}
    told: Told = []
    treeload.load(dst, path, rules=Rename("m/b", "m/c"), progress=lambda *what: told.append(what))
    assert told == [(8, 32, ("m", "a")), (32, 32, ("m", "b"))]
    assert all(type(name) is Name for *_, name in told)


def test_update_tells_too(plan: Any) -> None:
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    told: Told = []
    treeload.update(
        model,
        {"kernel": SRC["b"].T, "bias": np.ones(3, np.float32)},
        progress=lambda *what: told.append(what),
    )
    assert {name for *_, name in told} == {("kernel",), ("bias",)} and told[-1][:2] == (36, 36)


class Stop(Exception):
    """Somebody has had enough."""


def stop(done: int, total: int, name: Name) -> None:
    if done == total:
        raise Stop


@pytest.fixture(params=["memory", "file"])
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    src: Any = {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(3, np.float32)}
    if request.param == "file":
        save_file(src, src := tmp_path / "x.safetensors")
    return src


def test_what_a_function_raises_arrives_as_it_is_and_nothing_is_changed(weights: Any) -> None:
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    before = {name: np.asarray(value) for name, value in treeload.state(model).items()}
    with pytest.raises(Stop):
        treeload.update(model, weights, progress=stop)
    with pytest.raises(Stop):
        treeload.load(model, weights, progress=stop, donate=True)
    after = treeload.state(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("wrong", ["yes", 1, [print]])
def test_something_else_is_refused_before_anything_is_read(wrong: Any, plan: Any) -> None:
    said = r"progress is True, False, None or a function of \(done, total, name\), not "
    with pytest.raises(TypeError, match=said):
        plan.load(progress=wrong)
    with pytest.raises(TypeError, match=said):
        treeload.update(
            nnx.Linear(2, 3, rngs=nnx.Rngs(0)), {}, policy=treeload.Policy(missing="keep"), progress=wrong
        )
