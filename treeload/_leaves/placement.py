"""Arrays to where the destination wants them: host or device, dtype, sharding.

Owns casts, placement and zeros of one leaf, each decided by what the destination holds there. Refuses
to own which value goes where (``_matching``) and when (``_loading``).

A destination leaf that is a NumPy array stays one; a Python number stays one; a jax array or a spec
gives a jax array with that sharding. Where the destination names no sharding, or holds an array that
was never committed to a device, the result is on the default device and uncommitted too, so that JAX
moves it as freely as it would have moved the original.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding

from treeload._errors import TreeloadError
from treeload._leaves.spec import Spec, is_abstract, is_key, make_spec


def sharding_of(like: Any) -> jax.sharding.Sharding | None:
    """The sharding that the result is committed to; None for the host, or uncommitted.

    Raises:
        TreeloadError: it is over a mesh without devices, and no such mesh is set now.
    """
    return _on_devices(asked_sharding(like))


def as_request(like: Any) -> Spec:
    """What a source is asked for, for a destination's leaf that takes one as it is.

    Raises:
        TreeloadError: as ``sharding_of``.
    """
    return make_spec(tuple(like.shape), like.dtype, sharding_of(like) if on_device(like) else None)


def asked_sharding(like: Any) -> jax.sharding.Sharding | None:
    """The sharding that a destination leaf names, which may be over a mesh without devices."""
    if isinstance(like, jax.Array) and not like.committed:
        return None
    sharding: jax.sharding.Sharding | None = getattr(like, "sharding", None)
    return sharding


def _on_devices(sharding: jax.sharding.Sharding | None) -> jax.sharding.Sharding | None:
    """The same over the mesh of ``jax.set_mesh``, where it is over an abstract one.

    What is evaluated abstractly under ``jax.set_mesh`` knows the mesh's axes and not its devices.
    """
    if not (isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, AbstractMesh)):
        return sharding
    wanted, mesh = sharding.mesh, jax.sharding.get_mesh()
    if (mesh.axis_names, mesh.axis_sizes) != (wanted.axis_names, wanted.axis_sizes):
        set_now = f"the mesh set now has {_axes(mesh)}" if mesh.axis_names else "no mesh is set now"
        raise TreeloadError(
            f"the destination was made under a mesh of {_axes(wanted)}, which names no devices, "
            f"and {set_now}: load it under the mesh too, with jax.set_mesh(mesh): ..."
        )
    return NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)


def _axes(mesh: Any) -> str:
    return ", ".join(f"{name}: {size}" for name, size in mesh.shape.items())


@lru_cache(maxsize=4096)
def unplaceable(shape: tuple[int, ...], sharding: Any) -> str:
    """Why no array of this shape can have this sharding, in words; empty where one can."""
    if sharding is None:
        return ""
    try:
        sharding.check_compatible_aval(shape)
        sharding.shard_shape(shape)
    except ValueError:
        pass
    else:
        return ""
    if not isinstance(sharding, NamedSharding):
        return f"no array of the shape {list(shape)} can be placed as {sharding}"
    if len(sharding.spec) > len(shape):
        axes = f"{len(sharding.spec)} axes or more"
        return f"its sharding, {_spec(sharding)}, is for {axes}, and it has {len(shape)}"
    for axis, (size, names) in enumerate(zip(shape, sharding.spec, strict=False)):
        over = (names,) if isinstance(names, str) else names or ()
        parts = math.prod(sharding.mesh.shape[name] for name in over)
        if size % parts:
            return (
                f"its sharding, {_spec(sharding)}, splits axis {axis} into {parts}, "
                f"which does not divide {size}: give it another sharding, such as None for that axis"
            )
    return f"no array of the shape {list(shape)} can be placed as {_spec(sharding)}"


def _spec(sharding: NamedSharding) -> str:
    return f"{sharding.spec} over {_axes(sharding.mesh)}"


def on_device(like: Any) -> bool:
    """Whether the destination's leaf is a jax array, or will be one."""
    return isinstance(like, jax.Array) or is_abstract(like)


def stays(array: jax.Array, like: Any) -> bool:
    """Whether an array already lies where a destination leaf on devices wants it."""
    if isinstance(like, jax.Array):
        return (
            array.committed == like.committed
            # JAX makes one aval for all arrays alike; where they are two, the weak type may differ.
            and (array.aval is like.aval or is_weak(array) == is_weak(like))
            and bool(array.sharding == like.sharding)
        )
    if is_weak(array) != is_weak(like):
        return False
    wanted = sharding_of(like)
    return not array.committed if wanted is None else array.committed and array.sharding == wanted


