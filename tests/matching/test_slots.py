"""What happens to one destination slot, through ``decide`` alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from noted import findings_of, unused_of

from treeload import BIAS, From, Policy, Rename, Tie, Transpose
from treeload._leaves.selection import Within
from treeload._matching.boxes import open_boxes
from treeload._matching.ledger import Feed, Ledger
from treeload._matching.offers import offered
from treeload._matching.parts import opened_parts
from treeload._matching.sides import Sides
from treeload._matching.slots import decide, leaf_against_subtree, subtree_against_leaf
from treeload._plans.entry import Entry
from treeload._trees.walk import walk

ONE = np.ones(2, np.float32)
ZERO_MEANS_ABSENT = Policy(absent_is_zero="**")
values = st.sampled_from([
    ONE, np.zeros(3), np.zeros(2, np.int8), jax.ShapeDtypeStruct((2,), np.float32), None, False, True, 3,
    2.5, "relu", {"w": ONE}, {"w": None}, {}, np.zeros((), bool),
])  # fmt: skip
policies = st.builds(
    Policy,
    **{kind: st.sampled_from(["error", "keep"]) for kind in ("missing", "shape", "dtype", "structure")},
    casting=st.sampled_from(["no", "same_kind", "unsafe"]),
    absent_is_zero=st.sampled_from([(), ("**",)]),
)


def decided(
    dst: Any, src: Any, *rules: Any, policy: Policy = ZERO_MEANS_ABSENT, scope: Any = None
) -> tuple[Sides, Ledger]:
    """Both sides, and the lines for every slot."""
    parts = opened_parts(src, "plan")
    tree = walk(dst)
    parts = [open_boxes(part, tree.names, rules) for part in parts]
    sides = Sides(tree, offered(parts, rules), policy, Within.of(scope))
    lines = Ledger(sides, [None] * len(sides.tree.names))
    for index in range(len(sides.tree.names)):
        decide(sides, lines, index)
    return sides, lines


def said(lines: Ledger) -> list[tuple[str, str]]:
    return [(str(finding.kind), str(finding.name)) for finding in findings_of(lines)]


def row(lines: Ledger, index: int = 0) -> Entry:
    found = lines.rows[index]
    assert isinstance(found, Entry)
    return found


def one(dst: Any, src: Any, *rules: Any, **how: Any) -> tuple[str, str, list[str]]:
    """Action and reason of the only slot, and the kinds of what was found."""
    _, lines = decided(dst, src, *rules, **{"policy": Policy(), **how})
    return str(row(lines).action), row(lines).reason, [str(finding.kind) for finding in findings_of(lines)]


# Laws.


@given(values, values, policies)
def test_every_leaf_has_a_line_and_what_is_no_leaf_has_none_or_loads(
    dst: Any, src: Any, policy: Policy
) -> None:
    sides, lines = decided({"a": dst}, {"a": src}, policy=policy)
    rows: Any = lines.rows
    for line, kind in zip(rows, sides.tree.kinds, strict=True):
        assert isinstance(line, Entry) if kind <= 1 else line is None or line.action in ("load", "keep")


@given(values, values, policies)
def test_a_leaf_that_was_found_wrong_never_loads(dst: Any, src: Any, policy: Policy) -> None:
    _, lines = decided({"a": dst}, {"a": src}, policy=policy)
    wrong = {finding.name for finding in findings_of(lines)}
    for line in lines.rows:
        if isinstance(line, Entry) and line.name in wrong:
            assert line.action == "keep" and line.reason


@given(values, values, policies)
def test_a_kept_leaf_says_why(dst: Any, src: Any, policy: Policy) -> None:
    _, lines = decided({"a": dst}, {"a": src}, policy=policy)
    kept = [line for line in lines.rows if isinstance(line, Entry) and line.action in ("keep", "zero")]
    assert all(line.reason for line in kept)


@given(values, policies)
def test_outside_the_scope_every_leaf_is_kept_without_a_word(src: Any, policy: Policy) -> None:
    _, lines = decided(
        {"a": ONE, "act": "relu", "on": False}, {"a": src, "act": src, "on": src}, policy=policy, scope=()
    )
    assert not lines.findings and not lines.checks and row(lines).reason == "outside the scope"
    assert all(left.why == "outside the scope" for left in unused_of(lines))


# Statics.


def test_a_static_that_meets_nothing_has_nothing_to_say() -> None:
    _, lines = decided({"act": "relu"}, {})
    assert lines.rows == [None] and not lines.findings and not lines.accounted_for


def test_a_number_that_meets_a_static_is_unused_and_no_finding() -> None:
    _, lines = decided({"act": "relu"}, {"act": 3})
    assert not lines.findings and [left.why for left in unused_of(lines)] == [
        "the destination has a static here, which never loads"
    ]


def test_an_array_that_meets_a_static_is_structure() -> None:
    _, lines = decided({"act": "relu"}, {"act": ONE})
    assert said(lines) == [("structure", "act")] and findings_of(lines)[0].expected == "a static"
    assert lines.accounted_for == {("act",)} and len(lines.unused) == 1


def test_of_two_arrays_that_meet_a_static_both_are_unused() -> None:
    _, lines = decided({"act": "relu"}, [From({"act": ONE}), From({"act": ONE})])
    assert said(lines) == [("structure", "act")] and len(lines.unused) == 2


# Slots that hold nothing.


@pytest.mark.parametrize("src", [{"a": ONE}, {"a": 3}, {"a": None}, {}])
def test_none_is_left_to_the_sources_side(src: Any) -> None:
    _, lines = decided({"a": None}, src)
    assert lines.rows == [None] and not lines.findings and not lines.accounted_for


@pytest.mark.parametrize("given", [True, np.ones((), bool)])
def test_a_false_loads_a_flag_or_a_boolean_of_no_axes(given: Any) -> None:
    assert one({"on": False}, {"on": given}) == ("load", "", [])


def test_a_false_against_a_number_is_a_number_against_a_number() -> None:
    assert one({"on": False}, {"on": 3}) == ("keep", "dtypes differ", ["dtype"])


@pytest.mark.parametrize("given", [ONE, np.ones((1,), bool), np.ones(())])
def test_a_false_against_any_other_array_is_left_to_the_sources_side(given: Any) -> None:
    _, lines = decided({"on": False}, {"on": given})
    assert lines.rows == [None] and not lines.accounted_for


# Leaves that are fed.


def test_a_leaf_loads_what_has_its_name() -> None:
    _, lines = decided({"a": np.zeros(2, np.float32)}, {"a": ONE})
    assert (row(lines).action, row(lines).reason) == ("load", "") and lines.accounted_for == {("a",)}


def test_the_root_is_a_name_like_any_other() -> None:
    assert one(np.zeros(2, np.float32), ONE) == ("load", "", [])
    assert one(np.zeros(3, np.float32), ONE) == ("keep", "shapes differ", ["shape"])


def test_a_misfit_keeps_the_leaf_and_leaves_the_value() -> None:
    _, lines = decided({"a": np.zeros(3, np.float32)}, {"a": ONE})
    assert [left.why for left in unused_of(lines)] == ["its destination leaf is kept"]
    assert row(lines).reason == "shapes differ" and said(lines) == [("shape", "a")]


def test_an_op_that_would_help_is_written_as_a_rename_where_the_name_was_kept() -> None:
    dst = {"a": np.zeros((3, 2), np.float32)}
    _, lines = decided(dst, {"a": np.ones((2, 3), np.float32)})
    assert findings_of(lines)[0].remedies[0].code == 'Rename("a", "a", Transpose())'
    _, renamed = decided(dst, {"b": np.ones((2, 3), np.float32)}, Rename("b", "a"))
    assert findings_of(renamed)[0].remedies[0].code == "Transpose()"


def test_casting_is_asked_for_the_name_that_fed_the_leaf() -> None:
    shared = np.zeros(2, np.int32)
    dst, policy = {"a": shared, "b": shared}, Policy(casting={"b": "unsafe"})
    assert one(dst, {"b": ONE}, policy=policy) == ("load", "", [])
    assert one(dst, {"a": ONE}, policy=policy) == ("keep", "dtypes differ", ["dtype"])


def test_a_tied_leaf_is_within_the_scope_where_one_of_its_names_is() -> None:
    shared = np.zeros(2, np.float32)
    assert one({"a": shared, "b": shared}, {"a": ONE}, scope="b")[0] == "load"


def test_a_rule_that_failed_keeps_the_leaf_without_calling_it_missing() -> None:
    rule = Rename("old", "a", Transpose(2, 1, 0))
    assert one({"a": ONE}, {"old": ONE}, rule) == ("keep", "a rule for it could not be applied", [])
    assert one({"a": ONE}, {"old": ONE}, rule, policy=Policy(rule="ignore"))[2] == ["missing"]


def test_where_a_rule_failed_what_feeds_an_alias_is_left() -> None:
    shared = np.zeros(2, np.float32)
    _, lines = decided(
        {"a": shared, "b": shared}, {"old": ONE, "b": ONE}, Rename("old", "a", Transpose(2, 1, 0))
    )
    assert row(lines).action == "keep" and [str(left.name) for left in unused_of(lines)] == ["b"]


def test_a_collision_that_is_refused_keeps_the_leaf_and_leaves_every_value() -> None:
    src = [From({"a": ONE}), From({"a": ONE})]
    _, lines = decided({"a": np.zeros(2, np.float32)}, src)
    assert row(lines).reason == "it is fed more than once" and len(lines.unused) == 2
    assert one({"a": ONE}, src, policy=Policy(collision="first")) == ("load", "", ["collision"])


def test_values_that_may_differ_under_two_names_are_still_to_be_looked_at() -> None:
    shared = np.zeros(2, np.float32)
    _, lines = decided({"a": shared, "b": shared}, {"a": ONE, "b": ONE.copy()})
    assert row(lines).needs_values and len(lines.checks) == 1
    _, same = decided({"a": shared, "b": shared}, {"a": ONE, "b": ONE})
    assert not row(same).needs_values and not same.checks


@pytest.mark.parametrize("key", ["value", "raw_value"])
def test_a_leaf_whose_box_was_opened_says_so(key: str) -> None:
    action, reason, _ = one({"a": np.zeros(2, np.float32)}, {"a": {key: ONE}})
    assert action == "load" and reason == f"its box's own segment, {key!r}, left out"


class Keyless:
    __slots__ = ("children",)

    def __init__(self, *children: Any) -> None:
        self.children = children


jax.tree_util.register_pytree_node(Keyless, lambda node: (node.children, None), lambda _, c: Keyless(*c))


def test_a_leaf_without_a_name_of_its_own_is_loaded_by_position_unless_a_rule_named_it() -> None:
    dst = {"k": Keyless(np.zeros(2, np.float32))}
    _, lines = decided(dst, {"k": [ONE]})
    assert row(lines).by_position and row(lines).reason == "by position"
    _, named = decided(dst, {"old": ONE}, Rename("old", "k/0"))
    assert not row(named).by_position and row(named).reason == ""


# Leaves that nothing feeds.


def test_a_leaf_that_nothing_feeds_is_missing() -> None:
    assert one({"a": ONE}, {}) == ("keep", "missing in the source", ["missing"])


@pytest.mark.parametrize(("src", "found"), [({}, None), ({"a": None}, "None"), ({"a": False}, "False")])
def test_a_missing_leaf_says_what_the_source_has_in_its_place(src: Any, found: Any) -> None:
    _, lines = decided({"a": ONE}, src, policy=Policy())
    assert findings_of(lines)[0].found == found
    assert findings_of(lines)[0].message == f"the source has {found or 'nothing'} here"


@pytest.mark.parametrize(
    ("name", "src", "zeros"), [("bias", {}, True), ("w", {}, False), ("w", {"w": None}, True)]
)
def test_zeros_are_offered_for_a_bias_and_for_what_is_said_to_be_absent(
    name: str, src: Any, zeros: bool
) -> None:
    _, lines = decided({name: ONE}, src, policy=Policy())
    assert ("absent_is_zero" in findings_of(lines)[0].remedy) is zeros


def test_a_key_is_never_zeroed_nor_is_that_offered() -> None:
    _, lines = decided({"bias": jax.random.key(0)}, {})
    assert said(lines) == [("missing", "bias")] and "absent_is_zero" not in findings_of(lines)[0].remedy


def test_absent_is_zero_where_the_policy_says_so_of_any_of_its_names() -> None:
    shared = np.zeros(2, np.float32)
    dst = {"n": {"bias": shared}, "a": shared}
    assert one(dst, {}, policy=Policy(absent_is_zero=BIAS))[0] == "zero"
    assert one({"w": ONE}, {}, policy=Policy(absent_is_zero=BIAS))[0] == "keep"


def test_zeros_of_a_dtype_that_jax_narrows_are_refused() -> None:
    dst = {"a": jax.ShapeDtypeStruct((2,), np.float64)}
    assert one(dst, {}, policy=ZERO_MEANS_ABSENT) == ("keep", "dtypes differ", ["dtype"])
    with jax.enable_x64(True):
        assert one(dst, {}, policy=ZERO_MEANS_ABSENT)[0] == "zero"


def test_optional_state_may_lack() -> None:
    assert one({"c": nnx.Cache(jnp.ones(2))}, {}) == ("keep", "optional, and the source has none", [])


def test_a_static_in_the_source_is_structure_against_an_array() -> None:
    assert one({"a": ONE}, {"a": "relu"}) == ("keep", "the source has no array here", ["structure"])


@pytest.mark.parametrize("held", [True, np.ones((), bool)])
def test_a_false_of_the_source_is_the_value_of_a_flag(held: Any) -> None:
    assert one({"on": held}, {"on": False}) == ("load", "False in the source", [])
    assert one({"on": held}, {"on": False}, policy=ZERO_MEANS_ABSENT)[0] == "load"


def test_a_false_of_the_source_is_no_other_number() -> None:
    assert one({"n": 3}, {"n": False}) == ("keep", "the source has False here", ["dtype"])


def test_a_false_of_the_source_is_an_absence_against_an_array() -> None:
    assert one({"a": ONE}, {"a": False}, policy=ZERO_MEANS_ABSENT)[0] == "zero"


# A leaf on one side, a subtree on the other.


@pytest.mark.parametrize("above", [ONE, 3, "relu"])
def test_leaves_below_a_leaf_of_the_source_are_one_finding_at_that_leaf(above: Any) -> None:
    _, lines = decided({"a": {"w": ONE, "b": ONE.copy()}}, {"a": above})
    assert said(lines) == [("structure", "a")] and findings_of(lines)[0].expected == "a subtree"
    assert {row(lines, index).reason for index in (0, 1)} == {"the source has a leaf in place of a subtree"}
    assert len(lines.unused) == (above != "relu" if isinstance(above, str) else 1)


def test_a_leaf_above_leaves_of_the_source_counts_them() -> None:
    _, lines = decided({"a": ONE, "b": ONE.copy()}, {"a": {"w": ONE, "b": ONE}, "b": {"w": ONE}})
    assert [str(finding.found) for finding in findings_of(lines)] == [
        "a subtree of 2 leaves",
        "a subtree of 1 leaf",
    ]


def test_a_tied_leaf_above_subtrees_under_two_names_is_said_at_both() -> None:
    shared = np.zeros(2, np.float32)
    _, lines = decided({"a": shared, "b": shared}, {"a": {"w": ONE}, "b": {"w": ONE}})
    assert said(lines) == [("structure", "a"), ("structure", "b")]


def test_either_is_said_once_however_often_it_is_met() -> None:
    sides, lines = decided({"a": {"w": ONE}, "b": ONE.copy()}, {"a": ONE, "b": {"w": ONE}})
    leaf_against_subtree(sides, lines, ("a",))
    subtree_against_leaf(sides, lines, ("b",), "a static")
    assert said(lines) == [("structure", "a"), ("structure", "b")] and len(lines.unused) == 1


def test_what_a_tie_feeds_waits_for_the_check_of_its_own_value() -> None:
    sides, lines = decided({"a": ONE}, {"a": ONE})
    value = next(sides.offers.values_at(("a",)))[0]
    lines.load(0, Feed(("a",), value, Tie("a", "b")), row(lines).spec)
    assert row(lines).action == "tie"
