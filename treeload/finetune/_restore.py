"""An optimizer's state from a checkpoint, by parameter name: through edits of the chain and renames.

Owns ``plan_optimizer`` and ``restore_optimizer``: what is asked for, where in a checkpoint the state is,
and whose verdict counts. The match, the report and the load are those of every other plan: what
``_correspond`` decided goes in as one rule, and the user's policy is asked by a parameter's name too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import optax
from flax import nnx

from treeload._api.load import checked_policy, plan_under
from treeload._errors import RuleError
from treeload._findings.finding import Finding
from treeload._findings.kinds import KINDS, Kind
from treeload._findings.policy import Policy, default_verdict
from treeload._findings.remedy import Advice
from treeload._inference.parts import is_of_optimizer
from treeload._leaves.placement import asked_sharding
from treeload._leaves.spec import without_sharding
from treeload._matching.boxes import open_boxes
from treeload._matching.parts import OpenedPart, opened_source
from treeload._naming.name import Keys, Name, NameLike, as_name, print_name
from treeload._naming.pattern import Pattern, compile_pattern
from treeload._ops.expression import Leaf
from treeload._plan import Plan
from treeload._rules.rule import Made, Matched, Rule, as_rules
from treeload._rules.tie import Tie
from treeload._sources.part import From
from treeload._sources.source import Source
from treeload._trees.marks import holds_nnx
from treeload._trees.rebuild import rebuild
from treeload._trees.tree import PyTree
from treeload._trees.walk import walk
from treeload.finetune._anatomy import of_destination
from treeload.finetune._correspond import Correspondence, correspond, is_hyperparameter
from treeload.finetune._optimizers import is_transformation

Choice: TypeAlias = Literal["restore", "reset"]


def restore_optimizer(
    tx: optax.GradientTransformation | nnx.Optimizer[Any],
    params: PyTree,
    source: Any,
    *,
    rules: Rule | Iterable[Rule] = (),
    policy: Policy = Policy(),  # noqa: B008  # a Policy never changes
    count: Choice = "restore",
    hyperparams: Choice = "reset",
    subtree: NameLike | None = None,
    **how: Any,
) -> PyTree:
    """The optimizer's state for ``params``, with everything in it that ``source`` has of it.

    The same as ``plan_optimizer(...).load(**how)``.

    Returns:
        The state that ``tx.init(params)`` would make; for an ``nnx.Optimizer``, a new one.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> from treeload import finetune
        >>> params = {"w": jnp.ones(2)}
        >>> _, old = optax.adam(0.1).update(params, optax.adam(0.1).init(params))
        >>> tx = optax.chain(optax.clip(1.0), optax.adamw(0.1))
        >>> new = finetune.restore_optimizer(tx, params, {"params": params, "opt_state": old})
        >>> int(new[1][0].count), bool((new[1][0].mu["w"] == old[0].mu["w"]).all())
        (1, True)

    Raises:
        LoadError: anything is wrong, all of it said at once.
        SourceError, RuleError, NameCollision, TypeError: as ``plan_optimizer``.
    """
    planned = plan_optimizer(
        tx, params, source, rules=rules, policy=policy, count=count, hyperparams=hyperparams, subtree=subtree
    )
    return planned.load(**how)


def plan_optimizer(
    tx: optax.GradientTransformation | nnx.Optimizer[Any],
    params: PyTree,
    source: Any,
    *,
    rules: Rule | Iterable[Rule] = (),
    policy: Policy = Policy(),  # noqa: B008
    count: Choice = "restore",
    hyperparams: Choice = "reset",
    subtree: NameLike | None = None,
) -> Plan:
    """What ``restore_optimizer`` would do, leaf by leaf: a ``Plan`` whose destination is the new state.

    A moment follows its parameter's name and its own kind (``mu``, ``nu``, ``trace``, ``ema`` ...),
    wherever in the chain it was and is. What the chain did not have before, and parameters that had no
    state, start fresh; what the chain has no longer is left behind; both are in the findings, forgiven.
    Moments of a parameter that is gone are ``unexpected``: a rename may have been forgotten. Where two
    stored moments of one kind could be a parameter's, that is a ``collision``; where one could be two, a
    ``rule`` finding.

    Args:
        tx: the optimizer; or an ``nnx.Optimizer``, whose ``opt_state`` and ``step`` are then the destination.
        params: the parameters it is for, as ``tx.init`` takes them; concrete, since what starts fresh may
            start from them. For an ``nnx.Optimizer``, the model.
        source: a checkpoint, or a tree: of an optimizer's state, or with one ``opt_state`` somewhere in it.
        rules: those by which the parameters themselves were loaded, over parameter names. Layouts change
            with them; a rule that computes (``Apply``, ``Resize``) is a ``rule`` finding.
        policy: what is forgiven. Patterns are over parameter names, or over the names in the new state.
        count: ``"restore"`` or ``"reset"`` the step counts, and whatever else belongs to no parameter.
        hyperparams: the same for the values that ``optax.inject_hyperparams`` keeps: ``"reset"`` is what
            your code says.
        subtree: where in the source the state is, if not at its only ``opt_state``.

    Raises:
        SourceError: the source is missing, malformed, or does not say what it holds.
        RuleError: an unknown choice; several ``opt_state`` in the source and no ``subtree``; no names.
        TypeError: ``params`` is an NNX module for a ``tx``; or the arguments are in another order.
        NameCollision: two leaves have one name.
    """
    _check(tx, params, source, count=count, hyperparams=hyperparams)
    params = nnx.state(params, tx.wrt) if isinstance(tx, nnx.Optimizer) else params
    destination, init = _new_state(tx, params)
    wanted, parameters = _leaves(destination), _leaves(params)
    if () in parameters:
        raise RuleError("a single array has no name for its moments to follow; make params a dict")
    opened, where = _located(source, subtree, with_step=("step",) in wanted)
    stored = _stored(opened, where, wanted)
    found = correspond(wanted, parameters, stored, _of_parameters(rules))
    reset = {name for name in found.numbers if (hyperparams if is_hyperparameter(name) else count) == "reset"}
    idle = _idle(opened.label, found, stored)
    made = plan_under(
        _Verdicts.of(checked_policy(policy), found),
        destination,
        From(opened, subtree=where) if wanted else [],
        "plan_optimizer",
        rules=[_ByParameter(found)] if wanted else [],
        scope=(lambda name, spec: name not in reset) if reset else None,
    )
    made = made.with_findings([_said_better(finding, idle) for finding in made.findings])
    return made if init is None else _with_init(made, init)


def _idle(label: str, found: Correspondence, stored: Iterable[Keys]) -> str:
    """Why a source gives nothing to the new state, where it gives nothing; empty where that is no wonder."""
    if not any(map(is_of_optimizer, stored)) and found.stored_kinds.isdisjoint(found.kinds):
        return f"{label} holds no optimizer state: the optimizer starts anew"
    if found.stored_kinds and found.kinds and found.stored_kinds.isdisjoint(found.kinds):
        kept, wanted = (_listed(sorted(kinds)) for kinds in (found.stored_kinds, found.kinds))
        return f"{label} keeps {kept}, and the new state wants {wanted}: nothing carries over"
    return ""


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _said_better(finding: Finding, idle: str) -> Finding:
    """The finding of a source that feeds nothing, said of an optimizer's state."""
    if not idle or finding.kind != Kind.RULE or finding.name or finding.rule is not None:
        return finding
    return replace(finding, message=idle, remedies=(Advice(_AS_NEW),))


