"""What is no array is not saved: its name is recorded, said by ``save``, shown by ``inspect``."""

from __future__ import annotations

import datetime
import enum
import json
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import From, SourceError, TreeloadWarning


class Kind(enum.Enum):
    GPT = 1


def act(x: Any) -> Any:
    return x


LEFT_OUT = {
    "name": ("gpt", "a str"),
    "raw": (b"ab", "a bytes"),
    "act": (act, "a function"),
    "jitted": (jax.jit(act), "a function"),
    "relu": (jax.nn.relu, "a function"),
    "cls": (dict, "a class"),
    "kind": (Kind.GPT, "a Kind"),
    "date": (datetime.date(2026, 1, 1), "a date"),
    "n/s": (np.str_("x"), "a str_"),
}


@pytest.mark.parametrize(("name", "value", "words"), [(name, *both) for name, both in LEFT_OUT.items()])
def test_whatever_is_left_out_is_named_with_its_kind(
    tmp_path: Path, name: str, value: Any, words: str
) -> None:
    printed = name.replace("/", "\\/")
    with pytest.warns(TreeloadWarning) as caught:
        treeload.save(tmp_path / "run", {"w": jnp.ones(2), "deep": [{name: value}]})
    (warning,) = caught
    assert f"1 value is no array and no number, and the save leaves out: deep/0/{printed} ({words})" in str(
        warning.message
    )
    assert warning.filename == __file__
    shown = treeload.inspect(tmp_path / "run")
    assert {str(key): what for key, what in shown.left_out.items()} == {f"deep/0/{printed}": words}
    assert f"left out by the save\n  deep/0/{printed} ({words})" in str(shown)
    assert shown.to_dict()["left_out"] == {f"deep/0/{printed}": words}
    assert shown.names == ("w",)


def test_all_are_said_in_one_warning(tmp_path: Path) -> None:
    tree = {"w": jnp.ones(2), **{name: value for name, (value, _) in LEFT_OUT.items()}}
    with pytest.warns(TreeloadWarning) as caught:
        treeload.save(tmp_path / "run", tree)
    assert len(caught) == 1
    assert "9 values are no arrays and no numbers" in str(caught[0].message)
    assert str(caught[0].message).count(" (a") == 8 and "and 1 more; " in str(caught[0].message)
    assert len(treeload.inspect(tmp_path / "run").left_out) == len(LEFT_OUT)


def test_where_warnings_are_errors_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TreeloadWarning), warnings.catch_warnings(action="error"):
        treeload.save(tmp_path / "run", {"w": jnp.ones(2), "name": "gpt"})
    assert list(tmp_path.iterdir()) == []


class Net(eqx.Module):
    weight: Any
    act: Any = jax.nn.relu
    name: str = "net"
    rate: float = 0.5
    off: bool = False


class Module(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.ones(2))
        self.act = nnx.relu
        self.name = "net"
        self.bias = None


@pytest.mark.parametrize("model", [lambda: Net(jnp.ones(2)), Module, lambda: {"m": [Net(jnp.ones(2))]}])
def test_a_modules_configuration_is_the_codes_and_no_warning(tmp_path: Path, model: Any) -> None:
    treeload.save(tmp_path / "run", model())  # warnings are errors here
    assert treeload.plan(model(), tmp_path / "run").ok


def test_a_modules_configuration_is_shown_by_inspect(tmp_path: Path) -> None:
    treeload.save(tmp_path / "run", Net(jnp.ones(2)))
    assert {str(name): what for name, what in treeload.inspect(tmp_path / "run").left_out.items()} == {
        "act": "a function", "name": "a str", "off": "a bool", "rate": "a float"
    }  # fmt: skip


def test_what_is_absent_or_empty_is_not_left_out(tmp_path: Path) -> None:
    treeload.save(
        tmp_path / "run", {"w": jnp.ones(2), "b": None, "f": False, "e": {}, "n": 3, "z": np.ones(0)}
    )
    assert treeload.inspect(tmp_path / "run").left_out == {}


def test_an_array_where_something_was_left_out_is_structure_as_in_memory(tmp_path: Path) -> None:
    tree = {"w": jnp.ones(2), "name": "gpt"}
    with pytest.warns(TreeloadWarning):
        treeload.save(tmp_path / "run", tree)
    dst = {"w": jnp.zeros(2), "name": jnp.zeros(2)}
    for source in (tree, tmp_path / "run", From({"a": tree}, subtree="a")):
        assert [finding.kind for finding in treeload.plan(dst, source).errors] == ["structure"]
    assert treeload.load(tree, tmp_path / "run")["name"] == "gpt"


def test_a_record_that_contradicts_the_checkpoint_is_refused(tmp_path: Path) -> None:
    treeload.save(tmp_path / "run", {"w": jnp.ones(2)})
    file = tmp_path / "run" / "_CHECKPOINT_METADATA"
    record = json.loads(file.read_text())
    del record["custom_metadata"]["treeload"]["seal"]  # as an earlier treeload wrote it
    tree = json.loads((tmp_path / "run/state/_METADATA").read_text())
    (tmp_path / "run/state/_METADATA").write_text(json.dumps({**tree, "custom_metadata": None}))
    for left_out, said in (({"w": "a str"}, "recorded as left out"), ({"x": 3}, "malformed")):
        record["custom_metadata"]["treeload"]["left_out"] = left_out
        file.write_text(json.dumps(record))
        with pytest.raises(SourceError, match=said):
            treeload.inspect(tmp_path / "run")


def test_a_state_that_holds_nothing_is_warned_of_once(tmp_path: Path) -> None:
    tree = nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.BatchStat)
    with pytest.warns(TreeloadWarning, match="^the tree holds no array and no number") as caught:
        treeload.save(tmp_path / "run", tree)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert treeload.inspect(tmp_path / "run").names == ()


@pytest.mark.parametrize("tree", [{}, [], (), {"a": None}])
def test_a_plain_tree_of_nothing_is_meant(tmp_path: Path, tree: Any) -> None:
    treeload.save(tmp_path / "run", tree)
    assert treeload.inspect(tmp_path / "run").names == ()


def test_what_is_left_out_of_a_save_of_nothing_is_in_the_same_warning(tmp_path: Path) -> None:
    class Texts(nnx.Module):
        def __init__(self) -> None:
            self.name = nnx.Param("gpt")

    with pytest.warns(TreeloadWarning, match="leaves out: name .*; the tree holds no array") as caught:
        treeload.save(tmp_path / "run", nnx.state(Texts()))
    assert len(caught) == 1
