"""Matching by name: what agrees loads, whatever the containers; order does not matter; nothing is read."""

from __future__ import annotations

import time
from collections import namedtuple
from dataclasses import dataclass
from typing import Any
from unittest import mock

import equinox as eqx
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core.meta import Partitioned
from hypothesis import given
from hypothesis import strategies as st
from pytrees import structure_of

import treeload
from treeload import BIAS, From, LoadError, Name, NameCollision, Policy, Rename, SourceError
from treeload._matching.match import match

keys = st.text("ab./ 0", max_size=2)
leaves = st.builds(np.full, st.sampled_from([(), (2,), (0, 2), (2, 2)]), st.sampled_from([0, 1, 2]))
slots = leaves | st.none() | st.booleans() | st.integers(-3, 3) | st.just("static")
nested = st.recursive(
    slots, lambda inner: st.dictionaries(keys, inner, max_size=3) | st.lists(inner, max_size=2), max_leaves=6
)
trees = st.dictionaries(keys, nested, max_size=3)
policies = st.builds(
    Policy,
    **{kind: st.sampled_from(["error", "keep"]) for kind in ("missing", "shape", "dtype", "structure")},
    unexpected=st.sampled_from(["error", "ignore"]),
    absent_is_zero=st.sampled_from([(), ("**",)]),
)


