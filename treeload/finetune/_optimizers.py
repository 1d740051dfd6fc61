"""Optimizers that treat parameters by what a plan says of them, or by their names.

Owns ``split_optimizer``, ``freeze_loaded`` and ``layerwise``. Each looks a parameter up by its name when
optax is given the parameters, so it does not matter whether those are a dict, a FrozenDict or a
``nnx.State``, or which part of them an outer ``optax.masked`` has left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import optax
from flax import nnx

from treeload._errors import RuleError
from treeload._naming.name import Keys, Name, print_name
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern
from treeload._plan import Plan
from treeload._plans.entry import Action
from treeload._trees.marks import Names, as_optax_sees, holds_nnx, marked, places
from treeload._trees.tree import PyTree
from treeload._trees.walk import walk

Transformation: TypeAlias = optax.GradientTransformation
Order: TypeAlias = "Iterable[PatternLike] | Callable[[Name], int | None]"
T = TypeVar("T")


def split_optimizer(
    plan: Plan, *, loaded: Transformation, kept: Transformation, wrt: Any = None
) -> Transformation:
    """An optimizer that trains what the plan loads (or zeroes) by ``loaded``, and what it keeps by ``kept``.

    It is an ``optax.partition`` with the labels ``"loaded"`` and ``"kept"``. A parameter's state exists in
    its own half alone.

    Args:
        plan: of the model, of its parameters, or of Linen variables or a TrainState with ``params``.
        loaded: the optimizer of pretrained parameters.
        kept: the optimizer of new ones.
        wrt: for NNX models, the filter that ``nnx.Optimizer`` is given, if it is to be checked that the
            optimizer is used for no other variables.

    Examples:
        >>> import jax.numpy as jnp, optax, treeload
        >>> from treeload import finetune
        >>> params = {"trunk": jnp.zeros(2), "head": jnp.zeros(3)}
        >>> policy = treeload.Policy(missing={"head": "keep"})
        >>> plan = treeload.plan(params, {"trunk": jnp.ones(2)}, policy=policy)
        >>> tx = finetune.split_optimizer(plan, loaded=optax.sgd(0.01), kept=optax.sgd(1.0))
        >>> tx.update(params, tx.init(params))[0]["trunk"].shape
        (2,)

    Raises:
        LoadError: the plan has errors that ``init=`` does not settle: nothing would load by it.
        TypeError: ``wrt`` was given, and the destination holds no NNX variables; or an argument is not what
            its name says.
        RuleError: when optax is given a parameter that the plan does not know.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"split_optimizer(plan, loaded=..., kept=...) takes a Plan, not a {_kind(plan)}")
    check_transformation(loaded, "split_optimizer(plan, loaded=..., kept=...)", "loaded")
    check_transformation(kept, "split_optimizer(plan, loaded=..., kept=...)", "kept")
    refuse_failing(plan)
    labels = _by_name(plan.tree.root, plan.labels(wrt=wrt), wrt)
    return optax.partition({"loaded": loaded, "kept": kept}, lambda params: _looked_up(params, labels))


