"""Whether a checkpoint is what was written, and the digests of one that cannot tell.

Owns ``verify``, which reads everything and keeps nothing, ``digest``, which reads everything and writes a
sidecar, and what they answer. Which bytes a digest is of is in ``_files.digests``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from treeload._checkpoints.view import batches
from treeload._errors import SaveError, SourceError, TreeloadWarning
from treeload._files.digests import Digest
from treeload._files.place import Remote
from treeload._files.places import place_of
from treeload._formats import open_source
from treeload._leaves.spec import Spec, elements
from treeload._loading.gather import whole
from treeload._naming.name import Name
from treeload._reports.groups import print_names
from treeload._reports.page import MARGIN, counted, printable, sentence
from treeload._sources import given, sidecar
from treeload._sources.source import Source, as_source_error, read_again


@dataclass(frozen=True, repr=False)
class Verification:
    """What reading all of a checkpoint has shown, leaf by leaf.

    Attributes:
        label: the checkpoint.
        checked: the leaves whose bytes are those that were written.
        damaged: those whose bytes are not, or that cannot be read.
        unverified: those that can be read and have no digest, so that nobody can tell.
        reasons: what is wrong with each damaged leaf.
    """

    label: str
    checked: tuple[Name, ...]
    damaged: tuple[Name, ...]
    unverified: tuple[Name, ...]
    reasons: Mapping[Name, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every leaf was checked and is what was written."""
        return not self.damaged and not self.unverified

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{self._summary()} in {printable(self.label)}"]
        for head, names in (("damaged", self.damaged), ("cannot be verified", self.unverified)):
            if names:
                lines += ["", head, *(row.plain for row in sentence(print_names(names, most=20), MARGIN))]
        for reason in list(self.reasons.values())[:_MOST]:
            lines += [row.plain for row in sentence(printable(reason), MARGIN, hanging=MARGIN * 2)]
        if self.unverified:
            lines += ["", "it holds no digests of these: treeload.digest(path) makes them, once you trust it"]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Verification: {self._summary()} in {printable(self.label)}>"

    def _summary(self) -> str:
        said = [f"{counted(len(self.checked), 'leaf', 'leaves')} verified"]
        if self.damaged:
            said.append(f"{len(self.damaged):,} damaged")
        if self.unverified:
            said.append(f"{len(self.unverified):,} without a digest")
        return ", ".join(said)


_MOST = 8  # reasons that are shown


def verify(path: str | os.PathLike[str]) -> Verification:
    """Whether every leaf of a checkpoint is what was written: all of it is read, and nothing is kept.

    It is held against the digests that ``treeload.save`` writes, or against those that ``treeload.digest``
    has put beside a checkpoint of others. At most 32 MB, or one leaf, are held at any time.

    Examples:
        >>> import tempfile, treeload
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     treeload.save(f"{folder}/vit", {"w": 1.0, "b": 2.0})
        ...     found = treeload.verify(f"{folder}/vit")
        >>> found.ok, [str(name) for name in found.checked]
        (True, ['b', 'w'])

    Raises:
        SourceError: nothing is there, or what says which leaves there are is damaged.
        TypeError: ``path`` is no path.
    """
    given.place(path, "verify")
    return read_again(lambda: _verify(open_source(path)))


def _verify(source: Source) -> Verification:
    known = source.leaf_digests.keys() | source.checksummed()
    checked: list[Name] = []
    unverified: list[Name] = []
    reasons: dict[Name, str] = {}
    for name, found in _each(source, keep_on=True):
        if isinstance(found, SourceError):
            reasons[name] = str(found)
        elif name in known or source.checks_itself or not elements(found):
            checked.append(name)
        else:
            unverified.append(name)
    # They are read as they lie in files, and said in the source's order.
    place = {name: at for at, name in enumerate(source.specs())}.__getitem__
    reasons = {name: reasons[name] for name in sorted(reasons, key=place)}
    checked.sort(key=place)
    unverified.sort(key=place)
    return Verification(source.label, tuple(checked), tuple(reasons), tuple(unverified), reasons)


def digest(path: str | os.PathLike[str]) -> Path:
    """The file beside a checkpoint of others in which the digests of all its leaves are by now.

    ``<path>.digests.json``. Whatever opens the same path later holds what it reads against them. All of the
    checkpoint is read, as it is now: do it when you trust it, right after a download say. Digests that lie
    there already are replaced; where they are of other bytes, a ``TreeloadWarning`` names the leaves.

    Raises:
        SourceError: nothing is there, or it cannot be read; or it was written by ``treeload.save``, and so
            carries its digests.
        SaveError: the file cannot be written; nothing is, beside a URL.
        TypeError: ``path`` is no path.
    """
    given.place(path, "digest")
    where = place_of(path)
    if isinstance(where, Remote):
        raise SaveError(
            f"the digests of {str(where)!r} would lie beside it, and treeload writes nothing there: download "
            "it, and make them there"
        )
    said = read_again(lambda: _described(where))
    with as_source_error(f"the digests of {str(where)!r} have no place"):
        file = sidecar.beside(where)
        changed = sidecar.differing(file, said)
        sidecar.write(file, said)
    if changed:
        verb = "is not what it was" if len(changed) == 1 else "are not what they were"
        warnings.warn(
            TreeloadWarning(
                f"{print_names(list(map(Name.parse, changed)), most=8)} {verb} when the digests "
                f"in {str(file)!r} were made, which are replaced: if nobody changed the checkpoint, it is "
                "damaged"
            ),
            stacklevel=2,
        )
    return file


def _described(path: Path) -> Mapping[str, Any]:
    source = open_source(path, sidecar=False)
    if source.leaf_digests:
        raise SourceError(f"{source.label} carries the digests of its leaves, and needs none beside it")
    known: dict[Name, Digest] = {
        name: sidecar.digest_leaf(array) for name, array in _each(source) if elements(array)
    }
    known.update({alias: known[name] for alias, name in source.ties().items() if name in known})
    return sidecar.describe(source, known)


def _each(source: Source, *, keep_on: bool = False) -> Iterator[tuple[Name, Any]]:
    """Every leaf, those that are tied once; with ``keep_on``, what went wrong in the place of one."""
    ties = source.ties()
    specs = {
        name: jax.ShapeDtypeStruct(spec.shape, spec.dtype)
        for name, spec in source.specs().items()
        if name not in ties
    }
    for batch in batches(specs, sources=1):
        left = dict(batch)
        try:
            for name, array in whole(source, batch):
                del left[name]
                yield name, array
        except SourceError as error:
            if error.changed or not keep_on:
                raise
            yield from _one_by_one(source, left)


def _one_by_one(source: Source, specs: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
    for name, spec in specs.items():
        try:
            yield from whole(source, {name: spec})
        except SourceError as error:
            if error.changed:
                raise
            yield name, error
