"""Questions that only values answer: is every element zero, are two arrays one value, does a cast overflow?

Owns the three tests and their exactness. XLA on CPU treats denormals as zero, so arrays on the host or
on CPU devices are looked at with NumPy, and arrays elsewhere by their bits; sharded arrays are reduced
where they lie.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from treeload._leaves.casts import may_overflow, overflow_edge, overflown, real_part, safe_range

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
    if a is None and b is None and first.devices() == second.devices():
        return bool(_equal_on_device(first, second))
    # One of them is on the host or on other devices: there is no place but the host to compare them at.
    a, b = np.asarray(first).reshape(-1), np.asarray(second).reshape(-1)
    for start in range(0, a.size, _CHUNK):
        x, y = a[start : start + _CHUNK], b[start : start + _CHUNK]
        if not np.all((x == y) | ((x != x) & (y != y))):
            return False
    return True


def overflowing(array: Any, dtype: Any) -> tuple[int, str]:
    """How many elements overflow ``dtype``, and the largest of them printed; NaN and infinities do not."""
    if not may_overflow(array.dtype, dtype) or not array.size:
        return 0, ""
    host = _on_host(array)
    if host is None:
        wrong_here, low, high = map(np.asarray, _overflowing_on_device(array, dtype))
        return int(wrong_here), _print_largest(low, high)
    flat, to = host.reshape(-1), real_part(dtype)
    low_edge, high_edge = safe_range(to)
    count, worst = 0, []
    for start in range(0, flat.size, _CHUNK):
        parts = _real_parts(flat[start : start + _CHUNK])
        # At the speed of memory. With a NaN among them no bound holds, and each is looked at.
        if parts.min() >= low_edge and parts.max() <= high_edge:
            continue
        wrong = overflown(parts, to)
        if wrong.any():
            count += int(np.count_nonzero(wrong.any(axis=-1)))
            worst += [parts[wrong].min(), parts[wrong].max()]
    return (count, _print_largest(min(worst), max(worst))) if count else (0, "")


def _real_parts(chunk: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Elements by parts, in 32 bits or more: what is compared with a bound must be able to hold it."""
    parts = np.stack([chunk.real, chunk.imag], -1) if chunk.dtype.kind == "c" else chunk[:, None]
    if parts.dtype.kind in "iu":
        return parts
    if jnp.issubdtype(parts.dtype, jnp.integer):
        return parts.astype(np.int32)
    return parts if parts.dtype.itemsize >= 4 else parts.astype(np.float32)


def _print_largest(low: Any, high: Any) -> str:
    low, high = low.item(), high.item()
    largest = low if abs(low) > abs(high) else high
    return f"{largest:,}" if isinstance(largest, int) else f"{largest:.4g}"


@partial(jax.jit, static_argnums=1)
def _overflowing_on_device(array: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The count, and the smallest and the largest element that overflows."""
    complex_ = jnp.issubdtype(array.dtype, jnp.complexfloating)
    parts = jnp.stack([array.real, array.imag], -1) if complex_ else array[..., None]
    to = real_part(np.dtype(dtype))
    if jnp.issubdtype(to, jnp.integer):
        (low, high), (least, most) = safe_range(to), safe_range(parts.dtype)
        wrong = (parts < jnp.asarray(max(low, least), parts.dtype)) | (
            parts > jnp.asarray(min(high, most), parts.dtype)
        )
    else:
        if parts.dtype.itemsize < 4 or jnp.issubdtype(parts.dtype, jnp.integer):
            parts = parts.astype(jnp.float32)
        # Not by a cast and a look at it: XLA may leave out a cast to fewer bits and back.
        low, edge = safe_range(to)[0], overflow_edge(to)
        below = parts < low if low > 0 else parts <= -edge
        wrong = ((parts >= edge) | below) & jnp.isfinite(parts)
    kept = jnp.where(wrong, parts, jnp.zeros((), parts.dtype))
    return jnp.count_nonzero(wrong.any(-1)), kept.min(), kept.max()


def _on_host(array: Any) -> np.ndarray[Any, Any] | None:
    """The array as NumPy, where that takes no transfer and no gathering of shards; else None."""
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    platforms = [device.platform for device in array.devices()]
    return np.asarray(array) if platforms == ["cpu"] else None


@jax.jit
def _magnitude_bits(array: jax.Array) -> jax.Array:
    """The bits of each element but its sign: zero for 0 and −0.0 only."""
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return jnp.bitwise_or(_magnitude_bits(array.real), _magnitude_bits(array.imag))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    width = int(jnp.finfo(array.dtype).bits)  # type: ignore[no-untyped-call]  # not annotated there
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{width}"))
    # A few 8-bit floats have no −0.0 and spell NaN as it is spelt elsewhere.
    return jnp.where(jnp.isnan(array), bits, bits & jnp.asarray((1 << (width - 1)) - 1, bits.dtype))


def _nonzero_on_device(array: jax.Array) -> tuple[int, str]:
    bits = _magnitude_bits(array)
    count = int(jnp.count_nonzero(bits))
    if not count:
        return 0, "0"
    if jnp.issubdtype(array.dtype, jnp.floating):
        # The largest bits are the largest magnitude, or a NaN; taken off the device before they are a float.
        largest = np.abs(np.asarray(jnp.max(bits)).view(array.dtype).astype(np.float64))
    else:
        largest = np.asarray(jnp.max(jnp.abs(array))).astype(np.float64)
    return count, f"{float(largest):.3g}"


@jax.jit
def _equal_on_device(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.all(_same(first, second))


def _same(first: jax.Array, second: jax.Array) -> jax.Array:
    """Element by element, whether two arrays have one value."""
    nan = (first != first) & (second != second)
    if first.dtype != second.dtype or not jnp.issubdtype(first.dtype, jnp.inexact):
        return (first == second) | nan
    if jnp.issubdtype(first.dtype, jnp.complexfloating):
        return (_same(first.real, second.real) & _same(first.imag, second.imag)) | nan
    # By bits, since a comparison of values may flush denormals; 0 and −0.0 are one value all the same.
    x, y = _magnitude_bits(first), _magnitude_bits(second)
    same: jax.Array = (x == y) & ((jnp.signbit(first) == jnp.signbit(second)) | (x == 0))
    return same | nan
