"""Moments follow their parameters where one stored parameter feeds two."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from treeload import Copy, Rename, finetune

OLD = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
TX = optax.adam(0.1)


def stepped() -> Any:
    state = TX.init(OLD)
    _, state = TX.update(
        jax.tree.map(lambda x: jnp.arange(x.size, dtype=x.dtype).reshape(x.shape), OLD), state
    )
    return state


def test_each_copy_has_the_moments_of_the_leaf_and_what_is_left_of_it_needs_no_place() -> None:
    new = {"x": jnp.zeros((2, 3)), "y": jnp.zeros((2, 3)), "b": jnp.zeros(2)}
    stored = stepped()
    restored = finetune.restore_optimizer(TX, new, stored, rules=[Copy("w", "x"), Copy("w", "y")])
    for name, of in {"x": "w", "y": "w", "b": "b"}.items():
        np.testing.assert_array_equal(restored[0].mu[name], stored[0].mu[of])
        np.testing.assert_array_equal(restored[0].nu[name], stored[0].nu[of])


def test_the_leaf_keeps_its_own_moments_too() -> None:
    new = {"x": jnp.zeros((2, 3)), "w": jnp.zeros((2, 3)), "c": jnp.zeros(2)}
    stored = stepped()
    restored = finetune.restore_optimizer(TX, new, stored, rules=[Copy("w", "x"), Rename("b", "c")])
    np.testing.assert_array_equal(restored[0].mu["w"], stored[0].mu["w"])
    np.testing.assert_array_equal(restored[0].mu["x"], stored[0].mu["w"])
