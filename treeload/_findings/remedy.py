"""The ways to go on from a finding: words, and code that runs as it stands.

Owns each way as data (what it does, and for which names), its wording, and how it is written for many
names at once. Refuses to own when there is one (``fit``, ``slots``), which names go together and how long
a page is (``_reports``). A new way is a class here, and nothing elsewhere knows it by its type.
"""

from __future__ import annotations

import enum
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import numpy as np

from treeload._findings.kinds import Kind
from treeload._leaves.spec import Spec
from treeload._naming.pattern import captured, quote
from treeload._ops.op import Op
from treeload._rules.rule import Rule

PLAINLY = "to go on:"
"""The words before a way that is open to several leaves and said of each in other words."""


class Widening(enum.Enum):
    """For how much more than the leaves it is meant for a way may be written, where they are many."""

    SUBTREE = enum.auto()  # a subtree: the way acts on such findings alone, and all of them there are meant
    LAST_KEY = enum.auto()  # leaves of one last key, as ``**/bias``
    NONE = enum.auto()


class Remedy(ABC):
    """One way to go on. Print it, or take its parts.

    What a class of ways must be: a frozen dataclass, so that equal ways are equal. ``patterns`` is for
    which names the way is; it is empty where the code names none.
    """

    patterns: tuple[str, ...] = ()
    widening: ClassVar[Widening] = Widening.NONE

    @property
    def settles_all(self) -> bool:
        """Whether it was tried, and nothing else is wrong once it is done."""
        return False

    @property
    def is_for_all(self) -> bool:
        """Whether it is done once, for all leaves with such a finding, whatever they are called."""
        return False

    @property
    @abstractmethod
    def before(self) -> str:
        """The words before the code; all there is where there is no code."""

    @property
    def code(self) -> str:
        """An expression that can be pasted where treeload's public names are known; may be empty."""
        start, items, end = self._parts()
        return f"{start}{', '.join(items)}{end}"

    @property
    def after(self) -> str:
        """The words behind the code, with the blank or comma that they begin with."""
        return ""

    @property
    def lines(self) -> tuple[str, ...]:
        """The code as it breaks where it is too long for a line."""
        start, items, end = self._parts()
        return (start, *(f"    {item}," for item in items), end) if items else (start + end,)

    @property
    def outline(self) -> str:
        """The code with ``...`` in place of its patterns, for where they are too many to be shown."""
        start, items, end = self._parts()
        return f"{start}...{end}" if items else start + end

    @property
    def leaves_out(self) -> bool:
        """Whether it makes nothing load: the destination keeps its own, or the source's leaf is left out."""
        return False

    def _parts(self) -> tuple[str, list[str], str]:
        """The code: its beginning, what is written for each pattern, its end."""
        return "", [], ""

    def merged(self, patterns: Sequence[str]) -> Remedy:
        """This way for the names of all ``patterns``; itself where it is for no names."""
        return self

    def plainly(self) -> Remedy:
        """This way without words that are said of one leaf alone."""
        return self

    def __str__(self) -> str:
        return f"{self.before} {self.code}".strip() + self.after


@dataclass(frozen=True)
class Advice(Remedy):
    """Plain words."""

    words: str

    @property
    def before(self) -> str:
        return self.words


@dataclass(frozen=True)
class SetUp(Advice):
    """Plain words of what is to be done for all such leaves at once."""

    @property
    def is_for_all(self) -> bool:
        return True


PLACE_OTHERWISE = Advice("another sharding for it in the destination")


@dataclass(frozen=True)
class Forgive(Remedy):
    """A policy that forgives findings of ``kind``; ``why`` and ``besides`` are the words around it."""

    kind: Kind
    verdict: str
    patterns: tuple[str, ...] = ()
    why: str = PLAINLY
    besides: str = ""

    widening = Widening.SUBTREE

    @property
    def before(self) -> str:
        return self.why

    @property
    def after(self) -> str:
        return self.besides

    @property
    def leaves_out(self) -> bool:
        return self.verdict in ("keep", "ignore")

    def _parts(self) -> tuple[str, list[str], str]:
        return _mapping(self.kind, self.patterns, self.verdict)

    def merged(self, patterns: Sequence[str]) -> Forgive:
        return replace(self, patterns=tuple(patterns))

    def plainly(self) -> Forgive:
        return replace(self, why=PLAINLY, besides="")


@dataclass(frozen=True)
class CastAnyway(Remedy):
    """A policy that allows a cast that loses something."""

    patterns: tuple[str, ...] = ()

    widening = Widening.SUBTREE

    @property
    def before(self) -> str:
        return "to cast anyway:"

    def _parts(self) -> tuple[str, list[str], str]:
        return _mapping("casting", self.patterns, "unsafe")

    def merged(self, patterns: Sequence[str]) -> CastAnyway:
        return replace(self, patterns=tuple(patterns))


@dataclass(frozen=True)
class Zeros(Remedy):
    """A policy under which absent and zero mean the same; ``why`` are the words before it."""

    patterns: tuple[str, ...] = ()
    why: str = PLAINLY

    # This setting is no kind's own: for a whole subtree it would say something of kernels too.
    widening = Widening.LAST_KEY

    @property
    def before(self) -> str:
        return self.why

    @property
    def code(self) -> str:
        start, items, end = self._parts()
        # Of one pattern a tuple needs its comma.
        return f"{start}{', '.join(items)}{',' if len(items) == 1 else ''}{end}"

    def _parts(self) -> tuple[str, list[str], str]:
        return "Policy(absent_is_zero=(", [_literal(pattern) for pattern in self.patterns], "))"

    def merged(self, patterns: Sequence[str]) -> Zeros:
        return replace(self, patterns=tuple(patterns))

    def plainly(self) -> Zeros:
        return replace(self, why=PLAINLY)


