"""The verbs of treeload: wiring, no decisions. Each opens sources, walks trees, and hands both to a room."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from treeload._checkpoints import average as _average
from treeload._checkpoints import compare as _diff
from treeload._checkpoints import export as _export
from treeload._checkpoints import initializer as _initializer
from treeload._checkpoints import resume as _resume
from treeload._checkpoints.left_out import left_out, warn_of_left_out
from treeload._checkpoints.view import View
from treeload._errors import RuleError, SaveError
from treeload._findings.policy import Policy, Verdicts
from treeload._formats import open_source
from treeload._formats.orbax import write as _save
from treeload._leaves.selection import Patterns, Scope
from treeload._leaves.spec import SlotKind
from treeload._matching.match import match
from treeload._matching.parts import opened_parts, opened_source
from treeload._naming.name import Name, NameLike, as_name
from treeload._ops.op import Op, as_ops
from treeload._plan import Plan
from treeload._reports.diff import Diff
from treeload._reports.inventory import Inventory, inventory
from treeload._rules.rule import Rule, as_rules
from treeload._sources import given
from treeload._sources.part import From
from treeload._sources.source import Source
from treeload._trees.rebuild import updatable
from treeload._trees.tree import PyTree, nested, printed_names


def plan(
    dst: PyTree,
    src: Any,
    *,
    rules: Rule | Iterable[Rule] = (),
    policy: Policy = Policy(),  # noqa: B008  # a Policy never changes
    scope: Scope = None,
) -> Plan:
    """What loading ``src`` into ``dst`` would do, leaf by leaf, and everything that is wrong with it.

    Reads names, shapes and dtypes; never an array, and changes nothing.

    Args:
        dst: the destination: any pytree, NNX Module or Optimizer; concrete, or abstract
            (``jax.eval_shape``, ``nnx.eval_shape``). It decides structure, dtypes and placement.
        src: where values come from: a tree in memory, a path to a checkpoint, a ``Source``, a ``From``,
            or a list of ``From``s and ``Source``s.
        rules: how source names and layouts become the destination's; the first that matches a leaf
            takes it.
        policy: what is forgiven; by default nothing.
        scope: the part of the destination that is loaded: a pattern over names, several, or a predicate
            on (name, spec). All else is kept and not reported.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> plan = treeload.plan({"w": jnp.zeros(3), "b": jnp.zeros(2)}, {"w": jnp.ones(3)})
        >>> [str(finding) for finding in plan.errors]
        ['missing b: the source has nothing here']

    Raises:
        SourceError: the source is missing, malformed, or does not say what it holds.
        RuleError: a rule, pattern or scope that cannot mean anything.
        NameCollision: two leaves of one tree have one name.
        TypeError: ``dst`` is no tree (a class, a function, a path), ``src`` is no source, or either holds
            arrays where they never load: inside of an object that JAX does not know, say.
    """
    return plan_under(checked_policy(policy), dst, src, "plan", rules=rules, scope=scope)


def plan_under(
    verdicts: Verdicts, dst: PyTree, src: Any, verb: str, *, rules: Rule | Iterable[Rule], scope: Scope
) -> Plan:
    """As ``plan``, asked for by ``verb``; something else than a user's policy may give the verdicts."""
    with _no_collections():
        tree = given.destination(dst, src, verb)
        decided = match(
            tree, opened_parts(src, verb), rules=as_rules(rules, "rules=..."), policy=verdicts, scope=scope
        )
        return Plan.of(decided)


def load(
    dst: PyTree,
    src: Any,
    *,
    rules: Rule | Iterable[Rule] = (),
    policy: Policy = Policy(),  # noqa: B008
    scope: Scope = None,
    **how: Any,
) -> PyTree:
    """A new tree of ``dst``'s structure, types and placement with the values of ``src``.

    The same as ``plan(...).load(**how)``: ``init``, ``donate`` and ``progress`` are those of
    ``Plan.load``. ``dst`` is never changed.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> treeload.load({"w": jnp.zeros(2)}, {"w": jnp.ones(2)})
        {'w': Array([1., 1.], dtype=float32)}

    Raises:
        LoadError: anything is wrong, all of it said at once; nothing was changed.
        SourceError, RuleError, NameCollision, TypeError: as ``plan``.
    """
    return plan_under(checked_policy(policy), dst, src, "load", rules=rules, scope=scope).load(**how)


