"""What a plan and its lock differ in, as the text of a ``LockError``.

Owns the words and their grouping: leaves that differ in the same way are one line. Refuses to own what a lock
holds (``_plans.lock``).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from rich.text import Text

from treeload._naming.name import Name
from treeload._plans.lock import FACTS, Difference, Values
from treeload._reports.groups import Group, group, print_names, siblings
from treeload._reports.page import MARGIN, counted, labelled, line, printable

_WHAT = max(map(len, FACTS)) + 2

_INDENT = MARGIN + " " * _WHAT

_LABEL = len("locked") + 2

_MOST = 40  # groups that are shown

_NAME_AT = {what: types.index(Name) for what, types in FACTS.items() if Name in types}
"""What is said with a name in it, and where among its values: names alone do not keep leaves apart."""


def lock_text(path: str, found: Sequence[Difference]) -> str:
    """All differences, grouped, and how to lock what would load now."""
    many = counted(len(found), "difference", "differences")
    lines = [*labelled("", f"the plan is not what {path!r} holds: {many}", "", width=0), Text()]
    groups = _grouped(found)
    for each in groups[:_MOST]:
        lines += _group(each, [found[member] for member in each.members])
    if len(groups) > _MOST:
        rest = sum(len(each.members) for each in groups[_MOST:])
        lines.append(line(MARGIN, f"… and {rest:,} more; .differences has them all"))
    lines += [Text(), *labelled("", f"If this is meant: plan.lock({path!r})", "", width=0)]
    return "\n".join(each.plain.rstrip() for each in lines)


def _grouped(found: Sequence[Difference]) -> list[Group]:
    def facts(difference: Difference) -> Hashable:
        sides = difference.locked, difference.now
        return difference.what, tuple(_without_names(difference.what, values) for values in sides)

    alike = group([(each.name, facts(each)) for each in found])
    merged = siblings([(each, facts(found[each.members[0]])) for each in alike])
    order = {what: at for at, what in enumerate(("leaf", *FACTS))}
    return sorted(merged, key=lambda each: order[found[each.members[0]].what])


def _without_names(what: str, several: Sequence[Values]) -> Hashable:
    if what == "digest":  # they differ from leaf to leaf
        return bool(several)
    at = _NAME_AT.get(what)
    return tuple(tuple(value for number, value in enumerate(each) if number != at) for each in several)


def _group(found: Group, members: Sequence[Difference]) -> list[Text]:
    what = members[0].what
    lines = [line(MARGIN, f"{what:<{_WHAT}}", printable(found.title) or "the root")]
    for label, sides in (("locked", [m.locked for m in members]), ("now", [m.now for m in members])):
        lines += labelled(label, _said(what, sides), _INDENT + MARGIN, width=_LABEL)
    return lines


def _said(what: str, sides: Sequence[Sequence[Values]]) -> str:
    """The values of one side of all members, which differ in names and digests alone."""
    values = [value for side in sides for value in side]
    if not values:
        return "nothing"
    at = _NAME_AT.get(what)
    if at is None:
        return ", ".join(dict.fromkeys(_words(what, each) for each in values))
    names = [Name.parse(str(each[at])) for each in values]
    # A spec is shared by all of a group; of digests, which are not, the one of a lone leaf is shown.
    shared = what in ("source", "unused") or (what == "digest" and len(values) == 1)
    specs = dict.fromkeys(str(each[-1]) for each in values) if shared else {}
    return f"{print_names(names, most=3)}   {', '.join(specs)}".rstrip()


def _words(what: str, values: Values) -> str:
    shown = values[1:] if what == "op" else values
    return " ".join(map(str, shown))
