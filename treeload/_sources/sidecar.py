"""Digests of a checkpoint that carries none, kept in a file beside it: ``<path>.digests.json``.

Owns that file: what is in it, when it is of the checkpoint that it lies beside, and the source that is held
against it. It is made by ``treeload.digest`` and used by whatever opens the path later. Like any file it may
be damaged or hostile, so it is sealed with a digest of its own and checked against the source's specs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xxhash

from treeload._errors import SaveError, SourceError
from treeload._files.digests import Digest, blocks_from_json, blocks_to_json, damaged, digest, digests_of
from treeload._files.open import look_at, opened, read_bytes
from treeload._files.place import Place, Refused, Remote
from treeload._files.regions import placed, slices_of
from treeload._files.strict_json import parse_json
from treeload._leaves.spec import Spec, is_key
from treeload._naming.name import Name, print_name
from treeload._sources.source import Source, as_source_error

SUFFIX = ".digests.json"


FORMAT = 1


_MOST_BYTES = 1 << 29


def beside(path: Path) -> Path:
    """Where the digests of the checkpoint at ``path`` are kept."""
    path = Path(os.path.abspath(path))  # for ".", which has no name of its own
    return path.with_name(path.name + SUFFIX)


# --- Written ------------------------------------------------------------------------------------------


def describe(source: Source, known: Mapping[Name, Digest]) -> dict[str, Any]:
    """What the sidecar of a source holds, these being the digests of its leaves."""
    said: dict[str, Any] = {
        "format": FORMAT,
        "step": getattr(source, "step", None),
        "facts": _facts(source),
        "leaves": {
            print_name(name): _leaf_to_json(spec, known.get(name)) for name, spec in source.specs().items()
        },
    }
    return {**said, "seal": _seal(said)}


def digest_leaf(array: Any) -> Digest:
    """The digests of a leaf as a source gives it on the host; of typed keys, those of their data."""
    if is_key(array.dtype):
        return Digest(digest(np.asarray(jax.random.key_data(array))))
    return digests_of(np.asarray(array))


def write(file: Path, said: Mapping[str, Any]) -> None:
    """Puts the sidecar in place, whole or not at all.

    Raises:
        SaveError: the file system refuses.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with new.open("x", encoding="utf-8") as stream:
            json.dump(said, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, file)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise SaveError(f"{str(file)!r} could not be written: {error}") from error


def differing(file: Path, said: Mapping[str, Any]) -> list[str]:
    """The printed names of leaves of which a sidecar that is there says other bytes of the same shape."""
    try:
        before = _read(file)["leaves"] if _is_there(file) else {}
    except SourceError:  # one that says nothing any more
        return []
    return [
        printed
        for printed, known in said["leaves"].items()
        if isinstance(then := before.get(printed), dict)
        and all(then.get(key) == known[key] for key in ("dtype", "shape"))
        and then.get("digest") != known.get("digest")
    ]


def _leaf_to_json(spec: Spec, known: Digest | None) -> dict[str, Any]:
    said: dict[str, Any] = {"dtype": str(spec.dtype), "shape": list(spec.shape)}
    if known is not None:
        said["digest"] = known.whole
        if (blocks := blocks_to_json(known)) is not None:
            said["blocks"] = blocks
    return said


def _facts(source: Source) -> str:
    """The digest of what the source says besides its leaves."""
    said = [
        sorted((print_name(alias), print_name(name)) for alias, name in source.ties().items()),
        sorted((print_name(name), repr(value)) for name, value in source.absent().items()),
        sorted(map(print_name, source.numbers())),
        source.metadata,
    ]
    return xxhash.xxh3_128_hexdigest(_canonical(said))


def _seal(said: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(_canonical({key: said[key] for key in said if key != "seal"}))


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_as_dict).encode()


