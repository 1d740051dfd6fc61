"""What was written on this machine, put into an object store: there as a whole, or not at all.

Owns which places can do that. An object is there once all of it is, in these stores; what is a directory of
files, or is written bit by bit, is not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treeload._errors import SaveError, SourceError
from treeload._files import store
from treeload._naming.printable import printable

_AS_A_WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "az", "memory")
"""The schemes of stores in which an object appears when its last byte has come."""


@contextmanager
def put_in_place(url: str, suffix: str) -> Iterator[Path]:
    """A file to be written, which is at ``url`` once the block has ended well.

    Args:
        url: where it goes; nothing may be there.
        suffix: how it must end, since only such checkpoints are one file.

    Raises:
        SaveError: something is there, it cannot be put there as a whole, or the store refuses.
    """
    shown = printable(url, 200)
    scheme = url.partition(":")[0].lower()
    if scheme not in _AS_A_WHOLE:
        raise SaveError(f"{shown!r} cannot be written as a whole: write it on this machine, and copy it")
    if not url.endswith(suffix):
        raise SaveError(f"{shown!r} would be many files, never there as a whole: end it in {suffix!r}")
    try:
        to, path = store.store_of(scheme, url)
        exists = to.is_directory(path) or to.find(path) is not None
    except SourceError as error:
        raise SaveError(str(error)) from error
    if exists:
        raise SaveError(f"{shown!r} exists; an export replaces nothing")
    with tempfile.TemporaryDirectory(prefix="treeload-") as folder:
        file = Path(folder) / f"new{suffix}"
        yield file
        try:
            to.put(file, path)
        except SourceError as error:
            raise SaveError(f"{shown!r} could not be written: {error}") from error
