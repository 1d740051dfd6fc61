"""The plan's lines as data."""

from __future__ import annotations

import copy
import pickle

import jax
import numpy as np
import pytest

from treeload import Name, Pad, Transpose
from treeload._ops.expression import Leaf, derive
from treeload._plans.entry import SAME_NAME, Action, Entry, OnOverflow, SameName

SPEC = jax.ShapeDtypeStruct((2, 2), np.float32)
LEAF = Leaf(0, Name(("a",)), SPEC)
PAD = Pad(3, fill="destination")


@pytest.mark.parametrize(
    ("action", "value", "keeps"),
    [
        (Action.KEEP, None, True),
        (Action.ZERO, None, False),
        (Action.LOAD, LEAF, False),
        (Action.LOAD, derive(Transpose(), LEAF), False),
        (Action.LOAD, derive(Pad(3), LEAF), False),
        (Action.TIE, LEAF, False),
    ],
)
def test_what_is_kept_needs_the_destinations_own_value(action: Action, value: object, keeps: bool) -> None:
    assert Entry(Name(("a",)), action, SPEC, value=value).keeps_something is keeps  # type: ignore[arg-type]


def test_what_loads_and_fills_up_with_the_destination_needs_its_value_too() -> None:
    line = Entry(Name(("a",)), Action.LOAD, SPEC, value=derive(PAD, LEAF))
    assert line.keeps_something


def test_two_lines_are_equal_whatever_they_are_made_of() -> None:
    one, two = (Entry(Name(("a",)), Action.LOAD, SPEC, value=value) for value in (LEAF, None))
    assert one == two and "value=" not in repr(one)
    assert one != Entry(Name(("b",)), Action.LOAD, SPEC)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda mark: pickle.loads(pickle.dumps(mark))])
def test_the_mark_of_a_leaf_that_agrees_is_known_again(again: object) -> None:
    assert again(SAME_NAME) is SAME_NAME is SameName.SAME_NAME  # type: ignore[operator]


def test_actions_read_as_their_words() -> None:
    assert [str(action) for action in Action] == ["load", "zero", "keep", "tie"]
    assert [str(what) for what in OnOverflow] == ["error", "keep", "cast"]
