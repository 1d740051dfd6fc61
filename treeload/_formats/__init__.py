"""One file or folder a format; ``open_source`` asks each in turn whether a path is its own.

A format is told by its bytes. A name is a hint: it is asked for where the bytes say nothing, as of a file
that is damaged, so that its own format says what is wrong with it.

Each module in ``FORMATS`` ends in one ``FORMAT = Format(...)``, which is all that is known of it here: what
it recognises, how it opens, which options it has. A new format is a file and a line in ``FORMATS``.

safetensors  a file, or a directory of shards with its index; read and written
hdf5         HDF5 files of Keras and others, through h5py
gguf         GGUF files of llama.cpp, quantised ones through gguf
flax         Flax's msgpack files, and shards of them with their index
equinox      the arrays of tree_serialise_leaves, by position
tensorflow   TensorFlow's checkpoints, read without TensorFlow
npz          NumPy's archives of arrays
pytorch      files of torch.save in both containers, and their shards
orbax        checkpoints in every layout; read and written
hub          which snapshot of the Hugging Face cache is meant
unknown      what a file is that no format knows, or that only bears a format's name
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treeload._errors import RuleError, SourceError
from treeload._files.index import one_shard
from treeload._files.open import look_at
from treeload._files.place import Place, Remote, names_in
from treeload._files.places import AnyPlace, place_of
from treeload._formats import unknown
from treeload._formats.hub import is_repository, snapshot_of
from treeload._naming.printable import printable
from treeload._sources.format import Format
from treeload._sources.separated import SeparatedSource
from treeload._sources.sidecar import with_sidecar
from treeload._sources.source import Source, as_source_error

FORMATS: tuple[str, ...] = (
    "treeload._formats.safetensors.source",
    "treeload._formats.hdf5.source",  # before Flax: its first byte begins a map of msgpack's too
    "treeload._formats.gguf.source",
    "treeload._formats.flax.source",
    "treeload._formats.equinox",
    "treeload._formats.tensorflow.source",
    "treeload._formats.npz",
    "treeload._formats.pytorch.source",
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
    path: AnyPlace,
    *,
    item: str | None = None,
    separator: str | None = None,
    stated_format: str | None = None,
    sidecar: bool = True,
    whole: bool = False,
) -> Source:
    """The source at ``path``, whatever its format, held against the digests beside it where there are any.

    ``whole``: a server that gives no parts of a file is asked for all of it.

    Raises:
        SourceError: there is nothing at ``path``, it is no checkpoint that treeload knows, or it is
            incomplete or malformed; or its format has not what was asked for.
        RuleError: the format that was stated is none.
    """
    given = place_of(path, whole=whole)
    with as_source_error(f"{str(given)!r} could not be opened"):
        found, where = _found(given, stated_format)
        # A format whose own names are joined splits them itself: at another separator than the usual one.
        own = "separator" in found.options
        asked = {"item": item, "separator": separator if own else None}
        with _said_of_both(where, found) if stated_format else _by_another_name(where, found.magic):
            source = found.open(where, asked)
            if shard := one_shard(where):
                source.label = f"{source.label.removesuffix(')')}, {shard})"
        if sidecar:
            usual = source if asked["separator"] is None else found.open(where, {**asked, "separator": None})
            for place in dict.fromkeys((given, where)):
                source = _with_sidecar(source, usual, place if item is None else place / item)
        return source if own or separator is None else SeparatedSource(source, separator)


def _with_sidecar(source: Source, usual: Source, beside: Place) -> Source:
    """The source held against the digests beside it, which know its leaves as they are usually split."""
    if usual is source or source.leaf_digests:
        return with_sidecar(source, beside)
    usual = with_sidecar(usual, beside)
    own_to_usual = zip(source.specs(), usual.specs(), strict=True)  # both in the order of the file
    known = {name: usual.leaf_digests[other] for name, other in own_to_usual if other in usual.leaf_digests}
    return source.with_digests(known) if known else source


# --- which format, and where ------------------------------------------------------------------------


def recognising(path: Place) -> Format | None:
    """The format that a path is of: by its bytes, else by its name; None where no format knows it."""
    if not path.exists():
        return next((each for each in formats() if each.claims_missing(path)), None)
    return _by_bytes(path) or _by_name(path)


def _by_bytes(path: Place) -> Format | None:
    return next((each for each in formats() if each.recognises(path)), None)


def _by_name(path: Place) -> Format | None:
    return next((each for each in formats() if each.is_named(path)), None)


def _found(given: Place, stated: str | None) -> tuple[Format, Place]:
    """The format that a path is of, and what is to be opened: the path, or what is meant in it.

    Raises:
        SourceError: it is of none.
        RuleError: no format is called as was stated.
    """
    if isinstance(given, Remote) and not given.is_dir():
        look_at(given)  # a server that does not answer is asked once, and what it says is said
    if stated is not None:
        found = _called(stated)
        if not given.exists() and not found.claims_missing(given):
            raise _missing(given)
        return found, snapshot_of(given)
    path = snapshot_of(given)
    if not path.exists():
        claiming = recognising(path)
        if claiming is None:
            raise _missing(path)
        return claiming, path
    told = _by_bytes(path)
    if told is None and path.is_dir():
        only = None if isinstance(path, Remote) else unknown.only_file(path, _opens)
        inside = None if only is None else _by_bytes(only)
        if only is not None and inside is not None:
            return inside, only
    told = told or _by_name(path)
    if told is None:
        raise _unknown(path)
    return told, path


def _called(stated: str) -> Format:
    names = {each.name: each for each in formats()}
    if stated in names:
        return names[stated]
    near = difflib.get_close_matches(stated, names, 1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise RuleError(
        f"From(format={printable(stated)!r}): there is no such format.{meant} "
        f"There are {', '.join(map(repr, names))}"
    )


def _opens(path: Path) -> bool:
    return is_repository(path) or recognising(path) is not None


def _can_be_opened(path: Path) -> bool:
    try:
        open_source(path, sidecar=False)
    except SourceError:
        return False
    return True


def _missing(path: Place) -> SourceError:
    return SourceError(
        f"{str(path)!r} does not exist{'' if isinstance(path, Remote) else _nearest_that_exists(path)}"
    )


def _unknown(path: Place) -> SourceError:
    is_whole = importlib.import_module("treeload._formats.orbax.layout").is_checkpoint
    if isinstance(path, Remote):
        return SourceError(f"{str(path)!r} {_what_is_far(path)}")
    said = unknown.what_is(path, opens=_opens, is_whole=is_whole, can_be_opened=_can_be_opened)
    return SourceError(f"{str(path)!r} {said or _not_known()}")


def _not_known() -> str:
    known = "\n".join(f"  {each.words}" for each in formats())
    return (
        "is no checkpoint that treeload knows, by its bytes or by its name (where you know "
        f'its format, state it: From(path, format="msgpack")). It knows\n{known}'
    )


def _what_is_far(path: Remote) -> str:
    """What lies on a server that no format takes there."""
    if not path.is_dir():
        return unknown.content_of(path) or _not_known()
    names = names_in(path)
    listed = ", ".join(printable(name, 80) for name in sorted(names)[:8]) or "nothing"
    return f"is a directory that treeload opens nothing in; it holds {listed}"


# --- what else it may be ----------------------------------------------------------------------------


@contextmanager
def _by_another_name(path: Place, magic: bytes | tuple[bytes, ...] | None) -> Iterator[None]:
    """What a file is that bears a format's name and is not of it: more use than where its parser stumbled."""
    try:
        yield
    except SourceError as error:
        if isinstance(path, Remote):
            said = "" if path.is_dir() else unknown.content_of(path, magic=magic)
        elif path.is_dir():
            found = unknown.not_downloaded_in(path)
            said = "" if found is None else f"cannot be opened: {found[0]!r} in it {found[1]}"
        else:
            said = unknown.content_of(path, magic=magic)
        if not said:
            raise
        raise SourceError(f"{str(path)!r} {said}") from error


