"""The lines of a plan while it is made: written once, with all that is known."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from noted import findings_of, unused_of

from treeload import Cast, From, Name, Policy, Rename, Tie, Transpose
from treeload._findings.kinds import Kind
from treeload._findings.remedy import Advice
from treeload._leaves.spec import spec_of
from treeload._matching.ledger import Feed, Ledger, found
from treeload._matching.offers import offered
from treeload._matching.parts import opened_parts
from treeload._matching.sides import Sides
from treeload._naming.name import Keys
from treeload._ops.expression import chain
from treeload._plans.check import ZeroCheck
from treeload._plans.entry import SAME_NAME, Action, Entry, OnOverflow
from treeload._trees.walk import walk

ONE = np.ones(2, np.float32)
SPEC = spec_of(ONE)


def ledger(dst: Any, src: Any, *rules: Any, policy: Policy = Policy()) -> tuple[Sides, Ledger]:  # noqa: B008
    sides = Sides(walk(dst), offered(opened_parts(src, "plan"), rules), policy, None)
    return sides, Ledger(sides, [None] * len(sides.tree.names))


def feed(sides: Sides, *name: str) -> Feed:
    return Feed(name, *next(sides.offers.values_at(name)))


def entry(ledger: Ledger, index: int = 0) -> Entry:
    row = ledger.rows[index]
    assert isinstance(row, Entry)
    return row


def shared() -> dict[str, Any]:
    one = np.zeros(2, np.float32)
    return {"a": one, "b": one}


# Slots.


def test_a_ledger_writes_into_rows_of_its_own() -> None:
    sides, _ = ledger({"a": ONE}, {})
    given: list[Any] = [None]
    Ledger(sides, given).keep(0, "why")
    assert given == [None]


def test_a_leaf_that_loads_names_what_feeds_it_by_which_rule_and_ops() -> None:
    rule = Rename("old", "a", Transpose(), Cast("float16"))
    sides, lines = ledger({"a": np.zeros((3, 2), np.float32)}, {"old": np.ones((2, 3))}, rule)
    lines.load(0, feed(sides, "a"), spec_of(np.zeros((3, 2), np.float32)), reason="a word")
    line = entry(lines)
    assert (line.action, line.rule, line.ops) == (Action.LOAD, rule, (Transpose(), Cast("float16")))
    assert [str(leaf) for leaf in line.sources] == ["old"] and line.cast and line.reason == "a word"


def test_a_leaf_of_the_same_dtype_is_not_cast() -> None:
    sides, lines = ledger({"a": ONE}, {"a": ONE})
    lines.load(0, feed(sides, "a"), SPEC)
    assert not entry(lines).cast


def test_what_a_tie_feeds_is_tied() -> None:
    sides, lines = ledger({"a": ONE}, {"a": ONE})
    tie = Tie("a", "b")
    lines.load(0, Feed(("a",), feed(sides, "a").value, tie), SPEC)
    assert entry(lines).action == Action.TIE and lines.loads(("a",))


def test_a_kept_leaf_has_the_spec_of_what_is_held_and_a_reason() -> None:
    _, lines = ledger({"n": 3}, {})
    lines.keep(0, "missing in the source")
    line = entry(lines)
    assert (line.action, line.spec.dtype, line.reason) == (Action.KEEP, np.int64, "missing in the source")


def test_a_zeroed_leaf_does_not_load() -> None:
    _, lines = ledger({"a": ONE}, {})
    lines.zero(0, SPEC, "absent")
    assert entry(lines).action == Action.ZERO and not lines.loads(("a",))


def test_a_false_that_loads_is_accounted_for_and_remembered() -> None:
    _, lines = ledger({"on": True}, {"on": False})
    assert not lines.feeds_false
    lines.load_false(0, ("on",), spec_of(True))
    assert lines.feeds_false and lines.accounted_for == {("on",)}
    assert entry(lines).sources == () and entry(lines).reason == "False in the source"


def test_a_line_holds_every_alias_and_is_found_by_each() -> None:
    sides, lines = ledger(shared(), {"b": ONE})
    lines.load(0, feed(sides, "b"), SPEC)
    assert (entry(lines).name, entry(lines).aliases) == (("a",), (("b",),))
    assert lines.loads(("a",)) and lines.loads(("b",)) and not lines.loads(("c",))


def test_a_leaf_that_agreed_loads_and_one_that_is_not_decided_does_not() -> None:
    sides, _ = ledger({"a": ONE, "b": ONE.copy()}, {})
    lines = Ledger(sides, [SAME_NAME, None])
    assert lines.loads(("a",)) and not lines.loads(("b",))


@pytest.mark.parametrize(
    ("policy", "then"),
    [
        (Policy(), OnOverflow.ERROR),
        (Policy(dtype="keep"), OnOverflow.KEEP),
        (Policy(dtype={"b": "keep"}), OnOverflow.KEEP),
        (Policy(dtype={"c": "keep"}), OnOverflow.ERROR),
        (Policy(casting="unsafe"), OnOverflow.CAST),
        (Policy(casting={"b": "unsafe"}, dtype="keep"), OnOverflow.CAST),
    ],
)
def test_what_an_overflow_does_is_asked_for_every_name_of_the_leaf(policy: Policy, then: OnOverflow) -> None:
    sides, lines = ledger(shared(), {"a": ONE}, policy=policy)
    lines.load(0, feed(sides, "a"), SPEC)
    assert entry(lines).on_overflow == then


# The source's side.


def test_what_is_left_is_listed_under_both_its_names_with_why() -> None:
    sides, lines = ledger({}, From({"a": ONE}, into="net"))
    lines.leave(("net", "a"), feed(sides, "net", "a").value, "ignored")
    (left,) = unused_of(lines)
    assert (str(left.name), str(left.at), left.why, left.source) == (
        "a",
        "net/a",
        "ignored",
        "a tree in memory",
    )


def test_every_value_at_a_name_is_left_and_at_no_name_nothing() -> None:
    _, lines = ledger({}, [From({"a": ONE}), From({"a": ONE})])
    lines.leave_all(("a",), "both")
    lines.leave_all(("z",), "none")
    assert [(str(left.name), left.why) for left in unused_of(lines)] == [("a", "both")] * 2


# Findings.


@pytest.mark.parametrize("policy", [Policy(), Policy(missing={"a": "keep"})])
def test_a_finding_has_the_policys_verdict_and_is_noted(policy: Policy) -> None:
    _, lines = ledger({"a": ONE}, {}, policy=policy)
    finding = lines.find(Kind.MISSING, ("a",), (SPEC, None), message="why", remedies=[Advice("this")])
    assert lines.findings == [finding] and finding.verdict == policy.verdict("missing", "a")
    assert (finding.expected, finding.found, finding.message) == (SPEC, None, "why")
    assert finding.remedies == (Advice("this"),) and finding.source is None and finding.rule is None


def test_a_finding_about_a_value_names_its_first_leaf_and_its_rule() -> None:
    rule = Rename("old", "a")
    sides, lines = ledger({"a": ONE}, {"old": ONE}, rule)
    finding = lines.find(Kind.SHAPE, ("a",), (SPEC, SPEC), feed=feed(sides, "a"))
    assert finding.source is not None and str(finding.source.name) == "old" and finding.rule == rule


def test_a_finding_for_later_is_not_noted() -> None:
    sides, lines = ledger({"a": ONE}, {})
    finding = found(sides, Kind.TIE, ("a",), (None, None), None, message="later", remedies=())
    assert not lines.findings and finding.name == Name(("a",)) and finding.verdict == "error"


def test_a_leaf_against_a_subtree_is_said_once_at_each_name() -> None:
    _, lines = ledger({}, {})
    names: list[Keys] = [("a",), ("a",), ("b",)]
    assert [lines.find_structure(name, (None, None)) for name in names] == [True, False, True]
    assert [str(finding.name) for finding in findings_of(lines)] == ["a", "b"]


def test_a_check_is_known_by_its_name() -> None:
    sides, lines = ledger({}, {"a": ONE})
    finding = found(sides, Kind.ABSENT, ("a",), (None, None), None)
    lines.check(ZeroCheck(("a",), chain(feed(sides, "a").value, ()), finding))
    assert lines.is_checked(("a",)) and not lines.is_checked(("b",)) and len(lines.checks) == 1


def test_an_abstract_leaf_is_kept_with_its_spec() -> None:
    _, lines = ledger({"a": jax.ShapeDtypeStruct((2,), np.float32)}, {})
    lines.keep(0, "why")
    assert entry(lines).spec == SPEC and entry(lines).keeps_something
