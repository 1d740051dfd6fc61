"""``Plan``, the face of a load: what was decided, and what can be done with it.

Owns the verbs of a plan: load, verify, print, suggest, mask, require, lock. What is decided is ``Decisions``
(``_plans``), how it comes about is ``_matching``, how it reads ``_reports``, how it is carried out
``_loading``: this file only puts them together. With it come ``LoadError``, which carries a plan, and
``check_lock``, which compares one with what ``Plan.lock`` wrote.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
from rich.text import Text

from treeload._errors import SourceError, TreeloadError
from treeload._files.budget import at_most
from treeload._files.meeting import together
from treeload._findings.finding import Finding
from treeload._findings.portable import portable
from treeload._inference.suggestions import Suggestions
from treeload._leaves.selection import Patterns, Within, compile_patterns
from treeload._loading import checks, load
from treeload._loading.initial import check_init
from treeload._loading.progress import Progress, check_progress
from treeload._loading.shardings import Shardings, asking, span_processes
from treeload._plans import lock
from treeload._plans.decisions import Decisions, percent
from treeload._plans.entry import Action
from treeload._plans.lock import Difference
from treeload._reports.browser.plan import plan_page
from treeload._reports.html import error_html, plan_html, text_html
from treeload._reports.locked import lock_text
from treeload._reports.text import Report, error_rich, error_text, plan_rich
from treeload._sources.source import Source, read_again
from treeload._trees.marks import marked
from treeload._trees.tree import PyTree

Init = Callable[[], PyTree] | None


_Result = TypeVar("_Result")


class LoadError(TreeloadError):
    """A load that would go wrong; nothing was changed.

    Attributes:
        findings: every finding whose verdict is ``error``, none grouped or cut.
        plan: the plan they were found in; None once the error has crossed to another process, since a plan
            holds the destination itself, with all its arrays. What of a finding cannot cross, such as a
            rule with a function of yours, is there as what it prints as.
    """

    __module__ = "treeload"

    def __init__(self, message: str, *, findings: tuple[Finding, ...], plan: Plan) -> None:
        super().__init__(message)
        self.findings = findings
        self.plan = plan

    def __repr__(self) -> str:
        return f"<LoadError: {str(self).partition(chr(10))[0]}>"

    def __rich__(self) -> Report | Text:
        """The text for a rich console, with colours where it is a terminal."""
        return Text(str(self)) if self.plan is None else error_rich(self.plan, self.findings)

    def to_html(self) -> str:
        """The text as a piece of HTML, without scripts or links to anything."""
        return text_html(str(self)) if self.plan is None else error_html(self.plan, self.findings)

    def _repr_html_(self) -> str:
        return self.to_html()

    def __reduce__(self) -> tuple[Any, ...]:
        notes = {"__notes__": self.__notes__} if hasattr(self, "__notes__") else None
        return _load_error, (type(self), str(self), portable(self.findings)), notes


def _load_error(cls: type[LoadError], message: str, findings: tuple[Finding, ...]) -> LoadError:
    """The error on the other side of a process."""
    # Where it was raised, which is where it is mostly caught, there is a plan, and no checker need be told.
    return cls(message, findings=findings, plan=None)  # type: ignore[arg-type]


class LockError(TreeloadError):
    """A plan that is not what its lock holds, or a lock that is none.

    Attributes:
        differences: each fact that is not the same, none grouped or cut: ``.name``, ``.what`` is said of it,
            the values that are ``.locked`` and those that are ``.now``; empty where there is no lock, or what
            lies there is none.
    """

    __module__ = "treeload"

    def __init__(self, message: str, differences: tuple[Difference, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Decisions):
    """What a load will do, leaf by leaf, and everything that is wrong with it.

    Made by ``treeload.plan`` without reading an array. It does not change: ``verify`` gives a new one.

    Attributes:
        findings: every disagreement, whatever its verdict, by kind and then in the destination's order.
        unused: source leaves that feed nothing, each with why.

    What the rooms below work from, and users need not look at, is described with ``Decisions``; ``init`` is
    what makes the leaves that are kept and abstract where ``load`` is given nothing else for them.
    """

    init: Init = None

    @classmethod
    def of(cls, decisions: Decisions, *, init: Init = None) -> Self:
        """The plan that carries out these decisions."""
        return cls(**{field.name: getattr(decisions, field.name) for field in fields(Decisions)}, init=init)

    # What it says.

    def to_json(self, *, indent: int | None = None) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def to_html(self) -> str:
        """The report as a page: one HTML file that fetches nothing, every leaf in a tree that folds."""
        return plan_page(self)

    def _repr_html_(self) -> str:
        """What is wrong, and what loads folded away: a small piece of HTML without scripts, for notebooks."""
        return plan_html(self)

    def __str__(self) -> str:
        return plan_rich(self).plain

    def __rich__(self) -> Report:
        """The report for a rich console, with colours where it is a terminal."""
        return plan_rich(self)

    def __repr__(self) -> str:
        return f"<Plan: {self.summary()}>"

    def suggest(self) -> Suggestions:
        """Rules for what did not match, inferred from names and shapes; to be passed on as they are.

        The plan's own rules come first among them. Each has a reason that says how sure it is; where
        several source leaves fit equally well there is no rule, and ``ambiguous`` lists them. Nothing is
        applied, and no array is read.

        Examples:
            >>> import jax.numpy as jnp, treeload
            >>> dst = {"up": {"kernel": jnp.zeros((2, 3))}}
            >>> src = {"model": {"up": {"weight": jnp.ones((3, 2))}}}
            >>> rules = treeload.plan(dst, src).suggest()
            >>> rules[0]
            Rename('model/up/weight', 'up/kernel', Transpose())
            >>> treeload.plan(dst, src, rules=rules).ok
            True
        """
        return self.suggestions

    # What it holds you to.

    def raise_for_errors(self) -> None:
        """Nothing where the plan has no errors.

        Raises:
            LoadError: it has; the error carries all of them.
        """
        self._raise_for(self.errors)

    def _raise_for(self, errors: Sequence[Finding]) -> None:
        if errors:
            raise LoadError(error_text(self, errors), findings=tuple(errors), plan=self)

    def verify(self) -> Plan:
        """This plan with its value checks done; nothing is loaded and nothing is raised for findings.

        Raises:
            SourceError: a source could not be read.
        """
        return self.verified(checks.failures(self)) if self.checks else self

    def require(self, *, coverage: float | None = None, kept: Patterns | None = None) -> Plan:
        """This plan, where it loads at least as much as asked.

        Args:
            coverage: the least share of elements that must load, from 0.0 to 1.0.
            kept: patterns of the only leaves that may be kept; ``()`` for none.

        Raises:
            LoadError: less is loaded, or another leaf is kept; ``findings`` are the plan's errors.
            RuleError: a pattern that cannot mean anything.
            TypeError: ``coverage`` is no share.
        """
        problems = []
        if coverage is not None and not (type(coverage) in (int, float) and 0 <= coverage <= 1):
            raise TypeError(f"coverage is a share from 0 to 1, such as 0.9; not {coverage!r}")
        if coverage is not None and self.coverage < coverage:
            problems.append(
                f"{percent(self.coverage)} of the destination's elements load, "
                f"{percent(coverage)} are required"
            )
        if kept is not None:
            allowed = Within(compile_patterns(kept, "kept is a pattern or several"))
            extra = [
                str(entry.name)
                for entry in self.entries
                if entry.action == Action.KEEP
                and not any(allowed.holds(name, entry.spec) for name in (entry.name, *entry.aliases))
            ]
            if extra:
                shown = ", ".join(extra[:10]) + (f" and {len(extra) - 10:,} more" if len(extra) > 10 else "")
                problems.append(
                    f"{len(extra):,} {'leaf is' if len(extra) == 1 else 'leaves are'} kept beyond those "
                    f"allowed: {shown}"
                )
        if problems:
            raise LoadError("; ".join(problems) + f"\n\n{self}", findings=self.errors, plan=self)
        return self

    def lock(self, path: str | os.PathLike[str]) -> None:
        """Writes down what would load, for ``check_lock`` to compare with: a text file for the repository.

        Sorted, one fact a line: names, actions, specs, source names and specs, ops, rules, and digests where
        the source knows them; nothing of the machine, such as paths. A lock that is there is replaced.

        Raises:
            LoadError: the plan has errors that ``init=`` does not settle: nothing would load.
            SaveError: what is at ``path`` is no lock, or the file system refuses.
        """
        self._raise_for(self.errors_despite_init)
        lock.write_lock(Path(os.path.expanduser(os.fspath(path))), self)

    # What it gives on.

    def mask(self, wrt: Any = None) -> PyTree:
        """A tree of bool in the destination's structure: True where a leaf is loaded, zeroed or tied.

        It is a mask for ``optax.masked``. For NNX objects it is a ``nnx.State``, as optax is given them.

        Args:
            wrt: for NNX objects, the filter of those variables that the optimizer is for, such as
                ``nnx.Param``; None: all of them.

        Examples:
            >>> import jax.numpy as jnp, treeload
            >>> dst = {"trunk": jnp.zeros(2), "head": jnp.zeros(3)}
            >>> policy = treeload.Policy(missing={"head": "keep"})
            >>> treeload.plan(dst, {"trunk": jnp.ones(2)}, policy=policy).mask()
            {'head': False, 'trunk': True}

        Raises:
            TypeError: ``wrt`` was given, and the destination holds no NNX variables.
        """
        return self.labels(loaded=True, kept=False, wrt=wrt)

    def labels(self, *, loaded: Any = "loaded", kept: Any = "kept", wrt: Any = None) -> PyTree:
        """As ``mask``, with two labels of your own instead: the ``param_labels`` of ``optax.partition``.

        What is no array of the destination (a static) counts as kept, and so does a leaf with a problem.

        Raises:
            TypeError: as ``mask``.
        """
        changed = {
            name for entry in self.entries if entry.action != Action.KEEP
            for name in (entry.name, *entry.aliases)
        }  # fmt: skip
        return marked(
            self.tree.root, lambda names: loaded if names and changed.issuperset(names) else kept, wrt
        )

    def load(
        self,
        *,
        init: Init = None,
        donate: bool = False,
        progress: Progress = None,
        check_digests: bool = True,
        sharding: Shardings | None = None,
        budget: int | None = None,
    ) -> PyTree:
        """A new tree of the destination's structure with the source's values; or nothing is changed.

        Args:
            init: a function of no arguments giving a concrete tree of the destination's structure. It
                is asked only for leaves that are kept and abstract; it is jitted, so that what is not
                needed is never computed.
            donate: free the destination's replaced arrays once nothing can fail any more.
            progress: whether to show a bar; None: on a terminal or in a notebook, once the load lasts over a
                second. Or a function that is called after each source leaf that is read, with the bytes
                read so far, the bytes to be read in all, and that leaf's ``Name`` in its source. What
                it raises ends the load, and nothing is changed. Where a source was replaced meanwhile, it
                is read again and counted anew; what value checks read before the load does not count.
            check_digests: hold all that is read against the digests of its source; ``False`` is the only
                way to load leaves that are damaged. What a source says of itself is checked all the same.
            sharding: where the result's arrays are to lie, instead of where the destination's do: one
                ``jax.sharding.Sharding`` for all of them; a tree of them of the destination's structure, or
                a prefix of one, None standing for the destination's own; or a function of ``(name, spec)``
                that gives each leaf's. ``PartitionSpec``s are over the mesh of ``jax.set_mesh``. NumPy arrays
                become jax arrays, numbers stay numbers; what is kept is moved too.
            budget: bytes that may be read and not yet in their places at a time, beside the result; one leaf
                may be more. None: 64 MiB, 256 MiB through TensorStore.

        Examples:
            >>> import jax, numpy as np, treeload
            >>> mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
            >>> rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
            >>> plan = treeload.plan({"w": np.zeros((4, 2))}, {"w": np.ones((4, 2))})
            >>> plan.load(sharding=rows)["w"].sharding == rows
            True

        Raises:
            LoadError: the plan has errors, a value check fails, or a value overflows its cast.
            SourceError: a source could not be read, or is damaged.
            TreeloadError: a leaf cannot be placed as ``sharding`` says, or that has what is for no leaf.
            TypeError: ``init`` is no such function, what ``sharding`` has for a leaf is no sharding,
                ``budget`` is no integer, or ``progress`` none of these.
            ValueError: ``budget`` is not above zero.
        """
        check_init(init)
        with at_most(budget), self._by_all_processes("load it", sharding):
            check_progress(progress)
            now = load.destination_now(self)  # first: a plan that is out of date has nothing else to say
            wanted = None if sharding is None else asking(now, sharding)

            def from_sources(plan: Plan) -> PyTree:
                made = plan.checked(init)
                return load.load(
                    plan, now, plan._refuse, init=made, donate=donate, progress=progress, wanted=wanted
                )

            return self._of_one_moment(from_sources, check_digests)

    def update(
        self,
        *,
        init: Init = None,
        donate: bool = False,
        progress: Progress = None,
        check_digests: bool = True,
        budget: int | None = None,
    ) -> None:
        """Puts the values into the destination itself: ``treeload.update``, by a plan made just now.

        Raises:
            LoadError, SourceError, TypeError, ValueError: as ``load``; the destination is as before.
        """

        check_init(init)

        def from_sources(plan: Plan) -> Callable[[], None]:
            made = plan.checked(init)
            return load.prepared(plan, plan._refuse, init=made, donate=donate, progress=progress)

        with at_most(budget), self._by_all_processes("update it"):
            check_progress(progress)
            put_in = self._of_one_moment(from_sources, check_digests)
        put_in()

    def _by_all_processes(self, what: str, sharding: Shardings | None = None) -> AbstractContextManager[None]:
        """Where what is loaded is spread over processes: all of them do it, or none; else no more than it."""
        if jax.process_count() == 1 or not span_processes(self.tree.values, sharding):
            return nullcontext()
        return together(what, TreeloadError, sign=lock.sign_of(self))

    def _of_one_moment(self, carry_out: Callable[[Plan], _Result], check_digests: bool) -> _Result:
        """What carrying out the plan gives, values checked and read while no source was replaced.

        All of it is done again where one was, by a save, if it holds the same leaves by now.
        """
        plan = self

        def once() -> _Result:
            nonlocal plan
            try:
                return carry_out(plan if check_digests else plan._with(lambda source: source.unchecked()))
            except SourceError as error:
                if error.changed:
                    plan = plan._with(lambda source: source.opened_again() or source)
                raise

        return read_again(once)

    def _with(self, change: Callable[[Source], Source]) -> Plan:
        return replace(self, sources=tuple(map(change, self.sources)))

    def _refuse(self, found: Sequence[Finding]) -> None:
        """Raises what was found while the values were read, where any of it is an error."""
        self.verified(found)._raise_for([finding for finding in found if finding.verdict == "error"])

    def checked(self, init: Init) -> Init:
        """What makes the leaves that are kept and abstract, once every check is done and nothing is wrong.

        Raises:
            LoadError: something is; what the values tell too, so that all of it is said at once.
        """
        init = self.init if init is None else init
        verified = self.verify()
        verified._raise_for(verified.errors if init is None else verified.errors_despite_init)
        return init


def check_lock(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Nothing, where ``plan`` is what ``plan.lock(path)`` wrote; no array is read.

    For a test: it fails when a change of the model, the rules or the checkpoint changes what would load.
    Which function an ``Apply`` calls is told by its name alone.

    Examples:
        >>> import jax.numpy as jnp, tempfile, treeload
        >>> path = f"{tempfile.mkdtemp()}/model.lock"
        >>> treeload.plan({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}).lock(path)
        >>> treeload.check_lock(treeload.plan({"w": jnp.zeros(2)}, {"w": jnp.zeros(2)}), path)

    Raises:
        LockError: it is not, all differences said at once; or there is no lock at ``path``, or a damaged one.
        TypeError: ``plan`` is no Plan, or ``path`` no path.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"check_lock(plan, path) takes a Plan first, not a {type(plan).__name__}")
    where = Path(os.path.expanduser(os.fspath(path)))
    try:
        locked = lock.read_lock(where)
    except ValueError as error:
        raise LockError(f"{str(where)!r} cannot be compared with: {error}") from error
    found = lock.differences(locked, lock.facts_of(plan))
    if found:
        raise LockError(lock_text(str(where), found), found)
