"""The commands together, and errors in one sentence."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from treeload._errors import TreeloadError
from treeload.cli import average, convert, demo, diff, digest, env, explain, inspect, plan, verify
from treeload.cli.say import Misuse, version

app = typer.Typer(
    name="treeload", no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"treeload {version('treeload')}")
        raise typer.Exit


@app.callback()
def _treeload(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error came from; anywhere in the line.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Loads checkpoints into JAX trees by name, strictly, and after saying what it will do.

    The exit status is 0 where all is well, 1 where there is something to look at (findings, differences,
    damage), and 2 where a command was not understood or something could not be read.
    """


for _command in (
    inspect.inspect, plan.plan, explain.explain, diff.diff, verify.verify, digest.digest, average.average,
    convert.convert, demo.demo, env.env,
):  # fmt: skip
    app.command()(_command)


def main() -> None:
    """Runs the command line and ends the process with its status."""
    arguments = [each for each in sys.argv[1:] if each != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments)
    except (TreeloadError, Misuse) as error:
        if debug:
            raise
        typer.echo(f"treeload: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
