"""Pictures: a leaf before and after, how far two checkpoints are apart, how much of a model loads.

plot.leaf(before, after)      # two arrays, as images or as histograms
plot.changes(diff)            # of a treeload.diff: |Δ| of each layer
plot.coverage(plan)           # what becomes of each top-level module

Drawn by matplotlib, which ``pip install "treeload[plot]"`` brings and which is imported by the first picture.
Each takes an ``Axes`` to draw into, or makes a figure of its own, and returns the axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from treeload._errors import TreeloadError
from treeload._leaves.spec import print_spec, quantity
from treeload._naming.name import Name, print_name
from treeload._naming.printable import printable
from treeload._plan import Plan
from treeload._reports.diff import Diff, LeafDiff
from treeload._reports.verdict import Share, shares_by_module

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["changes", "coverage", "leaf"]

_WIDTH = 8.0  # inches
_PIXELS = 1024  # rows and columns of an image: what no screen shows is not drawn
_BINS = 80
_INSIDE = 0.995  # how many elements the scale of colours holds; a few outliers would leave all others white
_LABELS = 40  # names beside a picture
_KINDS = 7  # colours of leaves, and one for the others
_COLOURS = {"loaded": "#2a9d8f", "zeroed": "#457b9d", "kept": "#c9c9c9", "wrong": "#d62828"}
_HATCHES = {"zeroed": "..", "wrong": "xx"}  # what colours tell is told without them too
_EXACT, _LARGE = 2.0**-1074, 1e300  # what an axis of a logarithm can show


def leaf(before: Any, after: Any, *, ax: Axes | None = None) -> Axes:
    """One leaf before and after: as two images where both have two axes, else as two histograms.

    Images share one scale of colours, with white at zero, that holds all but the largest 0.5 % of elements.
    Of more than 1,024 rows or columns every second or third (and so on) is drawn. Histograms share their
    bins; what is not finite is counted beside them.

    Args:
        before: an array of real numbers, of any shape and dtype.
        after: another; they need not agree.
        ax: where to draw; None makes a figure.

    Examples:
        >>> import numpy as np
        >>> from treeload import plot
        >>> plot.leaf(np.zeros((4, 4)), np.eye(4)).get_title()
        'float64[4,4] → float64[4,4]'

    Raises:
        TypeError: one of them is no array of real numbers.
        TreeloadError: matplotlib is not installed.
    """
    title = " → ".join(_spec(array) for array in (before, after))
    arrays = [_numbers(before), _numbers(after)]
    ax = _axes(4.0) if ax is None else ax
    if all(array.ndim == 2 and array.size for array in arrays):
        _images(ax, arrays)
    else:
        _histograms(ax, arrays)
    ax.set_title(title, parse_math=False)
    return ax


def changes(diff: Diff, *, ax: Axes | None = None) -> Axes:
    """How far two checkpoints are apart: the largest |Δ| of each leaf, a row for each layer.

    A layer is what a leaf lies in; rows are in the order of ``diff.a``, and colours stand for the last keys
    of leaves. Those that are equal are hollow, at the left edge; those that cannot be compared (on one side
    only, of other shapes, not finite) are crosses at the right edge.

    Args:
        diff: what ``treeload.diff`` found.
        ax: where to draw; None makes a figure.

    Examples:
        >>> import numpy as np, treeload
        >>> from treeload import plot
        >>> a, b = ({"up": {"kernel": np.full((2, 2), number)}} for number in (1.0, 3.0))
        >>> ax = plot.changes(treeload.diff(a, b))
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['up']

    Raises:
        TypeError: ``diff`` is no ``Diff``.
        TreeloadError: matplotlib is not installed.
    """
    if not isinstance(diff, Diff):
        raise TypeError(f"changes(diff) takes what treeload.diff gives, not a {type(diff).__name__}")
    rows: dict[Name, int] = {}
    for each in diff:
        rows.setdefault(_layer(each.name), len(rows))
    ax = _axes(_height(len(rows))) if ax is None else ax
    kinds = list(dict.fromkeys(_kind(each.name) for each in diff))
    # A colour each, or where they do not suffice the last is all others'.
    own = kinds if len(kinds) <= _KINDS + 1 else kinds[:_KINDS]
    for number, (kind, several) in enumerate(_by_kind(diff, own)):
        _points(ax, [(rows[_layer(each.name)], each) for each in several], f"C{number}", kind)
    if any(_apart(each) for each in diff):
        ax.set_xscale("log")
    else:
        ax.set_xticks([])
    _name_rows(ax, [print_name(name) or "the root" for name in rows])
    ax.grid(axis="x", alpha=0.3)
    ax.set_xlabel("largest |Δ|  (hollow: equal, ×: not compared)")
    ax.set_title(diff.summary(), parse_math=False)
    _legend(ax, 1.03)
    return ax


def coverage(plan: Plan, *, ax: Axes | None = None) -> Axes:
    """What becomes of each top-level module's elements: loaded, zeroed, kept or wrong, as bars in percent.

    Beside each bar is how many elements its module has; where none has any, how many leaves.

    Args:
        plan: what ``treeload.plan`` made.
        ax: where to draw; None makes a figure.

    Examples:
        >>> import numpy as np, treeload
        >>> from treeload import plot
        >>> plan = treeload.plan({"trunk": np.zeros(2), "head": np.zeros(3)}, {"trunk": np.ones(2)})
        >>> plot.coverage(plan).get_title()
        '1 of 2 leaves load (40.0 % of 5 elements)'

    Raises:
        TypeError: ``plan`` is no ``Plan``.
        TreeloadError: matplotlib is not installed.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"coverage(plan) takes what treeload.plan gives, not a {type(plan).__name__}")
    found = shares_by_module(plan)
    ax = _axes(_height(len(found))) if ax is None else ax
    for word in _COLOURS:
        _bars(ax, word, list(found.values()))
    for row, several in enumerate(found.values()):
        ax.text(101, row, quantity(sum(share.size for share in several)), va="center", fontsize="small")
    _name_rows(ax, [key or "the root" for key in found])
    ax.set_xlim(0, 100)
    ax.set_xlabel("% of the module's elements")
    ax.set_title(plan.summary().partition(";")[0], parse_math=False)
    _legend(ax, 1.12)
    return ax


