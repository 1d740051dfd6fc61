"""What is wrong between two sides as a whole: a wrapper, layers that were scanned, another vocabulary.

Owns the sentences that reports put over a long list of findings. Refuses to own the findings themselves
(``_plans``) and the rules that would help (``suggest``), though both come of the same evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from treeload._inference.changes import Change, changes
from treeload._inference.layouts import File, read
from treeload._inference.pairing import pair
from treeload._inference.parts import best, parts
from treeload._inference.relayouts import Fit, shapes
from treeload._inference.templates import HOLE, Leaves, Module, Shape, modules
from treeload._inference.tokens import HARD, concepts, conflict
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, print_name

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
    agreeing = {name for name, spec in destination.items() if _fits(source.get(name), spec)}
    if not destination or not source or len(agreeing) == len(destination) == len(source):
        return ()
    found = [*_wrappers(destination, source), *_counts(destination, source)]
    theirs = modules({name: spec for name, spec in destination.items() if name not in agreeing})
    ours = modules({name: spec for name, spec in source.items() if name not in agreeing})
    pairing = pair(theirs, ours)
    turned: Counter[str] = Counter()
    file = File()
    for decision in pairing.decisions:
        for kind, fit in decision.pair.fits.items():
            here, there = decision.pair.source.leaves[kind], decision.pair.destination.leaves[kind]
            found += _indices(here, there, fit)
            reading = read(here.template, there.template, fit.changes, shapes(here, there, fit), file)
            if reading.change is not None and (words := near_layout((reading.change,))) is not None:
                turned[words] += len(there.shapes)
    done = {id(module) for one in pairing.decisions for module in (one.pair.source, one.pair.destination)}
    left = [[module for module in side if id(module) not in done] for side in (theirs, ours)]
    found += _sizes(*left)
    total = len(destination)
    found += [
        f"{count:,} of {total:,} {'matches' if count == 1 else 'match'} {words}"
        for words, count in turned.items()
    ]
    return tuple(dict.fromkeys(found))


def near_layout(options: Sequence[Change]) -> str | None:
    """What would make a leaf fit, in words: ``if transposed``; None where it fits as it is, or never.

    Examples:
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


def _counts(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> Iterator[str]:
    """Indices of which one side has more, under the same names."""
    ours = {leaves.template: leaves for module in modules(source) for leaves in module.leaves.values()}
    for module in modules(destination):
        for there in module.leaves.values():
            here = ours.get(there.template)
            if here is not None and here.ranges != there.ranges:
                yield from _indices(here, there, None)


def _indices(here: Leaves, there: Leaves, fit: Fit | None) -> Iterator[str]:
    """Axes that are indices on the other side, and indices that one side has more of."""
    if fit is None or fit.how == "rename":
        for at, (ours, theirs) in enumerate(zip(here.ranges, there.ranges, strict=True)):
            if len(ours) != len(theirs):
                noun = _noun(here, at)
                yield f"the source has {len(ours)} {noun}, the destination {len(theirs)}"
        return
    many, side = (here, "destination") if fit.how == "stack" else (there, "source")
    over = [at for at in range(len(many.ranges)) if at not in fit.holes]
    counts = " × ".join(f"{len(many.ranges[at])} {_noun(many, at)}" for at in over)
    axes = f"axis {fit.axis}" if len(over) == 1 else f"axes {fit.axis} to {fit.axis + len(over) - 1}"
    yield f"the {side} is scanned over {counts} on {axes}"


def _noun(leaves: Leaves, at: int) -> str:
    """What an index counts, in the plural: the key before it, or the rest of its own."""
    holes = [(number, key) for number, key in enumerate(leaves.template) if HOLE in key]
    number, key = holes[at]
    word = key.replace(HOLE, "").rstrip("_") or (leaves.template[number - 1] if number else "")
    if not word or word == "h":
        return "layers"
    return word if word.endswith("s") else f"{word}s"


def _sizes(theirs: Sequence[Module], ours: Sequence[Module]) -> Iterator[str]:
    """Modules that fit but for one size: layers, words, positions."""
    for there in theirs:
        best: tuple[int, int, str] | None = None
        for here in ours:
            shared = here.context & there.context
            same = here.path == there.path
            if not (same or shared) or conflict(here.context, there.context, HARD):
                continue
            for kind in here.leaves.keys() & there.leaves.keys():
                sentence = _size(here.leaves[kind], there.leaves[kind], shared)
                score = (int(same), len(shared))
                if sentence and (best is None or score > best[:2]):
                    best = (*score, sentence)
        if best is not None:
            yield best[2]


def _size(here: Leaves, there: Leaves, shared: frozenset[str]) -> str | None:
    ours, theirs = _only(here), _only(there)
    if ours is None or theirs is None:
        return None
    if len(here.ranges) != len(there.ranges):  # one side is scanned, over another number of layers
        many, few, shape, each = (here, there, theirs, ours) if here.ranges else (there, here, ours, theirs)
        if len(many.ranges) != 1 or few.ranges or not shape:
            return None
        options = changes(each, shape[1:]) if many is here else changes(shape[1:], each)
        counts = (len(many.ranges[0]), shape[0])
        source, destination = counts if many is here else counts[::-1]
        return f"the source has {source} {_noun(many, 0)}, the destination {destination}" if options else None
    for turned in (False, True):
        one = ours[::-1] if turned and len(ours) == 2 else ours
        if len(one) != len(theirs) or (turned and len(ours) != 2):
            continue
        differing = [axis for axis in range(len(one)) if one[axis] != theirs[axis]]
        if len(differing) == 1:
            axis = differing[0]
            what = _what(here, there, shared, axis, len(one), turned)
            return f"{what} {one[axis]} -> {theirs[axis]}" if what else None
    return None


def _what(
    here: Leaves, there: Leaves, shared: frozenset[str], axis: int, rank: int, turned: bool
) -> str | None:
    if "pos" in shared:
        return "positions"
    if rank == 2 and ("word" in shared or {"embed"} == shared & {"embed", "pos", "type"} or "head" in shared):
        if axis == 0 or "head" in shared:
            return "vocabulary" if "classifier" not in {*here.template, *there.template} else "classes"
    if axis == 0 and rank > 1 and not turned and any("layer" in concepts(key) for key in there.template):
        return "layers on axis 0:"
    return (
        f"{print_name(there.template)}: axis {axis}"
        if here.template == there.template and not there.ranges
        else None
    )


def _only(leaves: Leaves) -> Shape | None:
    """Its shape, where it has only one."""
    return next(iter(leaves.distinct)) if len(leaves.distinct) == 1 else None
