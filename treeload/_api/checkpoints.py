"""Whole checkpoints: ``diff``, ``average``, ``resume``, and an ``initializer`` from one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from treeload._api.load import load, plan
from treeload._checkpoints import average as _average
from treeload._checkpoints import compare as _diff
from treeload._checkpoints import initializer as _initializer
from treeload._checkpoints import resume as _resume
from treeload._checkpoints.history import History
from treeload._checkpoints.view import View
from treeload._errors import RuleError, SourceError
from treeload._files.places import is_url
from treeload._leaves.selection import Patterns
from treeload._matching.parts import opened_parts
from treeload._naming.name import NameLike, as_name
from treeload._naming.printable import printable
from treeload._ops.op import Op, as_ops
from treeload._reports.diff import Diff
from treeload._rules.rule import Rule, as_rules
from treeload._sources import given
from treeload._sources.part import From
from treeload._sources.source import Source
from treeload._trees.tree import PyTree


def diff(a: Any, b: Any, *, rules: Rule | Iterable[Rule] = ()) -> Diff:
    """What differs between two trees or checkpoints: their structure, then leaf by leaf their values.

    NaN equals NaN, −0.0 equals 0.0, integers are compared exactly. Leaves of one shape and two dtypes are
    compared by value too; PRNG keys by their bits. A leaf that one side stores once for several names
    (a tie) and the other under one of them is no difference. At most a leaf of each side is held.

    Args:
        a: a tree, a path, a ``Source``, a ``From``, or a list of these.
        b: likewise.
        rules: how the names and layouts of ``a`` become those of ``b``.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> found = treeload.diff({"w": jnp.zeros(3), "n": 1}, {"w": jnp.array([0.0, 0.0, 0.5]), "n": 1})
        >>> found.equal, found["w"].differing, found["w"].largest
        (False, 1, 0.5)

    Raises:
        SourceError: a side cannot be read, or is abstract.
        RuleError: a rule that cannot mean anything, or that did nothing.
        NameCollision: two leaves of one tree have one name.
    """
    ours, theirs = opened_parts(a, "diff"), opened_parts(b, "diff")
    asked, other = as_rules(rules, "rules=..."), View.of(theirs)
    found = _diff.diff(View.of(ours, asked, wanted=other.specs()), other)
    return replace(found, by_rules=bool(asked))


def average(
    sources: Iterable[Any],
    *,
    weights: Iterable[float] | None = None,
    ema: float | None = None,
    last: bool | Patterns = False,
) -> Any:
    """The mean of several checkpoints of one model: a nested dict of NumPy arrays, named as in ``state``.

    Each leaf has the dtype that it is stored in; the sum is taken in 64 bits or more and rounded once. Tied
    leaves are there once. All checkpoints must have the same leaves, with the same shapes and dtypes;
    integers, booleans and PRNG keys have no mean and must agree. Leaf by leaf: the peak of memory is the
    result and a leaf of each source.

    Args:
        sources: each a tree, a path, a ``Source``, a ``From``, or a list of these.
        weights: a number for each source; what counts is their ratio, since the sum is divided by theirs.
            They may be negative, and a source of weight 0 is left out of the mean.
        ema: instead of ``weights``, an exponential average of the sources from the oldest to the latest, in
            which the past keeps this share at each step: ``past * ema + source * (1 - ema)``.
        last: which leaves are the last source's own: ``True`` for all that have no mean, or patterns for
            the leaves that they match.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> treeload.average([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}], weights=[1, 3])
        {'w': array([0.75, 0.75], dtype=float32)}

    Raises:
        TreeloadError: they are not of one model; all differences are in the text, and in ``findings``.
        RuleError: weights, ``ema`` or ``last`` that cannot mean anything.
        SourceError: a source cannot be read, or is abstract.
    """
    if isinstance(sources, (str, os.PathLike, Mapping, Source, From)) or not isinstance(sources, Iterable):
        raise RuleError(f"average takes several sources, [...], not one {type(sources).__name__}")
    views = [View.of(opened_parts(source, "average")) for source in sources]
    return _average.average(views, _average.weights_of(len(views), weights, ema), last)


def resume(
    dst: PyTree,
    directory: str | os.PathLike[str] | From,
    *,
    otherwise: Any,
    history: History | None = None,
    skip_unreadable: bool = False,
) -> tuple[PyTree, int | float | None]:
    """The latest complete checkpoint of a training and its step; else where it starts from, and ``None``.

    A checkpoint of the training is loaded strictly: all of ``dst``, RNG state included, nothing kept. One
    that was never completed (``.orbax-checkpoint-tmp``) is none, which is logged.

    Args:
        dst: the whole state of the training, concrete or abstract: parameters, optimizer, RNG.
        directory: a checkpoint that each save replaces, or a directory with one for each step: an Orbax
            ``CheckpointManager``'s, of ``treeload.save``, of Flax. It may be empty, or not exist yet; one
            that holds anything else and no checkpoint is an error. A ``From`` of it can choose an ``item``,
            and rename what an older version of the code saved.
        otherwise: where a new training starts from: a source (``From`` with its rules, path, tree), a
            ``Plan``, or a function of no arguments giving a tree. It is loaded into ``dst`` strictly, too.
        history: how the code's parameters changed: a checkpoint that older code saved takes the steps that it
            has not seen. It is not about ``otherwise``.
        skip_unreadable: take the latest checkpoint that can be read, and log those that cannot. Else
            such a checkpoint is an error: nothing is lost without your knowing.

    Returns:
        The state, and its step: the number in the name of the step's directory, an int unless the name has
        a fraction (``checkpoint_0.85``); for a checkpoint that is replaced, ``metadata["step"]`` of the save,
        or else its one leaf called ``step``. ``None`` says that the training is new.

    Raises:
        SourceError: a checkpoint cannot be read, which is the latest cannot be told, or it has no step; or
            ``directory`` is a URL.
        LoadError: ``dst`` and what is to be loaded disagree.
    """
    source = directory if isinstance(directory, From) else From(directory)
    if not isinstance(source.src, (str, os.PathLike)):
        raise TypeError(f"resume takes the path of a directory, not {type(source.src).__name__}")
    given.destination(dst, source, "resume")
    if is_url(source.src):
        raise SourceError(
            f"resume looks through a directory of this machine, and {printable(str(source.src))!r} is a URL: "
            "mount it, or copy the latest step"
        )
    where = Path(os.path.expanduser(os.fspath(source.src)))
    return _resume.resume(
        where,
        plan=lambda path: plan(dst, replace(source, src=path), history=history),
        start=lambda: _resume.start_from(otherwise, lambda values: load(dst, values)),
        skip_unreadable=skip_unreadable,
    )


def initializer(src: Any, name: NameLike, *ops: Op) -> Callable[..., jax.Array]:
    """A function of (key, shape, dtype), as those of ``jax.nn.initializers``, that gives one leaf of ``src``.

    For ``kernel_init=`` and the like in Linen and NNX. The leaf is read when a value is first asked for,
    and kept; under ``jax.eval_shape``, or where ``jax.jit`` does not need it, it is not read at all. The
    ``key`` is not looked at. The dtype is cast to as in a load: float to int is an error.

    Args:
        src: a path, a tree, a ``Source``, or a ``From``. Open a checkpoint once for several of its leaves.
        name: the name of the leaf, no pattern.
        ops: applied to it in order: ``Transpose()``, ``Reshape(...)``, ...

    Examples:
        >>> import jax, jax.numpy as jnp, treeload
        >>> init = treeload.initializer({"weight": jnp.ones((4, 3))}, "weight", treeload.Transpose())
        >>> init(jax.random.key(0), (3, 4), jnp.bfloat16).dtype
        dtype(bfloat16)

    Raises:
        SourceError: there is no such leaf, or it cannot be read.
        RuleError: the ops cannot be applied to it.
        LoadError: from the function: it is not of the shape that is asked for, or its dtype cannot be cast.
    """
    view = View.of(opened_parts(src, "initializer"))
    return _initializer.initializer(view, as_name(name), as_ops(ops, "initializer"))
