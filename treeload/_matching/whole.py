"""What can only be said once every leaf is decided: about rules, sources and the scope as a whole.

Owns the findings that belong to no single pair of leaves: a rule, a ``From`` or a scope that did
nothing, a leaf that is kept and holds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from treeload._errors import RuleError
from treeload._findings import remedy
from treeload._findings.finding import Finding
from treeload._findings.kinds import Kind
from treeload._leaves.spec import is_abstract
from treeload._matching.idle import meant, printed_names
from treeload._matching.ledger import Ledger
from treeload._matching.parts import OpenedPart
from treeload._matching.positions import Miscount
from treeload._matching.sides import Sides
from treeload._naming.mended import mend
from treeload._naming.name import Name, prefixes_of, print_name, split
from treeload._naming.pattern import Pattern
from treeload._plans.entry import SAME_NAME, Entry, Unused
from treeload._rules.apply import RuleFailure
from treeload._rules.rule import Rule

_TOPS = 8  # first keys that are named where a scope matches nothing


def audit(sides: Sides, ledger: Ledger, slow: Iterable[int]) -> None:
    """Every finding about the whole; ``slow`` are the slots that may hold an entry."""
    for failure in sides.offers.failures:
        _failed_rule(sides, ledger, failure)
    for one in sides.offers.left:
        gone = one.trail.dropped
        ledger.leave(one.name, one.value, f"{gone} has it no longer; the leaf of this name is a later one")
    _idle_scope(sides, ledger)
    _idle_parts(sides, ledger)
    _kept_and_abstract(sides, ledger, slow)


def refuse_miscount(ledger: Ledger, wrong: Miscount) -> None:
    """A finding for a source by position whose count differs."""
    ledger.find(
        Kind.RULE,
        wrong.into,
        (f"{len(wrong.names):,} arrays", wrong.arrays),
        message=wrong.message,
        remedies=[remedy.Advice("give the leaves names, or a destination of the source's structure")],
    )


def _failed_rule(sides: Sides, ledger: Ledger, failure: RuleFailure) -> None:
    leaves = [sides.source_leaf(leaf) for leaf in failure.leaves]
    for leaf in leaves:
        at = Name(failure.name if failure.name is not None else leaf.name)
        ledger.unused.append(Unused(leaf.source, leaf.name, leaf.spec, at, "its rule could not be applied"))
    how = "correct the rule or leave it out" if failure.name is None else "correct the rule's ops"
    instead = [] if failure.taken else _instead(sides, failure.rule)
    if failure.earlier is not None and _is_better(sides, failure):
        instead, how = [remedy.PutBefore(failure.rule, failure.earlier)], ""
    else:
        how = failure.way or how
    ledger.findings.append(
        Finding(
            Kind.RULE,
            _loose_name(failure.destination_text) if failure.name is None else Name(failure.name),
            # A step's policy forgives its own rules, which is known by now, and no others.
            "ignore" if failure.forgiven else sides.users.verdict(Kind.RULE, failure.destination_text),
            found=leaves[0].spec if leaves else None,
            source=leaves[0] if leaves else None,
            rule=failure.rule,
            message=failure.message,
            remedies=(*instead, remedy.ignore_rule(how, failure.destination_text)),
        )
    )


def _is_better(sides: Sides, failure: RuleFailure) -> bool:
    """Whether more leaves of the destination are fed if the rule comes before the one that has its leaves."""
    fed = any(name in sides.slots for name in failure.gives)
    return fed and not any(name in sides.slots for name in failure.loses)


def _instead(sides: Sides, rule: Rule) -> list[remedy.Remedy]:
    """What was meant by a rule that took nothing; which names the rules of a ``From`` see is not known."""
    if any(rule in part.rules for part in sides.offers.parts):
        return []
    return meant(rule, list(sides.offers.before_rules()), sides.slots)


def _idle_scope(sides: Sides, ledger: Ledger) -> None:
    """A finding for each pattern of the scope that is no leaf's: a typo there would load nothing."""
    if sides.scope is None:
        return
    printed = printed_names(sides)
    for pattern in sides.scope.patterns:
        if not any(map(pattern.matches, printed)):
            ledger.findings.append(
                Finding(
                    Kind.RULE,
                    _loose_name(pattern.text),
                    sides.policy.verdict(Kind.RULE, pattern.text),
                    message=f"scope {pattern.text!r} matches no leaf of the destination or the source",
                    remedies=(remedy.Advice(_other_scope(pattern, printed)),),
                )
            )


