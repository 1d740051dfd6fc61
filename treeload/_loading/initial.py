"""What ``init=`` is: a function of no arguments, looked at before anything is read.

A model in its place can be called too, and would be said to lack its inputs, from within jit.
"""

from __future__ import annotations

import inspect
from typing import Any

from treeload._trees.flax import is_flax


def check_init(init: Any) -> None:
    """Nothing, where ``init`` is None, or can be called without arguments and is no model itself.

    Raises:
        TypeError: it is something else, such as the tree that it should make.
    """
    if init is None:
        return
    a_model = is_flax(init, "nnx", "Pytree") or is_flax(init, "linen", "Module")
    if not callable(init) or (a_model and not inspect.isclass(init)):
        raise TypeError(f"init is a function that makes the tree, init=lambda: ...; not a {_called(init)}")
    try:
        signature = inspect.signature(init)
    except (TypeError, ValueError):  # of some builtins Python does not know it
        return
    try:
        signature.bind()
    except TypeError as error:
        name = _called(init)
        raise TypeError(
            f"init is called without arguments, and {name} asks for some ({error}): init=lambda: {name}(...)"
        ) from None


def _called(init: Any) -> str:
    return str(getattr(init, "__name__", type(init).__name__))
