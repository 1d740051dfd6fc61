"""Rules take source leaves and give them new names, all at once, and say so when they do nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Apply, Cast, Name, Rename, Reshape, RuleError, Transpose
from treeload._naming.name import print_name
from treeload._naming.pattern import Pattern, compile_pattern
from treeload._ops.expression import Derived, Leaf, ops_of
from treeload._rules.apply import RuleFailure, apply_rules, rename_empty
from treeload._rules.rule import Made, Matched, Rule

KEYS = st.text("ab/\\{}*\n0", max_size=4)
NAMES = st.lists(KEYS, max_size=4).map(tuple)


def leaf(*keys: str, shape: tuple[int, ...] = (2, 3)) -> tuple[Name, Leaf]:
    return Name(keys), Leaf(0, Name(keys), jax.ShapeDtypeStruct(shape, np.float32))


def leaves(*printed: str) -> list[tuple[Name, Leaf]]:
    return [leaf(*Name.parse(name)) for name in printed]


def applied(values: Sequence[tuple[Name, Leaf]], *rules: Rule) -> tuple[list[tuple[str, str]], list[str]]:
    """(new name, old name) of every value, and the messages of the faults."""
    fed, faults = apply_rules(values, rules)
    pairs = [(print_name(name), " + ".join(map(print_name, each.taken))) for name, each in fed]
    return pairs, [fault.message for fault in faults]


# --- apply_rules ------------------------------------------------------------------------------------


def test_without_rules_everything_keeps_its_name() -> None:
    values = leaves("b", "a/x")
    fed, faults = apply_rules(values, ())
    assert [(name, each.value) for name, each in fed] == values
    assert all(each.rule is None and each.taken == (name,) for name, each in fed)
    assert faults == []


def test_all_renames_happen_at_once() -> None:
    pairs, faults = applied(leaves("a", "b", "c"), Rename("a", "b"), Rename("b", "a"))
    assert pairs == [("b", "a"), ("a", "b"), ("c", "c")]
    assert faults == []


def test_rules_are_not_chained() -> None:
    pairs, faults = applied(leaves("a"), Rename("a", "b"), Rename("b", "c"))
    assert pairs == [("b", "a")]
    assert len(faults) == 1


def test_the_first_rule_that_matches_takes_the_leaf() -> None:
    first, second = Rename("a/*", "x"), Rename("a/{*rest}", "y/{*rest}")
    pairs, faults = applied(leaves("a/b", "a/b/c"), first, second)
    assert pairs == [("x", "a/b"), ("y/b/c", "a/b/c")]
    assert faults == []


def test_results_are_ordered_by_rule_then_by_name_and_what_no_rule_took_comes_last() -> None:
    pairs, _ = applied(leaves("k", "b/2", "a/1", "b/1"), Rename("a/{i}", "A/{i}"), Rename("b/{i}", "B/{i}"))
    assert pairs == [("A/1", "a/1"), ("B/2", "b/2"), ("B/1", "b/1"), ("k", "k")]


def test_two_values_under_one_name_are_both_there() -> None:
    pairs, faults = applied(leaves("a/x", "b/x"), Rename("{i}/x", "x"))
    assert pairs == [("x", "a/x"), ("x", "b/x")]
    assert faults == []


def test_every_value_knows_the_rule_that_named_it() -> None:
    rule = Rename("a", "b", Transpose())
    (named, kept), _ = apply_rules(leaves("a", "c"), [rule])
    assert named[1].rule is rule and kept[1].rule is None
    assert isinstance(named[1].value, Derived)
    assert named[1].value.spec.shape == (3, 2) and ops_of(named[1].value) == (Transpose(),)


def test_ops_run_from_left_to_right() -> None:
    rule = Rename("a", "b", Reshape(3, 2), Transpose(), Cast("bfloat16"))
    ((_, fed),), _ = apply_rules(leaves("a"), [rule])
    assert fed.value is not None
    assert fed.value.spec == jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)
    assert ops_of(fed.value) == (Reshape(3, 2), Transpose(), Cast("bfloat16"))


def test_an_op_that_does_not_fit_is_a_fault_of_that_leaf_alone() -> None:
    rule = Rename("{i}/w", "{i}/k", Transpose(1, 0))
    values = [leaf("a", "w", shape=(2, 3)), leaf("b", "w", shape=(2,))]
    fed, faults = apply_rules(values, [rule])
    assert [(name, each.value is None) for name, each in fed] == [(("a", "k"), False), (("b", "k"), True)]
    message = "Transpose(1, 0) is for 2 axes, the leaf is float32[2]"
    assert faults == [RuleFailure(rule, ("b", "k"), (("b", "w"),), message, (values[1][1],))]


@pytest.mark.parametrize("pattern", ["x", "{*p}/x", "a/*/*", "A/b", "b"])
def test_a_rule_that_matches_nothing_is_a_fault(pattern: str) -> None:
    rule = Rename(pattern, "y")
    pairs, (message,) = applied(leaves("a/b", "c"), rule)
    assert pairs == [("a/b", "a/b"), ("c", "c")]
    assert message == f"{rule!r} matched nothing: no leaf of the source is called '{pattern}'"
    assert apply_rules(leaves("a"), [rule])[1][0].name is None


def test_a_rule_whose_leaves_an_earlier_rule_took_says_so() -> None:
    late = Rename("a/b", "y")
    _, (message,) = applied(leaves("a/b"), Rename("a/{i}", "x/{i}"), late)
    assert message == f"{late!r} matched only leaves that an earlier rule had taken"
    _, (message,) = applied(leaves("a/b"), Rename("z", "y"), Rename("a/b", "x"))
    assert "matched nothing" in message
    _, (message,) = applied(leaves("a/b"), Rename("a/b", "x"), Rename("z", "y"))
    assert "matched nothing" in message


def test_the_same_rule_given_twice_does_nothing_the_second_time() -> None:
    rule = Rename("a", "b")
    for again in (rule, Rename("a", "b")):
        pairs, (message,) = applied(leaves("a"), rule, again)
        assert pairs == [("b", "a")]
        assert "an earlier rule had taken" in message


class Sum(Rule):
    """Many to one, with two patterns."""

    patterns = (compile_pattern("{*p}/left"), compile_pattern("{*p}/right"))  # type: ignore[assignment]

    def give(self, taken: Sequence[Matched]) -> Iterator[Made]:
        groups: dict[str, list[Matched]] = {}
        for each in taken:
            groups.setdefault(each.match["p"], []).append(each)
        for prefix, group in groups.items():
            assert [each.pattern for each in group] == [0, 1]
            yield Made((*prefix.split("/")[:-1], "sum"), group[0].value, tuple(each.name for each in group))

    def inverse(self) -> Rule | None:
        return None

    def __repr__(self) -> str:
        return "Sum()"


def test_a_rule_may_make_one_value_of_several_leaves() -> None:
    pairs, faults = applied(leaves("a/left", "b/left", "a/right", "b/right", "c"), Sum())
    assert pairs == [("a/sum", "a/left + a/right"), ("b/sum", "b/left + b/right"), ("c", "c")]
    assert faults == []


def test_a_rule_of_several_patterns_that_matched_nothing_names_them_all() -> None:
    _, (message,) = applied(leaves("a"), Sum())
    assert message == "Sum() matched nothing: no leaf of the source is called '{*p}/left' or '{*p}/right'"
    assert Sum().rename(("a", "left")) is None
    assert Sum().destination_text() == "{*p}/left"


@given(st.lists(NAMES, unique=True, max_size=6), st.permutations([0, 1, 2]))
def test_no_leaf_is_lost_and_none_is_taken_twice(names: list[tuple[str, ...]], order: list[int]) -> None:
    rules = [Rename("a/{*r}", "{*r}"), Rename("{*r}/b", "x/{*r}"), Rename("{i}", "y/{i}")]
    fed, _ = apply_rules([leaf(*name) for name in names], [rules[number] for number in order])
    assert sorted(taken for _, each in fed for taken in each.taken) == sorted(names)


# --- slots that hold nothing ------------------------------------------------------------------------


def test_a_slot_that_holds_nothing_follows_the_first_rule_that_takes_it() -> None:
    rules = [Sum(), Rename("a/{*r}", "x/{*r}", Transpose()), Rename("{*r}", "y/{*r}")]
    assert rename_empty(("a", "bias"), rules) == [("x", "bias")]
    assert rename_empty(("b", "bias"), rules) == [("y", "b", "bias")]
    assert rename_empty(("b",), rules[:2]) == [("b",)]
    assert rename_empty(("b",), ()) == [("b",)]


# --- Rename -----------------------------------------------------------------------------------------


def renamed(rule: Rename, *keys: str) -> tuple[str, ...]:
    ((name, _),), faults = apply_rules([leaf(*keys)], [rule])
    assert faults == []
    return name


@given(NAMES, NAMES)
def test_a_rename_of_one_name_is_that_rename_and_its_inverse_undoes_it(
    a: tuple[str, ...], b: tuple[str, ...]
) -> None:
    rule = Rename(a, b)
    inverse = rule.inverse()
    assert isinstance(inverse, Rename)
    assert renamed(rule, *a) == b and renamed(inverse, *b) == a


@given(NAMES)
def test_the_inverse_of_a_prefix_takes_it_off(keys: tuple[str, ...]) -> None:
    rule = Rename("{*rest}", "encoder/{*rest}")
    inverse = rule.inverse()
    assert isinstance(inverse, Rename)
    assert renamed(inverse, *renamed(rule, *keys)) == keys


@pytest.mark.parametrize(
    ("rule", "inverse"),
    [
        (Rename("layer_{i}/weight", "layers/{i}/kernel"), Rename("layers/{i}/kernel", "layer_{i}/weight")),
        (Rename("{*r}", "x/{*r}", Transpose()), Rename("x/{*r}", "{*r}", Transpose())),
        (
            Rename("a", "b", Transpose(1, 2, 0), Reshape(6, source=(2, 3))),
            Rename("b", "a", Reshape(2, 3, source=(6,)), Transpose(2, 0, 1)),
        ),
        (Rename("a", "b", Apply(jnp.exp, jnp.log)), Rename("b", "a", Apply(jnp.log, jnp.exp))),
        (Rename(r"a\*", "b"), Rename("b", r"a\*")),
        (Rename("{i}/{i}", "{i}"), Rename("{i}", "{i}/{i}")),
    ],
)
def test_a_rename_that_loses_nothing_can_be_turned_round(rule: Rename, inverse: Rename) -> None:
    assert rule.inverse() == inverse
    assert inverse.inverse() == rule


@pytest.mark.parametrize(
    "rule",
    [
        Rename("{i}/w", "w"),
        Rename("*/w", "w"),
        Rename("**/w", "w"),
        Rename(r"\\*", "w"),  # a backslash, then a wildcard
        Rename("{*p}/*/{i}", "{*p}/{i}"),
        Rename(re.compile("a(.*)"), r"b\1"),
        Rename("a", "b", Cast("bfloat16")),
        Rename("a", "b", Reshape(2, 3)),
        Rename("a", "b", Transpose(), Apply(jnp.exp)),
    ],
)
def test_a_rename_that_loses_something_has_no_inverse(rule: Rename) -> None:
    assert rule.inverse() is None


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (Rename("a/{i}", "b/{i}"), "Rename('a/{i}', 'b/{i}')"),
        (Rename("a", "b", Transpose(), Cast("bfloat16")), "Rename('a', 'b', Transpose(), Cast('bfloat16'))"),
        (Rename(("a/b", "*"), Name(("c",))), r"Rename('a\\/b/\\*', 'c')"),
        (Rename(re.compile("a(.)"), r"b\1"), r"Rename(re.compile('a(.)'), 'b\\1')"),
    ],
)
def test_a_rename_prints_as_code_that_makes_it(rule: Rename, code: str) -> None:
    assert repr(rule) == code
    assert eval(code) == rule


def test_a_rename_is_a_value() -> None:
    assert Rename("a", "b", Transpose()) == Rename(("a",), Name(("b",)), Transpose())
    assert hash(Rename("a", "b")) == hash(Rename("a", "b"))
    assert Rename("a", "b") != Rename("a", "c")
    with pytest.raises(AttributeError, match="cannot assign"):
        Rename("a", "b").source = compile_pattern("c")  # type: ignore[misc]


def test_a_rename_lands_at_its_destination() -> None:
    assert Rename("a/{i}", "b/{i}").destination_text() == "b/{i}"
    assert isinstance(Rename("a", "b").patterns[0], Pattern)


def test_an_expression_renames_as_match_expand_does() -> None:
    rule = Rename(re.compile(r"h\.(\d+)/(?P<rest>.*)"), r"layers/\1/\g<rest>", Transpose())
    assert renamed(rule, "h.3", "attn", "w") == ("layers", "3", "attn", "w")
    assert rule.rename(("h.0", "b")) == ("layers", "0", "b")
    assert rule.rename(("xh.0", "b")) is None


@pytest.mark.parametrize(
    ("source", "destination", "ops"),
    [
        ("layers/{i", "a", ()),
        ("a//b", "a", ()),
        ("a", "b//c", ()),
        ("{i}", "{j}", ()),
        ("a/*", "b/*", ()),
        ("a", "b", (Transpose,)),
        ("a", "b", ("transpose",)),
        ("a", "b", (jnp.transpose,)),
        ("a", None, ()),
        (None, "a", ()),
        (re.compile("a"), r"\1", ()),
    ],
)
def test_a_rename_that_cannot_mean_anything_is_a_rule_error(
    source: object, destination: object, ops: tuple[object, ...]
) -> None:
    with pytest.raises(RuleError) as raised:
        Rename(source, destination, *ops)  # type: ignore[arg-type]
    assert isinstance(raised.value, ValueError)
