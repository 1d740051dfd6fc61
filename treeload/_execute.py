"""A plan carried out: values checked, leaves read, changed, placed, and the tree made of them.

Owns the order of things that makes a load all or nothing: first every check, then every read, and only
when nothing can fail any more the result. Refuses to own decisions: those are in the plan.

Leaves stream: each is handed on as soon as its source yields it, and what it was made of is let go, so
that the peak is the result and the leaf at hand.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from treeload._errors import LoadError, SourceError, TreeloadError
from treeload._names import Name, print_name
from treeload._ops import Derived, Leaf, Value, evaluate, fills_up
from treeload._place import cast, on_device, sharding_of, to_default_device, to_device, to_host, zeros
from treeload._plan import PLAIN, Action, Entry, EqualCheck, Finding, Plan, ZeroCheck
from treeload._specs import Kind, bare, elements, is_abstract, is_key, nbytes, print_spec
from treeload._trees import PyTree, Tree, assign, rebuild, walk
from treeload._values import equal, nonzero
from treeload.sources._base import Source, fence
from treeload.sources._memory import MemorySource

Init = Callable[[], PyTree] | None


def load(plan: Plan, *, init: Init = None, donate: bool = False, progress: bool | None = None) -> PyTree:
    """A new tree with the plan's values in it.

    Raises:
        LoadError: the plan has errors, or a value check fails.
        SourceError: a source could not be read.
    """
    tree = _destination_now(plan)
    values = _values(plan, tree, init, progress, fresh=True)
    result = rebuild(tree, values)
    if donate:
        _free_replaced(plan, tree, values)
    return result


def update(plan: Plan, *, init: Init = None, donate: bool = False, progress: bool | None = None) -> None:
    """Puts the plan's values into the destination itself, after every check and every read.

    The plan was made just now: the destination is what it was walked as.

    Raises:
        LoadError, SourceError: as ``load``; the destination is as before.
    """
    values = _values(plan, plan.tree, init, progress, fresh=False)
    assign(plan.tree, values)
    if donate:
        _free_replaced(plan, plan.tree, values)


def verify(plan: Plan) -> Plan:
    """The plan with its value checks done: what fails is a finding more, nothing is raised for it."""
    failed = dict(_failures(plan))
    passed = [finding for number, finding in sorted(failed.items())]
    return plan.with_findings(findings=(*plan.findings, *dict.fromkeys(passed)))


# Value checks.


def _failures(plan: Plan) -> Iterator[tuple[int, Finding]]:
    """The findings of the checks that fail, each with the check's number."""
    needed = [
        tuple(check.value.leaves()) if isinstance(check, ZeroCheck)
        else tuple(leaf for _, value in check.values for leaf in value.leaves())
        for check in plan.checks
    ]  # fmt: skip
    jobs = [Job(leaves) for leaves in needed]
    for number, arrays in gather(plan.sources, jobs):
        check = plan.checks[number]
        with fence(f"the values of {print_name(check.name)!r} could not be checked"):
            if isinstance(check, ZeroCheck):
                count, largest = nonzero(evaluate(check.value, arrays))
                if count:
                    yield number, _not_zero(check, count, largest)
            elif not _all_equal(check, arrays):
                yield number, check.finding


def _not_zero(check: ZeroCheck, count: int, largest: str) -> Finding:
    total = elements(check.value.spec)
    are = "element is" if total == 1 else "elements are"
    said = f"{count:,} of {total:,} {are} not zero, the largest {largest}"
    before = check.finding.message
    return replace(
        check.finding, message=f"{before}: {said}" if before else f"{said}; absent means zero here"
    )


def _all_equal(check: EqualCheck, arrays: dict[Leaf, Any]) -> bool:
    first, *others = (evaluate(value, arrays) for _, value in check.values)
    return all(equal(first, other) for other in others)


# Reading.


@dataclass
class Job:
    """Source leaves that are needed together."""

    leaves: Sequence[Leaf]
    lacking: set[Leaf] = field(init=False)

    def __post_init__(self) -> None:
        self.lacking = set(self.leaves)


