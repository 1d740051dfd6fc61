"""Lines of a report: what may stand in one, where it breaks, and what colour it has on a terminal.

Owns the width of a page, the breaking of sentences and of code, and the styles. Knows neither plans nor
sources. A line is a ``rich.text.Text``: ``plain`` is what ``str()`` of a plan shows, and only a terminal
shows the colours. No line ever holds a character that a terminal would act upon.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from rich.text import Text

from treeload._naming.printable import printable as printable

WIDTH = 80


MARGIN = "  "


HEAD = "bold"


WRONG = "red"


CODE = "cyan"


QUIET = "dim"


def line(*parts: str | tuple[str, str]) -> Text:
    """One line, of texts or of texts with a style each."""
    return Text.assemble(
        *(printable(part) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts)
    )


def counted(number: int, one: str, many: str) -> str:
    """``1 leaf``, ``2,000 leaves``."""
    return f"{number:,} {one if number == 1 else many}"


def sentence(
    text: str, indent: str, *, hanging: str | None = None, whole: Iterable[str] = (), style: str = ""
) -> list[Text]:
    """A sentence broken at blanks, but never inside a text to be kept ``whole`` that fits on a line."""
    text = printable(text)
    for each in filter(None, map(printable, whole)):
        if len(each) <= WIDTH - len(hanging or indent):
            text = text.replace(each, each.replace(" ", "\0"))
    wrapped = textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [Text(each.replace("\0", " "), style) for each in wrapped]


def labelled(label: str, text: str, indent: str, *, width: int, style: str = "") -> list[Text]:
    """A label and its text, in columns; a text that is too long is broken where it has blanks."""
    first = f"{indent}{label:<{width}}"
    room = WIDTH - len(first)
    text = printable(text)
    lines = [text] if len(text) <= room else textwrap.wrap(
        text, room, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
    return [line(first if at == 0 else " " * len(first), (each, style)) for at, each in enumerate(lines)]


@dataclass(frozen=True)
class Code:
    """Code to be pasted, on one line, and as it breaks where it must."""

    whole: str
    broken: tuple[str, ...]


NO_CODE = Code("", ())


def code(before: str, said: Code, after: str, indent: str) -> list[Text]:
    """Words, code to be pasted, and more words: on one line, or else the code begins a line of its own."""
    before, after = printable(before), printable(after)
    words = f"{before} " if before else ""
    if len(indent) + len(words) + len(said.whole) <= WIDTH - after.startswith(","):
        lines = [line(indent, words, (said.whole, CODE))]
    else:
        lines = sentence(before, indent, hanging=indent + MARGIN) if before else []
        if len(MARGIN) + len(said.whole) <= WIDTH:
            # As far in as it fits: what is broken is not pasted with one stroke.
            lines.append(line(" " * min(len(indent) + 2, WIDTH - len(said.whole)), (said.whole, CODE)))
        else:
            lines += [line(indent, MARGIN, (each, CODE)) for each in said.broken]
    if after and len(lines[-1].plain + after) <= WIDTH:
        lines[-1].append(after)
    elif after:
        lines += sentence(after.lstrip(", "), indent, hanging=indent + MARGIN)
    return lines
