"""Several leaves, and one leaf that holds them along an axis."""

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
from treeload import Apply, Concat, From, Policy, RuleError, Split, Transpose, Unstack

DTYPES = [
    np.dtype(getattr(ml_dtypes, name, name))
    for name in ("float32", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "bool")
]
KINDS = [np.asarray, jnp.asarray]
QKV = ["{*p}/q", "{*p}/k", "{*p}/v"]


def zeros(*shape: int) -> jax.Array:
    return jnp.zeros(shape)


# Laws.


@given(
    sizes=st.tuples(*[st.integers(0, 3)] * 3),
    rest=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(KINDS),
    ops=st.sampled_from([(), (Transpose(),)]),
    data=st.data(),
)
def test_parts_are_joined_and_come_apart_again_bit_for_bit(
    sizes: tuple[int, int, int], rest: tuple[int, ...], dtype: Any, kind: Any, ops: Any, data: Any
) -> None:
    axis = data.draw(st.integers(-len(rest) - 1, len(rest)))
    at = axis % (len(rest) + 1)
    parts = [numbered((*rest[:at], size, *rest[at:]), dtype, size) for size in sizes]
    held = [kind(part.T if ops else part) for part in parts]
    src = {"attn": dict(zip("qkv", held, strict=True))}
    rule = Concat(QKV, "{*p}/qkv", *ops, axis=axis, sizes=sizes)
    whole = np.concatenate(parts, axis)
    fused = treeload.load({"attn": {"qkv": kind(np.zeros_like(whole))}}, src, rules=rule)
    assert same(fused["attn"]["qkv"], whole)
    undo = rule.inverse()
    assert undo is not None
    assert undo.inverse() == rule
    assert same_tree(treeload.load(like(src), fused, rules=undo), src)


@given(size=st.integers(1, 4), rest=st.lists(st.integers(1, 3), max_size=2).map(tuple), data=st.data())
def test_equal_pieces_need_no_sizes(size: int, rest: tuple[int, ...], data: Any) -> None:
    axis = data.draw(st.integers(-len(rest) - 1, len(rest)))
    at = axis % (len(rest) + 1)
    whole = numbered((*rest[:at], 3 * size, *rest[at:]))
    pieces = np.split(whole, 3, axis)
    dst = {"a": {name: np.zeros_like(piece) for name, piece in zip("qkv", pieces, strict=True)}}
    rule = Split("{*p}/qkv", QKV, axis=axis)
    found = treeload.load(dst, {"a": {"qkv": whole}}, rules=rule)
    assert all(map(same, found["a"].values(), pieces))
    undo = rule.inverse()
    assert undo is not None
    assert same(treeload.load({"a": {"qkv": np.zeros_like(whole)}}, found, rules=undo)["a"]["qkv"], whole)


# Examples.


def test_parts_are_joined_in_the_order_of_the_rule_and_layer_by_layer() -> None:
    src = {"l": [{name: jnp.full(1, 10 * i + n) for n, name in enumerate("kqv")} for i in range(2)]}
    dst = {"l": [{"qkv": zeros(3)} for _ in range(2)]}
    found = treeload.load(dst, src, rules=Concat(["l/{i}/q", "l/{i}/k", "l/{i}/v"], "l/{i}/qkv", axis=0))
    assert [layer["qkv"].tolist() for layer in found["l"]] == [[1, 0, 2], [11, 10, 12]]


def test_a_stacked_fused_leaf_is_split_and_unstacked_through_a_from() -> None:
    fused = np.arange(12, dtype=np.float32).reshape(2, 6)
    dst = {"l": [{name: np.zeros(2, np.float32) for name in "qkv"} for _ in range(2)]}
    rules = [Unstack("{x}", "l/{i}/{x}")]
    found = treeload.load(dst, From({"c": fused}, rules=Split("c", ["q", "k", "v"])), rules=rules)
    assert found["l"][1]["k"].tolist() == [8, 9]


# What is wrong is one finding, which names the leaf.


