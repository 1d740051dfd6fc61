"""Which steps of a history each source has to take, and what is wrong with what it says of its version.

Owns the finding of kind ``version``. What a step does is in ``_versions``; its leaves are offered with the
others (``offers``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from treeload._errors import RuleError
from treeload._findings import remedy
from treeload._findings.kinds import Kind
from treeload._matching.ledger import Ledger
from treeload._matching.parts import OpenedPart
from treeload._naming.name import Keys
from treeload._sources.source import stamp_of
from treeload._sources.stamp import WHOLE, print_stamp
from treeload._versions.version import Steps, checked_history

_TRIED = 16  # versions that are tried on a source which does not say its own


@dataclass(frozen=True)
class Undated:
    """A source whose version is not one that the history knows.

    Attributes:
        part: which of the sources.
        numbers: the versions that it may be of, where it says none.
        into: where in the destination it goes.
        expected, found: the versions of the code, and of the source, in words.
        message: what is wrong.
        remedies: what to write to go on.
    """

    part: int
    numbers: tuple[int, ...]
    into: Keys
    expected: str
    found: str
    message: str
    remedies: tuple[remedy.Remedy, ...]

    def remedies_with(self, fits: Callable[[int], bool]) -> tuple[remedy.Remedy, ...]:
        """The remedies, first the versions that nothing else is wrong with; ``fits`` is asked of each."""
        fitting = tuple(filter(fits, self.numbers[-_TRIED:]))
        numbers = fitting or self.numbers
        if not numbers:
            return self.remedies
        return (remedy.StateVersion(numbers, fits=bool(fitting)), *self.remedies)


def with_steps(parts: Sequence[OpenedPart], history: Steps | None) -> tuple[list[OpenedPart], list[Undated]]:
    """The parts with the steps that each has to take, and those of which it cannot be told.

    Raises:
        RuleError: a ``From`` states a version, and there is no history; or something else is given for one.
        SourceError: what a source says of its version is none.
    """
    history = checked_history(history)
    if history is None:
        refuse_stated(parts)
        return list(parts), []
    found = [_with_steps(index, part, history) for index, part in enumerate(parts)]
    return [part for part, _ in found], [wrong for _, wrong in found if wrong is not None]


def refuse_stated(parts: Sequence[OpenedPart]) -> None:
    """Nothing, where no ``From`` states a version.

    Raises:
        RuleError: one does, and nothing would come of it.
    """
    stated = next((part.stated for part in parts if part.stated is not None), None)
    if stated is not None:
        raise RuleError(
            f"From(version={dict(stated)}) is for a load with history=...: without one it says nothing"
        )


def _with_steps(index: int, part: OpenedPart, history: Steps) -> tuple[OpenedPart, Undated | None]:
    stamp = part.stated if part.stated is not None else stamp_of(part.source)
    newest = print_stamp(history.newest)
    ignore = remedy.take_as_it_is(part.into)
    if not stamp:
        return part, Undated(
            index, tuple(range(1, history.newest[WHOLE] + 1)),
            part.into, f"version {newest}, or an older one", "no version",
            f"{part.source.label} does not say its version, so it is not known which steps it lacks",
            (ignore,),
        )  # fmt: skip
    beyond = history.beyond(stamp)
    if beyond:
        return part, Undated(
            index, (), part.into, f"version {newest}, or an older one", f"version {print_stamp(stamp)}",
            f"{part.source.label} is of a version that the history does not know: {print_stamp(beyond)}",
            (remedy.Advice("load it by the code that saved it, or complete the history"), ignore),
        )  # fmt: skip
    dated = history.since(stamp)
    if dated.steps and part.by_position:
        return part, Undated(
            index, (), part.into, f"version {newest}", f"version {print_stamp(stamp)}",
            f"{part.source.label} is older, and its arrays have no names that steps could be over",
            (remedy.Advice("save it again, by names, from the code of its time"), ignore),
        )  # fmt: skip
    return replace(part, dated=dated), None


def note_undated(ledger: Ledger, wrong: Undated, fits: Callable[[int], bool]) -> None:
    """Writes the finding; ``fits`` says of a version whether nothing is wrong if the source is of that."""
    finding = ledger.find(
        Kind.VERSION, wrong.into, (wrong.expected, wrong.found),
        message=wrong.message, remedies=wrong.remedies,
    )  # fmt: skip
    if finding.verdict == "error":
        ledger.findings[-1] = replace(finding, remedies=wrong.remedies_with(fits))