_AS_NEW = "take the new state as it is, tx.init(params) or the nnx.Optimizer, and leave the call out"


def _check_order(tx: Any, params: Any, source: Any) -> None:
    """Raises TypeError where the optimizer is not the first of the three, and the only one."""
    if not (isinstance(tx, nnx.Optimizer) or is_transformation(tx)):
        raise TypeError(
            "the optimizer comes first, (tx, params, source) or (optimizer, model, source); "
            f"a {type(tx).__name__} was given there"
        )
    order = "(optimizer, model, source)" if isinstance(tx, nnx.Optimizer) else "(tx, params, source)"
    if isinstance(params, (optax.GradientTransformation, nnx.Optimizer)):
        raise TypeError(f"the order is {order}: an optimizer was given second")
    if isinstance(source, optax.GradientTransformation):
        raise TypeError(
            f"the order is {order}: an optimizer was given third, and the source is a checkpoint or a tree"
        )


def _check(tx: Any, params: Any, source: Any, **choices: str) -> None:
    _check_order(tx, params, source)
    _check_choices(**choices)


def _check_choices(**choices: str) -> None:
    for option, choice in choices.items():
        if choice not in ("restore", "reset"):
            raise RuleError(f"{option} is 'restore' or 'reset', not {choice!r}")


# The new state.


def _new_state(
    tx: optax.GradientTransformation | nnx.Optimizer[Any], params: PyTree
) -> tuple[PyTree, Callable[[], PyTree] | None]:
    """The destination, and what makes its fresh leaves where it is abstract."""
    if isinstance(tx, nnx.Optimizer):
        return tx, None
    if holds_nnx(params):
        raise TypeError("params are what tx.init takes: for an NNX model, nnx.state(model, nnx.Param)")
    return _placed(jax.eval_shape(tx.init, params), params), partial(tx.init, params)


def _leaves(tree: PyTree) -> dict[Keys, Any]:
    return walk(tree).by_name()


