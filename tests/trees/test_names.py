"""Names that are written out late are those that a walk would have written at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._trees.names import Names
from treeload._trees.walk import walk

keys = st.text("abc", min_size=1, max_size=2)
name = st.lists(keys, max_size=2).map(tuple)
step = st.one_of(name, st.tuples(name, st.lists(keys, max_size=3)))


def filled(steps: list[Any]) -> tuple[Names, list[tuple[str, ...]]]:
    names, expected = Names(), []
    for each in steps:
        if len(each) == 2 and isinstance(each[1], list):
            names.extend_below(*each)
            expected += [(*each[0], key) for key in each[1]]
        else:
            names.append(each)
            expected.append(each)
    return names, expected


@given(st.lists(step, max_size=6))
def test_they_are_in_the_order_in_which_they_came(steps: list[Any]) -> None:
    names, expected = filled(steps)
    assert names.written() == expected
    assert names.written() is names.written()


@given(st.lists(step, max_size=5), st.lists(step, max_size=5), st.booleans(), st.booleans())
def test_they_are_equal_where_the_names_are(
    one: list[Any], other: list[Any], write_one: bool, write_other: bool
) -> None:
    (first, expected), (second, others) = filled(one), filled(other)
    if write_one:
        first.written()
    if write_other:
        second.written()
    assert (first == second) is (expected == others)


@given(st.lists(step, max_size=5))
def test_what_was_written_out_does_not_matter(steps: list[Any]) -> None:
    written, not_yet = filled(steps)[0], filled(steps)[0]
    written.written()
    assert written == not_yet == Names(filled(steps)[1])


def test_they_are_no_list_and_have_no_hash() -> None:
    assert Names([("a",)]) != [("a",)]
    with pytest.raises(TypeError):
        hash(Names())


def test_a_plain_dict_keeps_the_order_of_its_values() -> None:
    tree = {"b": {"y": np.zeros(1), "x": np.ones(1)}, "a": {"x": np.full(1, 2.0), "y": np.full(1, 3.0)}}
    found = walk(tree)
    assert found.names == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    assert [float(value[0]) for value in found.values] == [2, 3, 1, 0]
