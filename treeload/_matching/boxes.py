"""Boxes that a stored checkpoint has in its names: ``kernel/value`` where the model has ``kernel``.

Owns which segments of a source's names were made by a box (``nnx.Variable`` saved as a dict, Flax's
``AxisMetadata``), and so are no part of a name. They are left out before any rule sees the names. A
destination's own boxes are opened by type (``_trees``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import replace
from itertools import combinations

from treeload._matching.parts import OpenedPart
from treeload._naming.name import Keys, nodes_above, prefixes_of, print_name
from treeload._naming.pattern import Pattern
from treeload._rules.rule import Rule
from treeload._sources.source import as_source_error

_BOXES = frozenset({"value", "raw_value"})  # what Flax calls the one child of a box, now and in its 0.8


def open_boxes(part: OpenedPart, wanted: Iterable[Keys] = (), rules: Sequence[Rule] = ()) -> OpenedPart:
    """The part with its leaves called without the segments of their boxes.

    Args:
        part: the part; its own rules will see the names that come out.
        wanted: names on the destination's side, or of whatever else the part is to be compared with.
        rules: the rules that see the names after the part's own. A rule that names a leaf with the segment,
            and would not match it without, says that it is no box.
    """
    if part.by_position:
        return part
    if part.steps:
        return _open_whole(part, wanted)
    source, depth = part.source, len(part.subtree)
    with as_source_error(f"{source.label} does not say what it holds"):
        own = [
            tuple(name) for names in (source.shaped(), source.absent(), source.statics()) for name in names
        ]
    inside = [name[depth:] for name in own if name[:depth] == part.subtree] if depth else own
    if not _boxes_in(inside):
        return part
    into = len(part.into)
    asked = {name[into:] for name in wanted if name[:into] == part.into}
    opened = without_boxes(inside, asked, nodes_above(asked))
    patterns = [pattern for rule in (part.rules or rules) for pattern in rule.patterns]
    head = () if part.rules else part.into
    opened = {
        name: without
        for name, without in opened.items() if not _is_named(patterns, (*head, *name), (*head, *without))
    }  # fmt: skip
    if not opened:
        return part
    return replace(part, called={(*part.subtree, *name): without for name, without in opened.items()})


def _open_whole(part: OpenedPart, wanted: Iterable[Keys]) -> OpenedPart:
    """As ``open_boxes`` for a part with steps to take, which are over the names of its whole source."""
    whole = replace(part, subtree=(), into=(), rules=(), dated=None)
    asked = [(*part.subtree, *name[len(part.into) :]) for name in wanted]
    rules = [rule for step in part.steps if step.nodes is None for rule in step.rules]
    return replace(part, called=open_boxes(whole, asked, rules).called)


def box_key(name: Keys) -> str:
    """The key that the innermost box in a name gave to what it holds; empty where there is none."""
    return next((key for key in reversed(name) if key in _BOXES), "")


def without_boxes(
    names: Collection[Keys],
    wanted: Set[Keys] = frozenset(),
    nodes: Set[Keys] = frozenset(),
) -> dict[Keys, Keys]:
    """Name → the name without the segments of its boxes, for the names that have such segments.

    A box is a node with one child, called ``value`` or ``raw_value``. It is opened where the name without it
    is wanted; and in each subtree all leaves of which lie in boxes, at least two of them, or all of the
    source. A name that is itself wanted is left as it is: a parameter may really be called ``value``. So is
    one that would fall together with another.

    Args:
        names: the names of all leaves of a source.
        wanted: names that the destination has.
        nodes: names of the destination's nodes above a leaf; no box of one leaf takes their place.
    """
    boxed = _boxes_in(names)
    if not boxed:
        return {}
    opened = {
        name: asked
        for name, places in boxed.items() if name not in wanted
        for asked in [_first_wanted(name, places, wanted)] if asked is not None
    }  # fmt: skip
    total = Counter(node for name in names for node in prefixes_of(name))
    inside = Counter(node for name in boxed for node in prefixes_of(name))
    around = {node for name in opened for node in prefixes_of(name)}
    for name, places in boxed.items():
        if name in opened or name in wanted:
            continue
        without = _without(name, places[-1:])
        whole = any(
            total[node] == inside[node] and (not node or node in around or total[node] > 1)
            for node in prefixes_of(name)
        )
        if whole and without and without not in nodes:
            opened[name] = without
    return _distinct(opened, names)


def _boxes_in(names: Collection[Keys]) -> dict[Keys, list[int]]:
    """The names that have segments of boxes, each with where they are."""
    called = {
        name: [at for at, key in enumerate(name) if key in _BOXES]
        for name in names if not _BOXES.isdisjoint(name)
    }  # fmt: skip
    # Only the nodes that may be boxes are looked at: a module called value is common, a box is not.
    children: dict[Keys, set[str]] = {name[:at]: set() for name, places in called.items() for at in places}
    for depth in {len(node) for node in children}:
        for name in names:
            if len(name) > depth and (node := name[:depth]) in children:
                children[node].add(name[depth])
    boxed = {name: [at for at in places if len(children[name[:at]]) == 1] for name, places in called.items()}
    return {name: places for name, places in boxed.items() if places}


def _is_named(patterns: Sequence[Pattern], name: Keys, without: Keys) -> bool:
    printed, short = print_name(name), print_name(without)
    return any(pattern.matches(printed) and not pattern.matches(short) for pattern in patterns)


def _without(name: Keys, places: Collection[int]) -> Keys:
    return tuple(key for at, key in enumerate(name) if at not in places)


def _first_wanted(name: Keys, places: list[int], wanted: Collection[Keys]) -> Keys | None:
    """The name with some of its boxes open that is wanted, the fewest and the innermost first."""
    for count in range(1, len(places) + 1):
        for some in combinations(reversed(places), count):
            without = _without(name, some)
            if without in wanted:
                return without
    return None


def _distinct(opened: dict[Keys, Keys], names: Collection[Keys]) -> dict[Keys, Keys]:
    """Those that fall together neither with another nor with a name or a node that is there."""
    while True:  # a name that is left as it is may lie below another that was to be opened
        now = [opened.get(name, name) for name in names]
        taken, above = Counter(now), {node for name in now for node in prefixes_of(name)}
        kept = {
            name: without for name, without in opened.items() if taken[without] == 1 and without not in above
        }
        if len(kept) == len(opened):
            return kept
        opened = kept
