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
from treeload._plans.repairs import GiveRules, MendFrom, Reorder, TakePart, loaded, repairs


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


# What was given, written otherwise.

JOINED = {"model.backbone.fc.kernel": f32(2, 3), "model.backbone.fc.bias": f32(3)}
FC = {"fc": {"kernel": f32(2, 3), "bias": f32(3)}}


def test_rules_in_the_wrong_order_are_tried_in_the_other_all_at_once() -> None:
    rules = [Rename("a/{*r}", "e/{*r}"), Rename("a/x", "e/one"), Rename("a/y", "e/two")]
    src = {"a": {"x": f32(2), "y": f32(3), "z": f32(4)}}
    dst = {"e": {"one": f32(2), "two": f32(3), "z": f32(4)}}
    plan = treeload.plan(dst, src, rules=rules)
    (repair,) = repairs(plan)
    assert isinstance(repair, Reorder) and repair.after.ok
    text = str(plan)
    assert text.count("put it before Rename('a/{*r}', 'e/{*r}')") == 2
    assert "in that order everything loads" in " ".join(text.split())
    assert "what that settles" in text and "Policy(missing" not in text


def test_an_order_that_makes_no_more_load_is_no_repair() -> None:
    rules = [Rename("a/{*r}", "e/{*r}"), Rename("a/x", "e/one")]
    plan = treeload.plan({"e": {"one": f32(2)}}, {"a": {"x": f32(3), "z": f32(4)}}, rules=rules)
    assert not any(isinstance(repair, Reorder) for repair in repairs(plan))


@pytest.mark.parametrize(
    "subtree", ["model.backbone", "model.backbone.", "model/backbon", "model/backbone/**", "model.backbon"]
)
def test_a_subtree_that_is_nearly_one_is_said_as_it_is_to_be_written(subtree: str) -> None:
    plan = treeload.plan(FC, From(JOINED, separator=".", subtree=subtree))
    (repair,) = repairs(plan)
    assert isinstance(repair, MendFrom) and repair.after.ok
    text = " ".join(str(plan).split())
    assert 'everything loads with subtree="model/backbone"' in text and "missing fc" not in text
    assert ("names are joined by '/'" in text) == ("." in subtree)
    assert "missing fc" not in " ".join(plan._repr_html_().split())


def test_a_place_that_there_is_not_is_left_out_or_written_right() -> None:
    wrong = treeload.plan(FC, From(FC, into="encoder"))
    text = " ".join(str(wrong).split())
    assert "nothing below 'encoder': leave into= out; everything loads then" in text
    assert "Rename" not in text and "optimizer" not in text
    typo = treeload.plan({"encoder": FC}, From(FC, into="encodr"))
    assert 'everything loads with into="encoder"' in " ".join(str(typo).split())
    assert treeload.plan(FC, From(FC)).ok and treeload.plan({"encoder": FC}, From(FC, into="encoder")).ok


def test_of_two_parts_that_would_do_as_well_both_are_named() -> None:
    src = {"ema_params_a": {"x": FC}, "ema_params_b": {"x": FC}}
    plan = treeload.plan({"x": FC}, From(src, subtree="ema_params"))
    (repair,) = repairs(plan)
    assert isinstance(repair, MendFrom) and repair.is_choice
    either = 'everything loads with either subtree="ema_params_a" subtree="ema_params_b"'
    assert either in " ".join(str(plan).split())


def test_of_several_sources_the_one_that_names_nothing_is_mended_and_the_others_stay() -> None:
    def fc() -> dict[str, Any]:
        return {"fc": {"kernel": f32(2, 3), "bias": f32(3)}}

    sources = [From(fc(), into="a"), From({"net": fc()}, subtree="nett", into="c")]
    (repair,) = repairs(treeload.plan({"a": fc(), "c": fc()}, sources))
    assert isinstance(repair, MendFrom) and [each.index for each in repair.meant] == [1] and repair.after.ok
