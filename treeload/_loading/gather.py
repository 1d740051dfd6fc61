"""Source leaves read, checked to be what they were said to be, handed on once a job has all its own.

Leaves stream: each is handed on as soon as its source yields it, and what it was made of is let go, so
that the peak is the result and the leaf at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from treeload._errors import SourceError
from treeload._leaves.spec import Spec, make_spec, print_spec, without_sharding
from treeload._loading.progress import Advance
from treeload._naming.name import Name, print_name
from treeload._ops.expression import Leaf
from treeload._sources.source import Source, as_source_error

# Reading.


@dataclass
class Job:
    """Source leaves that are needed together."""

    leaves: Sequence[Leaf]
    lacking: set[Leaf] = field(init=False)

    def __post_init__(self) -> None:
        self.lacking = set(self.leaves)


@dataclass(frozen=True)
class Plain:
    """Leaves of the first source that are needed alone, by one place each: they are no jobs.

    Attributes:
        requests: them, as ``Source.read`` has them.
        deliver: takes each as it comes.
    """

    requests: Mapping[Name, Spec] = field(default_factory=dict)
    deliver: Callable[[Name, Any], None] = lambda name, array: None


def gather(
    sources: Sequence[Source],
    jobs: Sequence[Job],
    shardings: Mapping[Leaf, jax.sharding.Sharding] = MappingProxyType({}),
    advance: Advance = None,
    plain: Plain = Plain(),  # it never changes
) -> Iterator[tuple[int, dict[Leaf, Any]]]:
    """Each job's number and arrays, as soon as its last leaf is read; an array goes with its last job.

    A source is asked once, for all that is needed of it.
    """
    desk = _Desk(jobs)
    for index, source in enumerate(sources):
        wanted = {leaf.name: leaf for leaf in desk.waiting if leaf.index == index}
        alone = {} if index else plain.requests
        requests = {**alone, **_requests(wanted, shardings)}
        for name, array in read_all(source, requests) if requests else ():
            leaf = wanted.get(name)
            if advance is not None:
                advance(index, name)
            if leaf is None:
                plain.deliver(name, array)
            else:
                yield from desk.take(leaf, array)


class _Desk:
    """What has been read and waits for the rest of its jobs."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.waiting: dict[Leaf, list[int]] = {}
        for number, job in enumerate(jobs):
            for leaf in job.lacking:
                self.waiting.setdefault(leaf, []).append(number)
        self._held: dict[Leaf, Any] = {}
        self._uses = {leaf: len(numbers) for leaf, numbers in self.waiting.items()}

    def take(self, leaf: Leaf, array: Any) -> Iterator[tuple[int, dict[Leaf, Any]]]:
        """The jobs that had lacked nothing but this leaf, each with its arrays."""
        self._held[leaf] = array
        for number in self.waiting[leaf]:
            job = self.jobs[number]
            job.lacking.discard(leaf)
            if not job.lacking:
                yield number, {each: self._held[each] for each in job.leaves}
                self._let_go(job)

    def _let_go(self, job: Job) -> None:
        for leaf in set(job.leaves):
            self._uses[leaf] -= 1
            if not self._uses[leaf]:
                del self._held[leaf]


def whole(source: Source, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
    """Every leaf asked for, on the host, checked to be what the source says it is.

    Raises:
        SourceError: as a source's ``read``; or it gave something else.
    """
    return read_all(source, {name: without_sharding(spec) for name, spec in requests.items()})


def _requests(
    wanted: Mapping[Name, Leaf], shardings: Mapping[Leaf, jax.sharding.Sharding]
) -> dict[Name, Spec]:
    return {
        name: make_spec(tuple(leaf.spec.shape), leaf.spec.dtype, shardings.get(leaf) if shardings else None)
        for name, leaf in wanted.items()
    }


def read_all(source: Source, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
    """Every leaf asked for, each once, checked to be of the shape and dtype that was asked for.

    Raises:
        SourceError: as a source's ``read``; or it gave something else.
    """
    outstanding = dict(requests)
    with as_source_error(f"{source.label} could not be read"):
        for name, array in source.read(requests):
            spec = outstanding.pop(name, None)
            if spec is None:
                raise SourceError(
                    f"{source.label} gave {print_name(name)!r}, which was not asked for (any more)"
                )
            if array.shape != spec.shape or array.dtype != spec.dtype:
                raise not_as_said(source, name, spec, array)
            if isinstance(array, np.ndarray) and not source.gives_away:
                array = array.copy()
            yield name, array
        if outstanding:
            some = ", ".join(sorted(map(print_name, outstanding))[:5])
            raise SourceError(
                f"{source.label} did not give {len(outstanding)} of the leaves asked for: {some}"
            )


def not_as_said(source: Source, name: Sequence[str], said: Any, found: Any) -> SourceError:
    return SourceError(
        f"{print_name(name)!r} in {source.label} was said to be {print_spec(said)} and is {print_spec(found)}"
    )
