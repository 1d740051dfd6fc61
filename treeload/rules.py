"""Ready-made rules between Flax's two APIs, and what rules of your own are made with.

``linen_to_nnx`` and ``nnx_to_linen`` are the difference that is the same for every model: Linen keeps
parameters and batch statistics in collections (``params/...``, ``batch_stats/...``), NNX keeps every variable
at its module. Names of modules (``Dense_0``) are each model's own and left to your ``Rename``s: rules are not
chained, so give these in a ``From(..., rules=linen_to_nnx())``, and your own to the plan.

All else is for those who write a ``treeload.Rule``: its ``patterns`` are made by ``compile_pattern``, the new
names by ``compile_template``; ``give`` takes ``Matched`` leaves and gives ``Made`` ones, whose values are
expressions, made of the leaves' own by ``chain`` and ``derive``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from treeload._errors import RuleError
from treeload._naming.name import Keys, print_name
from treeload._naming.pattern import Pattern, PatternLike, compile_pattern
from treeload._naming.template import Template, compile_template
from treeload._ops.expression import Expression, chain, derive
from treeload._rules.rule import Made, Matched, Rule, set_fields

__all__ = [
    "Expression",
    "Made",
    "Matched",
    "Pattern",
    "Template",
    "chain",
    "compile_pattern",
    "compile_template",
    "derive",
    "linen_to_nnx",
    "nnx_to_linen",
]

for _class in (Made, Matched, Pattern, Template):
    _class.__module__ = __name__  # where users find them, wherever they are written
del _class

COLLECTIONS = ("params", "batch_stats", "cache")
"""The collections of Linen whose variables NNX modules have too."""

STATISTICS = ("mean", "var")
"""The last segments of the names of NNX's batch statistics."""


def linen_to_nnx(collections: Iterable[str] = COLLECTIONS) -> tuple[Rule, ...]:
    """Rules from Linen's variables to an NNX module's names: the collection's own segment goes.

    A model may lack any of the collections; leaves outside them keep their names.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> bn = {"scale": jnp.ones(1)}
        >>> variables = {"params": {"bn": bn}, "batch_stats": {"bn": {"mean": jnp.zeros(1)}}}
        >>> dst = {"bn": {"scale": jnp.zeros(1), "mean": jnp.ones(1)}}
        >>> treeload.load(dst, variables, rules=linen_to_nnx())
        {'bn': {'scale': Array([1.], dtype=float32), 'mean': Array([0.], dtype=float32)}}
    """
    given = _several(collections, "linen_to_nnx")
    pairs = [(f"{collection}/{{*rest}}", "{*rest}") for collection in given]
    return (_AnyOf(pairs, f"linen_to_nnx({given if given != COLLECTIONS else ''})"),)


def nnx_to_linen(batch_stats: Iterable[str] = STATISTICS) -> tuple[Rule, ...]:
    """Rules from an NNX module's names to Linen's variables: running statistics go to ``batch_stats``.

    Args:
        batch_stats: last segments of the names that are batch statistics; all else is ``params``.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> dst = {"params": {"bn": {"scale": jnp.ones(1)}}, "batch_stats": {"bn": {"mean": jnp.zeros(1)}}}
        >>> src = {"bn": {"scale": jnp.full(1, 2.0), "mean": jnp.full(1, 3.0)}}
        >>> print(treeload.plan(dst, src, rules=nnx_to_linen()).summary())
        2 of 2 leaves load (100 % of 2 elements); no problems
    """
    given = _several(batch_stats, "nnx_to_linen")
    pairs = [(f"{{*path}}/{last}", f"batch_stats/{{*path}}/{last}") for last in given]
    name = f"nnx_to_linen({given if given != STATISTICS else ''})"
    back = ("batch_stats", "params")
    return (_AnyOf([*pairs, ("{*rest}", "params/{*rest}")], name, back),)


def _several(names: Iterable[str], function: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise RuleError(f"{function} takes several names, such as ({names!r},), not one string")
    return tuple(names)


@dataclass(frozen=True, init=False)
class _AnyOf(Rule):
    """Several renames as one rule, which has done its work when any of them matched."""

    pairs: tuple[tuple[Pattern, Template], ...]
    name: str
    back: tuple[str, ...]

    def __init__(
        self, pairs: Sequence[tuple[PatternLike, PatternLike]], name: str, back: tuple[str, ...] = ()
    ) -> None:
        compiled = []
        for source, destination in pairs:
            pattern = compile_pattern(source)
            compiled.append((pattern, compile_template(destination, pattern)))
        if not compiled:
            raise RuleError(f"{name} was given no collection")
        set_fields(self, pairs=tuple(compiled), name=name, back=back)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return tuple(pattern for pattern, _ in self.pairs)

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        for leaf in taken:
            yield Made(self.pairs[leaf.pattern][1].expand(leaf.match), leaf.value, (leaf.name,))

    def rename(self, name: Keys) -> Keys | None:
        printed = print_name(name)
        matches = ((pattern.match(printed), template) for pattern, template in self.pairs)
        return next((template.expand(match) for match, template in matches if match), None)

    def inverse(self) -> Rule | None:
        # Which collection a leaf came from cannot be told from its name alone; that it is in one can.
        return linen_to_nnx(self.back)[0] if self.back else None

    def __repr__(self) -> str:
        return self.name
