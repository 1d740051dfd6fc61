"""Which stored leaf of an optimizer's state belongs to which leaf of a new one.

Owns the decisions: moments by kind and parameter, numbers by their key and the company they keep. Refuses
to own how leaves are told apart (``_anatomy``) and everything after the names: shapes, dtypes, verdicts and
the load are treeload's own (``_restore`` hands them over). Where two could be meant it does not choose:
either both are given, which is a ``collision``, or none, which is a ``rule`` that could not be applied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from treeload._naming.name import Keys, print_name
from treeload._ops.convert import Apply
from treeload._ops.expression import Expression, Leaf, derive, ops_of
from treeload._rules.apply import apply_rules
from treeload._rules.rule import Made, Rule
from treeload.finetune._anatomy import Anatomy, Moment, nodes_of, of_destination, of_source


@dataclass
class Correspondence:
    """What was decided.

    Attributes:
        given: what every stored leaf becomes, as a rule says it.
        fresh: leaves of the new state for which nothing can have been stored: of a parameter that had no
            state, or of a kind that the chain did not have.
        dropped: names of stored leaves for which the new chain has no place.
        parameter: names of leaves, on either side → the parameter they belong to.
        numbers: names of the new state's leaves that belong to no parameter.
        kinds: the kinds of moments that the new state has.
        stored_kinds: those that the stored one has.
    """

    given: list[Made] = field(default_factory=list)
    fresh: set[Keys] = field(default_factory=set)
    dropped: set[Keys] = field(default_factory=set)
    parameter: dict[Keys, Keys] = field(default_factory=dict)
    numbers: tuple[Keys, ...] = ()
    kinds: Set[str] = frozenset()
    stored_kinds: Set[str] = frozenset()


@dataclass(frozen=True)
class _Stored:
    """A stored moment under its parameter's new name; ``value`` is None where a rule failed: ``fault``."""

    node: Keys
    taken: tuple[Keys, ...]
    value: Expression | None
    fault: str | None


def correspond(
    destination: Mapping[Keys, Any], parameters: Mapping[Keys, Any], source: Mapping[Keys, Leaf],
    rules: Sequence[Rule],
) -> Correspondence:  # fmt: skip
    """Decides for every leaf of both states.

    Args:
        destination: the new state's leaves, anything with a shape.
        parameters: the new parameters, likewise.
        source: the stored state's leaves.
        rules: how the parameters' old names and layouts become the new ones.
    """

    def renamed(node: Keys, names: Sequence[Keys]) -> set[Keys]:
        fed, _ = apply_rules([(name[len(node) :], source[name]) for name in names], rules)
        return {name for name, _ in fed}

    new = of_destination(destination, parameters)
    old = of_source(source, new.kinds, parameters, renamed)
    places: dict[Moment, list[Keys]] = {}
    for node, names in new.nodes.items():
        for name in names:
            places.setdefault((node[-1], name[len(node) :]), []).append(name)
    stored = _stored_moments(old, source, rules, places)
    made = Correspondence(numbers=new.numbers, kinds=new.kinds, stored_kinds=old.kinds)
    made.parameter.update((name, parameter) for (_, parameter), names in places.items() for name in names)
    _pair_moments(made, places, stored, destination, parameters)
    _pair_numbers(made, _company(new, places), _company(old, _nodes(stored)), source)
    _leave_the_rest(made, destination, places, stored, parameters, source)
    return made


def _stored_moments(
    old: Anatomy, source: Mapping[Keys, Leaf], rules: Sequence[Rule], places: Collection[Moment]
) -> dict[Moment, list[_Stored]]:
    stored: dict[Moment, list[_Stored]] = {}
    for node, names in old.nodes.items():
        # A rule that is of no use here is for leaves that have no optimizer state, or for another node.
        fed, faults = apply_rules([(name[len(node) :], source[name]) for name in names], rules)
        why = {fault.name: fault.message for fault in faults}
        for name, one in fed:
            if one.spare and (node[-1], name) not in places:
                continue  # a moment that was copied, as its parameter was, needs no place of its own
            taken = tuple((*node, *tail) for tail in one.taken)
            stored.setdefault((node[-1], name), []).append(_Stored(node, taken, one.value, why.get(name)))
    return stored


# Moments.


def _pair_moments(
    made: Correspondence, places: Mapping[Moment, list[Keys]], stored: Mapping[Moment, list[_Stored]],
    destination: Mapping[Keys, Any], parameters: Mapping[Keys, Any],
) -> None:  # fmt: skip
    kinds, with_state = {kind for kind, _ in stored}, {parameter for _, parameter in stored}
    for moment, names in places.items():
        kind, parameter = moment
        candidates = stored.get(moment, [])
        if not candidates:
            if kind not in kinds or parameter not in with_state:
                made.fresh.update(names)
            continue
        by_name = {(*one.node, *parameter): one for one in candidates}
        for name in names:
            if len(names) == 1:
                pairs = candidates
            elif _same_names(names, by_name):
                pairs = [
                    one for stored_name, one in by_name.items() if _in_state(stored_name) == _in_state(name)
                ]
            else:
                taken = tuple(each for one in candidates for each in one.taken)
                made.given.append(Made(name, None, taken, _ambiguous(kind, parameter, names, by_name)))
                made.fresh.add(name)  # where the policy ignores the failed rule
                continue
            for one in pairs:
                fault = one.fault or _unfit(one.value, kind, destination[name], parameters[parameter])
                made.given.append(Made(name, None if fault else one.value, one.taken, fault))
                if fault:
                    made.fresh.add(name)


