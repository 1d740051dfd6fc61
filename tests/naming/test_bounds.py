"""Names out of files: joined ones, and how long they may be."""

from __future__ import annotations

import pytest

from treeload import Name, RuleError
from treeload._naming.bounds import MOST_CHARACTERS, check_separator, joined_name_from_file


def test_a_joined_name_is_split_or_left_in_one_piece() -> None:
    assert joined_name_from_file("a.b.c", ".") == Name(("a", "b", "c"))
    assert joined_name_from_file("a.b.c", None) == Name(("a.b.c",))


@pytest.mark.parametrize(
    ("joined", "said"),
    [
        ("x" * (MOST_CHARACTERS + 1), "characters: at most 4,096"),
        (".".join("x" * 101), "101 keys: at most 100"),
    ],
)
def test_a_name_that_is_too_long_or_too_deep_is_refused(joined: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        joined_name_from_file(joined, ".")


def test_nothing_is_split_at_an_empty_separator() -> None:
    check_separator(None)
    check_separator(".")
    with pytest.raises(RuleError, match="separator='' splits nothing"):
        check_separator("")
