"""Whether one value can become one leaf, and if not, why."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treeload
from treeload._findings.kinds import Kind
from treeload._leaves.casts import can_cast
from treeload._leaves.spec import Spec, spec_of
from treeload._matching.fit import Misfit, is_boolean, is_python_number, misfit, narrows, wide_dtypes

CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")
dtypes = st.sampled_from(["bool", "int8", "int32", "float16", "float32", "bfloat16", "complex64"])
shapes = st.sampled_from([(), (1,), (2,), (2, 3), (3, 2), (0,)])
specs = st.builds(lambda shape, dtype: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)), shapes, dtypes)


def spec(*shape: int, dtype: Any = np.float32) -> Spec:
    return jax.ShapeDtypeStruct(shape, dtype)


def fault(held: Any, given: Any, casting: str = "same_kind") -> Misfit | None:
    """Of a leaf ``a/b``; what is given is an array, a spec, or a number of Python's."""
    number = given if is_python_number(given) else None
    return misfit(("a", "b"), held, spec_of(held), spec_of(given), number, casting)


def codes(found: Misfit | None) -> list[str]:
    assert found is not None
    return [way.code for way in found.remedies]


# Laws.


@given(specs, st.sampled_from(CASTINGS))
def test_what_a_leaf_holds_fits_it_under_any_casting(one: Spec, casting: str) -> None:
    assert fault(one, one, casting) is None


@given(specs, specs, st.sampled_from(CASTINGS))
def test_arrays_fit_where_shapes_are_equal_and_the_cast_is_allowed(a: Spec, b: Spec, casting: str) -> None:
    found = fault(a, b, casting)
    kind = None if found is None else found.kind
    if a.shape != b.shape:
        assert kind == Kind.SHAPE
    else:
        assert kind == (None if can_cast(b.dtype, a.dtype, casting) else Kind.DTYPE)


@given(specs, specs, st.sampled_from(CASTINGS))
def test_a_misfit_says_both_sides_and_a_way_to_keep_ones_own(a: Spec, b: Spec, casting: str) -> None:
    found = fault(a, b, casting)
    if found is not None:
        assert (found.expected, found.found) == (a, b) and found.message and found.reason
        assert f'Policy({found.kind}={{"a/b": "keep"}})' in codes(found)


@given(st.sampled_from([3, 2.5, True, 1j]), st.sampled_from([3, 2.5, True, 1j]))
def test_under_unsafe_casting_any_number_becomes_any_other(held: Any, given: Any) -> None:
    assert fault(held, given, "unsafe") is None


# Structure: what is not of one nature.


def test_true_is_no_array_but_a_boolean_of_no_axes() -> None:
    found = fault(np.zeros(()), True)
    assert found is not None and (found.kind, found.found) == (Kind.STRUCTURE, "True")
    assert fault(np.zeros((), bool), True) is None and fault(3, True, "unsafe") is None


def test_an_array_is_no_true_but_a_boolean_of_no_axes_is() -> None:
    found = fault(True, np.ones(()))
    assert found is not None and (found.kind, found.expected) == (Kind.STRUCTURE, "True")
    assert fault(True, np.ones((), bool)) is None and fault(True, 3) is not None


def test_a_key_fits_a_key_of_its_own_implementation_alone() -> None:
    fry, rbg = jax.random.key(0), jax.random.key(0, impl="rbg")
    assert fault(fry, fry) is None
    for held, other in ((fry, rbg), (fry, np.zeros((), np.uint32)), (np.zeros((), np.uint32), fry)):
        found = fault(held, other, "unsafe")
        assert found is not None and found.kind == Kind.STRUCTURE and "same implementation" in found.message
    for held, other, name in ((fry, rbg, "rbg"), (rbg, fry, "threefry2x32")):
        found = fault(held, other)
        assert found is not None
        said = f"make the destination's key with jax.random.key(..., impl={name!r})"
        assert str(found.remedies[0]) == said and len(found.remedies) == 2


def test_keys_of_other_shapes_differ_in_shape() -> None:
    found = fault(jax.random.split(jax.random.key(0), 3), jax.random.key(0))
    assert found is not None and found.kind == Kind.SHAPE


# Shape.


def test_shapes_that_match_by_an_op_say_which() -> None:
    found = fault(spec(2, 3), spec(3, 2))
    assert found is not None and "they match if" in found.message and "Transpose()" in codes(found)[0]
    assert found.message.startswith("shapes differ: [2, 3] in the destination, [3, 2] in the source")


def test_shapes_that_no_op_joins_are_said_without_one() -> None:
    found = fault(spec(5), spec(7))
    assert found is not None and "they match" not in found.message
    assert codes(found) == ['Policy(shape={"a/b": "keep"})']