def gather(
    sources: Sequence[Source],
    jobs: Sequence[Job],
    shardings: dict[Leaf, jax.sharding.Sharding] | None = None,
    read: Callable[[Any], None] = lambda leaf: None,
) -> Iterator[tuple[int, dict[Leaf, Any]]]:
    """Each job's number and arrays, as soon as its last leaf is read; an array goes with its last job."""
    waiting: dict[Leaf, list[int]] = {}
    for number, job in enumerate(jobs):
        for leaf in job.lacking:
            waiting.setdefault(leaf, []).append(number)
    held: dict[Leaf, Any] = {}
    uses = {leaf: len(numbers) for leaf, numbers in waiting.items()}
    for index, source in enumerate(sources):
        wanted = {leaf.name: leaf for leaf in waiting if leaf.index == index}
        if not wanted:
            continue
        for name, array in _read(source, wanted, shardings or {}):
            leaf = wanted[name]
            read(leaf.spec)
            held[leaf] = array
            for number in waiting[leaf]:
                job = jobs[number]
                job.lacking.discard(leaf)
                if not job.lacking:
                    yield number, {each: held[each] for each in job.leaves}
                    for each in set(job.leaves):
                        uses[each] -= 1
                        if not uses[each]:
                            del held[each]
            del array


def _read(
    source: Source, wanted: dict[Name, Leaf], shardings: dict[Leaf, jax.sharding.Sharding]
) -> Iterator[tuple[Name, Any]]:
    """Every leaf asked for, checked to be what the plan was told it is."""
    requests = {
        name: jax.ShapeDtypeStruct(leaf.spec.shape, leaf.spec.dtype, sharding=shardings.get(leaf))
        for name, leaf in wanted.items()
    }
    outstanding = set(wanted)
    with fence(f"{source.label} could not be read"):
        for name, array in source.read(requests):
            if name not in outstanding:
                raise SourceError(
                    f"{source.label} gave {print_name(name)!r}, which was not asked for (any more)"
                )
            outstanding.discard(name)
            spec = wanted[name].spec
            if array.shape != spec.shape or array.dtype != spec.dtype:
                raise _not_as_said(source, name, spec, array)
            if isinstance(array, np.ndarray) and not _is_ours(source):
                array = array.copy()
            yield name, array
        if outstanding:
            some = ", ".join(sorted(map(print_name, outstanding))[:5])
            raise SourceError(
                f"{source.label} did not give {len(outstanding)} of the leaves asked for: {some}"
            )


# Values for every slot.


def _values(plan: Plan, tree: Tree, init: Init, progress: bool | None, *, fresh: bool) -> list[Any]:
    """A value for every slot of the destination, which is not changed.

    ``fresh``: they go into a new tree, so kept NumPy arrays are copied.
    """
    _raise_for_errors(plan.verify(), init)  # checks of values too, so that all is said at once
    values = [
        value.copy() if fresh and isinstance(value, np.ndarray) and row is not PLAIN else value
        for value, row in zip(tree.values, plan.rows, strict=True)
    ]
    made = _made_by(init, plan) if init is not None else {}
    for index, row in enumerate(plan.rows):
        if isinstance(row, Entry) and row.action == Action.ZERO:
            values[index] = zeros(tree.values[index])
        elif index in made:
            values[index] = made[index]
    with _Bar(plan, progress) as bar:
        _load_leaves(plan, tree, values, bar.advance)
    for index, value in enumerate(values):
        if is_abstract(value) and plan.rows[index] is not None:
            raise AssertionError(f"{print_name(tree.names[index])!r} was left abstract")
    return values


def _is_ours(source: Source) -> bool:
    """Whether a source can be relied on to give away what it yields.

    All are asked to. But the ones that users write may yield arrays that they go on writing to, and the
    result would change behind the user's back; a copy costs less.
    """
    return type(source).__module__.startswith("treeload.")


def _not_as_said(source: Source, name: Sequence[str], said: Any, found: Any) -> SourceError:
    return SourceError(
        f"{print_name(name)!r} in {source.label} was said to be {print_spec(said)} and is {print_spec(found)}"
    )


