"""``History``, the changes of a model as users write them: what they lead to can be planned without weights.

What a change is and which a source has not seen is in ``_versions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treeload._findings.kinds import KINDS
from treeload._findings.policy import Policy
from treeload._matching.match import match
from treeload._matching.parts import opened_parts
from treeload._plan import Plan
from treeload._sources import given
from treeload._sources.part import From
from treeload._trees.tree import PyTree
from treeload._versions.version import Steps


class History(Steps):
    """Every change of a model's parameters, in the order in which they were made.

    ``save(history=...)`` records the newest number of the whole tree and of each scope. ``load`` with the
    same history, or one that has grown since, applies the steps that a source has not seen, before any
    other rules: each over the names that the one before it made, and over the names of the tree that was
    saved, whatever part of it is then loaded. An empty ``History()`` stands at version 1.

    Args:
        versions: the changes.

    Attributes:
        versions: likewise.
        newest: pattern of a scope → its newest number, ``""`` for the whole tree.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> from treeload import History, Rename, Version
        >>> history = History(Version(2, rules=[Rename("w", "kernel")]))
        >>> old = treeload.From({"w": jnp.ones(2)}, version=1)
        >>> treeload.load({"kernel": jnp.zeros(2)}, old, history=history)
        {'kernel': Array([1., 1.], dtype=float32)}

    Raises:
        RuleError: something that is no ``Version``; numbers of one scope that do not ascend by one from 2.
    """

    def check(self, old: Any, new: PyTree, *, version: int | Mapping[str, int] = 1) -> Plan:
        """What loading ``old``, of a certain version, into ``new`` would do; nobody needs the weights.

        What is kept is no ``abstract`` finding here: its values come with the model.

        Args:
            old: a tree of specs or arrays, a checkpoint, or whatever else ``load`` takes as a source.
            new: the model, concrete or abstract.
            version: the number of the whole that ``old`` was saved at, or a mapping of scopes to numbers.

        Examples:
            >>> import jax, numpy as np
            >>> from treeload import History, Rename, Version
            >>> spec = jax.ShapeDtypeStruct((2,), np.float32)
            >>> history = History(Version(2, rules=[Rename("w", "kernel")]))
            >>> history.check({"w": spec}, {"kernel": spec}).ok
            True

        Raises:
            SourceError, RuleError, NameCollision, TypeError: as ``plan``.
        """
        source = From(old, version=version)
        tree = given.destination(new, source, "History.check")
        parts = opened_parts(source, "History.check")
        made = match(tree, parts, rules=(), policy=Policy(), scope=None, history=self)
        left = [finding for finding in made.findings if not KINDS[finding.kind].settled_by_init]
        return Plan.of(made.with_findings(left))
