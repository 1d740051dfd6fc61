"""The one judge of layouts: what must be done to a source leaf to become a destination leaf.

Every part of treeload that says how a leaf would fit asks here: the message of a shape that differs, the
headline of a report, ``suggest()``. Owns what names say of a layout (``role``) and the choice among the
changes that fit (``judge``, ``read``). Refuses to own which changes fit (``changes``) and which leaf feeds
which (``pairing``).

A reading is *certain* only where names and shapes allow no other. What shapes cannot show is never certain:

- rows of a linear layer behind a flattened image, which PyTorch keeps as (channels, height, width);
- transposed convolutions, whose space axes run the other way in PyTorch;
- square kernels and convolutions of equal sizes, unless the rest of the file shows its custom.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from treeload._inference.changes import (
    Change,
    Side,
    Turn,
    changes,
    channels_moved,
    nearly_square,
    reversed_in_space,
    unusual,
)
from treeload._inference.templates import HOLE, Leaves, Shape
from treeload._inference.tokens import concepts, kind
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys

Role: TypeAlias = Literal["vector", "linear", "embedding", "convolution", "transposed convolution"]


@dataclass(frozen=True)
class Reading:
    """What is to be done to a leaf.

    Attributes:
        change: the change that names call for; None where nothing fits, or where nothing tells which.
        certain: names and shapes allow no other reading.
        why: the reason in words, and what was ruled out or could not be; empty where there is nothing to say.
        others: the other changes to be considered, likeliest first.
    """

    change: Change | None
    certain: bool = False
    why: str = ""
    others: tuple[Change, ...] = ()


def judge(
    source_name: Keys, source: Spec, destination_name: Keys, destination: Spec, file: File | None = None
) -> Reading:
    """What makes a leaf of the source fit a leaf of the destination.

    Args:
        source_name: its name; the destination's once more where it is not known.
        source: its shape counts.
        destination_name: the name of the leaf that it is to become.
        destination: its shape counts.
        file: what the rest of the two sides shows; None where it is not known.

    Examples:
        >>> import jax, numpy as np
        >>> spec = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
        >>> str(judge(("conv", "weight"), spec(5, 2, 3, 3), ("conv", "kernel"), spec(3, 3, 2, 5)).change)
        'Transpose(2, 3, 1, 0)'
        >>> judge(("tok", "weight"), spec(8, 8), ("tok", "embedding"), spec(8, 8)).why
        'square, and an embedding is not transposed'
    """
    shapes = tuple(source.shape), tuple(destination.shape)
    return read(source_name, destination_name, changes(*shapes), [shapes], file)


def read(
    here: Keys,
    there: Keys,
    options: Sequence[Change],
    shapes: Sequence[tuple[Shape, Shape]],
    file: File | None = None,
) -> Reading:
    """As ``judge``, for leaves of one template that all take the same change.

    Args:
        here, there: the source's name and the destination's.
        options: the changes that fit.
        shapes: the shapes of source and destination, each pair once.
        file: what the rest of the two sides shows.
    """
    if not options:
        other = unusual(*shapes[0]) if len(shapes) == 1 else None
        return Reading(other, False, "in an order that is a guess") if other else Reading(None)
    file = file or File()
    what = role(here, there, options, len(shapes[0][0]))
    asked = _Asked(here, there, what, tuple(shapes), file)
    options = _of_role(options, what, asked.keys)
    if asked.role in ("convolution", "transposed convolution"):
        return _convolution(asked, options)
    return _matrix(asked, options)


@dataclass(frozen=True)
class _Asked:
    """One question: two names, what they say, the shapes, and what else is known."""

    here: Keys
    there: Keys
    role: Role
    shapes: tuple[tuple[Shape, Shape], ...]
    file: File

    @property
    def keys(self) -> tuple[str, str]:
        return _ending(self.here), _ending(self.there)

    @property
    def arrow(self) -> str:
        return " → ".join(self.keys)


# What names say.

_EMBEDDINGS = {"embedding", "embeddings"}
_JAX = {"kernel", "w"}  # [in, out] and channels last
_TORCH = {"weight"}  # [out, in] and channels first
_UP = re.compile(r"deconv|transpose|tconv|convt|(^|_)up(_?\d*|_?conv.*|_?sampl.*)$", re.IGNORECASE)
_MATRICES = {"query", "key", "value", "qkv", "kv", "attention", "mlp", "gate", "expert", "experts"}
_IN_BLOCKS = {"query", "qkv", "kv", "attention"}
OWN = "a name of its own"


def says_embedding(name: Keys) -> bool:
    """Whether a name says that the leaf is a table of embeddings, of a vocabulary or of positions."""
    return _last(name) in _EMBEDDINGS or "embed" in _words(name)


def role(here: Keys, there: Keys, options: Sequence[Change], rank: int) -> Role:
    """What two names and the changes that fit say that a leaf is."""
    if rank < 2:
        return "vector"
    if rank == 2:
        ends = {_last(here), _last(there)}
        both = all("embed" in _words(name) for name in (here, there))
        if ends & _EMBEDDINGS or (both and not ends & _JAX):
            return "embedding"
        return "linear"
    if not any(change.channels or change.turn == "exchanged" for change in options):
        return "linear"
    if all(_words(name) & _MATRICES and not _says_convolution(name) for name in (here, there)):
        return "linear"
    up = any(_UP.search(key) for name in (here, there) for key in name[:-1] or name)
    return "transposed convolution" if up else "convolution"


def _of_role(options: Sequence[Change], what: Role, keys: tuple[str, str]) -> list[Change]:
    """Those of the changes that names allow at all."""
    custom = _custom(keys)
    if what in ("convolution", "transposed convolution"):
        left = [change for change in options if not custom or change.channels in ("", custom)]
    elif what == "linear":
        left = [change for change in options if not change.channels and change.turn != "exchanged"]
    else:
        left = []
    return left or list(options)


def _says_convolution(name: Keys) -> bool:
    return any("conv" in key.lower() for key in name)


def _last(name: Keys) -> str:
    return _key(name).lower()


def _key(name: Keys) -> str:
    """The last key; of a name that is joined with dots its last part."""
    return name[-1].rsplit(".", 1)[-1] if name else ""


def _words(name: Keys) -> set[str]:
    return {word for key in name for word in concepts(key.replace(HOLE, ""))}


def _ending(name: Keys) -> str:
    """What a last key calls the parameter; keys that name a module instead are all of one kind."""
    last = _key(name)
    stem = kind(last)[1]
    return OWN if stem == last else last[len(stem) :].lstrip("_")


def _custom(keys: tuple[str, str]) -> Side:
    """From whose custom to whose: where channels and inputs go, as far as the last keys say it."""
    here, there = keys
    if here in _TORCH and there in _JAX:
        return "last"
    return "first" if here in _JAX and there in _TORCH else ""


# Convolutions.


def _convolution(asked: _Asked, options: Sequence[Change]) -> Reading:
    custom = _custom(asked.keys)
    by_turn = {change.turn: change for change in reversed(options)}
    rank = len(asked.shapes[0][0])
    if asked.role == "transposed convolution":
        return _transposed_convolution(by_turn, options, rank)
    if custom == "" and "as it is" in by_turn:
        chosen = by_turn["as it is"]
    elif "transposed" in by_turn:
        chosen = by_turn["transposed"]
    elif "exchanged" in by_turn:
        return _exchanged(asked, by_turn["exchanged"], rank)
    else:
        chosen = options[0]
    others = tuple(change for change in options if change is not chosen)
    if not others:
        certain = chosen.plain and chosen.turn in ("transposed", "as it is")
        return Reading(chosen, certain, _fits(chosen))
    seen = asked.file.turns_of(asked.keys, "convolution")
    shown = set(seen) == {chosen.turn} and not asked.file.exchanges
    if shown:
        count = sum(seen.values())
        why = f"of equal sizes, and {_done(chosen)} as the {count:,} other {asked.arrow} that show it"
        return Reading(chosen, True, why, others)
    why = f"of equal sizes: {_done(chosen)} is usual, but {_list(others)} would fit as well"
    return Reading(chosen, False, why, others)


def _transposed_convolution(by_turn: Mapping[Turn, Change], options: Sequence[Change], rank: int) -> Reading:
    """The name says one: what PyTorch keeps as [in, out, *space] lies the other way round in space."""
    said = "a transposed convolution, by its name"
    if (change := by_turn.get("exchanged")) is not None:
        flipped = reversed_in_space(change, rank)
        others = (*(other for other in options if other is not change), change)
        return Reading(flipped, False, f"{said}: its space axes must be reversed too", others)
    change = by_turn.get("transposed") or options[0]
    if not change.ops:
        return Reading(change, False, f"{said}, and its space axes may have to be reversed")
    why = f"{said}, right for transpose_kernel=True; elsewhere its space axes must be reversed too"
    return Reading(change, False, why, (reversed_in_space(change, rank),))


def _exchanged(asked: _Asked, change: Change, rank: int) -> Reading:
    """Input and output have changed places: a depthwise kernel, or a transposed convolution."""
    flipped = reversed_in_space(change, rank)
    if any(1 in source[:2] or 1 in source[-2:] for source, _ in asked.shapes):
        why = "the order of depthwise kernels; a transposed convolution needs its space axes reversed too"
    else:
        why = "the order of transposed convolutions, which need their space axes reversed too"
        return Reading(flipped, False, why, (change,))
    return Reading(change, False, why, (flipped,))


# Matrices, vectors and heads.


def _matrix(asked: _Asked, options: Sequence[Change]) -> Reading:
    turns = {change.turn for change in options}
    chosen = options[0]
    if asked.role == "embedding" and len(asked.shapes[0][1]) == 2 and "as it is" in turns:
        chosen = next(change for change in options if change.turn == "as it is")
        others = tuple(change for change in options if change is not chosen)
        return Reading(chosen, True, "square, and an embedding is not transposed" if others else "")
    if len(turns) == 1:
        # Two ways to turn it the same way round: heads and inputs of one size.
        why = "" if asked.role == "vector" and not chosen.ops else _fits(chosen)
        certain = chosen.plain and len(options) == 1 and chosen.turn in ("as it is", "transposed")
        return _with_images(asked, Reading(chosen, certain, why, tuple(options[1:])))
    return _with_images(asked, _square(asked, options))


def _square(asked: _Asked, options: Sequence[Change]) -> Reading:
    """A kernel whose shape does not show which axis is the input: the file's other kernels may."""
    seen = asked.file.turns_of(asked.keys, asked.role)
    seen = seen or (asked.file.alike(asked.keys) if asked.role != "embedding" else Counter())
    fitting = {change.turn: change for change in reversed(options)}
    if "stacked" in fitting and "transposed" not in fitting:  # several kernels in one follow the single ones
        fitting["transposed"] = fitting["stacked"]
    shown = [turn for turn in seen if turn in fitting]
    if len(shown) > 1:
        why = "square, and other kernels of this file are transposed in part"
        return Reading(None, False, why, tuple(options))
    if shown:
        chosen = fitting[shown[0]]
        why = (
            f"square, but {_done(chosen)}, as the other {asked.arrow} of this file are "
            f"({sum(seen.values()):,} that are not square)"
        )
        # Parameters with a name of their own follow no layer's habit.
        certain = OWN not in asked.keys
    elif asked.here[-1:] == asked.there[-1:] and asked.keys[0] not in _TORCH and "as it is" in fitting:
        chosen, certain = fitting["as it is"], True
        why = f"square, and {asked.here[-1]} is {asked.here[-1]} on both sides"
    else:
        # PyTorch's weight is [out, in]; what JAX calls otherwise is [in, out].
        here, there = asked.keys
        turned = here == "weight" != there and asked.role != "embedding"
        chosen = fitting.get("transposed" if turned else "as it is", options[0])
        why = (
            f"square, and nothing in this file shows whether {asked.arrow} is transposed; "
            f"{chosen.turn} is usual"
        )
        certain = False
    return Reading(chosen, certain, why, tuple(change for change in options if change is not chosen))


