"""Equinox's stream of arrays: written by Equinox itself, malformed by hand."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import From, RuleError, SourceError


def mlp(seed: int) -> eqx.nn.MLP:
    return eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(seed))


class Net(eqx.Module):
    linear: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    scale: jax.Array

    def __init__(self, rate: float, seed: int) -> None:
        self.linear = eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(seed))
        self.dropout = eqx.nn.Dropout(rate)
        self.scale = jnp.full(3, seed, jnp.bfloat16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.eqx"


def test_a_module_comes_back_bit_for_bit(path: Path) -> None:
    eqx.tree_serialise_leaves(path, mlp(0))
    assert eqx.tree_equal(treeload.load(mlp(1), From(path, by_position=True)), mlp(0))


def test_each_entry_says_by_position(path: Path) -> None:
    eqx.tree_serialise_leaves(path, mlp(0))
    plan = treeload.plan(mlp(1), From(path, by_position=True))
    assert {entry.reason for entry in plan.entries} == {"by position"}
    assert "by position" in str(plan)


def test_numbers_and_absent_biases_shift_nothing_and_stay_the_destinations(path: Path) -> None:
    eqx.tree_serialise_leaves(path, Net(0.3, 1))
    loaded = treeload.load(Net(0.4, 2), From(path, by_position=True))
    assert (loaded.linear.weight == Net(0.3, 1).linear.weight).all()
    assert (loaded.scale == 1).all() and loaded.scale.dtype == jnp.bfloat16
    assert loaded.dropout.p == 0.4
    assert loaded.linear.bias is None


def test_a_module_of_other_shape_is_a_shape_finding_at_its_name(path: Path) -> None:
    eqx.tree_serialise_leaves(path, mlp(0))
    wider = eqx.nn.MLP(2, 3, 5, 2, key=jax.random.key(0))
    plan = treeload.plan(wider, From(path, by_position=True))
    assert {finding.kind for finding in plan.errors} == {"shape"}
    assert "layers/1/weight" in {str(finding.name) for finding in plan.errors}


def test_one_layer_less_is_one_finding_with_both_counts(path: Path) -> None:
    eqx.tree_serialise_leaves(path, mlp(0))
    deeper = eqx.nn.MLP(2, 3, 4, 3, key=jax.random.key(0))
    (finding,) = treeload.plan(deeper, From(path, by_position=True)).findings
    assert (finding.kind, finding.expected, finding.found) == ("rule", "8 arrays", "6 arrays")


def test_without_by_position_it_says_what_to_write(path: Path) -> None:
    eqx.tree_serialise_leaves(path, mlp(0))
    with pytest.raises(RuleError, match="by_position=True"):
        treeload.plan(mlp(1), path)


def record(array: np.ndarray, **header: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"no numpy at all", "is a text file, which begins 'no numpy at all'"),
        (bytes(range(200, 256)), "record 0"),
        (b'{"a": 1, "a": 2}\n' + record(np.ones(3)), "first line is no JSON.*there twice"),
        (b'{"a": 1}' + record(np.ones(3)), "first line is no JSON"),
        (b'{"a": 1}\n' + record(np.ones(3)) + b"\x93NUMPY", "record 1"),
        (record(np.ones(3))[:-1], "more than the file holds"),
        (record(np.ones(3)) + b"\x93NUMPY", "record 1"),
        (record(np.array([{}], dtype=object)), "no number"),
        (record(np.ones(3)).replace(b"(3,)", b"(9,)"), "more than the file holds"),
        (record(np.ones(3)).replace(b"(3,)", b"(-1,"), "record 0"),
        (record(np.ones(3)).replace(b"<f8", b">f8"), "big-endian"),
        (record(np.array(["ab"])), "no number"),
    ],
    ids=None,
)
def test_malformed_streams_are_refused_by_name(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(SourceError, match=said) as error:
        treeload.open(path)
    assert repr(str(path)) in str(error.value)


@pytest.mark.parametrize("hyperparameters", [{"width": 4, "names": ["a"]}, {}])
def test_a_first_line_of_hyperparameters_is_the_metadata(path: Path, hyperparameters: dict) -> None:
    with path.open("wb") as file:  # as Equinox's documentation has it
        file.write((json.dumps(hyperparameters) + "\n").encode())
        eqx.tree_serialise_leaves(file, mlp(0))
    assert dict(treeload.open(path).metadata) == hyperparameters
    assert eqx.tree_equal(treeload.load(mlp(1), From(path, by_position=True)), mlp(0))


def test_without_such_a_line_there_is_no_metadata(path: Path) -> None:
    eqx.tree_serialise_leaves(path, mlp(0))
    assert dict(treeload.open(path).metadata) == {}


def test_a_pipe_is_refused_and_does_not_hang(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(SourceError, match="pipe"):
        treeload.open(path)
