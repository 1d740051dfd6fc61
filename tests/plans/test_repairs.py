"""What would make more of a plan load: tried, in order, and never claimed beyond that."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import treeload
from treeload import From, Plan, Policy, Rename, Transpose
from treeload._plans import repairs as module
from treeload._plans.repairs import GiveRules, TakePart, loaded, repairs


def f32(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


MODEL = {"enc": {"kernel": f32(4, 6), "bias": f32(6)}, "head": {"kernel": f32(6, 3)}}
TORCH = {"enc": {"weight": f32(6, 4), "bias": f32(6)}, "head": {"weight": f32(3, 6)}}


def found(dst: Any, src: Any, **how: Any) -> tuple[Any, ...]:
    return repairs(treeload.plan(dst, src, **how))


def test_a_plan_that_is_well_needs_none() -> None:
    assert found(MODEL, MODEL) == ()
    assert found({**MODEL, "new": f32(2)}, MODEL, policy=Policy(missing="keep")) == ()


def test_the_part_that_holds_it_all_is_all_there_is_to_do() -> None:
    (only,) = found(MODEL, {"params": MODEL, "opt_state": {"0": {"mu": MODEL}}})
    assert isinstance(only, TakePart) and not only.is_choice
    assert only.parts[0].source == ("params",) and only.after.ok and loaded(only.after) == 3


def test_where_it_goes_is_said_likewise() -> None:
    (only,) = found({"model": MODEL}, MODEL)
    assert isinstance(only, TakePart) and only.parts[0].destination == ("model",) and only.after.ok


def test_of_parts_that_are_as_good_none_is_chosen() -> None:
    (only,) = found(MODEL, {"student": MODEL, "teacher": MODEL})
    assert only.is_choice and [part.source for part in only.parts] == [("student",), ("teacher",)]


def test_rules_come_within_the_part() -> None:
    state = {
        "params": {"block": TORCH, "emb": {"table": f32(9, 4)}},
        "opt_state": {"mu": {"emb": {"table": f32(9, 4)}}},
    }
    steps = found({"block": MODEL, "emb": {"table": f32(9, 4)}}, state)
    assert loaded(steps[-1].after) == 4


def test_rules_are_tried_and_counted() -> None:
    (only,) = found({**MODEL, "extra": f32(11)}, TORCH)
    assert isinstance(only, GiveRules)
    assert (only.fed, only.of) == (2, 3)
    assert [finding.name for finding in only.after.errors] == [("extra",)]
    assert treeload.plan({**MODEL, "extra": f32(11)}, TORCH, rules=only.rules).coverage == only.after.coverage


def test_a_rule_that_does_nothing_is_not_given_on() -> None:
    idle = Rename("nothing/{x}", "x/{x}")
    rules = [idle, Rename("enc/weight", "enc/kernel", Transpose())]
    plan = treeload.plan(MODEL, TORCH, rules=rules)
    assert idle not in plan.suggest() and plan.suggest()[0] == rules[1]
    (only,) = repairs(plan)
    assert only.after.ok


def test_where_rules_are_given_the_source_is_not_taken_apart() -> None:
    state = {"params": MODEL, "opt_state": {"mu": MODEL}}
    steps = found(MODEL, state, rules=[Rename("params/enc/{k}", "enc/{k}")])
    assert not any(isinstance(step, TakePart) for step in steps)


@pytest.mark.parametrize(
    "src",
    [[From({"params": MODEL}), From({"other": f32(1)})], From({"params": MODEL}, rules=[Rename("q", "r")])],
    ids=["several", "with rules"],
)
def test_nor_where_there_are_several_or_a_part_has_rules(src: Any) -> None:
    assert not any(isinstance(step, TakePart) for step in found(MODEL, src))


def test_nothing_is_offered_that_does_not_help() -> None:
    assert found(MODEL, {"gru": f32(7, 11)}) == ()
    assert found({"a": f32(2)}, {}) == ()


def test_of_too_much_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAVES", 5)
    plan: Plan = treeload.plan(MODEL, {"params": MODEL})
    assert len(plan.errors) == 6 and repairs(plan) == ()


def test_joined_names_are_split_first_and_what_is_left_gets_rules() -> None:
    part, rules = found(MODEL, {"enc.weight": f32(6, 4), "enc.bias": f32(6), "head.weight": f32(3, 6)})
    assert (part.separator, part.parts) == (".", ()) and isinstance(rules, GiveRules)
    assert rules.after.ok and loaded(rules.after) == 3


def test_names_that_split_into_one_another_are_not_split() -> None:
    joined = {"enc.bias": f32(6), "enc.bias.x": f32(7), "enc.kernel": f32(4, 6)}
    assert not any(isinstance(step, TakePart) for step in found(MODEL, joined))


def test_an_error_shows_itself_with_its_plan_and_without() -> None:
    with pytest.raises(treeload.LoadError) as raised:
        treeload.load(MODEL, TORCH)
    here, there = raised.value, pickle.loads(pickle.dumps(raised.value))
    for error in (here, there):
        assert repr(error) == "<LoadError: 4 problems in loading 3 leaves from a tree in memory>"
        shown = io.StringIO()
        Console(file=shown, width=80).print(error, soft_wrap=True)
        assert "Nothing was changed." in shown.getvalue()
        assert error._repr_html_() == error.to_html() and "Nothing was changed." in error.to_html()
    assert there.plan is None and len(there.findings) == 4
