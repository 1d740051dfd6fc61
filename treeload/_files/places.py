"""Which place a text means: a path of this machine, or a URL and the server that it is of.

Owns the reading of what users write. A server's library is asked for only where its scheme is met: one that
is not installed is said with the extra that brings it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from treeload._errors import SourceError
from treeload._files import http, hub, store
from treeload._files.place import Place, Remote
from treeload._files.web import WebServer
from treeload._naming.printable import printable

AnyPlace: TypeAlias = "str | os.PathLike[str] | Remote"
"""What users may write, and what was made of it before."""


_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")  # two letters at least: one is a drive of Windows


_JOINED = re.compile(r"(?:https?|hf|s3a?|gs|gcs):/[^/]")


def is_url(given: object) -> bool:
    """Whether a text is a URL of another machine, or of a server on this one."""
    match = _SCHEME.match(given) if isinstance(given, str) else None
    return match is not None and match[1].lower() not in ("file", "local")


def place_of(given: AnyPlace, *, whole: bool = False) -> Place:
    """The place that ``given`` means; ``~`` is the user's home, and ``file://`` is a path.

    Args:
        given: a path, or a URL.
        whole: download a file that its server does not give in parts.

    Raises:
        SourceError: a URL that cannot mean anything, or whose library is not installed.
    """
    if isinstance(given, Remote):
        return given
    text = os.fspath(given)
    match = _SCHEME.match(text) if isinstance(given, str) else None
    if match is None:
        if not isinstance(given, str) and _JOINED.match(str(text)) and not os.path.lexists(text):
            raise SourceError(
                f"{printable(str(text), 200)!r} is a URL that a Path has joined: give it as a text"
            )
        return Path(os.path.expanduser(text))
    scheme = match[1].lower()
    if scheme in ("file", "local"):
        return _local(text)
    if scheme in ("http", "https"):
        return _web(text, whole=whole)
    if scheme == "hf":
        return hub.place_of(text)
    return store.place_of(scheme, text)


def _local(text: str) -> Path:
    url = urlsplit(text)
    if url.netloc not in ("", "localhost"):
        raise SourceError(f"{printable(text, 200)!r} names a file of another machine, {url.netloc!r}")
    return Path(unquote(url.path))


def _web(text: str, *, whole: bool) -> Remote:
    try:
        url = urlsplit(text)
        is_address = bool(url.hostname) and url.port != 0
    except ValueError:
        is_address = False
    if not is_address or not text.isprintable():
        raise SourceError(f"{printable(text, 200)!r} is no address of a web server")
    root = f"{url.scheme.lower()}://{url.netloc.rpartition('@')[2]}"
    return Remote(WebServer(root, url.query, http.credentials(url), whole=whole), url.path)
