"""One file or folder a format; ``open_source`` asks each in turn whether a path is its own.

Each module in ``FORMATS`` ends in one ``FORMAT = Format(...)``, which is all that is known of it here: what
it recognises, how it opens, which options it has. A new format is a file and a line in ``FORMATS``.

safetensors  a file, or a directory of shards with its index; read and written
flax         Flax's msgpack files
equinox      the arrays of tree_serialise_leaves, by position
orbax        checkpoints in every layout that has metadata; read and written
unknown      what a file is that no format knows, or that only bears a format's name
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treeload._errors import SourceError
from treeload._formats import unknown
from treeload._naming.printable import printable
from treeload._sources.format import Format
from treeload._sources.separated import SeparatedSource
from treeload._sources.sidecar import with_sidecar
from treeload._sources.source import Source, as_source_error

FORMATS: tuple[str, ...] = (
    "treeload._formats.safetensors.source",
    "treeload._formats.flax",
    "treeload._formats.equinox",
    "treeload._formats.orbax.source",
)
"""The modules of the formats, in the order in which they are asked: the first that recognises a path has it.

They are imported when they are asked, so that importing treeload imports no format's library.
"""


def formats() -> Iterator[Format]:
    """The formats in their order, each imported only as it is come to."""
    for module in FORMATS:
        found: Format = importlib.import_module(module).FORMAT
        yield found


def open_source(
    path: str | os.PathLike[str],
    *,
    item: str | None = None,
    separator: str | None = None,
    sidecar: bool = True,
) -> Source:
    """The source at ``path``, whatever its format, held against the digests beside it where there are any.

    Raises:
        SourceError: there is nothing at ``path``, it is no checkpoint that treeload knows, or it is
            incomplete or malformed; or its format has not what was asked for.
    """
    where = Path(os.path.expanduser(os.fspath(path)))
    with as_source_error(f"{str(where)!r} could not be opened"):
        found = _format_of(where)
        # A format whose own names are joined splits them itself: at another separator than the usual one.
        own = "separator" in found.options
        with _by_another_name(where, found.magic):
            source = found.open(where, {"item": item, "separator": separator if own else None})
        if sidecar:
            source = _with_sidecar(source, found, where, item=item, separator=separator if own else None)
        return source if own or separator is None else SeparatedSource(source, separator)


def _with_sidecar(
    source: Source, found: Format, path: Path, *, item: str | None, separator: str | None
) -> Source:
    """The source held against the digests beside it, which know its leaves as they are usually split."""
    beside = path if item is None else path / item
    if separator is None:
        return with_sidecar(source, beside)
    usual = with_sidecar(found.open(path, {"item": item, "separator": None}), beside)
    own_to_usual = zip(source.specs(), usual.specs(), strict=True)  # both in the order of the file
    known = {name: usual.leaf_digests[other] for name, other in own_to_usual if other in usual.leaf_digests}
    return source.with_digests(known) if known else source


def recognising(path: Path) -> Format | None:
    """The format that a path is of; None where no format knows it."""
    exists = path.exists()
    for each in formats():
        if each.recognises(path) if exists else each.claims_missing(path):
            return each
    return None


def _format_of(path: Path) -> Format:
    """The format that a path is of.

    Raises:
        SourceError: it is of none.
    """
    found = recognising(path)
    if found is not None:
        return found
    if not path.exists():
        raise SourceError(f"{str(path)!r} does not exist{_nearest_that_exists(path)}")
    is_whole = importlib.import_module("treeload._formats.orbax.layout").is_checkpoint
    said = unknown.what_is(path, opens=lambda each: recognising(each) is not None, is_whole=is_whole)
    if said:
        raise SourceError(f"{str(path)!r} {said}")
    known = "\n".join(f"  {each.words}" for each in formats())
    raise SourceError(f"{str(path)!r} is no checkpoint that treeload knows. It knows\n{known}")


@contextmanager
def _by_another_name(path: Path, magic: bytes | None) -> Iterator[None]:
    """What a file is that bears a format's name and is not of it: more use than where its parser stumbled."""
    try:
        yield
    except SourceError as error:
        if path.is_dir():
            found = unknown.not_downloaded_in(path)
            said = "" if found is None else f"cannot be opened: {found[0]!r} in it {found[1]}"
        else:
            said = unknown.content_of(path, magic=magic)
        if not said:
            raise
        raise SourceError(f"{str(path)!r} {said}") from error


def _nearest_that_exists(path: Path) -> str:
    for parent in path.parents:
        if parent.is_dir():
            names = [printable(name, 80) for name in sorted(os.listdir(parent))[:8]]
            holds = f"; {str(parent)!r} holds {', '.join(names)}" if names else f"; {str(parent)!r} is empty"
            return holds
    return ""