def _as_dict(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else repr(value)


# --- Used ---------------------------------------------------------------------------------------------


def with_sidecar(source: Source, path: Place) -> Source:
    """The source held against the digests beside ``path``; as it is, where none are or it has its own.

    Raises:
        SourceError: they are damaged, or not of what is there.
    """
    file = path.with_name(path.name + SUFFIX) if isinstance(path, Remote) else beside(path)
    if source.leaf_digests or not _is_there(file):
        return source
    said = _read(file)
    if said["step"] != getattr(source, "step", None):  # of an earlier step, which is another checkpoint
        return source
    with as_source_error(f"{str(file)!r} is malformed"):
        known = {
            name: digests for name, digests in _leaves(said, source, file).items() if digests is not None
        }
    if said["facts"] != _facts(source):
        raise SourceError(
            f"{source.label} is damaged, or another one than {str(file)!r} was made for: what it says of "
            "itself besides its arrays is not what it was"
        )
    return source.with_digests(known) if source.checks_digests else Checked(source, known)


def _is_there(file: Place) -> bool:
    """Whether digests lie there; a server that refuses to say, as some do of what is not there, has none."""
    if not isinstance(file, Remote):
        return os.path.lexists(file)
    try:
        return file.exists()
    except Refused:
        return False


def _read(file: Place) -> Mapping[str, Any]:
    found = look_at(file)
    if found.size > _MOST_BYTES:
        raise SourceError(f"{found} is too large for a file of digests: {found.size:,} bytes")
    with opened(found) as descriptor:
        raw = read_bytes(descriptor, found.size, 0)
    try:
        said = parse_json(raw.decode())
        if not isinstance(said, dict) or type(said.get("format")) is not int:
            raise ValueError("it says no format")
        if said["format"] > FORMAT:
            raise ValueError(f"it is of a newer treeload (format {said['format']}, this one reads {FORMAT})")
        if said.get("seal") != _seal(said):
            raise ValueError("it is damaged: its own digest is another one")
    except ValueError as error:
        raise SourceError(
            f"{found} holds no digests: {error}; make them again with treeload.digest, or remove it"
        ) from error
    return said


def _leaves(said: Mapping[str, Any], source: Source, file: Place) -> dict[Name, Digest | None]:
    specs = {print_name(name): spec for name, spec in source.specs().items()}
    for printed in (*said["leaves"], *specs):
        there, known = specs.get(printed), said["leaves"].get(printed)
        then = None if known is None else (known["dtype"], tuple(known["shape"]))
        now = None if there is None else (str(there.dtype), tuple(there.shape))
        if then != now:
            what = "is not there" if now is None else f"is {now[0]}{list(now[1])}"
            was = "was not there" if then is None else f"was {ascii(then[0])[1:-1]}{list(then[1])}"
            raise SourceError(
                f"{source.label} is damaged, or another one than {str(file)!r} was made for: {printed!r} "
                f"{was}, and {what}; if it was meant to change, make its digests again with treeload.digest"
            )
    return {
        Name.parse(printed): None
        if "digest" not in known
        else blocks_from_json(str(known["digest"]), known.get("blocks"), specs[printed].shape)
        for printed, known in said["leaves"].items()
    }


class Checked(Source):
    """Another source, each of whose leaves is read whole on the host and held against its digest.

    Args:
        source: the source, whose own ``read`` checks nothing.
        digests: what the bytes of its leaves must give.
    """

    checks_digests = True

    def __init__(self, source: Source, digests: Mapping[Name, Digest]) -> None:
        self.source = source
        self.leaf_digests = digests
        for said in ("label", "metadata", "positional", "counts_numbers", "gives_away", "checks_itself"):
            setattr(self, said, getattr(source, said))

    def specs(self) -> Mapping[Name, Spec]:
        return self.source.specs()

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        known = self.leaf_digests
        on_host = {
            name: jax.ShapeDtypeStruct(spec.shape, spec.dtype) if name in known else spec
            for name, spec in requests.items()
        }
        for name, array in self.source.read(on_host):
            if name not in known or name not in requests:
                yield name, array
                continue
            if digest_leaf(array).whole != known[name].whole:
                raise damaged(f"{self.label}: {print_name(name)!r}")
            yield name, _placed(array, requests[name])

    def unchecked(self) -> Source:
        return self.source

    def checksummed(self) -> frozenset[Name]:
        return self.source.checksummed()

    def ties(self) -> Mapping[Name, Name]:
        return self.source.ties()

    def absent(self) -> Mapping[Name, Any]:
        return self.source.absent()

    def statics(self) -> frozenset[tuple[str, ...]]:
        return self.source.statics()

    def left_out(self) -> Mapping[Name, str]:
        return self.source.left_out()

    def numbers(self) -> frozenset[tuple[str, ...]]:
        return self.source.numbers()


def _placed(array: Any, request: Spec) -> Any:
    if request.sharding is None:
        return array
    if not isinstance(array, np.ndarray):
        return jax.device_put(array, request.sharding)
    return placed(request, lambda box: array[slices_of(box)])
