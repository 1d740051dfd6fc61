"""Casts that overflow a value: found while leaves are read, all of them said at once.

Owns what is done about one: the finding, or that the destination keeps its own where the policy says so.
Which elements overflow is in ``_leaves.values``. Rounding is no overflow, and NaN and infinities stay what
they are.
"""

from __future__ import annotations

import logging
from typing import Any

from treeload._findings import remedy
from treeload._findings.finding import Finding
from treeload._findings.kinds import Kind
from treeload._leaves.spec import elements, is_abstract
from treeload._leaves.values import overflowing
from treeload._naming.name import print_name
from treeload._plans.decisions import Decisions
from treeload._plans.entry import Entry, OnOverflow
from treeload._trees.tree import Tree

_LOG = logging.getLogger("treeload")


class Overflows:
    """The casts of one load that overflow, so far.

    Attributes:
        findings: one for each leaf concerned, in the order in which they were read.
    """

    def __init__(self, decisions: Decisions, tree: Tree) -> None:
        self.lines = decisions.lines
        self.tree = tree
        self.findings: list[Finding] = []

    def found(self, index: int, array: Any) -> bool:
        """Whether the slot cannot take ``array``; that is noted."""
        entry = self.lines[index]
        if not isinstance(entry, Entry) or entry.on_overflow == OnOverflow.CAST:
            return False
        count, largest = overflowing(array, entry.spec.dtype)
        if count:
            self._note(index, array, count, largest)
            if entry.on_overflow == OnOverflow.KEEP:
                self._keep(entry, index)
        return bool(count)

    def _note(self, index: int, array: Any, count: int, largest: str) -> None:
        entry = self.lines[index]
        assert isinstance(entry, Entry)
        total = elements(array)
        verb = "overflows" if count == 1 else "overflow"
        ways: list[remedy.Remedy] = [remedy.cast_anyway(entry.name)]
        if not is_abstract(self.tree.values[index]):
            ways.append(remedy.keep_own(Kind.DTYPE, entry.name))
        self.findings.append(
            Finding(
                Kind.DTYPE,
                entry.name,
                "keep" if entry.on_overflow == OnOverflow.KEEP else "error",
                expected=entry.spec,
                found=entry.spec.update(dtype=array.dtype),
                source=entry.sources[0] if entry.sources else None,
                rule=entry.rule,
                message=f"{count:,} of {total:,} {'value' if total == 1 else 'values'} {verb} "
                f"{entry.spec.dtype}, the largest {largest}",
                remedies=tuple(ways),
            )
        )

    def _keep(self, entry: Entry, index: int) -> None:
        said = self.findings[-1].message
        if not is_abstract(self.tree.values[index]):
            _LOG.warning("%s is kept, as the policy says: %s", print_name(entry.name), said)
            return
        self.findings.append(
            Finding(
                Kind.ABSTRACT,
                entry.name,
                "error",
                expected=entry.spec,
                message=f"it is to be kept ({said}), and the destination is abstract: "
                "there is nothing to keep",
                remedies=(remedy.Advice("a concrete destination"), remedy.cast_anyway(entry.name)),
            )
        )
