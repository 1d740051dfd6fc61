"""A load restricted to part of the destination: the rest is kept, and nobody complains about it."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import From, LoadError, Name, Policy, Rename, RuleError

ONE = np.ones(2, np.float32)


def tree(fill):
    def leaf():
        return np.full(2, fill, np.float32)

    return {"enc": {"w": leaf(), "b": leaf()}, "head": {"w": leaf()}}


def changed(loaded):
    return {name for name in treeload.names(loaded) if at(loaded, name)[0] == 1}


def at(node, name):
    for key in name.split("/"):
        node = node[key]
    return node


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        ("enc/**", {"enc/w", "enc/b"}),
        ("**/w", {"enc/w", "head/w"}),
        (["enc/b", "head/*"], {"enc/b", "head/w"}),
        (("enc/b",), {"enc/b"}),
        (re.compile("enc/[a-v]"), {"enc/b"}),
        (Name(("enc", "b")), {"enc/b"}),
        (lambda name, spec: name[-1] == "b" and spec.shape == (2,), {"enc/b"}),
        ((), set()),
        (None, {"enc/w", "enc/b", "head/w"}),
    ],
)
def test_only_what_lies_within_is_loaded(scope, names):
    plan = treeload.plan(tree(0), tree(1), scope=scope)
    assert plan.ok and changed(plan.load()) == names
    assert {str(entry.name) for entry in plan.entries if entry.action == "load"} == names
    assert all(entry.reason == "outside the scope" for entry in plan.entries if entry.action == "keep")


@pytest.mark.parametrize(
    "src",
    [
        {"enc": tree(1)["enc"]},
        tree(1) | {"head": {"w": np.ones(5)}},
        tree(1) | {"head": {"w": 1j + ONE}},
        tree(1) | {"head": ONE},
        tree(1) | {"head": {"w": {"deep": ONE}}},
        tree(1) | {"other": ONE},
        {"enc": tree(1)["enc"], "head": {"w": None}},
    ],
)
def test_what_lies_outside_is_not_reported(src):
    plan = treeload.plan(tree(0), src, scope="enc/**", policy=Policy(absent_is_zero="**"))
    assert not plan.findings and not plan.pending
    assert changed(plan.load()) == {"enc/w", "enc/b"}


def test_what_lies_within_is_reported_as_ever():
    plan = treeload.plan(tree(0), {"enc": {"w": ONE[:1], "c": ONE}}, scope="enc/**")
    assert [(f.kind, str(f.name)) for f in plan.findings] == [
        ("missing", "enc/b"), ("unexpected", "enc/c"), ("shape", "enc/w"),
    ]  # fmt: skip


def test_source_leaves_that_map_outside_are_unused_under_the_names_they_would_have():
    plan = treeload.plan(tree(0), {"x": tree(1)}, rules=Rename("x/{*rest}", "{*rest}"), scope="enc/**")
    (leaf,) = plan.unused
    assert (str(leaf.name), str(leaf.at), leaf.why) == ("x/head/w", "head/w", "outside the scope")


def test_the_loser_of_a_collision_outside_is_unused_too_and_not_reported():
    for into in ("head", "other"):
        sources = [From({"w": ONE}, into=into), From({"w": ONE}, into=into), From(tree(1)["enc"], into="enc")]
        plan = treeload.plan(tree(0), sources, scope="enc/**")
        assert plan.ok and not plan.findings and len(plan.unused) == 2


def test_an_abstract_leaf_outside_needs_init_like_any_that_is_kept():
    dst = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree(0))
    plan = treeload.plan(dst, tree(1), scope="enc/**")
    assert [(f.kind, str(f.name)) for f in plan.findings] == [("abstract", "head/w")]
    with pytest.raises(LoadError, match="abstract +head/w"):
        plan.load()
    assert plan.load(init=lambda: tree(5))["head"]["w"].tolist() == [5, 5]


def test_a_tied_leaf_is_within_if_any_of_its_names_is():
    shared = np.zeros(2, np.float32)
    plan = treeload.plan({"a": shared, "b": shared}, {"a": ONE}, scope="b")
    assert plan["a"].action == "load"
    assert (
        treeload.plan({"a": shared, "b": shared, "c": ONE}, {"a": ONE, "c": ONE}, scope="c")["a"].action
        == "keep"
    )


def test_a_static_outside_is_not_compared_either():
    assert treeload.plan({"act": "relu", "w": ONE}, {"act": ONE, "w": ONE}, scope="w").ok


def test_an_update_within_a_scope_leaves_the_rest_alone():
    model, source = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Linear(2, 2, rngs=nnx.Rngs(1))
    assert source.bias is not None and model.bias is not None
    source.bias[...] += 1
    kernel = model.kernel[...]
    treeload.update(model, source, scope="bias")
    assert model.bias[...].tolist() == [1, 1] and (model.kernel[...] == kernel).all()


def test_a_scope_that_no_leaf_lies_in_is_a_finding():
    plan = treeload.plan(tree(0), tree(1), scope=["encoder/**", "head/**"])
    assert [(f.kind, str(f.name)) for f in plan.findings] == [("rule", "encoder/**")]
    odd = treeload.plan(tree(0), tree(1), scope=re.compile("//+"))
    assert [tuple(f.name) for f in odd.findings] == [("//+",)]
    assert treeload.plan(tree(0), tree(1), scope="enc", policy=Policy(rule="ignore")).ok


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("a//b", "empty segment"),
        ("layers/{i", "lone '{'"),
        (["ok", "a//b"], "empty segment"),
        (3, "scope is a pattern, several, or a predicate"),
        ([3], "a pattern is a string"),
    ],
)
def test_a_scope_that_cannot_mean_anything_is_refused(scope, said):
    with pytest.raises(RuleError, match=said):
        treeload.plan(tree(0), tree(1), scope=scope)
