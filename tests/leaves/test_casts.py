"""Which values overflow which dtype: exactly those that a cast cannot round to a finite value of it."""

from __future__ import annotations

from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._leaves.casts import (
    may_overflow,
    overflow_edge,
    overflown,
    overflows,
    real_part,
    safe_range,
)

FLOATS = ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"]
INTEGERS = ["int4", "uint4", "int8", "uint8", "int32", "uint32"]
SATURATING = ["float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"]


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


@given(st.sampled_from(FLOATS), st.floats(width=32))
def test_a_number_overflows_where_its_cast_is_finite_no_more(name: str, value: float) -> None:
    with np.errstate(all="ignore"):
        cast = np.array([value], np.float32).astype(dtype_of(name)).astype(np.float64)
    lost = bool(np.isfinite(value) and not np.isfinite(cast[0]))
    assert overflown(np.array([value], np.float32), dtype_of(name)).tolist() == [lost]


@given(st.sampled_from(INTEGERS), st.integers(-(2**40), 2**40))
def test_an_integer_overflows_outside_its_range(name: str, value: int) -> None:
    low, high = safe_range(dtype_of(name))
    assert overflown(np.array([value]), dtype_of(name)).tolist() == [not low <= value <= high]


@given(st.sampled_from([*FLOATS, *INTEGERS]), st.integers(-(2**40), 2**40))
def test_one_number_is_judged_as_an_array_of_it(name: str, value: int) -> None:
    if name in FLOATS:
        assert (
            overflows(float(value), dtype_of(name)) == overflown(np.array([float(value)]), dtype_of(name))[0]
        )
    assert overflows(value, dtype_of(name)) == overflown(np.array([value]), dtype_of(name))[0]


@pytest.mark.parametrize("name", [*(each for each in FLOATS if each != "float64"), *SATURATING])
def test_the_edge_overflows_and_the_number_before_it_does_not(name: str) -> None:
    dtype = dtype_of(name)
    edge = overflow_edge(dtype)
    wide = np.float64 if name == "float32" else np.float32
    before = np.nextafter(np.array(edge, np.float64).astype(wide), wide(0))
    values = np.array([edge, -edge, before, -before], np.float64)
    assert overflown(values, dtype).tolist() == [True, True, False, False]
    assert safe_range(dtype)[1] < edge


@pytest.mark.parametrize("name", [*FLOATS, *SATURATING])
def test_every_finite_value_of_a_dtype_fits_it(name: str) -> None:
    low, high = safe_range(dtype_of(name))
    assert not overflown(np.array([low, high, 0.0]), dtype_of(name)).any()


@pytest.mark.parametrize("name", [*FLOATS, *SATURATING])
def test_nan_and_infinities_stay_what_they_are(name: str) -> None:
    assert not overflown(np.array([np.nan, np.inf, -np.inf]), dtype_of(name)).any()


@pytest.mark.parametrize(
    ("source", "destination", "may"),
    [
        ("float32", "float16", True), ("float16", "float32", False), ("bfloat16", "float16", True),
        ("float32", "bfloat16", True), ("float16", "bfloat16", False), ("int8", "uint8", True),
        ("uint8", "int8", True), ("uint8", "int16", False), ("int32", "float16", True),
        ("int32", "float32", False), ("complex64", "float16", True), ("complex128", "complex64", True),
        ("bool", "int4", False), ("float32", "bool", False), ("float32", "float32", False),
    ],
)  # fmt: skip
def test_a_cast_may_overflow_where_the_sources_range_is_wider(
    source: str, destination: str, may: bool
) -> None:
    assert may_overflow(dtype_of(source), dtype_of(destination)) is may


def test_keys_never_overflow() -> None:
    key = jax.random.key(0).dtype
    assert not may_overflow(key, np.dtype("int8")) and not may_overflow(np.dtype("int8"), key)


@pytest.mark.parametrize(
    ("name", "part"),
    [("complex64", "float32"), ("complex128", "float64"), ("float16", "float16"), ("int8", "int8")],
)
def test_a_complex_dtype_is_looked_at_by_its_parts(name: str, part: str) -> None:
    assert real_part(dtype_of(name)) == dtype_of(part)


@pytest.mark.parametrize("value", [complex(1e39, 0), complex(0, -1e39)])
def test_one_part_that_overflows_is_enough(value: complex) -> None:
    assert overflows(value, dtype_of("complex64"))
    assert not overflows(value, dtype_of("complex128"))


@pytest.mark.parametrize("value", [10**400, 2.5, -1, 1j])
def test_nothing_overflows_a_boolean(value: Any) -> None:
    assert not overflows(value, np.dtype(bool))
