"""JSON that is read from a stranger: what it means is what it says, or it is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._files.strict_json import parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_json_writes_is_read_back_as_it_was(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@given(VALUES, st.text(max_size=4), VALUES)
def test_a_key_twice_is_refused_wherever_it_stands(before: Any, key: str, value: Any) -> None:
    member = f"{json.dumps(key)}: {json.dumps(value)}"
    text = f'[{json.dumps(before)}, {{"outer": {{{member}, {member}}}}}]'
    json.loads(text)  # which says nothing of it
    with pytest.raises(ValueError, match="is there twice"):
        parse_json(text)


def test_a_key_is_the_same_however_it_is_escaped() -> None:
    with pytest.raises(ValueError, match="the key 'a' is there twice"):
        parse_json(r'{"a": 1, "\u0061": 2}')


def test_one_key_in_two_objects_is_no_key_twice() -> None:
    assert parse_json('[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


def test_of_several_keys_the_one_that_is_there_twice_is_named() -> None:
    with pytest.raises(ValueError, match="the key 'b' is there twice"):
        parse_json('{"a": 1, "b": 2, "c": 3, "b": 4}')


def test_an_endless_key_is_named_in_brief() -> None:
    key = "k" * 10_000
    with pytest.raises(ValueError, match="is there twice") as raised:
        parse_json(f'{{"{key}": 1, "{key}": 2}}')
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_refused_by_name(constant: str) -> None:
    with pytest.raises(ValueError, match=f"^{constant} is not JSON$"):
        parse_json(f'{{"a": [{constant}]}}')


def test_a_writer_of_python_may_have_put_nan_in() -> None:
    nan, high, low = parse_json("[NaN, Infinity, -Infinity]", allow_nan=True)
    assert math.isnan(nan) and (high, low) == (math.inf, -math.inf)


def test_where_nan_may_pass_a_key_twice_may_not() -> None:
    with pytest.raises(ValueError, match="is there twice"):
        parse_json('{"a": NaN, "a": 1}', allow_nan=True)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_without_end_is_a_value_error(opening: str, closing: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(opening * 200_000 + "1" + closing * 200_000)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{'a': 1}", '{"a" 1}', "01", "1 2", '"a\nb"', "nul"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
