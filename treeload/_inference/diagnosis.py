"""What is wrong between two sides as a whole: a wrapper, layers that were scanned, another vocabulary.

Owns the sentences that reports put over a long list of findings. Refuses to own the findings themselves
(``_plans``) and the rules that would help (``suggest``), though both come of the same evidence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set

from treeload._inference.changes import Change
from treeload._inference.layouts import File, read
from treeload._inference.limits import is_spread, sides
from treeload._inference.pairing import pair
from treeload._inference.parts import best, parts
from treeload._inference.relayouts import Fit, shapes
from treeload._inference.series import begun_otherwise, members, settle
from treeload._inference.sizes import noun, scanned, sizes
from treeload._inference.templates import Leaves, templates
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, print_name
from treeload._trees.collector import no_collections

_SERIES = 3  # that are counted otherwise, and named

_DIGITS = re.compile("[0-9]+")


def diagnose(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> tuple[str, ...]:
    """Sentences about how two sides differ as a whole; none where nothing is systematic.

    Args:
        destination: every array leaf of the destination.
        source: every array leaf of the source.

    Examples:
        >>> import jax, numpy as np
        >>> spec = jax.ShapeDtypeStruct((2,), np.float32)
        >>> diagnose({("a",): spec, ("b",): spec}, {("params", "a"): spec, ("params", "b"): spec})
        ('2 of 2 match under `params/`',)
    """
    with no_collections():
        return tuple(dict.fromkeys(_differences(destination, source)))


def _differences(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> list[str]:
    agreeing = {name for name, spec in destination.items() if _fits(source.get(name), spec)}
    if not destination or not source or len(agreeing) == len(destination) == len(source):
        return []
    found = list(_wrappers(destination, source))
    series = begun_otherwise(destination, source)
    found += map(str, series[:_SERIES])
    if len(series) > _SERIES:
        found.append(f"{len(series) - _SERIES:,} more are counted otherwise")
    crossed = [one for one in series if not one.is_within]
    otherwise, apart = members(series), members(crossed)
    if any(map(is_spread, (destination, source))):  # too many names that are not alike to tell of single ones
        return found
    looked = sides(
        {name: spec for name, spec in destination.items() if name not in agreeing},
        {name: spec for name, spec in source.items() if name not in agreeing},
    )
    whole = None if agreeing else looked.templates  # which are dear where leaves are many
    found += _counts(*(whole or (templates(destination), templates(source))), otherwise)
    theirs, ours = looked.theirs, looked.ours
    pairing = pair(theirs, ours)
    file = File()
    file.look_at(destination)
    file.look_at(source)
    guessed, _ = settle(pairing.decisions, crossed)
    matched = [
        (decision.pair.source.leaves[kind], decision.pair.destination.leaves[kind], fit)
        for decision in pairing.decisions if id(decision) not in guessed
        for kind, fit in decision.pair.fits.items()
    ]  # fmt: skip
    for here, there, fit in matched:
        file.learn(here, there, fit.changes)
    turned: Counter[str] = Counter()
    for here, there, fit in matched:
        found += _indices(here, there, fit, otherwise)
        reading = read(here.template, there.template, fit.changes, shapes(here, there, fit), file)
        if reading.change is not None and (words := near_layout((reading.change,))) is not None:
            turned[words] += sum(
                len({*shape}) > 1 for shape in there.shapes.values()
            )  # a square shows nothing
    done = {id(module) for one in pairing.decisions for module in (one.pair.source, one.pair.destination)}
    left = [
        [
            module for module in side
            if id(module) not in done
            and apart.isdisjoint(name for leaves in module.leaves.values() for name in leaves.members[:1])
        ]
        for side in (theirs, ours)
    ]  # fmt: skip
    stacks = list(scanned(destination, source))
    found += map(str, stacks)
    found += sizes(*left, scanned=stacks)
    total = len(destination)
    return found + [
        f"{count:,} of {total:,} {'matches' if count == 1 else 'match'} {words}"
        for words, count in turned.items()
        if count
    ]


def near_layout(options: Sequence[Change]) -> str | None:
    """What would make a leaf fit, in words: ``if transposed``; None where it fits as it is, or never.

    Examples:
        >>> from treeload._inference.changes import changes
        >>> near_layout(changes((3, 2), (2, 3)))
        'if transposed'
    """
    if not options or not options[0].ops:
        return None
    return f"if {options[0].words}"


def _fits(found: Spec | None, wanted: Spec) -> bool:
    return found is not None and found.shape == wanted.shape


def _wrappers(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> Iterator[str]:
    """A subtree of one side under which the other's names are found; all that are equally good."""
    found = parts(destination, source)
    if not found:
        return
    first, *others = best(found)
    verb = "matches" if first.count == 1 else "match"
    said = f"{first.count:,} of {first.of:,} {verb} under `{first.text}`"
    if first.source and first.destination:
        said += f" for `{print_name(first.destination)}/`"
    elif first.destination:
        said += " of the destination"
    yield said + "".join(f", and {other.count:,} under `{other.text}`" for other in others)


def _counts(
    theirs: Mapping[Keys, Leaves], ours: Mapping[Keys, Leaves], otherwise: Set[Keys]
) -> Iterator[str]:
    """Indices of which one side has more, under the same names: of templates of both sides."""
    for template, there in theirs.items():
        here = ours.get(template)
        if here is not None and here.ranges != there.ranges:
            yield from _indices(here, there, None, otherwise)


def _indices(here: Leaves, there: Leaves, fit: Fit | None, otherwise: Set[Keys]) -> Iterator[str]:
    """Axes that are indices on the other side, and indices that one side has more of.

    Nothing where it is said already that numbers are counted ``otherwise``.
    """
    if fit is None or fit.how == "rename":
        if not otherwise.isdisjoint(there.members):
            return
        for at, (ours, theirs) in enumerate(zip(here.ranges, there.ranges, strict=True)):
            if len(ours) != len(theirs):
                counted = noun(here, at)
                yield f"the source has {len(ours)} {counted}, the destination {len(theirs)}"
        return
    many, side = (here, "destination") if fit.how == "stack" else (there, "source")
    over = [at for at in range(len(many.ranges)) if at not in fit.holes]
    counts = " × ".join(f"{len(many.ranges[at])} {noun(many, at)}" for at in over)
    axes = f"axis {fit.axis}" if len(over) == 1 else f"axes {fit.axis} to {fit.axis + len(over) - 1}"
    yield f"the {side} is scanned over {counts} on {axes}"
