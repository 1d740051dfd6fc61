"""What only values can tell: zero in every element, equal in every element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from treeload import Apply, Name, Transpose
from treeload._findings.finding import Finding
from treeload._findings.kinds import Kind
from treeload._leaves.spec import spec_of
from treeload._ops.expression import Expression, Leaf, derive
from treeload._plans.check import EqualCheck, ZeroCheck

arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=2, max_side=3),
    elements=st.sampled_from([0.0, -0.0, 1.0, float("nan")]),
)


def leaf(name: str, array: Any) -> Leaf:
    return Leaf(0, Name((name,)), spec_of(array))


def finding(message: str = "") -> Finding:
    return Finding(Kind.ABSENT, Name(("a",)), "error", message=message)


def zero(array: Any, message: str = "") -> Finding | None:
    one = leaf("a", array)
    return ZeroCheck(("a",), one, finding(message)).failure({one: array})


def equal(*several: Any) -> Finding | None:
    leaves = [leaf(str(number), array) for number, array in enumerate(several)]
    check = EqualCheck(("a",), tuple((tuple(one.name), one) for one in leaves), finding("they differ"))
    return check.failure(dict(zip(leaves, several, strict=True)))


@given(arrays)
def test_a_check_of_zero_fails_where_any_element_is_not_zero(array: Any) -> None:
    assert (zero(array) is None) is (not array.any())


@given(arrays)
def test_an_array_equals_itself_and_its_copy_nan_and_all(array: Any) -> None:
    assert equal(array, array) is None and equal(array, array.copy()) is None


@given(arrays, st.data())
def test_one_element_that_differs_is_found_wherever_it_is(array: Any, data: Any) -> None:
    other = array.copy()
    other.flat[data.draw(st.integers(0, array.size - 1))] = 7
    assert equal(array, other) is not None and equal(array, array.copy(), other) is not None


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.float32([0, 2, -3]), "2 of 3 elements are not zero, the largest"),  # type: ignore[arg-type]
        (np.float32(5), "1 of 1 element is not zero, the largest"),
    ],
)
def test_a_failed_check_says_how_many_and_the_largest(array: Any, said: str) -> None:
    found = zero(array)
    assert found is not None and said in found.message and found.message.endswith("absent means zero here")
    before = zero(array, "a is tied")
    assert before is not None and before.message.startswith(f"a is tied: {said}")


def test_nothing_else_of_the_finding_changes() -> None:
    found = zero(np.ones(1))
    assert found is not None and (found.kind, found.name, found.verdict) == ("absent", ("a",), "error")


def test_values_are_looked_at_after_their_ops() -> None:
    array = np.arange(4, dtype=np.float32).reshape(2, 2)
    one = leaf("a", array)
    turned: Expression = derive(Transpose(), one)
    same = EqualCheck(("a",), ((("a",), one), (("b",), turned)), finding())
    assert same.failure({one: array}) is not None and same.failure({one: array + array.T}) is None
    assert ZeroCheck(("a",), derive(Apply(lambda x: x * 0), one), finding()).failure({one: array}) is None


def test_a_check_names_the_leaves_it_needs() -> None:
    one, two = leaf("a", np.ones(1)), leaf("b", np.ones(1))
    assert ZeroCheck(("x",), derive(Transpose(), one), finding()).leaves() == (one,)
    assert EqualCheck(("x",), ((("a",), one), (("b",), two)), finding()).leaves() == (one, two)
