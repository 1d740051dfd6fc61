"""What only values can tell, noted for later: checks that are done before anything is changed."""

from __future__ import annotations

from dataclasses import dataclass

from treeload._findings.finding import Finding
from treeload._naming.name import Keys
from treeload._ops.expression import Expression


@dataclass(frozen=True, slots=True)
class ZeroCheck:
    """To be done before anything is changed: every element of ``value`` must be exactly zero.

    ``finding`` is the finding that it gives where it fails; the counts are filled in.
    """

    name: Keys
    value: Expression
    finding: Finding


@dataclass(frozen=True, slots=True)
class EqualCheck:
    """To be done before anything is changed: tied leaves must have one value in the source.

    ``values`` are the source's, each under the destination's name for it; the first is what loads.
    """

    name: Keys
    values: tuple[tuple[Keys, Expression], ...]
    finding: Finding
