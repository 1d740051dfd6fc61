"""``Copy``: one source leaf for several destination leaves; it stays for the rules after it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treeload
from treeload import (
    Apply,
    Concat,
    Copy,
    From,
    Name,
    Pad,
    Plan,
    Policy,
    Rename,
    Rule,
    RuleError,
    Slice,
    Split,
    Tie,
    Transpose,
)
from treeload._ops.expression import Leaf
from treeload._rules.apply import Arrival, apply_rules, rename_empty
from treeload.rules import Made, Matched, compile_pattern

NAMES = st.lists(st.sampled_from("abcdef"), unique=True, min_size=1, max_size=6)
RENAMES = st.lists(st.builds(Rename, st.sampled_from("abcdefg"), st.sampled_from("uvwxyz")), max_size=4)
COPIES = st.lists(
    st.builds(lambda a, b: Copy(a, f"copy/{b}"), st.sampled_from("abcdefg"), st.sampled_from("uvwxyz")),
    max_size=4,
)


def value(name: str, *shape: int) -> tuple[Name, Leaf]:
    return Name.parse(name), Leaf(0, Name.parse(name), jax.ShapeDtypeStruct(shape or (2,), np.float32))


def ones(*shape: int, by: float = 1) -> np.ndarray[Any, Any]:
    return np.full(shape or (2,), by, np.float32)


def said(plan: Plan) -> list[tuple[str, str]]:
    return [(str(finding.kind), str(finding.name)) for finding in plan.findings]


# Laws.


@given(NAMES, st.data())
def test_a_copy_and_the_leaf_itself_both_have_its_value(names: list[str], data: st.DataObject) -> None:
    copied = data.draw(st.lists(st.sampled_from(names), unique=True))
    src = {name: ones(by=number) for number, name in enumerate(names)}
    dst = {**{name: ones(by=-1) for name in names}, "copies": {name: ones(by=-1) for name in copied}}
    plan = treeload.plan(dst, src, rules=[Copy(name, f"copies/{name}") for name in copied])
    assert not plan.findings and not plan.unused
    loaded = plan.load()
    assert all((loaded[name] == src[name]).all() for name in names)
    assert all((loaded["copies"][name] == src[name]).all() for name in copied)


@given(NAMES, RENAMES, COPIES, st.data())
def test_what_other_rules_give_is_the_same_wherever_a_copy_stands_among_them(
    names: list[str], renames: list[Rename], copies: list[Copy], data: st.DataObject
) -> None:
    values = [value(name) for name in names]
    mixed = data.draw(st.permutations([*renames, *copies]))
    others = [rule for rule in mixed if not isinstance(rule, Copy)]

    def facts(fed: Sequence[tuple[Any, Arrival]]) -> list[Any]:
        return [(name, one.value, one.rule, one.taken) for name, one in fed if not isinstance(one.rule, Copy)]

    (with_copies, failed), (without, alone) = apply_rules(values, mixed), apply_rules(values, others)
    assert facts(with_copies) == facts(without)
    assert [one for one in failed if not isinstance(one.rule, Copy)] == alone


@given(NAMES, COPIES, st.randoms())
def test_copies_may_stand_in_any_order(names: list[str], copies: list[Copy], random: Any) -> None:
    values, again = [value(name) for name in names], list(copies)
    random.shuffle(again)
    (fed, _), (other, _) = apply_rules(values, copies), apply_rules(values, again)
    assert sorted(fed, key=repr) == sorted(other, key=repr)


@given(NAMES, COPIES)
def test_what_is_spare_was_copied_and_keeps_its_name(names: list[str], copies: list[Copy]) -> None:
    fed, _ = apply_rules([value(name) for name in names], copies)
    copied = {pattern.text for rule in copies for pattern in rule.patterns}
    left = [(name, one) for name, one in fed if one.rule is None]
    assert [name for name, _ in left] == [(name,) for name in names]
    assert all(one.spare == (name[0] in copied) for name, one in left)


# One leaf for two.


def test_one_bias_of_a_gru_for_two() -> None:
    src = {"bias_hh": np.arange(6, dtype=np.float32)}
    dst = {"dense_h": {"bias": np.zeros(4, np.float32)}, "hn": {"bias": np.zeros(2, np.float32)}}
    rules = [Copy("bias_hh", "dense_h/bias", Slice(4)), Rename("bias_hh", "hn/bias", Slice(4, 6))]
    plan = treeload.plan(dst, src, rules=rules)
    assert plan.ok and [str(entry.rule) for entry in plan.entries] == list(map(repr, rules))
    loaded = plan.load()
    assert loaded["dense_h"]["bias"].tolist() == [0, 1, 2, 3] and loaded["hn"]["bias"].tolist() == [4, 5]


def test_a_copy_of_several_leaves_leaves_all_of_them() -> None:
    sum_of = Apply(lambda a, b: a + b)
    fed, failures = apply_rules([value("a"), value("b")], [Copy(["a", "b"], "sum", sum_of)])
    assert failures == [] and [name for name, _ in fed] == [("sum",), ("a",), ("b",)]
    src = {"a": ones(), "b": ones(by=2)}
    rules = [Copy(["a", "b"], "sum", sum_of), Rename(["a", "b"], "difference", Apply(lambda a, b: a - b))]
    loaded = treeload.load({"sum": ones(), "difference": ones()}, src, rules=rules)
    assert (loaded["sum"] == 3).all() and (loaded["difference"] == -1).all()


def test_one_leaf_is_one_part_of_a_copy_though_two_of_its_patterns_match() -> None:
    rule = Copy(["{x}/a", "{x}/*"], "{x}", Apply(lambda a, b: a + b))
    fed, failures = apply_rules([value("m/a"), value("m/b")], [rule])
    assert failures == [] and next(one.taken for _, one in fed) == (("m", "a"), ("m", "b"))


def test_other_kinds_of_rules_may_take_what_was_copied() -> None:
    src = {"qkv": np.arange(6, dtype=np.float32), "b": ones()}
    dst = {"fused": ones(6), "q": ones(), "k": ones(), "v": ones(), "qb": ones(4)}
    rules = [
        Copy("qkv", "fused"),
        Copy("qkv", "qb_q", Slice(2)),
        Split("qkv", ["q", "k", "v"], axis=0),
    ]
    plan = treeload.plan(dst, src, rules=[*rules[:1], *rules[2:]], policy=Policy("keep", "ignore"))
    assert (plan.load()["fused"] == src["qkv"]).all() and plan.load()["v"].tolist() == [4, 5]
    joined = treeload.plan({"w": ones(4), "a": ones()}, {"a": ones(), "b": ones()},
                           rules=[Copy("a", "a"), Concat(["a", "b"], "w", axis=0)])  # fmt: skip
    assert joined.ok


def test_the_copies_are_arrays_of_their_own() -> None:
    src = {"a": jnp.arange(2.0), "key": jax.random.key(3)}
    dst = {"a": jnp.zeros(2), "b": jnp.zeros(2), "c": jnp.zeros(2), "k": jax.random.key(0)}
    rules = [Copy("a", "b"), Tie("c", "a"), Copy("key", "k")]
    loaded = treeload.load({**dst, "key": jax.random.key(1)}, src, rules=rules)
    assert loaded["a"] is loaded["c"] and loaded["key"] is not loaded["k"]
    freed = jax.jit(lambda a, b: (a + 1, b + 1), donate_argnums=(0, 1))(loaded["a"], loaded["b"])
    assert [one.tolist() for one in freed] == [[1, 2], [1, 2]]


# What stays needs no place.


@pytest.mark.parametrize(
    "held", [None, False, "static", {"x": ones()}, {}], ids=["none", "false", "static", "subtree", "empty"]
)
def test_a_leaf_that_was_copied_is_not_left_over(held: Any) -> None:
    rules = [Copy("a", "b"), *([Copy("a", "a/x")] if held else [])][: 2 if isinstance(held, dict) else 1]
    policy = Policy(absent_is_zero="**")
    plan = treeload.plan({"a": held, "b": ones()}, {"a": ones(by=3)}, rules=rules, policy=policy)
    assert said(plan) == [] and plan.unused == () and plan.pending == ()
    assert (plan.load()["b"] == 3).all()


@pytest.mark.parametrize("held", [None, "static"])
def test_nor_is_a_number_that_was_copied(held: Any) -> None:
    plan = treeload.plan({"a": held, "b": 0}, {"a": 3}, rules=Copy("a", "b"))
    assert said(plan) == [] and plan.unused == () and plan.load() == {"a": held, "b": 3}


def test_a_leaf_below_the_leaf_that_its_copy_feeds_is_none_either() -> None:
    plan = treeload.plan({"a": ones()}, {"a": {"w": ones()}}, rules=Copy("a/w", "a"))
    assert said(plan) == [] and plan.unused == ()
    plan = treeload.plan({"a": ones(3)}, {"a": {"w": ones()}}, rules=Copy("a/w", "a"))
    assert said(plan) == [("shape", "a")]


def test_outside_the_scope_it_is_of_use_all_the_same() -> None:
    plan = treeload.plan({"a": ones(), "b": ones()}, {"a": ones(by=3)}, rules=Copy("a", "b"), scope="b")
    assert plan.ok and plan.unused == ()
    assert plan["a"].reason == "outside the scope" and (plan.load()["b"] == 3).all()


def test_under_its_own_name_it_is_held_to_what_the_destination_asks() -> None:
    plan = treeload.plan({"a": ones(3), "b": ones()}, {"a": ones()}, rules=Copy("a", "b"))
    assert said(plan) == [("shape", "a")]


def test_a_number_sets_a_flag_that_holds_false_and_an_array_does_not() -> None:
    plan = treeload.plan({"a": False, "b": 0}, {"a": 1}, rules=Copy("a", "b"))
    assert plan["b"].action == "load" and said(plan) == [("dtype", "a")]
    plan = treeload.plan({"a": False, "b": False}, {"a": True}, rules=Copy("a", "b"))
    assert plan.load() == {"a": True, "b": True}


def test_a_copy_to_a_name_that_is_not_there_is_unexpected() -> None:
    plan = treeload.plan({"a": ones(), "b": ones()}, {"a": ones()}, rules=Copy("a", "bb"))
    assert said(plan) == [("missing", "b"), ("unexpected", "bb")]
    assert "by rule      Copy('a', 'bb')" in str(plan)


def test_a_rule_that_takes_it_afterwards_is_held_to_where_it_leads() -> None:
    plan = treeload.plan({"b": ones()}, {"a": ones()}, rules=[Copy("a", "b"), Rename("a", "typo")])
    assert said(plan) == [("unexpected", "typo")]


def test_a_tie_may_follow_what_was_copied() -> None:
    plan = treeload.plan({"b": ones(), "c": ones()}, {"a": ones(by=3)}, rules=[Copy("a", "b"), Tie("c", "a")])
    assert said(plan) == [] and (plan.load()["c"] == 3).all()


def test_two_copies_at_one_place_are_a_collision_and_so_is_a_copy_with_a_leaf() -> None:
    rules = [Copy("a", "c"), Copy("b", "c")]
    assert said(treeload.plan({"c": ones()}, {"a": ones(), "b": ones()}, rules=rules)) == [("collision", "c")]
    both = treeload.plan({"a": ones(), "c": ones()}, {"a": ones(), "x": ones()},
                         rules=[Copy("a", "c"), Rename("x", "a")])  # fmt: skip
    assert said(both) == [("collision", "a")]  # as without the Copy


def test_where_nothing_wants_what_was_copied_others_may_have_its_name() -> None:
    src, rules = {"a": ones(), "x": ones(), "y": ones()}, [Copy("a", "c"), Rename("{n}", "a")]
    fed, _ = apply_rules([value(name) for name in "axy"], [Copy("a", "c"), Rename("x", "a")])
    assert [(name, one.spare) for name, one in fed if name == ("a",)] == [(("a",), False), (("a",), True)]
    plan = treeload.plan({"c": ones()}, src, rules=[Copy("a", "c"), Rename("x", "a"), Rename("y", "a")])
    assert said(plan) == [("unexpected", "a")] * 2
    assert said(treeload.plan({"c": ones()}, src, rules=rules)) == [("unexpected", "a")] * 3


def test_a_copy_under_the_leafs_own_name_takes_its_place() -> None:
    double = Apply(lambda a: a * 2)
    plan = treeload.plan({"a": ones()}, {"a": ones()}, rules=Copy("a", "a", double))
    assert said(plan) == [] and (plan.load()["a"] == 2).all()
    plan = treeload.plan(
        {"a": ones(), "b": ones()}, {"a": ones()}, rules=[Copy("a", "a", double), Copy("a", "b")]
    )
    assert said(plan) == [] and (plan.load()["b"] == 1).all()


# What goes wrong.


def test_a_copy_that_matched_nothing_is_said_as_for_a_rename() -> None:
    for make in (Rename, Copy):
        (finding,) = treeload.plan({"a": ones()}, {"a": ones()}, rules=make("x", "b")).errors
        assert (finding.kind, str(finding.name)) == ("rule", "b")
        assert (
            finding.message
            == f"{make.__name__}('x', 'b') matched nothing: no leaf of the source is called 'x'"
        )


def test_one_leaf_by_two_rules_is_said_with_what_to_write() -> None:
    src, dst = {"a": ones()}, {"b": ones(), "c": ones()}
    rules = [Copy("a", "d"), Rename("a", "b"), Rename("{x}", "c")]
    plan = treeload.plan({**dst, "d": ones()}, src, rules=rules)
    (finding,) = [one for one in plan.errors if one.kind == "rule"]
    assert finding.message == f"{rules[2]!r} matched only leaves that an earlier rule had taken"
    assert finding.remedy is not None
    assert finding.remedy.startswith(
        "for one leaf in two places, write Rename('a', 'b') as a Copy, or add a Tie"
    )
    assert treeload.plan(dst, src, rules=[Copy("a", "b"), rules[2]]).ok
    assert treeload.plan(dst, src, rules=[Rename("a", "b"), Tie("c", "b")]).ok


def test_an_op_that_does_not_fit_is_a_finding_at_the_new_name_and_the_leaf_stays() -> None:
    rules = Copy("a", "b", Transpose(1, 0))
    plan = treeload.plan({"a": ones(), "b": ones()}, {"a": ones(by=3)}, rules=rules)
    assert said(plan) == [("rule", "b")] and plan["a"].action == "load"
    forgiven = Policy(missing="keep", rule={"b": "ignore"})
    plan = treeload.plan({"a": ones(), "b": ones()}, {"a": ones(by=3)}, rules=rules, policy=forgiven)
    assert plan.ok and (plan.load()["a"] == 3).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Copy("a/{i", "b"), "a/{i"),
        (lambda: Copy("{i}", "{j}"), "does not capture"),
        (lambda: Copy("a", "b", cast(Any, Transpose)), r"^Copy takes ops .* write Transpose\(\)"),
        (lambda: Copy(["a", "b"], "c"), r"^Copy\(\[\.\.\.\]\) of several leaves needs an Apply"),
        (lambda: Copy([], "c", Apply(max)), "^Copy takes at least one part"),
        (lambda: Copy(["{i}/a", "b"], "c", Apply(max)), "^Copy: .* different captures"),
        (lambda: Copy("a", "b", Pad(3, fill="destination"), Transpose()), "it is the last op"),
    ],
)
def test_a_copy_that_cannot_mean_anything_is_a_rule_error(make: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        make()


def test_a_copy_may_fill_up_with_the_destinations_own() -> None:
    dst = {"a": ones(), "b": ones(3, by=7)}
    loaded = treeload.load(dst, {"a": ones(by=3)}, rules=Copy("a", "b", Pad(3, fill="destination")))
    assert loaded["b"].tolist() == [3, 3, 7]


# Wherever a Rename may stand.


def test_it_is_a_value_that_prints_as_it_is_written_and_is_no_rename() -> None:
    rule = Copy("{i}/a", "b/{i}", Transpose())
    assert repr(rule) == "Copy('{i}/a', 'b/{i}', Transpose())" and eval(repr(rule)) == rule
    assert rule == Copy("{i}/a", "b/{i}", Transpose()) and hash(rule) == hash(eval(repr(rule)))
    assert rule != Rename("{i}/a", "b/{i}", Transpose()) and rule != Copy("{i}/a", "b/{i}")
    assert repr(Copy(["a", "b"], "c", Apply(max))) == "Copy(['a', 'b'], 'c', Apply(max))"
    assert rule.copies and not Rename("a", "b").copies
    assert rule.destination_text() == "b/{i}" and [one.text for one in rule.patterns] == ["{i}/a"]
    with pytest.raises(AttributeError, match="cannot assign"):
        rule.ops = ()  # type: ignore[misc]


def test_its_inverse_is_a_rename_back_where_there_is_one() -> None:
    assert Copy("a/{i}", "b/{i}", Transpose()).inverse() == Rename("b/{i}", "a/{i}", Transpose())
    for lossy in (Copy("a", "b", Slice(1)), Copy("*", "b"), Copy(["a", "b"], "c", Apply(max))):
        assert lossy.inverse() is None


def test_a_slot_that_holds_nothing_goes_to_the_copy_and_stays() -> None:
    rules = [Copy("a", "b"), Copy("{n}", "c"), Rename("a", "d"), Rename("a", "e")]
    assert rename_empty(("a",), rules) == [("b",), ("c",), ("d",)]
    assert rename_empty(("z",), rules) == [("c",), ("z",)]
    dst, policy = {name: ones(by=5) for name in "abc"}, Policy(absent_is_zero="*")
    plan = treeload.plan(dst, {"a": None, "c": ones()}, rules=Copy("a", "b"), policy=policy)
    assert plan.ok and [str(entry.action) for entry in plan.entries] == ["zero", "zero", "load"]
    plan = treeload.plan(dst, {"a": None, "c": ones()}, rules=Copy("a", "b"))
    assert [one.message for one in plan.errors] == ["the source has None here"] * 2


def test_a_static_goes_to_the_copy_and_stays() -> None:
    plan = treeload.plan(
        {"a": ones(), "b": ones(), "c": ones()}, {"a": "text", "c": ones()}, rules=Copy("a", "b")
    )
    assert [one for one in said(plan) if one[0] == "structure"] == [("structure", "a"), ("structure", "b")]


def test_in_a_from_it_goes_through_into_and_meets_the_plans_rules() -> None:
    dst, part = {"m": {"b": ones()}}, From({"a": ones(by=3)}, into="m", rules=Copy("a", "b"))
    plan = treeload.plan(dst, part)
    assert plan.ok and plan.unused == () and repr(plan["m/b"].rule) == "Copy('a', 'b')"
    dst["m"]["c"] = ones()
    plan = treeload.plan(dst, part, rules=Rename("m/a", "m/c"))
    assert plan.ok and [repr(entry.rule) for entry in plan.entries] == [
        "Copy('a', 'b')",
        "Rename('m/a', 'm/c')",
    ]
    plan = treeload.plan(dst, part, rules=Copy("m/a", "m/c"))
    assert plan.ok and plan.unused == ()
    assert said(treeload.plan(dst, part, rules=Rename("m/a", "m/d"))) == [
        ("missing", "m/c"),
        ("unexpected", "m/d"),
    ]


def test_in_a_from_what_a_failed_rule_was_to_feed_goes_where_copies_go() -> None:
    part = From({"a": ones(), "z": ones()}, rules=Rename("a", "x", Transpose(1, 0)))
    dst = {"x": ones(), "y": ones(), "z": ones()}
    plan = treeload.plan(dst, part, rules=[Copy("x", "y"), Rename("z", "z")])
    assert next(one for one in said(plan) if one[0] == "rule") == ("rule", "y")
    assert plan["x"].reason == plan["y"].reason == "a rule for it could not be applied"


def test_of_several_sources_each_leaf_is_copied_once() -> None:
    sources = [From({"a": ones()}, into="x"), From({"a": ones(by=2)}, into="y")]
    dst = {"x": {"a": ones(by=0), "b": ones(by=0)}, "y": {"b": ones(by=0)}}
    plan = treeload.plan(dst, sources, rules=Copy("{s}/a", "{s}/b"))
    assert plan.ok and plan.unused == ()
    assert plan.load()["y"]["b"].tolist() == [2, 2] and plan.load()["x"]["a"].tolist() == [1, 1]


def test_a_plan_shows_it_in_its_entries_its_report_and_its_data() -> None:
    plan = treeload.plan({"a": ones(), "b": ones()}, {"a": ones()}, rules=Copy("a", "b"))
    assert plan["b"].rule == Copy("a", "b") and plan["a"].rule is None
    assert [entry["rule"] for entry in plan.to_dict()["entries"]] == [None, "Copy('a', 'b')"]
    assert re.search(r"load  b  float32\[2\]  <- a", str(plan))


def test_what_was_copied_is_still_there_for_suggestions_after_the_plans_own_rules() -> None:
    src = {"dense": {"bias": ones(3)}, "norm": {"bias": ones(3)}}
    dst = {"dense": {"bias": ones(3)}, "shadow": ones(3), "norm": {"beta": ones(3)}}
    given = Copy("dense/bias", "shadow")
    suggested = treeload.plan(dst, src, rules=given).suggest()
    assert tuple(suggested) == (given, Rename("norm/bias", "norm/beta")) and not suggested.ambiguous
    assert treeload.plan(dst, src, rules=suggested).ok
    only = treeload.plan(
        {"shadow": ones(3), "dense": {"beta": ones(3)}}, {"dense": src["dense"]}, rules=given
    )
    assert tuple(only.suggest()) == (given, Rename("dense/bias", "dense/beta"))


@dataclass(frozen=True)
class Shadow(Rule):
    """A rule of a user's own that leaves what it takes."""

    name: str
    copies = True

    @property
    def patterns(self) -> Any:
        return (compile_pattern(self.name),)

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        for leaf in taken:
            yield Made((*leaf.name, "shadow"), leaf.value, (leaf.name,))


def test_a_rule_of_ones_own_may_copy_too() -> None:
    dst = {"a": {"shadow": ones()}, "b": ones(), "c": ones()}
    plan = treeload.plan(dst, {"a": ones(), "b": ones()}, rules=[Shadow("a"), Copy("a", "c")])
    assert said(plan) == [] and plan.unused == ()


# Where there is no destination.


def test_an_average_holds_both_and_a_comparison_only_what_the_other_side_has() -> None:
    part = From({"a": ones(), "z": ones()}, rules=Copy("a", "b"))
    assert treeload.average([part, part]).keys() == {"a", "b", "z"}
    assert treeload.diff(part, {"b": ones(), "z": ones()}).equal
    assert treeload.diff(part, {"a": ones(), "b": ones(), "z": ones()}).equal
    assert not treeload.diff(part, {"a": ones(), "z": ones()}).equal
