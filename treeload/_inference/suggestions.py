"""What is suggested, as data: rules with their reasons, and what stayed open. Prints as code to paste."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from rich.text import Text

from treeload._rules.rule import Rule

AS_GIVEN = "as given"
"""The reason of a rule that was there before."""


@dataclass(frozen=True)
class Ambiguity:
    """Destination leaves that several source leaves could feed equally well.

    Attributes:
        destination: their names; patterns where an index runs.
        source: the names of what could feed each of them.
        why: what leaves it open.
    """

    destination: tuple[str, ...]
    source: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"ambiguous: {', '.join(self.destination)} from {', '.join(self.source)}: {self.why}"


class Suggestions(tuple[Rule, ...]):
    """Rules to pass on as they are: ``plan(dst, src, rules=plan.suggest())``. Prints as code to paste.

    Attributes:
        certain: those of the rules that nothing in names and shapes speaks against.
        reasons: for each rule, why, and how sure.
        ambiguous: what several leaves would fit equally well; there is no rule for it.
        instead: for each rule, those that may be meant in its place, where names and shapes leave that open.
        left: what else no rule feeds, and why, in sentences.
        first: what is to be done before any rule is given, in a sentence; empty where nothing is.
        possible: what may be meant though nothing in names and shapes says so, in sentences.
    """

    certain: tuple[Rule, ...]
    reasons: tuple[str, ...]
    ambiguous: tuple[Ambiguity, ...]
    instead: tuple[tuple[Rule, ...], ...]
    left: tuple[str, ...]
    first: str
    possible: tuple[str, ...]

    def __new__(
        cls, rules: Iterable[Rule] = (), *, certain: Iterable[Rule] = (), reasons: Iterable[str] = (),
        ambiguous: Iterable[Ambiguity] = (), instead: Iterable[tuple[Rule, ...]] = (),
        left: Iterable[str] = (), first: str = "", possible: Iterable[str] = (),
    ) -> Suggestions:  # fmt: skip
        self = super().__new__(cls, rules)
        self.certain, self.reasons, self.ambiguous = tuple(certain), tuple(reasons), tuple(ambiguous)
        self.instead = tuple(instead) or ((),) * len(self)
        self.left, self.first, self.possible = tuple(left), first, tuple(possible)
        return self

    def __str__(self) -> str:
        lines = [f"# {self.first}"] if self.first else []
        lines += ["rules = ["] if self else ["rules = []"]
        before = ""
        for rule, reason, others in zip(self, self.reasons, self.instead, strict=True):
            lines += [f"    # {reason}"] if reason != before else []
            lines += [f"    {rule!r},"]
            before = reason
            lines += [f"    # or: {other!r}," for other in others]
        lines += ["]"] if self else []
        lines += [f"# {ambiguity}" for ambiguity in self.ambiguous]
        lines += [f"# {sentence}" for sentence in (*self.left, *self.possible)]
        return "\n".join(lines)

    def __rich__(self) -> Text:
        """The code for a rich console: with colours where it is a terminal, and lines left to be pasted."""
        styled = Text(no_wrap=False)
        for number, text in enumerate(str(self).split("\n")):
            styled.append("\n" * bool(number))
            styled.append(text, "dim" if text.lstrip().startswith("#") else "cyan")
        return styled

    def to_html(self) -> str:
        """The code as a piece of HTML."""
        return f"<div class='treeload'><pre><code>{escape(str(self))}</code></pre></div>"

    def _repr_html_(self) -> str:
        return self.to_html()

    def __repr__(self) -> str:
        rules = f"{len(self):,} {'rule' if len(self) == 1 else 'rules'}"
        certain = f"{len(self.certain):,} certain" if self else ""
        counts = ", ".join(filter(None, (rules, certain)))
        return f"<Suggestions: {counts}{f'; {len(self.ambiguous):,} open' if self.ambiguous else ''}>"
