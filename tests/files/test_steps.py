"""What a step's name says, for any number in any order; examples are in ``tests/formats/test_steps.py``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from treeload._errors import SourceError
from treeload._files.steps import Step, in_order, is_numbered, step_of

PREFIXES = st.sampled_from(["", "step_", "ckpt-", "run", "a/b_", "v_1_", "checkpoint_", "é_"])
WHOLE = st.integers(0, 10**18 - 1)


@given(PREFIXES, WHOLE)
def test_a_whole_number_is_read_as_it_was_written(prefix: str, number: int) -> None:
    assert step_of(f"{prefix}{number}") == Step(f"{prefix}*", number)


@given(PREFIXES, st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3) + 0.0))
def test_a_fraction_is_read_as_it_was_written(prefix: str, number: float) -> None:
    assume(number >= 0 or prefix[-1:] not in "runé-")  # behind a letter or a minus, it separates
    assume("e" not in str(number))
    assert step_of(f"{prefix}{number}") == Step(f"{prefix}*", number)


@given(PREFIXES, WHOLE, st.sampled_from([".msgpack", ".pt", "-done"]))
def test_a_suffix_is_set_aside_and_belongs_to_the_series(prefix: str, number: int, suffix: str) -> None:
    assert step_of(f"{prefix}{number}{suffix}", suffix) == Step(f"{prefix}*{suffix}", number)


@given(st.lists(WHOLE, unique=True, min_size=1, max_size=8), st.data())
def test_steps_are_sorted_whatever_order_they_are_listed_in(numbers: list[int], data: st.DataObject) -> None:
    names = data.draw(st.permutations([f"step_{number}" for number in numbers]))
    found = in_order({name: step_of(name) for name in names}, "here")
    assert [step.number for _, step in found] == sorted(numbers)
    assert all(name == f"step_{step.number}" for name, step in found)


@given(st.text(max_size=12))
def test_whatever_the_name_a_step_is_finite_or_there_is_none(name: str) -> None:
    step = step_of(name)
    assert step is None or (is_numbered(name) and abs(step.number) < float("inf"))


@pytest.mark.parametrize(
    ("name", "numbered"),
    [
        ("", False),
        ("a1", True),
        ("1a", False),
        ("step_٣", False),
        ("x²", False),
        ("1.", False),
        ("1.2.3", True),
    ],
)
def test_a_name_that_ends_in_an_ascii_digit_means_to_say_a_step(name: str, numbered: bool) -> None:
    assert is_numbered(name) is numbered


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("run_-3", Step("run_*", -3)),
        ("run-3", Step("run-*", 3)),
        ("run--3", Step("run-*", -3)),
        ("loss_1e-3", Step("loss_*", 0.001)),
        ("loss_1e3", Step("loss_*", 1000.0)),
        ("007", Step("*", 7)),
        ("-0", Step("*", 0)),
    ],
)
def test_a_minus_is_the_numbers_where_no_letter_stands_before_it(name: str, step: Step) -> None:
    assert step_of(name) == step


def test_a_whole_number_stays_an_integer_however_large() -> None:
    step = step_of("step_" + "9" * 18)
    assert step is not None and type(step.number) is int and step.number == 10**18 - 1


def test_nothing_in_order_is_nothing() -> None:
    assert in_order({}, "here") == []


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a_1", "1.2.3", "b_2"], "cannot be read as a number"),  # before the series are looked at
        (["a_1", "b_1"], "several series"),  # and those before the numbers
        (["a_1", "a_1.0"], "'a_1', 'a_1.0', which say the same step"),
        (["a_0", "a_-0"], "'a_-0', 'a_0', which say the same step"),
    ],
)
def test_what_makes_the_latest_unknown_is_said_in_this_order(names: list[str], says: str) -> None:
    with pytest.raises(SourceError, match=says) as raised:
        in_order({name: step_of(name) for name in names}, "the place")
    assert str(raised.value).startswith("the place holds ")


def test_a_step_is_a_value() -> None:
    one: Any = step_of("a_1")
    assert one == Step("a_*", 1) and hash(one) == hash(Step("a_*", 1))
    assert len({one, step_of("a_01")}) == 1
