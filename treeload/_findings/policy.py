"""What to do about each kind of disagreement: verdicts, for all names or by pattern.

Owns the ``Policy`` that users write, and what matching asks of it (``Verdicts``). Refuses to own which
kinds and verdicts there are (``kinds``) and when a disagreement exists (``_matching``). A policy is
checked when it is made: a typo in a verdict or a pattern never waits for the load.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol, TypeAlias

from treeload._errors import RuleError
from treeload._findings.kinds import KINDS, Kind
from treeload._leaves.casts import CASTINGS
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern

Setting: TypeAlias = "str | Mapping[str, str] | Mapping[PatternLike, str]"


BIAS: tuple[str, ...] = ("**/bias", "**/b")
"""The usual names of biases, for ``Policy(absent_is_zero=BIAS)``."""


class Verdicts(Protocol):
    """What matching asks: a ``Policy``, or whatever else answers for the names of one load."""

    def verdict(self, kind: str, printed: str) -> str:
        """The verdict on a finding of ``kind`` at a destination-side name (or the casting for a name)."""

    def zero_if_absent(self, printed: str) -> bool:
        """Whether absent and zero mean the same at this name."""

    @property
    def patterns(self) -> Iterable[tuple[str, Pattern]]:
        """Every pattern that was written for names of this load, each with its setting."""


@dataclass(frozen=True, eq=False)
class Policy:
    """What is forgiven, per kind of disagreement and per name; by default nothing is.

    Each setting is a verdict, or a mapping from patterns over destination-side names to verdicts:
    the first pattern that matches wins, and names that none matches fall to the default, which is
    ``"error"`` (``"same_kind"`` for ``casting``).

    Args:
        missing: an array in the destination, nothing in the source: ``"error"`` or ``"keep"``.
        unexpected: an array in the source, nothing in the destination: ``"error"`` or ``"ignore"``.
        shape: shapes differ after the rule's ops: ``"error"`` or ``"keep"``.
        dtype: ``casting`` forbids the cast, or a value overflows it: ``"error"`` or ``"keep"``.
        casting: which casts are made at all, as in ``numpy.can_cast``: ``"no"``, ``"equiv"``,
            ``"safe"``, ``"same_kind"`` or ``"unsafe"``. Short of ``"unsafe"`` never float → int,
            complex → real or boolean → number, nor a value that overflows.
        structure: a leaf against a subtree, an array against a static: ``"error"`` or ``"keep"``.
        tie: tied destination leaves whose source values differ: ``"error"`` or ``"first"``.
        collision: one destination leaf is fed twice: ``"error"`` or ``"first"``.
        rule: a rule that matched nothing or cannot apply: ``"error"`` or ``"ignore"``.
        version: a checkpoint newer than the code, or of unknown version: ``"error"`` or ``"ignore"``.
        absent_is_zero: patterns of names where absent and all-zero mean the same, in both
            directions. ``BIAS`` is the usual one.

    Examples:
        >>> policy = Policy(missing={"head/**": "keep"}, absent_is_zero=BIAS)
        >>> policy.verdict("missing", "head/kernel"), policy.verdict("missing", "trunk/kernel")
        ('keep', 'error')

    Raises:
        RuleError: an unknown verdict, or a pattern that cannot mean anything.
    """

    missing: Setting = "error"
    unexpected: Setting = "error"
    shape: Setting = "error"
    dtype: Setting = "error"
    casting: Setting = "same_kind"
    structure: Setting = "error"
    tie: Setting = "error"
    collision: Setting = "error"
    rule: Setting = "error"
    version: Setting = "error"
    absent_is_zero: Iterable[PatternLike] | re.Pattern[str] = ()
    _compiled: Mapping[str, tuple[tuple[Pattern | None, str], ...]] = field(init=False, repr=False)
    _zero: tuple[Pattern, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        compiled = {}
        for setting in (f.name for f in fields(self) if f.init and f.name != "absent_is_zero"):
            value = getattr(self, setting)
            if isinstance(value, Mapping):
                # A copy: the mapping the caller holds may change, a policy does not.
                object.__setattr__(self, setting, _FrozenMapping(value))
            compiled[setting] = _compile_setting(setting, value)
        object.__setattr__(self, "_compiled", compiled)
        patterns = self.absent_is_zero
        if isinstance(patterns, (str, re.Pattern)):
            # A lone string is a sequence of characters, each a pattern of its own: never what is meant.
            patterns = (patterns,)
        elif isinstance(patterns, Mapping) or not isinstance(patterns, Iterable):
            raise RuleError(f"Policy(absent_is_zero=...) is a tuple of patterns, not {patterns!r}")
        patterns = tuple(patterns)
        object.__setattr__(self, "absent_is_zero", patterns)
        object.__setattr__(self, "_zero", tuple(map(compile_pattern, patterns)))

    def verdict(self, kind: str, printed: str) -> str:
        """The verdict on a finding of ``kind`` at a destination-side name (or the casting for a name).

        Raises:
            RuleError: a kind that there is not.
        """
        for pattern, verdict in self._compiled.get(kind, ()):
            if pattern is None or pattern.matches(printed):
                return verdict
        return default_verdict(kind)

    def zero_if_absent(self, printed: str) -> bool:
        """Whether absent and zero mean the same at this name."""
        return any(pattern.matches(printed) for pattern in self._zero)

    @property
    def patterns(self) -> Iterator[tuple[str, Pattern]]:
        """Every pattern that was written for names of this load, each with its setting.

        Those of ``BIAS`` are written for whatever model comes, so they are none of them.
        """
        for setting, compiled in self._compiled.items():
            yield from ((setting, pattern) for pattern, _ in compiled if pattern is not None)
        yield from (("absent_is_zero", pattern) for pattern in self._zero if pattern.text not in BIAS)

    def names(self, kind: str, printed: str) -> bool:
        """Whether a pattern, and not one verdict for all names, forgives findings of ``kind`` here."""
        for pattern, verdict in self._compiled.get(kind, ()):
            if pattern is not None and pattern.matches(printed):
                return verdict != default_verdict(kind)
        return False

    @property
    def code(self) -> str:
        """The policy as code, with what it forgives alone."""
        said = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self) if each.init and getattr(self, each.name) != each.default
        ]  # fmt: skip
        return f"Policy({', '.join(said)})"

    # By what was compiled: two mappings are equal in any order, but say different things.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        return (self._compiled, self._zero) == (other._compiled, other._zero)

    def __hash__(self) -> int:
        return hash((*self._compiled.values(), self._zero))


def default_verdict(kind: str) -> str:
    """What a policy that says nothing of ``kind`` says to it (or of the casting)."""
    return "same_kind" if kind == "casting" else KINDS[Kind(kind)].verdicts[0]


class _FrozenMapping(dict[PatternLike, str]):
    """A dict that a frozen policy can hold: it prints and compares as one, and refuses to change."""

    def _refuse(self, *_: object, **__: object) -> None:
        raise TypeError("a Policy does not change; make a new one")

    __setitem__ = __delitem__ = _refuse  # refusing is the point
    clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]
    __ior__ = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        return _FrozenMapping, (dict(self),)


def _compile_setting(kind: str, setting: object) -> tuple[tuple[Pattern | None, str], ...]:
    if isinstance(setting, Mapping):
        return tuple(
            (compile_pattern(pattern), _checked(kind, verdict)) for pattern, verdict in setting.items()
        )
    return ((None, _checked(kind, setting)),)


def _checked(kind: str, verdict: object) -> str:
    allowed = CASTINGS if kind == "casting" else KINDS[Kind(kind)].verdicts
    if not isinstance(verdict, str) or verdict not in allowed:
        known = ", ".join(map(repr, allowed))
        raise RuleError(
            f"Policy({kind}=...) takes {known}, or a mapping of patterns to them; not {verdict!r}"
        )
    return verdict
