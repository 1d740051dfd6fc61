"""Steps at work: what a source holds after them, whatever they are over."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treeload
from treeload import (
    BIAS,
    Apply,
    Concat,
    From,
    History,
    LoadError,
    Plan,
    Policy,
    Rename,
    Rule,
    RuleError,
    Split,
    Stack,
    Transpose,
    Version,
)
from treeload._trees.tree import nested
from treeload._versions.migrate import names_before


def f32(*shape: int, start: int = 1) -> Any:
    return np.arange(start, start + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def planned(dst: Any, src: Any, *versions: Version, version: Any = 1, **how: Any) -> Plan:
    return treeload.plan(dst, From(src, version=version), history=History(*versions), **how)


def same(one: Any, other: Any) -> bool:
    return bool(jax.tree.all(jax.tree.map(np.array_equal, one, other)))


# Laws.

KEYS = "abcdefgh"


@st.composite
def renames(draw: st.DrawFn) -> tuple[list[str], list[dict[str, str]]]:
    """Leaves, and for each version which of them get which other names: injective, and swaps too."""
    names = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=5, unique=True))
    steps, now = [], list(names)
    for number in range(draw(st.integers(1, 4))):
        chosen = draw(st.lists(st.sampled_from(now), min_size=1, max_size=len(now), unique=True))
        pool = [*chosen, *(f"{key}{number}" for key in chosen)]
        new = draw(st.permutations(pool))[: len(chosen)]
        step = dict(zip(chosen, new, strict=True))
        steps.append(step)
        now = [step.get(name, name) for name in now]
    return names, steps


@given(renames(), st.data())
@settings(max_examples=80, deadline=None)
def test_a_history_of_renames_loads_what_the_composed_renames_load(
    case: tuple[list[str], list[dict[str, str]]], data: st.DataObject
) -> None:
    names, steps = case
    history = History(
        *(Version(n, rules=[Rename(a, b) for a, b in step.items()]) for n, step in enumerate(steps, 2))
    )
    at = data.draw(st.integers(1, len(steps) + 1))
    for step in steps[: at - 1]:
        names = [step.get(name, name) for name in names]
    now = {name: name for name in names}
    for step in steps[at - 1 :]:
        now = {name: step.get(new, new) for name, new in now.items()}
    old = {name: f32(2, start=10 * number) for number, name in enumerate(names)}
    dst = {new: f32(2) * 0 for new in now.values()}
    composed = [Rename(name, new) for name, new in now.items()]
    by_history = treeload.load(dst, From(old, version=at), history=history)
    assert same(by_history, treeload.load(dst, old, rules=composed))
    checked = history.check(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, old)), dst, version=at)
    made = treeload.plan(dst, From(old, version=at), history=history)
    assert checked.ok == made.ok
    assert [(e.name, e.sources[0].name) for e in checked.entries] == [
        (e.name, e.sources[0].name) for e in made.entries
    ]


@given(st.permutations(range(4)))
@settings(max_examples=24, deadline=None)
def test_steps_of_all_scopes_are_taken_in_the_order_in_which_they_are_written(
    order: list[int],
) -> None:
    """Each marks the leaf of its scope by another factor and shift, which do not commute."""
    scopes = [None, "a", "**/b", "a/*"]
    versions = [
        Version(2, scope=scopes[k], rules=[Rename("{*rest}", "{*rest}", Apply(_marks(k)))]) for k in order
    ]
    value = f32(1)
    src = {"a": {"b": {"w": value}}}
    expected = value
    for k in order:
        expected = _marks(k)(expected)
    loaded = planned({"a": {"b": {"w": f32(1)}}}, src, *versions).load()
    np.testing.assert_array_equal(loaded["a"]["b"]["w"], expected)


def _marks(k: int) -> Any:
    return lambda x: x * (k + 2) + k


@given(st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_what_is_saved_with_a_history_loads_after_further_steps(tmp_path_factory: Any, more: int) -> None:
    path = tmp_path_factory.mktemp("saved") / "x"
    steps = [Version(n, rules=[Rename(f"w{n - 1}", f"w{n}")]) for n in range(2, 6)]
    treeload.save(path, {"w2": f32(3)}, history=History(*steps[:1]))
    assert treeload.open(path).version == {"": 2}
    newest = 2 + more
    loaded = treeload.load({f"w{newest}": f32(3) * 0}, path, history=History(*steps[: 1 + more]))
    np.testing.assert_array_equal(loaded[f"w{newest}"], f32(3))


# Scopes.


def test_a_scope_sees_names_relative_to_each_of_its_nodes() -> None:
    src = {"enc": {"attn": {"w": f32(2, 3)}}, "dec": {"attn": {"w": f32(2, 3)}}, "w": f32(2, 3)}
    dst = jax.tree.map(np.zeros_like, {
        "enc": {"attn": {"q": f32(3, 2)}}, "dec": {"attn": {"q": f32(3, 2)}}, "w": f32(2, 3),
    })  # fmt: skip
    step = Version(2, scope="**/attn", rules=[Rename("w", "q", Transpose())])
    plan = planned(dst, src, step)
    assert plan.ok and plan["enc/attn/q"].reason == "by version 1 → 2 of **/attn"
    assert plan["w"].reason == "" and plan["w"].rule is None
    np.testing.assert_array_equal(plan.load()["dec"]["attn"]["q"], f32(2, 3).T)


def test_of_nested_nodes_the_innermost_takes_the_leaf() -> None:
    step = Version(2, scope="**/block", rules=[Rename("x/w", "x/v"), Rename("w", "u")])
    src = {"block": {"w": f32(1), "block": {"w": f32(1)}, "x": {"w": f32(1)}}}
    dst = {"block": {"u": f32(1), "block": {"u": f32(1)}, "x": {"v": f32(1)}}}
    assert planned(dst, src, step).ok


def test_a_scope_without_a_node_in_the_source_is_no_problem_and_a_rule_idle_everywhere_is() -> None:
    step = Version(2, scope="**/attn", rules=[Rename("w", "q")])
    assert planned({"a": f32(1)}, {"a": f32(1)}, step).ok
    some = {"0": {"attn": {"w": f32(1)}}, "1": {"attn": {"v": f32(1)}}}
    assert planned({"0": {"attn": {"q": f32(1)}}, "1": {"attn": {"v": f32(1)}}}, some, step).ok
    none = {"1": {"attn": {"v": f32(1)}}}
    (finding,) = planned(none, none, step).errors
    assert finding.kind == "rule" and finding.message.startswith(
        "version 2 of **/attn: Rename('w', 'q') matched"
    )


def test_an_idle_rule_is_forgiven_by_its_own_step_alone() -> None:
    tree = {"a": f32(1)}
    forgiving = Policy(rule={"y": "ignore"})
    assert planned(tree, tree, Version(2, rules=[Rename("x", "y")], policy=forgiving)).ok
    plan = planned(tree, tree, Version(2, policy=forgiving), Version(3, rules=[Rename("x", "y")]))
    assert [finding.kind for finding in plan.errors] == ["rule"]


def test_a_rule_that_cannot_apply_is_said_at_the_name_of_today() -> None:
    steps = Version(2, rules=[Rename("w", "v", Transpose(1, 0))]), Version(3, rules=[Rename("v", "u")])
    plan = planned({"u": f32(3)}, {"w": f32(3)}, *steps)
    assert [(f.kind, str(f.name)) for f in plan.errors if f.name] == [("rule", "u")]
    assert plan.errors[0].message.startswith("version 2: ")
    scoped = planned(
        {"n": {"v": f32(3)}}, {"n": {"w": f32(3)}},
        Version(2, scope="n", rules=[Rename("w", "v", Transpose(1, 0))]),
    )  # fmt: skip
    assert [(f.kind, str(f.name)) for f in scoped.errors] == [("rule", "n/v")]


# What sources are.


def test_steps_come_before_the_subtree_the_rules_and_the_place_of_a_from() -> None:
    src = {"params": {"dense": {"w": f32(2)}}, "step": 3}
    history = History(Version(2, rules=[Rename("params/dense/{*r}", "params/proj/{*r}")]))
    part = From(src, subtree="params", into="enc", rules=[Rename("proj/w", "proj/kernel")], version=1)
    plan = treeload.plan(
        {"enc": {"p": {"kernel": f32(2) * 0}}}, part, rules=[Rename("enc/proj/{x}", "enc/p/{x}")],
        history=history,
    )  # fmt: skip
    assert plan.ok and plan["enc/p/kernel"].reason == "by version 1 → 2"
    assert str(plan["enc/p/kernel"].sources[0].name) == "params/dense/w"
    np.testing.assert_array_equal(plan.load()["enc"]["p"]["kernel"], f32(2))


def test_what_a_step_does_outside_of_the_subtree_is_no_matter() -> None:
    src = {"params": {"w": f32(2)}, "opt": {"m": f32(2), "n": None}}
    rules = [Rename("opt/m", "opt/v", Transpose(1, 0, 2)), Rename("opt/n", "opt/o")]
    plan = planned_part(src, rules)
    assert plan.ok


def planned_part(src: Any, rules: Any) -> Plan:
    part = From(src, subtree="params", version=1)
    return treeload.plan({"w": f32(2)}, part, history=History(Version(2, rules=rules)))


def test_flat_names_are_split_before_the_steps_or_taken_as_they_are() -> None:
    flat = {"layers.0.w": f32(2), "layers.1.w": f32(2, start=5)}
    dst = {"layers": [{"kernel": f32(2) * 0}, {"kernel": f32(2) * 0}]}
    history = History(Version(2, rules=[Rename("layers/{i}/w", "layers/{i}/kernel")]))
    split = treeload.load(dst, From(flat, separator=".", version=1), history=history)
    np.testing.assert_array_equal(split["layers"][1]["kernel"], f32(2, start=5))
    joined = History(Version(2, rules=[Rename("layers.{i}.w", "layers.{i}.kernel")]))
    assert treeload.plan({"layers.0.kernel": f32(2), "layers.1.kernel": f32(2)}, From(flat, version=1),
                         history=joined).ok  # fmt: skip


def test_boxes_of_a_source_are_open_before_its_steps() -> None:
    src = {"dense": {"w": {"value": f32(2)}, "b": {"value": f32(2)}}}
    plan = planned(
        {"proj": {"w": f32(2), "b": f32(2)}}, src, Version(2, rules=[Rename("dense/{x}", "proj/{x}")])
    )
    assert plan.ok
    inside = From({"params": src}, subtree="params", version=1)
    steps = History(Version(2, rules=[Rename("params/dense/{x}", "params/proj/{x}")]))
    assert treeload.plan({"proj": {"w": f32(2), "b": f32(2)}}, inside, history=steps).ok


def test_each_of_several_sources_takes_the_steps_that_it_has_not_seen() -> None:
    history = History(Version(2, rules=[Rename("w", "v", optional())], policy=Policy(rule="ignore")))
    old, new = From({"w": f32(2)}, into="a", version=1), From({"v": f32(2)}, into="b", version=2)
    plan = treeload.plan({"a": {"v": f32(2)}, "b": {"v": f32(2)}}, [old, new], history=history)
    assert plan.ok and [plan[n].reason for n in ("a/v", "b/v")] == ["by version 1 → 2", ""]
    assert "by version 1 → 2: a tree in memory" in str(plan)
    assert [each is None or each["steps"] != [] for each in plan.to_dict()["versions"]] == [True, False]


def optional() -> Any:
    return Apply(lambda x: x)


def test_absences_and_statics_follow_the_steps() -> None:
    step = Version(2, rules=[Rename("a/{x}", "b/{x}")])
    assert planned({"b": {"w": f32(2), "bias": None}}, {"a": {"w": f32(2), "bias": None}}, step).ok
    alone = planned({"b": {"w": None}, "c": f32(1)}, {"a": {"w": None}, "c": f32(1)}, step)
    assert alone.ok  # a rule that moves an empty slot is of use
    (finding,) = planned({"b": {"f": f32(1)}}, {"a": {"f": "relu"}}, step).errors[:1]
    assert finding.kind == "structure"
    assert planned({"b": {"w": f32(2)}}, {"a": {"w": None}}, step).errors[0].found == "None"
    plan = planned({"b": {"w": f32(2)}}, {"a": {"w": None}}, step, policy=Policy(absent_is_zero="**/w"))
    assert plan["b/w"].action == "zero"


def test_leaves_are_joined_and_split_by_steps() -> None:
    src = {"layers": [{"q": f32(2, 2), "k": f32(2, 2, start=5)} for _ in range(3)]}
    steps = [
        Version(2, rules=[Concat(["layers/{i}/q", "layers/{i}/k"], "layers/{i}/qk", axis=0)]),
        Version(3, rules=[Stack("layers/{i}/{*r}", "layers/{*r}")]),
    ]
    plan = planned({"layers": {"qk": np.zeros((3, 4, 2), np.float32)}}, src, *steps)
    assert plan.ok and plan["layers/qk"].reason == "by version 1 → 3"
    np.testing.assert_array_equal(plan.load()["layers"]["qk"][2][2:], f32(2, 2, start=5))


def test_leaves_that_meet_under_one_name_collide_and_the_step_may_choose() -> None:
    src = {"a": f32(2), "b": f32(2, start=9)}
    rules = [Rename("{x}", "w")]
    plan = planned({"w": f32(2)}, src, Version(2, rules=rules))
    assert [finding.kind for finding in plan.errors] == ["collision"]
    first = planned({"w": f32(2)}, src, Version(2, rules=rules, policy=Policy(collision={"w": "first"})))
    assert first.ok
    np.testing.assert_array_equal(first.load()["w"], f32(2))


def test_two_leaves_of_one_name_each_keep_their_way() -> None:
    steps = Version(2, rules=[Rename("{x}", "w")]), Version(3)
    plan = planned({"w": f32(2)}, {"a": f32(2), "b": f32(2)}, *steps, policy=Policy(collision="first"))
    assert plan.ok and plan["w"].reason == "by version 1 → 3"


def test_an_export_goes_back_to_the_names_and_the_version_of_its_source(tmp_path: Any) -> None:
    history = History(Version(2, rules=[Rename("w", "kernel", Transpose())]))
    treeload.save(tmp_path / "old", {"w": f32(2, 3)}, history=History())
    plan = treeload.plan({"kernel": f32(3, 2) * 0}, tmp_path / "old", history=history)
    treeload.export(tmp_path / "back", plan.load(), like=plan)
    assert treeload.diff(tmp_path / "back", tmp_path / "old").equal
    assert treeload.open(tmp_path / "back").version == {"": 1}
    assert treeload.plan({"kernel": f32(3, 2) * 0}, tmp_path / "back", history=history).ok


# The way back, for names that have no value.


@pytest.mark.parametrize(
    ("rules", "name", "before"),
    [
        ([], "a", ["a"]),
        ([Rename("a/{x}", "b/{x}")], "b/w", ["b/w", "a/w"]),
        ([Rename("a/{x}", "b/{x}")], "a/w", []),
        ([Rename("a", "b"), Rename("b", "a")], "a", ["b"]),
        ([Rename("a", "b"), Rename("{x}", "{x}")], "b", ["a", "b"]),
        ([Stack("l/{i}/{*r}", "l/{*r}")], "l/w", ["l/0/w"]),
        ([Split("qk", ["q", "k"])], "q", ["q", "qk"]),
        ([Concat(["q", "k"], "qk", sizes=[1, 1])], "qk", ["qk", "q", "k"]),
        ([Rename("a", "b", Apply(jnp.abs))], "b", ["b"]),
        ([Rename("*", "b")], "b", []),
        ([Rename("a", "c"), Rename("{x}", "c/{x}")], "c/a", ["c/a"]),
        ([Rename("a", "c"), Rename("{x}", "c/{x}")], "c/b", ["c/b", "b"]),
    ],
)
def test_the_names_before_are_those_that_the_rules_make_into_this_one(
    rules: list[Any], name: str, before: list[str]
) -> None:
    assert ["/".join(each) for each in names_before(rules, tuple(name.split("/")))] == before


def test_a_rule_of_ones_own_that_matches_more_than_it_can_name_has_no_names_before() -> None:
    class Wide(Rename):
        def inverse(self) -> Rule:
            return Rename("b", "a")

    assert names_before([Wide("a*", "b")], ("b",)) == [("b",)]


def test_leaves_of_one_node_are_all_below_it() -> None:
    step = Version(2, scope="**/attn", rules=[Rename("{x}", "new/{x}")])
    src = {"0": {"attn": {"q": f32(1), "k": f32(1), "v": None}}, "b": None}
    assert planned({"0": {"attn": {"new": {"q": f32(1), "k": f32(1), "v": None}}}, "b": None}, src, step).ok


def test_a_version_that_nothing_would_come_of_is_refused() -> None:
    part = From({"a": f32(1)}, version=1)
    for use in (
        lambda: treeload.plan({"a": f32(1)}, part),
        lambda: treeload.diff(part, {"a": f32(1)}),
        lambda: treeload.average([part]),
    ):
        with pytest.raises(RuleError, match="is for a load with history="):
            use()


def test_a_load_error_says_the_steps() -> None:
    with pytest.raises(LoadError, match="by version 1 → 2"):
        planned({"a": f32(1)}, {"b": f32(1)}, Version(2, policy=Policy(absent_is_zero=BIAS))).load()


def test_nested_builds_what_history_check_is_given() -> None:
    assert (
        History().check(nested({("a", "b"): jax.ShapeDtypeStruct((1,), np.float32)}), {"a": {"b": f32(1)}}).ok
    )
