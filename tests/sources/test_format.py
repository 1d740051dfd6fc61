"""What a format says of itself: which options it has, and what is said of those that it has not."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import SourceError
from treeload._formats import FORMATS
from treeload._sources.format import Format

OPTIONS = frozenset({"item", "separator"})
asked = st.fixed_dictionaries({option: st.none() | st.just("x") for option in sorted(OPTIONS)})


def form(
    options: frozenset[str] = frozenset(), **how: Any
) -> tuple[Format, list[tuple[Path, dict[str, Any]]]]:
    """A format, and what it was opened with."""
    opened: list[tuple[Path, dict[str, Any]]] = []
    opens: Any = lambda path, **given: opened.append((path, given))  # noqa: E731
    return Format("mine", "my files", lambda path: True, opens, options, **how), opened


@given(asked)
def test_a_format_is_opened_with_the_options_that_were_asked_for_and_no_others(asked: dict[str, Any]) -> None:
    mine, opened = form(OPTIONS)
    mine.open(Path("a"), asked)
    assert opened == [(Path("a"), {option: value for option, value in asked.items() if value is not None})]


@given(asked)
def test_a_format_without_options_opens_where_nothing_was_asked_for(asked: dict[str, Any]) -> None:
    mine, opened = form()
    if any(asked.values()):
        with pytest.raises(SourceError, match="'a' "):
            mine.open(Path("a"), asked)
        assert not opened
    else:
        mine.open(Path("a"), asked)
        assert opened == [(Path("a"), {})]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("item", "'a' is no Orbax checkpoint, so it has no item 'x'"),
        ("separator", "'a' holds no joined names: nothing is to be split at 'x'"),
    ],
)
def test_an_option_that_a_format_has_not_is_said_with_its_value(option: str, said: str) -> None:
    mine, _ = form(OPTIONS - {option})
    with pytest.raises(SourceError, match=said):
        mine.open(Path("a"), {option: "x"})


def test_where_nothing_lies_is_no_formats_to_explain_unless_it_says_so() -> None:
    assert not form()[0].claims_missing(Path("a"))
    assert form(claims_missing=lambda path: path.name == "a")[0].claims_missing(Path("a"))


def test_every_format_has_a_name_of_its_own_and_options_that_there_are() -> None:
    found = [importlib.import_module(module).FORMAT for module in FORMATS]
    names = [each.name for each in found]
    assert len(set(names)) == len(names) and all(each.options <= OPTIONS for each in found)
