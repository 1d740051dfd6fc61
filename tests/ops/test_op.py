"""What every op answers where it says nothing of its own, and what is taken for an op."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Apply, Cast, Reshape, RuleError, Transpose
from treeload._ops.op import Op, as_ops, integers, inverse_ops, takes_several


@dataclass(frozen=True)
class Nothing(Op):
    """An op that says no more than it must."""

    def infer(self, *specs: Any) -> Any:
        return specs[0]

    def apply(self, *arrays: Any) -> Any:
        return arrays[0]


@dataclass(frozen=True)
class Fill(Nothing):
    """An op that takes something from the destination."""

    onto_destination = True


FLAGS = "takes_several moves_only elementwise on_host onto_destination adds".split()


@pytest.mark.parametrize("flag", FLAGS)
def test_an_op_claims_nothing_that_it_does_not_say(flag: str) -> None:
    assert getattr(Nothing(), flag) is False


def test_an_op_that_says_nothing_has_no_way_back_and_no_regions() -> None:
    spec = jax.ShapeDtypeStruct((2,), np.float32)
    assert Nothing().inverse() is None and Nothing().inverse(spec) is None
    assert Nothing().regions(spec) is None and Nothing().region(spec) is None


def test_an_op_must_say_how_it_infers_and_applies() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Op()  # type: ignore[abstract]


# --- the order of steps -----------------------------------------------------------------------------


@given(st.lists(st.permutations(range(3)).map(Transpose), max_size=4))  # type: ignore[arg-type]
def test_the_inverse_of_steps_undoes_them_last_first(ops: list[Op]) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    undone = inverse_ops(ops)
    assert undone is not None
    result = array
    for op in (*ops, *undone):
        result = op.apply(result)
    np.testing.assert_array_equal(result, array)


def test_one_step_that_cannot_be_undone_is_enough() -> None:
    assert inverse_ops((Transpose(), Reshape(6), Transpose())) is None
    assert inverse_ops(()) == ()


def test_only_the_first_op_may_take_several() -> None:
    join = Apply(lambda a, b: a + b)
    assert takes_several((join, Transpose()))
    assert not takes_several((Transpose(), join))
    assert not takes_several(())


# --- what is given as ops ---------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["Rename", "Tie"])
def test_what_fills_up_from_the_destination_is_the_last_op(where: str) -> None:
    assert as_ops((Transpose(), Fill()), where) == (Transpose(), Fill())
    for ops in ((Fill(), Transpose()), (Fill(), Fill())):
        with pytest.raises(RuleError, match="it is the last op of a Rename"):
            as_ops(ops, where)


@pytest.mark.parametrize("where", ["Stack", "Concat", "Split", "Unstack"])
def test_what_fills_up_from_the_destination_has_no_place_in_other_rules(where: str) -> None:
    with pytest.raises(RuleError, match="fills up with the destination's own"):
        as_ops((Fill(),), where)


def test_a_class_of_ops_is_told_how_to_be_written() -> None:
    with pytest.raises(RuleError, match=r"Stack takes ops such as Transpose\(\) .*; write Cast\(\)$"):
        as_ops((Transpose(), Cast), "Stack")
    with pytest.raises(RuleError, match="not <class 'int'>$"):
        as_ops((int,), "Stack")


@given(st.lists(st.integers(-5, 5), max_size=4))
def test_integers_come_one_by_one_or_in_one_sequence(values: list[int]) -> None:
    expected = tuple(values)
    assert integers(expected, "X") == integers((values,), "X") == integers((expected,), "X") == expected
    assert all(type(each) is int for each in integers(tuple(map(np.int64, values)), "X"))


@pytest.mark.parametrize("value", [True, 1.0, "1", None, np.float32(1), (1, 2)])
def test_what_is_no_integer_is_named(value: Any) -> None:
    with pytest.raises(RuleError, match="^X takes integers, not "):
        integers((0, value), "X")


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (Transpose(), {"moves_only", "on_host"}),
        (Reshape(2), {"moves_only", "on_host"}),
        (Cast("int8"), {"moves_only", "elementwise", "on_host"}),
        (Apply(abs), {"takes_several"}),
    ],
    ids=lambda each: repr(each) if isinstance(each, Op) else "",
)
def test_our_ops_claim_what_they_keep(op: Op, said: set[str]) -> None:
    assert {flag for flag in FLAGS if getattr(op, flag)} == said


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        (np.transpose, "; write Transpose() or Apply(np.transpose)"),
        (jnp.transpose, "; write Transpose() or Apply(jnp.transpose)"),
        (jnp.squeeze, "; write Apply(jnp.squeeze)"),
        (as_ops, "; write Apply(as_ops)"),
        (lambda array: array, "; write Apply(fn)"),
        (3, "not 3"),
        (int, "<class 'int'>"),
    ],
)
def test_a_function_in_an_ops_place_is_told_with_what_to_write(given: Any, instead: str) -> None:
    with pytest.raises(RuleError, match=f"{re.escape(instead)}$"):
        as_ops((given,), "Rename")
