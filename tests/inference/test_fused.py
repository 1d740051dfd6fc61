"""Which way round the parts of a fused leaf lie: the axis tells of the whole, the name of the parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytrees import numbered

import treeload
from treeload import Transpose

PARTS = ("q", "k", "v")


def whole(key: str, axis: int, size: int) -> dict[str, Any]:
    shape = [size, size]
    shape[axis] *= 3
    return {"attn": {"qkv": {key: numbered(tuple(shape))}}}


def parts(key: str, size: int) -> dict[str, Any]:
    return {"attn": {part: {key: numbered((size, size), start=at)} for at, part in enumerate(PARTS)}}


TURNED = {  # (the whole's key, the axis its parts lie on, their key) -> are they transposed
    ("kernel", 1, "kernel"): False,
    ("kernel", 0, "kernel"): False,
    ("weight", 0, "weight"): False,
    ("weight", 1, "weight"): True,
    ("weight", 0, "kernel"): True,
    ("weight", 1, "kernel"): False,
    ("kernel", 1, "weight"): True,
}


@pytest.mark.parametrize("joined", [True, False], ids=["concat", "split"])
@pytest.mark.parametrize("case", TURNED, ids=str)
def test_square_parts_are_turned_where_the_two_say_so(case: tuple[str, int, str], joined: bool) -> None:
    key, axis, part = case
    fused, apart = whole(key, axis, 4), parts(part, 4)
    dst, src = (fused, apart) if joined else (apart, fused)
    (rule,) = treeload.plan(dst, src).suggest()
    assert (Transpose() in rule.ops) == TURNED[case]  # type: ignore[attr-defined]  # a Concat or a Split
    assert rule.axis == axis  # type: ignore[attr-defined]


@given(st.integers(1, 6), st.sampled_from([("kernel", 1), ("weight", 0)]))
def test_what_is_called_alike_on_both_sides_is_joined_as_it_is(size: int, named: tuple[str, int]) -> None:
    key, axis = named
    src = parts(key, size)
    plan = treeload.plan(whole(key, axis, size), src)
    loaded = treeload.plan(whole(key, axis, size), src, rules=plan.suggest()).load()
    expected = np.concatenate([src["attn"][part][key] for part in PARTS], axis)
    assert np.array_equal(loaded["attn"]["qkv"][key], expected)


def test_a_lone_leaf_is_not_certainly_one_of_two_that_it_fits() -> None:
    lone, both = {"norm": numbered((4,))}, {"norm": {"scale": numbered((4,)), "bias": numbered((4,))}}
    for dst, src in ((lone, both), (both, lone)):
        found = treeload.plan({**dst, "k": numbered((3, 3))}, {**src, "k": numbered((3, 3))}).suggest()
        assert found and not found.certain
        assert "bias fits as well" in str(found)
    one = {"norm": {"scale": numbered((4,))}}
    assert treeload.plan({**lone, "k": numbered((3, 3))}, {**one, "k": numbered((3, 3))}).suggest().certain