def _destination_now(plan: Plan) -> Tree:
    """The destination walked again: what is kept is what it holds now, not what it held at plan time."""
    then, now = plan.tree, walk(plan.tree.root)
    if now.names != then.names or now.kinds != then.kinds or now.visits != then.visits:
        raise TreeloadError("the destination has changed since it was planned; plan again")
    for name, old, new, kind in zip(now.names, then.values, now.values, now.kinds, strict=True):
        if old is not new and kind == Kind.ARRAY and (old.shape != new.shape or old.dtype != new.dtype):
            raise TreeloadError(
                f"{print_name(name)!r} of the destination was {print_spec(old)} when it was planned "
                f"and is {print_spec(new)}; plan again"
            )
    return now


def _raise_for_errors(plan: Plan, init: Init) -> None:
    errors = [finding for finding in plan.errors if init is None or finding.kind != "abstract"]
    if errors:
        raise LoadError(plan.hands.error(plan, errors), findings=tuple(errors), plan=plan)


def _load_leaves(plan: Plan, tree: Tree, values: list[Any], advance: Callable[[Any], None]) -> None:
    """Reads what the plan loads, and puts each leaf into its place in ``values``."""
    placer = _Placer(tree, values)
    memory = next((source for source in plan.sources[:1] if isinstance(source, MemorySource)), None)
    if memory is not None:
        _load_from_memory(memory, plan, tree, placer, advance)
    jobs: list[Job] = []
    slots: list[int] = []
    shardings: dict[Leaf, jax.sharding.Sharding] = {}
    for index, row in enumerate(plan.rows):
        like = tree.values[index]
        if row is PLAIN and memory is None:
            value: Value = Leaf(0, Name(tree.names[index]), bare(like))
            placed = True
        elif isinstance(row, Entry) and row.value is not None:
            value = row.value
            placed = isinstance(value, Leaf) and not row.cast
        else:
            continue
        jobs.append(Job(tuple(value.leaves())))
        slots.append(index)
        if placed and on_device(like):
            sharding = sharding_of(like)
            if sharding is not None:
                shardings[value] = sharding  # type: ignore[index]  # only a Leaf is read into its place
    uses = Counter(leaf for job in jobs for leaf in job.leaves)
    for number, arrays in gather(plan.sources, jobs, shardings, advance):
        index = slots[number]
        row = plan.rows[index]
        with fence(f"{print_name(tree.names[index])!r} could not be made"):
            if isinstance(row, Entry) and row.value is not None and not isinstance(row.value, Leaf):
                placer.put(index, _made_of(row.value, arrays, values[index]), own=False)
            else:
                ((leaf, array),) = arrays.items()
                placer.put(index, array, own=uses[leaf] == 1)
        arrays.clear()
    placer.flush()


def _made_of(value: Derived, arrays: dict[Leaf, Any], held: Any) -> Any:
    """The array of an expression; ``held`` is the destination's own, for ops that fill up with it."""
    if not fills_up(value):
        return evaluate(value, arrays)
    (part,) = value.inputs
    return value.op.apply_onto(cast(evaluate(part, arrays), held.dtype), held)


def _load_from_memory(
    source: MemorySource, plan: Plan, tree: Tree, placer: _Placer, advance: Callable[[Any], None]
) -> None:
    """Loads the leaves that a tree in memory gives as they are.

    There is nothing to ask for, to wait for and to let go, which otherwise takes most of the time.
    """
    for index, row in enumerate(plan.rows):
        if row is PLAIN:
            like, name = tree.values[index], tree.names[index]
            try:
                array = source.take(name)
                if array.shape != like.shape or array.dtype != like.dtype:
                    raise _not_as_said(source, name, like, array)
                placer.put(index, array, own=True)
            except Exception:  # raised again at once: a fence entered for each leaf costs more than the leaf
                with fence(f"{print_name(name)!r} could not be made"):
                    raise
            advance(array)


