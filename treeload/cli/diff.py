"""``treeload diff``: what differs between two checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from treeload.cli import given
from treeload.cli.say import Json, aside, show, show_json

if TYPE_CHECKING:
    from treeload import Diff, Rename


def diff(
    a: Annotated[str, typer.Argument(help="A checkpoint.")],
    b: Annotated[str, typer.Argument(help="Another.")],
    rules: Annotated[
        str | None,
        typer.Option(
            help="How the names of A become those of B, in a file of Python.", metavar="FILE.py:NAME"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """What differs between two checkpoints, leaf by leaf. The status is 1 where anything does."""
    import treeload

    with aside(), given.by_name(a, b, otherwise=given.FROM_PYTHON):
        found = treeload.diff(a, b, rules=given.rules(rules))
    if json:
        show_json(found.to_dict())
    else:
        show(found)
        if rules is None and (rule := _renamed(found)) is not None:
            typer.echo(_ALIKE.format(rule=rule))
    if not found.equal:
        raise typer.Exit(1)


_ALIKE = """
the names differ in how they begin, and in nothing else; to compare the values, --rules FILE.py with

from treeload import Rename

rules = [{rule!r}]"""


def _renamed(found: Diff) -> Rename | None:
    """The rule after which both sides have the same names and specs, where one prefix makes it."""
    a = {tuple(leaf.name): leaf.a for leaf in found.only_in_a}
    b = {tuple(leaf.name): leaf.b for leaf in found.only_in_b}
    if not a or len(a) != len(b):
        return None
    both = [leaf.name for leaf in found if leaf.a is not None and leaf.b is not None]
    first = next(iter(a))
    for cut in range(len(first)):
        old, rest = first[:cut], first[cut:]
        if any(name[:cut] == old for name in both):  # which the rule would move, too
            continue
        ends = (name[: len(name) - len(rest)] for name in b if name[-len(rest) :] == rest)
        for new in ends:
            if all(n[:cut] == old and b.get((*new, *n[cut:])) == spec for n, spec in a.items()):
                return _moved(old, new)
    return None


def _moved(old: tuple[str, ...], new: tuple[str, ...]) -> Rename:
    """The rule by which what begins with the one begins with the other."""
    from treeload import Rename
    from treeload._naming.pattern import quote

    return Rename(
        quote(old) + "/{*rest}" if old else "{*rest}", quote(new) + "/{*rest}" if new else "{*rest}"
    )
