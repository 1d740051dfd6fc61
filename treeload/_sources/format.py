"""What a format says of itself: the one object that each format's file ends in.

Owns the ``Format`` class: its words, what it recognises, how it opens, which options of ``From`` it has and
what is said of those that it has not. Refuses to own who is asked first (``_formats.FORMATS``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from treeload._errors import SourceError
from treeload._files.place import Place
from treeload._sources.source import Source

_LACKING = {
    "item": "is no Orbax checkpoint, so it has no item {value!r}",
    "separator": "holds no joined names: nothing is to be split at {value!r}",
}
"""Each option of ``From`` that is a format's → what is said of a path whose format has it not."""


@dataclass(frozen=True)
class Format:
    """One way in which checkpoints are stored.

    Attributes:
        name: what it is called where it is asked for, such as ``"safetensors"``.
        words: what it is, in the list of what treeload knows.
        recognises: whether a path that exists is of this format, whatever it is called: looks at first bytes
            only, of a directory at the names and the first bytes of what is in it.
        is_named: whether a path that exists bears a name of this format. Asked where no format recognises
            it, as where a file is damaged.
        opens: the source at a path, and the options that the format has.
        options: the names of those options: of ``"item"`` and ``"separator"``.
        claims_missing: whether a path where nothing lies is this format's to explain or to find, as one
            beside which a save died.
        magic: what its files begin with (one of several), where a file that begins otherwise may be told to
            be another thing.
    """

    name: str
    words: str
    recognises: Callable[[Place], bool]
    opens: Callable[..., Source]
    options: frozenset[str] = frozenset()
    is_named: Callable[[Place], bool] = lambda path: False
    claims_missing: Callable[[Place], bool] = lambda path: False
    magic: bytes | tuple[bytes, ...] | None = None

    def open(self, path: Place, asked: Mapping[str, Any]) -> Source:
        """The source at ``path``; ``asked`` are options, None where nothing was asked for.

        Raises:
            SourceError: an option that this format has not; or what ``opens`` raises.
        """
        given = {option: value for option, value in asked.items() if value is not None}
        for option, value in given.items():
            if option not in self.options:
                raise SourceError(f"{str(path)!r} {_LACKING[option].format(value=value)}")
        return self.opens(path, **given)
