"""Which leaf came from where: told of a plan, or of the sources of an average, when their tree is saved.

Refuses to own the form in which it is kept (``_sources.provenance``), and the writing (``_formats``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from treeload._checkpoints.view import View
from treeload._errors import SaveError
from treeload._matching.parts import opened_parts
from treeload._naming.name import Name, print_name
from treeload._ops.expression import Expression, ops_of
from treeload._plan import Plan
from treeload._sources.provenance import Link, Provenance, link, read_provenance
from treeload._sources.source import Source


def provenance_of(given: Any, names: Sequence[Name]) -> Provenance:
    """Where the leaves of these names came from, by what ``save(provenance=...)`` was given.

    Raises:
        SaveError: it tells of none of these leaves, or is a mapping of another form.
        TypeError: it is nothing that tells where leaves came from.
    """
    if given is None:
        return {}
    if isinstance(given, Plan):
        return _by_plan(given, names)
    if isinstance(given, (list, tuple)):
        return _by_sources([View.of(opened_parts(each, "save")) for each in given], names)
    if not isinstance(given, Mapping):
        raise TypeError(
            "save(provenance=...) takes the Plan by which the tree was loaded, the list of the sources that "
            f"it is an average of, or the provenance of a Source, not a {type(given).__name__}"
        )
    try:
        known = read_provenance(dict(given))
    except ValueError as error:
        raise SaveError(f"provenance= cannot be kept: {error}") from error
    return {str(name): known[str(name)] for name in names if str(name) in known}


def _by_plan(plan: Plan, names: Iterable[Name]) -> Provenance:
    """Where those of ``names`` came from that the plan loads; what it keeps or zeroes came from nowhere.

    Raises:
        SaveError: the plan is of another tree: it has none of these names.
    """
    known = {
        name: entry for entry in plan.entries for name in (entry.name, *entry.aliases)
        if entry.value is not None
    }  # fmt: skip
    found = {
        str(name): link(
            list(_origins(plan.sources, known[name].value)),
            [repr(op) for op in known[name].ops],
            None if known[name].rule is None else repr(known[name].rule),
        )
        for name in names if name in known
    }  # fmt: skip
    if known and not found:
        some = print_name(next(iter(known)))
        raise SaveError(f"provenance= is the plan of another tree: what is saved has no leaf {some!r}")
    return found


def _by_sources(views: Sequence[View], names: Sequence[Name]) -> Provenance:
    """Where leaves came from that are averages of the leaves of these names in all the views."""
    found: dict[str, Link] = {}
    views = [view.beside(names) for view in views]
    for name in names:
        values = [(view, view.value(name)) for view in views if name in view.specs()]
        if values:
            origins = [origin for view, value in values for origin in _origins(view.sources, value)]
            ops = dict.fromkeys(repr(op) for _, value in values for op in ops_of(value))
            found[str(name)] = link(origins, [*ops, "average"], None)
    if names and not found:
        raise SaveError("provenance= lists other sources: what is saved has none of their leaves")
    return found


def _origins(sources: Sequence[Source], value: Expression | None) -> Iterator[tuple[str, str, Link | None]]:
    """Source, printed name there, and what that source says of it, for each leaf of an expression."""
    for leaf in dict.fromkeys(value.leaves()) if value is not None else ():
        source, name = sources[leaf.index], str(leaf.name)
        yield source.label, name, _known(source, leaf.name)


def _known(source: Source, name: Name) -> Link | None:
    known: Mapping[str, Any] = source.provenance
    return known.get(str(name)) or known.get(str(source.ties().get(name, name)))
