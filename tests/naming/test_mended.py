"""What a pattern that matches nothing was to be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._naming.mended import Mended, mend
from treeload._naming.pattern import compile_pattern

NAMES = ["head/kernel", "head/bias", "encoder/layers/0/attn/kernel", "encoder/layers/1/attn/kernel", "step"]


@pytest.mark.parametrize(
    ("text", "meant", "count"),
    [
        ("head", "head/**", 2),
        ("step/*", "step", 1),
        ("encoder/layers/*", "encoder/layers/*/**", 2),
        ("head.*", "head/**", 2),
        (r"encoder\.layers.*", "encoder/layers/**", 2),
        ("encoder.layers.0.attn.kernel", "encoder/layers/0/attn/kernel", 1),
        ("haed/**", "head/**", 2),
        ("haed", "head/**", 2),
        ("enc/**", "encoder/**", 2),
        ("encoder_model/**", "encoder/**", 2),
        ("bias", "**/bias", 1),
        ("attn", "**/attn/**", 2),
        ("haed/{k}", "head/{k}", 2),
    ],
)
def test_what_was_meant_is_found(text: str, meant: str, count: int) -> None:
    assert mend(compile_pattern(text), NAMES) == Mended(meant, count, below=meant == f"{text}/**")


@pytest.mark.parametrize("text", ["decoder/**", "zz", "x.y", "*/z", "he/**", "", "a/*/*", "{x}/q"])
def test_nothing_is_made_up(text: str) -> None:
    assert mend(compile_pattern(text), NAMES) is None


def test_expressions_and_no_names_have_no_answer() -> None:
    assert mend(compile_pattern(re.compile("haed")), NAMES) is None
    assert mend(compile_pattern("head"), []) is None


def test_of_very_many_keys_none_is_compared() -> None:
    many = [f"key{number}/w" for number in range(500)]
    assert mend(compile_pattern("kye1/w"), many) is None
    assert mend(compile_pattern("key1"), many) == Mended("key1/**", 1, below=True)


@given(st.text("ab/.*{}\\", max_size=8), st.lists(st.text("ab.", min_size=1, max_size=3), max_size=4))
def test_what_is_offered_matches_as_many_as_it_says(text: str, names: list[str]) -> None:
    try:
        pattern = compile_pattern(text)
    except ValueError:
        return
    found = mend(pattern, names)
    if found is not None:
        assert found.count == sum(map(compile_pattern(found.text).matches, names)) > 0
