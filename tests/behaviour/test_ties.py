"""Tied leaves: one array in the destination, under several names, from a source that may hold any of them."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import BIAS, LoadError, Policy

ONES, TWOS = np.ones(2, np.float32), np.full(2, 2, np.float32)


def tied(*names):
    shared = np.zeros(2, np.float32)
    return dict.fromkeys(names, shared)


@pytest.mark.parametrize("held", [held for held in product([True, False], repeat=3) if any(held)])
def test_the_source_may_hold_any_of_the_aliases_or_several_that_are_equal(held):
    dst = tied("a", "b", "c")
    src = {name: ONES.copy() for name, there in zip(dst, held, strict=True) if there}
    plan = treeload.plan(dst, src)
    assert (
        plan.ok and bool(plan.pending) == (sum(held) > 1) and plan.entries[0].needs_values == (sum(held) > 1)
    )
    loaded = plan.load()
    assert loaded["a"] is loaded["b"] is loaded["c"] and loaded["a"].tolist() == [1, 1]
    assert not plan.unused and plan.coverage == 1.0


def test_one_entry_holds_the_aliases_and_every_name_finds_it():
    plan = treeload.plan(tied("a", "b"), {"b": ONES})
    (entry,) = plan.entries
    assert str(entry.name) == "a" and [str(alias) for alias in entry.aliases] == ["b"]
    assert plan["b"] is plan["a"] is entry and "b" in plan
    assert entry.action == "load" and str(entry.sources[0].name) == "b"


def test_a_source_without_any_of_the_names_is_missing_once():
    (finding,) = treeload.plan(tied("a", "b"), {}).findings
    assert (finding.kind, str(finding.name)) == ("missing", "a")


def test_unequal_values_are_an_error_after_the_values_are_read():
    dst = tied("a", "b")
    plan = treeload.plan(dst, {"a": ONES, "b": TWOS})
    (finding,) = plan.verify().findings
    assert (finding.kind, str(finding.name), finding.verdict) == ("tie", "a", "error")
    with pytest.raises(LoadError) as caught:
        plan.load()
    assert caught.value.findings == (finding,) and not dst["a"].any()


def test_the_first_of_unequal_values_is_taken_where_the_policy_says_so():
    plan = treeload.plan(tied("a", "b"), {"b": TWOS, "a": ONES}, policy=Policy(tie={"a": "first"}))
    assert [finding.verdict for finding in plan.verify().findings] == ["first"]
    assert plan.load()["b"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("other", "equal"),
    [([np.nan, 0.0], True), ([np.nan, -0.0], True), ([0.0, np.nan], False), ([np.nan, 1e-45], False)],
)
def test_values_are_compared_exactly_and_nan_equals_nan(other, equal):
    src = {"a": np.float32([np.nan, 0.0]), "b": jnp.asarray(np.float32(other))}  # type: ignore[arg-type]
    assert treeload.plan(tied("a", "b"), src).verify().ok == equal


def test_values_are_compared_before_any_cast():
    src = {"a": np.float64([1, 1]), "b": np.float64([1, 1 + 1e-12])}  # type: ignore[arg-type]
    assert not treeload.plan(tied("a", "b"), src).verify().ok


def test_an_alias_that_the_source_lacks_is_fine_and_an_explicit_none_must_be_zero():
    dst = {"x": {"bias": (shared := np.full(2, 7, np.float32))}, "y": {"bias": shared}}
    policy = Policy(absent_is_zero=BIAS)
    assert treeload.plan(dst, {"x": {"bias": ONES}}, policy=policy).verify().ok
    for nothing in (None, False):
        src = {"x": {"bias": ONES}, "y": {"bias": nothing}}
        (finding,) = treeload.plan(dst, src, policy=policy).verify().findings
        assert (finding.kind, str(finding.name)) == (
            "tie",
            "x/bias",
        ) and "y/bias is absent" in finding.message
        assert (
            treeload.plan(dst, {"x": {"bias": ONES * 0}, "y": {"bias": nothing}}, policy=policy).verify().ok
        )
        first = Policy(absent_is_zero=BIAS, tie="first")
        assert treeload.load(dst, src, policy=first)["y"]["bias"].tolist() == [1, 1]
        assert treeload.plan(dst, src).verify().ok, "without the policy, None is merely no value"


def test_all_aliases_absent_is_zero_where_the_policy_says_so_of_any():
    plan = treeload.plan(tied("a", "bias"), {"a": None}, policy=Policy(absent_is_zero=BIAS))
    assert plan["a"].action == "zero"
    loaded = plan.load()
    assert loaded["a"] is loaded["bias"]


def test_a_key_beside_an_absence_is_not_tested_for_zero():
    key = jax.random.key(0)
    plan = treeload.plan(
        {"a": key, "b": key}, {"a": jax.random.key(1), "b": None}, policy=Policy(absent_is_zero="*")
    )
    assert plan.ok and not plan.pending


def test_one_array_object_in_the_source_needs_no_comparison():
    array = jnp.ones(2)
    plan = treeload.plan(tied("a", "b"), {"a": array, "b": array})
    assert not plan.pending and plan.load()["b"].tolist() == [1, 1]


class Shared(nnx.Module):
    def __init__(self, fill, tie=True):
        self.embed = nnx.Param(jnp.full(2, fill))
        self.head = self.embed if tie else nnx.Param(jnp.full(2, fill + 1))


def test_a_shared_variable_is_one_leaf_and_stays_shared():
    model = treeload.load(Shared(0.0), Shared(1.0))
    assert model.embed is model.head and model.head[...].tolist() == [1, 1]
    target = Shared(0.0)
    treeload.update(target, {"head": ONES})
    assert target.embed is target.head and target.embed[...].tolist() == [1, 1]


def test_shared_variables_of_the_source_feed_leaves_of_their_own():
    model = treeload.load(Shared(0.0, tie=False), Shared(1.0))
    assert model.embed is not model.head and model.head[...].tolist() == [1, 1]


def test_an_alias_of_the_source_that_the_destination_has_not_is_unused_not_unexpected():
    plan = treeload.plan({"embed": np.zeros(2, np.float32)}, Shared(1.0))
    assert plan.ok and [(str(leaf.name), leaf.why) for leaf in plan.unused] == [
        ("head", "an alias of embed, which loads")
    ]
    other_way = treeload.plan({"head": np.zeros(2, np.float32)}, Shared(1.0))
    assert other_way.ok and [str(leaf.name) for leaf in other_way.unused] == ["embed"]


def test_an_untied_extra_leaf_is_unexpected_all_the_same():
    plan = treeload.plan({"embed": np.zeros(2, np.float32)}, Shared(1.0, tie=False))
    assert [(f.kind, str(f.name)) for f in plan.findings] == [("unexpected", "head")]


def test_a_shared_variable_needs_no_comparison_in_a_tied_destination():
    assert not treeload.plan(Shared(0.0), Shared(1.0)).pending
    untied = treeload.plan(Shared(0.0), Shared(1.0, tie=False))
    assert untied.pending and not untied.verify().ok


def test_a_misfit_under_one_alias_keeps_the_leaf():
    plan = treeload.plan(tied("a", "b"), {"a": ONES, "b": ONES[:1]}, policy=Policy(shape="keep"))
    assert [(f.kind, str(f.name)) for f in plan.findings] == [("shape", "b")]
    assert plan["a"].action == "keep" and [str(leaf.name) for leaf in plan.unused] == ["a", "b"]


def test_small_scalars_are_never_ties():
    seven, numpy_seven = 7, np.float32(7)
    dst = {"a": seven, "b": seven, "c": numpy_seven, "d": numpy_seven}
    plan = treeload.plan(dst, {"a": 1, "b": 2, "c": np.float32(3), "d": np.float32(4)})
    assert len(plan.entries) == 4 and list(plan.load().values()) == [1, 2, 3, 4]
