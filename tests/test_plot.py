"""Pictures: what is drawn of a leaf, of a difference and of a plan; matplotlib waits until asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import Policy, plot


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    plt.close("all")  # those of pages of the documentation, which run in this process too
    yield
    plt.close("all")


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


def legend(ax: Any) -> list[str]:
    return texts(ax.get_legend().get_texts())


def drawn(ax: Any) -> None:
    """Draws what would be shown; a text or a size that cannot be is an error."""
    ax.figure.canvas.draw()


# All of them.


@pytest.mark.parametrize(
    "draw",
    [
        lambda **how: plot.leaf(np.zeros((2, 2)), np.ones((2, 2)), **how),
        lambda **how: plot.leaf(np.zeros(2), np.ones(2), **how),
        lambda **how: plot.changes(treeload.diff({"a": np.ones(2)}, {"a": np.zeros(2)}), **how),
        lambda **how: plot.coverage(treeload.plan({"a": np.ones(2)}, {"a": np.zeros(2)}), **how),
    ],
    ids=["images", "histograms", "changes", "coverage"],
)
def test_each_draws_into_the_axes_that_it_is_given_or_makes_its_own_and_returns_them(draw: Any) -> None:
    _, ax = plt.subplots()
    assert draw(ax=ax) is ax and len(plt.get_fignums()) == 1
    own = draw()
    assert own is not ax and len(plt.get_fignums()) == 2
    drawn(own)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_matplotlib_is_imported_by_the_first_picture_and_without_it_the_extra_is_named() -> None:
    assert run("import sys, treeload; treeload.plot.leaf; print('matplotlib' in sys.modules)") == "False\n"
    code = """
import sys
sys.modules["matplotlib"] = None
import numpy as np, treeload
from treeload import plot
one = {"a": np.ones(2)}
for draw in (lambda: plot.leaf(one["a"], one["a"]), lambda: plot.changes(treeload.diff(one, one)),
             lambda: plot.coverage(treeload.plan(one, one))):
    try:
        draw()
    except treeload.TreeloadError as error:
        print(error, "|", type(error.__cause__).__name__)
