"""Python numbers, NumPy leaves, booleans, typed keys: each loads as what the destination holds."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treeload
from treeload import From, Policy, Rename


def kinds(dst, src, **options):
    return [finding.kind for finding in treeload.plan(dst, src, **options).findings]


@pytest.mark.parametrize(
    ("old", "given", "new"),
    [
        (0, 3, 3), (0, np.int32(3), 3), (0, jnp.asarray(3), 3), (0, np.uint8(3), 3), (0.0, 0.1, 0.1),
        (0.0, np.float32(0.5), 0.5), (0j, 1j, 1j), (False, True, True), (True, False, False),
        (True, np.bool_(False), False), (False, jnp.asarray(True), True), (0, 2**62, 2**62),
        (0.0, 1, 1.0), (0.5, np.int32(2), 2.0), (0.5, jnp.asarray(2), 2.0), (0.0, 10**30, 1e30),
        (0.0, 2**53 + 1, 2.0**53),
    ],
)  # fmt: skip
def test_a_python_number_stays_one_of_the_destinations_type(old, given, new):
    loaded = treeload.load({"n": old}, {"n": given})["n"]
    assert loaded == new and type(loaded) is type(old)


@pytest.mark.parametrize(
    ("old", "given"),
    [
        (0, 0.5), (0, 1.0), (0, True), (0, np.float32(1)), (0, False), (0, 2**70), (0.0, 10**400), (0j, 1),
        (0.0, 1j), (np.float32(0), 10**40),
        (0.0, True), (0j, 0.5), (True, 1), (False, 1), (False, 0.0), (np.int8(0), 128), (np.float16(0), 1e6),
        (np.int32(0), 2.0), (np.int64(0), 2**70), (np.float32(0), 1j), (np.bool_(0), 1),
    ],
)  # fmt: skip
def test_a_change_of_kind_or_an_overflow_is_a_dtype_finding(old, given):
    assert kinds({"n": old}, {"n": given}) == ["dtype"]
    assert treeload.load({"n": old}, {"n": given}, policy=Policy(dtype="keep")) == {"n": old}


def test_a_whole_number_becomes_a_python_float_as_arrays_do(tmp_path):
    treeload.save(tmp_path / "run", {"rate": 1})
    for src in ({"rate": 1}, From({"a": {"rate": np.int8(1)}}, subtree="a"), tmp_path / "run"):
        loaded = treeload.load({"rate": 0.5}, src)["rate"]
        assert loaded == 1 and type(loaded) is float
        assert kinds({"rate": 0.5}, src, policy=Policy(casting="safe")) == []
        assert kinds({"rate": 0.5}, src, policy=Policy(casting="equiv")) == ["dtype"]


@pytest.mark.parametrize("wrapped", [False, True])
@given(st.integers() | st.floats(allow_nan=False))
def test_a_number_loads_into_an_array_unless_it_overflows_or_changes_kind(wrapped, number):
    src = From({"x": {"n": number}}, subtree="x") if wrapped else {"n": number}
    found = kinds({"n": np.int16(0)}, src)
    fits = isinstance(number, int) and -(2**15) <= number < 2**15
    assert found == ([] if fits else ["dtype"])
    if fits:
        assert treeload.load({"n": np.int16(0)}, src)["n"] == number


@pytest.mark.parametrize("dtype", ["uint64", "float32", "float64"])
@pytest.mark.parametrize("number", [2**63 + 1025, 2**64 - 1, 10**20])
def test_an_integer_of_more_than_63_bits_loads_where_there_is_room(dtype, number):
    dst = {"n": np.zeros((), dtype)}
    if number > 2**64 and dtype == "uint64":
        assert kinds(dst, {"n": number}) == ["dtype"]
    else:
        assert treeload.load(dst, {"n": number})["n"] == np.asarray(number).astype(dtype)


@pytest.mark.parametrize("wide", [0.1, 1e-60, np.inf])
def test_rounding_is_no_finding(wide):
    assert treeload.load({"n": jnp.float32(0)}, {"n": wide})["n"] == np.float32(wide)


def test_a_number_has_no_axes_and_never_meets_an_array_that_has():
    assert kinds({"n": np.zeros(1)}, {"n": 1.0}) == ["shape"]
    assert kinds({"n": 1.0}, {"n": np.zeros(1)}) == ["shape"]


def test_true_in_place_of_an_array_is_structure_but_a_boolean_of_no_axes_is_one():
    assert kinds({"w": np.zeros(3)}, {"w": True}) == ["structure"]
    assert kinds({"w": np.zeros(())}, {"w": True}) == ["structure"]
    assert kinds({"w": True}, {"w": np.zeros(3)}) == ["structure"]
    assert treeload.load({"w": np.bool_(False)}, {"w": True}) == {"w": True}
    assert kinds({"w": np.zeros(3)}, From({"a": {"w": True}}, subtree="a")) == ["structure"]


def test_false_is_absent_against_an_array_and_a_number_against_a_number():
    assert kinds({"w": np.zeros(3)}, {"w": False}) == ["missing"]
    assert kinds({"w": False}, {"w": np.zeros(3)}) == ["unexpected"]
    assert kinds({"w": False}, {"w": np.zeros(())}) == ["unexpected"]
    assert kinds({"w": 3}, {"w": False}) == ["dtype"]
    assert not kinds({"w": False}, {})


def test_unsafe_casting_allows_what_was_a_change_of_kind():
    old: Any = [0]
    new: Any = [2.7]
    assert treeload.load({"n": 0, "w": np.int32(old)}, {"n": 2.7, "w": np.float32(new)},
                         policy=Policy(casting="unsafe")) == {"n": 2, "w": [2]}  # fmt: skip


def test_numpy_leaves_stay_numpy_and_are_copies():
    given: dict[str, Any] = {"a": np.ones(2), "b": jnp.ones(2), "c": np.float32(2)}
    dst: dict[str, Any] = {"a": np.zeros(2), "b": np.zeros(2, np.float32), "c": np.float32(0)}
    loaded = treeload.load(dst, given)
    assert type(loaded["a"]) is type(loaded["b"]) is np.ndarray and type(loaded["c"]) is np.float32
    given["a"][:] = 9
    assert loaded["a"].tolist() == [1, 1] and dst["a"].tolist() == [0, 0]
    loaded["b"][:] = 9
    assert given["b"].tolist() == [1, 1]


def test_a_train_states_step_stays_a_python_int():
    loaded = treeload.load({"step": 0, "w": jnp.zeros(1)}, {"step": np.int64(1000), "w": jnp.ones(1)})
    assert loaded["step"] == 1000 and type(loaded["step"]) is int


class Dropout(eqx.Module):
    rate: float
    weight: jax.Array
    inference: bool
    act: object


def dropout(rate, fill, **changes):
    fields: dict[str, Any] = {"inference": False, "act": jax.nn.relu} | changes
    return Dropout(rate, jnp.full(2, fill), **fields)


def test_numbers_inside_an_equinox_module_are_its_configuration():
    loaded = treeload.load(dropout(0.2, 0.0), dropout(0.5, 1.0, inference=True, act=jax.nn.gelu))
    assert (loaded.rate, loaded.inference, loaded.act) == (0.2, False, jax.nn.relu)
    assert loaded.weight.tolist() == [1, 1]


def test_a_source_number_that_meets_a_static_is_unused_and_an_array_is_structure():
    plan = treeload.plan(
        dropout(0.2, 0.0), {"rate": 0.5, "weight": np.ones(2, np.float32), "inference": True}
    )
    assert plan.ok and [str(leaf.name) for leaf in plan.unused] == ["rate", "inference"]
    array = {"rate": np.float32(0.5), "weight": np.ones(2, np.float32)}
    assert kinds(dropout(0.2, 0.0), array) == ["structure"]
    renamed = {"p": 0.5, "weight": np.ones(2, np.float32)}
    assert not kinds(dropout(0.2, 0.0), renamed, rules=Rename("p", "rate"))


def test_statics_are_never_compared():
    dst, src = (
        {"act": jax.nn.relu, "name": "a", "w": np.zeros(1)},
        {"act": "gelu", "name": "b", "w": np.ones(1)},
    )
    plan = treeload.plan(dst, src)
    assert plan.ok and len(plan.entries) == 1
    assert plan.load() == {"act": jax.nn.relu, "name": "a", "w": 1}
    assert treeload.plan(dst, {"w": np.ones(1)}).ok


def test_typed_keys_load_only_into_keys_of_their_own_implementation():
    key, other = jax.random.key(0), jax.random.key(1)
    assert (
        jax.random.key_data(treeload.load({"k": key}, {"k": other})["k"]) == jax.random.key_data(other)
    ).all()
    unsafe = Policy(casting="unsafe")
    assert kinds({"k": key}, {"k": jax.random.key(0, impl="rbg")}, policy=unsafe) == ["structure"]
    assert kinds({"k": key}, {"k": np.zeros(2, np.uint32)}, policy=unsafe) == ["structure"]
    assert kinds({"k": np.zeros(2, np.uint32)}, {"k": key}, policy=unsafe) == ["structure"]
    assert kinds({"k": key}, {"k": 3}, policy=unsafe) == ["structure"]
    assert kinds({"k": key}, {"k": jax.random.split(key, 2)}) == ["shape"]


@pytest.mark.parametrize("wide", [np.float64, np.int64, np.uint64, np.complex128])
def test_an_abstract_leaf_that_jax_would_narrow_is_a_finding(wide):
    dst = {"w": jax.ShapeDtypeStruct((2,), wide)}
    (finding,) = treeload.plan(dst, {"w": np.ones(2, wide)}).findings
    assert finding.kind == "dtype" and "jax_enable_x64" in finding.message
    assert "casting" not in finding.remedy
    assert kinds(dst, {"w": np.ones(2, wide)}, policy=Policy(casting="unsafe")) == ["dtype"]
    with jax.enable_x64(True):
        assert treeload.load(dst, {"w": np.ones(2, wide)})["w"].dtype == wide


@pytest.mark.parametrize(("held", "given"), [(1.5, 2j), (1, 2j), (1.5, np.complex64(1)), (1.5, 1 << 2000)])
def test_no_unsafe_cast_is_offered_where_there_is_none(held, given):
    """Found by random faults: the policy that was printed let the plan pass and the load fail."""
    (finding,) = treeload.plan({"x": held}, {"x": given}).findings
    assert finding.kind == "dtype" and [way.code for way in finding.remedies] == [
        'Policy(dtype={"x": "keep"})'
    ]
