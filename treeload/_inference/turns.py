"""Whether square kernels are to be transposed: what the rest of a file says.

A square kernel does not show which of its axes is the input. The kernels of the same file that are not square
do, so each change that shapes leave open is decided by those that they do not. Owns that decision and its
words. Refuses to own which leaves belong together (``pairing``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from treeload._inference.relayouts import Change, Turn
from treeload._inference.templates import Leaves
from treeload._inference.tokens import kind

_OWN = "a name of its own"


Habit: TypeAlias = tuple[str, str, str]  # last key here, last key there, and which role


@dataclass(frozen=True)
class Turned:
    """The change that was chosen.

    Attributes:
        change: the change.
        certain: shapes show it, or every other kernel of the file.
        why: the same in words; empty where there was nothing to choose.
    """

    change: Change
    certain: bool
    why: str


class Turns:
    """What the leaves whose shapes show it say about those whose shapes do not."""

    def __init__(self) -> None:
        self.seen: dict[Habit, Counter[Turn]] = defaultdict(Counter)

    def learn(self, source: Leaves, destination: Leaves, changes: Iterable[Change], *, embed: bool) -> None:
        """Takes a pair of templates as evidence, if shapes leave one turn only."""
        turns = {change.turn for change in changes}
        if len(turns) == 1 and _rank(source) > 1:
            self.seen[_habit(source, destination, embed)][turns.pop()] += len(source.shapes)

    def choose(
        self, source: Leaves, destination: Leaves, changes: tuple[Change, ...], *, embed: bool
    ) -> Turned | None:
        """The change for a pair of templates; None where what was seen speaks for two."""
        turns = {change.turn for change in changes}
        if len(turns) == 1:
            # Two ways to turn it the same way round: a convolution whose sizes are all equal.
            return Turned(changes[0], changes[0].plain and len(changes) == 1, _words(changes[0]))
        habit = _habit(source, destination, embed)
        seen = self.seen.get(habit) or (None if embed else self._alike(habit))
        here, there, _ = habit
        if seen and len(seen) > 1:
            return None
        if seen:
            (seen_turn, count), *_ = seen.items()
            done = "transposed" if seen_turn == "transposed" else "not transposed"
            others = f"the other {here} → {there} of this file are ({count:,} that are not square)"
            why = f"square, but {done}, as {others}"
            # Parameters with a name of their own follow no layer's habit.
            return Turned(
                next(change for change in changes if change.turn == seen_turn), _OWN not in habit, why
            )
        # PyTorch's weight is [out, in]; what JAX calls otherwise is [in, out].
        turn: Turn = "transposed" if here == "weight" != there and not embed else "as it is"
        why = (
            f"square, and nothing in this file shows whether {here} → {there} is transposed; {turn} is usual"
        )
        return Turned(next(change for change in changes if change.turn == turn), False, why)

    def _alike(self, habit: Habit) -> Counter[Turn] | None:
        """Convolutions for linear layers and the reverse: who turns one turns the other."""
        found = [
            self.seen[here, there, role]
            for here, there, role in list(self.seen)
            if (here, there) == habit[:2] and role != "embedding"
        ]
        return sum(found, Counter[Turn]()) if found else None


def _habit(source: Leaves, destination: Leaves, embed: bool) -> Habit:
    role = (
        "embedding" if embed or destination.key == "embedding" else "convolution" if _rank(source) > 2 else ""
    )
    return (_ending(source.key), _ending(destination.key), role)


def _ending(key: str) -> str:
    """What a last key calls the parameter; keys that name a module instead are all of one kind."""
    stem = kind(key)[1]
    return _OWN if stem == key else key[len(stem) :].lstrip("_")


def _rank(leaves: Leaves) -> int:
    return max(map(len, leaves.distinct), default=0)


def _words(change: Change) -> str:
    if not change.ops:
        return ""
    ops = ", ".join(type(op).__name__.lower() for op in change.ops)
    words = {"transpose": "matches if transposed", "reshape": "matches if reshaped"}
    return words.get(ops, "matches if transposed and reshaped") + (
        "" if change.plain else ", in an order that is a guess"
    )