def test_nothing_is_broadcast_not_even_a_number() -> None:
    for held, other in ((spec(1), spec()), (spec(), spec(1)), (np.zeros(1), 3), (3, np.zeros(1))):
        found = fault(held, other)
        assert found is not None and found.kind == Kind.SHAPE


# Casts.


def test_a_cast_that_the_policy_forbids_says_the_policy_and_how_to_cast_anyway() -> None:
    found = fault(spec(2, dtype=np.int32), spec(2))
    assert found is not None and found.message == "float32 does not become int32 under casting='same_kind'"
    assert codes(found) == ['Policy(casting={"a/b": "unsafe"})', 'Policy(dtype={"a/b": "keep"})']
    assert fault(spec(2, dtype=np.int32), spec(2), "unsafe") is None


@pytest.mark.parametrize(("casting", "fits"), [("no", False), ("safe", True), ("same_kind", True)])
def test_a_whole_number_becomes_a_python_float_where_integers_become_floats(casting: str, fits: bool) -> None:
    assert (fault(2.5, 3, casting) is None) is fits
    assert (fault(2.5, np.zeros((), np.int8), casting) is None) is fits


@pytest.mark.parametrize(
    ("held", "given", "said"),
    [
        (3, 2.5, "float64 is no Python int"),
        (3, np.ones((), np.float32), "float32 is no Python int"),
        (2.5, 1j, "complex128 is no Python float"),
        (3, True, "bool is no Python int"),
        (True, 3, "int64 is no Python bool"),
        (np.zeros((), np.int32), 2.5, "a Python float does not become int32"),
        (np.zeros((), np.int8), 300, "300 overflows int8"),
        (np.zeros((), np.float16), 1e30, "1e+30 overflows float16"),
    ],
)
def test_a_number_that_would_become_another_is_said(held: Any, given: Any, said: str) -> None:
    found = fault(held, given)
    assert found is not None and (found.kind, found.message, found.reason) == (
        Kind.DTYPE,
        said,
        "dtypes differ",
    )


@pytest.mark.parametrize(
    ("held", "given"),
    [
        (3, 4), (2.5, 1.5), (1j, 2j), (3, np.ones((), np.int8)), (2.5, np.ones((), np.float16)),
        (np.zeros((), np.int8), 127), (np.zeros((), np.float16), 1.5), (np.zeros((), np.float32), 3),
    ],
)  # fmt: skip
def test_a_number_of_the_same_kind_that_has_room_fits(held: Any, given: Any) -> None:
    assert fault(held, given) is None


# What JAX makes narrower.


def test_an_abstract_leaf_that_jax_would_narrow_cannot_be_cast_anyway() -> None:
    found = fault(spec(2, dtype=np.float64), spec(2, dtype=np.float64), "unsafe")
    assert found is not None and found.message == "JAX makes float32 of float64 without jax_enable_x64"
    assert list(map(str, found.remedies)) == [
        "JAX_ENABLE_X64=1 in the environment, or float32 in the destination",
        'to keep the destination\'s own: Policy(dtype={"a/b": "keep"})',
    ]


def test_a_concrete_leaf_is_never_narrowed() -> None:
    assert narrows(np.zeros(2), np.dtype("float64")) == ""
    assert narrows(spec(2), np.dtype("float32")) == ""


def test_with_wide_numbers_turned_on_nothing_is_narrowed() -> None:
    assert {str(dtype) for dtype in wide_dtypes()} == {"int64", "uint64", "float64", "complex128"}
    with jax.enable_x64(True):
        assert wide_dtypes() == frozenset() and narrows(spec(2, dtype=np.int64), np.dtype("int64")) == ""


# What counts as a number, and as a flag.


def test_only_pythons_own_numbers_are_python_numbers() -> None:
    assert all(map(is_python_number, (True, False, 3, 2.5, 1j)))
    assert not any(map(is_python_number, (np.float64(2.5), np.ones(()), jnp.ones(()), None, "3")))


def test_a_flag_is_a_boolean_of_no_axes() -> None:
    assert is_boolean(spec(dtype=bool))
    assert not is_boolean(spec(1, dtype=bool)) and not is_boolean(spec(dtype=np.int8))


def test_the_reason_of_a_misfit_is_the_reason_of_the_kept_leaf() -> None:
    plan = treeload.plan({"a": np.zeros(2)}, {"a": np.zeros(3)})
    found = fault(np.zeros(2), np.zeros(3))
    assert found is not None and plan["a"].reason == found.reason == "shapes differ"
