"""Several checkpoints of one model as one: the mean of every leaf.

Owns the mean and the question whether the checkpoints are of one model. Refuses to own the reading
(``_view``). What has no mean (integers, booleans, PRNG keys) must agree, unless the last is asked for.

Everything that speaks against an average is found before a floating-point leaf is read: differences of
structure from the specs, then disagreeing integers, which are small.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from treeload._errors import RuleError, TreeloadError
from treeload._names import Name
from treeload._plan import Finding, SourceLeaf
from treeload._scope import Patterns, compile_patterns
from treeload._specs import Spec, is_key, print_spec
from treeload._trees import nested
from treeload._values import equal
from treeload._view import View, batches
from treeload.reports._groups import group
from treeload.reports._page import sentence

_CHUNK = 1 << 16  # elements accumulated at once


class NoAverage(TreeloadError):
    """Checkpoints that have no average.

    Attributes:
        findings: every disagreement, none grouped or cut; ``expected`` is what the first checkpoint
            has, ``found`` and ``source`` what the one that disagrees has.
    """

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


def average(views: Sequence[View], weights: Sequence[float], last: bool | Patterns) -> Any:
    """The nested dict of the weighted means; see ``treeload.average``."""
    views = _opened(views)
    held = _one_model(views)
    first = views[0].specs()
    specs = {name: first[names[0]] for name, names in held.items()}
    taken = _taken_from_last(specs, last)
    agreed = [name for name, spec in specs.items() if name not in taken and not _has_mean(spec)]
    result: dict[Name, Any] = dict.fromkeys(specs, _HERE)  # the order of the first
    result.update(_read(views[-1], held, len(views) - 1, taken, specs))
    result.update(_agreeing(views, held, {name: specs[name] for name in agreed}))
    means = {name: spec for name, spec in specs.items() if result[name] is _HERE}
    # A checkpoint of weight 0 is not read: its infinities and NaNs are not to count either.
    counted = [number for number, weight in enumerate(weights) if weight != 0]
    for batch in batches(means, sources=len(counted)):
        arrays = [_read(views[number], held, number, batch, specs) for number in counted]
        for name, spec in batch.items():
            result[name] = _mean([each.pop(name) for each in arrays], [weights[n] for n in counted], spec)
    return nested({tuple(name): array for name, array in result.items()})


_HERE = object()  # where a leaf of the result will be


def _read(
    view: View, held: Mapping[Name, Sequence[Name]], number: int, wanted: Iterable[Name],
    specs: Mapping[Name, Spec],
) -> dict[Name, Any]:  # fmt: skip
    """The leaves ``wanted`` of one checkpoint, under the names that the result gives them."""
    own = {held[name][number]: name for name in wanted}
    return {
        own[name]: array if is_key(array.dtype) else np.asarray(array)
        for name, array in view.read({name: specs[result] for name, result in own.items()})
    }


def _has_mean(spec: Spec) -> bool:
    return jax.dtypes.issubdtype(spec.dtype, np.inexact)


def _mean(arrays: Sequence[Any], weights: Sequence[float], spec: Spec) -> np.ndarray[Any, Any]:
    """The weighted mean, summed in a wider dtype than the leaf's and rounded to it once."""
    real = {np.complex64: np.float32, np.complex128: np.float64}.get(spec.dtype.type, spec.dtype)
    wide = np.dtype(np.longdouble if real == np.float64 else np.float64)
    result = np.empty(spec.shape, spec.dtype)
    # Of complex numbers the parts, each for itself: a product of complex numbers loses the sign of a zero.
    flat = result.reshape(-1).view(real)
    parts = [np.ascontiguousarray(array).reshape(-1).view(real) for array in arrays]
    factors = [wide.type(weight) for weight in weights]
    with np.errstate(all="ignore"):
        for start in range(0, flat.size, _CHUNK):
            terms = (
                part[start : start + _CHUNK].astype(wide) * factor
                for part, factor in zip(parts, factors, strict=True)
            )
            summed: Any = functools.reduce(operator.iadd, terms)  # from the first on: 0 + −0.0 would be 0
            flat[start : start + _CHUNK] = (summed / sum(factors)).astype(real)
    return result