def freeze_loaded(plan: Plan, tx: Transformation, *, wrt: Any = None) -> Transformation:
    """``tx`` for what the plan keeps; what it loads (or zeroes) does not move and takes no optimizer memory.

    ``tx`` sees the gradients of the kept parameters alone: a ``clip_by_global_norm`` inside of it clips by
    their norm.

    Raises:
        LoadError, TypeError, RuleError: as ``split_optimizer``.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"freeze_loaded(plan, tx) takes the Plan first, not a {_kind(plan)}")
    check_transformation(tx, "freeze_loaded(plan, tx)", "tx")
    return split_optimizer(plan, loaded=optax.set_to_zero(), kept=tx, wrt=wrt)


def layerwise(
    plan_or_params: Plan | PyTree,
    tx: Transformation,
    *,
    decay: float = 0.8,
    order: Order,
    others: float | None = None,
    wrt: Any = nnx.Param,
) -> Transformation:
    """``tx`` with smaller steps towards the input: each depth moves by ``decay`` times the one after it.

    The updates that ``tx`` makes are multiplied, weight decay and all, by ``decay ** (last - depth)``; its
    state is that of ``tx``. The last depth moves at the full rate. Where a plan is given, what it keeps and
    no pattern names is new, and comes after the last depth of ``order``; anything else that no pattern
    names is an error, unless ``others`` is given.

    Args:
        plan_or_params: a plan of the model, the model, or its parameters.
        tx: the optimizer.
        decay: the factor from one depth to the one before it.
        order: patterns over the parameters' names, from the input to the output; one that holds a capture,
            ``"layers/{i}/**"``, is a depth for each number. Or a function from a ``Name`` to its depth,
            an integer that grows towards the output; None for a name that it leaves out.
        others: the factor for names that ``order`` leaves out.
        wrt: for NNX objects, the filter of the variables that are trained.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> from treeload import finetune
        >>> params = {"embed": jnp.ones(1), "layers": [jnp.ones(1), jnp.ones(1)], "head": jnp.ones(1)}
        >>> tx = finetune.layerwise(params, optax.sgd(1.0), decay=0.5, order=["embed", "layers/{i}", "head"])
        >>> updates, _ = tx.update(params, tx.init(params))
        >>> [float(u[0]) for u in (updates["embed"], *updates["layers"], updates["head"])]
        [-0.125, -0.25, -0.5, -1.0]

    Raises:
        RuleError: a name that no pattern or more than one matches, a pattern that matches none, or one with
            more than one capture. When optax is given the parameters: one that is not among these.
        LoadError: of a plan, as ``split_optimizer``.
        TypeError: the plan or the optimizer is none.
    """
    _check_layerwise(plan_or_params, tx, decay)
    root = plan_or_params.tree.root if isinstance(plan_or_params, Plan) else plan_or_params
    names = _parameters(as_optax_sees(root, wrt if holds_nnx(root) or isinstance(root, nnx.State) else None))
    new = _kept(plan_or_params) if isinstance(plan_or_params, Plan) else set()
    depths = _depths_by_function(names, order) if callable(order) else _depths_by_pattern(names, order)
    unnamed = [name for name in names if name not in depths]
    last = max(depths.values(), default=0)
    if new.intersection(unnamed):
        last += 1
        depths.update(dict.fromkeys(new.intersection(unnamed), last))
    factors = {name: decay ** (last - depth) for name, depth in depths.items()}
    lacking = [name for name in unnamed if name not in depths]
    if lacking and others is None:
        raise RuleError(
            f"layerwise: order says nothing of {_some(lacking)}; add a pattern, or others= with a factor"
        )
    if others is not None:
        factors.update(dict.fromkeys(lacking, others))
    return optax.chain(tx, optax.stateless(lambda updates, _: _scaled(updates, factors)))


def _check_layerwise(plan_or_params: Any, tx: Any, decay: float) -> None:
    if isinstance(plan_or_params, optax.GradientTransformation):
        raise TypeError(
            "layerwise(plan, tx) takes the plan, or the parameters, first, and then the optimizer"
        )
    check_transformation(tx, "layerwise(plan, tx)", "tx")
    if isinstance(plan_or_params, Plan):
        refuse_failing(plan_or_params)
    if not decay > 0:
        raise RuleError(f"layerwise: decay is a number above 0, not {decay!r}")


def is_transformation(given: Any) -> bool:
    """Whether this is an optimizer of optax's, or of its kind."""
    return callable(getattr(given, "init", None)) and callable(getattr(given, "update", None))


def check_transformation(given: Any, call: str, called: str) -> None:
    """Raises TypeError where ``called`` in ``call`` is no optimizer of optax's."""
    if isinstance(given, nnx.Optimizer):
        raise TypeError(f"{call}: {called} is an optax optimizer, and not the nnx.Optimizer that holds it")
    if not is_transformation(given):
        raise TypeError(
            f"{call}: {called} is an optax optimizer, such as optax.adam(1e-3); not a {_kind(given)}"
        )


def refuse_failing(plan: Plan) -> None:
    """Raises what ``plan.load`` would: what a plan with errors says of its leaves is not what will be."""
    if plan.errors_despite_init:
        plan.raise_for_errors()


def _kind(given: Any) -> str:
    return type(given).__name__


