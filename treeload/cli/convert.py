"""``treeload convert``: a checkpoint in another format, or under other names."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from treeload.cli import given
from treeload.cli.say import Json, Misuse, aside, show_json


def convert(
    src: Annotated[str, typer.Argument(help="The checkpoint, in any format.")],
    out: Annotated[str, typer.Argument(help="Where to write: a .safetensors file, else an Orbax directory.")],
    rules: Annotated[
        str | None, typer.Option(help="Its new names, in a file of Python.", metavar="FILE.py:NAME")
    ] = None,
    json: Json = False,
) -> None:
    """A checkpoint in another format, bit for bit; under other names and in other layouts if rules say so."""
    from treeload import From
    from treeload._checkpoints.view import View
    from treeload._matching.parts import opened_parts
    from treeload._trees.tree import nested

    refuse_existing(out)
    with aside(), given.by_name(src, otherwise=given.FROM_PYTHON):  # rules are yours, and run
        view = View.of(opened_parts(From(src, rules=given.rules(rules)), "convert"))
        ties = view.ties()
        arrays = dict(view.read({name: spec for name, spec in view.specs().items() if name not in ties}))
    arrays.update({alias: arrays[name] for alias, name in ties.items()})  # one array again, so tied again
    write(
        out,
        nested({tuple(name): array for name, array in arrays.items()}),
        view.sources if rules is None else None,
        json=json,
    )


def refuse_existing(out: str) -> None:
    """Nothing, where nothing lies at ``out``."""
    if os.path.lexists(out):
        raise Misuse(f"{out!r} exists, and is not replaced")


def write(out: str, tree: Any, provenance: Any, *, json: bool) -> None:
    """Writes a tree of arrays where, and in the format that, ``out`` says."""
    import treeload

    if out.endswith(".safetensors"):
        treeload.export(out, tree)
    else:
        treeload.save(out, tree, provenance=None if provenance is None else list(provenance))
    found = treeload.inspect(out)
    if json:
        show_json({"path": out, "leaves": len(found), "bytes": found.nbytes})
    else:
        typer.echo(
            f"{len(found):,} {'leaf' if len(found) == 1 else 'leaves'}, {found.nbytes:,} bytes in {out}"
        )
