"""Several checkpoints of one model as one: the mean of every leaf.

Owns the mean and the question whether the checkpoints are of one model. Refuses to own the reading
(``view``). What has no mean (integers, booleans, PRNG keys) must agree, unless the last is asked for.

Everything that speaks against an average is found before a floating-point leaf is read: differences of
structure from the specs, then disagreeing integers, which are small.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from treeload._checkpoints.one_model import agreeing, has_mean, one_model, opened, read
from treeload._checkpoints.view import View, batches
from treeload._errors import RuleError
from treeload._leaves.selection import Patterns, compile_patterns
from treeload._leaves.spec import Spec
from treeload._naming.name import Name
from treeload._trees.tree import nested

_CHUNK = 1 << 16  # elements accumulated at once


def average(views: Sequence[View], weights: Sequence[float], last: bool | Patterns) -> Any:
    """The nested dict of the weighted means; see ``treeload.average``."""
    views = opened(views)
    held = one_model(views)
    first = views[0].specs()
    specs = {name: first[names[0]] for name, names in held.items()}
    taken = _taken_from_last(specs, last)
    agreed = [name for name, spec in specs.items() if name not in taken and not has_mean(spec)]
    result: dict[Name, Any] = dict.fromkeys(specs, _HERE)  # the order of the first
    result.update(read(views[-1], held, len(views) - 1, taken, specs))
    result.update(agreeing(views, held, {name: specs[name] for name in agreed}))
    means = {name: spec for name, spec in specs.items() if result[name] is _HERE}
    # A checkpoint of weight 0 is not read: its infinities and NaNs are not to count either.
    counted = [number for number, weight in enumerate(weights) if weight != 0]
    for batch in batches(means, sources=len(counted)):
        arrays = [read(views[number], held, number, batch, specs) for number in counted]
        for name, spec in batch.items():
            result[name] = _mean([each.pop(name) for each in arrays], [weights[n] for n in counted], spec)
    return nested({tuple(name): array for name, array in result.items()})


_HERE = object()  # where a leaf of the result will be


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
        return {name: None for name, spec in specs.items() if last and not has_mean(spec)}
    patterns = compile_patterns(last, "last is True, a pattern, or several")
    chosen = {name: None for name in specs if any(pattern.matches(str(name)) for pattern in patterns)}
    for pattern in patterns:
        if not any(pattern.matches(str(name)) for name in chosen):
            raise RuleError(f"last={str(pattern)!r} matches no leaf")
    return chosen
