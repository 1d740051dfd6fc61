"""A part of one of several sources, grafted somewhere: what users write as ``From``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from treeload._errors import RuleError
from treeload._naming.name import Name, NameLike, as_name
from treeload._rules.rule import Rule, as_rules
from treeload._sources.options import without_unknown
from treeload._sources.stamp import WHOLE, Stamp, checked_stamp


@dataclass(frozen=True, init=False)
class From:
    """One of several sources: a part of it, changed by its own rules, grafted somewhere.

    First the subtree is taken, then ``rules`` are applied to the names in it, then what comes out goes
    below ``into``; the plan's own rules come after that.

    Args:
        src: a path or a URL, a tree in memory, or a ``Source``.
        subtree: the name of the part that is looked at; its leaves lose this prefix. No pattern.
        into: the name of the destination's subtree that it feeds. No pattern.
        rules: rules on the names within the subtree.
        item: which item of an Orbax checkpoint that holds several.
        separator: at which to split joined keys, wherever in the tree they are, such as ``"."`` for
            ``"encoder.layer.0.weight"``. Files of safetensors and PyTorch, whose names are joined with
            ``"."``, and of NumPy (``.npz``), with ``"/"``, are split there if nothing else is said.
        by_position: the source's arrays are the destination's leaves (below ``into``) in their order:
            for flat lists of weights, and formats without names. Their count must agree, and every
            shape is checked.
        format: in which format the file or directory at the path is, where that cannot be told by its bytes:
            a name such as ``"msgpack"``. Without it the bytes say it, whatever the file is called.
        version: at which version of the code's parameters the source was saved, where it does not say so
            itself, or says it wrongly: of the whole, or a mapping of scopes to numbers, as ``{"": 3,
            "**/attn": 2}``. A scope that is not named is at 1. For a load with ``history=``.
        whole: download all of a file where its server gives no parts of it: into a temporary file, which
            goes when it is not needed any more. Nothing is asked of it where parts can be had.

    Raises:
        RuleError: a name or a rule that cannot mean anything.
        TypeError: an option that there is not.
    """

    src: Any
    subtree: Name
    into: Name
    rules: tuple[Rule, ...]
    item: str | None
    separator: str | None
    by_position: bool
    format: str | None
    version: Stamp | None
    whole: bool

    @without_unknown("From")
    def __init__(
        self,
        src: Any,
        *,
        subtree: NameLike | None = None,
        into: NameLike | None = None,
        rules: Rule | Iterable[Rule] = (),
        item: str | None = None,
        separator: str | None = None,
        by_position: bool = False,
        format: str | None = None,  # noqa: A002  # the word that users know
        version: int | Mapping[str, int] | None = None,
        whole: bool = False,
    ) -> None:
        if isinstance(src, From):
            raise RuleError("a From is made of a path, a tree or a Source, not of another From")
        if separator == "":
            raise RuleError("From(separator='') splits nothing")
        if format is not None and not isinstance(format, str):
            raise RuleError(f"From(format={format!r}): it is the name of a format, such as 'msgpack'")
        given = as_rules(rules, "From(rules=...)")
        if by_position and (given or subtree):
            raise RuleError("From(by_position=True) has no names that rules or a subtree could be over")
        for field, value in (
            ("src", src), ("subtree", as_name(subtree or ())), ("into", as_name(into or ())),
            ("rules", given), ("item", item), ("separator", separator), ("by_position", by_position),
            ("format", format), ("version", _stated(version)), ("whole", whole),
        ):  # fmt: skip
            object.__setattr__(self, field, value)


def _stated(version: int | Mapping[str, int] | None) -> Stamp | None:
    """The stamp that a user states."""
    if version is None:
        return None
    try:
        return checked_stamp(version if isinstance(version, Mapping) else {WHOLE: version})
    except ValueError as error:
        raise RuleError(f"From(version={version!r}): {error}") from None
