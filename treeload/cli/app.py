"""The commands together, and errors in one sentence."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import redirect_stdout, suppress
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from treeload._errors import TreeloadError
from treeload.cli import average, convert, demo, diff, digest, env, explain, inspect, plan, verify
from treeload.cli.say import Misuse, Output, Unprintable, version


class _Plainly:
    """Help that writes words as the documentation does: PATH, and nothing behind a flag."""

    def get_params(self, ctx: Any) -> list[Any]:
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # mixed into commands
        for each in found:
            if getattr(each, "is_flag", False):
                each.metavar = ""
        return found

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [each.upper().replace("{", "").replace("}", "") for each in pieces]


class _Command(_Plainly, TyperCommand):
    pass


class _Group(_Plainly, TyperGroup):
    pass


app = typer.Typer(
    name="treeload", cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False,
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
    app.command(cls=_Command)(_command)


def main() -> None:
    """Runs the command line and ends the process with its status."""
    arguments = [each for each in sys.argv[1:] if each != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if sys.stdout is None:  # a file that is opened would take its number, and be printed into
        _complain("the standard output is closed: there is nowhere to print to")
        sys.exit(2)
    printed = sys.stdout
    try:
        if "" in arguments:
            raise Misuse("an argument is empty, as a variable of the shell is that is not set")
        with redirect_stdout(Output(printed)):
            app(arguments, prog_name="treeload")
    except (TreeloadError, Misuse) as error:
        if debug:
            traceback.print_exc()
        _complain(str(error))
        sys.exit(2)
    except Unprintable as error:
        _let_go(printed)
        if isinstance(error.__cause__, BrokenPipeError):  # whoever read has seen enough
            sys.exit(128 + 13)  # as of a process that the signal for it ends
        if debug:
            traceback.print_exc()
        _complain(f"the standard output cannot be written: {getattr(error.__cause__, 'strerror', '')}")
        sys.exit(2)


def _complain(sentence: str) -> None:
    with suppress(OSError):  # where nobody can be told, the status says it
        typer.echo(f"treeload: {sentence}", err=True)


def _let_go(file: TextIO) -> None:
    """Nothing of what is left in it is tried to be written as the process ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
