"""Both sides of a load, and the questions that are asked of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pytest

from treeload import From, Policy, Rename, Source, Stack
from treeload._leaves.selection import Within
from treeload._leaves.spec import Spec, spec_of
from treeload._matching.offers import offered
from treeload._matching.parts import opened_parts
from treeload._matching.sides import Sides
from treeload._naming.name import Name
from treeload._ops.expression import Leaf
from treeload._trees.walk import walk

ONE = np.ones(2, np.float32)


def sides(dst: Any, src: Any, *rules: Any, scope: Any = None) -> Sides:
    return Sides(walk(dst), offered(opened_parts(src, "plan"), rules), Policy(), Within.of(scope))


def tied() -> dict[str, Any]:
    shared = np.zeros(2)
    return {"a": shared, "b": {"c": shared}, "d": np.zeros(1)}


def test_slots_are_found_by_name_and_by_alias() -> None:
    assert sides(tied(), {}).slots == {("a",): 0, ("b", "c"): 0, ("d",): 1}


def test_the_names_of_a_slot_are_its_own_and_then_its_aliases() -> None:
    both = sides(tied(), {})
    assert both.names_of(0) == (("a",), ("b", "c")) and both.names_of(1) == (("d",),)


def test_nodes_of_the_destination_are_those_above_a_leaf_that_may_load() -> None:
    dst = {"n": {"w": ONE}, "s": {"act": "relu"}, "e": {"none": None}, "k": {"step": 3}}
    assert sides(dst, {}).slot_prefixes == {(), ("n",), ("k",)}


def test_nodes_above_an_alias_alone_are_nodes_too() -> None:
    assert ("b",) in sides(tied(), {}).slot_prefixes


def test_a_bare_array_has_no_nodes() -> None:
    assert sides(ONE, ONE).slot_prefixes == frozenset() and sides(ONE, ONE).offer_prefixes == {}


def test_nodes_of_the_source_are_counted_by_the_leaves_below_under_their_new_names() -> None:
    both = sides({}, {"x": {"w": ONE, "b": ONE}, "y": ONE, "e": {"none": None}}, Rename("x/{*r}", "n/x/{*r}"))
    assert both.offer_prefixes == {(): 3, ("n",): 2, ("n", "x"): 2}
    assert both.offer_prefixes[("e",)] == 0


def test_without_a_scope_all_lies_within() -> None:
    assert sides({}, {}).in_scope(("a",), spec_of(ONE))


def test_a_scope_is_asked_for_name_and_spec() -> None:
    both = sides({}, {}, scope=lambda name, spec: name == ("a",) and spec.shape == (2,))
    assert (
        both.in_scope(("a",), ONE) and not both.in_scope(("b",), ONE) and not both.in_scope(("a",), ONE[:1])
    )
    assert not sides({}, {}, scope="b/**").in_scope(("a",), ONE)


def test_a_table_is_made_once() -> None:
    both = sides(tied(), tied())
    assert both.slots is both.slots and both.slot_prefixes is both.slot_prefixes
    assert both.offer_prefixes is both.offer_prefixes


def test_sides_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        sides({}, {}).scope = None  # type: ignore[misc]


class Counting(Source):
    label = "a file"

    def specs(self) -> Mapping[Name, Spec]:
        return {Name(("step",)): jax.ShapeDtypeStruct((), np.int64), Name(("w",)): spec_of(ONE)}

    def numbers(self) -> frozenset[tuple[str, ...]]:
        return frozenset({("step",)})

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        raise AssertionError("an array was read")


def test_what_was_a_python_number_when_it_was_saved_is_known_under_its_own_name() -> None:
    both = sides({}, From(Counting(), into="net"), Rename("net/step", "n"))
    ((step, _),) = both.offers.values_at(("n",))
    ((w, _),) = both.offers.values_at(("net", "w"))
    assert both.was_number(step) and not both.was_number(w)


def test_what_is_made_of_numbers_is_no_number() -> None:
    both = sides({}, Counting(), Stack("ste{i}", "all"))
    assert not any(both.was_number(value) for value, _ in both.offers.values_at(("all",)))


def test_the_leaves_of_a_value_are_named_as_their_sources_name_them() -> None:
    both = sides({}, [From({"l": [ONE, ONE]}, into="net"), From(Counting())], Stack("net/l/{i}", "all"))
    ((value, _),) = both.offers.values_at(("all",))
    assert [(leaf.source, str(leaf.name)) for leaf in both.source_leaves(value)] == [
        ("a tree in memory", "l/0"), ("a tree in memory", "l/1"),
    ]  # fmt: skip
    assert both.source_leaf(value) == both.source_leaves(value)[0]
    assert both.source_leaf(Leaf(1, Name(("w",)), spec_of(ONE))).source == "a file"
