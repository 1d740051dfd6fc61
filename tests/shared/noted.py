"""What a ledger has noted, written."""

from __future__ import annotations

from treeload._findings.finding import Finding, written
from treeload._matching.ledger import Ledger
from treeload._plans.entry import Unused


def findings_of(lines: Ledger) -> list[Finding]:
    return list(map(written, lines.findings))


def unused_of(lines: Ledger) -> list[Unused]:
    return [leaf if isinstance(leaf, Unused) else leaf.unused() for leaf in lines.unused]