"""
    assert run(code) == 'pictures need matplotlib: pip install "treeload[plot]" | ModuleNotFoundError\n' * 3


# A leaf.


def images(ax: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(image.get_array()) for image in ax.get_images()]


def test_two_matrices_are_two_images_on_one_scale_around_zero() -> None:
    before, after = np.array([[0.0, -1.0]], np.float32), np.array([[0.5], [3.0]])
    ax = plot.leaf(before, after)
    assert ax.get_title() == "float32[1,2] → float64[2,1]"
    assert [image.tolist() for image in images(ax)] == [before.tolist(), after.tolist()]
    assert len({image.get_clim() for image in ax.get_images()}) == 1
    low, high = ax.get_images()[0].get_clim()
    assert -low == high == pytest.approx(3.0, rel=0.01)
    assert texts(ax.get_xticklabels()) == ["before", "after"]


def test_an_outlier_does_not_leave_all_others_white() -> None:
    outlier = np.ones((100, 100))
    outlier[0, 0] = 1e6
    assert plot.leaf(outlier, outlier).get_images()[0].get_clim() == (-1.0, 1.0)
    assert plot.leaf(outlier * 0, outlier * 0).get_images()[0].get_clim() == (-1.0, 1.0)


def test_of_a_large_matrix_as_much_is_drawn_as_a_screen_shows_and_that_is_said() -> None:
    ax = plot.leaf(np.zeros((3000, 10)), np.zeros((10, 1025)))
    assert [image.shape for image in images(ax)] == [(1000, 10), (10, 513)]
    assert texts(ax.get_xticklabels()) == ["before\n(1 row in 3)", "after\n(1 column in 2)"]


@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 1), (1, 2, 3, 1), (0, 4)])
def test_what_is_no_matrix_is_a_histogram(shape: tuple[int, ...]) -> None:
    ax = plot.leaf(np.ones(shape), np.zeros((2, 2)))
    assert not ax.get_images() and legend(ax) == ["before", "after"]
    drawn(ax)


def test_histograms_share_their_bins_and_count_what_is_not_finite() -> None:
    before = jnp.asarray([0.0, 1.0, 2.0], jnp.bfloat16)
    after = np.array([np.nan, np.inf, 1.0, 4.0])
    ax = plot.leaf(before, after)
    assert ax.get_title() == "bfloat16[3] → float64[4]"
    assert legend(ax) == ["before", "after (2 not finite)"]
    patches: Any = ax.patches
    one, two = (polygon.get_xy()[:, 0] for polygon in patches)
    assert set(one) == set(two) and (one.min(), one.max()) == (0.0, 4.0)


@pytest.mark.parametrize(
    "leaf", [nnx.Param(jnp.ones((2, 2))), np.ones((2, 2), bool), jnp.ones((2, 2), jnp.int4)]
)
def test_variables_flags_and_integers_are_numbers(leaf: Any) -> None:
    assert images(plot.leaf(leaf, leaf))[0].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (3.0, "a float"),
        ([1.0], "a list"),
        (None, "a NoneType"),
        (np.ones(2, complex), r"complex128\[2\]"),
        (jax.random.key(0), r"key<fry>\[\]"),
        (jax.ShapeDtypeStruct((2,), np.float32), r"a ShapeDtypeStruct, float32\[2\]"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(wrong: Any, said: str) -> None:
    for pair in ((wrong, np.ones(2)), (np.ones(2), wrong)):
        with pytest.raises(
            TypeError, match=rf"^leaf\(before, after\) takes two arrays of real numbers, not {said}$"
        ):
            plot.leaf(*pair)
    assert not plt.get_fignums()


# What differs.


def offsets(ax: Any) -> list[list[tuple[float, ...]]]:
    return [[tuple(map(float, point)) for point in found.get_offsets()] for found in ax.collections]


def test_each_leaf_is_in_the_row_of_its_layer_as_far_right_as_it_is_apart() -> None:
    a = {"x": {"k": np.zeros(2), "b": np.zeros(2)}, "y": {"k": np.zeros(2)}, "z": np.zeros(1)}
    b = {"x": {"k": np.array([0, 2.0]), "b": np.zeros(2)}, "y": {"k": np.full(2, -8.0)}, "z": np.ones(1)}
    ax = plot.changes(treeload.diff(a, b))
    assert texts(ax.get_yticklabels()) == ["x", "y", "z"] and ax.get_xscale() == "log"
    # points, hollow ones, crosses; of b, of k, and of what is its own layer
    assert offsets(ax) == [[], [(0, 0)], [], [(2, 0), (8, 1)], [], [], [(1, 2)], [], []]
    assert legend(ax) == ["b", "k", "leaf"]
    assert ax.get_title() == "3 of 4 leaves differ: 3 in values"
    drawn(ax)


def test_what_cannot_be_compared_is_a_cross_at_the_edge() -> None:
    a = {"shape": np.zeros(2), "nan": np.zeros(2), "a": np.zeros(1), "far": np.zeros(1)}
    b = {"shape": np.zeros(3), "nan": np.full(2, np.nan), "b": np.zeros(1), "far": np.full(1, np.inf)}
    ax = plot.changes(treeload.diff(a, b))
    assert [(len(found), found[:1]) for found in offsets(ax)] == [(0, []), (0, []), (5, [(1.0, 0.0)])]
    assert ax.get_xticks().tolist() == []
    drawn(ax)


def test_many_kinds_of_leaves_share_the_last_colour_and_many_layers_have_every_other_name() -> None:
    a = {f"{layer:02}": {f"k{layer % 12}": np.zeros(1)} for layer in range(90)}
    ax = plot.changes(treeload.diff(a, jax.tree.map(lambda leaf: leaf + 1, a)))
    assert legend(ax) == [*(f"k{number}" for number in range(7)), "others"]
    assert texts(ax.get_yticklabels()) == [f"{layer:02}" for layer in range(0, 90, 3)]
    assert sum(map(len, offsets(ax))) == 90
    nine = {"x": {f"k{number}": np.zeros(1) for number in range(8)}}
    assert legend(plot.changes(treeload.diff(nine, nine)))[-1] == "k7"


@pytest.mark.parametrize("empty", [{}, {"a": np.ones(2)}])
def test_of_no_difference_nothing_is_apart(empty: Any) -> None:
    ax = plot.changes(treeload.diff(empty, empty))
    assert "no difference" in ax.get_title()
    drawn(ax)


def test_names_out_of_files_are_texts_and_no_formulas() -> None:
    hostile = {"$\\frac{1}$": {"$x_1$": np.zeros(1), "\x1b[31m": np.zeros(1)}, "$\\no": {"_k": np.ones(1)}}
    diff = treeload.diff(hostile, jax.tree.map(lambda leaf: leaf + 1, hostile))
    drawn(plot.changes(diff))
    ax = plot.coverage(treeload.plan(hostile, hostile))
    assert texts(ax.get_yticklabels()) == ["$\\frac{1}$", "$\\no"]
    drawn(ax)


# How much loads.


def bars(ax: Any) -> dict[str, list[tuple[float, float]]]:
    """Where each module's bar of each word begins, and how long it is."""
    return {found.get_label(): [(bar.get_x(), bar.get_width()) for bar in found] for found in ax.containers}


def test_each_module_has_what_becomes_of_its_elements_in_percent() -> None:
    dst = {
        "head": {"w": np.zeros(6)},
        "trunk": {"w": np.zeros(3), "bias": np.zeros(1)},
        "old": {"w": np.zeros(2)},
    }
    src = {"trunk": {"w": np.ones(3)}, "head": {"w": np.ones(5)}}
    policy = Policy(missing={"old/**": "keep"}, absent_is_zero=treeload.BIAS)
    ax = plot.coverage(treeload.plan(dst, src, policy=policy))
    assert texts(ax.get_yticklabels()) == ["head", "old", "trunk"]
    assert bars(ax) == {
        "loaded": [(0, 0), (0, 0), (0, 75)],
        "zeroed": [(0, 0), (0, 0), (75, 25)],
        "kept": [(0, 0), (0, 100), (100, 0)],
        "wrong": [(0, 100), (100, 0), (100, 0)],
    }
    assert texts(ax.texts) == ["6", "2", "4"]
    assert ax.get_title() == "1 of 4 leaves load (25.0 % of 12 elements)"


def test_a_plan_of_nothing_and_of_one_leaf_are_drawn_too() -> None:
    drawn(plot.coverage(treeload.plan({}, {})))
    ax = plot.coverage(treeload.plan(np.zeros(2), np.ones(2)))
    assert texts(ax.get_yticklabels()) == ["the root"] and bars(ax) == {"loaded": [(0, 100)]}


def test_what_is_no_plan_or_difference_is_refused() -> None:
    with pytest.raises(TypeError, match=r"coverage\(plan\) takes what treeload.plan gives, not a dict"):
        plot.coverage({})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"changes\(diff\) takes what treeload.diff gives, not a Plan"):
        plot.changes(treeload.plan({}, {}))  # type: ignore[arg-type]
