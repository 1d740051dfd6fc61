r"""Patterns over printed names, with captures, and the templates that captures are written into.

Owns what a pattern in a rule, a policy or a scope means. Refuses to own what is done with a match.
A pattern is compiled once into a regular expression over the printed name (``_naming``), so that it
escapes as names do.

    *          any characters within one segment          layers/*/bias
    **         any number of segments, none too           **/bias   head/**
    {i}        captures a segment or a part of one        layers/{i}/k   layer_{i}/k
    {*rest}    captures any number of segments            model/{*rest}

A pattern matches the whole name. Where there are several ways, the earlier wildcard or capture takes as
much as it can. The same capture twice must be the same text twice. ``\*``, ``\{`` and ``\}`` are the
characters themselves. A compiled ``re.Pattern`` is taken as it is (``fullmatch`` on the printed name;
templates as in ``re.Match.expand``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, product
from typing import TypeAlias

from treeload._errors import RuleError
from treeload._naming.name import print_key, print_name, split, unescape_key

PatternLike: TypeAlias = "str | re.Pattern[str] | tuple[str, ...]"


Token: TypeAlias = tuple[str, str]  # what it is, and its text or name


_END: Token = ("text", "/")


_CHARACTER = r"(?:[^/\\]|\\(?:x..|u.{4}|U.{8}|[^xuU]))"  # as ``_naming`` prints one


_SEGMENT = f"(?:{_CHARACTER}+/)"


_CAPTURE = re.compile(r"\{(\*?)([^{}]*)\}")


_TOKEN = re.compile(r"(?:\\.|[^\\*{}])+|\{[^{}]*\}|\*+|[{}]", re.DOTALL)


_WILD = re.compile(r"[*{}]")


@dataclass(frozen=True)
class Pattern:
    """One compiled pattern.

    Attributes:
        text: the pattern as it was written.
        captures: the names of its captures, in order.
        many: those of them that capture any number of segments.
        regex: the expression, over a printed name with a ``/`` after its last segment.
        opaque: it was given as ``re.Pattern``, is matched against the name alone, and cannot be
            turned round.
        wild: it holds a ``*`` or ``**``, what they match is not captured, and cannot be turned round.
    """

    text: str
    captures: tuple[str, ...]
    many: frozenset[str]
    regex: re.Pattern[str]
    opaque: bool = False
    wild: bool = False

    def match(self, printed: str) -> re.Match[str] | None:
        """The match of a whole printed name, or None."""
        # Each segment is closed by a "/": so ``**`` needs no special case at either end.
        return self.regex.fullmatch(printed if self.opaque or not printed else printed + "/")

    def matches(self, printed: str) -> bool:
        """Whether this is a pattern of the printed name."""
        return self.match(printed) is not None

    def __str__(self) -> str:
        return self.text


def compile_pattern(pattern: PatternLike) -> Pattern:
    """The compiled form of a pattern, a compiled regular expression, or a plain name.

    Examples:
        >>> compile_pattern("layers/{i}/kernel").match("layers/3/kernel")["i"]
        '3'
        >>> compile_pattern("**/bias").matches("bias")
        True

    Raises:
        RuleError: what cannot mean anything: an empty segment, an open brace, ``**`` beside other
            characters of a segment, a capture without a name.
    """
    if isinstance(pattern, re.Pattern):
        if not isinstance(pattern.pattern, str):
            raise RuleError(f"a pattern over names is a regular expression of str, not {pattern!r}")
        return Pattern(pattern.pattern, tuple(pattern.groupindex), frozenset(), pattern, opaque=True)
    if isinstance(pattern, str):
        return _compile(pattern)
    if isinstance(pattern, tuple) and all(isinstance(key, str) for key in pattern):
        return _compile(quote(pattern))
    raise RuleError(f"a pattern is a string, a Name or a compiled re.Pattern, not {pattern!r}")


def quote(name: Sequence[str]) -> str:
    r"""The pattern that matches exactly this name.

    Examples:
        >>> print(quote(("a*", "b")))
        a\*/b
    """
    return _WILD.sub(r"\\\g<0>", print_name(name))


def captured(pattern: str, letters: str = "ijk") -> str:
    """The pattern with a capture for each wildcard: what is captured can be written, a wildcard cannot.

    Examples:
        >>> captured("layers/*/**")
        'layers/{i}/{*j}'
    """
    names = (f"{letter}{number or ''}" for number in count() for letter in letters)

    def capture(found: re.Match[str]) -> str:
        match found[0]:
            case "*":
                return f"{{{next(names)}}}"
            case "**":
                return f"{{*{next(names)}}}"
            case escaped:
                return escaped

    return re.sub(r"\\.|\*\*?", capture, pattern)


@lru_cache(maxsize=4096)
def _compile(text: str) -> Pattern:
    tokens = list(tokens_of(text))
    many: dict[str, bool] = {}
    for kind, value in tokens:
        if kind in ("capture", "many") and many.setdefault(value, kind == "many") != (kind == "many"):
            raise RuleError(f"{text!r} captures {{{value}}} both as one segment and as many")
    regex = re.compile(_expression(tokens), re.DOTALL)
    wild = any(kind in ("*", "**") for kind, _ in tokens)
    return Pattern(text, tuple(many), frozenset(name for name in many if many[name]), regex, wild=wild)


def _expression(tokens: Sequence[Token]) -> str:
    """The regular expression of a pattern.

    Greedy wildcards that try every way of sharing a long name take a time that grows with a power of
    its length: as many as there are wildcards. So where two could share, a wildcard goes only where the
    rest can still be matched, which ``_rest`` tells in linear time. Only a capture that comes twice may
    still make it try.
    """
    if not any(kind in ("capture", "many") for kind, _ in tokens):
        return _rest(tokens)
    shares = [at for at, (kind, _) in enumerate(tokens[:-1]) if kind != "text" and tokens[at + 1] != _END]
    guarded = len(shares) > 1
    captured: set[str] = set()
    parts = [f"(?={_rest(tokens)})"] if guarded else []
    for at, (kind, value) in enumerate(tokens):
        if kind == "text":
            parts.append(re.escape(value))
        elif kind == "*":
            parts.append(f"{_CHARACTER}*")
        elif kind == "**":
            parts.append(f"{_SEGMENT}*")
        elif value in captured:
            parts.append(f"(?P={value})")
        else:
            captured.add(value)
            parts.append(f"(?P<{value}>{_SEGMENT}*)" if kind == "many" else f"(?P<{value}>{_CHARACTER}+)")
        if guarded and at in shares[:-1]:
            parts.append(f"(?={_rest(tokens[at + 1 :])})")
    return "".join(parts)


def _rest(tokens: Sequence[Token]) -> str:
    """An expression that matches where ``tokens`` match up to the end, tried in one pass.

    Each wildcard takes as little as it can and is never asked again, ``(?>...)``: what it could take
    more, the next one can take as well. It captures nothing, and takes no notice that two captures of
    one name must be the same.
    """
    parts: list[str] = []
    in_segments = in_characters = ""  # what closes the open groups
    for kind, value in tokens:
        if kind == "text":
            parts.append(re.escape(value))
        elif kind in ("**", "many"):
            parts.append(f"{in_characters}{in_segments}(?>{_SEGMENT}*?")
            in_segments, in_characters = ")", ""
        else:
            parts.append(f"{in_characters}(?>{_CHARACTER}{'*' if kind == '*' else '+'}?")
            in_characters = ")"
    return "".join((*parts, r"\Z", in_characters, in_segments))


def tokens_of(text: str) -> Iterator[Token]:
    """The parts of a pattern, in order: ("text", printed), ("*", ""), ("**", ""), ("capture", name), or
    ("many", name).

    A segment's text ends in its ``/``, and ``**`` and ``{*many}`` hold their own: what is left is
    plain concatenation.
    """
    if text.endswith("/") and len(text) > 1 and not text.endswith(("//", "\\/")):
        raise RuleError(
            f"{text!r} ends in '/': all that is below it is '{text}**', "
            f"in a rule '{text}{{*rest}}' on both sides"
        )
    for segment in split(text) if text else ():
        if segment == "**":
            yield "**", ""
            continue
        alone = _CAPTURE.fullmatch(segment)
        if alone and alone[1]:
            yield "many", _capture_name(alone[2], text)
            continue
        for token in _TOKEN.findall(segment):
            capture = _CAPTURE.fullmatch(token)
            if capture and capture[1]:
                raise RuleError(f"{text!r}: {token} captures whole segments, so it stands alone between '/'")
            if capture:
                yield "capture", _capture_name(capture[2], text)
            elif token == "*":
                yield "*", ""
            elif token.startswith("*"):
                raise RuleError(f"{text!r}: '**' is any number of segments, so it stands alone between '/'")
            elif token in "{}":
                raise RuleError(f"{text!r} has a lone {token!r}: write '\\{token}' for the character itself")
            else:
                key = unescape_key(token)
                if key or token == segment:
                    yield "text", print_key(key)
        yield _END


_FOLDED = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_RUN = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_SHOWN = 4  # patterns that are written in place of one


def _capture_name(name: str, text: str) -> str:
    if name.endswith("*") and name.strip("*").isidentifier():
        raise RuleError(f"{text!r}: {{{name}}} is written {{*{name.strip('*')}}}")
    if (folded := _FOLDED.search(text)) is not None:
        raise RuleError(f"{text!r}: {folded[0]} is how reports fold names; {_unfolded(text)}")
    if not name.isidentifier():
        raise RuleError(f"{text!r} has a capture without a proper name: {{{name}}}")
    return name


def _unfolded(text: str) -> str:
    """What to write in place of a name that a report folded: its members, where they are few."""
    pieces = [piece if at % 2 == 0 else _members(piece) for at, piece in enumerate(_FOLDED.split(text))]
    if math.prod(len(piece) for piece in pieces if isinstance(piece, list)) > _SHOWN or [] in pieces:
        return "write a pattern for each, or '*' where all of them are meant"
    every = product(*(piece if isinstance(piece, list) else [piece] for piece in pieces))
    return f"write {' and '.join(repr(''.join(each)) for each in every)}"


def _members(folded: str) -> list[str]:
    """What stands between braces, one by one; nothing where some of it was cut, or is very much."""
    found: list[str] = []
    for word in folded.split(","):
        run = _RUN.fullmatch(word)
        if run is not None:
            found += map(str, range(int(run[1]), min(int(run[2]), int(run[1]) + _SHOWN) + 1))
        elif "…" in word:
            return []
        else:
            found.append(word)
    return found
