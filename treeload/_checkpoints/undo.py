"""The way back down an expression: what a destination leaf holds, handed to the source leaves it was made of.

An op that joins hands each of its inputs its part, an op that takes a piece out hands its input the piece,
which waits there until the others have come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treeload._leaves.casts import can_cast
from treeload._leaves.placement import cast
from treeload._leaves.spec import Spec, elements, is_key
from treeload._leaves.values import equal, overflowing
from treeload._naming.name import Name, print_name
from treeload._ops.expression import Derived, Expression, Leaf
from treeload._ops.op import Array, Op, Region

Part = Callable[[Any], Array]
"""What gives a region of an array that goes back; nothing is made before it is asked for."""


WHOLE = ...


@dataclass(frozen=True)
class _Piece:
    """A region of an array that comes back by itself, and waits for the others."""

    name: Name
    region: Region
    part: Part
    size: int


class Back:
    """What comes back at each value of the plan's expressions."""

    def __init__(self) -> None:
        self._at_leaf: dict[Leaf, list[tuple[Name, Part]]] = {}
        self._pieces: dict[int, tuple[Derived, list[_Piece]]] = {}
        self._leaf_pieces: dict[Leaf, list[_Piece]] = {}

    def take(self, name: Name, value: Expression, array: Array) -> list[str]:
        """Hands down the array that ``value`` gave; what cannot be undone, in words."""
        wanted = value.spec.dtype
        if is_key(wanted) or array.dtype == wanted:
            return self._down(name, value, lambda region: array[region])
        if not can_cast(array.dtype, wanted, "same_kind"):
            return [f"{name} is {array.dtype} and cannot become the source's {wanted}"]
        count, largest = overflowing(array, wanted)
        if count:
            said = f"{count:,} of its values, the largest {largest}"
            return [f"{name} is {array.dtype} and overflows the source's {wanted} in {said}"]
        # Region by region: a stack of a hundred layers is not cast a hundred times.
        return self._down(name, value, lambda region: cast(array[region], wanted))

    def _down(self, name: Name, value: Expression, part: Part) -> list[str]:
        if isinstance(value, Leaf):
            self._at_leaf.setdefault(value, []).append((name, part))
            return []
        regions = value.op.regions(*(one.spec for one in value.inputs))
        if regions is not None:
            faults: list[str] = []
            for one, region in zip(value.inputs, regions, strict=True):
                faults += self._down(name, one, _within(part, region))
            return faults
        if len(value.inputs) != 1:
            return [f"{name}: {value.op!r} of several leaves cannot be undone"]
        (only,) = value.inputs
        piece = value.op.region(only.spec)
        if piece is not None:
            self._wait(only, _Piece(name, piece, part, elements(value.spec)))
            return []
        return self._undone(name, value.op, only, part)

    def _wait(self, whole: Expression, piece: _Piece) -> None:
        """Notes a piece of ``whole``, which goes further down once all of them have come."""
        if isinstance(whole, Leaf):
            self._leaf_pieces.setdefault(whole, []).append(piece)
        else:
            self._pieces.setdefault(id(whole), (whole, []))[1].append(piece)

    def _undone(self, name: Name, op: Op, value: Expression, part: Part) -> list[str]:
        """Hands down to ``value`` what ``op`` had made of it."""
        undo = op.inverse(value.spec)
        if undo is None:
            return [f"{name}: {op!r} loses something, so it cannot be undone"]
        if op.onto_destination or (op.adds and not _added_again(op, undo, part(WHOLE))):
            return [
                f"{name}: the rows that {op!r} added hold values now, "
                "and the source's layout has no place for them"
            ]
        return self._down(name, value, lambda region: undo.apply(part(WHOLE))[region])

    def finish(self) -> list[str]:
        """Puts pieces together, from the outermost op to the leaves; what is incomplete, in words."""
        problems: list[str] = []
        while self._pieces:
            _, (whole, pieces) = self._pieces.popitem()
            fault = _incomplete(whole, pieces)
            problems += (
                [fault] if fault else self._down(pieces[0].name, whole, _assembled(whole.spec, pieces))
            )
        for leaf, pieces in self._leaf_pieces.items():
            fault = _incomplete(leaf, pieces)
            if fault:
                problems.append(fault)
            else:
                self._at_leaf.setdefault(leaf, []).append((pieces[0].name, _assembled(leaf.spec, pieces)))
        for several in self._at_leaf.values():
            (first, array), *others = several
            for name, other in others:
                if not equal(array(WHOLE), other(WHOLE)):
                    problems.append(f"{first} and {name} come from one source leaf and differ now")
        return problems

    def leaves(self) -> Iterator[tuple[Leaf, Part]]:
        """Every source leaf that something came back to."""
        for leaf, several in self._at_leaf.items():
            yield leaf, several[0][1]


def _within(part: Part, outer: Region) -> Part:
    """A region as a whole of its own."""
    return lambda region: part(outer)[region]


def _added_again(op: Op, undo: Op, array: Array) -> bool:
    """Whether what ``op`` would add is what the array has there."""
    return equal(op.apply(undo.apply(array)), array)


def _incomplete(whole: Expression, pieces: Sequence[_Piece]) -> str:
    have, need = sum(piece.size for piece in pieces), elements(whole.spec)
    if have == need:
        return ""
    names = ", ".join(dict.fromkeys(print_name(leaf.name) for leaf in whole.leaves()))
    given = ", ".join(str(piece.name) for piece in pieces[:5])
    return f"{names}: only {have:,} of {need:,} elements come back, from {given}"


def _assembled(spec: Spec, pieces: Sequence[_Piece]) -> Part:
    def assemble(region: Any) -> Array:
        result = np.empty(spec.shape, spec.dtype)
        for piece in pieces:
            result[piece.region] = np.asarray(piece.part(WHOLE))
        return result[region]

    return assemble
