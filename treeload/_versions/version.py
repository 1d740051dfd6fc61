"""One change of a model's parameters, and all of them in order: ``Version``, and what ``History`` is made of.

Owns which changes a source has not seen, by its stamp. What they do to it is in ``migrate``; ``History``
itself, which can plan, stands above the plan (``_checkpoints``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from treeload._errors import RuleError
from treeload._findings.policy import Policy
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern
from treeload._rules.rule import Rule, as_rules
from treeload._rules.tie import Tie
from treeload._sources.stamp import WHOLE, Stamp, is_version


@dataclass(frozen=True, init=False, repr=False)
class Version:
    """One change of a model's parameters: how what was saved before it is read after it.

    Args:
        number: the version that the change makes: 2 for the first of its scope, then one more each time.
        rules: how names and layouts of the version before become those of this one.
        policy: what is forgiven of a source that is older: ``missing`` for what this version brought,
            ``unexpected`` for what it dropped. Its patterns are over the names of this version.
        scope: a pattern of the nodes that changed, as ``"**/attn"``; rules and policy are then over names
            relative to each of them, and a leaf belongs to the innermost. ``None``: the whole tree.

    Examples:
        >>> from treeload import Rename
        >>> Version(2, rules=[Rename("dense/{*rest}", "proj/{*rest}")])
        Version(2, rules=[Rename('dense/{*rest}', 'proj/{*rest}')])

    Raises:
        RuleError: a number below 2, a rule or scope that cannot mean anything, or a ``Tie``.
    """

    number: int
    rules: tuple[Rule, ...]
    policy: Policy
    scope: str | None

    def __init__(
        self,
        number: int,
        *,
        rules: Rule | Iterable[Rule] = (),
        policy: Policy = Policy(),  # noqa: B008  # a Policy never changes
        scope: PatternLike | None = None,
    ) -> None:
        if not is_version(number) or number < 2:
            raise RuleError(
                f"Version(number) is 2 or more, since 1 is what was before the first, not {number!r}"
            )
        given = as_rules(rules, "Version(rules=...)")
        tie = next((rule for rule in given if isinstance(rule, Tie)), None)
        if tie is not None:
            raise RuleError(f"{tie!r} is about a destination: it is no rule from one version to the next")
        if not isinstance(policy, Policy):
            raise RuleError(f"Version(policy=...) is a Policy(...), not {policy!r}")
        if isinstance(scope, re.Pattern):
            raise RuleError("Version(scope=...) is recorded as text: write a pattern, not a re.Pattern")
        text = None if scope is None else compile_pattern(scope).text
        for field, value in (
            ("number", number),
            ("rules", given),
            ("policy", policy),
            ("scope", text or None),
        ):
            object.__setattr__(self, field, value)

    @property
    def key(self) -> str:
        """The scope as stamps have it: ``""`` for the whole tree."""
        return self.scope or WHOLE

    @property
    def nodes(self) -> Pattern | None:
        """The pattern of the nodes that changed; None for the whole tree."""
        return None if self.scope is None else compile_pattern(self.scope)

    def __str__(self) -> str:
        return f"version {self.number}" + (f" of {self.scope}" if self.scope else "")

    def __repr__(self) -> str:
        said = [str(self.number)]
        if self.rules:
            said.append(f"rules={list(self.rules)!r}")
        if self.policy != Policy():
            said.append(f"policy={self.policy.code}")
        if self.scope is not None:
            said.append(f"scope={self.scope!r}")
        return f"Version({', '.join(said)})"


@dataclass(frozen=True)
class Dated:
    """Between which versions a source and the code stand.

    Attributes:
        before: the versions that the source was saved at; a scope that is not named is at 1.
        after: those of the code.
        steps: the changes that the source has not seen, in order.
    """

    before: Stamp
    after: Stamp
    steps: tuple[Version, ...]

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of its steps, in their order."""
        return tuple(dict.fromkeys(step.key for step in self.steps))

    def words(self, scopes: Iterable[str]) -> str:
        """``by version 1 → 3``, and for scopes ``by version 1 → 2 of **/attn``."""
        said = [
            f"{self.before.get(scope, 1)} → {self.after[scope]}" + (f" of {scope}" if scope else "")
            for scope in self.scopes if scope in scopes
        ]  # fmt: skip
        return f"by version {', '.join(said)}" if said else ""


class Steps:
    """Every change of a model's parameters, in the order in which they were made.

    The steps of all scopes are applied as they are written, so a later one is over the names that an
    earlier one made.

    Attributes:
        versions: the changes.

    Raises:
        RuleError: something that is no ``Version``; numbers of one scope that do not ascend by one from 2.
    """

    def __init__(self, *versions: Version) -> None:
        reached: dict[str, int] = {WHOLE: 1}
        for version in versions:
            if not isinstance(version, Version):
                raise RuleError(f"a History is made of Versions, not of {version!r}")
            number = reached.get(version.key, 1) + 1
            if version.number != number:
                of = f" of scope {version.scope!r}" if version.scope else ""
                raise RuleError(f"the next version{of} in this History is {number}, not {version.number}")
            reached[version.key] = number
        self.versions = versions
        self._newest = reached

    @property
    def newest(self) -> Mapping[str, int]:
        """The number of the whole (``""``) and of each scope: what ``save(history=...)`` records."""
        return dict(self._newest)

    def since(self, stamp: Stamp) -> Dated:
        """What a source of this stamp has not seen."""
        steps = (version for version in self.versions if version.number > stamp.get(version.key, 1))
        return Dated(stamp, self.newest, tuple(steps))

    def beyond(self, stamp: Stamp) -> dict[str, int]:
        """The scopes of which a source has seen more than there is here, and its numbers."""
        return {scope: number for scope, number in stamp.items() if number > self.newest.get(scope, 1)}

    def __eq__(self, other: object) -> bool:
        return self.versions == other.versions if isinstance(other, Steps) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.versions)

    def __repr__(self) -> str:
        return f"History({', '.join(map(repr, self.versions))})"


def checked_history(history: object) -> Steps | None:
    """``history``, if it is one or None.

    Raises:
        RuleError: it is something else, such as a number.
    """
    if history is not None and not isinstance(history, Steps):
        raise RuleError(f"history is a History(...), not {history!r}")
    return history
