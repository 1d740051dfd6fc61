"""Jobs of several processes: what they save and load together is right in each, or an error in all."""

from __future__ import annotations

import time
from pathlib import Path

import jobs
import numpy as np
import pytest

import treeload


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_what_they_save_together_is_verified_and_loads_on_other_shardings(tmp_path: Path, count: int) -> None:
    for said in jobs.run("round_trip", count, tmp_path):
        assert said["verified"] == ["b", "large", "n", "w"] and said["unverified"] == []
        assert said["right"] == [True] * 6 and said["number"] == 3 and said["averaged"]
        assert said["differences"].startswith("4 leaves, no difference")
    here = treeload.load(
        {"w": np.zeros((64, 16), np.float32), "large": np.zeros((1024, 2048), np.float32)},
        tmp_path / "x",
        policy=treeload.Policy(unexpected="ignore"),
    )
    rng = np.random.default_rng(0)
    assert np.array_equal(here["w"], rng.random((64, 16), np.float32))
    assert treeload.verify(tmp_path / "x").ok


@pytest.mark.slow
def test_a_module_is_updated_in_each(tmp_path: Path) -> None:
    assert jobs.run("updated", 2, tmp_path) == [True, True]


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ("damaged", "is damaged: its bytes are not those of its digest"),
        pytest.param("other_destination", "float32[32,16]", marks=pytest.mark.slow),
        ("unseen", "does not exist"),
    ],
)
def test_what_fails_in_one_fails_in_all_and_is_said_in_all(tmp_path: Path, scenario: str, words: str) -> None:
    for said in jobs.run(scenario, 2, tmp_path):
        assert "TreeloadError" in said["kinds"]
        assert words in said["text"]
        assert said["seconds"] < 30
        assert said.get("as before", True)


def test_processes_that_would_load_otherwise_are_told(tmp_path: Path) -> None:
    for said in jobs.run("other_plan", 2, tmp_path):
        assert "process 1 of 2 would load it otherwise than process 0: another plan" in said["text"]


def test_nobody_is_waited_for_without_end(tmp_path: Path) -> None:
    said, elsewhere = jobs.run("elsewhere", 2, tmp_path)
    assert "process 1 of 2 did not come to where all meet to plan it" in said["text"]
    assert said["seconds"] < 8
    assert elsewhere in ("elsewhere", None)


@pytest.mark.slow
def test_what_is_not_spread_may_be_loaded_by_one(tmp_path: Path) -> None:
    assert jobs.run("alone", 2, tmp_path) == [True, True]


@pytest.mark.slow
def test_of_a_process_that_dies_the_others_hear(tmp_path: Path) -> None:
    begun = time.monotonic()
    said, died = jobs.run("dies", 2, tmp_path)
    assert died is None
    assert said is None or "did not come" in said["text"]  # JAX may end a process whose fellow is gone
    assert time.monotonic() - begun < 90
