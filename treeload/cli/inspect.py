"""``treeload inspect``: what a checkpoint holds."""

from __future__ import annotations

from typing import Annotated

import typer

from treeload.cli.say import Json, Misuse, show, show_json


def inspect(
    path: Annotated[str, typer.Argument(help="A checkpoint: a file, a directory or a URL.")],
    pattern: Annotated[
        str | None, typer.Option(help="Only the leaves that it matches, such as '**/bias'.", metavar="P")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Fold what lies deeper, with its sum.", metavar="N", min=0)
    ] = None,
    sort: Annotated[str, typer.Option(help="file, bytes or name.", metavar="BY")] = "file",
    stats: Annotated[
        bool, typer.Option("--stats", help="Read all of it: min, max, mean, zeros, NaN of each leaf.")
    ] = False,
    json: Json = False,
) -> None:
    """What a checkpoint holds: names, shapes, dtypes, bytes, ties; nothing is read but its headers."""
    from treeload import open as open_checkpoint
    from treeload._checkpoints.stats import stats_of
    from treeload._reports.inventory import inventory
    from treeload._reports.outline import SORTS, outline

    if sort not in SORTS:
        raise Misuse(f"--sort takes {', '.join(SORTS)}, not {sort!r}")
    source = open_checkpoint(path)
    found = inventory(source)
    if pattern is not None:
        found = found.matching(pattern)
        if not found.leaves:
            raise Misuse(
                f"{pattern!r} matches none of the {len(inventory(source)):,} leaves of {source.label}"
            )
    known = stats_of(source, [leaf.name for leaf in found.leaves]) if stats else None
    if json:
        said = {} if known is None else {"stats": {str(name): one.to_dict() for name, one in known.items()}}
        show_json({**found.to_dict(), **said})
    else:
        show(outline(found, depth=depth, sort=sort, stats=known))
