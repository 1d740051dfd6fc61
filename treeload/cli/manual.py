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

_TAIL = """## Files that are given

**A model**, for `--into`: `models.vit:make` is the function `make` of the module `models.vit`, which is
looked for in the working directory, too; `models/vit.py:make` is that of a file. It is called without
arguments. What is no function is taken as it is.

**Rules**, for `--rules`: a file of Python in which they have a name, `rules` if none is given. `--suggest`
writes one. Such a file is run, as the one of a model is; what it prints goes to the standard error.

```python
from treeload import Rename, Transpose

rules = [
    Rename("net/{*rest}/weight", "{*rest}/kernel", Transpose()),
    Rename("net/{*rest}", "{*rest}"),
]
```

**A policy**, for `--policy`: a file of TOML, with the settings of [Policy](api.md). A setting is a verdict
for all names, or a table of patterns, in quotes, with a verdict each. Where a report advises a policy, the
command prints it below as such a file.

<!-- not run: a file of a policy -->
```toml
casting = "safe"
absent_is_zero = ["**/bias"]

[missing]
"head/**" = "keep"

[unexpected]
"pooler/**" = "ignore"
"lm_head/bias" = "ignore"
```
"""


def manual() -> str:
    """The page, in Markdown."""
    from treeload.cli.app import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("treeload", ["env"], resilient_parsing=True)
    pages = [_HEAD]
    for name in group.list_commands(context):
        pages.append("\n".join(_page(name, group.get_command(context, name))))
    return "\n".join((*pages, _TAIL))


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
