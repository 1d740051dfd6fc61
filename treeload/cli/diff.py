"""``treeload diff``: what differs between two checkpoints."""

from __future__ import annotations

from typing import Annotated

import typer

from treeload.cli import given
from treeload.cli.say import Json, aside, show, show_json


def diff(
    a: Annotated[str, typer.Argument(help="A checkpoint.")],
    b: Annotated[str, typer.Argument(help="Another.")],
    rules: Annotated[
        str | None,
        typer.Option(
            help="How the names of A become those of B, in a file of Python.", metavar="FILE.py:NAME"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """What differs between two checkpoints, leaf by leaf. The status is 1 where anything does."""
    import treeload

    with aside(), given.by_name(a, b, otherwise=given.FROM_PYTHON):
        found = treeload.diff(a, b, rules=given.rules(rules))
    if json:
        show_json(found.to_dict())
    else:
        show(found)
        if rules is None and (rule := found.renamed) is not None:
            typer.echo(_ALIKE.format(rule=rule))
    if not found.equal:
        raise typer.Exit(1)


_ALIKE = """
to compare the values, --rules FILE.py with

from treeload import Rename

rules = [{rule!r}]"""
