"""Questions that only values answer: is every element zero, are two arrays one value?

Owns the two tests and their exactness. XLA on CPU treats denormals as zero, so arrays on the host or
on CPU devices are looked at with NumPy, and arrays elsewhere by their bits; sharded arrays are reduced
where they lie.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_CHUNK = 1 << 18  # elements compared at once on the host: bounded memory, and early stops


def nonzero(array: Any) -> tuple[int, str]:
    """How many elements are not exactly zero (−0.0 is, NaN is not), and the largest magnitude printed."""
    host = _on_host(array)
    if host is None:
        return _nonzero_on_device(array)
    flat = host.reshape(-1)
    count, largest = 0, 0.0
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        # Bytes first, at the speed of memory: only what has a bit set is looked at by value (−0.0 has one).
        if chunk.flags.c_contiguous and not chunk.view(np.uint8).any():
            continue
        wrong = chunk[chunk != 0]
        count += wrong.size
        if wrong.size:
            magnitude = np.abs(wrong.astype(np.complex128))
            largest = float(np.maximum(largest, magnitude.max()))  # NaN wins: np.maximum hands it on
    return count, f"{largest:.3g}"


def equal(first: Any, second: Any) -> bool:
    """Whether two arrays have one shape and, element by element, one value; NaN equals NaN."""
    if first.shape != second.shape:
        return False
    keys = [jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key) for array in (first, second)]
    if any(keys):
        return first.dtype == second.dtype and equal(jax.random.key_data(first), jax.random.key_data(second))
    a, b = _on_host(first), _on_host(second)
    if a is None or b is None:
        return bool(_equal_on_device(jnp.asarray(first), jnp.asarray(second)))
    a, b = a.reshape(-1), b.reshape(-1)
    for start in range(0, a.size, _CHUNK):
        x, y = a[start : start + _CHUNK], b[start : start + _CHUNK]
        if not np.all((x == y) | ((x != x) & (y != y))):
            return False
    return True


def _on_host(array: Any) -> np.ndarray[Any, Any] | None:
    """The array as NumPy, without a transfer; None where it lies on another device."""
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    if array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices()):
        return np.asarray(array)
    return None


@jax.jit
def _magnitude_bits(array: jax.Array) -> jax.Array:
    """The bits of each element but its sign: zero for 0 and −0.0 only."""
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return _magnitude_bits(array.real) | _magnitude_bits(array.imag)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    width = array.dtype.itemsize * 8
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{width}"))
    return bits & jnp.asarray((1 << (width - 1)) - 1, bits.dtype)


def _nonzero_on_device(array: jax.Array) -> tuple[int, str]:
    count = int(jnp.sum(_magnitude_bits(array) != 0))
    largest = float(jnp.max(jnp.abs(array)).astype(jnp.float32)) if count else 0.0
    return count, f"{largest:.3g}"


@jax.jit
def _equal_on_device(first: jax.Array, second: jax.Array) -> jax.Array:
    if first.dtype != second.dtype:
        return jnp.all((first == second) | ((first != first) & (second != second)))
    if not jnp.issubdtype(first.dtype, jnp.inexact):
        return jnp.all(first == second)
    # By bits, since a comparison of values may flush denormals; 0 and −0.0 are one value all the same.
    x, y = _magnitude_bits(first), _magnitude_bits(second)
    same = (x == y) & ((jnp.signbit(first.real) == jnp.signbit(second.real)) | (x == 0))
    return jnp.all(same | (jnp.isnan(first) & jnp.isnan(second)))
