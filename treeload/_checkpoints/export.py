"""A tree back in the names and the layout of the source it came from.

Owns the way back: which source leaf each destination leaf belongs to, and the ops undone. Refuses to own
ops and their inverses (``_ops``), the way down an expression (``undo``), and the files themselves
(``_formats``).

A plan says of each destination leaf by which expression it was made of source leaves. Going back, what a
destination leaf holds is handed down that expression: an op that joins hands each of its inputs its part,
an op that takes a piece out hands its input the piece, which waits there until the others have come.
Everything that cannot be undone is said before a byte is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from treeload._checkpoints.undo import WHOLE, Back
from treeload._errors import RuleError, SaveError
from treeload._formats.orbax import write as _save
from treeload._formats.orbax.later import later
from treeload._formats.orbax.record import RECORD
from treeload._formats.safetensors import write as _safetensors_write
from treeload._leaves.spec import Spec, is_abstract, is_key, print_spec, spec_of, without_sharding
from treeload._leaves.values import equal, nonzero
from treeload._naming.name import Keys, Name, print_name
from treeload._ops.expression import Expression, Leaf, combine, evaluate
from treeload._ops.op import Array
from treeload._plan import Plan
from treeload._plans.check import EqualCheck
from treeload._plans.entry import Action
from treeload._rules.apply import apply_rules
from treeload._rules.rule import Rule
from treeload._rules.tie import Tie
from treeload._sources.provenance import Provenance
from treeload._sources.source import stamp_of
from treeload._trees.flax import flax_module, is_flax
from treeload._trees.tree import PyTree
from treeload._trees.walk import walk


@dataclass(frozen=True)
class Leaving:
    """One leaf of the file that will be written; its array is made when it is asked for."""

    name: Keys
    spec: Spec
    array: Callable[[], Array]


def export(path: Path, tree: PyTree, *, like: Plan | None, rules: Sequence[Rule]) -> None:
    """Writes ``tree`` back; see ``treeload.export``."""
    held = _held(tree)
    leaving = list(_by_plan(held, like) if like is not None else _by_rules(held, rules))
    _check_names(leaving)
    metadata: Mapping[str, Any] = (
        _metadata(like.sources[0].metadata) if like is not None and like.sources else {}
    )
    came_from = _came_from(leaving, like)
    if path.suffix == ".safetensors":
        _refuse_keys(leaving, tree, path, like)
        metadata = _safetensors_write.with_provenance(metadata, came_from)
        _safetensors_write.write(path, [(leaf.name, leaf.spec, leaf.array) for leaf in leaving], metadata)
    else:
        leaves = {Name(leaf.name): _later(leaf) for leaf in leaving}
        _save.write(path, leaves, beside=_besides(leaves, like, came_from), metadata=metadata)


def _refuse_keys(leaving: Sequence[Leaving], tree: PyTree, path: Path, like: Plan | None) -> None:
    """Refuses PRNG keys, all of them named, and says how to leave them out."""
    keys = [leaf for leaf in leaving if is_key(leaf.spec.dtype)]
    if not keys:
        return
    shown = ", ".join(f"{print_name(leaf.name)!r} ({print_spec(leaf.spec)})" for leaf in keys[:5])
    more = f" and {len(keys) - 5:,} more" if len(keys) > 5 else ""
    said = f"safetensors has no dtype for PRNG keys, such as {shown}{more}"
    if like is not None:
        way = "plan, and export, a tree without them"
    elif is_flax(tree, "nnx", "Module") and not _holds_keys(_without_rngs(tree)):
        way = f"leave them out, treeload.export({str(path)!r}, nnx.state(model, nnx.Not(nnx.RngState)))"
    else:
        way = "give a tree without them, or with jax.random.key_data(key) in their place"
    raise SaveError(f"{said}: {way}")


def _without_rngs(module: Any) -> PyTree:
    nnx = flax_module("nnx")
    return nnx.state(module, nnx.Not(nnx.RngState))


def _holds_keys(tree: PyTree) -> bool:
    return any(is_key(getattr(value, "dtype", None)) for _, value in walk(tree).leaves())


def _later(leaf: Leaving) -> Array:
    """The leaf as it is saved: made for its digest, and again to be written, and let go each time."""
    return leaf.array() if is_key(leaf.spec.dtype) else later(leaf.spec, leaf.array)


def _came_from(leaving: Sequence[Leaving], plan: Plan | None) -> Provenance:
    """What the sources keep of where their own leaves came from: it is true of the exported ones too."""
    names = {print_name(leaf.name) for leaf in leaving}
    sources = () if plan is None else plan.sources
    return {name: known for source in sources for name, known in source.provenance.items() if name in names}


def _besides(leaves: Mapping[Name, Array], plan: Plan | None, came_from: Provenance) -> _save.Beside:
    """What a checkpoint of ours records beside its arrays, as far as the source knew it.

    It is of the source's version, whose names and layout it has.
    """
    if plan is None or len(plan.sources) != 1:
        return _save.Beside(provenance=came_from)
    (source,), (dated,) = plan.sources, plan.dated
    aliases = {a: of for a, of in source.ties().items() if of in leaves and a not in leaves}
    absent = {n: v for n, v in source.absent().items() if n not in leaves and n not in aliases}
    version = stamp_of(source) if dated is None else dated.before
    return _save.Beside(aliases, absent, version, provenance=came_from)


def _held(tree: PyTree) -> dict[Keys, Array]:
    """The arrays of the tree by name and alias."""
    walked = walk(tree)
    held: dict[Keys, Array] = {}
    abstract = []
    for name, value in walked.leaves():
        if is_abstract(value):
            abstract.append(print_name(name))
        held.update(dict.fromkeys(walked.names_of(name), _host_view(value)))
    if abstract:
        raise SaveError(
            f"the tree is abstract: {', '.join(abstract[:5])} and the like have no values to write"
        )
    return held


def _host_view(value: Any) -> Array:
    """The array on the host where that takes no copy, so that its parts are views and no copies either."""
    if isinstance(value, jax.Array):
        single = value.is_fully_addressable and len(value.devices()) == 1 and not is_key(value.dtype)
        on_host = single and next(iter(value.devices())).platform == "cpu"
        return np.asarray(value) if on_host else value
    return np.asarray(value)


# By a plan.


def _by_plan(held: Mapping[Keys, Array], plan: Plan) -> Iterator[Leaving]:
    back = Back()
    problems: list[str] = []
    own: list[Leaving] = []
    expected = {entry.name for entry in plan.entries}
    lacking = [str(name) for name in expected if name not in held]
    extra = [print_name(name) for name in held if name not in plan]
    if lacking or extra:
        raise SaveError(
            "the tree is not the plan's destination: "
            + "; ".join(
                f"{what} {', '.join(names[:5])}"
                for what, names in (("it lacks", lacking), ("it also has", extra))
                if names
            )
        )
    for entry in plan.entries:
        array = held[entry.name]
        if array.shape != entry.spec.shape:
            problems.append(
                f"{entry.name} is {list(array.shape)} and was {list(entry.spec.shape)} in the plan"
            )
        elif entry.value is not None:
            problems += back.take(entry.name, entry.value, array)
        elif entry.action == Action.ZERO:
            if nonzero(array)[0]:
                problems.append(f"{entry.name} is absent in the source, which means zero, and it is not zero")
        else:
            own.append(Leaving(entry.name, without_sharding(spec_of(array)), lambda array=array: array))  # type: ignore[misc]
    for check in (*plan.checks, *plan.done):
        if isinstance(check, EqualCheck):  # the source's other leaves of what is one in the destination
            array = held[plan[check.name].name]
            for name, value in check.values[1:]:
                problems += back.take(Name(name), value, array)
        elif check.name not in plan:  # absent in the destination, which the load proved to mean zero
            zeros = np.broadcast_to(np.zeros((), check.value.spec.dtype), check.value.spec.shape)
            problems += back.take(Name(check.name), check.value, zeros)
    problems += back.finish()
    if problems:
        raise SaveError("this tree cannot be written in the source's layout:\n  " + "\n  ".join(problems))
    order = {
        (index, Name(name)): at
        for index, source in enumerate(plan.sources)
        for at, name in enumerate(source.specs())
    }
    for leaf, part in sorted(
        back.leaves(), key=lambda pair: order.get((pair[0].index, pair[0].name), len(order))
    ):
        yield Leaving(leaf.name, leaf.spec, lambda part=part: part(WHOLE))  # type: ignore[misc]
    yield from own


# By rules.


def _by_rules(held: Mapping[Keys, Array], rules: Sequence[Rule]) -> Iterator[Leaving]:
    ties = [rule for rule in rules if isinstance(rule, Tie)]
    others = [rule for rule in rules if not isinstance(rule, Tie)]
    inverses = [(rule, rule.inverse()) for rule in others]
    lost = [repr(rule) for rule, inverse in inverses if inverse is None]
    if lost:
        raise SaveError(
            "rules that cannot be turned round (a plan knows more: like=plan):\n  " + "\n  ".join(lost)
        )
    dropped = _still_tied(held, ties)
    values: list[tuple[Keys, Expression]] = [
        (name, Leaf(0, Name(name), without_sharding(spec_of(array))))
        for name, array in held.items()
        if name not in dropped
    ]
    fed, faults = apply_rules(values, [inverse for _, inverse in inverses if inverse is not None])
    if faults:
        raise SaveError(
            "this tree cannot be written by these rules:\n  " + "\n  ".join(f.message for f in faults)
        )
    again, _ = apply_rules([(name, one.value) for name, one in fed if one.value is not None], others)
    now = {name for name, _ in again}
    astray = [print_name(name) for name, _ in values if name not in now]
    if astray:
        raise SaveError(
            f"these rules do not lead back: loading by them would not give {', '.join(astray[:5])} again"
        )
    yield from _once([(name, one.value) for name, one in fed if one.value is not None], held)


def _once(values: Iterable[tuple[Keys, Expression]], held: Mapping[Keys, Array]) -> Iterator[Leaving]:
    """Each leaf of the file: what was copied comes back from each copy, and must be one value still."""
    groups: dict[Keys, list[Expression]] = {}
    for name, value in values:
        groups.setdefault(name, []).append(value)
    problems = []
    for first, *others in groups.values():
        for other in others:
            if not equal(_made(first, held)(), _made(other, held)()):
                one, two = (print_name(next(value.leaves()).name) for value in (first, other))
                problems.append(f"{one} and {two} come from one source leaf and differ now")
    if problems:
        raise SaveError("this tree cannot be written by these rules:\n  " + "\n  ".join(problems))
    for name, (first, *_) in groups.items():
        yield Leaving(name, first.spec, _made(first, held))


def _made(value: Expression, held: Mapping[Keys, Array]) -> Callable[[], Array]:
    return lambda: evaluate(value, {leaf: held[leaf.name] for leaf in value.leaves()})


def _still_tied(held: Mapping[Keys, Array], ties: Sequence[Tie]) -> set[Keys]:
    """Leaves that a ``Tie`` gives again, so that they are left out; checked to be tied still."""
    dropped: set[Keys] = set()
    problems = []
    for name in held:
        for tie in ties:
            targets = tie.targets(name)
            if not targets:
                continue
            lacking = [print_name(target) for target in targets if target not in held]
            if lacking:
                problems.append(f"{print_name(name)} is tied to {lacking[0]}, which the tree has not")
                break
            leaves = [Leaf(0, Name(target), without_sharding(spec_of(held[target]))) for target in targets]
            try:
                value = combine(tie.ops, leaves)
            except RuleError as error:
                problems.append(f"{print_name(name)}: {error}")
                break
            if not equal(held[name], _made(value, held)()):
                of = " and ".join(map(print_name, targets))
                problems.append(f"{print_name(name)} is no longer tied to {of}: their values differ")
            dropped.add(name)
            break
    if problems:
        raise SaveError("this tree cannot be written by these rules:\n  " + "\n  ".join(problems))
    return dropped


def _check_names(leaving: Sequence[Leaving]) -> None:
    seen: set[Keys] = set()
    twice = [print_name(leaf.name) for leaf in leaving if leaf.name in seen or seen.add(leaf.name)]  # type: ignore[func-returns-value]
    if twice:
        raise SaveError(f"two leaves would have one name in the file: {', '.join(twice[:5])}")
    if not leaving:
        raise SaveError("there is nothing to write: no leaf of the tree belongs to the source")


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The source's own metadata, without the record that treeload keeps beside it."""
    return {key: value for key, value in metadata.items() if key != RECORD}