def _scaled(updates: PyTree, factors: Mapping[Keys, float]) -> PyTree:
    return jax.tree.map(
        lambda factor, update: jax.tree.map(lambda array: array * factor, update),
        _looked_up(updates, factors),
        updates,
    )


# Depths.


def _depths_by_function(names: Sequence[Keys], order: Callable[[Name], int | None]) -> dict[Keys, int]:
    depths = {}
    for name in names:
        depth = order(Name(name))
        if depth is not None:
            if isinstance(depth, bool) or not isinstance(depth, int):
                raise RuleError(
                    f"layerwise: order gives {depth!r} for {print_name(name)}; a depth is an integer"
                )
            depths[name] = depth
    return depths


def _depths_by_pattern(names: Sequence[Keys], order: Iterable[PatternLike]) -> dict[Keys, int]:
    if isinstance(order, (str, re.Pattern)):
        raise RuleError(
            f"layerwise: order is a list of patterns, from the input to the output, not {order!r}"
        )
    patterns = [_with_one_index(compile_pattern(pattern)) for pattern in order]
    at: dict[Keys, tuple[int, int]] = {}
    for number, pattern in enumerate(patterns):
        matches = {name: match for name in names if (match := pattern.match(print_name(name)))}
        if not matches:
            raise RuleError(f"layerwise: no parameter is called {pattern.text!r}")
        for name, match in matches.items():
            if name in at:
                other = patterns[at[name][0]].text
                raise RuleError(
                    f"layerwise: {print_name(name)} is both {other!r} and {pattern.text!r} in order"
                )
            at[name] = (number, _index(pattern, match))
    ranks = {place: depth for depth, place in enumerate(sorted(set(at.values())))}
    return {name: ranks[place] for name, place in at.items()}


def _with_one_index(pattern: Pattern) -> Pattern:
    indices = [name for name in pattern.captures if name not in pattern.many]
    if len(indices) > 1:
        raise RuleError(f"layerwise: {pattern.text!r} holds more than one capture; a depth is one number")
    return pattern


def _index(pattern: Pattern, match: re.Match[str]) -> int:
    for capture in pattern.captures:
        if capture not in pattern.many:
            if not match[capture].isdecimal():
                found = f"{{{capture}}} in {pattern.text!r} captures {match[capture]!r}"
                raise RuleError(f"layerwise: {found}; a depth is a number")
            return int(match[capture])
    return 0


# Parameters by name.


def _parameters(tree: PyTree) -> list[Keys]:
    """The names of a tree's parameters, as an optimizer is given them."""
    walked = walk(tree, traced=True)
    names = list(walked.by_name())
    if any(name[:1] == ("params",) for name in names):  # Linen's variables, or a TrainState
        return [name[1:] for name in names if name[:1] == ("params",)]
    return names


def _kept(plan: Plan) -> set[Keys]:
    kept = {
        tuple(name) for entry in plan.entries if entry.action == Action.KEEP for name in (entry.name,
        *entry.aliases)
    }  # fmt: skip
    return kept | {name[1:] for name in kept if name[:1] == ("params",)}


def _by_name(root: PyTree, marks: PyTree, wrt: Any) -> dict[Keys, Any]:
    """Marks in a tree's structure, by name."""
    names, _ = places(as_optax_sees(root, wrt))
    flat = jax.tree.leaves(marks)
    return {name: mark for place, mark in zip(names, flat, strict=True) for name in place}


def _looked_up(params: PyTree, table: Mapping[Keys, T]) -> PyTree:
    """What the table says of each parameter, in the structure of ``params``.

    The parameters have the table's names, or are what it has below ``params``.

    Raises:
        RuleError: a parameter that the table does not know.
    """
    needed = {name for place in places(params)[0] for name in place}
    found: Mapping[Keys, T] = table
    if not needed <= table.keys():
        found = {name[1:]: mark for name, mark in table.items() if name[:1] == ("params",)}
        if not needed <= found.keys():
            lacking = sorted(name for name in needed if name not in (found or table))
            raise RuleError(
                f"the optimizer is given {_some(lacking)}, of which the plan it was made from knows nothing"
            )

    def mark(names: Names) -> T:
        return found[names[0]]

    return marked(params, mark)


def _some(names: Sequence[Keys]) -> str:
    shown = ", ".join(map(print_name, names[:5]))
    return shown + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