def same(a, b):
    return structure_of(a) == structure_of(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


def number(tree, to):
    return jax.tree.map(lambda x: np.full(x.shape, to, x.dtype) if isinstance(x, np.ndarray) else x, tree)


@given(trees)
def test_a_tree_loads_into_its_own_like_bit_for_bit(tree):
    plan = treeload.plan(number(tree, 9), tree)
    assert plan.ok and not plan.findings and not plan.unused and plan.coverage == 1
    assert same(plan.load(), tree)


@given(trees, trees, policies)
def test_the_load_does_what_the_plan_said(dst, src, policy):
    plan = treeload.plan(dst, src, policy=policy)
    verified = plan.verify()
    before = jax.tree.map(np.copy, dst)
    if verified.ok:
        loaded = plan.load()
        assert structure_of(loaded) == structure_of(dst)
        assert treeload.names(loaded) == treeload.names(dst) or any(
            type(x) is bool for x in jax.tree.leaves(dst)
        )
    else:
        with pytest.raises(LoadError) as caught:
            plan.load()
        kinds = {finding.kind for finding in caught.value.findings}
        assert kinds and kinds <= {finding.kind for finding in verified.errors}
    assert same(jax.tree.map(np.copy, dst), before)


@given(trees, trees, policies)
def test_every_leaf_is_accounted_for(dst, src, policy):
    plan = treeload.plan(dst, src, policy=policy)
    here = {str(entry.name) for entry in plan.entries}
    assert here >= set(treeload.names(dst)), "every destination leaf has an entry"
    used = {leaf.name for entry in plan.entries for leaf in entry.sources}
    left = [leaf.name for leaf in plan.unused]
    assert len(left) == len(set(left)), "no source leaf is left out twice"
    assert used | set(left) == {Name.parse(name) for name in treeload.names(src)}
    assert used.isdisjoint(left)


def reverse(tree):
    if isinstance(tree, dict):
        return {key: reverse(tree[key]) for key in reversed(tree)}
    return list(map(reverse, tree)) if isinstance(tree, list) else tree


def as_dicts(tree):
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    return {key: as_dicts(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


@given(trees, trees, policies)
def test_neither_the_order_of_keys_nor_the_kind_of_container_matters(dst, src, policy):
    def facts(dst, src):
        plan = treeload.plan(dst, src, policy=policy).verify()
        entries = {(str(entry.name), str(entry.action)) for entry in plan.entries}
        return entries, {(finding.kind, str(finding.name), finding.message) for finding in plan.findings}

    assert (
        facts(dst, src)
        == facts(reverse(dst), reverse(src))
        == facts(as_dicts(dst), src)
        == facts(dst, as_dicts(src))
    )


@given(trees, trees)
def test_an_identity_rule_changes_nothing_but_who_is_named(dst, src):
    def facts(plan):
        plan = plan.verify()
        return [(e.name, e.action) for e in plan.entries], [
            (f.kind, f.name, f.message) for f in plan.findings if f.kind != "rule"
        ]

    plain = treeload.plan(dst, src, policy=Policy(absent_is_zero="**"))
    for other in ({"src": From(src)}, {"src": src, "rules": Rename("{*all}", "{*all}")}):
        assert facts(treeload.plan(dst, policy=Policy(absent_is_zero="**"), **other)) == facts(plain)


class Unreadable(treeload.Source):
    label = "a source that cannot be read"

    def __init__(self, tree):
        self.inner = treeload.plan({}, tree, policy=Policy(unexpected="ignore")).sources[0]

    def specs(self):
        return self.inner.specs()

    def absent(self):
        return self.inner.absent()

    def read(self, requests):
        raise AssertionError("an array was read")


@given(trees, trees, policies)
def test_planning_reads_no_array(dst, src, policy):
    plan = treeload.plan(dst, Unreadable(src), policy=policy)
    assert str(plan) and plan.to_json() and plan.summary() and plan.entries is not None


def test_planning_moves_nothing_between_host_and_device():
    tree = {"a": jnp.ones(3), "b": {"bias": jnp.zeros(2)}}
    dst = {"a": jnp.ones((3, 1)), "b": {}}
    with jax.transfer_guard("disallow"):
        assert treeload.plan(dst, tree, policy=Policy(absent_is_zero=BIAS)).pending


# Containers.

Pair = namedtuple("Pair", "kernel bias")


@flax.struct.dataclass
class Struct:
    kernel: object
    bias: object


@jax.tree_util.register_dataclass
@dataclass
class Data:
    kernel: object
    bias: object


class Module(eqx.Module):
    kernel: object
    bias: object


class Net(nnx.Module):
    def __init__(self, kernel, bias):
        self.kernel, self.bias = nnx.Param(kernel), nnx.Param(bias)


MAKERS = {
    "dict": lambda k, b: {"kernel": k, "bias": b},
    "frozen dict": lambda k, b: flax.core.freeze({"kernel": k, "bias": b}),
    "namedtuple": Pair,
    "flax.struct": Struct,
    "dataclass": Data,
    "equinox": Module,
    "nnx module": Net,
    "nnx state": lambda k, b: nnx.state(Net(k, b)),
    "boxes": lambda k, b: {"kernel": Partitioned(k, (None, None)), "bias": nnx.Param(b)},
}


@pytest.mark.parametrize("src", MAKERS)
@pytest.mark.parametrize("dst", MAKERS)
def test_containers_of_all_kinds_match_and_the_result_has_the_destinations(dst, src):
    new = jnp.ones((2, 3)), jnp.full(3, 2.0)
    target = MAKERS[dst](jnp.zeros((2, 3)), jnp.zeros(3))
    loaded = treeload.load(target, MAKERS[src](*new))
    assert type(loaded) is type(target)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, treeload.state(loaded), {"kernel": new[0], "bias": new[1]})
    )


def test_a_list_matches_what_became_a_dict_of_its_indices():
    loaded = treeload.load(
        [jnp.zeros(1)] * 0 + [jnp.zeros(1) for _ in range(11)], {str(i): jnp.full(1, i) for i in range(11)}
    )
    assert type(loaded) is list and [int(leaf[0]) for leaf in loaded] == list(range(11))


def test_empty_nodes_equal_each_other_and_none_and_no_key():
    empties = [{}, (), [], None, optax.EmptyState(), optax.MaskedNode(), False]
    for dst in empties:
        for src in [{"a": empty} for empty in empties] + [{}]:
            assert not treeload.plan({"a": dst}, src).findings


def test_both_an_integer_and_its_text_as_keys_is_a_collision_on_either_side():
    both = {1: jnp.ones(1), "1": jnp.ones(1)}
    with pytest.raises(NameCollision, match="the keys 1, '1' at the root"):
        treeload.plan(both, {})
    with pytest.raises(NameCollision, match="the keys 1, '1' at the root"):
        treeload.plan({}, both)


def test_a_slash_in_a_key_is_not_two_keys():
    plan = treeload.plan({"a/b": jnp.zeros(1)}, {"a": {"b": jnp.ones(1)}})
    assert [(f.kind, str(f.name)) for f in plan.findings] == [("missing", "a\\/b"), ("unexpected", "a/b")]


def test_match_is_by_name_never_by_position():
    swapped = treeload.load({"a": jnp.zeros(1), "b": jnp.zeros(1)}, {"b": jnp.ones(1), "a": jnp.full(1, 2.0)})
    assert swapped["a"][0] == 2 and swapped["b"][0] == 1
    plan = treeload.plan({"a": jnp.zeros(1)}, {"z": jnp.ones(1)})
    assert [f.kind for f in plan.findings] == ["missing", "unexpected"]


def test_a_bare_array_matches_a_bare_array_and_against_a_tree_is_structure():
    assert treeload.load(jnp.zeros(2), np.ones(2, np.float32)).tolist() == [1, 1]
    assert [f.kind for f in treeload.plan({"a": jnp.zeros(2)}, jnp.ones(2)).findings] == ["structure"]
    assert [f.kind for f in treeload.plan(jnp.zeros(2), {"a": jnp.ones(2)}).findings] == ["structure"]


def test_a_leaf_beside_leaves_that_rules_put_below_it_is_structure_once():
    rules = [Rename("x", "a"), Rename("y", "a/k")]
    plan = treeload.plan({"a": {"k": jnp.zeros(1)}}, {"x": jnp.ones(1), "y": jnp.ones(1)}, rules=rules)
    assert [(f.kind, str(f.name)) for f in plan.findings] == [("structure", "a")]
    assert plan["a/k"].action == "load" and [str(leaf.name) for leaf in plan.unused] == ["x"]


def test_what_lies_below_a_leaf_that_loads_from_elsewhere_is_unexpected():
    plan = treeload.plan(
        {"a": jnp.zeros(1)}, {"x": jnp.ones(1), "a": {"k": jnp.ones(1)}}, rules=Rename("x", "a")
    )
    assert [(f.kind, str(f.name)) for f in plan.findings] == [("unexpected", "a/k")]


@pytest.mark.parametrize("count", [2000])
def test_a_flood_of_findings_takes_no_longer_than_its_leaves(count):
    dst = {str(i): np.zeros(1) for i in range(count)} | {f"m{i}": np.zeros(1) for i in range(count)}
    src = {str(i): {"a": np.zeros(1), "b": np.zeros(1)} for i in range(count)}
    start = time.process_time()
    plan = treeload.plan(dst, src | {f"u{i}": np.zeros(1) for i in range(count)})
    assert len(plan.findings) == 3 * count and time.process_time() - start < 10


# Boxes of stored checkpoints.


def boxed(tree):
    return {k: boxed(v) if isinstance(v, dict) else {"value": v} for k, v in tree.items()}


def test_the_value_segment_of_stored_boxes_is_left_out():
    tree = {"a": {"kernel": np.ones(2), "bias": np.ones(1)}, "c": np.ones(3)}
    plan = treeload.plan(number(tree, 0), boxed(tree))
    assert plan.ok and not plan.unused and same(plan.load(), tree)
    assert str(plan["a/kernel"].sources[0].name) == "a/kernel/value" and "value" in plan["a/kernel"].reason


def test_boxes_open_through_rules_and_collisions_too():
    src = {"old": {"kernel": {"value": np.ones(2)}}}
    plan = treeload.plan({"new": {"kernel": np.zeros(2)}}, src, rules=Rename("old/{*r}", "new/{*r}"))
    assert plan.ok and plan.load()["new"]["kernel"].tolist() == [1, 1]
    twice = treeload.plan(
        {"kernel": np.zeros(2)},
        [From(src, subtree="old"), From(src, subtree="old")],
        policy=Policy(collision="first"),
    )
    assert [f.kind for f in twice.findings] == ["collision"] and twice.ok


def test_a_parameter_that_is_really_called_value_survives():
    tree = {"attn": {"value": np.ones(2), "query": np.ones(2)}, "gate": {"value": np.ones(1)}}
    plan = treeload.plan(number(tree, 0), tree)
    assert plan.ok and not plan.unused and same(plan.load(), tree)
    deep = {"attn": {"value": {"kernel": np.ones(2)}}}
    assert same(treeload.load(number(deep, 0), boxed(deep)), deep)
    missing = treeload.plan({"attn": np.zeros(2)}, {"attn": {"value": np.ones(2), "query": np.ones(2)}})
    assert [f.kind for f in missing.findings] == ["structure"]
    misfit = treeload.plan({"gate": {"value": np.zeros(2)}}, {"gate": {"value": np.zeros(3)}})
    assert [(f.kind, str(f.name)) for f in misfit.findings] == [("shape", "gate/value")]
    absent = treeload.plan({"gate": {"value": None}}, {"gate": {"value": np.zeros(3)}})
    assert [(f.kind, str(f.name)) for f in absent.findings] == [("unexpected", "gate/value")]
    beside = treeload.plan({"w": np.zeros(2)}, {"w": np.ones(2), "attn": {"value": np.ones(2)}})
    assert [(f.kind, str(f.name)) for f in beside.findings] == [("unexpected", "attn/value")]


def test_attention_survives_boxed_and_unboxed():
    attention = nnx.MultiHeadAttention(num_heads=1, in_features=2, decode=False, rngs=nnx.Rngs(0))
    pure = treeload.state(attention)
    target = nnx.MultiHeadAttention(num_heads=1, in_features=2, decode=False, rngs=nnx.Rngs(1))
    for source in (pure, boxed(pure)):
        assert same(treeload.state(treeload.load(target, source)), pure)


def test_leftover_boxes_are_named_without_their_segment_where_all_around_is_boxed():
    src = {
        "params": boxed({"a": np.ones(1), "bias": np.ones(1), "head": {"w": np.ones(1)}}),
        "step": np.ones(1),
    }
    dst = {"params": {"a": np.zeros(1)}, "step": np.zeros(1)}
    plan = treeload.plan(dst, src, policy=Policy(absent_is_zero=BIAS))
    findings: Any = plan.findings
    assert [(f.kind, str(f.name), str(f.source.name)) for f in findings] == [
        ("unexpected", "params/head/w", "params/head/w/value")
    ]
    assert [str(name) for name in plan.pending] == ["params/bias"]
    nothing = treeload.plan({}, boxed({"a": np.ones(1)}))
    assert [str(f.name) for f in nothing.findings] == ["a"]


# NNX.


class Trained(nnx.Module):
    def __init__(self, fill):
        self.w = nnx.Param(jnp.full(2, fill))
        self.stats = nnx.BatchStat(jnp.full(2, fill))
        self.cache = nnx.Cache(jnp.full(2, fill))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(int(fill)))


