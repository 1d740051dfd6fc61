"""Rules that a user writes, through public names alone, are treated as the ready-made ones are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import From, Op, Rename, Rule, RuleError, SaveError, Transpose
from treeload.rules import Made, Matched, Pattern, chain, compile_pattern, compile_template, derive


@dataclass(frozen=True)
class Every(Op):
    """Every so many-th row."""

    start: int
    step: int

    def infer(self, *specs: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        (given,) = specs
        if given.shape[0] % self.step:
            raise RuleError(f"{given.shape[0]} rows are no multiple of {self.step}")
        return jax.ShapeDtypeStruct((given.shape[0] // self.step, *given.shape[1:]), given.dtype)

    def apply(self, *arrays: Any) -> Any:
        return arrays[0][self.start :: self.step]

    def region(self, spec: jax.ShapeDtypeStruct) -> tuple[Any, ...]:
        return (slice(self.start, None, self.step),)


@dataclass(frozen=True)
class TurnMatrices(Rule):
    """Kernels of two axes are transposed, all others are left as they are: which, their shapes say."""

    source: str
    destination: str

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return (compile_pattern(self.source),)

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        template = compile_template(self.destination, self.patterns[0])
        for leaf in taken:
            ops = (Transpose(),) if len(leaf.value.spec.shape) == 2 else ()
            yield Made(template.expand(leaf.match), chain(leaf.value, ops), (leaf.name,))

    def inverse(self) -> Rule:
        return TurnMatrices(self.destination, self.source)


@dataclass(frozen=True)
class Deal(Rule):
    """The rows of one leaf go to several in turn, as cards do."""

    source: str
    destinations: tuple[str, ...]

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return (compile_pattern(self.source),)

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        step = len(self.destinations)
        for leaf in taken:
            for start, text in enumerate(self.destinations):
                name = compile_template(text, self.patterns[0]).expand(leaf.match)
                yield Made.of(name, (leaf.name,), partial(derive, Every(start, step), leaf.value))


def rows(count: int) -> np.ndarray[Any, Any]:
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


SOURCE = {"layer_0": {"weight": rows(3)}, "layer_1": {"weight": np.ones(2, np.float32)}}
DESTINATION = {
    "layers": [{"kernel": np.zeros((2, 3), np.float32)}, {"kernel": np.zeros(2, np.float32)}],
}
TURN = TurnMatrices("layer_{i}/weight", "layers/{i}/kernel")


def test_it_plans_and_loads_and_is_printed_in_the_report() -> None:
    plan = treeload.plan(DESTINATION, SOURCE, rules=TURN)
    assert plan["layers/0/kernel"].rule == TURN
    assert "Transpose()" in str(plan)
    loaded = plan.load()
    np.testing.assert_array_equal(loaded["layers"][0]["kernel"], rows(3).T)
    np.testing.assert_array_equal(loaded["layers"][1]["kernel"], [1, 1])


def test_it_stands_beside_others_and_in_a_from() -> None:
    rules = [Rename("layer_0/weight", "layers/0/kernel", Transpose()), TURN]
    assert treeload.plan(DESTINATION, SOURCE, rules=rules)["layers/1/kernel"].rule == TURN
    part = From({"net": SOURCE}, subtree="net", rules=TURN)
    assert not treeload.plan(DESTINATION, part).errors


def test_that_it_did_nothing_is_a_finding_that_prints_it() -> None:
    plan = treeload.plan({"a": rows(2)}, {"a": rows(2)}, rules=TURN)
    (finding,) = plan.errors
    assert finding.kind == "rule"
    assert finding.message.startswith(
        "TurnMatrices(source='layer_{i}/weight', destination='layers/{i}/kernel') matched nothing"
    )


def test_it_is_exported_by_its_inverse(tmp_path: Path) -> None:
    loaded = treeload.load(DESTINATION, SOURCE, rules=TURN)
    treeload.export(tmp_path / "a.safetensors", loaded, rules=TURN)
    source = treeload.open(tmp_path / "a.safetensors")
    again = treeload.load(DESTINATION, source, rules=TURN)
    assert set(map(str, source.specs())) == {"layer_0/weight", "layer_1/weight"}
    np.testing.assert_array_equal(again["layers"][0]["kernel"], rows(3).T)


def test_without_an_inverse_it_is_exported_by_a_plan_alone(tmp_path: Path) -> None:
    rule = Deal("cards", ("a", "b"))
    dst = {"a": np.zeros((2, 2), np.float32), "b": np.zeros((2, 2), np.float32)}
    plan = treeload.plan(dst, {"cards": rows(4)}, rules=rule)
    loaded = plan.load()
    np.testing.assert_array_equal(loaded["b"], rows(4)[1::2])
    with pytest.raises(SaveError, match=r"cannot be turned round .*\n  Deal\("):
        treeload.export(tmp_path / "a.safetensors", loaded, rules=rule)
    treeload.export(tmp_path / "a.safetensors", loaded, like=plan)
    back = treeload.load({"cards": np.zeros((4, 2), np.float32)}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(back["cards"], rows(4))


def test_an_op_that_it_cannot_apply_is_a_finding_at_the_new_name() -> None:
    plan = treeload.plan({"a": rows(1), "b": rows(1)}, {"cards": rows(3)}, rules=Deal("cards", ("a", "b")))
    assert [(f.kind, str(f.name), f.message) for f in plan.errors] == [
        ("rule", "a", "3 rows are no multiple of 2"),
        ("rule", "b", "3 rows are no multiple of 2"),
    ]


@dataclass(frozen=True)
class Swallow(Rule):
    """Gives one of the leaves it took, and forgets the others."""

    patterns = (compile_pattern("{*rest}"),)  # type: ignore[assignment]

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        yield Made(("a",), taken[0].value, (taken[0].name,))

    def rename(self, name: tuple[str, ...]) -> tuple[str, ...]:
        return name


@pytest.mark.parametrize("inside", [False, True])
def test_a_leaf_that_it_took_and_forgot_is_a_finding(inside: bool) -> None:
    src = {"a": rows(1), "b": rows(1), "c": rows(1), "none": None}
    part = From(src, rules=Swallow()) if inside else From(src)
    plan = treeload.plan({"a": rows(1)}, part, rules=() if inside else Swallow())
    assert [(f.kind, f.message) for f in plan.errors] == [
        ("rule", "Swallow() took b, c and says nothing of what becomes of it")
    ]
    assert {str(unused.name) for unused in plan.unused} == {"b", "c"}


@pytest.mark.parametrize("rules", [3, "Rename", [Rename], [TURN, None]])
def test_what_is_no_rule_is_refused_wherever_rules_are_given(rules: Any) -> None:
    with pytest.raises(RuleError, match=r"^rules=\.\.\. takes rules, such as Rename"):
        treeload.plan({"a": rows(1)}, {"a": rows(1)}, rules=rules)
    with pytest.raises(RuleError, match=r"^From\(rules=\.\.\.\) takes rules, such as Rename"):
        From({"a": rows(1)}, rules=rules)
