"""What a load will do: entries and findings, as data that can be asked, printed and stored.

Owns ``Plan``, ``Entry``, ``Finding``, ``SourceLeaf`` and every question they answer. Refuses to own how
they come about (``_matching``), how they read (``_reports``) and how they are carried out (``_loading``):
those rooms lie above this one and are handed in as ``Hands``. Nothing here reads an array.

A plan of 100,000 leaves is made in a fraction of a second because most of its entries say the same
thing: "this leaf, from the leaf of that name". Those are kept as a mark in a list and become ``Entry``
objects when somebody looks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from treeload._errors import LoadError, RuleError
from treeload._findings.finding import Finding
from treeload._findings.kinds import KINDS
from treeload._inference.diagnosis import diagnose
from treeload._inference.suggest import suggest
from treeload._inference.suggestions import Suggestions
from treeload._leaves.selection import Patterns, Within, compile_patterns
from treeload._leaves.spec import Spec, elements, is_abstract, quantity, spec_of, without_sharding
from treeload._naming.name import Keys, Name, NameLike, as_name, print_name
from treeload._ops.expression import Leaf
from treeload._plans.as_dict import entry_dict, finding_dict, leaf_dict
from treeload._plans.check import EqualCheck, ZeroCheck
from treeload._plans.entry import SAME_NAME, Action, Entry, Row, Unused
from treeload._rules.rule import Rule
from treeload._sources.source import Source, SourceLeaf
from treeload._trees.marks import marked
from treeload._trees.tree import PyTree, Tree


@dataclass(frozen=True, slots=True)
class Hands:
    """What the rooms above do with a plan, handed in by whoever makes one."""

    load: Callable[..., PyTree]
    verify: Callable[[Plan], Plan]
    text: Callable[[Plan], str]
    html: Callable[[Plan], str]
    error: Callable[[Plan, Sequence[Finding]], str]


class Plan:
    """What a load will do, leaf by leaf, and everything that is wrong with it.

    Made by ``treeload.plan`` without reading an array. It does not change: ``verify`` gives a new one.

    Attributes:
        findings: every disagreement, whatever its verdict, by kind and then in the destination's order.
        unused: source leaves that feed nothing, each with why.

    What the rooms above work from, and users need not look at: ``tree`` (the walked destination),
    ``sources``, ``rows`` (one for each slot), ``checks`` (of values, to be done), ``done`` (those that were),
    ``given`` (the rules), ``before_rules`` (the source under the names they see), ``hands``.
    """

    def __init__(
        self,
        *,
        tree: Tree,
        sources: tuple[Source, ...],
        rows: list[Row],
        findings: Iterable[Finding],
        unused: Iterable[Unused],
        checks: tuple[ZeroCheck | EqualCheck, ...],
        hands: Hands,
        given: tuple[Rule, ...] = (),
        before_rules: Callable[[], Mapping[Keys, Spec]] = dict,
        done: tuple[ZeroCheck | EqualCheck, ...] = (),
    ) -> None:
        self.done = done
        self.tree = tree
        self.given = given
        self.before_rules = before_rules
        self.sources = sources
        self.rows = rows
        self.checks = checks
        self.hands = hands
        order = list(KINDS)
        self.findings: tuple[Finding, ...] = tuple(sorted(findings, key=lambda f: order.index(f.kind)))
        self.unused: tuple[Unused, ...] = tuple(unused)

    # What it says.

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """One entry for each leaf of the destination, in the destination's order."""
        return tuple(
            self._plain_entry(index) if row is SAME_NAME else row  # type: ignore[misc]  # the third kind is Entry
            for index, row in enumerate(self.rows)
            if row is not None
        )

    def _plain_entry(self, index: int) -> Entry:
        name, value = Name(self.tree.names[index]), self.tree.values[index]
        spec = without_sharding(value)
        label = self.sources[0].label
        return Entry(
            name, Action.LOAD, spec, (SourceLeaf(label, name, spec),),
            optional=self.tree.names[index] in self.tree.optional, value=Leaf(0, name, spec),
        )  # fmt: skip

    @cached_property
    def _by_name(self) -> dict[Name, Entry]:
        found = {entry.name: entry for entry in self.entries}
        for entry in self.entries:
            found.update(dict.fromkeys(entry.aliases, entry))
        return found

    def __getitem__(self, name: NameLike) -> Entry:
        """The entry of a leaf, by its name or by any alias.

        Raises:
            KeyError: the destination has no leaf of that name.
        """
        try:
            return self._by_name[as_name(name)]
        except KeyError:
            raise KeyError(f"the destination has no leaf {print_name(as_name(name))!r}") from None

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, (str, tuple)) and as_name(name) in self._by_name
        except (RuleError, TypeError):  # no name of anything
            return False

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings whose verdict is ``error``."""
        return tuple(finding for finding in self.findings if finding.verdict == "error")

    @property
    def pending(self) -> tuple[Name, ...]:
        """Names whose value check is still to be done, in ``verify()`` or ``load()``."""
        return tuple(dict.fromkeys(Name(check.name) for check in self.checks))

    @property
    def ok(self) -> bool:
        """Whether no error is known so far."""
        return all(finding.verdict != "error" for finding in self.findings)

    def _count(self) -> dict[str, tuple[int, int]]:
        """Leaves and elements for each action, without making entries."""
        count: dict[str, tuple[int, int]] = dict.fromkeys(Action, (0, 0))
        for value, row in zip(self.tree.values, self.rows, strict=True):
            if row is not None:
                action = Action.LOAD if row is SAME_NAME else row.action  # type: ignore[attr-defined]
                leaves, size = count[action]
                count[action] = (leaves + 1, size + elements(spec_of(value)))
        return count

    @property
    def coverage(self) -> float:
        """Elements loaded / elements in the destination, from 0.0 to 1.0; 1.0 for no elements.

        A leaf with a problem is not loaded, nor is one that is zeroed or kept. Tied leaves count once.
        """
        count = self._count()
        total = sum(size for _, size in count.values())
        loaded = count[Action.LOAD][1] + count[Action.TIE][1]
        return loaded / total if total else 1.0

    def summary(self) -> str:
        """One line: ``148 of 150 leaves load (98.7 % of 86.6 M elements); 2 kept; 3 problems``."""
        count = self._count()
        total = sum(leaves for leaves, _ in count.values())
        size = sum(size for _, size in count.values())
        loaded = count[Action.LOAD][0] + count[Action.TIE][0]
        parts = [
            f"{loaded:,} of {total:,} {'leaf' if total == 1 else 'leaves'} "
            f"{'loads' if total == 1 else 'load'} ({_percent(self.coverage)} of {quantity(size)} elements)"
        ]
        problems = len(self.errors)
        for number, word in ((count[Action.ZERO][0], "zeroed"), (count[Action.KEEP][0], "kept")):
            if number:
                parts.append(f"{number:,} {word}")
        forgiven = len(self.findings) - problems
        if forgiven:
            parts.append(f"{forgiven:,} forgiven")
        if self.pending:
            parts.append(f"{len(self.pending):,} to check by value")
        parts.append(f"{problems:,} problem{'' if problems == 1 else 's'}" if problems else "no problems")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The whole plan as JSON-like data; nothing is grouped or cut."""
        return {
            "summary": self.summary(),
            "ok": self.ok,
            "coverage": self.coverage,
            "sources": [source.label for source in self.sources],
            "entries": [entry_dict(entry) for entry in self.entries],
            "findings": [finding_dict(finding) for finding in self.findings],
            "pending": [str(name) for name in self.pending],
            "unused": [{**leaf_dict(leaf), "at": str(leaf.at), "why": leaf.why} for leaf in self.unused],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def to_html(self) -> str:
        """The report as a piece of HTML, without scripts or links to anything."""
        return self.hands.html(self)

    def _repr_html_(self) -> str:
        return self.to_html()

    def __str__(self) -> str:
        return self.hands.text(self)

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
        destination, source = self._unruled()
        return suggest(destination, source, given=self.given)

    @cached_property
    def diagnosis(self) -> tuple[str, ...]:
        """What source and destination differ in as a whole, in sentences; nothing where the plan is ok."""
        return () if self.ok else diagnose(*self._unruled())

    def _unruled(self) -> tuple[dict[Keys, Spec], dict[Keys, Spec]]:
        """Destination and source without what the plan's rules feed and take."""
        destination = {
            tuple(entry.name): entry.spec
            for entry in self.entries
            if entry.rule is None and not (entry.optional and entry.action == Action.KEEP)
        }
        patterns = [pattern for rule in self.given for pattern in rule.patterns]
        source = {
            name: spec
            for name, spec in self.before_rules().items()
            if not any(pattern.matches(print_name(name)) for pattern in patterns)
        }
        return destination, source

    # What it holds you to.

    def raise_for_errors(self) -> None:
        """Nothing where the plan has no errors.

        Raises:
            LoadError: it has; the error carries all of them.
        """
        errors = self.errors
        if errors:
            raise LoadError(self.hands.error(self, errors), findings=errors, plan=self)

    def verify(self) -> Plan:
        """This plan with its value checks done; nothing is loaded and nothing is raised for findings.

        Raises:
            SourceError: a source could not be read.
        """
        return self.hands.verify(self) if self.checks else self

    def require(self, *, coverage: float | None = None, kept: Patterns | None = None) -> Plan:
        """This plan, where it loads at least as much as asked.

        Args:
            coverage: the least share of elements that must load, from 0.0 to 1.0.
            kept: patterns of the only leaves that may be kept; ``()`` for none.

        Raises:
            LoadError: less is loaded, or another leaf is kept; ``findings`` are the plan's errors.
            RuleError: a pattern that cannot mean anything.
        """
        problems = []
        if coverage is not None and self.coverage < coverage:
            problems.append(
                f"{_percent(self.coverage)} of the destination's elements load, "
                f"{_percent(coverage)} are required"
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
        self, *, init: Callable[[], PyTree] | None = None, donate: bool = False, progress: bool | None = None
    ) -> PyTree:
        """A new tree of the destination's structure with the source's values; or nothing is changed.

        Args:
            init: a function of no arguments giving a concrete tree of the destination's structure. It
                is asked only for leaves that are kept and abstract; it is jitted, so that what is not
                needed is never computed.
            donate: free the destination's replaced arrays once nothing can fail any more.
            progress: show a progress bar; None: on a terminal, once the load lasts over a second.

        Raises:
            LoadError: the plan has errors, or a value check fails.
            SourceError: a source could not be read.
        """
        return self.hands.load(self, init=init, donate=donate, progress=progress)

    def with_findings(self, *, findings: Iterable[Finding], done: bool = True) -> Plan:
        """This plan with other findings and, where ``done``, no value checks left."""
        rows = [
            replace(row, needs_values=False) if done and isinstance(row, Entry) and row.needs_values else row
            for row in self.rows
        ]
        return Plan(
            tree=self.tree, sources=self.sources, rows=rows, findings=findings, unused=self.unused,
            checks=() if done else self.checks, hands=self.hands, given=self.given,
            before_rules=self.before_rules, done=(*self.done, *self.checks) if done else self.done,
        )  # fmt: skip

    def abstract_kept(self) -> list[int]:
        """Slots that are kept and hold only a spec, whose value ``init`` must give."""
        return [
            index
            for index, row in enumerate(self.rows)
            if isinstance(row, Entry) and row.keeps_something and is_abstract(self.tree.values[index])
        ]


def _percent(share: float) -> str:
    # Never rounded up to 100 %: a plan that leaves anything out must not say it loads all.
    return "100 %" if share >= 1 else f"{min(share * 100, 99.9):.1f} %"