def update(
    obj: Any,
    src: Any,
    *,
    rules: Rule | Iterable[Rule] = (),
    policy: Policy = Policy(),  # noqa: B008
    scope: Scope = None,
    **how: Any,
) -> None:
    """Puts the values of ``src`` into an NNX Module or Optimizer itself: all of them, or none.

    Every check is made and every leaf read before the first Variable is set. ``how`` is as in ``load``.

    Raises:
        TypeError: ``obj`` cannot be updated in place; ``load`` gives a new tree of any kind.
        LoadError, SourceError, RuleError, NameCollision: as ``load``; ``obj`` is as before.
    """
    if not updatable(obj):
        given.destination(obj, src, "update")  # a class, say, is refused as such
        raise TypeError(
            f"update() writes into NNX Modules, Optimizers, Variables and jax.Refs; a {type(obj).__name__} "
            "cannot be updated in place: use tree = treeload.load(tree, ...)"
        )
    plan_under(checked_policy(policy), obj, src, "update", rules=rules, scope=scope).update(**how)


def save(
    path: str | os.PathLike[str],
    tree: PyTree,
    *,
    metadata: Mapping[str, Any] | None = None,
    history: Any = None,
    overwrite: bool = False,
    compression: bool = False,
) -> None:
    """Writes ``state(tree)`` through Orbax, so that ``open``, ``load`` and plain Orbax read it.

    Tied leaves are written once and their aliases recorded; so are absent slots, arrays of size zero,
    and a digest of every leaf. What is no array and no number (a text, a function) cannot be stored:
    ``inspect`` shows its name, and a ``TreeloadWarning`` says it, but for a module's own configuration.

    Args:
        path: the directory to make. Relative paths and missing parents are fine.
        tree: any tree of concrete arrays.
        metadata: JSON-like data kept with the checkpoint; ``open(path).metadata`` gives it back.
        history: the version of the code's parameters to record.
        overwrite: replace a checkpoint at ``path``. The old one is not removed before the new one is
            complete; what is not a checkpoint is never replaced.
        compression: compress with zstd: on float weights a few per cent smaller, and 3–4 times slower.

    Raises:
        SaveError: ``path`` exists and ``overwrite`` was not asked for, or is no checkpoint; a leaf is
            abstract or of a type that cannot be stored; two names are one for Orbax.
        NameCollision: two leaves have one name.
        TypeError: ``path`` is no path, or ``tree`` no tree.
    """
    given.path(path, "save")
    walked = given.read_only(tree, "save", error=SaveError)
    if walked.names == [()] and walked.kinds[0] <= SlotKind.SCALAR:
        raise SaveError("a single array has no name to be saved under; save a dict, {'array': array}")
    absent = {Name(name): value for name, value, kind in walked.slots() if kind == SlotKind.ABSENT and name}
    aliases = {Name(alias): Name(name) for name, others in walked.aliases.items() for alias in others}
    warn_of_left_out(walked, stacklevel=2)  # before a byte is written, for whom it is an error
    leaves = {Name(name): value for name, value in walked.leaves()}
    _save.write(
        Path(os.fspath(path)), leaves, beside=_save.Beside(aliases, absent, history, left_out(walked)),
        metadata=metadata, overwrite=overwrite, compression=compression,
    )  # fmt: skip


def export(
    path: str | os.PathLike[str],
    tree: PyTree,
    *,
    like: Plan | None = None,
    rules: Rule | Iterable[Rule] = (),
) -> None:
    """Writes ``tree`` in the names and the layout of the source that it was loaded from.

    ``path`` ends in ``.safetensors`` for such a file, with the source's metadata; else it is an Orbax
    checkpoint. A leaf that was loaded and exported again is the same bit for bit. Leaves that came from
    no source leaf (a new head) keep their own names.

    Args:
        path: where to write; nothing may be there.
        tree: a concrete tree of the plan's destination's structure.
        like: the plan by which it was loaded: it knows every source leaf's shape and dtype, so more
            can be undone.
        rules: without a plan, the rules by which it was loaded; each must have an inverse. A ``Tie``'s
            leaf is left out, once it is checked to be tied still.

    Raises:
        SaveError: something cannot be undone, said by name before a byte is written; or the path
            exists, or the file system refuses.
    """
    given.path(path, "export")
    given.read_only(tree, "export", error=SaveError)
    if like is not None and not isinstance(like, Plan):
        raise TypeError(
            f"export(like=...) takes the Plan by which the tree was loaded, not a {type(like).__name__}"
        )
    if like is not None and rules:
        raise RuleError("export takes a plan or rules, not both: the plan knows its rules")
    _export.export(
        Path(os.path.expanduser(os.fspath(path))), tree, like=like, rules=as_rules(rules, "rules=...")
    )


