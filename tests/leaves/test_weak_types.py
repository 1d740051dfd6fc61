"""The result has the destination's weak type, from every source (A14)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import treeload

DTYPES = {"float": (1.5, np.float32), "int": (3, np.int32), "complex": (1j, np.complex64)}


def strong(kind: str) -> jax.Array:
    number, dtype = DTYPES[kind]
    return jnp.full(3, number, dtype)


def weak(kind: str) -> jax.Array:
    return jnp.full(3, DTYPES[kind][0])


LIKES = {
    "strong": strong,
    "weak": weak,
    "strong spec": lambda kind: jax.ShapeDtypeStruct((3,), DTYPES[kind][1]),
    "weak spec": lambda kind: jax.ShapeDtypeStruct((3,), DTYPES[kind][1], weak_type=True),
    "weak, committed": lambda kind: jax.device_put(weak(kind), jax.devices()[0]),
    "strong, committed": lambda kind: jax.device_put(strong(kind), jax.devices()[0]),
}


@pytest.mark.parametrize("source", ["strong", "weak", "numpy", "disk", "renamed", "cast"])
@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("like", LIKES)
def test_the_destination_decides(like: str, kind: str, source: str, tmp_path: Any) -> None:
    dst = {"w": LIKES[like](kind)}
    src: Any = {"w": {"strong": strong, "weak": weak}.get(source, lambda k: np.asarray(strong(k)))(kind)}
    rules: Any = ()
    if source == "disk":
        save_file({"w": np.asarray(strong(kind))}, tmp_path / "w.safetensors")
        src = tmp_path / "w.safetensors"
    elif source == "renamed":
        src, rules = {"v": weak(kind)}, treeload.Rename("v", "w")
    elif source == "cast":
        src = {"w": np.asarray(strong(kind)).astype({"float": "f8", "int": "i8", "complex": "c16"}[kind])}
    made = treeload.load(dst, src, rules=rules)["w"]
    assert made.weak_type == dst["w"].weak_type and made.dtype == DTYPES[kind][1]
    assert made.tolist() == [DTYPES[kind][0]] * 3
    assert made.committed == ("committed" in like)


def test_a_weak_zero_and_a_weak_number() -> None:
    policy = treeload.Policy(absent_is_zero="**")
    assert treeload.load({"b": weak("float"), "w": strong("int")}, {"w": strong("int")}, policy=policy)[
        "b"
    ].weak_type
    made = treeload.load({"n": jnp.asarray(1.0), "m": jnp.float32(1)}, {"n": 2.0, "m": jnp.asarray(2.0)})
    assert (made["n"].weak_type, made["m"].weak_type) == (True, False)


def test_a_denormal_survives() -> None:
    tiny = np.full(3, 1e-45, np.float32)
    assert np.asarray(treeload.load({"w": weak("float")}, {"w": tiny})["w"]).tolist() == tiny.tolist()


def test_what_is_computed_with_it_has_the_dtype_that_it_would_have_had() -> None:
    made = treeload.load({"s": jnp.float32(1)}, {"s": jnp.asarray(2.0)})
    assert (made["s"] * jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
