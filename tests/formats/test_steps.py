"""What a step's name says, and which of several is the latest: by number, or refused by name."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import flax.serialization
import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import SourceError
from treeload._files.steps import in_order, step_of


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("9", "10"), ("step_9", "step_10"),
        ("ckpt-9", "ckpt-10"), ("ckpt9", "ckpt10"), ("run_009", "run_10"),
        ("checkpoint_0.8", "checkpoint_0.85"), ("checkpoint_0.85", "checkpoint_0.9"),
        ("run_-3", "run_-2"), ("run_-2", "run_1"), ("lr_1e-4", "lr_1e-3"), ("lr1e-4", "lr1e-3"),
        ("x0.9", "x0.85e+1"),
        ("loss_9e-1", "loss_1"), ("-3", "2"), ("2024-01-05", "2024-01-12"),
        ("checkpoint_9", "checkpoint_9.5"),
    ],
)  # fmt: skip
def test_steps_are_in_the_order_of_their_numbers(first: str, then: str) -> None:
    for names in itertools.permutations((first, then)):
        found = in_order({name: step_of(name) for name in names}, "here")
        assert [name for name, _ in found] == [first, then]


@pytest.mark.parametrize("name", ["model_1.2.3", "1.2.3", "abc12e4", "run_" + "1" * 19, "x_1e999", "v1.2.10"])
def test_a_number_that_cannot_be_read_is_refused_by_name(name: str) -> None:
    assert step_of(name) is None
    with pytest.raises(SourceError, match=f"holds '{name}', whose step cannot be read as a number"):
        in_order({"run_1": step_of("run_1"), name: step_of(name)}, "here")


@pytest.mark.parametrize("name", ["", "best", "step_", "1.0-rc", "checkpoint_0.", "x-"])
def test_a_name_that_ends_in_no_number_says_no_step(name: str) -> None:
    assert step_of(name) is None


def test_several_series_are_refused_with_all_names() -> None:
    with pytest.raises(SourceError, match="several series: 'a_1', 'b_2'"):
        in_order({name: step_of(name) for name in ("b_2", "a_1")}, "here")


def test_one_number_twice_is_refused_with_both_names() -> None:
    with pytest.raises(SourceError, match="holds 'run_01', 'run_1', which say the same step"):
        in_order({name: step_of(name) for name in ("run_2", "run_1", "run_01")}, "here")


# Each of those who look for the latest asks here.


def tree(value: float) -> dict[str, Any]:
    return {"w": jnp.full(2, float(value))}


def never() -> Any:
    raise AssertionError("there is a checkpoint")


SERIES = [
    ["checkpoint_0.8", "checkpoint_0.85", "checkpoint_0.9"],
    ["run_-3", "run_-2"],
    ["lr_1e-4", "lr_1e-3"],
    ["ckpt-9", "ckpt-100"],
]


@pytest.mark.parametrize("names", SERIES, ids=lambda names: names[0])
def test_the_latest_of_orbax_steps_is_that_of_the_largest_number(names: list[str], tmp_path: Path) -> None:
    for value, name in enumerate(names):
        treeload.save(tmp_path / name, tree(value))
    latest = len(names) - 1.0
    assert treeload.load(tree(-1), tmp_path)["w"][0] == latest
    state, step = treeload.resume(tree(-1), tmp_path, otherwise=never)
    said = step_of(names[-1])
    assert said is not None and (state["w"][0], step) == (latest, said.number)


def test_the_latest_of_flaxs_files_is_that_of_the_largest_number(tmp_path: Path) -> None:
    for value, name in enumerate(SERIES[0]):
        content = {"w": np.full(2, value, np.float32)}
        (tmp_path / name).write_bytes(flax.serialization.msgpack_serialize(content))
    assert treeload.open(tmp_path).label == f"{str(tmp_path)!r} (Flax msgpack, step 0.9)"
    state, step = treeload.resume(tree(-1), tmp_path, otherwise=never)
    assert (state["w"][0], step) == (2.0, 0.9)


@pytest.mark.parametrize("verb", ["load", "resume"])
def test_a_step_that_cannot_be_read_is_not_passed_over(verb: str, tmp_path: Path) -> None:
    for name in ("run_1", "run_1.2.3"):
        treeload.save(tmp_path / name, tree(1))
    how = {"resume": {"otherwise": never}}.get(verb, {})
    with pytest.raises(SourceError, match="holds 'run_1.2.3', whose step cannot be read"):
        getattr(treeload, verb)(tree(0), tmp_path, **how)


def test_a_file_of_flaxs_whose_step_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for name in ("checkpoint_1", "checkpoint_1.2.3"):
        (tmp_path / name).write_bytes(flax.serialization.msgpack_serialize({"w": np.zeros(2)}))
    for read in (treeload.open, lambda path: treeload.resume(tree(0), path, otherwise=never)):
        with pytest.raises(SourceError, match="holds 'checkpoint_1.2.3', whose step cannot be read"):
            read(tmp_path)
