r"""Names of leaves: tuples of key strings, and how they are printed and read back.

Owns the one syntax for names in errors, reports, rules and docs. Refuses to own how a tree is walked
(``_trees``) and what a pattern means (``_patterns``). Nothing here looks at arrays.

Segments are joined with ``/``. So that printing loses nothing, ``\`` and ``/`` inside a key are
escaped by ``\``, an empty key prints as ``\e``, and a character that a terminal does not print is
written ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
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


class NearNames:
    """Which of some names are nearly a given one.

    Names that share a key are compared as text, the ones that share most first; so a typo in one
    segment, a prefix too much or a renamed last key are found among many thousands of names.
    """

    _COMPARED = 24  # how many candidates are compared as text for one name
    _PATIENCE = 400  # how many names are looked up: text is compared at some 50 µs a pair

    def __init__(self, names: Iterable[tuple[str, ...]]) -> None:
        self._names = list(names)
        self._holding: dict[str, list[int]] = {}
        for number, name in enumerate(self._names):
            for key in dict.fromkeys(name):
                self._holding.setdefault(key, []).append(number)
        self._asked = 0

    def near(self, name: tuple[str, ...], *, count: int = 3) -> list[tuple[str, ...]]:
        """The nearest names, best first; at most ``count``, and none where nothing is near."""
        self._asked += 1
        if self._asked > self._PATIENCE:
            return []
        shared: Counter[int] = Counter()
        for key in dict.fromkeys(name):
            holding = self._holding.get(key, ())
            # A key that a great many names hold tells nothing.
            if len(holding) <= 2000:
                shared.update(holding)
        candidates = [number for number, _ in shared.most_common(self._COMPARED)]
        if len(self._names) <= 2 * self._COMPARED:
            candidates = list(range(len(self._names)))
        text = print_name(name)
        scored = []
        for number in candidates:
            ratio = difflib.SequenceMatcher(
                None, text, print_name(self._names[number]), autojunk=False
            ).ratio()
            # A last key that hardly another name has is a near name by itself, whatever the module is called.
            same_last = bool(name) and self._names[number][-1:] == name[-1:]
            if ratio >= 0.6 or (same_last and len(self._holding[name[-1]]) <= 2):
                scored.append((-ratio, number))
        return [self._names[number] for _, number in sorted(scored)[:count]]
