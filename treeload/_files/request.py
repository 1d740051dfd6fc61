"""What may be asked of a source: its own leaves, as they are; on a device, only what JAX can hold there."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from treeload._errors import SourceError
from treeload._leaves.spec import Spec, is_key, print_spec
from treeload._naming.name import Name, print_name


def check_requests(requests: Mapping[Name, Spec], specs: Mapping[Name, Spec], label: str) -> None:
    """Nothing, if every request repeats a leaf's own shape and dtype.

    Args:
        requests: what ``Source.read`` is asked for.
        specs: the leaves that are there.
        label: what holds them, for messages.

    Raises:
        SourceError: a leaf that is not there, of another shape or dtype, or of 64 bits that a device would
            halve.
    """
    for name, request in requests.items():
        spec = specs.get(name)
        if spec is None:
            raise SourceError(f"{label} has no leaf {print_name(name)!r}")
        if tuple(request.shape) != tuple(spec.shape) or request.dtype != spec.dtype:
            raise SourceError(
                f"{label}: {print_name(name)!r} is {print_spec(spec)} and cannot be read as "
                f"{print_spec(request)}"
            )
        if request.sharding is None or is_key(spec.dtype):
            continue
        if jax.dtypes.canonicalize_dtype(spec.dtype) != spec.dtype:  # device_put would not say a word
            raise SourceError(
                f"{label}: {print_name(name)!r} is {print_spec(spec)}, which JAX holds on a device only with "
                "jax_enable_x64; ask for it without a sharding"
            )
