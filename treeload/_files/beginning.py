"""The first bytes of a file: by which its format is told, whatever it is called.

Owns the look at them. What they mean is each format's to say. A file that may not be opened has none here:
whoever opens it will say why.
"""

from __future__ import annotations

from dataclasses import dataclass

from treeload._errors import SourceError
from treeload._files.open import look_at, opened, read_bytes
from treeload._files.place import Place

_FIRST = 512  # bytes that are looked at, unless more are asked for


@dataclass(frozen=True)
class Beginning:
    """What a file begins with.

    Attributes:
        first: its first bytes.
        size: how many bytes it has in all.
    """

    first: bytes
    size: int


def beginning_of(path: Place, count: int = _FIRST) -> Beginning | None:
    """What the file at ``path`` begins with; None where there is no file that may be opened."""
    try:
        file = look_at(path)
        with opened(file) as handle:
            return Beginning(read_bytes(handle, count, 0), file.size)
    except SourceError:
        return None
