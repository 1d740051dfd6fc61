"""Whether several checkpoints are of one model, and what it is said where they are not.

Owns the question that an average asks first; what has no mean (integers, booleans, PRNG keys) must agree.
Differences of structure are found from the specs, before a floating-point leaf is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from treeload._checkpoints.view import View, batches
from treeload._errors import TreeloadError
from treeload._findings.finding import Finding
from treeload._findings.kinds import Kind
from treeload._findings.portable import portable
from treeload._leaves.spec import Spec, is_key, print_spec
from treeload._leaves.values import equal
from treeload._naming.name import Name
from treeload._reports.groups import group
from treeload._reports.page import sentence
from treeload._sources.source import SourceLeaf
from treeload._sources.stamp import print_stamp


class NoAverage(TreeloadError):
    """Checkpoints that have no average.

    Attributes:
        findings: every disagreement, none grouped or cut; ``expected`` is what the first checkpoint
            has, ``found`` and ``source`` what the one that disagrees has.
    """

    __module__ = "treeload"
    __qualname__ = "TreeloadError"  # as which it is caught, and so said

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings

    def __reduce__(self) -> tuple[Any, ...]:
        return _no_average, (str(self), portable(self.findings))


def _no_average(message: str, findings: tuple[Finding, ...]) -> NoAverage:
    """The error on the other side of a process."""
    return NoAverage(message, findings)


def read(
    view: View, held: Mapping[Name, Sequence[Name]], number: int, wanted: Iterable[Name],
    specs: Mapping[Name, Spec],
) -> dict[Name, Any]:  # fmt: skip
    """The leaves ``wanted`` of one checkpoint, under the names that the result gives them."""
    own = {held[name][number]: name for name in wanted}
    return {
        own[name]: array if is_key(array.dtype) else np.asarray(array)
        for name, array in view.read({name: specs[result] for name, result in own.items()})
    }


def has_mean(spec: Spec) -> bool:
    return jax.dtypes.issubdtype(spec.dtype, np.inexact)


# Are they of one model?


def one_model(views: Sequence[View]) -> dict[Name, list[Name]]:
    """Each leaf of the result, and the name that each checkpoint has for it.

    Raises:
        NoAverage: a leaf is not in all of them, or not of one shape and dtype.
    """
    specs, who = [view.specs() for view in views], _labels(views)
    held: dict[Name, list[Name]] = {}
    findings = list(_other_versions(views, who))
    for names in _leaves(views):
        own = [next((name for name in names if name in each), None) for each in specs]
        present = [number for number, name in enumerate(own) if name is not None]
        name = own[present[0]]
        assert name is not None
        first = specs[present[0]][name]
        for number, (found, view) in enumerate(zip(own, views, strict=True)):
            if found is None:
                message = f"not in {who[number]}, but in {who[present[0]]}"
                findings.append(Finding(Kind.MISSING, name, "error", first, None, message=message))
                continue
            spec = specs[number][found]
            if (spec.shape, spec.dtype) != (first.shape, first.dtype):
                kind = Kind.SHAPE if spec.shape != first.shape else Kind.DTYPE
                message = f"{print_spec(first)} in {who[present[0]]}; {print_spec(spec)} in {who[number]}"
                leaf = SourceLeaf(view.label, found, spec)
                findings.append(Finding(kind, name, "error", first, spec, leaf, message=message))
        held[name] = [found for found in own if found is not None]
    _raise_for(findings, "")
    return held


def _other_versions(views: Sequence[View], who: Sequence[str]) -> Iterator[Finding]:
    """A finding for each checkpoint of another version than the first that says one.

    Its names may mean other things, or its layouts may be others, where all shapes agree.
    """
    said = [(number, view.version) for number, view in enumerate(views) if view.version]
    for number, version in said[1:]:
        first, expected = said[0]
        if version != expected:
            one, other = (f"version {print_stamp(stamp)}" for stamp in (expected, version))
            message = (
                f"{one} in {who[first]}; {other} in {who[number]}: load each with history=, then average"
            )
            yield Finding(Kind.VERSION, Name(), "error", one, other, message=message)


def opened(views: Sequence[View]) -> list[View]:
    """The views with their boxes open, where one of them has none."""
    first, *others = views
    for other in others:
        first = first.beside(other.specs())
    return [first, *(other.beside(first.specs()) for other in others)]


def _leaves(views: Sequence[View]) -> list[list[Name]]:
    """The names that stand for one leaf each: a tied leaf has several.

    It is tied where every checkpoint that has several of its names has tied those. Where one keeps them
    apart, they are apart, and each has a mean of its own.
    """
    specs, ties = [view.specs() for view in views], [view.ties() for view in views]
    names = list(dict.fromkeys(name for each in specs for name in each))
    if not any(ties):
        return [[name] for name in names]
    groups = {name: [name] for name in names}
    for each in ties:
        for alias, canonical in each.items():
            if groups[alias] is not groups[canonical]:
                groups[canonical].extend(groups[alias])
                for name in groups[alias]:
                    groups[name] = groups[canonical]
    order = {name: at for at, name in enumerate(names)}
    found: list[list[Name]] = []
    for members in {id(members): members for members in map(groups.__getitem__, names)}.values():
        together = all(
            len({tied.get(name, name) for name in members if name in each}) <= 1
            for each, tied in zip(specs, ties, strict=True)
        )
        members = sorted(members, key=order.__getitem__)
        found += [members] if together else [[name] for name in members]
    return found


def agreeing(
    views: Sequence[View], held: Mapping[Name, Sequence[Name]], specs: Mapping[Name, Spec]
) -> dict[Name, Any]:
    """The leaves that have no mean, once it is known that they are the same everywhere.

    Raises:
        NoAverage: some are not.
    """
    result: dict[Name, Any] = {}
    findings: list[Finding] = []
    who = _labels(views)
    for batch in batches(specs, sources=2):
        first = read(views[0], held, 0, batch, specs)
        result.update(first)
        for number, view in enumerate(views[1:], start=1):
            for name, array in read(view, held, number, batch, specs).items():
                if not equal(first[name], array):
                    spec = specs[name]
                    leaf = SourceLeaf(view.label, held[name][number], spec)
                    message = f"{_shown(first[name])} in {who[0]}; {_shown(array)} in {who[number]}"
                    findings.append(Finding(Kind.VALUES, name, "error", spec, spec, leaf, message=message))
    _raise_for(findings, _NO_MEAN)
    return result


_NO_MEAN = """

Integers, booleans and PRNG keys have no mean. To take the last source's:
last=True, or last="a/pattern"."""


def _labels(views: Sequence[View]) -> list[str]:
    return [f"sources[{number}], {view.label}" for number, view in enumerate(views)]


def _shown(array: Any) -> str:
    return str(array) if array.ndim == 0 and not is_key(array.dtype) else print_spec(array)


def _raise_for(findings: Sequence[Finding], advice: str) -> None:
    if not findings:
        return
    groups = group([(finding.name, (finding.kind, finding.message)) for finding in findings])
    lines = []
    for found in groups[:_MOST]:
        finding = findings[found.members[0]]
        lines.append(f"  {finding.kind:<8}  {found.title}")
        lines += [text.plain for text in sentence(finding.message, " " * 12)]
    if len(groups) > _MOST:
        lines.append(f"  … and {len(groups) - _MOST:,} more; .findings has them all")
    many = f"{len(findings):,} {'difference' if len(findings) == 1 else 'differences'}"
    raise NoAverage(
        f"these checkpoints have no average: {many}\n\n" + "\n".join(lines) + advice, tuple(findings)
    )


_MOST = 24
