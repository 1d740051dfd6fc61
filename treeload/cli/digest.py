"""``treeload digest``: digests beside a checkpoint of another library."""

from __future__ import annotations

from typing import Annotated

import typer

from treeload.cli.say import Json, show_json


def digest(
    path: Annotated[str, typer.Argument(help="The checkpoint, which you trust as it is now.")],
    json: Json = False,
) -> None:
    """Writes the digests of a checkpoint beside it, by which every later load is checked."""
    import treeload

    made = treeload.digest(path)
    show_json({"path": str(made)}) if json else typer.echo(str(made))