def _placed(state: PyTree, params: PyTree) -> PyTree:
    """An abstract state whose moments lie where their parameters do."""
    tree, parameters = walk(state), _leaves(params)
    values = list(tree.values)
    own: dict[Keys, Any] = {}
    for node, names in of_destination(tree.names, parameters).nodes.items():
        own.update((name, parameters[name[len(node) :]]) for name in names)
    for index, (name, spec) in enumerate(zip(tree.names, tree.values, strict=True)):
        parameter = own.get(name)
        if isinstance(parameter, (jax.Array, jax.ShapeDtypeStruct)) and parameter.shape == spec.shape:
            values[index] = jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=asked_sharding(parameter))
    return rebuild(tree, values)


def _with_init(made: Plan, fresh: Callable[[], PyTree]) -> Plan:
    """The plan with what makes its fresh leaves: so none of them is ``abstract``."""
    left = [finding for finding in made.findings if not KINDS[finding.kind].settled_by_init]
    return Plan.of(made.with_findings(left), init=fresh)


# The stored one.


def _located(src: Any, subtree: NameLike | None, *, with_step: bool) -> tuple[Source, Name]:
    """The source, and the name of the part of it that is an optimizer's state (with its ``step``)."""
    if isinstance(src, From):
        if src.rules or src.into or (subtree is not None and src.subtree):
            raise RuleError(
                "the From of an optimizer's state takes subtree, item, separator and format alone"
            )
        opened = opened_source(
            src.src, "plan_optimizer", item=src.item, separator=src.separator, stated_format=src.format
        )
        within = src.subtree or as_name(subtree or ())
    else:
        opened, within = opened_source(src, "plan_optimizer"), as_name(subtree or ())
    names = [tuple(name) for name in opened.shaped() if tuple(name[: len(within)]) == within]
    depth = len(within)
    found = dict.fromkeys(
        name[: name.index("opt_state", depth) + 1] for name in names if "opt_state" in name[depth:]
    )
    if len(found) > 1:
        several = ", ".join(map(print_name, found))
        raise RuleError(f"{opened.label} holds several optimizer states, {several}: say which, subtree=")
    for name in found:
        return opened, Name(name[:-1] if with_step else name)
    return opened, within


def _stored(source: Source, where: Name, wanted: Iterable[Keys]) -> dict[Keys, Leaf]:
    """The leaves of the stored state, under the names that rules will see of them."""
    part = open_boxes(OpenedPart(source, subtree=where), wanted)
    leaves = {
        within: Leaf(0, Name(name), without_sharding(spec))
        for name, spec in source.shaped().items() if (within := part.name_within(tuple(name))) is not None
    }  # fmt: skip
    if any(name[:1] == ("opt_state",) for name in leaves):
        leaves = {name: leaf for name, leaf in leaves.items() if name[0] == "opt_state" or name == ("step",)}
    return leaves


def _of_parameters(rules: Rule | Iterable[Rule]) -> Sequence[Rule]:
    """The rules without ``Tie``: a parameter that is fed by another's source has no moments of its own."""
    return [rule for rule in as_rules(rules, "rules=...") if not isinstance(rule, Tie)]


# As treeload's own match takes it.


@dataclass(frozen=True, eq=False)
class _ByParameter(Rule):
    """A rule that says what was decided."""

    found: Correspondence

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return (compile_pattern("**"),)

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        yield from self.found.given

    def __repr__(self) -> str:
        return "by parameter name"


@dataclass(frozen=True)
class _Verdicts:
    """The user's policy, asked by a leaf's own name and then by its parameter's; what is new is forgiven.

    ``fresh``, ``dropped`` and ``parameter`` (leaf → its parameter) are as in ``Correspondence``, printed.
    """

    user: Policy
    fresh: Set[str]
    dropped: Set[str]
    parameter: Mapping[str, str]

    @classmethod
    def of(cls, user: Policy, found: Correspondence) -> _Verdicts:
        return cls(
            user,
            fresh=set(map(print_name, found.fresh)),
            dropped=set(map(print_name, found.dropped)),
            parameter={print_name(n): print_name(p) for n, p in found.parameter.items()},
        )

    def verdict(self, kind: str, printed: str) -> str:
        if kind == Kind.MISSING and printed in self.fresh:
            return "keep"
        if kind == Kind.UNEXPECTED and printed in self.dropped:
            return "ignore"
        own = self.parameter.get(printed)
        verdict = self.user.verdict(kind, printed)
        if own is None or verdict != default_verdict(kind):
            return verdict
        if kind == Kind.UNEXPECTED and self.user.zero_if_absent(own):
            return "ignore"  # the parameter was all zero, so nothing is lost with its moments
        return self.user.verdict(kind, own)

    def zero_if_absent(self, printed: str) -> bool:
        return False  # absent moments start fresh

    @property
    def patterns(self) -> Iterator[tuple[str, Pattern]]:
        for setting, pattern in self.user.patterns:
            if not any(map(pattern.matches, self.parameter.values())):
                yield setting, pattern
