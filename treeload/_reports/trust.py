"""Which of a plan's sources nothing vouches for, in a phrase for its report."""

from __future__ import annotations

from collections.abc import Sequence

from treeload._errors import TreeloadError
from treeload._reports.page import printable
from treeload._sources.source import Source, as_source_error, unverifiable


def unverified(sources: Sequence[Source]) -> str:
    """The phrase; empty where every source in a file carries digests, or has them beside it."""
    found = []
    for source in sources:
        try:
            with as_source_error(f"{source.label} does not say what it holds"):
                lacking = len(unverifiable(source))
                leaves = len(source.specs()) if lacking else 0
        except TreeloadError:  # by now; a report is printed all the same
            continue
        if lacking:
            found.append((source, lacking == leaves))
    if not found:
        return ""
    whole = all(all_of_it for _, all_of_it in found)
    if len(sources) == 1:
        return (
            "cannot be verified: it holds no digests"
            if whole
            else "parts of it cannot be verified: no digests"
        )
    labels = " and ".join(printable(source.label) for source, _ in found)
    return f"cannot be verified, for want of digests: {labels}"
