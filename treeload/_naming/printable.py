r"""Text that comes from outside, as it may stand in a message, a report or a page.

Owns the one printable form. A file may hold anything: escape sequences that move a terminal's cursor or
change its title, marks that turn the direction of a line, line breaks that make a message look like two.
Names have a form of their own, which is read back (``name``); all else goes through here, and errors as a
whole besides (``_errors``).
"""

from __future__ import annotations

import re

from treeload._errors import without_controls

_BREAKS = re.compile(r"[ \t\r\n]*[\t\r\n][ \t\r\n]*")


def printable(text: str, limit: int | None = None) -> str:
    r"""``text`` on one line, with what a terminal does not print written as Python would: ``\x1b``.

    ``limit``: so many characters of it are enough.

    Examples:
        >>> print(printable("red: \x1b[31m"))
        red: \x1b[31m
    """
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}…"
    return without_controls(_BREAKS.sub(" ", text))
