"""What users hand in: what is a tree or a source, and what is said of anything else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import From
from treeload._sources import given
from treeload._sources.memory import MemorySource
from treeload._trees.tree import Tree

TREE = {"w": np.ones(2)}


@pytest.mark.parametrize(
    "src", [TREE, {}, [], np.ones(2), 3, "a/path", Path("a"), MemorySource(TREE), From(TREE)]
)
def test_what_may_be_a_source_is_not_refused(src: Any) -> None:
    given.source(src, "load")


@pytest.mark.parametrize(
    ("src", "said"),
    [
        ("", "empty text"),
        (None, "None: give a path as str or Path, a From, a Source or a tree"),
        (b"a", "bytes: give a path as str"),
        (bytearray(b"a"), "bytearray: give a path as str"),
        (io.BytesIO(b"a"), "an open file: give a path as str"),
        (object(), "no tree of arrays: give a path as str"),
        (From(None), "None: give"),
        (From(""), "empty text"),
        (dict, "the class dict"),
    ],
)
def test_what_is_no_source_is_said_inside_a_from_too(src: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"load's source .*{said}"):
        given.source(src, "load")


@pytest.mark.parametrize("dst", ["a/path", Path("a/path")])
def test_a_path_that_came_first_is_shown_where_it_belongs(dst: Any) -> None:
    with pytest.raises(
        TypeError, match=r"load\(destination, source\) was given a path first.*load\(tree, 'a/path'\)"
    ):
        given.destination(dst, TREE, "load")
    with pytest.raises(TypeError, match="load's destination is a path: give the model"):
        given.destination(dst, "other", "load")


@pytest.mark.parametrize(("dst", "shown"), [(MemorySource(TREE), "source"), (From(TREE), r"From\(\.\.\.\)")])
def test_a_source_that_came_first_is_shown_as_one(dst: Any, shown: str) -> None:
    with pytest.raises(TypeError, match=rf"was given a {type(dst).__name__} first.*load\(tree, {shown}\)"):
        given.destination(dst, TREE, "load")


def test_both_sides_are_looked_at_before_the_destination_is_walked() -> None:
    assert given.destination(TREE, {}, "load").names == [("w",)]
    with pytest.raises(TypeError, match="plan's source is None"):
        given.destination(TREE, None, "plan")


def test_a_verb_that_writes_takes_its_path_first() -> None:
    given.path("a", "save")
    given.path(Path("a"), "save")
    with pytest.raises(TypeError, match=r"save\(path, tree\) was given a dict first"):
        given.path(TREE, "save")


@pytest.mark.parametrize("tree", ["a/path", MemorySource(TREE), From(TREE)])
def test_a_verb_that_reads_a_tree_takes_no_checkpoint(tree: Any) -> None:
    with pytest.raises(TypeError, match=r"names takes a tree, not .*treeload\.inspect"):
        given.read_only(tree, "names")


def test_tracers_are_refused_unless_they_are_welcome() -> None:
    def traced(x: Any) -> Any:
        assert given.read_only({"w": x}, "names", traced=True).names == [("w",)]
        with pytest.raises(TypeError, match="names's tree is being traced"):
            given.read_only({"w": x}, "names")
        return x

    jax.jit(traced)(jnp.ones(2))


@pytest.mark.parametrize(("count", "more"), [(1, ""), (5, ""), (7, "\nand 2 more")])
def test_of_many_hidden_arrays_five_are_named(count: int, more: str) -> None:
    tree = Tree({}, hidden={(str(number),) if number else (): f"why {number}" for number in range(count)})
    with pytest.raises(OverflowError) as caught:
        given.refuse_hidden(tree, "the source", OverflowError)
    first, *lines = str(caught.value).removesuffix(more).split("\n")
    assert first.startswith("the source holds") and str(caught.value).endswith(more)
    assert lines == ["the root: why 0", *(f"{n}: why {n}" for n in range(1, min(count, 5)))]


def test_a_tree_without_hidden_arrays_is_not_refused() -> None:
    given.refuse_hidden(Tree({}), "the source", TypeError)


def test_of_equinox_shapes_alone_come_from_its_own_function() -> None:
    import equinox as eqx

    class Net(eqx.Module):
        layer: Any
        act: Any

        def __init__(self, width: int) -> None:
            self.layer = eqx.nn.Linear(width, 2, key=jax.random.key(0))
            self.act = jax.nn.relu

    with pytest.raises(TypeError, match=r"eqx\.filter_eval_shape\(Net, \.\.\.\)"):
        treeload.plan(Net, {"w": np.ones(2)})
    with pytest.raises(TypeError, match=r"eqx\.filter_eval_shape\(function, \.\.\.\)"):
        treeload.plan(lambda: Net(3), {"w": np.ones(2)})
    assert treeload.plan(eqx.filter_eval_shape(Net, 3), Net(3)).ok  # as it says
