"""What only values can tell, noted for later: checks that are done before anything is changed.

Owns what is to be looked at and what it must be, and the finding where it is not. Who reads the arrays is
decided in ``_loading``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from treeload._findings.finding import Finding
from treeload._leaves.spec import elements
from treeload._leaves.values import equal, nonzero
from treeload._naming.name import Keys
from treeload._ops.expression import Expression, Leaf, evaluate


@dataclass(frozen=True, slots=True)
class ZeroCheck:
    """Every element of ``value`` must be exactly zero.

    ``finding`` is the finding that it gives where it fails; the counts are filled in.
    """

    name: Keys
    value: Expression
    finding: Finding

    def leaves(self) -> tuple[Leaf, ...]:
        """The source leaves whose values it needs."""
        return tuple(self.value.leaves())

    def failure(self, arrays: Mapping[Leaf, Any]) -> Finding | None:
        """The finding where it fails, given the arrays of its leaves; None where all is zero."""
        count, largest = nonzero(evaluate(self.value, arrays))
        if not count:
            return None
        total = elements(self.value.spec)
        are = "element is" if total == 1 else "elements are"
        said = f"{count:,} of {total:,} {are} not zero, the largest {largest}"
        before = self.finding.message
        message = f"{before}: {said}" if before else f"{said}; absent means zero here"
        return replace(self.finding, message=message)


@dataclass(frozen=True, slots=True)
class EqualCheck:
    """Tied leaves must have one value in the source.

    ``values`` are the source's, each under the destination's name for it; the first is what loads.
    """

    name: Keys
    values: tuple[tuple[Keys, Expression], ...]
    finding: Finding

    def leaves(self) -> tuple[Leaf, ...]:
        """The source leaves whose values it needs."""
        return tuple(leaf for _, value in self.values for leaf in value.leaves())

    def failure(self, arrays: Mapping[Leaf, Any]) -> Finding | None:
        """The finding where it fails, given the arrays of its leaves; None where all are one value."""
        first, *others = (evaluate(value, arrays) for _, value in self.values)
        return None if all(equal(first, other) for other in others) else self.finding


Check: TypeAlias = ZeroCheck | EqualCheck
