"""A tree from a source: ``plan``, ``load``, ``update``. Each opens sources, walks the tree and matches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from inspect import signature
from typing import Any

import jax

from treeload._checkpoints.history import History
from treeload._errors import RuleError, TreeloadError
from treeload._files.meeting import together
from treeload._findings.policy import Policy, Verdicts
from treeload._leaves.selection import Scope
from treeload._loading.shardings import span_processes
from treeload._matching.match import match
from treeload._matching.parts import opened_parts
from treeload._plan import Plan
from treeload._rules.rule import Rule, as_rules
from treeload._sources import given
from treeload._sources.options import refuse_unknown
from treeload._sources.source import read_again
from treeload._trees.collector import no_collections
from treeload._trees.rebuild import updatable
from treeload._trees.tree import PyTree


def plan(
    dst: PyTree,
    src: Any,
    *,
    rules: Rule | Iterable[Rule] = (),
    policy: Policy = Policy(),  # noqa: B008  # a Policy never changes
    scope: Scope = None,
    history: History | None = None,
) -> Plan:
    """What loading ``src`` into ``dst`` would do, leaf by leaf, and everything that is wrong with it.

    Reads names, shapes and dtypes; never an array, and changes nothing.

    Args:
        dst: the destination: any pytree, NNX Module or Optimizer; concrete, or abstract
            (``jax.eval_shape``, ``nnx.eval_shape``). It decides structure, dtypes and placement.
        src: where values come from: a tree in memory, a path to a checkpoint, a ``Source``, a ``From``,
            or a list of ``From``s and ``Source``s.
        rules: how source names and layouts become the destination's; the first that matches a leaf
            takes it.
        policy: what is forgiven; by default nothing.
        scope: the part of the destination that is loaded: a pattern over names, several, or a predicate
            on (name, spec). All else is kept and not reported.
        history: how the code's parameters changed: the steps that a source has not seen are applied to it
            before its rules. A source that is newer, or does not say its version, is a ``version`` finding.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> plan = treeload.plan({"w": jnp.zeros(3), "b": jnp.zeros(2)}, {"w": jnp.ones(3)})
        >>> [str(finding) for finding in plan.errors]
        ['missing b: the source has nothing here']

    Raises:
        SourceError: the source is missing, malformed, or does not say what it holds.
        RuleError: a rule, pattern or scope that cannot mean anything; a ``From`` that states a version, and
            no history.
        NameCollision: two leaves of one tree have one name.
        TypeError: ``dst`` is no tree (a class, a function, a path), ``src`` is no source, or either holds
            arrays where they never load: inside of an object that JAX does not know, say.
    """
    return plan_under(checked_policy(policy), dst, src, "plan", rules=rules, scope=scope, history=history)


def load(
    dst: PyTree,
    src: Any,
    *,
    rules: Rule | Iterable[Rule] = (),
    policy: Policy = Policy(),  # noqa: B008
    scope: Scope = None,
    history: History | None = None,
    **how: Any,
) -> PyTree:
    """A new tree of ``dst``'s structure, types and placement with the values of ``src``.

    The same as ``plan(...).load(**how)``, and ``how`` is what ``Plan.load`` takes. ``dst`` is never changed.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> treeload.load({"w": jnp.zeros(2)}, {"w": jnp.ones(2)})
        {'w': Array([1., 1.], dtype=float32)}

    Raises:
        LoadError: anything is wrong, all of it said at once; nothing was changed.
        SourceError, RuleError, NameCollision, TypeError: as ``plan``; an option that there is not.
    """
    refuse_unknown(how, "load", (*_OPTIONS, *_options(Plan.load)), src=src)
    with no_collections():
        with planned_by_all(dst, "plan it"):
            made = plan_under(
                checked_policy(policy), dst, src, "load", rules=rules, scope=scope, history=history
            )
        return made.load(**how)


def update(
    obj: Any,
    src: Any,
    *,
    rules: Rule | Iterable[Rule] = (),
    policy: Policy = Policy(),  # noqa: B008
    scope: Scope = None,
    history: History | None = None,
    **how: Any,
) -> None:
    """Puts the values of ``src`` into an NNX Module or Optimizer itself: all of them, or none.

    Every check is made and every leaf read before the first Variable is set. ``how`` is as in ``load``.

    Raises:
        TypeError: ``obj`` cannot be updated in place; ``load`` gives a new tree of any kind.
        LoadError, SourceError, RuleError, NameCollision: as ``load``; ``obj`` is as before.
    """
    if not updatable(obj):
        given.destination(obj, src, "update")  # a class, say, is refused as such
        raise TypeError(
            f"update() writes into NNX Modules, Optimizers, Variables and jax.Refs; a {type(obj).__name__} "
            "cannot be updated in place: use tree = treeload.load(tree, ...)"
        )
    refuse_unknown(how, "update", (*_OPTIONS, *_options(Plan.update)), src=src)
    with no_collections():
        with planned_by_all(obj, "plan it"):
            made = plan_under(
                checked_policy(policy), obj, src, "update", rules=rules, scope=scope, history=history
            )
        made.update(**how)
        del made  # before the collector looks through what is left


_OPTIONS = ("rules", "policy", "scope", "history")


@cache
def _options(carry_out: Callable[..., Any]) -> tuple[str, ...]:
    """What ``how`` may be: the options of the plan's own method."""
    return tuple(signature(carry_out).parameters)[1:]


def planned_by_all(dst: PyTree, what: str) -> AbstractContextManager[None]:
    """Where ``dst`` is spread over processes: a plan that fails in one of them fails in all."""
    if jax.process_count() == 1 or not span_processes(jax.tree.leaves(dst)):
        return nullcontext()
    return together(what, TreeloadError)


def plan_under(
    verdicts: Verdicts, dst: PyTree, src: Any, verb: str, *, rules: Rule | Iterable[Rule], **how: Any
) -> Plan:
    """As ``plan``, asked for by ``verb``; something else than a user's policy may give the verdicts.

    ``how`` is ``scope`` and ``history``.
    """
    with no_collections():
        tree = given.destination(dst, src, verb)
        asked = as_rules(rules, "rules=...")
        decided = read_again(
            lambda: match(tree, opened_parts(src, verb), rules=asked, policy=verdicts, **how)
        )
        return Plan.of(decided)


def checked_policy(policy: Policy) -> Policy:
    """``policy``, if it is one.

    Raises:
        RuleError: it is something else, such as a dict.
    """
    if not isinstance(policy, Policy):
        raise RuleError(f"policy is a Policy(...), not {policy!r}")
    return policy
