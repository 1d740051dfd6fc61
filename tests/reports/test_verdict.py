"""The bar and the modules: every element in it once, every status seen, in characters and words."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import treeload
from treeload import BIAS, Plan, Policy
from treeload._reports.verdict import Share, bar, legend, modules, shares

MARKS = {"loaded": "█", "zeroed": "0", "kept": "░", "wrong": "×"}


def f32(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def mixed() -> Plan:
    dst = {
        "enc": {"w": f32(50), "bias": f32(10)}, "head": {"w": f32(20)}, "odd": {"w": f32(20)},
    }  # fmt: skip
    policy = Policy(missing={"head/**": "keep"}, absent_is_zero=BIAS)
    return treeload.plan(dst, {"enc": {"w": f32(50)}, "odd": {"w": f32(21)}}, policy=policy)


def test_each_element_is_in_one_share() -> None:
    assert shares(mixed()) == [
        Share("loaded", 50),
        Share("zeroed", 10),
        Share("kept", 20),
        Share("wrong", 20),
    ]
    assert legend(shares(mixed())) == "█ 50.0 % loads, 0 10.0 % zeroed, ░ 20.0 % kept, × 20.0 % wrong"


def test_leaves_without_elements_are_counted_as_leaves() -> None:
    dst = {"a": f32(0), "b": f32(0)}
    assert shares(treeload.plan(dst, {"a": f32(0)})) == [Share("loaded", 1), Share("wrong", 1)]


def test_a_destination_of_nothing_has_no_bar() -> None:
    assert shares(treeload.plan({}, {})) == []
    assert "█" not in str(treeload.plan({}, {}))


@given(
    st.lists(st.sampled_from(sorted(MARKS)), min_size=1, max_size=4, unique=True).flatmap(
        lambda words: st.tuples(*(st.builds(Share, st.just(word), st.integers(0, 10**12)) for word in words))
    ),
    st.integers(80, 300),
)
def test_a_bar_is_as_wide_as_asked_and_shows_every_share(found: tuple[Share, ...], width: int) -> None:
    drawn = bar(found, width).plain
    assert len(drawn) == width
    assert "".join(dict.fromkeys(drawn)) == "".join(MARKS[share.word] for share in found)
    for share in found:
        part = share.size / (sum(each.size for each in found) or 1)
        assert abs(drawn.count(MARKS[share.word]) - part * width) <= len(found) or part == 0


def test_no_share_is_rounded_to_nothing_or_to_all() -> None:
    said = legend([Share("loaded", 10**9), Share("wrong", 1)])
    assert said == "█ 99.9 % loads, × less than 0.1 % wrong"


def test_a_line_for_each_module_what_is_short_first() -> None:
    found, rest = modules(mixed())
    assert list(map(str, found)) == ["enc 1/2", "head 0/1", "odd 0/1"] and rest == 0
    assert "  enc 1/2\n" in str(mixed())


def test_modules_that_differ_in_a_number_are_one_line() -> None:
    layers = {f"layers_{i}": {"w": f32(2), "b": f32(2)} for i in range(12)}
    found, _ = modules(treeload.plan({**layers, "head": {"w": f32(1)}}, layers))
    assert list(map(str, found)) == ["head 0/1", "layers_{0..11} ×12 24/24"]


def test_single_leaves_and_a_single_module_are_no_lines() -> None:
    assert modules(treeload.plan({"a": f32(1), "b": f32(1)}, {})) == ([], 0)
    assert modules(treeload.plan({"net": {"a": f32(1), "b": f32(1)}}, {})) == ([], 0)


def test_very_many_modules_are_a_few_lines() -> None:
    words = [a + b for a in "abcdef" for b in "abcdef"]
    plan = treeload.plan({word: {"w": f32(1), "v": f32(1)} for word in words}, {})
    found, rest = modules(plan)
    assert (len(found), rest) == (8, 28)
    assert "… and 28 modules more" in str(plan)


@pytest.mark.parametrize(("columns", "wide"), [(60, 80), (80, 80), (133, 133)])
def test_the_bar_is_as_wide_as_the_terminal_but_has_80_columns(columns: int, wide: int) -> None:
    out = io.StringIO()
    Console(file=out, width=columns).print(mixed(), soft_wrap=True)
    drawn = [line for line in out.getvalue().splitlines() if line.startswith("█") and "%" not in line]
    assert "".join(drawn) == bar(shares(mixed()), wide).plain
    assert bar(shares(mixed()), 80).plain in str(mixed())
