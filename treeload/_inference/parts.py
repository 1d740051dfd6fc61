"""The part of one side that the other is: a wrapper, a model in a training state, one of two models.

Owns which subtrees hold the other side's names, and which of several is meant: parameters come before
averages of them, and both before what an optimizer keeps. Refuses to own names that differ inside
(``pairing``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from treeload._leaves.spec import Spec
from treeload._naming.name import Keys, print_name

_DEPTH = 5  # how many keys deep a part is looked for
_WORTH = 4  # one in so many leaves must match in it

_AVERAGES = re.compile(r"ema|average|averaged|avg|swa|polyak|teacher|shadow", re.IGNORECASE)
_MOMENTS = re.compile(
    r"opt|opt(im(izer)?)?_?states?|optimizers?|mu|nu|m|v|trace|momentum|exp_avg(_sq)?|grads?|gradients"
    r"|acc(umulat\w*)?|moments?|param_states",
    re.IGNORECASE,
)


_STATE = re.compile(r"opt(im(izer)?)?_?states?|optimizers?", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """A subtree of the source whose names are those of a subtree of the destination.

    Attributes:
        source: the source's prefix; empty for all of it.
        destination: the destination's; empty for all of it.
        count: how many leaves have the same name and shape there.
        of: how many leaves the smaller question has: those of the side that is looked for in the other.
        kept_by: ``parameters``, an ``average`` of them, or an ``optimizer``, as the prefix says.
    """

    source: Keys
    destination: Keys
    count: int
    of: int
    kept_by: str

    @property
    def text(self) -> str:
        """The prefix that explains it, as it is printed: ``params/``."""
        return f"{print_name(self.source or self.destination)}/"


def parts(destination: Mapping[Keys, Spec], source: Mapping[Keys, Spec]) -> tuple[Part, ...]:
    """The parts that explain most, best first: parameters, then averages, then an optimizer's copies.

    Only parts with more matches than the two sides have as they are, and with at least a quarter of all.
    With ``best`` the first and its equals.

    Examples:
        >>> import jax, numpy as np
        >>> spec = jax.ShapeDtypeStruct((2,), np.float32)
        >>> state = {("opt", "mu", "a"): spec, ("params", "a"): spec}
        >>> [(part.source, part.count, part.of) for part in parts({("a",): spec}, state)]
        [(('params',), 1, 1), (('opt', 'mu'), 1, 1)]
    """
    agreeing = sum(_fits(source.get(name), spec) for name, spec in destination.items())
    found: dict[tuple[Keys, Keys], Part] = {}
    for head in _heads(destination):
        inner = {name[len(head) :]: spec for name, spec in destination.items()}
        for prefix, count in _below(inner, source).items():
            found[prefix, head] = Part(prefix, head, count, len(inner), _keeper(prefix))
    for head in _heads(source):
        inner = {name[len(head) :]: spec for name, spec in source.items()}
        for prefix, count in _below(inner, destination).items():
            part = Part(head, prefix, count, len(inner), _keeper(prefix))
            found.setdefault((head, prefix), part)
    worth = [part for part in found.values() if part.count > agreeing and _WORTH * part.count >= part.of]
    most = max((part.count for part in worth), default=0)
    order = {part: at for at, part in enumerate(worth)}
    return tuple(sorted(worth, key=lambda part: _rank(part, most, order[part])))


def best(found: Iterable[Part]) -> tuple[Part, ...]:
    """The first of ranked parts, and those that are as good: parameters and averages, not moments."""
    first, *others = found
    # The shortest prefix says the same as a longer one on both sides.
    same = [
        part
        for part in others
        if part.count == first.count
        and bool(part.source) == bool(first.source)
        and bool(part.destination) == bool(first.destination)
        and (part.source, part.destination) != (first.source, first.destination)
        and (part.kept_by == "optimizer") == (first.kept_by == "optimizer")
        and not (part.source[-1:] == part.destination[-1:] != ())
    ]
    return (first, *same)


@lru_cache(maxsize=65536)
def _is_in_state(node: Keys) -> bool:
    return any(map(_says_state, node)) or any(at.isdigit() and _is_moment(key) for at, key in pairwise(node))


@lru_cache(maxsize=65536)
def _says_state(key: str) -> bool:
    return _STATE.fullmatch(key) is not None


@lru_cache(maxsize=65536)
def _is_moment(key: str) -> bool:
    return _MOMENTS.fullmatch(key) is not None


def is_of_optimizer(name: Keys) -> bool:
    """Whether a leaf belongs to an optimizer's state: below a key that says so, or in a step of a chain."""
    return _is_in_state(name[:-1]) or any(map(_says_state, name[-1:])) or (
        len(name) > 1 and name[-2].isdigit() and (name[-1] == "count" or _is_moment(name[-1]))
    )  # fmt: skip


def share_state(ours: Iterable[Keys], theirs: Iterable[Keys]) -> bool:
    """Whether two sides keep moments of one kind in their optimizers, or nothing but counts."""
    one, other = _kinds(ours), _kinds(theirs)
    return bool((one & other) - {"count"}) or (bool(one) and one == other)


def _kinds(names: Iterable[Keys]) -> set[str]:
    """What a side keeps: the keys below the steps of a chain, or below the state where it has no steps."""
    found = set()
    for name in filter(is_of_optimizer, names):
        within = name[next((at + 1 for at, key in enumerate(name[:-1]) if _says_state(key)), 0) :]
        below = (key for at, key in pairwise(within) if at.isdigit() and not key.isdigit())
        found.add(next(below, within[0]))
    return found


def _rank(part: Part, most: int, order: int) -> tuple[bool, int, int, int, int]:
    moments = part.kept_by == "optimizer" or 2 * part.count < most
    wrapped = bool(part.source) + bool(part.destination)
    depth = len(part.source) + len(part.destination)
    return (moments, -part.count, wrapped + (part.kept_by == "average"), depth, order)


def _heads(side: Mapping[Keys, Spec]) -> list[Keys]:
    """The keys that all names of a side begin with, one more each time; first none."""
    names = iter(side)
    common = next(names, ())[:-1][:_DEPTH]
    for name in names:
        while common != name[: len(common)]:
            common = common[:-1]
        if not common:
            break
    return [common[:at] for at in range(len(common) + 1)]


def _below(inner: Mapping[Keys, Spec], outer: Mapping[Keys, Spec]) -> Counter[Keys]:
    """For each prefix of one side, how many of the other's names lie below it."""
    found: Counter[Keys] = Counter()
    endings = {name[-2:] for name in inner} | {name[-1:] for name in inner if len(name) == 1}
    first = {name[0] for name in inner if name}
    for name, spec in outer.items():
        if name[-2:] not in endings and name[-1:] not in endings:
            continue
        for depth in range(1, min(_DEPTH, len(name) - 1) + 1):
            if name[depth] in first and _fits(inner.get(name[depth:]), spec):
                found[name[:depth]] += 1
    return found


def _fits(found: Spec | None, wanted: Spec) -> bool:
    return found is not None and found.shape == wanted.shape


def _keeper(prefix: Keys) -> str:
    if any(_MOMENTS.fullmatch(key) for key in prefix):
        return "optimizer"
    return "average" if any(set(_words(key)) for key in prefix) else "parameters"


def _words(key: str) -> list[str]:
    return [word for word in re.split(r"[^a-zA-Z]+", key) if _AVERAGES.fullmatch(word)]