@dataclass(frozen=True)
class UseOps(Remedy):
    """Ops on the way of leaves that no rule names yet; without patterns, ops for the rule they have."""

    ops: tuple[Op, ...]
    patterns: tuple[str, ...] = ()
    why: str = PLAINLY
    written: str = ""  # the ops as code, where they do not print as it

    @property
    def before(self) -> str:
        return self.why

    @property
    def after(self) -> str:
        return "" if self.patterns else " in a Rename"

    @property
    def _code(self) -> str:
        return self.written or ", ".join(map(repr, self.ops))

    def _parts(self) -> tuple[str, list[str], str]:
        if not self.patterns:
            return self._code, [], ""
        renames = [
            f"Rename({_literal(name)}, {_literal(name)}, {self._code})"
            for name in map(captured, self.patterns)
        ]
        return ("[", renames, "]") if len(renames) > 1 else (renames[0], [], "")

    @property
    def outline(self) -> str:
        return f"Rename(..., ..., {self._code})" if self.patterns else self._code

    def merged(self, patterns: Sequence[str]) -> UseOps:
        return replace(self, patterns=tuple(patterns))

    def plainly(self) -> UseOps:
        return replace(self, why=PLAINLY)


@dataclass(frozen=True)
class UseRule(Remedy):
    """A rule in place of the one that was given; ``why`` are the words before it."""

    rule: Rule
    why: str = PLAINLY

    @property
    def before(self) -> str:
        return self.why

    def _parts(self) -> tuple[str, list[str], str]:
        return repr(self.rule), [], ""


@dataclass(frozen=True)
class PutBefore(Remedy):
    """The order of two rules: the one that took nothing is to come before the one that had its leaves."""

    rule: Rule
    earlier: Rule

    @property
    def before(self) -> str:
        return "put it before"

    def _parts(self) -> tuple[str, list[str], str]:
        return repr(self.earlier), [], ""


@dataclass(frozen=True)
class StateVersion(Remedy):
    """The version of a source that does not say it, stated in its ``From``.

    ``numbers``: those that it may be of; ``fits`` says that each leads to a load without a problem.
    """

    numbers: tuple[int, ...]
    fits: bool = False

    @property
    def before(self) -> str:
        if self.fits:
            return f"nothing else is wrong if it is of version {' or '.join(map(str, self.numbers))}:"
        return f"to state which it is of, from {self.numbers[0]} to {self.numbers[-1]}:"

    @property
    def settles_all(self) -> bool:
        return self.fits

    @property
    def code(self) -> str:
        return f"From(src, version={self.numbers[0]})"

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.code,)

    @property
    def outline(self) -> str:
        return self.code


# What is said of one leaf.


def keep_own(kind: Kind, name: Sequence[str]) -> Forgive:
    """Forgive one finding of ``kind``: the destination's own value stays."""
    return Forgive(kind, "keep", (quote(name),), "to keep the destination's own:")


def take_first(kind: Kind, name: Sequence[str], what: str = "the first", besides: str = "") -> Forgive:
    """Forgive one finding of ``kind``: the first of several values wins."""
    return Forgive(kind, "first", (quote(name),), f"to take {what}:", besides)


def leave_out(name: Sequence[str]) -> Forgive:
    """Forgive a source leaf that the destination has no place for."""
    return Forgive(Kind.UNEXPECTED, "ignore", (quote(name),), "to leave it out:")


def leave_out_nonzero(name: Sequence[str]) -> Forgive:
    """The same for a leaf that was to be zero and is not."""
    without = "to leave it out anyway: take the pattern for it out of absent_is_zero, and"
    return Forgive(Kind.UNEXPECTED, "ignore", (quote(name),), without)


def take_as_it_is(name: Sequence[str]) -> Forgive:
    """Load a source of another version, or of none, by the names that it has."""
    return Forgive(Kind.VERSION, "ignore", (quote(name),), "to take it as it is:")


def ignore_rule(how: str, pattern: str) -> Forgive:
    """Mend a rule, or forgive that it does nothing."""
    why = f"{how}, or" if how else "to ignore that it does nothing:"
    return Forgive(Kind.RULE, "ignore", (pattern,), why)


def zeros(name: Sequence[str]) -> Zeros:
    """Let the absence of a source leaf mean zero."""
    return Zeros((quote(name),), "for zeros:")


def if_zero(name: Sequence[str]) -> Zeros:
    """Let a source leaf without a place be zero."""
    return Zeros((quote(name),), "if it must be zero:")


def cast_anyway(name: Sequence[str]) -> CastAnyway:
    """Allow a cast that loses something."""
    return CastAnyway((quote(name),))


def looks_like_bias(name: Sequence[str], spec: Spec) -> bool:
    """Whether a leaf is usually one for which absent and zero mean the same.

    A bias has an axis or a few (heads, layers), of floats; a causal mask called ``bias`` is another thing.
    """
    called = tuple(name[-1:]) in (("bias",), ("b",))
    return called and len(spec.shape) < 4 and jax.dtypes.issubdtype(spec.dtype, np.inexact)


# Code.


def _mapping(setting: str, patterns: Sequence[str], verdict: str) -> tuple[str, list[str], str]:
    return f"Policy({setting}={{", [f'{_literal(pattern)}: "{verdict}"' for pattern in patterns], "})"


def _literal(pattern: str) -> str:
    """A pattern as Python code."""
    return json.dumps(pattern, ensure_ascii=False)
