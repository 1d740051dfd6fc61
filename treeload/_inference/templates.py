"""The leaves of one side as a few templates: names with their indices taken out, gathered into modules.

Owns which digits of a name are an index (``layers/0``, ``layer_0``) and which are part of a name (``fc1``),
and the grouping of leaves into ``Leaves`` (one template, all its indices) and ``Module`` (the leaves that
belong together, such as a kernel and its bias). So twelve layers are one decision, and 40,000 tensors are
ten. Refuses to own what the words mean (``tokens``) and what fits together (``pairing``).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import Literal, TypeAlias

from treeload._inference.tokens import concepts, kind
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys
from treeload._naming.pattern import quote

Index = tuple[int, ...]


Shape = tuple[int, ...]


IsIndex = Callable[[Keys, str], bool]


HOLE = "\0"  # stands for an index within a key of a template


CAPTURES = "ijklmnop"


_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]{0,8})()$", re.DOTALL)


_NUMBERED_WITHIN = re.compile(r"(.*?)(0|[1-9][0-9]{0,8})([^0-9]*)$", re.DOTALL)  # also ``conv3_BN``


@dataclass(frozen=True)
class Leaves:
    """All leaves of one template.

    Attributes:
        template: the keys, with ``HOLE`` for each index.
        shapes: the shape at each index; the empty index where the template has none.
        members: the names of its leaves, in the order of ``shapes``.
    """

    template: Keys
    shapes: Mapping[Index, Shape]
    members: Sequence[Keys] = field(repr=False, compare=False)

    @cached_property
    def ranges(self) -> tuple[tuple[int, ...], ...]:
        """The values that each index takes, sorted."""
        count = sum(key.count(HOLE) for key in self.template)
        return tuple(tuple(sorted({index[at] for index in self.shapes})) for at in range(count))

    @cached_property
    def distinct(self) -> frozenset[Shape]:
        """Its shapes, each once."""
        return frozenset(self.shapes.values())

    @cached_property
    def volume(self) -> int:
        """How many elements all its leaves have."""
        return sum(map(math.prod, self.shapes.values()))

    @property
    def full(self) -> bool:
        """Whether every combination of its indices is there."""
        return math.prod(map(len, self.ranges)) == len(self.shapes)

    @property
    def key(self) -> str:
        """The last key."""
        return self.template[-1] if self.template else ""

    def text(self, captures: Iterable[str] | None = None) -> str:
        """The template as a pattern: ``layers/{i}/kernel``."""
        return fill(self.template, CAPTURES if captures is None else captures)


def fill(template: Keys, captures: Iterable[str]) -> str:
    """A template as a pattern, its holes filled with captures of these names."""
    mark = "<hole>"
    while any(mark in key for key in template):
        mark = f"<{mark}>"
    first, *others = quote([key.replace(HOLE, mark) for key in template]).split(mark) if template else [""]
    return first + "".join(f"{{{name}}}{text}" for name, text in zip(captures, others, strict=False))


@dataclass(frozen=True)
class Module:
    """Leaves that are one module's: told apart by their kind.

    Attributes:
        path: the module's template.
        leaves: kind -> leaves.
        context: the concepts of all its words.
        guessed: those of them that its neighbours suggest, and no word of its own says.
        order: its place on its side, so that results do not depend on hashing.
    """

    path: Keys
    leaves: Mapping[str, Leaves]
    context: frozenset[str]
    order: int = field(compare=False)
    guessed: frozenset[str] = frozenset()

    def __hash__(self) -> int:
        return hash((self.path, self.order))

    @property
    def count(self) -> int:
        """How many leaves it has, over all indices."""
        return sum(len(leaves.shapes) for leaves in self.leaves.values())


def usable(specs: Mapping[Keys, Spec]) -> dict[Keys, Spec]:
    """The leaves whose names templates can be made of: without the character that stands for an index."""
    return {name: spec for name, spec in specs.items() if HOLE not in "".join(name)}


Digits: TypeAlias = Literal["index", "any", "none"]


def templates(specs: Mapping[Keys, Spec], *, digits: Digits = "index") -> dict[Keys, Leaves]:
    """The leaves of one side by their templates, in its order.

    Args:
        specs: every leaf; names that hold ``HOLE`` are left out.
        digits: which are taken for indices. ``index``: those that plainly are; ``any``: also those of
            modules that are merely numbered, as ``Dense_0`` and ``conv3_BN``; ``none``: no digits.
    """
    shapes: dict[Keys, dict[Index, Shape]] = {}
    members: dict[Keys, list[Keys]] = {}
    specs = usable(specs)
    abstract = _abstract(specs, _within if digits == "any" else _naive, digits)
    for (name, spec), (template, index) in zip(specs.items(), abstract, strict=True):
        shapes.setdefault(template, {})[index] = tuple(spec.shape)
        members.setdefault(template, []).append(name)
    return {template: Leaves(template, at, members[template]) for template, at in shapes.items()}


def modules(specs: Mapping[Keys, Spec], *, digits: Digits = "index") -> list[Module]:
    """The modules of one side, in its order; see ``templates``."""
    return gather(templates(specs, digits=digits).values())


def gather(each: Iterable[Leaves]) -> list[Module]:
    """Templates as modules."""
    made = [
        Module(path, leaves, _context(path, leaves), order)
        for order, ((path, _), leaves) in enumerate(beside(each).items())
    ]
    return _with_order_of_norms(_with_neighbours(_with_gates(made)))


def beside(each: Iterable[Leaves]) -> dict[tuple[Keys, str], dict[str, Leaves]]:
    """The leaves of each module by their kind, under its path and what family of its leaves they are."""
    gathered: dict[tuple[Keys, str], dict[str, Leaves]] = {}
    for leaves in each:
        template = leaves.template
        what, stem = kind(leaves.key)
        path = (*template[:-1], stem) if stem else template[:-1]
        if path[-2:] == ("parametrizations", "weight"):
            path = path[:-2]
        family = "stats" if what in ("mean", "var") else ""
        if (path, family) in gathered and what in gathered[path, family]:
            what = f"{what}:{leaves.key}"  # a weight and a scale in one module
        gathered.setdefault((path, family), {})[what] = leaves
    return gathered


Cut: TypeAlias = Callable[[str], tuple[str, str | None]]


def _abstract(specs: Mapping[Keys, Spec], cut: Cut, digits: Digits) -> Iterator[tuple[Keys, Index]]:
    """The template and the index of every name, in order.

    Names that are alike but for their digits are looked at together: they are few, where leaves are many.
    """
    if digits == "none":
        yield from ((name, ()) for name in specs)
        return
    distinct = dict.fromkeys(chain.from_iterable(specs))
    parts = {key: (key, None) if key.isalpha() else cut(key) for key in distinct}
    naives = [tuple([parts[key][0] for key in name]) for name in specs]
    together: dict[tuple[Keys, int], list[tuple[int, Keys]]] = defaultdict(list)
    for at, ((name, spec), naive) in enumerate(zip(specs.items(), naives, strict=True)):
        together[naive, len(spec.shape)].append((at, name))
    is_index = _indices(together, parts, loose=digits == "any")
    holes = {naive: [at for at in _holes(naive) if is_index(naive[:at], naive[at])] for naive, _ in together}
    for name, naive in zip(specs, naives, strict=True):
        places = holes[naive][: len(CAPTURES)]
        if places:
            keys = list(name)
            for at in places:
                keys[at] = naive[at]
            yield tuple(keys), tuple([int(parts[name[at]][1] or 0) for at in places])
        else:
            yield name, ()


def _holes(naive: Keys) -> list[int]:
    return [at for at, key in enumerate(naive) if HOLE in key]


def _indices(
    together: Mapping[tuple[Keys, int], Sequence[tuple[int, Keys]]],
    parts: Mapping[str, tuple[str, str | None]],
    *,
    loose: bool,
) -> IsIndex:
    """Decides for (naive prefix, stem) whether the digits that follow are an index.

    They are where the subtrees under different digits look alike: the same leaves, of the same rank. Digits
    after a word must also count without a gap, and have modules below them, not leaves, unless the word is
    one for layers; ``loose``: they may have leaves, of equal shapes.

    Args:
        together: for each name without its digits, and each rank, the leaves with their places on their side.
        parts: each key, cut into what is before its digits and these.
        loose: see above.
    """
    below: dict[tuple[Keys, str], dict[str, set[tuple[Keys, int]]]] = defaultdict(lambda: defaultdict(set))
    first: dict[tuple[Keys, str], dict[str, int]] = defaultdict(dict)
    for (naive, rank), names in together.items():
        for at in _holes(naive):
            node, rest = (naive[:at], naive[at]), (naive[at + 1 :], rank)
            # Backwards, so that what stays for each number is the place of its first leaf.
            earliest = {parts[name[at]][1] or "": place for place, name in reversed(names)}
            children, places = below[node], first[node]
            for digits, place in earliest.items():
                children[digits].add(rest)
                places[digits] = min(place, places.get(digits, place))
    found: set[tuple[Keys, str]] = set()
    for (prefix, stem), children in below.items():
        places = first[prefix, stem]
        numbers = sorted(map(int, children))
        trees = list(children.values())
        plain = stem == HOLE
        if len(trees) > 1:
            largest = children[min(children, key=lambda digits: (-len(children[digits]), places[digits]))]
            alike = all(2 * len(tree & largest) > min(len(tree), len(largest)) for tree in trees)
        else:
            alike = plain
        if not plain and alike:
            counted = numbers[0] <= 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            deep = any(len(rest) > 1 for tree in trees for rest, _ in tree)
            alike = counted and (deep or loose or "layer" in concepts(stem.replace(HOLE, "")))
        if alike:
            found.add((prefix, stem))
    return lambda prefix, stem: (prefix, stem) in found


@lru_cache(maxsize=65536)
def _naive(key: str) -> tuple[str, str | None]:
    numbered = _NUMBERED.match(key)
    return (key, None) if numbered is None else (numbered[1] + HOLE, numbered[2])


@lru_cache(maxsize=65536)
def _within(key: str) -> tuple[str, str | None]:
    numbered = _NUMBERED_WITHIN.match(key)
    return (key, None) if numbered is None else (numbered[1] + HOLE + numbered[3], numbered[2])


# What the words of a module's path say, with its neighbours in view.

_AFTER = {"proj", "dense", "output", "wo", "c", "linear"}


def _context(path: Keys, leaves: Mapping[str, Leaves]) -> frozenset[str]:
    found: list[str] = []
    for key in path:
        if key.isdecimal() and len(key) < 10 and found:
            found.append(f"{found[-1].split('#')[0]}#{int(key)}")
        else:
            found += concepts(key.replace(HOLE, ""))
    here = set(found)
    last = path[-1] if path else ""
    if not here & {"query", "key", "value", "qkv", "kv", "out", "norm", "up", "down", "gate"} and (
        set(concepts(last)) <= _AFTER and last
    ):
        if "attention" in here:
            here = (here - _AFTER) | {"out"}
        elif last in ("wo", "c_proj") or ("output" in here and here & {"layer", "mlp"}):
            here = (here - _AFTER) | {"down"}
    keys = {one.key.lower(): one for one in leaves.values()}
    if "embedding" in keys:
        here.add("embed")
    if keys.keys() & {"scale", "gamma"} or (
        "weight" in keys and all(len(shape) == 1 for shape in keys["weight"].distinct)
    ):
        here.add("norm")
    return frozenset(here)


def _with_gates(made: list[Module]) -> list[Module]:
    """``w1`` is a gate where a ``w3`` stands beside it, else the way up."""
    parents = {module.path[:-1] for module in made if module.path and module.path[-1] == "w3"}
    return [
        replace(module, context=(module.context - {"gate"}) | {"up"})
        if module.path and module.path[-1] == "w1" and module.path[:-1] not in parents
        else module
        for module in made
    ]


def _with_neighbours(made: list[Module]) -> list[Module]:
    """A norm that stands alone with an attention or an MLP, as in ``layer/0``, is the norm of that."""
    below: dict[Keys, list[Module]] = defaultdict(list)
    for module in made:
        for at in range(1, len(module.path)):
            below[module.path[:at]].append(module)
    found = []
    for module in made:
        others = [other for other in below.get(module.path[:-1], ()) if other is not module]
        alone = "norm" in module.context and not any("norm" in other.context for other in others)
        if alone and module.path[:-1] and HOLE not in module.path[-2]:
            said = frozenset().union(*(other.context for other in others))
            words = said & {"attention", "self", "cross"}
            if said & {"up", "down", "gate"}:
                words = frozenset() if words else frozenset({"mlp"})
            module = replace(module, context=module.context | words, guessed=words - module.context)
        found.append(module)
    return found


def _with_order_of_norms(made: list[Module]) -> list[Module]:
    """Where a layer has exactly two norms, which comes first and which second, as far as words say it."""
    layers: dict[Keys, list[Module]] = defaultdict(list)
    for module in made:
        at = max((number for number, key in enumerate(module.path) if HOLE in key), default=None)
        if at is None:
            at = max(
                (number for number, key in enumerate(module.path) if "layer" in concepts(key)), default=None
            )
        if "norm" in module.context and at is not None and at < len(module.path) - 1:
            layers[module.path[: at + 1]].append(module)
    order: dict[int, frozenset[str]] = {}
    for layer, norms in layers.items():
        if len(norms) != 2:
            continue
        words = ["_".join(norm.path[len(layer) :]).lower() for norm in norms]
        said = _counted(words) or [_turn(text) for text in words]
        if said[0] != said[1]:
            for norm, other, turn in zip(norms, norms[::-1], said, strict=True):
                if turn is None:
                    turn = "second" if said[norms.index(other)] == "first" else "first"
                # What follows attention is not attention's, what stands before an MLP not of another layer.
                misleading = {"pre", "post"} | ({"attention", "self"} if "post_" in norm.path[-1] else set())
                order[norm.order] = (norm.context - misleading) | {turn}
    return [replace(module, context=order.get(module.order, module.context)) for module in made]


def _counted(words: list[str]) -> list[str | None] | None:
    """The order of two norms that differ only in a number."""
    numbered = [_NUMBERED.match(text) for text in words]
    if None in numbered or len({match[1] for match in numbered if match}) > 1:
        return None
    one, other = (int(match[2]) for match in numbered if match)
    return ["first", "second"] if one < other else ["second", "first"]


def _turn(text: str) -> str | None:
    """Whether the words of a norm's path put it first or second in its layer."""
    if re.search(r"mlp|ffn|ffw|feed_?forward|ff_", text):
        return "second"
    if re.search(r"post_(self_)?att", text):
        return "second"
    if re.search(r"att|^input|^pre|before|^sa_", text):
        return "first"
    if re.search(r"^final|^output|^post|after|2$", text):
        return "second"
    if re.search(r"1$", text):
        return "first"
    return None
