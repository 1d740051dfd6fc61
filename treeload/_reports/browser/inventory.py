"""The page of what a source holds: its sizes at a glance, every leaf, and what else it says of itself.

Owns which word and which facts a leaf of a source has on the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from treeload._leaves.spec import in_bytes, nbytes
from treeload._naming.name import Name
from treeload._reports.browser.fill import filled
from treeload._reports.browser.leaf import Leaf, Word, leaf_data, spec_text
from treeload._reports.browser.modules import modules, stretches
from treeload._reports.origins import came_from
from treeload._reports.page import counted
from treeload._sources.provenance import Provenance
from treeload._sources.source import SourceLeaf

_TONES = ("one", "two", "three", "four", "five", "six")

_TAGS = (
    Word("tied", "tie", "shares its array with another leaf, where its bytes are counted"),
    Word("no digest", "keep", "damage to it would not be noticed"),
)


class Held(Protocol):
    """What a source holds: an ``Inventory``."""

    @property
    def label(self) -> str:
        """What the source is."""

    @property
    def leaves(self) -> tuple[SourceLeaf, ...]:
        """Its leaves."""

    @property
    def ties(self) -> Mapping[Name, Name]:
        """Alias → the leaf it shares its array with."""

    @property
    def unverifiable(self) -> tuple[Name, ...]:
        """The leaves that have no digest."""

    @property
    def provenance(self) -> Provenance:
        """Where its leaves came from."""


def inventory_page(
    found: Held, title: str, notes: Sequence[str], sections: Sequence[tuple[str, Sequence[str]]]
) -> str:
    """The page, as the text of one HTML file.

    Args:
        found: what the source holds.
        title: how much that is.
        notes: what is said of the source as a whole.
        sections: titles, and lines below each, which the text has below the leaves.
    """
    leaves = [_leaf(found, leaf) for leaf in found.leaves]
    sizes, counts = Counter[str](), Counter[str]()
    for leaf in leaves:
        sizes[leaf.word] += leaf.size
        counts[leaf.word] += 1
    words = [
        Word(dtype, _TONES[min(at, len(_TONES) - 1)], f"leaves of {dtype}")
        for at, (dtype, _) in enumerate(sizes.most_common())
    ]
    # Where a few leaves alone can be told, or none, it is said of them; where it is all, of the whole.
    tags = _TAGS if len(found.unverifiable) < len(leaves) else _TAGS[:1]
    shares = [
        (word, sizes[word.word],
         f"{in_bytes(sizes[word.word])} {word.word} in {counted(counts[word.word], 'leaf', 'leaves')}")
        for word in words if sizes[word.word]
    ]  # fmt: skip
    said = {
        "what": "inventory", "tone": "plain", "title": title, "sources": [found.label], "notes": notes,
        "bar": stretches(shares), "modules": modules(leaves, words, ""), "sections": sections,
        "text": str(found),
    }  # fmt: skip
    data = leaf_data(
        leaves, words=words, tags=tags, asked=("dtype", "mark"), whole="", sides=("this", "that")
    )
    return filled("inventory.html", said, data)


def _leaf(found: Held, leaf: SourceLeaf) -> Leaf:
    tied = found.ties.get(leaf.name)
    known = found.provenance.get(str(leaf.name))
    partly = len(found.unverifiable) < len(found.leaves)
    tags = ("tied",) * (tied is not None) + ("no digest",) * (partly and leaf.name in found.unverifiable)
    facts = (
        ("tied with", "" if tied is None else str(tied)),
        ("came from", "" if known is None else came_from(known)),
    )
    size = 0 if tied is not None else nbytes(leaf.spec)
    return Leaf(leaf.name, str(leaf.spec.dtype), spec_text(leaf.spec), size, tags, facts)
