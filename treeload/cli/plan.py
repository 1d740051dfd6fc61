"""``treeload plan``: what would load."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any

import typer

from treeload.cli import given
from treeload.cli.say import Json, Misuse, show, show_json


def plan(
    path: Annotated[str, typer.Argument(help="The checkpoint: a file, a directory or a URL.")],
    into: Annotated[
        str | None,
        typer.Option(help="The model: a function of your module that makes one.", metavar="MODULE:FACTORY"),
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="In place of a model: a checkpoint of it.", metavar="OTHER")
    ] = None,
    rules: Annotated[
        str | None, typer.Option(help="Rules, in a file of Python.", metavar="FILE.py:NAME")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="What is forgiven: a table for each kind.", metavar="FILE.toml")
    ] = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Print rules for what does not match, to be saved as a file.")
    ] = False,
    html: Annotated[
        str | None, typer.Option(help="Write the report as a page for a browser.", metavar="FILE")
    ] = None,
    lock: Annotated[str | None, typer.Option(help="Write down what would load.", metavar="FILE")] = None,
    check_lock: Annotated[
        str | None, typer.Option(help="Fail where it is not what was written down.", metavar="FILE")
    ] = None,
    json: Json = False,
) -> None:
    """What would load into a model, leaf by leaf, and what is wrong; no weights are read.

    The status is 1 where anything is wrong, or is not as the lock says.
    """
    import treeload

    if (into is None) == (like is None):
        raise Misuse("plan takes a model, --into MODULE:FACTORY, or a checkpoint of one, --like OTHER")
    dst = given.destination(into) if into is not None else specs_of(str(like))
    given_rules, given_policy = given.rules(rules), given.policy(policy)
    try:
        made = treeload.plan(dst, path, rules=given_rules, policy=given_policy)
    except TypeError as error:  # what was given is no tree, or no rules
        raise Misuse(str(error)) from error
    if html is not None:
        write_page(made.to_html(), html)
    if lock is not None:
        made.lock(lock)
    wrong = None
    if check_lock is not None:
        try:
            treeload.check_lock(made, check_lock)
        except treeload.LockError as error:
            wrong = error
    if suggest:
        found = made.suggest()
        show_json({"rules": [repr(rule) for rule in found], "certain": [repr(rule) for rule in found.certain],
                   "reasons": list(found.reasons), "left": list(found.left)}) if json else typer.echo(
            as_file(str(found)))  # fmt: skip
    elif json:
        show_json(made.to_dict() if wrong is None else {**made.to_dict(), "lock": str(wrong)})
    else:
        show(made)
    if wrong is not None and not json:
        typer.echo(f"treeload: {wrong}", err=True)
    if wrong is not None or not made.ok:
        raise typer.Exit(1)


def write_page(page: str, path: str) -> None:
    """Writes a page to a file."""
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise Misuse(f"--html {path}: {error.strerror}") from error


def specs_of(path: str) -> Any:
    """A checkpoint's leaves as a tree without values."""
    from treeload import open as open_checkpoint
    from treeload._trees.tree import nested

    return nested({tuple(name): spec for name, spec in open_checkpoint(path).specs().items()})


def as_file(code: str) -> str:
    """Rules, printed as code, with the import that they need: a file for ``--rules``."""
    import treeload

    called = {node.func.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)
              and isinstance(node.func, ast.Name)}  # fmt: skip
    names = sorted(called & {*treeload.__all__})
    return f"from treeload import {', '.join(names)}\n\n{code}" if names else code
