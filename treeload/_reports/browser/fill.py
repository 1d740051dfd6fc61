"""The files of a page, filled in.

Owns what makes a page safe to open: every text is escaped by Jinja2, the data for the script is JSON in which
no name can end the element that holds it, and the page names the digests of its own script and style, so that
a browser runs and obeys nothing else, and fetches nothing. Refuses to own what a page says.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treeload._reports.page import printable

if TYPE_CHECKING:
    from jinja2 import Environment

_SCRIPTS = ("leaves.js", "tree.js", "treemap.js", "page.js")

# What HTML would read in a script element, and JSON need not hold as it is.
_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def filled(name: str, said: Mapping[str, Any], leaves: Mapping[str, Any]) -> str:
    """A page.

    Args:
        name: the template: ``plan.html``.
        said: what the template shows.
        leaves: the data of its leaves (``leaf_data``).
    """
    from markupsafe import Markup

    files = _files()
    style = _text(files, "page.css")
    script = "\n".join(("(() => {", '"use strict";', *(_text(files, each) for each in _SCRIPTS), "})();"))
    return files.get_template(name).render(
        {
            **said,
            "style": Markup(style),
            "script": Markup(script),
            "style_digest": _digest(style),
            "script_digest": _digest(script),
            "leaves": Markup(as_json(leaves)),
        }
    )


def as_json(data: Any) -> str:
    """JSON that may stand in a script element, whatever its texts are: all of it is ASCII, without markup."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)


@functools.cache
def _files() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, finalize=_finalize,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _finalize(value: Any) -> Any:
    """What a template shows: a text as it may stand on a page; the page's own files as they are."""
    return printable(value) if type(value) is str else value


def _text(files: Environment, name: str) -> str:
    assert files.loader is not None
    return files.loader.get_source(files, name)[0]


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
