"""A Python number looks like the 0-d array that it loads as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._leaves.number import Number, number_of
from treeload._leaves.spec import spec_of

NUMBERS = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
)


@given(NUMBERS)
def test_its_array_has_the_shape_and_dtype_that_it_shows(value: Any) -> None:
    number = Number(value)
    array = number.array()
    assert (array.shape, array.dtype) == (number.shape, number.dtype) == ((), number.dtype)


@given(st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False))
def test_what_64_bits_hold_is_held_exactly(value: Any) -> None:
    assert Number(value).array().item() == value


@given(NUMBERS)
def test_the_number_itself_is_kept(value: Any) -> None:
    assert number_of(Number(value)) is value


@given(st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans())
def test_it_looks_like_the_spec_of_the_number(value: Any) -> None:
    spec = spec_of(value)
    assert (Number(value).shape, Number(value).dtype) == (spec.shape, spec.dtype)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (2**63 - 1, "int64"), (2**63, "uint64"), (2**64 - 1, "uint64"), (2**64, "float64"),
        (-(2**63), "int64"), (-(2**63) - 1, "float64"), (True, "bool"), (1j, "complex128"),
    ],
)  # fmt: skip
def test_an_integer_looks_like_what_has_room_for_it(value: Any, dtype: str) -> None:
    assert Number(value).dtype == np.dtype(dtype)


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_an_integer_beyond_every_float_is_kept_as_it_is(value: int) -> None:
    array = Number(value).array()
    assert array.dtype == object and array.item() == value


@pytest.mark.parametrize("value", [np.zeros(()), np.float32(1), 3, None])
def test_what_is_no_number_in_this_guise_has_none_behind_it(value: Any) -> None:
    assert number_of(value) is None


def test_a_zero_behind_it_is_a_number_and_not_nothing() -> None:
    assert number_of(Number(0)) == 0 and number_of(Number(False)) is False
