"""The manual of the commands, made from the commands: ``docs/reference/commands.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

_HEAD = """# The command line

`treeload` looks at checkpoints from a terminal. Each command says with `--help` what is said here. Paths
may be files, directories or [URLs](../how-to/places.md).

The exit status is 0 where all is well, 1 where there is something to look at (findings, differences,
damage), and 2 where a command was not understood or something could not be read; then one sentence on the
standard error says what, and `--debug`, anywhere in the line, where in the code it came from. Piped, what
is printed is plain text; `--json` prints JSON.
"""


def manual() -> str:
    """The page, in Markdown."""
    from treeload.cli.app import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("treeload", ["env"], resilient_parsing=True)
    pages = [_HEAD]
    for name in group.list_commands(context):
        pages.append("\n".join(_page(name, group.get_command(context, name))))
    return "\n".join(pages)


def _page(name: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    yield f"## treeload {name}\n"
    required = [f"{_flags(each)} {_metavar(each)}" for each in options if each.required]
    words = ["treeload", name, *map(_metavar, arguments), *required, "[OPTIONS]"]
    yield f"<!-- not run: how a command is written -->\n```sh\n{' '.join(words)}\n```\n"
    yield " ".join(command.help.split("\f")[0].split()) + "\n"
    for each in arguments:
        yield f"- `{_metavar(each)}`: {each.help}"
    for each in options:
        takes = "" if each.is_flag else f" {_metavar(each)}"
        usual = f" Usually `{each.default}`." if isinstance(each.default, str) else ""
        yield f"- `{_flags(each)}{takes}`: {each.help}{usual}"
    yield ""


def _flags(option: Any) -> str:
    return ", ".join(sorted(option.opts, key=len, reverse=True))


def _metavar(parameter: Any) -> str:
    said = parameter.metavar or parameter.name.upper()
    return f"{said}…" if parameter.nargs == -1 else str(said)
