"""The page of what two checkpoints differ in.

Owns how its leaves are coloured and counted. What differs, and in which words, comes from ``Diff``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from treeload._reports.browser.fill import filled
from treeload._reports.browser.leaf import Leaf, Word, leaf_data
from treeload._reports.browser.modules import modules, stretches
from treeload._reports.page import counted

_WORDS = (
    Word("equal", "good", "the same shape, dtype and values; NaN equals NaN"),
    Word("values", "keep", "the same shape and dtype, other values"),
    Word("dtype", "five", "the same shape, another dtype; numbers are compared all the same"),
    Word("shape", "bad", "another shape; values are not compared"),
    Word("only in a", "zero", "b has no such leaf"),
    Word("only in b", "tie", "a has no such leaf"),
)


@dataclass(frozen=True)
class Compared:
    """What a page shows of a ``Diff``.

    Attributes:
        a, b: what was compared.
        summary: in one line, what differs.
        leaves: every leaf, its word being the kind of its difference.
        sections: titles, and below each rows of texts: names, specs, how far apart; and how many leaves are
            in no row.
        text: the report as text.
    """

    a: str
    b: str
    summary: str
    leaves: Sequence[Leaf]
    sections: Sequence[tuple[str, Sequence[tuple[str, str, str]], int]]
    text: str

    @cached_property
    def counts(self) -> Counter[str]:
        """How many leaves there are of each kind."""
        return Counter(leaf.word for leaf in self.leaves)


def diff_page(found: Compared) -> str:
    """The page, as the text of one HTML file."""
    many = len(found.leaves) - found.counts["equal"]
    bar = [
        (word, found.counts[word.word], f"{found.counts[word.word]:,} {word.word}")
        for word in _WORDS if found.counts[word.word]
    ]  # fmt: skip
    differ = "differs" if many == 1 else "differ"
    said: dict[str, Any] = {
        "what": "diff", "tone": "bad" if many else "good", "summary": found.summary,
        "title": f"{counted(many, 'leaf', 'leaves')} {differ}" if many else "No difference",
        "a": found.a, "b": found.b, "bar": stretches(bar), "modules": modules(found.leaves, _WORDS, "equal"),
        "sections": found.sections, "text": found.text,
    }  # fmt: skip
    data = leaf_data(
        found.leaves, words=_WORDS, tags=(), asked=("difference", ""), whole="equal", sides=("a", "b")
    )
    return filled("diff.html", said, data)