def _unfit(value: Expression | None, kind: str, wanted: Any, parameter: Any) -> str | None:
    """Why what the rules do to the parameter must not be done to its moment."""
    ops = () if value is None else ops_of(value)
    for op in ops:
        if not op.moves_only:
            return f"{op!r} changes the parameter's values; what it makes of {kind} is not known"
    if ops and wanted.shape != parameter.shape and not all(op.elementwise for op in ops):
        return f"{ops[0]!r} is for the parameter, and its {kind} has another shape"
    return None


def _ambiguous(kind: str, parameter: Keys, names: Sequence[Keys], candidates: Mapping[Keys, Any]) -> str:
    return (
        f"the new state has {kind} of {print_name(parameter)} {len(names)} times, the stored one at "
        f"{' and '.join(map(print_name, candidates))}: which is which cannot be told"
    )


# Numbers.


@dataclass(frozen=True)
class _Company:
    """The numbers of one state, and what each stands beside.

    Attributes:
        moments: each number's name → the moments in the same node.
        siblings: each number's name → the keys of its node.
    """

    moments: Mapping[Keys, set[Moment]]
    siblings: Mapping[Keys, set[str]]


def _nodes(stored: Mapping[Moment, list[_Stored]]) -> dict[Moment, list[Keys]]:
    return {moment: [(*one.node, *moment[1]) for one in several] for moment, several in stored.items()}


def _company(anatomy: Anatomy, places: Mapping[Moment, list[Keys]]) -> _Company:
    moments: dict[Keys, set[Moment]] = {}
    for moment, names in places.items():
        for name in names:
            moments.setdefault(name[: len(name) - len(moment[1]) - 1], set()).add(moment)
    keys: dict[Keys, set[str]] = {}
    for name in (*anatomy.numbers, *anatomy.nodes):
        for depth in range(len(name)):
            keys.setdefault(name[:depth], set()).add(name[depth])
    return _Company(
        {name: moments.get(name[:-1], set()) for name in anatomy.numbers},
        {name: keys[name[:-1]] for name in anatomy.numbers},
    )


def _pair_numbers(made: Correspondence, new: _Company, old: _Company, source: Mapping[Keys, Leaf]) -> None:
    candidates = {name: [one for one in old.moments if _alike(name, one, new, old)] for name in new.moments}
    for name, several in candidates.items():
        rivals = [each for each, theirs in candidates.items() if theirs == several]
        if len(several) > 1 and _same_names(rivals, several):
            several = [one for one in several if _in_state(one) == _in_state(name)]
        if not several and not name[-1].isdecimal():
            made.fresh.add(name)
        for one in several:
            # What two groups now count apart must not be one array: a jitted step may be given it to free.
            twice = any(given.taken == (one,) for given in made.given)
            value = derive(Apply(jnp.copy), source[one]) if twice else source[one]
            made.given.append(Made(name, value, (one,)))


def _alike(name: Keys, stored: Keys, new: _Company, old: _Company) -> bool:
    """Whether two numbers count the same: adam's ``count`` is the one beside adam's moments, and so on."""
    if name[-1] != stored[-1]:
        return False
    if name[-1].isdecimal():  # one of several arrays that have no key: what it is only its place says
        return _in_state(name) == _in_state(stored)
    if is_hyperparameter(name) or is_hyperparameter(stored):
        return is_hyperparameter(name) and is_hyperparameter(stored)
    ours, theirs = new.moments[name], old.moments[stored]
    if ours or theirs:
        return not ours.isdisjoint(theirs)
    return new.siblings[name] == old.siblings[stored]


def is_hyperparameter(name: Keys) -> bool:
    """Whether this is a number that ``optax.inject_hyperparams`` keeps."""
    return name[-2:-1] == ("hyperparams",)


def _same_names(names: Sequence[Keys], others: Any) -> bool:
    """Whether both states have these leaves at the same places, so that each stays where it is."""
    return set(map(_in_state, names)) == set(map(_in_state, others))


def _in_state(name: Keys) -> Keys:
    return name[1:] if name[:1] == ("opt_state",) else name


# What is left over.


def _leave_the_rest(
    made: Correspondence, destination: Mapping[Keys, Any], places: Mapping[Moment, list[Keys]],
    stored: Mapping[Moment, list[_Stored]], parameters: Mapping[Keys, Any], source: Mapping[Keys, Leaf],
) -> None:  # fmt: skip
    """Gives what has no place in the new state a name that is none of its leaves'."""
    taken = {prefix for name in destination for prefix in nodes_of(name)}
    kinds = {kind for kind, _ in places}

    def leave(name: Keys, value: Expression, names: tuple[Keys, ...]) -> Keys:
        if name in taken or any(prefix in destination for prefix in nodes_of(name)):
            name = ("stored", *name)
        made.given.append(Made(name, value, names))
        return name

    for (kind, parameter), several in stored.items():
        if (kind, parameter) in places:
            continue
        for one in several:
            values = (
                [(one.taken, one.value)] if one.value is not None else [((n,), source[n]) for n in one.taken]
            )
            for names, value in values:
                name = leave((*one.node, *parameter), value, names)
                made.parameter[name] = parameter
                if kind not in kinds or parameter in parameters:
                    made.dropped.add(name)
    used = {name for given in made.given for name in given.taken}
    for name, leaf in source.items():
        if name not in used:
            at = leave(name, leaf, (name,))
            if not name[-1].isdecimal():
                made.dropped.add(at)
