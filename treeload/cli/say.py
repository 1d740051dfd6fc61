"""Text for a terminal or a pipe, and JSON."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Annotated, Any, TypeAlias

import typer

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
"""The option that every command has."""


class Misuse(Exception):
    """A command that cannot be carried out as it was given: said in one sentence, with the status 2."""


def show(what: Any) -> None:
    """Prints ``what``: with colours and as wide as the terminal where there is one, else as plain text."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(what)
    else:
        typer.echo(str(what))


def show_json(what: Any) -> None:
    """Prints JSON-like data; what JSON has no number for is a text."""
    typer.echo(json.dumps(what, indent=2, ensure_ascii=False, default=str))


def version(package: str) -> str:
    """The installed version of a package; empty where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
