"""Where the leaves of a checkpoint came from, as data that is kept with it.

Owns the form: for each leaf, by its printed name, a link ``{"source", "name", "ops", "rule"}``, with a
further link under ``"from"`` where that source was itself made of another. Refuses to own which leaf came
from where (``_checkpoints``) and how it is stored (``_formats``). What was read from a file is checked here.

Of a leaf that was made of several, ``"name"`` is their list, ``"source"`` too where they lie in several, and
``"from"`` has a link or None for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from treeload._files.open import brief
from treeload._naming.bounds import parse_from_file

Link: TypeAlias = Mapping[str, Any]

Provenance: TypeAlias = Mapping[str, Link]
"""Printed name of a leaf → where it came from."""

_LONGEST = 8  # links behind one another: a training that is resumed a thousand times keeps no thousand

_KEYS = frozenset({"source", "name", "ops", "rule"})


def link(
    leaves: Sequence[tuple[str, str, Link | None]], ops: Sequence[str], rule: str | None
) -> dict[str, Any]:
    """Where a leaf came from: of each leaf it was made of the source, the printed name, and its own link.

    Of a chain that becomes too long the latest links are kept, and the first.
    """
    sources = [source for source, _, _ in leaves]
    names = [name for _, name, _ in leaves]
    before = [_shortened(known, _LONGEST - 1) for _, _, known in leaves]
    made: dict[str, Any] = {
        "source": sources[0] if len(set(sources)) == 1 else sources,
        "name": names[0] if len(names) == 1 else names,
        "ops": list(ops),
        "rule": rule,
    }
    if any(known is not None for known in before):
        made["from"] = before[0] if len(before) == 1 else before
    return made


def _shortened(known: Link | None, room: int) -> Link | None:
    """At most so many links: the last before the first are left out, and what is behind a fork at the end."""
    if known is None or "from" not in known:
        return known
    before = known["from"]
    if isinstance(before, list):
        if room == 1:
            return {key: known[key] for key in known if key != "from"}
        return {**known, "from": [_shortened(each, room - 1) for each in before]}
    return _shortened(before, 1) if room == 1 else {**known, "from": _shortened(before, room - 1)}


def read_provenance(said: Any) -> Provenance:
    """What a file says of where its leaves came from, checked to be of that form.

    Raises:
        ValueError: it is of another.
    """
    if not isinstance(said, dict):
        raise ValueError("the provenance is no mapping of names")
    for name, known in said.items():
        parse_from_file(name)
        _check(name, known, 0)
    return said


def _check(name: str, known: Any, depth: int) -> None:
    if depth >= _LONGEST:
        raise ValueError(f"the provenance of {brief(name)} is a chain without end")
    if not isinstance(known, dict) or not _KEYS <= known.keys() <= _KEYS | {"from"}:
        raise ValueError(f"the provenance of {brief(name)} is not what treeload writes")
    rule = known["rule"]
    if not all(_is_texts(known[key]) for key in ("source", "name")) or not (
        rule is None or type(rule) is str
    ):
        raise ValueError(f"the provenance of {brief(name)} is not what treeload writes")
    if not isinstance(known["ops"], list) or not _is_texts(known["ops"]):
        raise ValueError(f"the provenance of {brief(name)} is not what treeload writes")
    for each in [known["name"]] if isinstance(known["name"], str) else known["name"]:
        parse_from_file(each)
    before = known.get("from", [])
    for each in before if isinstance(before, list) else [before]:
        if each is not None:
            _check(name, each, depth + 1)


def _is_texts(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )
