"""``Copy``: one leaf of the source for several of the destination.

Owns that the leaf stays. What is made of it, and the way back, is as for a ``Rename``; which rules see it
after that is ``apply``'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from treeload._naming.pattern import PatternLike
from treeload._ops.op import Op
from treeload._rules.rename import Rename


@dataclass(frozen=True, init=False, repr=False)
class Copy(Rename):
    """As ``Rename``, but the leaf stays for the rules after it.

    A leaf that no other rule takes then keeps its name: where the destination has a leaf of that name it
    loads there too, and where it has none it is not unexpected, since it feeds another. The copies are leaves
    of their own: to keep one array under two names, use a ``Tie``, or a destination in which they are one.

    Args:
        source: a pattern over the source's names, or a list of them with the same captures.
        destination: the new name, with the pattern's captures filled in.
        ops: applied to each leaf, left to right.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> rules = [Copy("bias_hh", "recurrent/bias"), Rename("bias_hh", "input/bias")]
        >>> dst = {"input": {"bias": jnp.zeros(2)}, "recurrent": {"bias": jnp.zeros(2)}}
        >>> treeload.load(dst, {"bias_hh": jnp.ones(2)}, rules=rules)["recurrent"]["bias"].tolist()
        [1.0, 1.0]

    Raises:
        RuleError: a pattern or a template that cannot mean anything, or something that is no op.
    """

    copies = True

    # Said again for the reference, which shows what a class itself takes.
    def __init__(
        self, source: PatternLike | list[str] | list[PatternLike], destination: PatternLike, *ops: Op
    ) -> None:
        super().__init__(source, destination, *ops)