@contextmanager
def _said_of_both(path: Place, stated: Format) -> Iterator[None]:
    """What was stated of a path that cannot be opened so, beside what its bytes say."""
    try:
        yield
    except SourceError as error:
        told = _by_bytes(path)
        content = "" if path.is_dir() else unknown.content_of(path, magic=stated.magic)
        but = f"; it {content}" if content else ""
        if told is not None:
            but = "" if told.name == stated.name else f"; by its bytes it is of the format {told.name!r}"
        raise SourceError(
            f"{str(path)!r} cannot be opened in the format {stated.name!r}, which was stated{but}: {error}",
            changed=error.changed,
        ) from error


def _nearest_that_exists(path: Path) -> str:
    """What lies where the path leads as far as it goes; what is called nearly so comes first."""
    for parent in path.parents:
        if parent.is_dir():
            names = sorted(os.listdir(parent))
            if not names:
                return f"; {str(parent)!r} is empty"
            close = difflib.get_close_matches(path.relative_to(parent).parts[0], names, 3)
            near = f"; near: {', '.join(repr(printable(name, 80)) for name in close)}" if close else ""
            shown = [printable(name, 80) for name in names[:_LISTED]]
            if len(names) > _LISTED:
                shown.append("…")
            return f"{near}; {str(parent)!r} holds {', '.join(shown)}"
    return ""


_LISTED = 8
