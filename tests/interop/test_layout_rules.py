"""Seven public models load by the rules of ``docs/reference/seven-models.md``, and go back bit for bit."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import treeload


def _beside(name: str) -> ModuleType:
    # pytest's importlib mode puts no test directory on the path.
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layouts = _beside("layouts")
layout_rules = _beside("layout_rules")
RULES = layout_rules.rules()
RENAMED = layout_rules.renamed()

every_model = pytest.mark.parametrize("model", layouts.MODELS)


def _file(model: str, folder: Path) -> Path:
    path = folder / "theirs.safetensors"
    save_file(layouts.layout(model).source, path, metadata={"format": "pt"})
    return path


def _plan(model: str, path: Path) -> treeload.Plan:
    return treeload.plan(layout_rules.destination(model), path, rules=RULES[model])


def _same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        other = right[name]
        assert (array.dtype, array.shape) == (other.dtype, other.shape), name
        assert array.tobytes() == other.tobytes(), name


@every_model
def test_the_page_needs_at_most_fifteen_rules(model: str) -> None:
    assert len(RULES[model]) <= 15


@every_model
def test_every_leaf_and_every_tensor_has_its_place_under_the_default_policy(
    model: str, tmp_path: Path
) -> None:
    plan = _plan(model, _file(model, tmp_path))
    assert plan.findings == ()
    assert plan.unused == ()
    assert plan.coverage == 1
    assert {entry.action for entry in plan.entries} <= {"load", "tie"}


@every_model
def test_every_value_is_the_one_that_numpy_computes(model: str, tmp_path: Path) -> None:
    loaded = _plan(model, _file(model, tmp_path)).load()
    _same(_flat(loaded), layout_rules.expected(model))


@every_model
def test_the_file_is_written_back_bit_for_bit(model: str, tmp_path: Path) -> None:
    theirs, ours = _file(model, tmp_path), tmp_path / "ours.safetensors"
    plan = _plan(model, theirs)
    treeload.export(ours, plan.load(), like=plan)
    _same(load_file(ours), load_file(theirs))
    with safe_open(ours, "numpy") as written:
        assert written.metadata()["format"] == "pt"


@every_model
def test_no_rule_is_there_for_nothing(model: str, tmp_path: Path) -> None:
    path = _file(model, tmp_path)
    truth = layout_rules.expected(model)
    for at, rule in enumerate(RULES[model]):
        fewer = RULES[model][:at] + RULES[model][at + 1 :]
        plan = treeload.plan(layout_rules.destination(model), path, rules=fewer)
        # A square image kernel that the last rule takes has the right shape, with its rows as columns.
        assert not plan.ok or any(
            array.tobytes() != truth[name].tobytes() for name, array in _flat(plan.load()).items()
        ), rule


@pytest.mark.parametrize("model", ["bart-base", "bert-base", "convnext-tiny", "wav2vec2-base"])
def test_without_a_reshape_the_rules_alone_lead_back(model: str, tmp_path: Path) -> None:
    theirs, ours = _file(model, tmp_path), tmp_path / "ours.safetensors"
    treeload.export(ours, _plan(model, theirs).load(), rules=RULES[model])
    _same(load_file(ours), load_file(theirs))


@pytest.mark.parametrize("model", RENAMED)
def test_other_names_for_the_modules_take_two_steps_and_no_more_rules(model: str, tmp_path: Path) -> None:
    (names, layout), model_in_flax = RENAMED[model], layouts.layout(model)
    theirs, ours = _file(model, tmp_path), tmp_path / "ours.safetensors"
    assert len(names) + len(layout) <= 15
    plan = treeload.plan(model_in_flax.destination, treeload.From(theirs, rules=names), rules=layout)
    assert plan.findings == ()
    loaded = plan.load()
    _same(_flat(loaded), model_in_flax.expected)
    treeload.export(ours, loaded, like=plan)
    _same(load_file(ours), load_file(theirs))


@every_model
def test_what_was_trained_since_is_written_back_in_its_place(model: str, tmp_path: Path) -> None:
    theirs, ours = _file(model, tmp_path), tmp_path / "ours.safetensors"
    plan = _plan(model, theirs)
    trained = layouts.nest({name: array * 2 for name, array in _flat(plan.load()).items()})
    treeload.export(ours, trained, like=plan)
    _same(load_file(ours), {name: array * 2 for name, array in load_file(theirs).items()})


@every_model
def test_what_is_converted_already_is_refused(model: str) -> None:
    converted = layouts.nest(layout_rules.expected(model))
    plan = treeload.plan(layout_rules.destination(model), converted, rules=RULES[model])
    assert "rule" in {finding.kind for finding in plan.errors}
    with pytest.raises(treeload.LoadError, match="matched nothing"):
        plan.load()


@every_model
def test_one_tensor_less_is_said_by_name(model: str, tmp_path: Path) -> None:
    source = dict(layouts.layout(model).source)
    gone = sorted(name for name in source if ".1." in name)[0]
    del source[gone]
    save_file(source, tmp_path / "less.safetensors")
    errors = _plan(model, tmp_path / "less.safetensors").errors
    assert errors and all(error.kind in ("missing", "rule") for error in errors)


def test_embeddings_that_are_no_longer_tied_are_not_written_as_one(tmp_path: Path) -> None:
    plan = _plan("bart-base", _file("bart-base", tmp_path))
    loaded = plan.load()
    loaded["lm_head"]["kernel"] = loaded["lm_head"]["kernel"] + 1
    with pytest.raises(treeload.SaveError, match="differ now"):
        treeload.export(tmp_path / "ours.safetensors", loaded, like=plan)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