def test_every_type_of_variable_loads():
    loaded = treeload.load(Trained(0.0), Trained(3.0))
    assert loaded.w[0] == loaded.stats[0] == loaded.cache[0] == 3
    assert same(*(jax.random.key_data(m.dropout.rngs.key[...]) for m in (loaded, Trained(3.0))))


def test_optional_state_is_kept_and_reported_where_the_source_has_none():
    plan = treeload.plan(Trained(0.0), {"w": np.ones(2, np.float32), "stats": np.ones(2, np.float32)})
    kept = [entry for entry in plan.entries if entry.action == "keep"]
    assert plan.ok and not plan.findings and kept and all(entry.optional for entry in kept)
    assert all("optional" in entry.reason for entry in kept) and plan["cache"].action == "keep"
    assert plan.load().cache[0] == 0
    assert [f.kind for f in treeload.plan(Trained(0.0), {"w": np.ones(2, np.float32)}).findings] == [
        "missing"
    ]


def test_optional_state_that_is_there_is_checked_like_any_other():
    src = treeload.state(Trained(3.0)) | {"cache": np.ones(5)}
    assert [(f.kind, str(f.name)) for f in treeload.plan(Trained(0.0), src).findings] == [("shape", "cache")]


def test_abstract_optional_state_without_init_is_an_error():
    abstract = nnx.eval_shape(lambda: Trained(0.0))
    src = {"w": np.ones(2, np.float32), "stats": np.ones(2, np.float32)}
    plan = treeload.plan(abstract, src)
    assert {f.kind for f in plan.findings} == {"abstract"}
    assert plan.load(init=lambda: Trained(5.0)).cache[0] == 5


def test_a_new_module_leaves_the_old_one_as_it_was():
    old = Trained(0.0)
    new = treeload.load(old, Trained(1.0))
    assert new is not old and old.w[0] == 0 and new.w[0] == 1


# Sources that misbehave.


def test_an_abstract_source_can_be_planned_from_and_not_loaded_from():
    abstract = {"w": jax.ShapeDtypeStruct((2,), np.float32)}
    plan = treeload.plan({"w": np.zeros(2, np.float32)}, abstract)
    assert plan.ok
    with pytest.raises(SourceError, match="abstract"):
        plan.load()


def test_names_are_looked_at_once_where_all_agree():
    tree = {"a": jnp.ones(1), "b": {"c": jnp.ones(1)}}
    with mock.patch("treeload._matching.match.decide", side_effect=AssertionError):
        assert treeload.plan(tree, {"a": jnp.zeros(1), "b": {"c": jnp.zeros(1)}}).ok
    assert match.__doc__
