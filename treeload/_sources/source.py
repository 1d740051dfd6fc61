"""What a source of arrays is: the seam between treeload and every format.

Owns the ``Source`` class that formats (and users) subclass, and the as_source_error that turns whatever they
raise into a ``SourceError``. Knows no format, opens no file, and decides nothing about matching.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar

from treeload._errors import SourceError, TreeloadError
from treeload._files.digests import Digest
from treeload._leaves.spec import Spec, elements
from treeload._naming.name import Name
from treeload._naming.printable import printable
from treeload._sources.provenance import Provenance
from treeload._sources.stamp import UNSTAMPED, Stamp, checked_stamp
from treeload._trees.names import Names

Absent: TypeAlias = Literal[None, False]


class Source(abc.ABC):
    """Where values come from: named leaves whose shapes and dtypes are known before any is read.

    Subclass it to load from a format of your own; ``treeload.testing.SourceConformance`` is the test
    suite that a subclass must pass. Two methods are asked of you, the rest has defaults.

    Attributes:
        label: what this source is, in a few words for reports: ``"'ckpts/vit' (Orbax, step 300)"``.
        metadata: what the checkpoint says about itself besides its arrays; JSON-like.
        version: at which versions of the code's parameters it was saved: pattern of a scope → number, ``""``
            for the whole; empty where that is not known. ``treeload.History`` says what they mean.
        provenance: where its leaves came from, as far as that was kept when they were saved: printed name →
            ``{"source", "name", "ops", "rule"}``; JSON-like.
        positional: its leaves have no names but their numbers, so it loads by position only.
        counts_numbers: by position, Python numbers that are a tree's configuration have a place too.
        gives_away: every NumPy array that it yields is the caller's own, as ``read`` says, and it can be
            relied on. Else each is copied as it is yielded, because a source that goes on writing to what
            it gave would change what was loaded behind the user's back.
        in_memory: its arrays lie in memory, so that ``take`` gives one without a request.
        leaf_digests: what the bytes of leaves must give, where that is known; aliases are there too.
        checks_digests: ``read`` holds all that it yields against ``leaf_digests``. Where it does not, a
            source that is opened with digests beside it (``treeload.digest``) is wrapped in one that does.
        checks_itself: each leaf has a checksum of the format's own, and ``read`` holds what it yields against
            it: damage is noticed without any digest.
    """

    label: str = "a source"
    metadata: Mapping[str, Any] = MappingProxyType({})
    version: Stamp = UNSTAMPED
    provenance: Provenance = MappingProxyType({})
    positional: bool = False
    counts_numbers: bool = False
    gives_away: bool = False
    in_memory: bool = False
    leaf_digests: Mapping[Name, Digest] = MappingProxyType({})
    checks_digests: bool = False
    checks_itself: bool = False

    @abc.abstractmethod
    def specs(self) -> Mapping[Name, Spec]:
        """Shape and dtype of every leaf, in the order of the file; reads no array.

        A leaf that is a typed PRNG key has the key's own dtype (``key<fry>``). A ``sharding`` in a
        spec is not looked at: where a value is put is decided by the destination.
        """

    @abc.abstractmethod
    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        """The leaves asked for, each once, in any order, one by one.

        Each request repeats the leaf's own shape and dtype. Its ``sharding`` says where to put the
        array: a sharding → a committed ``jax.Array`` with exactly that sharding; ``None`` → a NumPy
        array on the host, or a ``jax.Array`` where it lies already. A yielded NumPy array is the
        caller's own: nobody writes to it afterwards (so it can be handed to a device without a
        copy, which JAX does where it starts on a 64-byte boundary). Typed PRNG keys are always
        yielded as ``jax.Array`` of the key's dtype.

        Only the leaves asked for are read, and at most a bounded part of them is held at any time.
        """

    def ties(self) -> Mapping[Name, Name]:
        """Aliases: name → the name of the leaf that it shares its array with. Both are in ``specs``."""
        return {}

    def absent(self) -> Mapping[Name, Absent]:
        """Slots the source knows to be empty: name → ``None`` or ``False``. None is in ``specs``."""
        return {}

    def statics(self) -> frozenset[tuple[str, ...]]:
        """Slots that hold something which is no array and no number. None is in ``specs``."""
        return frozenset()

    def left_out(self) -> Mapping[Name, str]:
        """What the saved tree held that could not be stored, in words: name → ``"a str"``."""
        return {}

    def numbers(self) -> frozenset[tuple[str, ...]]:
        """Leaves that were Python numbers when they were saved, where that can be told. All in ``specs``."""
        return frozenset()

    def checksummed(self) -> frozenset[Name]:
        """Leaves whose bytes ``read`` holds against a checksum that the file itself has. All in ``specs``."""
        return frozenset()

    def unchecked(self) -> Source:
        """The source with nothing held against it: what ``load(check_digests=False)`` reads."""
        return self.with_digests({}) if self.leaf_digests else self

    def with_digests(self, digests: Mapping[Name, Digest]) -> Source:
        """The source with these digests instead of its own."""
        changed = copy.copy(self)
        changed.leaf_digests = digests
        return changed

    def opened_again(self) -> Source | None:
        """What lies there now, where this was replaced since it was opened; None where it cannot be told.

        Raises:
            SourceError: it cannot be opened, or it holds other leaves than before.
        """
        return None

    def shaped(self) -> Mapping[Any, Any]:
        """``specs``, where anything with a ``shape`` and a ``dtype`` will do: what the matcher looks at."""
        return self.specs()

    def columns(self) -> tuple[Names, list[Any]] | None:
        """Names and arrays side by side, where it has them so and holds nothing else; else None.

        A faster way to ``specs``: only for a source whose slots are all arrays, none of them shared.
        """
        return None

    def take(self, name: tuple[str, ...]) -> Any:
        """One array as it lies: a ``jax.Array`` itself, of anything on the host a copy that is the caller's.

        A faster way to ``read``, asked only of a source that is ``in_memory``.

        Raises:
            SourceError: there is none of that name, or it holds no values.
        """
        raise NotImplementedError(f"{type(self).__name__} is not in memory: its arrays are read")

    def __getstate__(self) -> dict[str, Any]:
        # A plan may be copied and pickled, and holds its sources; a read-only view of a dict may not.
        return {
            key: dict(value) if isinstance(value, MappingProxyType) else value
            for key, value in vars(self).items()
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label}>"


@contextmanager
def as_source_error(what: str) -> Iterator[None]:
    """Whatever goes wrong inside leaves as a ``SourceError`` that says ``what``, its cause chained.

    treeload's own errors pass as they are, and so do interrupts.
    """
    try:
        yield
    except TreeloadError:
        raise
    except MemoryError as error:
        raise SourceError(f"{what}: not enough memory") from error
    except Exception as error:
        reason = printable(" ".join(str(error).split())) or "no further word"
        if len(reason) > 300:
            reason = reason[:300] + " …"
        raise SourceError(f"{what}: {type(error).__name__}: {reason}") from error


def stamp_of(source: Source) -> Stamp:
    """What a source says of its version.

    Raises:
        SourceError: it is no stamp.
    """
    with as_source_error(f"{source.label} does not say its version"):
        try:
            return checked_stamp(source.version)
        except ValueError as error:
            raise SourceError(f"{source.label} says a version that is none: {error}") from None


_TRIES = 4


_Made = TypeVar("_Made")


def read_again(make: Callable[[], _Made]) -> _Made:
    """What ``make`` gives; made anew where it failed because what it read was replaced meanwhile.

    Raises:
        SourceError: it failed for another reason, or was replaced again and again.
    """
    for _ in range(_TRIES - 1):
        try:
            return make()
        except SourceError as error:
            if not error.changed:
                raise
    return make()


def unverifiable(source: Source) -> tuple[Name, ...]:
    """The leaves that could be damaged without a word: those with bytes and without a digest or checksum."""
    if source.in_memory or source.checks_itself:
        return ()
    told = source.leaf_digests.keys() | source.checksummed()
    return tuple(name for name, spec in source.specs().items() if name not in told and elements(spec))


@dataclass(frozen=True, slots=True)
class SourceLeaf:
    """One leaf of one source.

    Attributes:
        source: the source's label.
        name: the leaf's own name there.
        spec: its shape and dtype there.
    """

    source: str
    name: Name
    spec: Spec

    def __str__(self) -> str:
        return str(self.name)
