"""``treeload average``: the mean of several checkpoints."""

from __future__ import annotations

from typing import Annotated

import typer

from treeload.cli import given
from treeload.cli.convert import refuse_existing, write
from treeload.cli.say import Json, Misuse


def average(
    sources: Annotated[list[str], typer.Argument(help="The checkpoints, of one model.")],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Where to write: a .safetensors file, else an Orbax directory.")
    ],
    weights: Annotated[
        str | None, typer.Option(help="A number for each, such as 3,1.", metavar="W,W,…")
    ] = None,
    json: Json = False,
) -> None:
    """The mean of several checkpoints of one model, leaf by leaf."""
    import treeload

    refuse_existing(out)
    numbers = None
    if weights is not None:
        try:
            numbers = [float(each) for each in weights.split(",")]
        except ValueError:
            raise Misuse(f"--weights takes numbers, such as 3,1, not {weights!r}") from None
    with given.by_name(*sources, otherwise=given.FROM_PYTHON):
        mean = treeload.average(sources, weights=numbers)
    write(out, mean, sources, json=json)
