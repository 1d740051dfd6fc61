"""Whether two trees that share few names are one tree under other names: told by names, shapes and dtypes.

Owns what ``diff`` says of it. Rules that are inferred, leaf by leaf, are ``_inference``'s, for a plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from treeload._leaves.spec import Spec
from treeload._naming.name import Keys
from treeload._naming.pattern import quote
from treeload._rules.rename import Rename


def as_many_shapes(a: Mapping[Keys, Spec], b: Mapping[Keys, Spec]) -> int:
    """How many leaves of one side have a shape that a leaf of the other has, each taken once."""
    one, other = (Counter(spec.shape for spec in side.values()) for side in (a, b))
    return (one & other).total()


def one_prefix(a: Mapping[Keys, Spec], b: Mapping[Keys, Spec], both: Collection[Keys]) -> Rename | None:
    """The rule after which both sides have the same names and specs, where one prefix makes it.

    Args:
        a, b: what only the one side has, or only the other.
        both: the names that both have.
    """
    if not a or len(a) != len(b):
        return None
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


def _moved(old: Keys, new: Keys) -> Rename:
    """The rule by which what begins with the one begins with the other."""
    return Rename(
        quote(old) + "/{*rest}" if old else "{*rest}", quote(new) + "/{*rest}" if new else "{*rest}"
    )
