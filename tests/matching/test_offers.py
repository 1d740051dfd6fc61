"""What the sources offer, under the names it would have in the destination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from treeload import From, Rename, Source, SourceError, Stack, Transpose, Unstack
from treeload._leaves.number import Number
from treeload._leaves.spec import Spec, spec_of
from treeload._matching.offers import Mapped, Offers, Plain, offered
from treeload._matching.parts import opened_parts
from treeload._naming.name import Name, print_name
from treeload._ops.expression import Leaf
from treeload._rules.apply import Arrival

ONE = np.ones(2, np.float32)
trees = st.recursive(
    st.sampled_from([ONE, np.ones(3), None, False, 3, "relu"]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
).filter(lambda tree: isinstance(tree, dict))
ALL = Rename("{*all}", "{*all}")


def offers(src: Any, *rules: Any) -> Offers:
    return offered(opened_parts(src, "plan"), rules)


def shown(found: Offers) -> dict[str, tuple[str, ...]]:
    """Each offered name, and the own names of the leaves there, the one that wins first."""
    return {
        print_name(name): tuple(
            str(leaf.name) for value, _ in found.values_at(name) for leaf in value.leaves()
        )
        for name in found.shaped
    }


# Laws.


@given(trees)
def test_an_identity_offers_what_the_source_offers_by_itself(tree: Any) -> None:
    plain, mapped = offers(tree), offers(tree, ALL)
    assert isinstance(plain.leaves, Plain) and isinstance(mapped.leaves, Mapped)
    assert shown(plain) == shown(mapped) and plain.before_rules() == mapped.before_rules()
    assert (plain.empty, plain.statics) == (mapped.empty, mapped.statics)


@given(trees)
def test_into_puts_every_name_below_it_and_the_subtree_takes_it_off(tree: Any) -> None:
    placed = offers(From(tree, into="net"))
    assert set(shown(placed)) == {f"net/{name}" for name in shown(offers(tree))}
    again = offers(From({"net": tree}, subtree="net"))
    assert set(shown(again)) == set(shown(offers(tree)))
    assert again.empty == offers(tree).empty and again.statics == offers(tree).statics


@given(trees, trees)
def test_no_leaf_is_lost_where_two_sources_meet(one: Any, two: Any) -> None:
    found = offers([From(one), From(two)])
    leaves = [leaf for name in found.shaped for value, _ in found.values_at(name) for leaf in value.leaves()]
    assert len(leaves) == len(set(leaves)) == len(shown(offers(one))) + len(shown(offers(two)))
    assert set(found.contested) == set(offers(one).shaped) & set(offers(two).shaped)


@given(trees)
def test_nothing_is_offered_at_a_name_that_nothing_has(tree: Any) -> None:
    for found in (offers(tree), offers(tree, ALL)):
        assert found.arrival(("z",)) is None and list(found.values_at(("z",))) == []


# One source as it is.


def test_a_plain_source_offers_each_leaf_as_itself() -> None:
    found = offers({"a": ONE})
    assert found.arrival(("a",)) == Arrival(Leaf(0, Name(("a",)), spec_of(ONE)), None, (("a",),))
    assert found.contested == [] and found.mapped is None


def test_a_number_stays_a_number_under_any_name() -> None:
    assert isinstance(offers({"a": 3}).shaped["a",], Number)
    assert isinstance(offers({"a": 3}, Rename("a", "b")).shaped["b",], Number)


def test_what_an_op_makes_is_offered_as_its_spec() -> None:
    found = offers({"a": np.ones((2, 3))}, Rename("a", "a", Transpose()))
    assert found.shaped["a",].shape == (3, 2) and found.before_rules()["a",].shape == (2, 3)


def test_a_bare_array_is_offered_at_the_root_and_goes_below_into() -> None:
    assert shown(offers(ONE)) == {"": ("",)} and shown(offers(From(ONE, into="a/b"))) == {"a/b": ("",)}


# The way of a name.


def test_a_subtree_is_cut_then_its_rules_then_into_then_the_plans_rules() -> None:
    part = From({"x": {"a": ONE}, "y": ONE}, subtree="x", rules=Rename("a", "b"), into="n")
    assert shown(offers(part, Rename("n/b", "c"))) == {"c": ("x/a",)}
    assert list(offers(part, Rename("n/b", "c")).before_rules()) == [("n", "b")]


def test_the_rule_that_is_named_is_the_plans_where_both_took_the_leaf() -> None:
    own, plans = Rename("a", "b"), Rename("b", "c")
    ((_, rule),) = offers(From({"a": ONE}, rules=own), plans).values_at(("c",))
    assert rule == plans
    ((_, rule),) = offers(From({"a": ONE}, rules=own)).values_at(("b",))
    assert rule == own


def test_a_rule_may_make_one_leaf_of_leaves_of_several_sources() -> None:
    found = offers([From({"0": ONE}, into="l"), From({"1": ONE}, into="l")], Stack("l/{i}", "all"))
    ((value, _),) = found.values_at(("all",))
    assert [leaf.index for leaf in value.leaves()] == [0, 1]


def test_slots_that_hold_nothing_and_statics_go_the_way_of_leaves() -> None:
    src = {"x": {"none": None, "off": False, "act": "relu"}, "y": {"none": None, "act": "gelu"}}
    found = offers(From(src, subtree="x", rules=Rename("none", "nil"), into="n"), Rename("n/off", "on"))
    assert found.empty == {("n", "nil"): None, ("on",): False} and found.statics == {("n", "act")}


# Collisions.


def test_sources_win_in_order() -> None:
    found = offers([From({"a": ONE}), From({"b": ONE}, rules=Rename("b", "a"))])
    assert shown(found) == {"a": ("a", "b")} and found.contested == [("a",)]


def test_of_one_source_rules_win_in_order_and_what_no_rule_took_comes_last() -> None:
    src = {"a": ONE, "b": ONE, "c": ONE}
    assert shown(offers(src, Rename("c", "a"), Rename("b", "a"))) == {"a": ("c", "b", "a")}


def test_of_one_rule_names_win_in_order_and_numbers_count_as_numbers() -> None:
    src = {"l": {"10": ONE, "9": ONE, "x": ONE}}
    assert shown(offers(src, Rename("l/*", "a"))) == {"a": ("l/9", "l/10", "l/x")}


# Rules that fail.


def test_a_rule_that_took_nothing_is_a_failure_that_feeds_nothing() -> None:
    (failure,) = offers({"a": ONE}, Rename("old", "new")).failures
    assert failure.name is None and "matched nothing" in failure.message


def test_a_rule_of_a_from_says_where_its_names_go() -> None:
    found = offers(From({"a": ONE}, into="net", rules=Rename("old", "new")))
    assert [one.destination_text for one in found.failures] == ["net/new"]


@pytest.mark.parametrize("inside", [True, False])
def test_a_rule_that_took_an_empty_slot_alone_is_of_use(inside: bool) -> None:
    rule, src = Rename("old", "new"), {"old": None, "a": ONE}
    found = offers(From(src, rules=rule)) if inside else offers(src, rule)
    assert not found.failures and found.empty == {("new",): None}


@pytest.mark.parametrize("inside", [True, False])
def test_what_a_rule_could_not_make_is_known_to_be_fed_by_nothing(inside: bool) -> None:
    rule, src = Rename("a", "b", Transpose(2, 1, 0)), {"a": ONE}
    found = offers(From(src, rules=rule, into="n")) if inside else offers(src, rule)
    name = ("n", "b") if inside else ("b",)
    arrival = found.arrival(name)
    assert arrival is not None and arrival.value is None and arrival.rule == rule
    assert [one.name for one in found.failures] == [name]
    assert name not in found.shaped and list(found.values_at(name)) == []


def test_a_failure_of_a_part_is_named_as_the_plans_rules_name_it() -> None:
    part = From({"a": ONE}, rules=Rename("a", "b", Transpose(2, 1, 0)))
    (failure, *_) = offers(part, Rename("b", "c")).failures
    assert failure.name == ("c",)


@pytest.mark.parametrize("inside", [True, False])
def test_pieces_that_fail_for_one_reason_are_one_failure_and_all_of_them_are_fed_by_nothing(
    inside: bool,
) -> None:
    rule, src = Unstack("all", "l/{i}", Transpose(2, 1, 0)), {"all": np.ones((2, 3))}
    found = offers(From(src, rules=rule)) if inside else offers(src, rule)
    assert len(found.failures) == 1
    for number in ("0", "1"):
        arrival = found.arrival(("l", number))
        assert arrival is not None and arrival.value is None


def test_a_value_wins_over_a_failure_at_the_same_name() -> None:
    found = offers({"a": ONE, "b": ONE}, Rename("a", "b", Transpose(2, 1, 0)))
    assert shown(found) == {"b": ("b",)} and len(found.failures) == 1


# Which leaves are one array.


def leaf(found: Offers, name: str) -> Leaf:
    ((value, _),) = found.values_at(Name(name))
    assert isinstance(value, Leaf)
    return value


def test_aliases_of_a_shared_variable_are_one_leaf() -> None:
    variable = nnx.Param(jnp.ones(2))
    found = offers({"a": variable, "b": variable, "c": nnx.Param(jnp.ones(2))})
    assert found.stored_as(leaf(found, "a")) == found.stored_as(leaf(found, "b"))
    assert found.same_leaf(leaf(found, "a"), leaf(found, "b"))
    assert not found.same_leaf(leaf(found, "a"), leaf(found, "c"))


def test_one_array_object_is_one_array_even_in_two_sources() -> None:
    found = offers([From({"a": ONE}), From({"b": ONE, "c": ONE.copy()})])
    assert found.same_leaf(leaf(found, "a"), leaf(found, "b"))
    assert not found.same_leaf(leaf(found, "a"), leaf(found, "c"))


def test_specs_and_numbers_that_are_one_object_tell_nothing() -> None:
    spec = spec_of(ONE)
    found = offers({"a": spec, "b": spec})
    assert not found.same_leaf(leaf(found, "a"), leaf(found, "b"))


# With more.


@pytest.mark.parametrize("rules", [(), (ALL,)])
def test_further_arrivals_take_the_place_of_what_was_there_and_the_old_offers_stay(rules: Any) -> None:
    before = offers({"a": ONE, "b": np.ones(3)}, *rules)
    one = before.arrival(("b",))
    assert one is not None
    after = before.with_arrivals({("a",): one, ("c",): one})
    assert shown(after) == {"a": ("b",), "b": ("b",), "c": ("b",)}
    assert shown(before) == {"a": ("a",), "b": ("b",)}
    assert after.before_rules() == before.before_rules()


def test_further_arrivals_leave_rivals_as_they_are() -> None:
    before = offers([From({"a": ONE}), From({"a": ONE, "b": ONE})])
    assert before.with_arrivals({("c",): Arrival(None, None, ())}).contested == [("a",)]


# A source that fails.


class Failing(Source):
    label = "a failing source"

    def __init__(self, what: str) -> None:
        self.what = what

    def specs(self) -> Mapping[Name, Spec]:
        return self._fail("specs", {})

    def absent(self) -> Any:
        return self._fail("absent", {})

    def ties(self) -> Any:
        return self._fail("ties", {})

    def _fail(self, what: str, otherwise: Any) -> Any:
        if what == self.what:
            raise ValueError(f"no {what}")
        return otherwise

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        raise AssertionError("an array was read")


@pytest.mark.parametrize("what", ["specs", "absent", "ties"])
@pytest.mark.parametrize("rules", [(), (ALL,)])
def test_a_source_that_does_not_say_what_it_holds_is_a_source_error(what: str, rules: Any) -> None:
    with pytest.raises(
        SourceError, match=f"a failing source does not say what it holds: ValueError: no {what}"
    ):
        offers(Failing(what), *rules).shaped  # noqa: B018  # plain offers ask for specs when they are wanted
