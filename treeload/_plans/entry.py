"""The plan's lines: what happens to each leaf of the destination, and what becomes of the source's.

A plan of 100,000 leaves is made in a fraction of a second because most of its entries say the same thing:
"this leaf, from the leaf of that name". Those are kept as a mark in a list (``SAME_NAME``) and become
``Entry`` objects when somebody looks; so do those of which the source has nothing (``MISSING``), which are as
many where all names are wrong.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from treeload._leaves.spec import Spec
from treeload._naming.mended import Mended
from treeload._naming.name import Keys, Name
from treeload._ops.expression import Expression, fills_from_destination
from treeload._ops.op import Op
from treeload._rules.rule import Rule
from treeload._sources.source import SourceLeaf


class Action(enum.StrEnum):
    """What happens to a destination leaf."""

    LOAD = "load"  # a source leaf's value, after its ops and cast
    ZERO = "zero"  # zeros: the source is absent, and the policy says that means zero
    KEEP = "keep"  # the destination's own value
    TIE = "tie"  # the same source as another destination leaf, by a rule


class OnOverflow(enum.StrEnum):
    """What is done where a leaf's cast overflows a value, which is known once it is read."""

    ERROR = "error"  # nothing is loaded
    KEEP = "keep"  # the destination keeps its own
    CAST = "cast"  # it is cast all the same, under casting="unsafe"


@dataclass(frozen=True, slots=True)
class Unused(SourceLeaf):
    """A source leaf that feeds nothing.

    Attributes:
        at: the name it would have in the destination.
        why: what it met there.
    """

    at: Name
    why: str


class LaterUnused(Protocol):
    """A source leaf that feeds nothing, written when somebody looks."""

    @property
    def at(self) -> Keys:
        """The name it would have in the destination."""

    def unused(self) -> Unused:
        """The line, written."""


@dataclass(frozen=True, slots=True)
class IdlePattern:
    """A pattern of the policy that matches no name, and so forgives nothing.

    Attributes:
        setting: for which setting of the policy it was written.
        text: the pattern.
        meant: a pattern near it that matches; None where there is none.
    """

    setting: str
    text: str
    meant: Mended | None


@dataclass(frozen=True, slots=True)
class Entry:
    """The plan's line for one destination leaf.

    Attributes:
        name: its canonical name.
        action: what happens to it.
        spec: the shape and dtype that the destination asks for.
        sources: the source leaves it is made of; none where it is kept or zeroed.
        ops: what is done to them, in order.
        cast: whether the dtype changes after the ops.
        rule: the rule that chose them; None where names were equal.
        reason: why it is kept or zeroed, or how it was matched, in words; may be empty.
        aliases: its other names, where it is tied.
        optional: whether a source may lack it (RNG state, caches, intermediates of NNX).
        needs_values: whether a check of values is still to be done for it.
        by_position: whether the source leaf was found by its place among others, not by a name.
        on_overflow: what is done where the cast overflows a value: ``"error"``, ``"keep"`` or ``"cast"``.
    """

    name: Name
    action: Action
    spec: Spec
    sources: tuple[SourceLeaf, ...] = ()
    ops: tuple[Op, ...] = ()
    cast: bool = False
    rule: Rule | None = None
    reason: str = ""
    aliases: tuple[Name, ...] = ()
    optional: bool = False
    needs_values: bool = False
    by_position: bool = False
    value: Expression | None = field(default=None, repr=False, compare=False)
    on_overflow: OnOverflow = field(default=OnOverflow.ERROR, repr=False, compare=False)

    @property
    def keeps_something(self) -> bool:
        """Whether the destination's own value is needed: the leaf is kept, or an op fills up with it."""
        return self.action == Action.KEEP or (self.value is not None and fills_from_destination(self.value))


class SameName(enum.Enum):
    """The row of a leaf that loads from the first source's leaf of the same name, shape and dtype.

    A member of an enumeration, so that a plan which is copied or pickled still knows it for what it is.
    """

    SAME_NAME = "same name"


SAME_NAME: Final = SameName.SAME_NAME


class PlainlyMissing(enum.Enum):
    """What is noted of a leaf that is kept since the source plainly has nothing here; likewise a member."""

    MISSING = "missing"


MISSING: Final = PlainlyMissing.MISSING

LEFT_AS_MISSING = "missing in the source"

OUTSIDE = "outside the scope"
"""Why a leaf is kept of which the source has nothing."""

Row: TypeAlias = "Entry | SameName | None"
"""What is decided for one slot; None for a slot that is no leaf."""

Line: TypeAlias = "Row | PlainlyMissing"
"""The same as it is noted while a plan is made."""