class _Placer:
    """Puts arrays on devices, those for the default device in batches: a call costs as much as a leaf."""

    _BYTES = 32 << 20
    _COUNT = 512

    def __init__(self, tree: Tree, values: list[Any]) -> None:
        self.likes = tree.values
        self.values = values
        self.batch: list[tuple[int, np.ndarray[Any, Any]]] = []
        self.size = 0

    def put(self, index: int, array: Any, *, own: bool) -> None:
        """Makes ``array`` the value of a slot. ``own``: nobody else holds it, so it need not be copied."""
        like = self.likes[index]
        dtype = getattr(like, "dtype", None)  # a Python number has none
        if dtype is not None and array.dtype != dtype:
            array, own = cast(array, dtype), True
        if not on_device(like):
            self.values[index] = to_host(array, like, own=own)
        elif isinstance(array, np.ndarray) and sharding_of(like) is None:
            self.batch.append((index, array))
            self.size += array.nbytes
            if self.size >= self._BYTES or len(self.batch) >= self._COUNT:
                self.flush()
        else:
            self.values[index] = to_device(array, like)

    def flush(self) -> None:
        for (index, _), placed in zip(
            self.batch, to_default_device([array for _, array in self.batch]), strict=True
        ):
            self.values[index] = placed
        self.batch, self.size = [], 0


# What the source does not give.


def _made_by(init: Callable[[], PyTree], plan: Plan) -> dict[int, Any]:
    """Values for kept, abstract slots, from ``init`` under jit: XLA computes nothing else of it."""
    tree = plan.tree
    wanted = plan.abstract_kept()
    if not wanted:
        return {}
    names = [tree.names[index] for index in wanted]

    def only_what_is_needed() -> list[Any]:
        made = walk(init(), traced=True)
        found = dict(zip(made.names, made.values, strict=True))
        for name, aliases in made.aliases.items():
            found.update(dict.fromkeys(aliases, found[name]))
        lacking = [
            print_name(name) for name in names if name not in found or not hasattr(found[name], "shape")
        ]
        if lacking:
            raise TreeloadError(f"init() gives no array for {', '.join(lacking[:5])}")
        return [found[name] for name in names]

    shardings = [sharding_of(tree.values[index]) for index in wanted]
    out = shardings if any(sharding is not None for sharding in shardings) else None
    try:
        arrays = jax.jit(only_what_is_needed, out_shardings=out)()
    except TreeloadError:
        raise
    except Exception as error:
        raise TreeloadError(f"init() could not be run under jit: {type(error).__name__}: {error}") from error
    for index, array in zip(wanted, arrays, strict=True):
        spec = tree.values[index]
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise TreeloadError(
                f"init() gives {print_spec(array)} for {print_name(tree.names[index])!r}, "
                f"the destination asks for {print_spec(spec)}"
            )
    return dict(zip(wanted, arrays, strict=True))


def _free_replaced(plan: Plan, tree: Tree, values: Sequence[Any]) -> None:
    """Frees the destination's arrays that were replaced and whose buffers nothing else holds."""
    held = {pointer for value in values for pointer in _buffers(value)}
    for source in plan.sources:
        for value in source.shaped().values():
            held.update(_buffers(value))
    for old, new in zip(tree.values, values, strict=True):
        if isinstance(old, jax.Array) and old is not new and not is_key(old.dtype) and not old.is_deleted():
            if held.isdisjoint(_buffers(old)):
                old.delete()


def _buffers(value: Any) -> list[int]:
    """The addresses of a jax array's buffers on this process."""
    if not isinstance(value, jax.Array) or is_key(value.dtype) or value.is_deleted():
        return [id(value)]
    return [shard.data.unsafe_buffer_pointer() for shard in value.addressable_shards] or [id(value)]


class _Bar:
    """A progress bar in bytes, shown on a terminal once a load has lasted a second."""

    _PATIENCE = 1.0  # seconds

    def __init__(self, plan: Plan, progress: bool | None) -> None:
        console = Console(stderr=True)
        self.wanted = console.is_terminal if progress is None else progress
        self.patience = self._PATIENCE if progress is None else 0.0
        self.console = console
        self.plan = plan
        self.start = time.monotonic()
        self.done = 0
        self.bar: Progress | None = None
        self.task: Any = None

    def __enter__(self) -> _Bar:
        return self

    def advance(self, leaf: Any) -> None:
        if not self.wanted:
            return
        self.done += nbytes(leaf)
        if self.bar is None and time.monotonic() - self.start >= self.patience:
            total = sum(nbytes(leaf.spec) for entry in self.plan.entries for leaf in entry.sources)
            columns = (TextColumn("loading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.task = self.bar.add_task("loading", total=total)
            self.bar.start()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
