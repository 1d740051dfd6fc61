"""Templates: what the captures of a pattern are written into.

Owns the right side of a rule. What a pattern is, and how its parts are told apart, is in ``pattern``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from treeload._errors import RuleError
from treeload._naming.name import Name, print_name
from treeload._naming.pattern import Pattern, PatternLike, captured, quote, tokens_of


@dataclass(frozen=True)
class Template:
    """What a match is written into: a name with the captures of one pattern put in."""

    text: str
    parts: tuple[tuple[bool, str], ...]  # (is a capture, its name) or (False, literal text)
    opaque: bool = False

    def expand(self, match: re.Match[str] | Mapping[str, str]) -> tuple[str, ...]:
        """The keys of the name that ``match`` gives.

        Raises:
            RuleError: only for a compiled ``re.Pattern``: the text it expands to is no name.
        """
        if self.opaque:
            assert isinstance(match, re.Match)
            return Name.parse(match.expand(self.text))
        text = "".join([match[part] if capture else part for capture, part in self.parts])[:-1]
        if "\\" in text:
            return Name.parse(text)
        return tuple(text.split("/")) if text else ()

    def __str__(self) -> str:
        return self.text


def compile_template(template: PatternLike, pattern: Pattern) -> Template:
    """The template for the captures of ``pattern``.

    Examples:
        >>> from treeload.rules import compile_pattern
        >>> pattern = compile_pattern("layer_{i}/weight")
        >>> compile_template("layers/{i}/kernel", pattern).expand(pattern.match("layer_3/weight"))
        ('layers', '3', 'kernel')

    Raises:
        RuleError: a wildcard, a capture that the pattern lacks, or one used as another kind.
    """
    if isinstance(template, tuple) and all(isinstance(key, str) for key in template):
        template = print_name(template).replace("\\", r"\\") if pattern.opaque else quote(template)
    if not isinstance(template, str):
        raise RuleError(f"the right side of a rule is a string or a Name, not {template!r}")
    if pattern.opaque:
        try:
            pattern.regex.sub(template, "")
        except (re.error, IndexError) as error:
            raise RuleError(f"{template!r} does not fit the expression {pattern.text!r}: {error}") from error
        return Template(template, (), opaque=True)
    parts: list[tuple[bool, str]] = []
    for token in tokens_of(template):
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
                raise RuleError(f"a wildcard cannot be filled in: {_with_captures(template, pattern.text)}")
    return Template(template, tuple(parts))


def _with_captures(template: str, pattern: str) -> str:
    """What to write where a template has wildcards: captures, if the pattern has the same ones."""
    if _wildcards(template) != _wildcards(pattern):
        return f"name it in braces on both sides, {template!r}"
    return f"write {captured(pattern, 'xyz')!r} and {captured(template, 'xyz')!r}"


def _wildcards(text: str) -> list[str]:
    return [kind for kind, _ in tokens_of(text) if kind in ("*", "**")]
