"""``treeload plan``: what would load."""

from __future__ import annotations

import ast
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from treeload.cli import given, policies
from treeload.cli.say import Json, Misuse, aside, show, show_json

if TYPE_CHECKING:
    from treeload import Plan, Policy


def plan(
    path: Annotated[str, typer.Argument(help="The checkpoint: a file, a directory or a URL.")],
    into: Annotated[
        str | None,
        typer.Option(
            help="The model: a function of a module, or of a file, that makes one.", metavar="MODULE:FACTORY"
        ),
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
    by_position: Annotated[
        bool,
        typer.Option("--by-position", help="Take arrays without names in the order of the model's leaves."),
    ] = False,
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
    if into is not None and like is not None:
        raise Misuse("--into gives a model, --like a checkpoint of one: one of them, not both")
    if into is None and like is None:
        raise Misuse("plan takes a model, --into MODULE:FACTORY, or a checkpoint of one, --like OTHER")
    if by_position and into is None:
        raise Misuse("--by-position goes by the order of a model's leaves: give one, --into MODULE:FACTORY")
    _refuse_locks(lock, check_lock)
    with aside():  # rules and models are yours, and run
        forgiven = policies.policy(policy)
        made = _made(path, into, like, (rules, forgiven), by_position=by_position)
        if html is not None:
            write_page(made.to_html(), html)
        unlocked = "" if lock is None else _unlocked(made, lock)
        wrong = "" if check_lock is None else _unlike(made, check_lock)
        found = made.suggest() if suggest else None
    if found is not None:
        show_json({"rules": [repr(rule) for rule in found], "certain": [repr(rule) for rule in found.certain],
                   "reasons": list(found.reasons), "left": list(found.left)}) if json else typer.echo(
            as_file(str(found)))  # fmt: skip
    elif json:
        show_json({**made.to_dict(), "lock": wrong} if wrong else made.to_dict())
    else:
        show(made)
        _advise(made, forgiven)
    for said in filter(None, (unlocked, "" if json else wrong)):
        typer.echo(f"treeload: {said}", err=True)
    if wrong or not made.ok:
        raise typer.Exit(1)


def _made(
    path: str, into: str | None, like: str | None, how: tuple[str | None, Policy], *, by_position: bool
) -> Plan:
    """The plan, under the rules that lie in a file, and a policy."""
    import treeload

    dst = given.destination(into) if into is not None else given.like(str(like))
    rules = given.rules(how[0])
    src = treeload.From(path, by_position=True) if by_position else path
    otherwise = "--into MODULE:FACTORY --by-position takes them in the order of the model's leaves"
    try:
        with given.by_name(path, otherwise=otherwise):
            return treeload.plan(dst, src, rules=rules, policy=how[1])
    except TypeError as error:  # what was given is no tree, or no rules
        raise Misuse(str(error)) from error


def _refuse_locks(lock: str | None, check_lock: str | None) -> None:
    if lock is not None and check_lock is not None:
        raise Misuse("--lock writes a lock, --check-lock compares with one: one of them, not both")
    if check_lock is not None and not os.path.lexists(os.path.expanduser(check_lock)):
        raise Misuse(f"there is no lock at {check_lock!r}; --lock {shlex.quote(check_lock)} writes one")


def _unlocked(made: Plan, lock: str) -> str:
    """Why no lock was written; empty where one was."""
    from treeload import LoadError

    try:
        made.lock(lock)
    except LoadError:
        return "no lock was written: nothing would load, for what is wrong"
    return ""


def _unlike(made: Plan, lock: str) -> str:
    """How the plan is not what its lock says; empty where it is."""
    from treeload import LockError, check_lock

    try:
        check_lock(made, lock)
    except LockError as error:
        if not error.differences:  # it is no lock
            raise
        return str(error)
    return ""


def _advise(made: Plan, policy: Policy) -> None:
    """The policies of the report, as the file in which the command line takes them."""
    if made.ok:
        return
    with aside():
        text = policies.advised(made, policy)
    if text:
        typer.echo(f"\n{text}")


def write_page(page: str, path: str) -> None:
    """Writes a page to a file, in place of nothing but a page of treeload."""
    try:
        if os.path.isfile(path) and not _is_page(path):
            raise Misuse(f"{path!r} exists and is no page of treeload: it is never replaced")
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise Misuse(f"--html {path}: {error.strerror}") from error


def _is_page(path: str) -> bool:
    with open(path, "rb") as file:
        start = file.read(_BEGINS)
    return start.startswith(b"<!doctype html>") and b'<meta name="generator" content="treeload">' in start


_BEGINS = 1 << 10  # bytes, in which a page says what made it


def as_file(code: str) -> str:
    """Rules, printed as code, with the import that they need: a file for ``--rules``."""
    import treeload

    called = {node.func.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)
              and isinstance(node.func, ast.Name)}  # fmt: skip
    names = sorted(called & {*treeload.__all__})
    return f"from treeload import {', '.join(names)}\n\n{code}" if names else code
