"""Leaves on their way into their places: on the host, on a device, in batches, once each."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import Pad, Policy, Rename, SourceError, Transpose
from treeload._loading.deliver import _Placer, load_leaves
from treeload._plans.entry import Action


def delivered(plan: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """The values of all slots, the findings, and what progress was told."""
    values = list(plan.tree.values)
    told: list[Any] = []
    findings = load_leaves(plan, plan.tree, values, lambda *what: told.append(what))
    return values, findings, told


def plan(dst: Any, src: Any, *rules: Any, **policy: Any) -> treeload.Plan:
    return treeload.plan(dst, src, rules=rules, policy=Policy(**policy))


def test_what_is_kept_stays_the_very_object_and_progress_hears_of_what_loads_alone() -> None:
    kept, src = np.zeros(2), {"a": np.ones(2)}
    values, findings, told = delivered(plan({"a": np.zeros(2), "k": kept}, src, missing="keep"))
    assert values[1] is kept and values[0].tolist() == [1, 1] and not findings and len(told) == 1


def test_an_array_on_the_host_is_the_results_own() -> None:
    src = {"a": np.ones(2), "b": np.ones(3)}
    values, _, _ = delivered(plan({"a": np.zeros(2), "b": np.zeros(3)}, src))
    values[0][:] = 5
    assert src["a"].tolist() == [1, 1]


def test_one_leaf_that_feeds_two_is_two_arrays() -> None:
    src = treeload.plan({}, {"x": np.ones(2)}, policy=Policy(unexpected="ignore")).sources[0]
    both = [treeload.From(src, into="a"), treeload.From(src, into="b")]
    dst = {"a": {"x": np.zeros(2)}, "b": {"x": np.zeros(2)}}
    values, _, _ = delivered(treeload.plan(dst, both))
    assert values[0] is not values[1] and not np.shares_memory(values[0], values[1])


def test_one_array_of_jax_that_moves_twice_is_one_array_again() -> None:
    here, there = jax.devices()[:2]
    shared = jax.device_put(jnp.ones(2), here)
    dst = {name: jax.device_put(jnp.zeros(2), there) for name in "ab"}
    values, _, _ = delivered(plan(dst, {"a": shared, "b": shared}))
    assert values[0] is values[1] and values[0].device == there


def test_one_array_of_jax_that_moves_to_two_devices_is_two() -> None:
    shared = jnp.ones(2)
    dst = {name: jax.device_put(jnp.zeros(2), jax.devices()[number]) for number, name in enumerate("ab", 1)}
    values, _, _ = delivered(plan(dst, {"a": shared, "b": shared}))
    assert [value.device for value in values] == jax.devices()[1:3]


def test_values_that_overflow_are_a_finding_and_their_leaf_stays() -> None:
    dst = {"a": np.zeros(1, np.float16), "b": np.zeros(1)}
    src = {"a": np.array([1e30], np.float32), "b": np.ones(1)}
    values, (finding,), _ = delivered(plan(dst, src))
    assert (finding.kind, str(finding.name)) == ("dtype", "a")
    assert values[0].tolist() == [0] and values[1].tolist() == [1]


def test_what_is_there_overflows_before_it_is_filled_up() -> None:
    rule = Rename("a", "a", Pad(3, fill="destination"))
    dst = {"a": np.full(3, 7, np.float16)}
    values, (finding,), _ = delivered(plan(dst, {"a": np.array([1e30], np.float32)}, rule))
    assert finding.kind == "dtype" and values[0].tolist() == [7, 7, 7]
    values, findings, _ = delivered(plan(dst, {"a": np.array([1], np.float32)}, rule))
    assert values[0].tolist() == [1, 7, 7] and not findings


def test_ops_run_then_the_cast_then_the_placing() -> None:
    dst = {"a": jnp.zeros((3, 2), jnp.float16)}
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    values, _, _ = delivered(plan(dst, {"a": given}, Rename("a", "a", Transpose())))
    assert isinstance(values[0], jax.Array) and values[0].dtype == jnp.float16
    assert (values[0] == given.T).all()


@pytest.mark.parametrize("limit", [{"_COUNT": 1}, {"_COUNT": 2}, {"_BYTES": 9}, {}])
def test_a_batch_of_any_size_gives_the_same(limit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in limit.items():
        monkeypatch.setattr(_Placer, name, value)
    dst = {str(number): jnp.zeros(2) for number in range(5)}
    src = {str(number): np.full(2, number, np.float32) for number in range(5)}
    values, _, _ = delivered(plan(dst, src))
    assert [float(value[0]) for value in values] == [0, 1, 2, 3, 4]
    assert all(isinstance(value, jax.Array) for value in values)


def test_a_weak_type_stays_weak() -> None:
    values, _, _ = delivered(
        plan({"a": jnp.asarray(1.0), "b": jnp.zeros(())}, {"a": np.float32(2), "b": np.float32(3)})
    )
    assert [value.weak_type for value in values] == [True, False] and [float(v) for v in values] == [2, 3]


def test_an_array_that_changed_since_it_was_looked_at_is_a_source_error() -> None:
    src = {"a": jnp.ones(2)}
    made = plan({"a": jnp.zeros(2)}, src)
    src["a"].delete()
    with pytest.raises(SourceError, match="'a' in a tree in memory has been deleted or donated"):
        delivered(made)
    assert made["a"].action == Action.LOAD


def test_a_device_that_cannot_take_the_last_leaves_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(arrays: Any) -> Any:
        raise RuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr("treeload._loading.deliver.to_default_device", full)
    with pytest.raises(
        SourceError, match="the last leaves could not be placed: RuntimeError: RESOURCE_EXHAUSTED"
    ):
        treeload.load({"w": jax.ShapeDtypeStruct((2,), np.float32)}, {"w": np.ones(2, np.float32)})
