"""How much loads, at a glance: a bar of what becomes of the elements, and a line for each top-level module.

Owns the counts by status and by module, and how they are drawn. In words and characters: a colour says
nothing that they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from treeload._leaves.spec import size_of
from treeload._naming.name import Keys
from treeload._plans.decisions import Decisions, percent
from treeload._plans.entry import MISSING, SAME_NAME, Action, Entry, Line
from treeload._reports.groups import group
from treeload._reports.leaves import is_wrong
from treeload._reports.page import MARGIN, QUIET, WRONG, line, printable

_MODULES = 8  # lines of modules

_WORDS = {Action.LOAD: "loaded", Action.TIE: "loaded", Action.ZERO: "zeroed", Action.KEEP: "kept"}
_MARKS: Mapping[Line, str] = {SAME_NAME: "loaded", MISSING: "kept"}
_SAID = {"loaded": "loads"}
_LOOKS = {"loaded": ("█", "green"), "zeroed": ("0", ""), "kept": ("░", QUIET), "wrong": ("×", WRONG)}


@dataclass(frozen=True)
class Share:
    """What becomes of some of the destination's elements.

    Attributes:
        word: ``loaded``, ``zeroed``, ``kept`` or ``wrong``.
        size: how many elements; how many leaves, where none of them has any.
    """

    word: str
    size: int

    @property
    def mark(self) -> str:
        """The character that stands for it."""
        return _LOOKS[self.word][0]

    @property
    def style(self) -> str:
        """Its colour on a terminal."""
        return _LOOKS[self.word][1]


@dataclass(frozen=True)
class Module:
    """A top-level module: its name, with those like it, and how many of its leaves load."""

    title: str
    loaded: int
    of: int

    def __str__(self) -> str:
        return f"{self.title} {self.loaded:,}/{self.of:,}"


def steps_taken(plan: Decisions) -> list[str]:
    """Which steps of a history each source takes, in words, where it takes any."""
    return [
        printable(dated.words(dated.scopes) + (f": {source.label}" if len(plan.sources) > 1 else ""))
        for source, dated in zip(plan.sources, plan.dated, strict=False) if dated is not None and dated.steps
    ]  # fmt: skip


def shares(plan: Decisions) -> list[Share]:
    """What becomes of the destination's elements, in the bar's order; what comes to nothing is left out."""
    return _shares(plan, lambda name: "").get("", [])


def shares_by_module(plan: Decisions) -> dict[str, list[Share]]:
    """The same for each top-level module, in the destination's order; the root's is the empty key."""
    return _shares(plan, lambda name: name[0] if name else "")


def _shares(plan: Decisions, module_of: Callable[[Keys], str]) -> dict[str, list[Share]]:
    found: dict[str, dict[str, tuple[int, int]]] = {}
    wrong = {noted.name for noted in plan.noted_errors}
    for name, value, row in zip(plan.tree.names, plan.tree.values, plan.lines, strict=True):
        if row is not None:
            word = "wrong" if is_wrong(name, row, wrong) else _word(row)
            words = found.setdefault(module_of(name), dict.fromkeys(_LOOKS, (0, 0)))
            leaves, size = words[word]
            words[word] = (leaves + 1, size + size_of(value))
    by_size = any(size for words in found.values() for _, size in words.values())
    return {
        module: [Share(word, size if by_size else leaves) for word, (leaves, size) in words.items() if leaves]
        for module, words in found.items()
    }


def _word(line: Line) -> str:
    return _WORDS[line.action] if isinstance(line, Entry) else _MARKS[line]


def bar(found: Sequence[Share], width: int) -> Text:
    """The shares as a bar of so many characters; each has at least one, however small it is."""
    total = sum(share.size for share in found)
    drawn = Text()
    room = width - len(found)
    for share in found:
        part = share.size / total if total else 0.0
        drawn.append(share.mark * (1 + int(part * room)), share.style)
    # What rounding left over is the largest one's.
    largest = max(found, key=lambda share: share.size)
    missing = Text(largest.mark * (width - len(drawn.plain)), largest.style)
    at = drawn.plain.index(largest.mark)
    return drawn[:at] + missing + drawn[at:]


def legend(found: Sequence[Share]) -> str:
    """The bar in words: ``█ 98.7 % loads, × 1.3 % wrong``."""
    return ", ".join(f"{share.mark} {said}" for share, said in zip(found, legend_of(found), strict=True))


def legend_of(found: Sequence[Share]) -> list[str]:
    """Each share in words: ``98.7 % loads``, since a report is read before anything is loaded."""
    total = sum(share.size for share in found)
    return [f"{_percent(share.size, total)} {_SAID.get(share.word, share.word)}" for share in found]


def _percent(size: int, total: int) -> str:
    """A share that is never rounded to nothing, nor to all."""
    part = size / total if total else 0.0
    return "less than 0.1 %" if 0 < part < 0.0005 else percent(part)


def modules(plan: Decisions) -> tuple[list[Module], int]:
    """The top-level modules, those that load in part first; and how many are not listed.

    There are none to speak of where there is only one, or where each is a single leaf.
    """
    loaded: dict[str, list[int]] = {}
    for name, row in zip(plan.tree.names, plan.lines, strict=True):
        if row is not None and name:
            count = loaded.setdefault(name[0], [0, 0])
            count[0] += _word(row) == "loaded"
            count[1] += 1
    keys = list(loaded)
    if len(keys) < 2 or all(of == 1 for _, of in loaded.values()):
        return [], 0
    groups = group([((key,), tuple(loaded[key])) for key in keys])
    found = [
        Module(each.title, sum(loaded[keys[m]][0] for m in each.members),
               sum(loaded[keys[m]][1] for m in each.members))
        for each in groups
    ]  # fmt: skip
    found.sort(key=lambda module: module.loaded == module.of)
    most = _MODULES if len(found) > _MODULES + 1 else _MODULES + 1
    return found[:most], len(found[most:])


def module_lines(plan: Decisions) -> Iterator[Text]:
    """The modules, one to a line."""
    found, rest = modules(plan)
    yield from (line(MARGIN, str(module)) for module in found)
    if rest:
        yield line(MARGIN, (f"… and {rest:,} modules more", QUIET))
