"""What is made of leaves that are spread over devices: computed under jit, with the sharding of the result.

Op by op, JAX would give each step the sharding that it thinks of, and bring the last into its place: twice
the memory, and more between the devices. Owns when that is possible and keeps what was compiled; what an op
does is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from treeload._files.regions import is_spread
from treeload._leaves.placement import on_device, sharding_of
from treeload._leaves.spec import is_key
from treeload._naming.name import Name
from treeload._ops.expression import Derived, Expression, Leaf, evaluate


def is_made_in_place(value: Expression, arrays: Mapping[Leaf, Any], like: Any) -> bool:
    """Whether an expression can be computed on the devices that its leaves and its result are spread over."""
    spread = [array for array in arrays.values() if _is_spread(array)]
    if not spread or not on_device(like) or not _is_traceable(value):
        return False
    wanted = sharding_of(like)
    return wanted is not None and all(array.sharding.device_set == wanted.device_set for array in spread)


def made_in_place(value: Expression, arrays: Mapping[Leaf, Any], like: Any) -> jax.Array:
    """What an expression gives, sharded as a destination's leaf is.

    Raises:
        TreeloadError: an op gave something else than its ``infer`` said.
    """
    numbers = {leaf: number for number, leaf in enumerate(dict.fromkeys(value.leaves()))}
    given = [arrays[leaf] for leaf in numbers]
    given = [array if _is_spread(array) else np.asarray(array) for array in given]
    result: jax.Array = _compiled(_nameless(value, numbers), sharding_of(like))(given)
    return result


def _is_spread(array: Any) -> bool:
    return isinstance(array, jax.Array) and is_spread(array.sharding)


def _is_traceable(value: Expression) -> bool:
    if isinstance(value, Leaf):
        return not is_key(value.spec.dtype)
    return value.op.traceable and all(map(_is_traceable, value.inputs))


def _nameless(value: Expression, numbers: Mapping[Leaf, int]) -> Expression:
    """The same of leaves without their names: it is compiled once for all layers of a model."""
    if isinstance(value, Leaf):
        return Leaf(0, Name((str(numbers[value]),)), value.spec)
    return Derived(value.op, tuple(_nameless(each, numbers) for each in value.inputs), value.spec)


@lru_cache(512)
def _compiled(value: Expression, wanted: Any) -> Any:
    def made(arrays: Sequence[jax.Array]) -> jax.Array:
        result: jax.Array = evaluate(value, {leaf: arrays[int(leaf.name[0])] for leaf in value.leaves()})
        return result

    return jax.jit(made, out_shardings=wanted)