# What all of them need.


def _axes(height: float) -> Axes:
    """The axes of a new figure.

    Raises:
        TreeloadError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise TreeloadError('pictures need matplotlib: pip install "treeload[plot]"') from error
    _, axes = pyplot.subplots(figsize=(_WIDTH, height), layout="constrained")
    return axes


def _height(rows: int) -> float:
    return 1.6 + 0.25 * min(max(rows, 3), _LABELS)


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names at the left, the first on top; every second or third (and so on) where they are many."""
    step = math.ceil(len(names) / _LABELS) or 1
    shown = [printable(name, 60) for name in names[::step]]
    ax.set_yticks(range(0, len(names), step), labels=shown, fontsize="small", parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)


def _legend(ax: Axes, left: float) -> None:
    """The legend, so far right that it begins ``left`` widths of the picture from its left edge."""
    if ax.get_legend_handles_labels()[1]:
        legend = ax.legend(loc="upper left", bbox_to_anchor=(left, 1.0), frameon=False, fontsize="small")
        for text in legend.get_texts():
            text.set_parse_math(False)


# A leaf.


def _numbers(array: Any) -> np.ndarray[Any, Any]:
    """An array as floats.

    Raises:
        TypeError: it is no array of real numbers.
    """
    dtype = getattr(array, "dtype", None)
    real = dtype is not None and any(
        jax.dtypes.issubdtype(dtype, kind) for kind in (np.floating, np.integer, np.bool_)
    )
    if dtype is None or not real or isinstance(array, jax.ShapeDtypeStruct):
        raise TypeError(f"leaf(before, after) takes two arrays of real numbers, not {_spec(array)}")
    return np.asarray(array).astype(np.float64 if dtype.itemsize > 4 else np.float32)


def _spec(array: Any) -> str:
    if isinstance(array, jax.ShapeDtypeStruct):
        return f"a ShapeDtypeStruct, {print_spec(array)}"
    return print_spec(array) if hasattr(array, "dtype") else f"a {type(array).__name__}"


