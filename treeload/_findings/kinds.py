"""The kinds of findings, in one table: when, what may be forgiven, and how it is said.

Owns what is true of every finding of a kind. Refuses to own the settings that users write (``policy``),
what to write to go on (``remedy``) and layout (``_reports``). Other rooms name a kind to make a finding
of it, and otherwise ask the table: a new kind is a member and a row here, and, where some verdict forgives
it, a setting of ``Policy``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from treeload._errors import RuleError

Side: TypeAlias = Literal["expected", "found"]
"""A side of a finding: what the destination expects, or what was found in the source."""


class Kind(enum.StrEnum):
    """A kind of finding; equal to its text, and printed as it.

    Examples:
        >>> Kind.MISSING == "missing", [Kind("shape")]
        (True, ['shape'])

    Raises:
        RuleError: a text that is no kind.
    """

    MISSING = "missing"
    UNEXPECTED = "unexpected"
    SHAPE = "shape"
    DTYPE = "dtype"
    STRUCTURE = "structure"
    ABSENT = "absent"
    TIE = "tie"
    COLLISION = "collision"
    RULE = "rule"
    ABSTRACT = "abstract"
    VERSION = "version"
    VALUES = "values"

    @classmethod
    def _missing_(cls, value: object) -> Kind:
        known = ", ".join(map(repr, cls))
        raise RuleError(f"{value!r} is no kind of finding; the kinds are {known}")

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class Manner:
    """What is true of every finding of one kind.

    Attributes:
        meaning: when there is such a finding, in a few words.
        verdicts: what a policy may say to it, the default first.
        inline: the one side that is said behind the name, on its line; None where both have lines.
        columns: the sides that have a line of their own.
        in_words: its message says what both sides have and what they are called.
        own_words: its message differs from leaf to leaf of one problem.
        told_by_sides: its message says no more than the two sides do.
        counterpart: the kind of finding that the other side has of a leaf of another name.
        among_unused: its leaf is listed with the source leaves that are not used, with the reason.
        settled_by_rules: it may be none under a rule, which brings a leaf or takes one away.
        about_rules: a rule, a source or a scope did nothing: said before what came of it.
        settled_by_init: it is none where ``init=`` makes the leaf.
        absent_where: for a value that must be zero: where it is absent.
    """

    meaning: str
    verdicts: tuple[str, ...] = ("error",)
    inline: Side | None = None
    columns: tuple[Side, ...] = ()
    in_words: bool = False
    own_words: bool = False
    told_by_sides: bool = False
    counterpart: Kind | None = None
    among_unused: bool = False
    settled_by_rules: bool = False
    about_rules: bool = False
    settled_by_init: bool = False
    absent_where: str = ""


_BOTH: tuple[Side, ...] = ("expected", "found")


KINDS: Mapping[Kind, Manner] = MappingProxyType(
    {
        Kind.MISSING: Manner(
            "an array in the destination, nothing in the source",
            ("error", "keep"),
            inline="expected",
            counterpart=Kind.UNEXPECTED,
            settled_by_rules=True,
        ),
        Kind.UNEXPECTED: Manner(
            "an array in the source, nothing in the destination",
            ("error", "ignore"),
            inline="found",
            counterpart=Kind.MISSING,
            among_unused=True,
            settled_by_rules=True,
        ),
        Kind.SHAPE: Manner(
            "the shapes differ, after the rule's ops; nothing is ever broadcast, squeezed, padded or cut",
            ("error", "keep"),
            columns=_BOTH,
            told_by_sides=True,
            settled_by_rules=True,
        ),
        Kind.DTYPE: Manner(
            'the cast is not allowed: `casting` is `"same_kind"` unless the policy says otherwise; '
            "or a value overflows it",
            ("error", "keep"),
            columns=_BOTH,
        ),
        Kind.STRUCTURE: Manner(
            "a leaf against a subtree, an array against a static, a typed PRNG key against a raw one",
            ("error", "keep"),
            columns=_BOTH,
            settled_by_rules=True,
        ),
        Kind.ABSENT: Manner(
            "absent on one side, `absent_is_zero` says that is zero, and the other side's array is not all "
            "zero",
            columns=("found",),
            own_words=True,
            absent_where="in the destination",
        ),
        Kind.TIE: Manner(
            "leaves that are one array in the destination, with different values in the source",
            ("error", "first"),
            in_words=True,
            own_words=True,
            absent_where="in the source under another of its names",
        ),
        Kind.COLLISION: Manner(
            "two source leaves for one destination leaf",
            ("error", "first"),
            in_words=True,
            own_words=True,
            settled_by_rules=True,
        ),
        Kind.RULE: Manner(
            "a rule that matched nothing, or could not apply",
            ("error", "ignore"),
            columns=_BOTH,
            about_rules=True,
        ),
        Kind.ABSTRACT: Manner(
            "a leaf to be kept, in a destination that has no values, and no `init=`",
            inline="expected",
            settled_by_init=True,
        ),
        Kind.VERSION: Manner(
            "a source newer than the code's history, or of a version that is not known",
            ("error", "ignore"),
            columns=_BOTH,
        ),
        Kind.VALUES: Manner(
            "of `average` alone: integers, booleans or PRNG keys that differ, and have no mean",
            columns=_BOTH,
        ),
    }
)
"""Every kind of finding, in the order reports show them."""
