"""What a plan would load, written down to be compared later: the file that ``Plan.lock`` makes.

Owns the facts that a lock holds, its form, and what differs between one and a plan. Refuses to own the
words for the differences (``_reports``). A lock lies in a repository, so it is text, one fact a line and
sorted: a change of the model is a small change of the file, and tools that merge lines can merge it. It
holds nothing of the machine: no path, no time, no address. What is read is not believed before it is checked.

The first line is ``{"treeload lock": 1}``; each other one is a fact, a JSON array of a leaf's printed name,
what is said of it (``FACTS``), and the values.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import xxhash

from treeload._errors import RuleError, SaveError, SourceError
from treeload._files.open import brief, look_at, opened, read_bytes
from treeload._files.strict_json import parse_json
from treeload._leaves.spec import print_spec
from treeload._naming.name import Name
from treeload._ops.op import says_itself
from treeload._plans.decisions import Decisions
from treeload._plans.entry import Entry
from treeload._sources.source import Source, SourceLeaf

Values: TypeAlias = tuple[str | int, ...]

Facts: TypeAlias = dict[str, dict[str, list[Values]]]
"""Printed name of a leaf → what is said of it → each time it is said, the values."""

FACTS: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "problem": (str,),
        "action": (str,),
        "spec": (str,),
        "source": (int, int, Name, str),
        "op": (int, str),
        "rule": (str,),
        "cast": (str,),
        "alias": (Name,),
        "by position": (str,),
        "digest": (int, Name, str),
        "unused": (int, Name, str),
    }
)
"""What may be said of a leaf, with the types of its values, in the order in which differences are told:

problem      the kind of a finding that is an error
action       load, zero, keep or tie
spec         dtype and shape in the destination
source       the number among the leaf's sources, the number of the plan's source, name and spec there
op           the number among the leaf's ops, the op
rule         the rule that chose the sources
cast         what is done where the cast to the destination's dtype overflows
alias        a further name of the leaf
by position  found by its place, not by a name
digest       the digest of a source leaf, where the source has one: its number, name and digest
unused       a source leaf that feeds nothing, at the name it would have: the source's number, name and spec
"""

_FIRST = '{"treeload lock": 1}'

_MOST_BYTES = 64 << 20  # a model of 100,000 leaves takes some 30 MB

_MOST_IN_A_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a plan is not what its lock holds.

    Attributes:
        name: the leaf.
        what: what is said of it: one of ``FACTS``, or ``"leaf"`` for all of it.
        locked: the values in the lock; none where it says nothing.
        now: the values of the plan; none where it says nothing.
    """

    name: Name
    what: str
    locked: tuple[Values, ...]
    now: tuple[Values, ...]


# What a plan says.


def facts_of(decisions: Decisions) -> Facts:
    """What is locked of a plan, in the destination's order."""
    facts: Facts = {}
    digests = [_digests(source) for source in decisions.sources]
    for entry in decisions.entries:
        facts[str(entry.name)] = dict(_facts_of_entry(entry, digests))
    for finding in decisions.errors_despite_init:  # init= is given to load, and is not the plan's
        _add(facts, str(finding.name), "problem", (str(finding.kind),))
    number = {source.label: index for index, source in enumerate(decisions.sources)}
    for leaf in decisions.unused:
        _add(facts, str(leaf.at), "unused", _source_leaf(leaf, number))
    for said in facts.values():
        for several in said.values():
            several.sort(key=_in_order)
    return facts


