"""Adapters merged into the weights that they adapt.

Owns one rule: three leaves that were trained apart become one. Modules without an adapter pass through, so
it can be given for a whole model of which some layers are adapted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax

from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import Pattern
from treeload._naming.template import Template, compile_template
from treeload._ops.convert import Apply
from treeload._ops.expression import derive
from treeload._rules.combine import same_captures
from treeload._rules.rule import Made, Matched, Rule


def merge_lora(
    kernel: str = "{*module}/kernel",
    a: str = "{*module}/lora/lora_a",
    b: str = "{*module}/lora/lora_b",
    into: str = "{*module}/kernel",
    *,
    scale: float = 1.0,
) -> Rule:
    """The rule by which ``kernel + scale * (a @ b)`` loads into a model without adapters.

    The defaults are the names of ``nnx.LoRALinear``. A kernel without an adapter is only renamed. The
    result has the kernel's dtype. There is no way back.

    Args:
        kernel: a pattern over the source's names.
        a: likewise, with the same captures.
        b: likewise.
        into: the merged kernel's name.
        scale: the factor of ``a @ b``; ``nnx.LoRA`` has none, others use ``alpha / rank``.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> from treeload import finetune
        >>> lora = {"lora_a": jnp.ones((2, 1)), "lora_b": jnp.ones((1, 2))}
        >>> src = {"dense": {"kernel": jnp.zeros((2, 2)), "lora": lora}}
        >>> dst = {"dense": {"kernel": jnp.zeros((2, 2))}}
        >>> treeload.load(dst, src, rules=finetune.merge_lora())["dense"]["kernel"].tolist()
        [[1.0, 1.0], [1.0, 1.0]]

    Raises:
        RuleError: a pattern that cannot mean anything, or patterns whose captures differ.
    """
    # The adapters' patterns first, to take what the kernel's would take too.
    parts = same_captures((a, b, kernel), "merge_lora")
    return _MergeLora(parts, compile_template(into, parts[0]), float(scale))


@dataclass(frozen=True)
class _MergeLora(Rule):
    parts: tuple[Pattern, ...]
    destination: Template
    scale: float

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return self.parts

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        groups: dict[Keys, dict[int, Matched]] = {}
        for leaf in taken:
            groups.setdefault(self.destination.expand(leaf.match), {})[leaf.pattern] = leaf
        for name, found in groups.items():
            names = tuple(leaf.name for leaf in found.values())
            match [found.get(which) for which in range(len(self.parts))]:
                case [Matched() as a, Matched() as b, Matched() as kernel]:
                    merged = partial(derive, Apply(self._merge), kernel.value, a.value, b.value)
                    yield Made.of(name, names, merged)
                case [None, None, Matched() as kernel]:
                    yield Made(name, kernel.value, names)
                case _:
                    lacking = [repr(part.text) for which, part in enumerate(self.parts) if which not in found]
                    fault = (
                        f"{print_name(names[0])} cannot be merged: nothing is called {' or '.join(lacking)}"
                    )
                    yield Made(name, None, names, fault)

    def _merge(self, kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        return (kernel + self.scale * (a @ b)).astype(kernel.dtype)

    def destination_text(self) -> str:
        return self.destination.text

    def __repr__(self) -> str:
        return f"merge_lora(scale={self.scale})"