def is_in_place(array: jax.Array, like: jax.Array) -> bool:
    """Whether an array is, in all but its values, what a destination's leaf is: asked of very many."""
    return (
        array.aval is like.aval  # JAX makes one for all arrays alike: of a shape, a dtype and a weak type
        and array.committed is like.committed
        and (array.sharding is like.sharding or bool(array.sharding == like.sharding))
        and not array.is_deleted()
    )


def is_weak(like: Any) -> bool:
    """Whether the dtype of what is computed with a leaf is the other operand's."""
    return bool(getattr(like, "weak_type", False))


def with_weak_type(array: jax.Array, like: Any) -> jax.Array:
    """``array``, whose dtype is as strong or weak as that of the destination's leaf."""
    if is_weak(array) == is_weak(like):
        return array
    if not is_weak(like):
        return array.astype(array.dtype)
    # There is no public way to weaken a dtype but to write into an array that is weak.
    base = like if isinstance(like, jax.Array) and not like.is_deleted() else _weak_zeros(array)
    weak: jax.Array = base.at[...].set(array) if is_weak(base) else array
    return weak


def _weak_zeros(array: jax.Array) -> jax.Array:
    """Zeros of a weak type, where that dtype is one of those that Python's numbers become; else strong."""
    zero = {"i": 0, "f": 0.0, "c": 0j}.get(array.dtype.kind)
    weak = jnp.zeros(array.shape, array.dtype) if zero is None else jnp.full(array.shape, zero)
    return weak if weak.dtype == array.dtype else jnp.zeros(array.shape, array.dtype)


def cast(array: Any, dtype: Any) -> Any:
    """``array`` in another dtype; on the host where it can be, since XLA on CPU flushes denormals."""
    if array.dtype == dtype:
        return array
    if isinstance(array, jax.Array) and any(device.platform != "cpu" for device in array.devices()):
        return array.astype(dtype)
    host = np.asarray(array)
    if host.dtype.kind == "c" and np.dtype(dtype).kind != "c":
        host = host.real  # which NumPy would warn of
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # whether the cast may lose anything was decided before
        return host.astype(dtype)


def to_host(array: Any, like: Any, *, own: bool) -> Any:
    """The NumPy array, NumPy scalar or Python number for a destination leaf that is one.

    ``own``: nobody else holds the array, so a NumPy leaf may be it and no copy.
    """
    host = np.asarray(array)
    if isinstance(like, np.generic):
        return host[()]
    if isinstance(like, np.ndarray):
        return host if own and host.flags.writeable and isinstance(array, np.ndarray) else host.copy()
    return type(like)(host.item())


def to_device(array: Any, like: Any) -> jax.Array:
    """The jax array for one destination leaf, committed and of a weak type as the destination's is."""
    if isinstance(array, jax.Array) and stays(array, like):
        return array
    placed = _placed(array, like)
    if is_weak(placed) != is_weak(like):
        weak = with_weak_type(placed, like)
        placed = weak if stays(weak, like) or is_weak(weak) != is_weak(like) else _placed(weak, like)
    return placed


def _placed(array: Any, like: Any) -> jax.Array:
    """``array`` on the devices that the destination's leaf is on."""
    wanted = sharding_of(like)
    placed: jax.Array
    if wanted is not None:
        placed = jax.device_put(array, wanted)
        return placed
    # What is committed elsewhere becomes uncommitted by way of the host.
    if is_key(array.dtype):
        data = jnp.asarray(np.asarray(jax.random.key_data(array)))
        placed = jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        return placed
    host = np.asarray(array)
    placed = jnp.asarray(host) if host.nbytes < 1 << 16 else jax.device_put(host)
    return placed


def to_default_device(arrays: Sequence[np.ndarray[Any, Any]]) -> list[jax.Array]:
    """Host arrays on the default device, uncommitted, in one call: cheaper than one by one."""
    return list(jax.device_put(list(arrays)))


def zeros(like: Any) -> Any:
    """Zeros in place of one destination leaf."""
    if isinstance(like, np.generic):
        return like.dtype.type(0)
    if isinstance(like, np.ndarray):
        return np.zeros(like.shape, like.dtype)
    if not on_device(like):
        return type(like)(0)
    wanted = sharding_of(like)
    made = (
        jnp.zeros(like.shape, like.dtype)
        if wanted is None
        else jnp.zeros(like.shape, like.dtype, device=wanted)
    )
    return to_device(made, like)
