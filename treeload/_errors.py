"""The error tree: everything treeload raises on purpose.

    TreeloadError
    ├── LoadError       the plan has problems; carries every finding, and the plan (see ``_plan``)
    ├── SourceError     a checkpoint cannot be read, or is not what it says it is
    ├── RuleError       a rule, pattern, policy or name that cannot mean anything (a ValueError too)
    ├── NameCollision   two leaves of one tree have one name
    ├── SaveError       a tree or a path that cannot be saved; nothing was replaced
    └── LockError       a plan is not what its lock holds; carries every difference (see ``_plan``)

Beside it ``TreeloadWarning``: what was done, and not all that may have been meant.

This file owns the classes that carry nothing but a text, which is written where the facts are known. It
imports nothing of treeload, so every other file may raise from it.

Whatever a file, a library or a directory has brought into a text, it does not act on the terminal that shows
it: each error prints as ``without_controls`` has it.
"""

from __future__ import annotations

from collections.abc import Iterable


def without_controls(text: str) -> str:
    r"""``text`` with what a terminal obeys and does not print written as Python would: ``\x1b``; lines stay.

    Examples:
        >>> print(without_controls("one\x1b[31m\ntwo"))
        one\x1b[31m
        two
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text
    )


class TreeloadError(Exception):
    """Base of everything treeload raises on purpose."""

    __module__ = "treeload"

    def __str__(self) -> str:
        return without_controls(super().__str__())


class SourceError(TreeloadError):
    """A checkpoint that is missing, incomplete, malformed, or cannot be read.

    Attributes:
        changed: it was replaced or changed while it was read, so that to read it again may do.
    """

    __module__ = "treeload"

    def __init__(self, *message: object, changed: bool = False) -> None:
        super().__init__(*message)
        self.changed = changed


class RuleError(TreeloadError, ValueError):
    """A rule, pattern, policy or printed name that cannot mean anything."""

    __module__ = "treeload"


class NameCollision(TreeloadError):
    """Two leaves of one tree that would have one name, such as keys ``1`` and ``"1"`` of one dict."""

    __module__ = "treeload"


class SaveError(TreeloadError):
    """A tree or a path that cannot be saved; what was there before is untouched.

    Attributes:
        problems: what the tree holds that cannot be saved, each in a sentence; empty where something else
            stands against it, which the text says.
    """

    __module__ = "treeload"

    def __init__(self, *message: object, problems: Iterable[str] = ()) -> None:
        super().__init__(*message)
        self.problems = tuple(problems)


class TreeloadWarning(UserWarning):
    """Something was done, and a part of what was given took no part in it: a save that leaves out a text."""

    __module__ = "treeload"