def sign_of(decisions: Decisions) -> str:
    """What two plans have in common that do the same: a digest of all that a lock holds of them."""
    text = json.dumps(facts_of(decisions), sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


def _in_order(values: Values) -> list[tuple[bool, str | int]]:
    return [(isinstance(value, str), value) for value in values]  # numbers among themselves, texts too


def _add(facts: Facts, name: str, what: str, values: Values) -> None:
    known = facts.setdefault(name, {}).setdefault(what, [])
    if values not in known:
        known.append(values)


def _source_leaf(leaf: SourceLeaf, number: Mapping[str, int]) -> Values:
    return number.get(leaf.source, 0), str(leaf.name), print_spec(leaf.spec)


def _facts_of_entry(entry: Entry, digests: list[Mapping[str, str]]) -> Iterator[tuple[str, list[Values]]]:
    yield "action", [(str(entry.action),)]
    yield "spec", [(print_spec(entry.spec),)]
    leaves = list(dict.fromkeys(entry.value.leaves())) if entry.value is not None else []
    said: dict[str, list[Values]] = {
        "source": [
            (at, leaf.index, str(leaf.name), print_spec(leaf.spec)) for at, leaf in enumerate(leaves)
        ],
        "op": [(at, _printed(op)) for at, op in enumerate(entry.ops)],
        "rule": [] if entry.rule is None else [(_printed(entry.rule),)],
        "cast": [(str(entry.on_overflow),)] if entry.cast else [],
        "alias": [(str(alias),) for alias in entry.aliases],
        "by position": [("yes",)] if entry.by_position else [],
        "digest": [
            (leaf.index, str(leaf.name), digests[leaf.index][str(leaf.name)])
            for leaf in leaves if str(leaf.name) in digests[leaf.index]
        ],
    }  # fmt: skip
    yield from ((what, values) for what, values in said.items() if values)


def _printed(step: Any) -> str:
    """An op or a rule as the code that makes it; by its class alone where it prints as its address."""
    return repr(step) if says_itself(step) else type(step).__qualname__


def _digests(source: Source) -> Mapping[str, str]:
    """Printed own name → digest, where the source knows any; aliases too."""
    return {str(name): known.whole for name, known in source.leaf_digests.items()}


# The file.


def write_lock(path: Path, decisions: Decisions) -> None:
    """Nothing; afterwards ``path`` is the lock of these decisions, whole, or is as it was.

    Raises:
        SaveError: what is there is no lock, or the file system refuses.
    """
    lines = [
        json.dumps([name, what, *values], ensure_ascii=False)
        for name, said in facts_of(decisions).items() for what, several in said.items() for values in several
    ]  # fmt: skip
    text = "\n".join((_FIRST, *sorted(lines), ""))
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        if os.path.lexists(path) and not _is_lock(path):
            raise SaveError(f"{str(path)!r} is no lock of treeload: it is never replaced")
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("x", encoding="utf-8", errors="strict", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, UnicodeEncodeError) as error:
        raise SaveError(f"the lock {str(path)!r} could not be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # it has its name by now, or was never made
            beside.unlink()


def _is_lock(path: Path) -> bool:
    try:
        with opened(look_at(path)) as descriptor:
            return read_bytes(descriptor, len(_FIRST) + 1, 0) == f"{_FIRST}\n".encode()
    except SourceError:
        return False


def read_lock(path: Path) -> Facts:
    """What the lock at ``path`` holds.

    Raises:
        ValueError: there is none, or it is not, to its last line, what ``write_lock`` writes.
    """
    if not os.path.lexists(path):
        raise ValueError("it does not exist; plan.lock(path) writes one")
    try:
        file = look_at(path)
        if file.size > _MOST_BYTES:
            raise ValueError(f"it has {file.size:,} bytes, and {_MOST_BYTES:,} are plenty for a lock")
        with opened(file) as descriptor:
            raw = read_bytes(descriptor, file.size, 0)
    except SourceError as error:
        raise ValueError(str(error)) from error
    first, *lines = raw.split(b"\n")
    if first != _FIRST.encode():
        raise ValueError(f"it does not begin with {_FIRST}, so it is no lock that this treeload reads")
    if not lines or lines.pop():
        raise ValueError("it does not end in the end of a line: it was cut short")
    facts: Facts = {}
    before = b""
    for number, line in enumerate(lines, 2):
        try:
            name, what, *values = _fact(line)
        except (ValueError, RuleError) as error:
            raise ValueError(f"line {number:,} is no fact: {error}") from error
        if line <= before:
            raise ValueError(f"line {number:,} is not in order: {brief(line.decode())} comes twice or late")
        before = line
        facts.setdefault(str(name), {}).setdefault(str(what), []).append(tuple(values))
    for said in facts.values():
        for several in said.values():
            several.sort(key=_in_order)
    return facts


def _fact(line: bytes) -> Values:
    if len(line) > _MOST_IN_A_LINE:
        raise ValueError(f"it has {len(line):,} bytes")
    text = line.decode()
    fact = parse_json(text)
    if not isinstance(fact, list) or len(fact) < 3 or not all(type(part) in (str, int) for part in fact):
        raise ValueError(f"{brief(text)} is no array of a name, what is said of it, and texts or numbers")
    name, what, *values = fact
    if what not in FACTS:
        raise ValueError(f"{brief(str(what))} is nothing that is said of a leaf")
    types = FACTS[what]
    if [type(value) for value in values] != [int if each is int else str for each in types]:
        raise ValueError(f"{brief(text)} has not the values that are said of {what!r}")
    for each in (name, *(value for value, kind in zip(values, types, strict=True) if kind is Name)):
        if not isinstance(each, str) or str(Name.parse(each)) != each:
            raise ValueError(f"{brief(str(each))} is no name as treeload prints it")
    return tuple(fact)


# What differs.


def differences(locked: Facts, now: Facts) -> tuple[Difference, ...]:
    """Each fact of a leaf that is not the same, in the order of ``now``; what is gone comes last."""
    found: list[Difference] = []
    for name in dict.fromkeys((*now, *locked)):
        before, after = locked.get(name, {}), now.get(name, {})
        if not before or not after:
            found.append(Difference(Name.parse(name), "leaf", _first(before), _first(after)))
            continue
        for what in FACTS:
            then, today = before.get(what, []), after.get(what, [])
            if then != today:
                found.append(Difference(Name.parse(name), what, tuple(then), tuple(today)))
    return tuple(found)


def _first(said: Mapping[str, list[Values]]) -> tuple[Values, ...]:
    """Of a leaf that only one side has, what tells best which it is."""
    return tuple(value for what in ("action", "spec", "problem", "unused") for value in said.get(what, ()))
