"""A leaf as a page knows it, and many of them as data for the page's script.

Owns the form of that data. Refuses to own what is said of a leaf (``plan``, ``inventory``, ``diff``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from treeload._leaves.spec import make_spec, print_spec
from treeload._naming.name import Keys, print_name
from treeload._reports.page import printable


@dataclass(frozen=True, slots=True)
class Word:
    """A word that is said of leaves, and can be asked for.

    Attributes:
        word: the word.
        tone: its colour, by a name that ``page.css`` knows.
        meaning: what it says, in a sentence.
    """

    word: str
    tone: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf.

    Attributes:
        name: its name.
        word: what becomes of it; one of the page's words.
        spec: its shape and dtype, printed.
        size: its bytes, for sums; 0 where they are another leaf's.
        tags: what else can be asked for; some of the page's tags.
        facts: what else there is to say: a label and a text each; what has no text is not said.
    """

    name: Keys
    word: str
    spec: str
    size: int
    tags: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def leaf_data(
    leaves: Sequence[Leaf], *, words: Sequence[Word], tags: Sequence[Word], asked: tuple[str, str],
    whole: str, sides: tuple[str, str],
) -> dict[str, Any]:  # fmt: skip
    """The leaves as JSON-like data, each text once and numbers in its place.

    Args:
        leaves: the leaves.
        words: what may become of them.
        tags: what may be said of them besides.
        asked: what the page calls ``words`` and ``tags`` where it offers them.
        whole: the word that is counted in nodes, as in ``12 of 14 load``; empty where none is.
        sides: the labels of two facts that are shown side by side, with what they differ in.
    """
    texts = _Texts()
    there = {leaf.word for leaf in leaves} | {whole}
    said = {tag for leaf in leaves for tag in leaf.tags}
    words = [word for word in words if word.word in there]
    tags = [tag for tag in tags if tag.word in said]
    at_word = {word.word: at for at, word in enumerate(words)}
    at_tag = {tag.word: at for at, tag in enumerate(tags)}
    rows = [
        [print_name(leaf.name), at_word[leaf.word], leaf.size, texts[leaf.spec],
         [at_tag[tag] for tag in leaf.tags],
         [texts[text] for fact in leaf.facts if fact[1] for text in fact]]
        for leaf in leaves
    ]  # fmt: skip
    return {
        "words": [[printable(word.word), word.tone, printable(word.meaning)] for word in words],
        "tags": [[printable(tag.word), tag.tone, printable(tag.meaning)] for tag in tags],
        "asked": list(asked),
        "whole": whole,
        "sides": list(sides),
        "texts": list(texts),
        "leaves": rows,
    }


class _Texts(dict[str, int]):
    """Texts and their numbers, in order; a text that is asked for has one."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]

    def __iter__(self) -> Any:
        return map(printable, super().__iter__())


def spec_text(spec: Any) -> str:
    """A spec, printed; each once, since of many leaves few are of a shape of their own."""
    return _printed(tuple(spec.shape), spec.dtype)


def side_text(side: Any) -> str:
    """One side of a finding: words, or a shape and a dtype (``finding.side``); nothing for none."""
    if side is None or isinstance(side, str):
        return side or ""
    return _printed(*side)


@lru_cache(maxsize=4096)
def _printed(shape: tuple[int, ...], dtype: Any) -> str:
    return print_spec(make_spec(shape, dtype))