# What is asked for.


def weights_of(count: int, weights: Iterable[float] | None, ema: float | None) -> list[float]:
    """A weight for each of ``count`` checkpoints.

    Raises:
        RuleError: not one finite number each, a sum of 0, or both ways of weighting at once.
    """
    if not count:
        raise RuleError("there is nothing to average: no source was given")
    if weights is not None and ema is not None:
        raise RuleError("average takes weights or ema, not both")
    if ema is not None:
        if not isinstance(ema, (int, float, np.floating)) or not 0 <= ema < 1:
            raise RuleError(f"ema is the share that the past keeps, at least 0 and less than 1; not {ema!r}")
        return [(1.0 if at == 0 else 1.0 - ema) * ema ** (count - 1 - at) for at in range(count)]
    if weights is None:
        return [1.0] * count
    try:
        given = [float(weight) for weight in weights]
    except (TypeError, ValueError) as error:
        raise RuleError(f"weights are numbers, one for each source; not {weights!r}") from error
    if len(given) != count:
        raise RuleError(f"there are {count} sources and {len(given)} weights")
    if not all(map(math.isfinite, given)):
        raise RuleError(f"weights are finite; not {given}")
    if math.fsum(given) == 0:
        raise RuleError(f"the weights {given} sum to 0")
    return given


def _taken_from_last(specs: Mapping[Name, Spec], last: bool | Patterns) -> dict[Name, None]:
    """The leaves that are the last checkpoint's, as ``last`` chooses them."""
    if isinstance(last, bool):
        return {name: None for name, spec in specs.items() if last and not _has_mean(spec)}
    patterns = compile_patterns(last, "last is True, a pattern, or several")
    chosen = {name: None for name in specs if any(pattern.matches(str(name)) for pattern in patterns)}
    for pattern in patterns:
        if not any(pattern.matches(str(name)) for name in chosen):
            raise RuleError(f"last={str(pattern)!r} matches no leaf")
    return chosen


# Are they of one model?


def _one_model(views: Sequence[View]) -> dict[Name, list[Name]]:
    """Each leaf of the result, and the name that each checkpoint has for it.

    Raises:
        NoAverage: a leaf is not in all of them, or not of one shape and dtype.
    """
    specs, who = [view.specs() for view in views], _labels(views)
    held: dict[Name, list[Name]] = {}
    findings: list[Finding] = []
    for names in _leaves(views):
        own = [next((name for name in names if name in each), None) for each in specs]
        present = [number for number, name in enumerate(own) if name is not None]
        name = own[present[0]]
        assert name is not None
        first = specs[present[0]][name]
        for number, (found, view) in enumerate(zip(own, views, strict=True)):
            if found is None:
                message = f"not in {who[number]}, but in {who[present[0]]}"
                findings.append(Finding("missing", name, "error", first, None, message=message))
                continue
            spec = specs[number][found]
            kind = "shape" if spec.shape != first.shape else "dtype" if spec.dtype != first.dtype else None
            if kind is not None:
                message = f"{print_spec(first)} in {who[present[0]]}; {print_spec(spec)} in {who[number]}"
                leaf = SourceLeaf(view.label, found, spec)
                findings.append(Finding(kind, name, "error", first, spec, leaf, message=message))
        held[name] = [found for found in own if found is not None]
    _raise_for(findings, "")
    return held


def _opened(views: Sequence[View]) -> list[View]:
    """The views with their boxes open, where one of them has none."""
    first, *others = views
    for other in others:
        first = first.opened(other.specs())
    return [first, *(other.opened(first.specs()) for other in others)]


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


def _agreeing(
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
        first = _read(views[0], held, 0, batch, specs)
        result.update(first)
        for number, view in enumerate(views[1:], start=1):
            for name, array in _read(view, held, number, batch, specs).items():
                if not equal(first[name], array):
                    spec = specs[name]
                    leaf = SourceLeaf(view.label, held[name][number], spec)
                    message = f"{_shown(first[name])} in {who[0]}; {_shown(array)} in {who[number]}"
                    findings.append(Finding("values", name, "error", spec, spec, leaf, message=message))
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
