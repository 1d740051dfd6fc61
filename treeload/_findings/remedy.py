"""What a finding tells the user to write in order to go on: code that runs as it stands.

Owns the wording, one function for each way out. Refuses to own when there is one (``fit``, ``slots``).
Several ways are joined with ``"; "``; reports cut them there again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from treeload._naming.pattern import quote


def keep_own(kind: str, name: Sequence[str]) -> str:
    """Forgive one finding of ``kind``: the destination's own value stays."""
    return f"to keep the destination's own: {_policy(kind, quote(name), 'keep')}"


def take_first(kind: str, name: Sequence[str], what: str = "the first") -> str:
    """Forgive one finding of ``kind``: the first of several values wins."""
    return f"to take {what}: {_policy(kind, quote(name), 'first')}"


def leave_out(name: Sequence[str]) -> str:
    """Forgive a source leaf that the destination has no place for."""
    return f"to leave it out: {_policy('unexpected', quote(name), 'ignore')}"


def leave_out_nonzero(name: Sequence[str]) -> str:
    """The same for a leaf that was to be zero and is not."""
    without = "to leave it out anyway: take the pattern for it out of absent_is_zero"
    return f"{without}, and {_policy('unexpected', quote(name), 'ignore')}"


def zeros(name: Sequence[str]) -> str:
    """Let the absence of a source leaf mean zero."""
    return f"for zeros: Policy(absent_is_zero=({_literal(quote(name))},))"


def if_zero(name: Sequence[str]) -> str:
    """Let a source leaf without a place be zero."""
    return f"if it must be zero: Policy(absent_is_zero=({_literal(quote(name))},))"


def cast_anyway(name: Sequence[str]) -> str:
    """Allow a cast that loses something."""
    return f"to cast anyway: {_policy('casting', quote(name), 'unsafe')}"


def ignore_rule(how: str, pattern: str) -> str:
    """Mend a rule, or forgive that it does nothing."""
    return f"{how}, or {_policy('rule', pattern, 'ignore')}"


def looks_like_bias(name: Sequence[str]) -> bool:
    """Whether a leaf is usually one for which absent and zero mean the same."""
    return tuple(name[-1:]) in (("bias",), ("b",))


def _policy(kind: str, pattern: str, verdict: str) -> str:
    return f'Policy({kind}={{{_literal(pattern)}: "{verdict}"}})'


def _literal(pattern: str) -> str:
    """A pattern as Python code; reports look for it to put a group's pattern in its place."""
    return json.dumps(pattern, ensure_ascii=False)