def _other_scope(pattern: Pattern, printed: Sequence[str]) -> str:
    found = mend(pattern, printed)
    if found is None:
        tops = list(dict.fromkeys(split(name)[0] for name in printed if name))
        some = ", ".join(tops[:_TOPS]) + (" and others" if len(tops) > _TOPS else "")
        return f"names are matched whole, so a subtree is 'encoder/**'; they begin with {some or 'nothing'}"
    matched = f"{found.count:,} {'name' if found.count == 1 else 'names'}"
    return f"names are matched whole: scope={json.dumps(found.text, ensure_ascii=False)} matches {matched}"


def _idle_parts(sides: Sides, ledger: Ledger) -> None:
    """A finding for each source none of whose leaves came to a place in the destination.

    Of a source that was not written as a ``From``, errors say as much. Where it is forgiven that the one
    side's leaves are missing and the other's left over, nothing would: a load of nothing, and no problems.
    """
    parts = sides.offers.parts
    errors = any(finding.verdict == "error" for finding in ledger.findings)
    kinds = set() if errors else {finding.kind for finding in ledger.findings}
    forgiven = {Kind.MISSING, Kind.UNEXPECTED} <= kinds
    if not forgiven and not any(part.explicit for part in parts):
        return
    # What has a finding of its own (a shape, a collision, a failed rule) did come to its place.
    busy = {leaf.index for failure in sides.offers.failures for leaf in failure.leaves}
    busy |= {index for index, part in enumerate(parts) if part.by_position and not part.called}
    if any(row is SAME_NAME for row in ledger.rows):
        busy.add(0)
    if ledger.feeds_false:
        busy |= {index for index, part in enumerate(parts) if False in part.source.absent().values()}
    for name in (*ledger.accounted_for, *(check.name for check in ledger.checks)):
        busy.update(leaf.index for value, _ in sides.offers.values_at(name) for leaf in value.leaves())
    for index, part in enumerate(parts):
        if (part.explicit or forgiven) and index not in busy and not _all_outside(sides, index):
            way = "correct subtree, into or rules, or leave the From out"
            if not part.explicit:
                way = (
                    "write rules for its names (plan.suggest() may know them), or name the subtree: From(...)"
                )
            ledger.find(
                Kind.RULE, part.into, message=_idle(sides, index, part), remedies=[remedy.Advice(way)]
            )


def _all_outside(sides: Sides, index: int) -> bool:
    """Whether the scope leaves out everything that a source offers, so that it cannot feed anything."""
    if sides.scope is None:
        return False
    shaped = sides.offers.shaped
    names = [
        name
        for name in shaped
        if any(leaf.index == index for value, _ in sides.offers.values_at(name) for leaf in value.leaves())
    ]
    return bool(names) and not any(sides.in_scope(name, shaped[name]) for name in names)


def _idle(sides: Sides, index: int, part: OpenedPart) -> str:
    what, has = part.source.label, ""
    if part.subtree:
        top = sorted({name[0] for name in sides.offers.tables[index] if name})[:8]
        what = f"subtree {print_name(part.subtree)!r} of {what}"
        has = f"; the source has {', '.join(top)}"
    said = f"From({what})" if part.explicit else what
    return f"{said} feeds no leaf of the destination{has}"


def _kept_and_abstract(sides: Sides, ledger: Ledger, slow: Iterable[int]) -> None:
    """A finding for each leaf that is to be kept and has no value to keep."""
    # What is written later is no Entry here: its own error is all there is to say.
    already = {
        finding.name for finding in ledger.findings
        if isinstance(finding, Finding) and finding.verdict == "error"
    }  # fmt: skip
    for index in slow:
        row = ledger.rows[index]
        if not isinstance(row, Entry) or not row.keeps_something or not is_abstract(sides.tree.values[index]):
            continue
        if already.intersection((row.name, *row.aliases, *prefixes_of(row.name))):
            continue  # its own error comes first; mended, it will not be kept
        ledger.find(
            Kind.ABSTRACT,
            row.name,
            (row.spec, None),
            message=f"it is to be kept ({row.reason or 'in part'}), and the destination is abstract: "
            "there is nothing to keep",
            remedies=[
                remedy.Advice(
                    "load(..., init=fn), where fn() gives a concrete tree, or a concrete destination"
                )
            ],
        )


def _loose_name(text: str) -> Name:
    """The name for findings about a pattern: its text, cut at ``/`` where it can be."""
    try:
        return Name.parse(text)
    except RuleError:
        return Name((text,))
