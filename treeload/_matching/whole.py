"""What can only be said once every leaf is decided: about rules, sources and the scope as a whole.

Owns the findings that belong to no single pair of leaves: a rule, a ``From`` or a scope that did
nothing, a leaf that is kept and holds nothing; and the near names, for which both sides must be known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from treeload._errors import RuleError
from treeload._findings import remedy
from treeload._findings.finding import Finding
from treeload._leaves.spec import is_abstract
from treeload._matching.ledger import Draft
from treeload._matching.offers import Failure
from treeload._naming.name import Name, print_name
from treeload._naming.near import NearNames
from treeload._plans.entry import SAME_NAME, Entry, Unused


def audit(draft: Draft, slow: Iterable[int]) -> None:
    """Every finding about the whole; ``slow`` are the slots that may hold an entry."""
    for failure in draft.offers.failures:
        _failed_rule(draft, failure)
    _idle_scope(draft)
    _idle_parts(draft)
    _kept_and_abstract(draft, slow)
    _add_near_names(draft)


def _failed_rule(draft: Draft, failure: Failure) -> None:
    leaves = list(map(draft.source_leaf, failure.leaves))
    for leaf in leaves:
        at = Name(failure.name if failure.name is not None else leaf.name)
        draft.unused.append(Unused(leaf.source, leaf.name, leaf.spec, at, "its rule could not be applied"))
    how = "correct the rule or leave it out" if failure.name is None else "correct the rule's ops"
    draft.findings.append(
        Finding(
            "rule",
            _loose_name(failure.destination_text) if failure.name is None else Name(failure.name),
            draft.policy.verdict("rule", failure.destination_text),
            found=leaves[0].spec if leaves else None,
            source=leaves[0] if leaves else None,
            rule=failure.rule,
            message=failure.message,
            remedy=remedy.ignore_rule(how, failure.destination_text),
        )
    )


def _idle_scope(draft: Draft) -> None:
    """A finding for each pattern of the scope that is no leaf's: a typo there would load nothing."""
    if draft.scope is None:
        return
    printed = [print_name(name) for name in (*draft.slots, *draft.offers.shaped)]
    for pattern in draft.scope.patterns:
        if not any(map(pattern.matches, printed)):
            draft.findings.append(
                Finding(
                    "rule",
                    _loose_name(pattern.text),
                    draft.policy.verdict("rule", pattern.text),
                    message=f"scope {pattern.text!r} matches no leaf of the destination or the source",
                    remedy="correct the scope; names are matched whole, so a subtree is 'encoder/**'",
                )
            )


def _idle_parts(draft: Draft) -> None:
    """A finding for each ``From`` none of whose leaves came to a place in the destination."""
    if not any(part.explicit for part in draft.parts):
        return
    # What has a finding of its own (a shape, a collision, a failed rule) did come to its place.
    busy = {leaf.index for failure in draft.offers.failures for leaf in failure.leaves}
    busy |= {index for index, part in enumerate(draft.parts) if part.by_position and not part.positions}
    if any(row is SAME_NAME for row in draft.rows):
        busy.add(0)
    if draft.feeds_false:
        busy |= {index for index, part in enumerate(draft.parts) if False in part.source.absent().values()}
    checked = (check.name for check in draft.checks)
    for name in (*draft.accounted_for, *checked):
        busy.update(leaf.index for value, _ in draft.values_at(name) for leaf in value.leaves())
    for index, part in enumerate(draft.parts):
        if part.explicit and index not in busy and not _all_outside(draft, index):
            draft.findings.append(
                Finding(
                    "rule",
                    Name(part.into),
                    draft.policy.verdict("rule", print_name(part.into)),
                    message=_idle(draft, index),
                    remedy="correct subtree, into or rules, or leave the From out",
                )
            )


def _all_outside(draft: Draft, index: int) -> bool:
    """Whether the scope leaves out everything that a source offers, so that it cannot feed anything."""
    names = [
        name
        for name in draft.offers.shaped
        if any(leaf.index == index for value, _ in draft.values_at(name) for leaf in value.leaves())
    ]
    return bool(names) and not any(draft.in_scope(name, draft.offers.shaped[name]) for name in names)


def _idle(draft: Draft, index: int) -> str:
    part = draft.parts[index]
    what, has = part.source.label, ""
    if part.subtree:
        top = sorted({name[0] for name in draft.offers.tables[index] if name})[:8]
        what = f"subtree {print_name(part.subtree)!r} of {what}"
        has = f"; the source has {', '.join(top)}"
    return f"From({what}) feeds no leaf of the destination{has}"


def _kept_and_abstract(draft: Draft, slow: Iterable[int]) -> None:
    """A finding for each leaf that is to be kept and has no value to keep."""
    already = {finding.name for finding in draft.findings if finding.verdict == "error"}
    for index in slow:
        row = draft.rows[index]
        if not isinstance(row, Entry) or not row.keeps_something or not is_abstract(draft.tree.values[index]):
            continue
        broken = already.intersection((row.name, *row.aliases))
        if broken or any(row.name[:depth] in already for depth in range(len(row.name))):
            continue  # its own error comes first; mended, it will not be kept
        draft.find(
            "abstract",
            row.name,
            expected=row.spec,
            message=f"it is to be kept ({row.reason or 'in part'}), and the destination is abstract: "
            "there is nothing to keep",
            remedy="load(..., init=fn), where fn() gives a concrete tree, or a concrete destination",
        )


def _add_near_names(draft: Draft) -> None:
    """Fills in ``near``: for what is missing, what the source has left over; and the other way."""
    by_kind = {
        kind: [finding.name for finding in draft.findings if finding.kind == kind]
        for kind in ("missing", "unexpected")
    }
    if not all(by_kind.values()):
        return
    others = {"missing": NearNames(by_kind["unexpected"]), "unexpected": NearNames(by_kind["missing"])}
    draft.findings = [
        replace(finding, near=tuple(map(Name, others[finding.kind].near(finding.name))))
        if finding.kind in others
        else finding
        for finding in draft.findings
    ]


def _loose_name(text: str) -> Name:
    """The name for findings about a pattern: its text, cut at ``/`` where it can be."""
    try:
        return Name.parse(text)
    except RuleError:
        return Name((text,))
