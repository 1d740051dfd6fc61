"""The page of each kind of finding: what it means, when there is one, how to go on.

Owns the pages (``pages/``), one file of Markdown a kind. The documentation has the same pages: links that
work from here are made to work from there (``as_documentation``), and to be read on a terminal
(``page``). A new kind needs a page; its code is run as that of all documentation. Imports no JAX: pages are
there at once.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files

from treeload._findings.kinds import Kind

_DOCS = "../../../docs/"  # from the folder of the pages

_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def page(kind: Kind) -> str:
    """The page as it is read without a browser, in Markdown: of links their words, and the docs' file."""
    return _LINK.sub(_in_words, _written(kind))


def meaning(kind: Kind) -> str:
    """What such a finding means: the first paragraph of its page, on one line."""
    _, first, *_ = page(kind).split("\n\n")
    return " ".join(first.split())


def as_documentation(kind: Kind) -> str:
    """The page as it stands in ``docs/reference/findings/``."""
    return _written(kind).replace(_DOCS, "../../")


@functools.cache
def _written(kind: Kind) -> str:
    return (files("treeload._findings") / "pages" / f"{kind}.md").read_text("utf-8")


def _in_words(link: re.Match[str]) -> str:
    words, path = link.groups()
    return f"{words} ({path.replace(_DOCS, 'docs/')})" if path.startswith(_DOCS) else words
