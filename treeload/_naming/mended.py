"""What a pattern that matches no name was to be: a subtree, names with dots, a typo in a segment.

Owns the tries, in the order of how likely each is meant. What is returned matches something: nothing here is
a guess about names that there are not.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from treeload._errors import RuleError
from treeload._naming.name import split
from treeload._naming.pattern import Pattern, compile_pattern

_NAMES = 20_000  # of more names these are looked at
_KEYS = 400  # and of more different keys a typo is not looked for
_SHORT = 3  # characters that a key must have to be short for another
_ALIKE = 0.75  # how nearly a key is another, as difflib measures it


@dataclass(frozen=True)
class Mended:
    """A pattern that matches, near one that does not.

    Attributes:
        text: the pattern.
        count: how many of the names it matches.
        below: it is the other's subtree: the text with ``/**`` behind it.
    """

    text: str
    count: int
    below: bool = False


def mend(pattern: Pattern, printed: Collection[str]) -> Mended | None:
    """The pattern that was probably meant by one that matches none of these names; None where none is near.

    Examples:
        >>> mend(compile_pattern("head"), ["head/kernel", "head/bias"])
        Mended(text='head/**', count=2, below=True)
        >>> mend(compile_pattern("haed/**"), ["head/kernel", "encoder/kernel"])
        Mended(text='head/**', count=1, below=False)
    """
    if pattern.opaque or not pattern.text:
        return None
    names = list(printed)[:_NAMES]
    for text in _tries(pattern.text, names):
        try:
            tried = compile_pattern(text)
        except RuleError:
            continue
        count = sum(map(tried.matches, names))
        if count:
            return Mended(text, count, below=text == f"{pattern.text}/**")
    return None


def _tries(text: str, names: Collection[str]) -> Iterator[str]:
    yield f"{text}/**"
    yield text.removesuffix("/*")
    if "." in text:
        # A regular expression, or the dots of another library's names.
        dotted = text.replace(r"\.", ".")
        if dotted.endswith(".*"):
            yield f"{dotted[:-2].replace('.', '/')}/**"
        yield dotted.replace(".", "/")
    if (mended := _without_typos(text, names)) is not None:
        yield mended
        yield f"{mended}/**"
    yield f"**/{text}"
    yield f"**/{text}/**"


def _without_typos(text: str, names: Collection[str]) -> str | None:
    """The pattern with each segment that is no key of any name written as the nearest that is one."""
    keys = {key for name in names for key in split(name)} if names else set()
    if len(keys) > _KEYS:
        return None
    found = []
    for segment in split(text):
        near = [segment]
        if segment not in keys and not set(segment) & set("*{}"):
            near = _near(segment, sorted(key for key in keys if key[0] == segment[0]))
        if not near:
            return None
        found += near
    mended = "/".join(found)
    return None if mended == text else mended


def _near(segment: str, keys: Sequence[str]) -> list[str]:
    """The key that a segment was to be: a typo, or one that is short for the other."""
    near = difflib.get_close_matches(segment, keys, 1, _ALIKE)
    if near or len(segment) < _SHORT:
        return near
    return [
        key for key in keys if len(key) >= _SHORT and (key.startswith(segment) or segment.startswith(key))
    ][:1]
