"""``treeload verify``: whether a checkpoint's bytes are those that were written."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from treeload.cli.say import Json, show, show_json


def verify(
    path: Annotated[str, typer.Argument(help="The checkpoint.")],
    json: Json = False,
) -> None:
    """Reads all of a checkpoint and holds it against its digests. The status is 1 where anything is damaged.

    What has no digest is said, and is no damage: `treeload digest` makes them.
    """
    import treeload

    found = treeload.verify(path)
    if json:
        show_json(
            {
                "source": found.label,
                "ok": found.ok,
                "checked": [str(name) for name in found.checked],
                "damaged": {str(name): found.reasons.get(name, "") for name in found.damaged},
                "unverified": [str(name) for name in found.unverified],
            }
        )
    else:
        show(found)
        if found.unverified:
            typer.echo(f"on the command line: treeload digest {shlex.quote(path)}")
    if found.damaged:
        raise typer.Exit(1)
