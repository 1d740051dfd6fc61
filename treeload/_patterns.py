r"""Patterns over printed names, with captures, and the templates that captures are written into.

Owns what a pattern in a rule, a policy or a scope means. Refuses to own what is done with a match.
A pattern is compiled once into a regular expression over the printed name (``_names``), so that it
escapes as names do.

    *          any characters within one segment          layers/*/bias
    **         any number of segments, none too           **/bias   head/**
    {i}        captures a segment or a part of one        layers/{i}/k   layer_{i}/k
    {*rest}    captures any number of segments            model/{*rest}

A pattern matches the whole name. The same capture twice must be the same text twice. ``\*``, ``\{``
and ``\}`` are the characters themselves. A compiled ``re.Pattern`` is taken as it is (``fullmatch``
on the printed name; templates as in ``re.Match.expand``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from treeload._errors import RuleError
from treeload._names import Name, print_key, print_name, split, unescape_key

PatternLike: TypeAlias = "str | re.Pattern[str] | tuple[str, ...]"

_CHARACTER = r"(?:[^/\\]|\\.)"
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
    """

    text: str
    captures: tuple[str, ...]
    many: frozenset[str]
    regex: re.Pattern[str]
    opaque: bool = False

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
    if isinstance(pattern, tuple):
        return _compile(quote(pattern))
    raise RuleError(f"a pattern is a string, a Name or a compiled re.Pattern, not {pattern!r}")


def quote(name: Sequence[str]) -> str:
    r"""The pattern that matches exactly this name.

    >>> print(quote(("a*", "b")))
    a\*/b
    """
    return _WILD.sub(r"\\\g<0>", print_name(name))


@dataclass(frozen=True)
class Template:
    """What a match is written into: a name with the captures of one pattern put in."""

    text: str
    parts: tuple[tuple[bool, str], ...]  # (is a capture, its name) or (False, literal text)
    opaque: bool = False

    def expand(self, match: re.Match[str]) -> tuple[str, ...]:
        """The keys of the name that ``match`` gives.

        Raises:
            RuleError: only for a compiled ``re.Pattern``: the text it expands to is no name.
        """
        if self.opaque:
            return Name.parse(match.expand(self.text))
        text = "".join([match[part] if capture else part for capture, part in self.parts])[:-1]
        if "\\" in text:
            return Name.parse(text)
        return tuple(text.split("/")) if text else ()

    def __str__(self) -> str:
        return self.text


def compile_template(template: PatternLike, pattern: Pattern) -> Template:
    """The template for the captures of ``pattern``.

    Raises:
        RuleError: a wildcard, a capture that the pattern lacks, or one used as another kind.
    """
    if isinstance(template, tuple):
        template = quote(template)
    if not isinstance(template, str):
        raise RuleError(f"the right side of a rule is a string or a Name, not {template!r}")
    if pattern.opaque:
        try:
            pattern.regex.sub(template, "")
        except (re.error, IndexError) as error:
            raise RuleError(f"{template!r} does not fit the expression {pattern.text!r}: {error}") from error
        return Template(template, (), opaque=True)
    parts: list[tuple[bool, str]] = []
    for token in _tokens(template):
        match token:
            case ("text", text):
                parts.append((False, text))
            case ("capture", capture) | ("many", capture):
                if capture not in pattern.captures:
                    known = ", ".join(f"{{{name}}}" for name in pattern.captures) or "none"
                    raise RuleError(
                        f"{template!r} uses {{{capture}}}, which {pattern.text!r} does not capture "
                        f"(its captures: {known})"
                    )
                if (token[0] == "many") != (capture in pattern.many):
                    raise RuleError(
                        f"{{{capture}}} captures one segment on one side and many on the other: "
                        f"{pattern.text!r} -> {template!r}"
                    )
                parts.append((True, capture))
            case _:
                raise RuleError(f"a wildcard cannot be filled in: name it in braces, {template!r}")
    return Template(template, tuple(parts))


def is_literal(pattern: Pattern) -> bool:
    """Whether the pattern has neither wildcards nor captures: it can match one name only."""
    return not pattern.opaque and all(kind == "text" for kind, _ in _tokens(pattern.text))


@lru_cache(maxsize=4096)
def _compile(text: str) -> Pattern:
    captures: list[str] = []
    many: set[str] = set()
    expression: list[str] = []
    for kind, value in _tokens(text):
        if kind == "text":
            expression.append(re.escape(value))
        elif kind == "*":
            expression.append(f"{_CHARACTER}*")
        elif kind == "**":
            expression.append(f"(?:{_CHARACTER}+/)*")
        elif value in captures:
            if (kind == "many") != (value in many):
                raise RuleError(f"{text!r} captures {{{value}}} both as one segment and as many")
            expression.append(f"(?P={value})")
        else:
            captures.append(value)
            if kind == "many":
                many.add(value)
            body = f"(?:{_CHARACTER}+/)*" if kind == "many" else f"{_CHARACTER}+"
            expression.append(f"(?P<{value}>{body})")
    regex = re.compile("".join(expression), re.DOTALL)
    return Pattern(text, tuple(captures), frozenset(many), regex)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """The parts of a pattern, in order: ("text", printed), ("*", ""), ("**", ""), ("capture", name), ("many", name).

    A segment's text ends in its ``/``, and ``**`` and ``{*many}`` hold their own: what is left is
    plain concatenation.
    """
    for segment in split(text) if text else ():
        if segment == "**":
            yield "**", ""
            continue
        alone = _CAPTURE.fullmatch(segment)
        if alone and alone[1]:
            yield "many", _capture_name(alone[2], text)
            continue
        if segment == "\\e":
            yield "text", "\\e/"
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
                yield "text", print_key(unescape_key(token))
        yield "text", "/"


def _capture_name(name: str, text: str) -> str:
    if not name.isidentifier():
        raise RuleError(f"{text!r} has a capture without a proper name: {{{name}}}")
    return name
