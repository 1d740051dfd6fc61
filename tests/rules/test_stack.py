"""Leaves that differ in an index, and one leaf that has it as an axis."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytrees import like, numbered, same, same_tree

import treeload
from treeload import Apply, From, Policy, Rename, RuleError, Stack, Transpose, Unstack

DTYPES = [
    np.dtype(getattr(ml_dtypes, name, name))
    for name in ("float32", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "bool")
]
KINDS = [np.asarray, jnp.asarray]


def layers(*shapes: Any) -> dict[str, Any]:
    """A source of one leaf ``w`` to a layer."""
    return {"l": {str(i): {"w": jnp.full(s, i, jnp.float32)} for i, s in enumerate(shapes) if s is not None}}


# Laws.


@given(
    count=st.integers(1, 12),
    shape=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(KINDS),
    first=st.integers(0, 2),
    ops=st.sampled_from([(), (Transpose(),)]),
    data=st.data(),
)
def test_a_stack_and_its_inverse_give_back_every_layer_bit_for_bit(
    count: int, shape: tuple[int, ...], dtype: Any, kind: Any, first: int, ops: Any, data: Any
) -> None:
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    arrays = [kind(numbered(shape, dtype, start)) for start in range(count)]
    src = {"l": {str(number + first): {"w": array} for number, array in enumerate(arrays)}}
    turned = [np.asarray(array).T if ops else np.asarray(array) for array in arrays]
    rule = Stack("l/{i}/w", "l/w", *ops, axis=axis, first=first)
    stacked = treeload.load({"l": {"w": kind(np.zeros_like(np.stack(turned, axis)))}}, src, rules=rule)
    assert same(stacked["l"]["w"], np.stack(turned, axis))
    undo = rule.inverse()
    assert undo is not None
    assert undo.inverse() == rule
    assert same_tree(treeload.load(like(src), stacked, rules=undo), src)


@given(
    counts=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    shape=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    data=st.data(),
)
def test_experts_inside_layers_stack_over_two_indices_and_back(
    counts: tuple[int, int], shape: tuple[int, ...], data: Any
) -> None:
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    src = {
        f"layer_{i}": {f"e{e}": {"w": numbered(shape, start=5 * i + e)} for e in range(counts[1])}
        for i in range(counts[0])
    }
    rule = Stack("layer_{i}/e{e}/{*rest}", "layers/{*rest}", axis=axis)
    at = axis if axis >= 0 else axis + len(shape) + 1
    wanted = np.stack(
        [np.stack([expert["w"] for expert in layer.values()], at) for layer in src.values()], at
    )
    stacked = treeload.load({"layers": {"w": np.zeros_like(wanted)}}, src, rules=rule)
    assert same(stacked["layers"]["w"], wanted)
    undo = rule.inverse()
    assert undo is not None
    assert same_tree(treeload.load(like(src), stacked, rules=undo), src)


@given(order=st.permutations(range(12)))
def test_layers_are_stacked_by_number_in_whatever_order_they_come(order: list[int]) -> None:
    src = {"l": {str(i): {"w": np.array([i], np.float32)} for i in order}}  # as text, 10 would come before 2
    found = treeload.load({"l": {"w": np.zeros((12, 1), np.float32)}}, src, rules=Stack("l/{i}/w", "l/w"))
    assert found["l"]["w"].tolist() == [[i] for i in range(12)]


# Examples.


def test_every_parameter_of_a_layer_is_stacked_by_one_rule() -> None:
    each = [{"a": {"k": numbered((2,), start=i)}, "b": numbered((3,), start=i)} for i in range(3)]
    src: dict[str, Any] = {"h": each}
    dst = {"h": {"a": {"k": jnp.zeros((3, 2))}, "b": jnp.zeros((3, 3))}}
    found = treeload.load(dst, src, rules=Stack("h/{i}/{*rest}", "h/{*rest}"))
    assert same(found["h"]["a"]["k"], np.stack([layer["a"]["k"] for layer in src["h"]]))
    assert same(found["h"]["b"], np.stack([layer["b"] for layer in src["h"]]))


def test_the_other_captures_group() -> None:
    src = {f"{side}_{i}": numbered((2,), start=i) for side in ("enc", "dec") for i in range(3)}
    dst = {side: {"layers": jnp.zeros((3, 2))} for side in ("enc", "dec")}
    found = treeload.load(dst, src, rules=Stack("{side}_{i}", "{side}/layers"))
    assert found["enc"]["layers"].tolist() == found["dec"]["layers"].tolist() == [[0, 1], [1, 2], [2, 3]]


def test_two_axes_may_be_unstacked_one_after_the_other_through_a_from() -> None:
    src = {"w": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}
    dst = {"l": [{"e": [np.zeros(4, np.float32) for _ in range(3)]} for _ in range(2)]}
    once = treeload.load(dst, src, rules=Unstack("w", "l/{i}/e/{e}"))
    twice = treeload.load(dst, From(src, rules=Unstack("w", "l/{i}")), rules=Unstack("l/{i}", "l/{i}/e/{e}"))
    assert same_tree(once, twice)
    assert same(once["l"][1]["e"][2], src["w"][1, 2])


def test_an_entry_names_every_layer_and_the_ops_in_order() -> None:
    src, rule = layers((2, 3), (2, 3)), Stack("l/{i}/w", "l/w", Transpose())
    entry = treeload.plan({"l": {"w": jnp.zeros((2, 3, 2))}}, src, rules=rule)["l/w"]
    assert [str(leaf.name) for leaf in entry.sources] == ["l/0/w", "l/1/w"]
    assert [type(op).__name__ for op in entry.ops] == ["Transpose", "StackArrays"]
    assert entry.rule == rule


def test_planning_a_stack_reads_no_array() -> None:
    src = jax.eval_shape(lambda: layers((2,), (2,)))
    assert treeload.plan({"l": {"w": jnp.zeros((2, 2))}}, src, rules=Stack("l/{i}/w", "l/w")).ok


def test_a_stack_of_python_numbers_stays_exact() -> None:
    found = treeload.load({"s": np.zeros(2)}, {"l": [{"s": 0.1}, {"s": 0.2}]}, rules=Stack("l/{i}/s", "s"))
    assert same(found["s"], np.array([0.1, 0.2]))


# What is wrong is one finding, which names the leaf and the index.

STACK = Stack("l/{i}/w", "l/w")
STACKED = {"l": {"w": jnp.zeros((3, 2))}}

BAD_STACKS: dict[str, tuple[Any, Stack, list[str]]] = {
    "a gap": (layers((2,), None, (2,)), STACK, ["i=1 is missing"]),
    "nothing at first": (layers(None, (2,), (2,)), STACK, ["i=0 is missing"]),
    "unequal shapes": (layers((2,), (2,), (3,)), STACK, ["l/0/w is float32[2]", "l/2/w is float32[3]"]),
    "unequal dtypes": (
        {"l": {"0": {"w": np.zeros(2, np.float32)}, "1": {"w": np.zeros(2, np.float16)}}}, STACK,
        ["l/0/w is float32[2]", "l/1/w is float16[2]"],
    ),
    "no number": ({"l": {"0": {"w": jnp.zeros(2)}, "norm": {"w": jnp.zeros(2)}}}, STACK, ["'norm' in l/norm/w"]),  # noqa: E501
    "a sign": ({"l": {"0": {"w": jnp.zeros(2)}, "-1": {"w": jnp.zeros(2)}}}, STACK, ["'-1' in l/-1/w"]),
    "another script": ({"l": {"0": {"w": jnp.zeros(2)}, "١": {"w": jnp.zeros(2)}}}, STACK, ["no index"]),
    "one index twice": (
        {"l": {"0": {"w": jnp.zeros(2)}, "00": {"w": jnp.zeros(2)}}}, STACK, ["l/0/w", "l/00/w", "one index"],
    ),
    "below first": (
        layers((2,), (2,), (2,)), Stack("l/{i}/w", "l/w", first=1), ["l/0/w", "below first=1"],
    ),
    "no such axis": (layers((2,), (2,)), Stack("l/{i}/w", "l/w", axis=2), ["axis=2", "float32[2]"]),
    "an op that fails": (layers((2,), (2,)), Stack("l/{i}/w", "l/w", Transpose(1, 0)), ["l/0/w", "Transpose(1, 0)"]),  # noqa: E501
    "an index beyond all": (
        {"l": {"0": {"w": jnp.zeros(2)}, "9" * 5000: {"w": jnp.zeros(2)}}}, STACK, ["no index"],
    ),
    "a gap beyond all": (
        {"l": {"0": {"w": jnp.zeros(2)}, "9" * 12: {"w": jnp.zeros(2)}}}, STACK, ["i=1, i=2", "999,999,999,993 more"],  # noqa: E501
    ),
}  # fmt: skip


@pytest.mark.parametrize(("src", "rule", "said"), BAD_STACKS.values(), ids=BAD_STACKS)
def test_what_cannot_be_stacked_is_one_finding(src: Any, rule: Stack, said: list[str]) -> None:
    (finding,) = treeload.plan(STACKED, src, rules=rule).findings
    assert (finding.kind, finding.name, finding.verdict, finding.rule) == ("rule", ("l", "w"), "error", rule)
    assert all(part in finding.message for part in said), finding.message


@pytest.mark.parametrize(("src", "rule", "said"), BAD_STACKS.values(), ids=BAD_STACKS)
def test_where_the_rule_is_ignored_the_stack_is_missing(src: Any, rule: Stack, said: list[str]) -> None:
    plan = treeload.plan(STACKED, src, rules=rule, policy=Policy(rule="ignore"))
    assert [(finding.kind, str(finding.name)) for finding in plan.errors] == [("missing", "l/w")]
    kept = Policy(rule="ignore", missing="keep")
    assert same_tree(treeload.load(STACKED, src, rules=rule, policy=kept), STACKED)


def test_a_layer_without_its_experts_and_a_lone_expert_are_named_once() -> None:
    src = {
        "l": {str(i): {"e": {str(e): jnp.zeros(1) for e in range(3) if (i, e) != (1, 2)}} for i in (0, 1, 3)}
    }
    dst = {"w": jnp.zeros((4, 3, 1))}
    (finding,) = treeload.plan(dst, src, rules=Stack("l/{i}/e/{e}", "w")).findings
    assert finding.message.startswith("w cannot be stacked: i=2, i=1 with e=2 are missing")


def test_a_stack_of_another_length_is_a_shape_finding() -> None:
    (finding,) = treeload.plan(STACKED, layers((2,), (2,)), rules=STACK).findings
    assert (finding.kind, str(finding.name)) == ("shape", "l/w")


UNSTACKED = {"l": [{"w": jnp.zeros(2)} for _ in range(3)]}


@pytest.mark.parametrize(
    ("rule", "shape", "said"),
    [
        (Unstack("l/w", "l/{i}/w", axis=4), (3, 2), "nothing to unstack on axis 4"),
        (Unstack("l/w", "l/{i}/w", axis=-3), (3, 2), "nothing to unstack on axis -3"),
        (Unstack("l/w", "l/{i}/w"), (0, 2), "nothing to unstack on axis 0"),
        (Unstack("l/w", "l/{i}/w", Transpose(1, 0)), (3, 2), "Transpose(1, 0)"),
    ],
)
def test_what_cannot_be_unstacked_is_one_rule_finding(rule: Unstack, shape: Any, said: str) -> None:
    plan = treeload.plan(UNSTACKED, {"l": {"w": jnp.zeros(shape)}}, rules=rule)
    (finding,) = (finding for finding in plan.findings if finding.kind == "rule")
    assert said in finding.message
    assert finding.source is not None
    assert (finding.name, finding.source.name) == (("l", "0", "w"), ("l", "w"))


def test_an_op_that_fails_on_every_piece_is_no_flood_of_missing() -> None:
    rule = Unstack("l/w", "l/{i}/w", Transpose(1, 0))
    plan = treeload.plan(UNSTACKED, {"l": {"w": jnp.zeros((3, 2))}}, rules=rule)
    assert [finding.kind for finding in plan.findings] == ["rule"]


def test_more_and_fewer_layers_than_the_destination_has_are_unexpected_and_missing() -> None:
    for count, kind, names in ((2, "missing", ["l/2/w"]), (4, "unexpected", ["l/3/w"])):
        src = {"l": {"w": jnp.zeros((count, 2))}}
        plan = treeload.plan(UNSTACKED, src, rules=Unstack("l/w", "l/{i}/w"))
        assert [(finding.kind, str(finding.name)) for finding in plan.findings] == [
            (kind, name) for name in names
        ]


def test_a_source_that_is_stacked_already_fails_loudly() -> None:
    stacked = treeload.load({"l": {"w": jnp.ones((2, 2))}}, layers((2,), (2,)), rules=STACK)
    (finding,) = treeload.plan(like(stacked), stacked, rules=STACK).findings
    assert finding.kind == "rule"
    assert "matched nothing" in finding.message


def test_a_source_that_is_unstacked_already_fails_loudly() -> None:
    rule = Unstack("l/w", "l/{i}/w")
    (finding,) = treeload.plan(UNSTACKED, UNSTACKED, rules=rule).findings
    assert finding.kind == "rule"


# What cannot mean anything.


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Stack("l/{i}/w", "l/{i}/w"), "no index to stack over"),
        (lambda: Stack("l/0/w", "l/w"), "no index to stack over"),
        (lambda: Stack("{*rest}/w", "w"), "{\\*rest} captures many segments"),
        (lambda: Stack("l/{i}/w", "l/{j}/w"), "uses {j}, which"),
        (lambda: Stack("l/{i}/w", "l/*/w"), "a wildcard cannot be filled in"),
        (lambda: Stack("l/{i}/w", "l/w", axis=0.5), "axis is an integer, not 0.5"),  # type: ignore[arg-type]
        (lambda: Stack("l/{i}/w", "l/w", axis=True), "axis is an integer, not True"),
        (lambda: Stack("l/{i}/w", "l/w", first="0"), "first is the lowest index.*not '0'"),  # type: ignore[arg-type]
        (lambda: Stack("l/{i}/w", "l/w", first=-1), "first is the lowest index.*not -1"),
        (lambda: Stack("l/{i}/w", "l/w", Transpose), "Stack takes ops"),  # type: ignore[arg-type]
        (lambda: Unstack("l/w", "l/w"), "needs a capture that the source lacks"),
        (lambda: Unstack("l/w", "l/{*i}/w"), "the index is one segment or a part of one"),
        (lambda: Unstack("l/w", "l/*/{i}"), "a wildcard cannot be filled in"),
        (lambda: Unstack("l/{i}/w", "l/{i}/w"), "needs a capture that the source lacks"),
        (lambda: Unstack("l/w", "l/{i}/w", first=True), "first is the lowest index.*not True"),
    ],
)
def test_what_cannot_mean_anything_is_refused_when_it_is_written(make: Any, said: str) -> None:
    with pytest.raises(RuleError, match=said):
        make()


@pytest.mark.parametrize(
    "rule",
    [
        Stack("l/{i}/{*rest}", "l/{*rest}", axis=0),
        Stack("l/{i}/w", "l/w", Transpose(), axis=-1, first=1),
        Stack("a=b/{i}", "(a=b"),
        Unstack("l/{*rest}", "l/{i}/{*rest}", axis=0),
        Unstack("w", "l_{i}/e_{e}", Transpose(1, 0), axis=-2, first=3),
    ],
    ids=repr,
)
def test_a_rule_prints_as_the_code_that_makes_it(rule: Any) -> None:
    assert eval(repr(rule), vars(treeload)) == rule
    assert hash(eval(repr(rule), vars(treeload))) == hash(rule)


@pytest.mark.parametrize(
    "rule",
    [
        Stack("*/{i}/w", "w"),
        Stack("l/{i}/w", "l/w", Apply(jnp.exp)),
        Unstack("**/w", "l/{i}/w"),
        Unstack("{side}/w", "l/{i}/w"),
        Unstack("w", "l/{i}/w", Apply(jnp.exp)),
    ],
    ids=repr,
)
def test_a_rule_that_loses_something_has_no_inverse(rule: Any) -> None:
    assert rule.inverse() is None


def test_a_rename_beside_a_stack_takes_what_comes_first() -> None:
    src = {"l": {"0": {"w": jnp.zeros(2)}, "1": {"w": jnp.ones(2)}, "norm": {"w": jnp.full(2, 5.0)}}}
    dst = {"l": {"w": jnp.zeros((2, 2))}, "norm": jnp.zeros(2)}
    found = treeload.load(dst, src, rules=[Rename("l/norm/w", "norm"), STACK])
    assert found["norm"].tolist() == [5, 5]
    assert found["l"]["w"].tolist() == [[0, 0], [1, 1]]
