"""What transformers' own conversion puts where is what ``suggest`` finds: 19 models, leaf by leaf, by value.

Each file of ``tests/data/transformers`` holds the names and shapes of a PyTorch file and of the Flax model
that transformers makes of it, and which leaf feeds which by which axes. Some have another head than the
model, some have all sizes equal. With random arrays of these shapes every leaf must come from the same leaf
by the same axes; what is fed beyond that is never certain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload._inference.suggest import suggest

_DATA = Path(__file__).parent.parent / "data" / "transformers"
MODELS = sorted(path.stem for path in _DATA.glob("*.json"))

_LENIENT = treeload.Policy(missing={"**": "keep"}, unexpected={"**": "ignore"}, shape={"**": "keep"})


@dataclass(frozen=True)
class Case:
    """One model: the source's arrays, what the destination wants, and what each leaf must be."""

    source: dict[str, np.ndarray]
    destination: dict[str, jax.ShapeDtypeStruct]
    expected: dict[str, np.ndarray]


def _case(model: str) -> Case:
    described = json.loads((_DATA / f"{model}.json").read_text())
    rng = np.random.default_rng(0)
    source = {name: rng.random(shape, np.float32) for name, (shape, _) in sorted(described["source"].items())}
    destination = {
        name: jax.ShapeDtypeStruct(tuple(shape), np.float32)
        for name, (shape, _) in sorted(described["destination"].items())
    }
    expected = {
        name: source[feed["from"]].transpose(feed["axes"]) if "axes" in feed else source[feed["from"]]
        for name, feed in described["feeds"].items()
    }
    return Case(source, destination, expected)


def _nest(flat: dict[str, Any], separator: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(separator)
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = value
    return tree


def _loaded(case: Case, rules: Any) -> dict[str, np.ndarray]:
    """What is loaded by these rules, by printed name."""
    empty = {name: np.zeros(spec.shape, spec.dtype) for name, spec in case.destination.items()}
    source = _nest(case.source, ".")
    plan = treeload.plan(_nest(empty, "/"), source, rules=rules, policy=_LENIENT)
    tree = plan.load()
    found = {}
    for entry in plan.entries:
        if entry.action != "keep":
            value = tree
            for key in entry.name:
                value = value[key]
            found[str(entry.name)] = np.asarray(value)
    return found


def _suggested(case: Case) -> Any:
    return suggest(
        {tuple(name.split("/")): spec for name, spec in case.destination.items()},
        {tuple(name.split(".")): jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in case.source.items()},
    )


def test_there_are_nineteen_models_and_973_leaves() -> None:
    assert len(MODELS) == 19
    assert sum(len(_case(model).expected) for model in MODELS) == 973


@pytest.mark.parametrize("model", MODELS)
def test_every_leaf_that_transformers_feeds_is_fed_the_same(model: str) -> None:
    case = _case(model)
    rules = _suggested(case)
    found, certain = _loaded(case, rules), _loaded(case, rules.certain)
    right = [
        name for name, value in case.expected.items() if name in found and np.array_equal(found[name], value)
    ]
    beyond = sorted(found.keys() - case.expected.keys())
    print(f"{model}: {len(right)} of {len(case.expected)} leaves, {len(certain)} certain, beyond: {beyond}")
    assert sorted(right) == sorted(case.expected)
    assert not certain.keys() - case.expected.keys()
    assert all(np.array_equal(certain[name], case.expected[name]) for name in certain)


@pytest.mark.parametrize(
    ("model", "head"),
    [
        ("bert-masked-lm-into-bert", "pooler/dense/kernel"),
        ("roberta-masked-lm-into-classifier", "classifier/dense/kernel"),
    ],
)
def test_the_head_of_another_task_is_open_and_both_are_named(model: str, head: str) -> None:
    case = _case(model)
    found = _suggested(case)
    assert head not in _loaded(case, found)
    (open_,) = [one for one in found.ambiguous if head in one.destination]
    assert any("predictions" in name or "lm_head" in name for name in open_.source)
    assert "different ends" in open_.why
