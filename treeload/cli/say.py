"""Text for a terminal or a pipe, and JSON."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from contextlib import AbstractContextManager, redirect_stdout
from typing import Annotated, Any, TextIO, TypeAlias

import typer

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
"""The option that every command has."""


class Misuse(Exception):
    """A command that cannot be carried out as it was given: said in one sentence, with the status 2."""


class Unprintable(Exception):
    """What was to be printed found no place; the cause is what the system said."""


class Output:
    """The standard output, whose failures are told from those of all other files."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Writes a text, or raises ``Unprintable``."""
        try:
            return self._file.write(text)
        except OSError as error:
            raise Unprintable from error

    def flush(self) -> None:
        """Hands on what is written, or raises ``Unprintable``."""
        try:
            self._file.flush()
        except OSError as error:
            raise Unprintable from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def aside() -> AbstractContextManager[Any]:
    """Where code of yours runs: what it prints goes to the standard error, beside what a command says."""
    return redirect_stdout(sys.stderr)


def show(what: Any) -> None:
    """Prints ``what``: with colours and as wide as the terminal where there is one, else as plain text."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.protocol import rich_cast

        with aside():  # to put a report into words, rules are tried
            laid = rich_cast(what)
        Console(highlight=False).print(laid)
    else:
        with aside():
            text = str(what)
        typer.echo(text)


def show_json(what: Any) -> None:
    """Prints JSON-like data; what JSON has no number for is a text."""
    typer.echo(json.dumps(what, indent=2, ensure_ascii=False, default=str))


def version(package: str) -> str:
    """The installed version of a package; empty where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
