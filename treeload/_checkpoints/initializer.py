"""A leaf of a checkpoint as an initialiser of a parameter.

Owns when the leaf is read: once, and not before a value is really asked for. Refuses to own what is wrong
with a leaf of another shape (``_matching`` says it as it does for any load).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from treeload._checkpoints.view import View
from treeload._errors import SourceError
from treeload._findings.policy import Policy
from treeload._leaves.placement import cast
from treeload._leaves.spec import without_sharding
from treeload._loading.overflow import Overflows
from treeload._matching.match import match
from treeload._matching.parts import OpenedPart
from treeload._naming.name import Name, print_name
from treeload._naming.near import NearNames
from treeload._ops.expression import chain
from treeload._ops.op import Op
from treeload._plan import Plan
from treeload._trees.tree import nested
from treeload._trees.walk import walk


def initializer(view: View, name: Name, ops: tuple[Op, ...]) -> Callable[..., jax.Array]:
    """The function; see ``treeload.initializer``."""
    view = view.beside([name])
    specs = view.specs()
    if name not in specs:
        near = ", ".join(map(print_name, NearNames(specs).near(name)))
        raise SourceError(
            f"{view.label} has no leaf {print_name(name)!r}" + (f"; near: {near}" if near else "")
        )
    one = view.only(name, chain(view.value(name), ops))
    spec = one.specs()[name]

    @functools.cache
    def check(shape: tuple[int, ...], dtype: Any) -> Plan:
        wanted = walk(nested({tuple(name): jax.ShapeDtypeStruct(shape, dtype)}))
        decided = match(wanted, [OpenedPart(one)], rules=(), policy=Policy(), scope=None)
        plan = Plan.of(decided)
        plan.raise_for_errors()
        return plan

    @functools.cache
    def read() -> np.ndarray[Any, Any]:
        ((_, array),) = one.read({name: without_sharding(spec)})
        return np.asarray(array)

    def values(plan: Plan, dtype: Any) -> np.ndarray[Any, Any]:
        overflows = Overflows(plan, plan.tree)
        if overflows.found(0, read()):
            plan.verified(overflows.findings).raise_for_errors()
        return np.asarray(cast(read(), dtype))

    # A callback must not ask JAX for anything (on an accelerator it would wait for itself), and what lies
    # in memory need not be read at all.
    may_wait = all(op.on_host for op in ops) and not view.looks_into_memory

    def init(key: Any, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:  # noqa: ARG001
        shape = tuple(map(int, shape))
        wanted = jax.dtypes.canonicalize_dtype(jnp.float32 if dtype is None else dtype)
        plan = check(shape, wanted)
        if may_wait and _is_tracing():
            array: jax.Array = jax.pure_callback(
                lambda: values(plan, wanted), jax.ShapeDtypeStruct(shape, wanted)
            )
        else:
            with jax.ensure_compile_time_eval():
                array = jnp.array(values(plan, wanted))  # a copy: JAX must not hold what is kept here
        return array if out_sharding is None else jax.lax.with_sharding_constraint(array, out_sharding)

    init.__name__ = init.__qualname__ = f"initializer({print_name(name)!r})"
    return init


def _is_tracing() -> bool:
    """Whether JAX is tracing, abstractly or for a compilation: then values are wanted later, or never."""
    return isinstance(jax.lax.full((), 0.0), jax.core.Tracer)
