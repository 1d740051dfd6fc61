"""Leaves of the same name and another size: what grew, in words.

Owns which size of two leaves differs and what it is: the width of the whole model, a vocabulary, positions,
classes, layers. Refuses to own leaves that fit (``pairing``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from treeload._inference.changes import changes
from treeload._inference.templates import HOLE, Leaves, Module, Shape
from treeload._inference.tokens import HARD, concepts, conflict, heads
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import quote
from treeload._ops.resize import Pad, Slice
from treeload._rules.rename import Rename

_WIDE = 3  # so many leaves of one change of size, and it is the model's


@dataclass(frozen=True)
class _Grown:
    """Two leaves of one name, or nearly, that differ in size."""

    here: Leaves
    there: Leaves
    shared: frozenset[str]
    ours: Shape
    theirs: Shape
    turned: bool
    left_out: int = 0  # axes that lie before those that are compared

    @property
    def axes(self) -> list[int]:
        return [
            axis for axis, sizes in enumerate(zip(self.ours, self.theirs, strict=True)) if len({*sizes}) > 1
        ]


@dataclass(frozen=True)
class Scanned:
    """Layers that lie in one array on both sides, and are not as many.

    Attributes:
        node: the keys above them.
        source, destination: how many each side has.
        alone: nothing else differs in it.
    """

    node: Keys
    source: int
    destination: int
    alone: bool

    def __str__(self) -> str:
        said = f"the source is scanned over {self.source} layers, the destination over {self.destination}"
        if not self.alone:
            return said
        below = f"{quote(self.node)}/{{*rest}}"
        if self.source < self.destination:
            what = f"to load the first {self.source} and keep the destination's own after them"
            return f"{said}; {what}: {Rename(below, below, Pad(self.destination, fill='destination'))!r}"
        what = f"to load the first {self.destination} alone"
        return f"{said}; {what}: {Rename(below, below, Slice(self.destination))!r}"


def scanned(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> Iterator[Scanned]:
    """What is scanned over another number of layers: all that lies below one key differs in its first axis.

    Examples:
        >>> import jax, numpy as np
        >>> side = lambda n: {
        ...     ("layers", key): jax.ShapeDtypeStruct((n, *shape), np.float32)
        ...     for key, shape in {"kernel": (2, 3), "bias": (3,)}.items()
        ... }
        >>> [(one.source, one.destination) for one in scanned(side(16), side(12))]
        [(12, 16)]
    """
    below: dict[Keys, set[Keys]] = {}
    for number, side in enumerate((destination, source)):
        for name in side:
            at = next((at for at, key in enumerate(name[:-1]) if "layer" in concepts(key)), None)
            if any(key[-1:].isdigit() for key in name[at:-1]):
                continue  # its layers are numbered
            if at is not None and (number == 0 or name[: at + 1] in below):
                below.setdefault(name[: at + 1], set()).add(name)
    for node, names in below.items():
        if len(names) < 2 or not all(name in destination and name in source for name in names):
            continue
        shapes = [(source[name].shape, destination[name].shape) for name in sorted(names)]
        if any(min(len(here), len(there)) < 2 for here, there in shapes):
            continue  # a bias of one layer
        (before, *_), (after, *_) = shapes[0]
        others = {pair for here, there in shapes for pair in zip(here[1:], there[1:], strict=False)}
        first = {(here[0], there[0]) for here, there in shapes}
        if len(first) == 1 and before != after and not first & others:
            yield Scanned(node, before, after, all(here[1:] == there[1:] for here, there in shapes))


def sizes(
    theirs: Sequence[Module], ours: Sequence[Module], *, scanned: Sequence[Scanned] = ()
) -> Iterator[str]:
    """Sentences about modules that fit but for their size; without the first axis of what is ``scanned``."""
    grown: list[_Grown] = []
    by_path: dict[tuple[str, ...], list[Module]] = {}
    for here in ours:
        by_path.setdefault(here.path, []).append(here)
    many = len(theirs) * len(ours) > _PAIRS
    for there in theirs:
        best: tuple[tuple[int, int, int], str | _Grown] | None = None
        for here in by_path.get(there.path, ()) if many else ours:
            shared = here.context & there.context
            same = here.path == there.path
            if not (same or shared) or conflict(here.context, there.context, HARD):
                continue
            for kind in there.leaves:
                found = (
                    _differ(here.leaves[kind], there.leaves[kind], shared) if kind in here.leaves else None
                )
                score = (int(same), len(shared), int(isinstance(found, str) or _says(found)))
                if found is not None and (best is None or score > best[0]):
                    best = (score, found)
            if same and (best is None or isinstance(best[1], _Grown)):
                grown += _all_grown(here, there, shared)
        if best is not None and isinstance(best[1], str):
            yield best[1]
        elif best is not None and isinstance(best[1], _Grown) and best[1] not in grown:
            grown.append(best[1])
    yield from _said([each for one in grown for each in _of_a_layer(one, scanned)])


def _of_a_layer(one: _Grown, scanned: Sequence[Scanned]) -> Iterator[_Grown]:
    """The same of each layer, where layers are scanned; nothing where that is all that differs."""
    if any(one.there.template[: len(each.node)] == each.node for each in scanned):
        one = replace(one, ours=one.ours[1:], theirs=one.theirs[1:], left_out=1)
    if one.axes:
        yield one


_PAIRS = 40_000  # more than these are compared by their path alone


def _says(one: _Grown | None) -> bool:
    return one is not None and len(one.axes) == 1 and _what(one, one.axes[0]) is not None


def _all_grown(here: Module, there: Module, shared: frozenset[str]) -> Iterator[_Grown]:
    for kind in there.leaves:
        if kind in here.leaves:
            found = _differ(here.leaves[kind], there.leaves[kind], shared)
            if isinstance(found, _Grown):
                yield found


def _said(grown: Sequence[_Grown]) -> Iterator[str]:
    """The width of the model in one sentence; what it does not explain, one by one."""
    changed: Counter[tuple[int, int]] = Counter()
    kept: Counter[int] = Counter()
    for one in grown:
        for before, after in sorted(set(zip(one.ours, one.theirs, strict=True))):
            if before != after:
                changed[before, after] += 1
            else:
                kept[before] += 1
    to = {before: [each for old, each in changed if old == before] for before, _ in changed}
    wide = [
        (before, after) for (before, after), count in changed.items()
        if count >= _WIDE and len(to[before]) == 1 and not kept[before]
    ]  # fmt: skip
    # A size that is a multiple of one that changed alike belongs to it: an MLP is four times as wide.
    wide += [
        pair for pair in changed
        if pair not in wide and len(to[pair[0]]) == 1 and not kept[pair[0]]
        and any(pair[0] * after == pair[1] * before for before, after in wide)
    ]  # fmt: skip
    if wide:
        told = [f"{before} is {after}" for before, after in sorted(wide)]
        said = f"every size {told[0]}{''.join(f', every {each}' for each in told[1:])}"
        yield f"{said}{_times(wide)}"
    for one in grown:
        left = [axis for axis in one.axes if (one.ours[axis], one.theirs[axis]) not in wide]
        if len(left) == 1 and (words := _what(one, left[0])):
            yield f"{words} {one.ours[left[0]]} -> {one.theirs[left[0]]}"


def _times(wide: Sequence[tuple[int, int]]) -> str:
    """What several changes of size have in common, in words."""
    shares = {Fraction(after, before) for before, after in wide if before}
    if len(wide) < 2 or len(shares) > 1:
        return ""
    return next((_SHARES.get(share, "") for share in shares), "")


_SHARES = {Fraction(2): ": twice as wide", Fraction(1, 2): ": half as wide"}


def _differ(here: Leaves, there: Leaves, shared: frozenset[str]) -> _Grown | str | None:
    """How two leaves differ in size; a sentence where it is the number of layers."""
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
        return f"the source has {source} {noun(many, 0)}, the destination {destination}" if options else None
    if len(ours) != len(theirs) or not ours:
        return None
    straight = _Grown(here, there, shared, ours, theirs, turned=False)
    if len(ours) == 2:
        turned = _Grown(here, there, shared, ours[::-1], theirs, turned=True)
        if here.key != there.key and len(turned.axes) == 1:
            return turned
    return straight if straight.axes else None


def _what(one: _Grown, axis: int) -> str | None:
    """What a size that differs counts."""
    rank, shared = len(one.theirs), one.shared
    head, embeds = "head" in shared, "word" in shared or {"embed"} == shared & {"embed", "pos", "type"}
    if "pos" in shared:
        return "positions"
    if rank == 2 and head and not _gives(one, axis):
        return f"inputs of {print_name(one.there.template)}:" if not one.there.ranges else None
    if rank == 2 and (head or (embeds and axis == 0)):
        kinds = heads((*one.here.template, *one.there.template))
        if "classes" in kinds:
            return "classes"
        if embeds or "words" in kinds:
            return "vocabulary"
        return f"outputs of {print_name(one.there.template)}:" if not one.there.ranges else None
    layers = any("layer" in concepts(key) for key in one.there.template)
    if axis == 0 and rank > 1 and not one.turned and layers and not (one.there.ranges or one.left_out):
        return "layers on axis 0:"
    if one.here.template == one.there.template and not one.there.ranges:
        return f"{print_name(one.there.template)}: axis {axis + one.left_out}"
    return None


def _gives(one: _Grown, axis: int) -> bool:
    """Whether an axis of a head's matrix is that of what it gives, as far as its last key says it."""
    outputs = {"kernel": 1, "w": 1, "weight": 0}.get(one.there.key)
    return outputs is None or axis == outputs


def noun(leaves: Leaves, at: int) -> str:
    """What an index counts, in the plural: the key before it, or the rest of its own."""
    holes = [(number, key) for number, key in enumerate(leaves.template) if HOLE in key]
    number, key = holes[at]
    word = key.replace(HOLE, "").rstrip("_") or (leaves.template[number - 1] if number else "")
    if not word or word == "h":
        return "layers"
    return word if word.endswith("s") else f"{word}s"


def _only(leaves: Leaves) -> Shape | None:
    """Its shape, where it has only one."""
    return next(iter(leaves.distinct)) if len(leaves.distinct) == 1 else None
