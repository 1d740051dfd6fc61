"""What the policies of steps forgive, at the names of today.

A step's policy is over the names of its own version, and forgives only what is due to that step. A leaf that
has a value has a trail, which says how it was called then; for what has none the rules are turned round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from treeload._findings.kinds import Kind
from treeload._findings.policy import Verdicts, default_verdict
from treeload._naming.name import Keys, Name, print_name
from treeload._naming.pattern import Pattern
from treeload._versions.version import Dated, Version

Stood: TypeAlias = tuple[Dated, Version, Keys]
"""What a leaf of today was called after a step, and the versions between which its source stands."""


@dataclass(frozen=True)
class StepVerdicts:
    """The verdicts of a user's policy, and of the steps' where that forgives nothing.

    Attributes:
        policy: the user's.
        stood: a name of today → what it was called after each step.
    """

    policy: Verdicts
    stood: Callable[[Keys], Iterator[Stood]]

    def verdict(self, kind: str, printed: str) -> str:
        """The verdict on a finding of ``kind`` at a destination-side name (or the casting for a name)."""
        said = self.policy.verdict(kind, printed)
        if said != default_verdict(kind) or kind == Kind.VERSION:
            return said
        by_steps = (step.policy.verdict(kind, print_name(name)) for _, step, name in self._stood(printed))
        return next((verdict for verdict in by_steps if verdict != said), said)

    def zero_if_absent(self, printed: str) -> bool:
        """Whether absent and zero mean the same at this name."""
        return self.policy.zero_if_absent(printed) or any(
            step.policy.zero_if_absent(print_name(name)) for _, step, name in self._stood(printed)
        )

    @property
    def patterns(self) -> Iterable[tuple[str, Pattern]]:
        """Those of the user's policy: the steps' are for whatever was saved, and many match nothing here."""
        return self.policy.patterns

    def words(self, kind: str, printed: str) -> str:
        """``by version 1 → 3``, where a step's policy and not the user's forgives; else empty."""
        if _forgives(self.policy, kind, printed):
            return ""
        steps = ((dated, step) for dated, step, name in self._stood(printed)
                 if _forgives(step.policy, kind, print_name(name)))  # fmt: skip
        return next((dated.words([step.key]) for dated, step in steps), "")

    def _stood(self, printed: str) -> Iterator[Stood]:
        return self.stood(Name.parse(printed))


def _forgives(policy: Verdicts, kind: str, printed: str) -> bool:
    absent = kind == Kind.MISSING and policy.zero_if_absent(printed)
    return absent or policy.verdict(kind, printed) != default_verdict(kind)