def _with_images(asked: _Asked, reading: Reading) -> Reading:
    """The same, less sure where a row or column may be an image that was flattened."""
    change = reading.change
    if change is None or change.turn != "transposed" or asked.role != "linear":
        return reading
    found = asked.file.image(asked)
    if found is None:
        return reading
    axis, channels, to = found
    source, destination = asked.shapes[0]
    moved = channels_moved(source, destination, channels, axis=axis, to=to)
    if moved is None:
        return reading
    inputs = (axis == 1) == (to == "last")
    height, width = nearly_square(source[axis] // channels)
    why = (
        f"{'rows' if inputs else 'columns'} may be in {'CHW' if to == 'last' else 'HWC'} order "
        f"{'after a flattened image' if inputs else 'before an image is unfolded'}: "
        f"{source[axis]} = {channels} channels × {source[axis] // channels}, as {height} by {width}"
    )
    words = "; ".join(filter(None, (reading.why, why)))
    return replace(reading, certain=False, why=words, others=(moved, *reading.others))


def _done(change: Change) -> str:
    return "transposed" if change.turn == "transposed" else "not transposed"


def _list(others: Iterable[Change]) -> str:
    return " and ".join(str(change) if change.ops else "as it is" for change in others)


def _fits(change: Change) -> str:
    if not change.ops:
        return ""
    guess = "" if change.plain else ", in an order that is a guess"
    return f"matches if {change.words}{guess}"


# What the rest of the two sides shows.


class File:
    """What other leaves show: the turns that their shapes leave no choice in, and the channels of images."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str, Role], Counter[Turn]] = defaultdict(Counter)
        self.out: set[int] = set()  # what convolutions give
        self.into: set[int] = set()  # what transposed ones take
        self.exchanges = False  # there are transposed convolutions

    def look_at(self, specs: Mapping[Keys, Spec]) -> None:
        """Takes in the convolutions of one side."""
        for name, spec in specs.items():
            if len(spec.shape) > 2 and _convolves(name, len(spec.shape)):
                first = _last(name) in _TORCH or name[-1].lower().endswith("_weight")
                outer, inner = spec.shape[:2] if first else spec.shape[:-3:-1]
                up = any(_UP.search(key) for key in name)
                self.exchanges |= up
                self.out.add(inner if up and first else outer)
                if up:
                    self.into.add(outer if first else inner)

    def learn(self, here: Leaves, there: Leaves, options: Sequence[Change]) -> None:
        """Takes a pair of templates as evidence, if shapes leave one turn only."""
        rank = max(map(len, here.distinct), default=0)
        what = role(here.template, there.template, options, rank)
        keys = _ending(here.template), _ending(there.template)
        turns = {change.turn for change in _of_role(options, what, keys)}
        if what == "transposed convolution" or (what == "convolution" and turns == {"exchanged"}):
            self.exchanges = True
        elif len(turns) == 1 and what != "vector":
            self.seen[(*keys, what)][turns.pop()] += len(here.shapes)

    def turns_of(self, keys: tuple[str, str], what: Role) -> Counter[Turn]:
        """How many leaves of these last keys and this role go which way."""
        return self.seen.get((*keys, what)) or Counter()

    def alike(self, keys: tuple[str, str]) -> Counter[Turn]:
        """Convolutions for linear layers and the reverse: who turns one turns the other."""
        found = [
            seen for (*ends, what), seen in self.seen.items() if (*ends,) == keys and what != "embedding"
        ]
        return sum(found, Counter[Turn]())

    def image(self, asked: _Asked) -> tuple[int, int, Side] | None:
        """Which axis of the source may be a flattened image, of how many channels, and where they go."""
        if not self.out or len(asked.shapes) != 1 or len(asked.shapes[0][0]) != 2:
            return None
        if len(asked.shapes[0][1]) != 2 or _in_a_block(asked.here) or _in_a_block(asked.there):
            return None
        to: Side = _custom(asked.keys) or "last"
        source = asked.shapes[0][0]
        rows = 1 if to == "last" else 0  # the inputs
        for axis, channels in ((rows, self.out), (1 - rows, self.into)):
            size = source[axis]
            fitting = [each for each in channels if 1 < each < size and size % each == 0]
            if fitting and size not in channels:
                return axis, max(fitting), to
        return None


def _convolves(name: Keys, rank: int) -> bool:
    """Whether a name is that of a convolution's kernel, and not of stacked or split matrices."""
    if kind(name[-1] if name else "")[0] != "weight":
        return False
    return _says_convolution(name) or (rank > 3 and not _words(name) & _MATRICES)


def _in_a_block(name: Keys) -> bool:
    """Whether a layer is within one of a stack's, where no image is flattened."""
    words = _words(name)
    numbered = any(HOLE in key or key.isdigit() for key in name[:-2])
    return bool(words & _IN_BLOCKS) or ("layer" in words and numbered)
