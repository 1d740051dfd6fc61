"""Query, key and value in one leaf on one side and in three on the other.

Owns the finding of fused modules, by name, and the sizes of their parts, by shape. Refuses to own everything
that is one for one (``pairing``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from treeload._inference.changes import Change, changes
from treeload._inference.layouts import File, Reading, read
from treeload._inference.proposals import Proposal, examples
from treeload._inference.templates import Leaves, Module, Shape
from treeload._naming.name import Keys
from treeload._ops.layout import Reshape
from treeload._ops.op import Op
from treeload._rules.rule import Rule
from treeload._rules.split import Concat, Split

_PARTS = (
    (frozenset({"qkv"}), ("query", "key", "value")),
    (frozenset({"kv"}), ("key", "value")),
    (frozenset({"gate", "up"}), ("gate", "up")),
)


_ORDERED = (
    "c_attn",
    "in_proj_weight",
    "in_proj_bias",
    "in_proj",
)  # fused as thirds, by their makers' definition


@dataclass(frozen=True)
class Fusion:
    """One module that is several of the other side, for one kind of leaf.

    Attributes:
        how: ``split``: the source's is fused; ``concat``: the destination's.
        whole: the fused module.
        parts: the others, in order.
        kind: which of their leaves this is about.
        axis: the axis of the fused leaf along which they lie.
        sizes: their sizes along it.
        options: what may be done to each part.
    """

    how: Literal["split", "concat"]
    whole: Module
    parts: tuple[Module, ...]
    kind: str
    axis: int
    sizes: tuple[int, ...]
    options: tuple[Change, ...]

    def proposal(self, file: File, *, every: bool) -> Proposal:
        """The rule, and how sure it is."""
        whole, parts = self.whole.leaves[self.kind], [part.leaves[self.kind] for part in self.parts]
        turned = self._turned(whole, parts[0], file)
        assert turned.change is not None  # some option fits
        ordered = bool(set(self.whole.path[-1:]) & set(_ORDERED))
        names = ", ".join(part.path[-1] if part.path else "" for part in self.parts)
        reasons = [f"{whole.text()} holds {names}, {' + '.join(map(str, self.sizes))} on axis {self.axis}"]
        reasons += [turned.why] if turned.why else []
        if not ordered:
            reasons.append("in which order, and whether head by head, cannot be seen")
        texts, ops = [part.text() for part in parts], turned.change.ops
        rule: Rule
        if self.how == "split":
            sizes = None if len(set(self.sizes)) == 1 else self.sizes
            rule = Split(whole.text(), texts, *ops, axis=self.axis, sizes=sizes)
            takes, count = examples(whole, every=every), sum(len(part.shapes) for part in parts)
        else:
            rule = Concat(texts, whole.text(), *ops, axis=self.axis, sizes=self.sizes)
            takes = tuple(name for part in parts for name in examples(part, every=every))
            count = len(whole.shapes)
        return Proposal(rule, takes, count, ordered and turned.certain, tuple(reasons))

    def _turned(self, whole: Leaves, part: Leaves, file: File) -> Reading:
        here, there = (whole, part) if self.how == "split" else (part, whole)
        if len({change.turn for change in self.options}) > 1:
            # The axis tells: what is fused is the output, so a leaf fused on its first axis is [out, in]. Of
            # a part its name tells: a weight is that, a kernel [in, out]; else what is called alike is alike.
            alike, outputs_first = whole.key == part.key, self.axis == 0
            first = part.key == "weight" or (alike and outputs_first)
            turn = "as it is" if first == outputs_first or max(map(len, whole.distinct)) < 2 else "transposed"
            usual = "kernel" in (here.key, there.key) and not (alike and outputs_first)
            return Reading(
                next(change for change in self.options if change.turn == turn), usual,
                f"{turn}: the parts lie on axis {self.axis}, which is that of the outputs",
            )  # fmt: skip
        return read(here.template, there.template, self.options, self.shapes(), file)

    def shapes(self) -> list[tuple[Shape, Shape]]:
        """Those of a part as it is cut, and as it lies on the other side."""
        part = self.parts[0].leaves[self.kind]
        (index, shape), *_ = part.shapes.items()
        whole = self.whole.leaves[self.kind].shapes[index]
        cut = (*whole[: self.axis], self.sizes[0], *whole[self.axis + 1 :])
        return [(cut, shape) if self.how == "split" else (shape, cut)]


def fusions(destination: Sequence[Module], source: Sequence[Module]) -> Iterator[Fusion]:
    """Every fused module whose parts are on the other side."""
    for how, wholes, others in (("split", source, destination), ("concat", destination, source)):
        used: set[Keys] = set()
        for whole in wholes:
            for said, names in _PARTS:
                if not said <= whole.context:
                    continue
                found = [
                    (score, parts, fusion)
                    for parent, parts in _siblings(others, names) if parent not in used
                    for score in [_alike(whole, parts)]
                    if (fusion := list(_fitting(how, whole, parts)))  # type: ignore[arg-type]  # of the two literals
                ]  # fmt: skip
                found.sort(key=lambda each: -each[0])
                if found and (len(found) == 1 or found[0][0] > found[1][0]):
                    yield from found[0][2]
                    used.add(found[0][1][0].path[:-1])


def _siblings(side: Sequence[Module], names: tuple[str, ...]) -> list[tuple[Keys, tuple[Module, ...]]]:
    """Modules beside one another that are the named parts."""
    parents: dict[Keys, dict[str, Module]] = defaultdict(dict)
    for module in side:
        for name in names:
            if name in module.context and not {"qkv", "kv"} & module.context:
                parents[module.path[:-1]][name] = module
    return [
        (parent, tuple(found[name] for name in names))
        for parent, found in parents.items() if len({id(module) for module in found.values()}) == len(names)
    ]  # fmt: skip


def _alike(whole: Module, parts: Sequence[Module]) -> float:
    shared = whole.context & parts[0].context
    return len(shared) / len(whole.context | parts[0].context)


def _fitting(how: Literal["split", "concat"], whole: Module, parts: tuple[Module, ...]) -> Iterator[Fusion]:
    for kind, leaves in whole.leaves.items():
        if not all(kind in part.leaves for part in parts):
            continue
        pieces = [part.leaves[kind] for part in parts]
        if any(piece.shapes.keys() != leaves.shapes.keys() for piece in pieces):
            continue
        for axis in range(max(map(len, leaves.distinct), default=0)):
            each = [
                _sizes(how, shape, [piece.shapes[index] for piece in pieces], axis)
                for index, shape in leaves.shapes.items()
            ]
            if each and each[0] is not None and all(one == each[0] for one in each):
                yield Fusion(how, whole, parts, kind, axis, *each[0])
                break


def _sizes(
    how: str, whole: Shape, pieces: list[Shape], axis: int
) -> tuple[tuple[int, ...], tuple[Change, ...]] | None:
    """The sizes of the parts along an axis of the whole, and what may be done to each part."""
    across = math.prod(whole) // whole[axis] if whole[axis] else 0
    if not across or any(math.prod(piece) % across for piece in pieces):
        return None
    sizes = tuple(math.prod(piece) // across for piece in pieces)
    if sum(sizes) != whole[axis]:
        return None
    options: dict[Change, None] | None = None
    for size, piece in zip(sizes, pieces, strict=True):
        cut = (*whole[:axis], size, *whole[axis + 1 :])
        here = changes(cut, piece) if how == "split" else changes(piece, cut)
        loose = dict.fromkeys(_loose(change, pieces) if len(set(pieces)) > 1 else change for change in here)
        options = loose if options is None else {change: None for change in options if change in loose}
    return (sizes, tuple(options)) if options else None


def _loose(change: Change, pieces: list[Shape]) -> Change:
    """The same for parts of several sizes: the axis in which they differ is left to be worked out."""

    def open_(op: Op) -> Op:
        if not isinstance(op, Reshape) or len(op.shape) != len(pieces[0]):
            return op
        differing = [at for at in range(len(op.shape)) if len({piece[at] for piece in pieces}) > 1]
        return (
            Reshape(tuple(-1 if at in differing else size for at, size in enumerate(op.shape)))
            if len(differing) == 1
            else op
        )

    return replace(change, ops=tuple(map(open_, change.ops)))
