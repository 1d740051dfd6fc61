"""Where the leaves of a checkpoint came from, as lines of its inventory.

Leaves that came from one source in the same way are one line, with the names that they had there.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from rich.text import Text

from treeload._naming.name import Name
from treeload._reports.groups import group, print_names, siblings
from treeload._reports.page import MARGIN, QUIET, line, printable, sentence
from treeload._sources.provenance import Link, Provenance

_MOST = 12  # groups that are shown


def came_from_lines(provenance: Provenance) -> list[Text]:
    """A line for each way in which leaves came, however many leaves came so."""
    names = [Name.parse(name) for name in provenance]
    links = list(provenance.values())
    alike = group([(name, _facts(known)) for name, known in zip(names, links, strict=True)])
    groups = siblings([(found, _facts(links[found.members[0]])) for found in alike])
    lines: list[Text] = []
    for found in groups[:_MOST]:
        said = _said([links[member] for member in found.members])
        lines += sentence(f"{found.title or 'the root'} {said}", MARGIN, hanging=MARGIN * 3)
    if len(groups) > _MOST:
        rest = sum(len(found.members) for found in groups[_MOST:])
        lines.append(line(MARGIN, (f"… and {rest:,} more; .provenance has them all", QUIET)))
    return lines


def came_from(known: Link) -> str:
    """Where one leaf came from."""
    return _said([known])


def _facts(known: Link) -> Hashable:
    """All but the names, which differ from leaf to leaf."""
    before = known.get("from")
    several = before if isinstance(before, list) else [before]
    return (
        tuple(_texts(known["source"])), len(_texts(known["name"])), tuple(known["ops"]), known["rule"],
        tuple(None if each is None else _facts(each) for each in several),
    )  # fmt: skip


def _texts(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _said(alike: Sequence[Link]) -> str:
    first = alike[0]
    names = [Name.parse(name) for known in alike for name in _texts(known["name"])]
    sources = list(dict.fromkeys(_texts(first["source"])))
    where = " and ".join(sources[:3]) + (f" and {len(sources) - 3:,} more" if len(sources) > 3 else "")
    said = f"← {print_names(names, most=3)} in {where}"
    if first["rule"] is not None:
        said += f" by {first['rule']}"
    elif first["ops"]:
        said += f" through {', '.join(first['ops'])}"
    befores = [each for known in alike for each in _links(known)]
    return printable(f"{said} {_said(befores)}" if befores else said)


def _links(known: Link) -> list[Link]:
    before = known.get("from")
    several = before if isinstance(before, list) else [before]
    return [each for each in several if each is not None]
