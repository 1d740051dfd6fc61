"""What was copied goes back to the one leaf that it came from, as long as its copies are one value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import treeload
from treeload import Apply, Copy, Rename, SaveError, Slice, Split, Transpose

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
RULES: dict[str, Any] = {
    "and its own name": [Copy("w", "b", Transpose())],
    "twice": [Copy("w", "b", Transpose()), Copy("w", "c"), Rename("w", "d")],
    "and a rename": [Copy("w", "b"), Rename("w", "c", Transpose())],
    "alone": [Copy("w", "b", Transpose())],
    "and its parts": [Copy("w", "b"), Split("w", ["c", "d"], axis=0, sizes=(1, 1))],
}
TREES = {
    "and its own name": {"w": (2, 3), "b": (3, 2)},
    "twice": {"b": (3, 2), "c": (2, 3), "d": (2, 3)},
    "and a rename": {"b": (2, 3), "c": (3, 2)},
    "alone": {"b": (3, 2)},
    "and its parts": {"b": (2, 3), "c": (1, 3), "d": (1, 3)},
}


def planned(path: Path, which: str) -> treeload.Plan:
    save_file({"w": WEIGHT, "other": WEIGHT}, path)
    dst = {name: np.zeros(shape, np.float32) for name, shape in TREES[which].items()}
    return treeload.plan({**dst, "other": np.zeros((2, 3), np.float32)}, path, rules=RULES[which])


@pytest.mark.parametrize("how", ["like", "rules"])
@pytest.mark.parametrize("which", RULES)
def test_it_comes_back_once(tmp_path: Path, which: str, how: str) -> None:
    plan = planned(tmp_path / "a.safetensors", which)
    given = {"like": plan} if how == "like" else {"rules": RULES[which]}
    treeload.export(tmp_path / "b.safetensors", plan.load(), **given)
    back = load_file(tmp_path / "b.safetensors")
    assert back.keys() == {"w", "other"} and (back["w"] == WEIGHT).all()


@pytest.mark.parametrize("how", ["like", "rules"])
@pytest.mark.parametrize("which", [which for which in RULES if which != "alone"])
def test_copies_that_differ_now_are_named_and_nothing_is_written(
    tmp_path: Path, which: str, how: str
) -> None:
    plan = planned(tmp_path / "a.safetensors", which)
    tree = plan.load()
    tree["b"] = tree["b"] + 1
    given = {"like": plan} if how == "like" else {"rules": RULES[which]}
    with pytest.raises(SaveError, match=r"come from one source leaf and differ now"):
        treeload.export(tmp_path / "b.safetensors", tree, **given)
    assert not (tmp_path / "b.safetensors").exists()


@given(st.lists(st.sampled_from("bcdef"), unique=True, min_size=1), st.booleans())
def test_any_number_of_copies_is_one_leaf_again(names: list[str], own: bool) -> None:
    import tempfile

    rules = [Copy("w", name, *([Transpose()] if name in "bd" else [])) for name in names]
    dst = {name: np.zeros((3, 2) if name in "bd" else (2, 3), np.float32) for name in names}
    loaded = treeload.load(dst | ({"w": np.zeros_like(WEIGHT)} if own else {}), {"w": WEIGHT}, rules=rules)
    with tempfile.TemporaryDirectory() as folder:
        treeload.export(Path(folder) / "a.safetensors", loaded, rules=rules)
        back = load_file(Path(folder) / "a.safetensors")
    assert back.keys() == {"w"} and (back["w"] == WEIGHT).all()


def test_without_an_inverse_it_is_said_by_the_rules_and_by_a_plan(tmp_path: Path) -> None:
    rules = [Copy("w", "b", Slice(1)), Copy(["w", "v"], "c", Apply(lambda w, v: w + v))]
    src = {"w": WEIGHT, "v": WEIGHT}
    dst = {"b": WEIGHT[:1], "c": WEIGHT}
    plan = treeload.plan(dst, src, rules=rules)
    with pytest.raises(
        SaveError, match=r"cannot be turned round .*\n  Copy\('w', 'b', Slice\(1\)\)\n  Copy\(\["
    ):
        treeload.export(tmp_path / "a.safetensors", plan.load(), rules=rules)
    with pytest.raises(SaveError, match=r"b: Slice\(1\) loses something.*\n  c: .* of several leaves cannot"):
        treeload.export(tmp_path / "a.safetensors", plan.load(), like=plan)
    assert list(tmp_path.iterdir()) == []
