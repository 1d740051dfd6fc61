"""Seven public models load by the rules that ``suggest`` writes: right by value, leaf by leaf."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treeload
from treeload._inference.suggest import suggest
from treeload._inference.suggestions import Suggestions
from treeload._trees.walk import walk

# pytest's importlib mode puts no test directory on the path.
_spec = importlib.util.spec_from_file_location("layouts", Path(__file__).with_name("layouts.py"))
assert _spec is not None and _spec.loader is not None
layouts = importlib.util.module_from_spec(_spec)
sys.modules["layouts"] = layouts
_spec.loader.exec_module(layouts)

_LENIENT = treeload.Policy(missing={"**": "keep"}, unexpected={"**": "ignore"}, shape={"**": "keep"})


def _specs(tree: Any) -> dict[tuple[str, ...], Any]:
    return {tuple(name): leaf for name, leaf in walk(tree).leaves()}


def _suggestions(destination: Any, source: Any) -> Suggestions:
    return suggest(_specs(destination), _specs(source))


def _right(
    destination: Any, source: Any, rules: tuple[treeload.Rule, ...], expected: Mapping[str, np.ndarray]
) -> tuple[set[str], set[str]]:
    """The leaves that loaded with the right value, and those that loaded with another."""
    plan = treeload.plan(destination, source, rules=rules, policy=_LENIENT)
    loaded = _specs(plan.load())
    names = {str(entry.name) for entry in plan.entries if entry.action != "keep"}
    values = {str(treeload.Name(name)): array for name, array in loaded.items()}
    right = {name for name in names if np.array_equal(values[name], expected[name])}
    return right, names - right


@pytest.mark.parametrize("model", layouts.MODELS)
def test_nine_in_ten_leaves_are_mapped_right_without_a_rule(model: str) -> None:
    layout = layouts.layout(model)
    rules = _suggestions(layout.destination, layout.nested())
    right, wrong = _right(layout.destination, layout.nested(), rules, layout.expected)
    assert not wrong
    assert len(right) >= 0.9 * len(layout.expected)


@pytest.mark.parametrize("model", layouts.MODELS)
def test_what_is_certain_is_right_and_is_most_of_it(model: str) -> None:
    layout = layouts.layout(model)
    certain = _suggestions(layout.destination, layout.nested()).certain
    right, wrong = _right(layout.destination, layout.nested(), certain, layout.expected)
    assert not wrong
    assert len(right) >= 0.6 * len(layout.expected)


@pytest.mark.parametrize("model", layouts.MODELS)
def test_a_wrapper_around_either_side_changes_nothing(model: str) -> None:
    layout = layouts.layout(model)
    destination, source = {"params": layout.destination}, {"module": layout.nested()}
    expected = {f"params/{name}": value for name, value in layout.expected.items()}
    right, wrong = _right(destination, source, _suggestions(destination, source), expected)
    assert not wrong
    assert len(right) >= 0.9 * len(expected)


@pytest.mark.parametrize("model", layouts.MODELS)
def test_the_way_back_is_found_too(model: str) -> None:
    layout = layouts.layout(model)
    nested = layouts.nest(layout.expected)
    expected = {name.replace(".", "/"): array for name, array in layout.source.items()}
    empty = layouts.nest({name: np.zeros_like(array) for name, array in expected.items()})
    found = _suggestions(empty, nested)
    right, wrong = _right(empty, nested, found, expected)
    certain_wrong = _right(empty, nested, found.certain, expected)[1]
    assert not certain_wrong
    assert len(wrong) <= 0.1 * len(expected)
    assert len(right) >= 0.9 * len(expected)


@pytest.mark.parametrize("model", layouts.MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_certain_is_wrong_where_a_third_of_the_source_is_gone(model: str, seed: int) -> None:
    layout = layouts.layout(model)
    rng = np.random.default_rng(seed)
    modules = sorted({name.rpartition(".")[0] for name in layout.source})
    gone = set(rng.choice(modules, len(modules) // 3, replace=False))
    left = {name: array for name, array in layout.source.items() if name.rpartition(".")[0] not in gone}
    source = layouts.nest({name.replace(".", "/"): array for name, array in left.items()})
    certain = _suggestions(layout.destination, source).certain
    # Where nothing is certain nothing loads, which is an error however much is forgiven.
    assert not certain or not _right(layout.destination, source, certain, layout.expected)[1]


def test_two_towers_of_one_model_do_not_feed_each_other() -> None:
    """CLIP's text tower wanted, the vision tower given: of the towers nothing may be taken for the other."""
    layout = layouts.layout("clip-vit-base-patch32")
    wanted = {"text": layout.destination["text"]}
    given = {"vision_model": layout.nested()["vision_model"]}
    assert _suggestions(wanted, given) == ()


def test_another_model_of_the_same_sizes_is_not_certain() -> None:
    """BERT for wav2vec2: names in common, sizes in common, and most of either side without a partner."""
    bert, other = layouts.layout("bert-base"), layouts.layout("wav2vec2-base")
    found = _suggestions(other.destination, bert.nested())
    for rule in found.certain:
        assert "layer" in str(rule) and "norm" not in str(rule).lower()