def _images(ax: Axes, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    steps = [[math.ceil(size / _PIXELS) for size in array.shape] for array in arrays]
    drawn = [array[::down, ::across] for array, (down, across) in zip(arrays, steps, strict=True)]
    finite = [np.abs(array[np.isfinite(array)]) for array in drawn]
    most = max((float(np.quantile(each, _INSIDE)) for each in finite if each.size), default=0.0) or 1.0
    for place, array in enumerate(drawn):
        left = 1.1 * place
        image = ax.imshow(
            array, extent=(left, left + 1, 1, 0), aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most,
            interpolation="nearest",
        )  # fmt: skip
    ax.set_xlim(0, 2.1)
    ax.set_ylim(1, 0)
    ax.set_facecolor("none")
    ax.set_xticks([0.5, 1.6], labels=[_thinned("before", *steps[0]), _thinned("after", *steps[1])])
    ax.set_yticks([])
    beyond = any(each.size and each.max() > most for each in finite)
    ax.figure.colorbar(image, ax=ax, extend="both" if beyond else "neither")


def _thinned(word: str, down: int, across: int) -> str:
    """What stands below an image, with how much of it is drawn."""
    said = [f"1 {what} in {step}" for what, step in (("row", down), ("column", across)) if step > 1]
    return f"{word}\n({', '.join(said)})" if said else word


def _histograms(ax: Axes, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    finite = [array[np.isfinite(array)] for array in arrays]
    edges = np.histogram_bin_edges(np.concatenate(finite), bins=_BINS)
    for word, array, numbers in zip(("before", "after"), arrays, finite, strict=True):
        left = array.size - numbers.size
        label = f"{word} ({left:,} not finite)" if left else word
        ax.hist(numbers, bins=edges.tolist(), histtype="stepfilled", alpha=0.5, label=label)
    ax.set_xlabel("value")
    ax.set_ylabel("elements")
    ax.legend(frameon=False)


# What differs.


def _layer(name: Name) -> Name:
    return Name(name[:-1]) if len(name) > 1 else name


def _kind(name: Name) -> str:
    return name[-1] if len(name) > 1 else ""


def _by_kind(diff: Diff, own: Sequence[str]) -> Iterator[tuple[str, list[LeafDiff]]]:
    """The leaves of each last key, and then all others."""
    for kind in own:
        yield printable(kind, 30), [each for each in diff if _kind(each.name) == kind]
    if others := [each for each in diff if _kind(each.name) not in own]:
        yield "others", others


def _apart(each: LeafDiff) -> float:
    """How far apart a leaf's values are, where that is a number which an axis can show; else 0.0."""
    return each.largest if each.largest and _EXACT < each.largest < _LARGE else 0.0


def _points(ax: Axes, leaves: Sequence[tuple[int, LeafDiff]], colour: str, kind: str) -> None:
    """The points of the leaves of one kind, in their rows."""
    edge = ax.get_yaxis_transform()  # x from 0 to 1 across the picture
    far = [(_apart(each), row) for row, each in leaves if _apart(each)]
    equal = [(0.0, row) for row, each in leaves if each.kind == "equal"]
    other = [(1.0, row) for row, each in leaves if not _apart(each) and each.kind != "equal"]
    how: dict[str, Any] = {"clip_on": False, "zorder": 3}
    ax.scatter(*_columns(far), color=colour, label=kind or "leaf", **how)
    ax.scatter(*_columns(equal), facecolors="none", edgecolors=colour, transform=edge, **how)
    ax.scatter(*_columns(other), color=colour, marker="x", transform=edge, **how)


def _columns(points: Sequence[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [x for x, _ in points], [y for _, y in points]


# How much loads.


def _bars(ax: Axes, word: str, modules: Sequence[Sequence[Share]]) -> None:
    """What becomes of each module by one word, right of what became of it by those before."""
    words = list(_COLOURS)
    totals = [sum(share.size for share in several) or 1 for several in modules]
    before, own = (
        [
            100 * sum(share.size for share in several if share.word in chosen) / total
            for several, total in zip(modules, totals, strict=True)
        ]
        for chosen in (words[: words.index(word)], [word])
    )
    if any(own):
        ax.barh(
            range(len(modules)), own, left=before, color=_COLOURS[word], label=word,
            hatch=_HATCHES.get(word), edgecolor="white",
        )  # fmt: skip
