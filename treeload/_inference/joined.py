"""Names that one side joins to one key: ``net.0.weight`` for ``net/0/weight``.

Owns what they are joined by. Refuses to own the splitting (``_sources.separated``).
"""

from __future__ import annotations

from collections.abc import Collection

from treeload._naming.name import Keys

_SEPARATORS = (".", "/")


def joined_by(destination: Collection[Keys], source: Collection[Keys]) -> str:
    """What the source's names are joined by, where the destination's are not; empty elsewhere.

    Examples:
        >>> joined_by([("up", "kernel")], [("up.weight",), ("up.bias",)])
        '.'
    """
    if not destination or max(map(len, destination)) < 2:
        return ""
    for separator in _SEPARATORS:
        joined = sum(len(name) == 1 and separator in name[0] for name in source)
        if 2 * joined > len(source) and not any(separator in key for name in destination for key in name):
            return separator
    return ""


def to_split(destination: Collection[Keys], source: Collection[Keys]) -> str:
    """What to do first where names are joined on one side alone, in words; empty elsewhere."""
    separator = joined_by(destination, source)
    if not separator:
        return ""
    how = f'From(src, separator="{separator}")'
    return f'the source\'s names are joined by "{separator}": split them first, {how}, then plan.suggest()'