def state(tree: PyTree) -> Any:
    """The nested dict of what would load from ``tree``, and nothing else.

    Statics, absent slots and empty nodes are left out, boxes are opened, lists become dicts keyed by
    index, tied leaves are there once under their canonical name. A Python flag is there whichever way it
    stands: ``False`` is a flag's value, and an absence only where it meets an array. Arrays are not copied.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> treeload.state({"w": jnp.ones(2), "layers": [jnp.zeros(1), None], "act": "relu"})
        {'layers': {'0': Array([0.], dtype=float32)}, 'w': Array([1., 1.], dtype=float32)}

    Raises:
        NameCollision: two leaves have one name.
    """
    walked = given.read_only(tree, "state", traced=True)
    return nested({**dict.fromkeys(walked.flags_off(), False), **dict(walked.leaves())})


def open(path: str | os.PathLike[str]) -> Source:
    """The checkpoint at ``path``, opened: its names, shapes and dtypes are known, its arrays not read.

    Raises:
        SourceError: nothing is there, or nothing that treeload knows; or it is incomplete or malformed.
    """
    return open_source(path)


def inspect(src: Any) -> Inventory:
    """What a source holds: names, shapes, dtypes, bytes, ties, metadata; no array is read.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> print(treeload.inspect({"w": jnp.ones((2, 3))}))
        1 leaf, 6 elements, 24 B in a tree in memory
        <BLANKLINE>
          w  float32[2,3]  24 B

    Raises:
        SourceError: as ``open``.
    """
    return inventory(opened_source(src, "inspect"))


def names(tree: PyTree) -> tuple[str, ...]:
    """The printed names of the leaves of ``tree``, tied ones once, in the tree's order.

    Examples:
        >>> import jax.numpy as jnp, treeload
        >>> treeload.names({"layers": [{"kernel": jnp.ones(2), "bias": None}], "n": 3})
        ('layers/0/kernel', 'n')

    Raises:
        NameCollision: two leaves have one name.
    """
    return printed_names(given.read_only(tree, "names", traced=True))


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
    return _diff.diff(View.of(ours, as_rules(rules, "rules=...")), View.of(theirs))


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
        skip_unreadable: take the latest checkpoint that can be read, and log those that cannot. Else
            such a checkpoint is an error: nothing is lost without your knowing.

    Returns:
        The state, and its step: the number in the name of the step's directory, an int unless the name has
        a fraction (``checkpoint_0.85``); for a checkpoint that is replaced, ``metadata["step"]`` of the save,
        or else its one leaf called ``step``. ``None`` says that the training is new.

    Raises:
        SourceError: a checkpoint cannot be read, which is the latest cannot be told, or it has no step.
        LoadError: ``dst`` and what is to be loaded disagree.
    """
    source = directory if isinstance(directory, From) else From(directory)
    if not isinstance(source.src, (str, os.PathLike)):
        raise TypeError(f"resume takes the path of a directory, not {type(source.src).__name__}")
    given.destination(dst, source, "resume")
    where = Path(os.path.expanduser(os.fspath(source.src)))
    return _resume.resume(
        where,
        plan=lambda path: plan(dst, replace(source, src=path)),
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


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keeps Python's cyclic garbage collector quiet: a plan makes many objects, none of them garbage.

    Each collection would walk all that was made so far: half the time of planning 40,000 leaves.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# From what users write to what the rooms take.


def checked_policy(policy: Policy) -> Policy:
    """``policy``, if it is one.

    Raises:
        RuleError: it is something else, such as a dict.
    """
    if not isinstance(policy, Policy):
        raise RuleError(f"policy is a Policy(...), not {policy!r}")
    return policy
