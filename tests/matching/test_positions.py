"""Flat lists of arrays, taken in the order of the destination's leaves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import From, LoadError, Name, RuleError
from treeload._matching.parts import OpenedPart
from treeload._matching.positions import by_number
from treeload._sources.memory import MemorySource
from treeload._trees.walk import walk

DST = {"b": jnp.zeros(3), "a": jnp.zeros(2), "n": {"x": jnp.zeros((2, 2))}}


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.full(shape, number + 1, np.float32) for number, shape in enumerate(shapes)]


def test_the_order_is_that_of_the_destinations_leaves() -> None:
    loaded = treeload.load(DST, From(arrays((2,), (3,), (2, 2)), by_position=True))
    assert [float(loaded["a"][0]), float(loaded["b"][0]), float(loaded["n"]["x"][0, 0])] == [1, 2, 3]


def test_below_into_only_its_leaves_have_positions() -> None:
    source = [From(arrays((2, 2)), into="n", by_position=True), From({"a": np.ones(2), "b": np.ones(3)})]
    loaded = treeload.load(DST, source)
    assert (loaded["n"]["x"] == 1).all() and (loaded["a"] == 1).all()


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2,), (3,), (2, 2), (1,)), ()])
def test_another_count_is_one_finding_and_nothing_loads(shapes: tuple[tuple[int, ...], ...]) -> None:
    plan = treeload.plan(DST, From(arrays(*shapes), by_position=True))
    (finding,) = plan.findings
    assert finding.kind == "rule"
    assert f"{len(shapes)} array" in finding.message and "3 leaves" in finding.message
    assert {str(entry.action) for entry in plan.entries} == {"keep"}
    with pytest.raises(LoadError, match=f"the source has {len(shapes)} arrays"):
        plan.load()


def test_a_shift_is_found_by_shape_at_the_leaf_it_meets() -> None:
    plan = treeload.plan(DST, From(arrays((3,), (2,), (2, 2)), by_position=True))
    assert {(finding.kind, str(finding.name)) for finding in plan.errors} == {("shape", "a"), ("shape", "b")}


def test_a_tied_leaf_has_one_position() -> None:
    shared = jnp.zeros(2)
    loaded = treeload.load(
        {"a": shared, "b": shared, "c": jnp.zeros(1)}, From(arrays((2,), (1,)), by_position=True)
    )
    assert loaded["a"] is loaded["b"] and float(loaded["c"][0]) == 2


@pytest.mark.parametrize("more", [{"rules": [treeload.Rename("0", "a")]}, {"subtree": "x"}])
def test_rules_and_subtrees_have_no_names_to_work_on(more: dict) -> None:
    with pytest.raises(RuleError, match="by_position"):
        From(arrays((2,)), by_position=True, **more)


def test_the_plans_own_rules_see_the_destinations_names() -> None:
    dst = {"w": jnp.zeros((3, 2))}
    rules = [treeload.Rename("w", "w", treeload.Transpose())]
    loaded = treeload.load(
        dst, From([np.arange(6.0, dtype=np.float32).reshape(2, 3)], by_position=True), rules=rules
    )
    assert loaded["w"].shape == (3, 2) and float(loaded["w"][1, 0]) == 1


# Numbers in the place of names.


class Keyless:
    """A node whose class gives JAX no keys; its attributes have names all the same."""

    def __init__(self, first: object, second: object) -> None:
        self.first, self.second = first, second


jax.tree_util.register_pytree_node(
    Keyless, lambda node: ((node.second, node.first), None), lambda _, c: Keyless(c[1], c[0])
)


def numbered(dst: object, src: object, **how: Any) -> dict[str, str]:
    """What the leaves of a source are called that are read by number."""
    part = by_number(walk(dst), OpenedPart(MemorySource(src), **how))
    assert part.numbered == (part.called or {}).keys()
    return {str(Name(own)): str(Name(new)) for own, new in (part.called or {}).items()}


def test_numbers_are_places_among_the_children_of_a_keyless_node_in_the_order_of_jax() -> None:
    dst = {"n": Keyless(np.zeros(1), np.zeros(2))}
    assert numbered(dst, {"n": [np.ones(2), np.ones(1)]}) == {"n/0": "n/second", "n/1": "n/first"}


def test_keyless_nodes_inside_each_other_are_read_level_by_level() -> None:
    dst = Keyless(np.zeros(1), Keyless(np.zeros(2), np.zeros(3)))
    assert numbered(dst, [[np.ones(3), np.ones(2)], np.ones(1)]) == {
        "0/0": "second/second", "0/1": "second/first", "1": "first",
    }  # fmt: skip


def test_numbers_below_into_are_places_there() -> None:
    dst = {"n": Keyless(np.zeros(1), np.zeros(2))}
    assert numbered(dst, [np.ones(2), np.ones(1)], into=("n",)) == {"0": "second", "1": "first"}
    assert numbered(dst, {"s": [np.ones(2), np.ones(1)], "t": np.ones(1)}, into=("n",), subtree=("s",)) == {
        "s/0": "second", "s/1": "first",
    }  # fmt: skip


@pytest.mark.parametrize(
    "src",
    [
        {"0": np.ones(2)},
        {"0": np.ones(2), "1": np.ones(1), "2": np.ones(1)},
        {"0": np.ones(2), "x": np.ones(1)},
    ],
)
def test_other_numbers_than_there_are_children_are_no_places(src: Any) -> None:
    assert numbered({"n": Keyless(np.zeros(1), np.zeros(2))}, {"n": src}) == {}


def test_names_are_left_as_they_are_and_so_is_a_tree_that_has_keys() -> None:
    dst = {"n": Keyless(np.zeros(1), np.zeros(2))}
    assert numbered(dst, {"n": {"first": np.ones(1), "second": np.ones(2)}}) == {}
    assert numbered({"n": [np.zeros(1)]}, {"n": [np.ones(1)]}) == {}
    assert numbered(dst, {"n": [np.ones(1)]}, by_position=True) == {}
