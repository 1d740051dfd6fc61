"""``treeload explain``: the page of a kind of finding."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from treeload._findings.explained import page
from treeload._findings.kinds import KINDS, Kind
from treeload.cli.say import Json, Misuse, show, show_json

if TYPE_CHECKING:
    from rich.markdown import Markdown


def explain(
    kind: Annotated[
        list[str] | None,
        typer.Argument(help="Kinds of findings, as reports name them; without any: a list."),
    ] = None,
    json: Json = False,
) -> None:
    """What a kind of finding means, when there is one, and the ways to go on."""
    asked = list(dict.fromkeys(map(_kind, kind or ())))
    if json:
        show_json({each: _as_json(each, whole=bool(asked)) for each in asked or KINDS})
    elif asked:
        show(_Page("\n".join(map(page, asked))))
    else:
        width = max(map(len, KINDS))
        for each, manner in KINDS.items():
            typer.echo(f"{each:<{width}}  {manner.meaning.replace('`', '')}")


def _kind(word: str) -> Kind:
    if word in KINDS:
        return Kind(word)
    near = difflib.get_close_matches(word.lower(), KINDS, 1)
    meant = f"; {near[0]!r} is near" if near else ""
    raise Misuse(f"{word!r} is no kind of finding{meant}: the kinds are {', '.join(KINDS)}")


def _as_json(kind: Kind, *, whole: bool) -> dict[str, object]:
    manner = KINDS[kind]
    said: dict[str, object] = {"meaning": manner.meaning, "verdicts": list(manner.verdicts)}
    return {**said, "page": page(kind)} if whole else said


class _Page:
    """Markdown: laid out on a terminal, else as it is written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text.rstrip("\n")

    def __rich__(self) -> Markdown:
        from rich.console import Console, ConsoleOptions, RenderResult
        from rich.markdown import CodeBlock, Markdown
        from rich.syntax import Syntax

        class Block(CodeBlock):
            """Code from the first column on: reports are as wide as a terminal."""

            def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
                code = str(self.text).rstrip()
                yield Syntax(
                    code, self.lexer_name, theme=self.theme, background_color="default", word_wrap=True
                )

        class Laid(Markdown):
            elements: ClassVar = {**Markdown.elements, "fence": Block}

        return Laid(self._text, code_theme="ansi_dark", hyperlinks=False)
