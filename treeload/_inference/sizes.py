"""Leaves of the same name and another size: what grew, in words.

Owns which size of two leaves differs and what it is: the width of the whole model, a vocabulary, positions,
classes, layers. Refuses to own leaves that fit (``pairing``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from treeload._inference.changes import changes
from treeload._inference.templates import HOLE, Leaves, Module, Shape
from treeload._inference.tokens import HARD, concepts, conflict, heads
from treeload._naming.name import print_name

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

    @property
    def axes(self) -> list[int]:
        return [
            axis for axis, sizes in enumerate(zip(self.ours, self.theirs, strict=True)) if len({*sizes}) > 1
        ]


def sizes(theirs: Sequence[Module], ours: Sequence[Module]) -> Iterator[str]:
    """Sentences about modules that fit but for their size."""
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
    yield from _said(grown)


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
        yield f"every size {told[0]}{''.join(f', every {each}' for each in told[1:])}"
    for one in grown:
        left = [axis for axis in one.axes if (one.ours[axis], one.theirs[axis]) not in wide]
        if len(left) == 1 and (words := _what(one, left[0])):
            yield f"{words} {one.ours[left[0]]} -> {one.theirs[left[0]]}"


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
        if len(turned.axes) == 1 and (len(straight.axes) != 1 or here.key != there.key):
            return turned
    return straight if straight.axes else None


def _what(one: _Grown, axis: int) -> str | None:
    """What a size that differs counts."""
    rank, shared = len(one.theirs), one.shared
    head, embeds = "head" in shared, "word" in shared or {"embed"} == shared & {"embed", "pos", "type"}
    if "pos" in shared:
        return "positions"
    if rank == 2 and (head or (embeds and axis == 0)):
        kinds = heads((*one.here.template, *one.there.template))
        if "classes" in kinds:
            return "classes"
        if embeds or "words" in kinds:
            return "vocabulary"
        return f"outputs of {print_name(one.there.template)}:" if not one.there.ranges else None
    layers = any("layer" in concepts(key) for key in one.there.template)
    if axis == 0 and rank > 1 and not one.turned and layers:
        return "layers on axis 0:"
    if one.here.template == one.there.template and not one.there.ranges:
        return f"{print_name(one.there.template)}: axis {axis}"
    return None


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