@pytest.mark.parametrize(
    ("src", "rule", "said"),
    [
        ({"q": zeros(2), "k": zeros(2)}, Concat(["q", "k", "v"], "qkv"), "qkv lacks a part: nothing is called 'v'"),  # noqa: E501
        ({"v": zeros(2)}, Concat(["q", "k", "v"], "qkv"), "'q' or 'k' beside v"),
        ({"q": zeros(2), "k": zeros(4)}, Concat(["q", "k"], "qkv", sizes=(3, 3)), "sizes (2, 4)"),
        ({"q": zeros(3, 2), "k": zeros(3, 4)}, Concat(["q", "k"], "qkv", axis=0), "float32[3,2] and float32[3,4]"),  # noqa: E501
        ({"q": zeros(3), "k": zeros(3)}, Concat(["q", "k"], "qkv", axis=1), "no axis 1"),
        (
            {"q": np.zeros(3, np.float32), "k": np.zeros(3, np.float16)}, Concat(["q", "k"], "qkv"),
            "float32[3] and float16[3]",
        ),
        ({"q": zeros(3), "k": zeros(3)}, Concat(["q", "k"], "qkv", Transpose(1, 0)), "Transpose(1, 0)"),
        ({"q": {"a": zeros(3), "b": zeros(3)}, "k": zeros(3)}, Concat(["q/*", "k"], "qkv"), "q/a and q/b"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_one_finding(src: Any, rule: Concat, said: str) -> None:
    dst = {"qkv": zeros(6)}
    (finding,) = treeload.plan(dst, src, rules=rule).findings
    assert (finding.kind, finding.name, finding.verdict, finding.rule) == ("rule", ("qkv",), "error", rule)
    assert said in finding.message
    plan = treeload.plan(dst, src, rules=rule, policy=Policy(rule="ignore"))
    assert [(finding.kind, str(finding.name)) for finding in plan.errors] == [("missing", "qkv")]


@pytest.mark.parametrize(
    ("rule", "shape", "said"),
    [
        (Split("c", ["q", "k", "v"]), (7,), "7 on axis -1 of float32[7] is no multiple of 3"),
        (Split("c", ["q", "k", "v"], sizes=(2, 2, 2)), (7,), "add up to 6"),
        (Split("c", ["q", "k", "v"], axis=1), (6,), "no axis 1"),
        (Split("c", ["q", "k", "v"], Transpose(1, 0)), (6,), "Transpose(1, 0)"),
    ],
)
def test_what_cannot_be_split_is_one_finding(rule: Split, shape: Any, said: str) -> None:
    dst = {name: zeros(2) for name in "qkv"}
    (finding,) = treeload.plan(dst, {"c": zeros(*shape)}, rules=rule).findings
    assert finding.source is not None
    assert (finding.kind, str(finding.name), finding.source.name) == ("rule", "q", ("c",))
    assert said in finding.message
    plan = treeload.plan(dst, {"c": zeros(*shape)}, rules=rule, policy=Policy(rule="ignore"))
    assert {(finding.kind, str(finding.name)) for finding in plan.errors} == {("missing", n) for n in "qkv"}


def test_pieces_of_the_wrong_size_are_shape_findings() -> None:
    plan = treeload.plan(
        {"q": zeros(2), "k": zeros(4)}, {"c": zeros(6)}, rules=Split("c", ["q", "k"], sizes=(4, 2))
    )
    assert {(finding.kind, str(finding.name)) for finding in plan.findings} == {
        ("shape", "q"),
        ("shape", "k"),
    }


def test_a_piece_that_meets_nothing_is_unexpected() -> None:
    (finding,) = treeload.plan({"q": zeros(3)}, {"c": zeros(6)}, rules=Split("c", ["q", "k"])).findings
    assert (finding.kind, str(finding.name)) == ("unexpected", "k")


def test_a_source_that_is_converted_already_fails_loudly() -> None:
    fused, split = {"c": zeros(6)}, {"q": zeros(3), "k": zeros(3)}
    for rule, done in ((Split("c", ["q", "k"]), split), (Concat(["q", "k"], "c"), fused)):
        (finding,) = treeload.plan(like(done), done, rules=rule).findings
        assert finding.kind == "rule"
        assert "matched nothing" in finding.message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Concat("q", "qkv"), "Concat takes a list of patterns"),
        (lambda: Concat([], "qkv"), "Concat takes at least one part"),
        (lambda: Concat(["q", "q"], "qkv"), "two parts have one pattern"),
        (lambda: Concat(["{i}/q", "{j}/k"], "qkv"), "different captures"),
        (lambda: Concat(["{i}/q", "k"], "qkv"), "different captures"),
        (lambda: Concat(["q", "k"], "{p}/qkv"), "uses {p}, which 'q' does not capture"),
        (lambda: Concat(["q", "k"], "qkv", sizes=(1,)), r"Concat\(sizes=\(1,\)\): 2 sizes"),
        (lambda: Concat(["q", "k"], "qkv", axis=None), "axis is an integer, not None"),  # type: ignore[arg-type]
        (lambda: Concat(["q", "k"], "qkv", "Transpose"), "Concat takes ops"),  # type: ignore[arg-type]
        (lambda: Split("c", "q"), "Split takes a list of patterns"),
        (lambda: Split("c", []), "Split takes at least one part"),
        (lambda: Split("c", ["q", "q"]), "two pieces of 'c' have one name"),
        (lambda: Split("c", ["q", "{k}"]), "uses {k}, which 'c' does not capture"),
        (lambda: Split("c", ["q", "k"], sizes=(1, -1)), r"Split\(sizes=\(1, -1\)\): 2 sizes of 0 or more"),
        (lambda: Split("c", ["q", "k"], sizes=(1, 2, 3)), r"Split\(sizes=\(1, 2, 3\)\): 2 sizes"),
        (lambda: Split("c", ["q", "k"], sizes=(1.0, 2.0)), r"Split\(sizes=\(1.0, 2.0\)\): 2 sizes"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_mean_anything_is_refused_when_it_is_written(make: Any, said: str) -> None:
    with pytest.raises(RuleError, match=said):
        make()


@pytest.mark.parametrize(
    "rule",
    [
        Concat(["{*p}/q", "{*p}/k"], "{*p}/qk", axis=-1),
        Concat(["q=(", "k"], "qk", Transpose(), axis=1, sizes=(2, 3)),
        Split("{*p}/c", ["{*p}/q", "{*p}/k"], axis=-1),
        Split("c", ["q", "k"], Transpose(1, 0), axis=0, sizes=(2, 3)),
    ],
    ids=repr,
)
def test_a_rule_prints_as_the_code_that_makes_it(rule: Any) -> None:
    assert eval(repr(rule), vars(treeload)) == rule
    assert hash(eval(repr(rule), vars(treeload))) == hash(rule)


@pytest.mark.parametrize(
    "rule",
    [
        Concat(["q", "k"], "qk"),
        Concat(["*/q", "*/k"], "qk", sizes=(1, 1)),
        Concat(["{p}/q", "{p}/k"], "qk", sizes=(1, 1)),
        Concat(["q", "k"], "qk", Apply(jnp.exp), sizes=(1, 1)),
        Split("*/c", ["q", "k"]),
        Split("{p}/c", ["{p}/q", "k"]),
        Split("c", ["q", "k"], Apply(jnp.exp)),
    ],
    ids=repr,
)
def test_a_rule_that_loses_something_has_no_inverse(rule: Any) -> None:
    assert rule.inverse() is None
