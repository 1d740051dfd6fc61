r"""Names of leaves: tuples of key strings, and how they are printed and read back.

Owns the one syntax for names in errors, reports, rules and docs. Refuses to own how a tree is walked
(``_trees``) and what a pattern means (``_naming.pattern``). Nothing here looks at arrays.

Segments are joined with ``/``. So that printing loses nothing, ``\`` and ``/`` inside a key are
escaped by ``\``, an empty key prints as ``\e``, and a character that a terminal does not print is
written ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from treeload._errors import RuleError

NameLike: TypeAlias = "Name | tuple[str, ...] | str"


class Name(tuple[str, ...]):
    r"""The key strings from the root of a tree to one of its leaves.

    A ``Name`` is a tuple, equal to the plain tuple of the same strings. The name of the root is the
    empty tuple, and prints as the empty string.

    Examples:
        >>> name = Name(("encoder", "layers", "0", "kernel"))
        >>> str(name)
        'encoder/layers/0/kernel'
        >>> str(Name(("a/b", "c")))
        'a\\/b/c'
        >>> Name.parse("encoder/layers/0/kernel") == name
        True

    Raises:
        RuleError: a printed name that no name prints as.
        TypeError: a key that is not a string.
    """

    __slots__ = ()

    def __new__(cls, keys: Iterable[str] = ()) -> Name:
        if isinstance(keys, str):
            return cls.parse(keys)
        self = super().__new__(cls, keys)
        for key in self:
            if not isinstance(key, str):
                raise TypeError(f"a Name is made of strings, not of {type(key).__name__}: {key!r}")
        return self

    @classmethod
    def parse(cls, text: str) -> Name:
        r"""The name that prints as ``text``: ``Name.parse(str(name)) == name`` for every name.

        Examples:
            >>> Name.parse(r"a\/b/c") == ("a/b", "c")
            True
        """
        if text == "":
            return cls()
        return cls(_unescape(segment, text) for segment in split(text))

    def __str__(self) -> str:
        return print_name(self)

    def __repr__(self) -> str:
        return f"Name({print_name(self)!r})"

    def __getnewargs__(self) -> tuple[tuple[str, ...]]:
        return (tuple(self),)


def as_name(name: NameLike) -> Name:
    """The ``Name`` of a name however it was given: a Name, a tuple of keys, or a printed name."""
    if isinstance(name, Name):
        return name
    return Name.parse(name) if isinstance(name, str) else Name(name)


def prefixes_of(name: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The names of the nodes above a leaf, the root first."""
    return [name[:depth] for depth in range(len(name))]


def nodes_above(names: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """The names of all nodes above any of these leaves, the root among them.

    Examples:
        >>> sorted(nodes_above([("a", "b", "kernel"), ("a", "b", "bias"), ("c",)]))
        [(), ('a',), ('a', 'b')]
    """
    found: set[tuple[str, ...]] = set()
    level = {name[:-1] for name in names if name}
    while level:  # many leaves have one parent: a level at a time is a fraction of every leaf's prefixes
        found |= level
        level = {name[:-1] for name in level if name} - found
    return found


_PLAIN = re.compile(r"[^\\/]+")


def print_name(keys: Sequence[str]) -> str:
    """``keys`` in the printed syntax. Works on any tuple of strings, so that hot loops need no Name."""
    text = "/".join(keys)
    # One test for the common case: nothing to escape, no empty key.
    if text.count("/") == len(keys) - 1 and "\\" not in text and text.isprintable():
        if "" not in keys:
            return text
    return "/".join(map(print_key, keys))


def print_key(key: str) -> str:
    """One key in the printed syntax."""
    if _PLAIN.fullmatch(key) and key.isprintable():
        return key
    return "".join(map(_escape, key)) or "\\e"


def _escape(character: str) -> str:
    if character in "\\/":
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_SEGMENT = re.compile(r"(?:[^\\/]|\\.)*", re.DOTALL)


def split(text: str) -> list[str]:
    """``text`` cut at every ``/`` that is not escaped; the segments stay escaped.

    Raises:
        RuleError: an empty segment (an empty key is written ``\\e``), or a lone ``\\`` at the end.
    """
    segments, at = [], 0
    while True:
        match = _SEGMENT.match(text, at)
        assert match is not None  # the pattern matches the empty string
        segment, at = match.group(), match.end()
        if at < len(text) and text[at] == "\\":
            raise RuleError(f"{text!r} ends in a lone '\\': write '\\\\' for a backslash in a key")
        if segment == "" and at == len(text) > 1:
            raise RuleError(f"{text!r} ends in '/': leave the last '/' out")
        if segment == "":
            raise RuleError(
                f"{text!r} has an empty segment: write '\\e' for an empty key, '\\/' for a '/' in a key"
            )
        segments.append(segment)
        if at == len(text):
            return segments
        at += 1


_ESCAPED = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(e)|(.))", re.DOTALL)


def _unescape(segment: str, text: str) -> str:
    if "\\" not in segment:
        return segment

    def character(match: re.Match[str]) -> str:
        x, u, long, empty, literal = match.groups()
        if empty:
            return ""
        if literal is not None:
            if literal in "xuU":
                raise RuleError(f"{text!r} holds '\\{literal}' without its hexadecimal digits")
            return literal
        code = int(x or u or long, 16)
        if code > 0x10FFFF:
            raise RuleError(f"{text!r} holds '\\U{long}', which is no character")
        return chr(code)

    return _ESCAPED.sub(character, segment)


def unescape_key(segment: str) -> str:
    """One escaped segment as the key it stands for."""
    return _unescape(segment, segment)


Keys: TypeAlias = tuple[str, ...]
