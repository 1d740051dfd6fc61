"""How long a name may be that comes out of a file.

Owns the two bounds. A model of a hundred levels has not been seen, and what is done with names takes a time
that grows with the square of their depth: without a bound, 2,000 names of 2,000 keys take a quarter of a
minute. A tree in memory is its owner's, and has none.
"""

from __future__ import annotations

from collections.abc import Iterable

from treeload._errors import RuleError
from treeload._naming.name import Name

MOST_KEYS = 100

MOST_CHARACTERS = 4096
"""Of the keys of a name together, with one between each two."""


def name_from_file(keys: Iterable[str]) -> Name:
    """The name of these keys.

    Raises:
        ValueError: it is longer than any name may be.
    """
    name = Name(keys)
    if len(name) > MOST_KEYS:
        raise ValueError(f"a name of {len(name):,} keys: at most {MOST_KEYS} are read")
    check_length(sum(map(len, name)) + max(len(name) - 1, 0))
    return name


def parse_from_file(printed: str) -> Name:
    """The name that prints as ``printed``.

    Raises:
        ValueError: it is longer than any name may be, or no name prints so.
    """
    check_length(len(printed) // len(r"\U00000000"))  # what one character may take
    try:
        return name_from_file(Name.parse(printed))
    except RuleError as error:
        raise ValueError(str(error)) from error


def check_length(characters: int) -> None:
    """Nothing, if a name may have so many characters; asked before a joined name is cut into its keys.

    Raises:
        ValueError: it may not.
    """
    if characters > MOST_CHARACTERS:
        raise ValueError(f"a name of {characters:,} characters: at most {MOST_CHARACTERS:,} are read")


def joined_name_from_file(joined: str, separator: str | None) -> Name:
    """The name that a text of a file stands for, whose keys ``separator`` joins; of one key where it is None.

    Raises:
        ValueError: it is longer than any name may be.
    """
    check_length(len(joined))  # before it is cut into millions of keys
    return name_from_file([joined] if separator is None else joined.split(separator))


def check_separator(separator: str | None) -> None:
    """Nothing, if names can be split there, or are to be left in one piece.

    Raises:
        RuleError: it is empty.
    """
    if separator == "":
        raise RuleError("separator='' splits nothing: write None to leave names in one piece")
