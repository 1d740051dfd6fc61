"""The plan as data: what it says of itself, what it holds one to, and that it never changes."""

from __future__ import annotations

import gc
import io
import json
import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

import treeload
from treeload import BIAS, Cast, Entry, Finding, LoadError, Name, Policy, Rename, RuleError

ONE = np.ones(4, np.float32)


def example():
    """Loads 4 of 20 elements by name and 4 by a rule, zeroes 4, keeps 4 on purpose, misses 4."""
    dst = {name: np.zeros(4, np.float32) for name in ("a", "b", "bias", "kept", "miss")}
    src = {"a": ONE, "old": ONE.astype(np.float64), "extra": ONE}
    rules = Rename("old", "b", Cast("float16"))
    policy = Policy(missing={"kept": "keep"}, unexpected={"ex*": "ignore"}, absent_is_zero=BIAS)
    return treeload.plan(dst, src, rules=rules, policy=policy)


def test_entries_come_in_the_destinations_order_with_all_their_facts():
    plan = example()
    assert [(str(e.name), str(e.action)) for e in plan.entries] == [
        ("a", "load"), ("b", "load"), ("bias", "zero"), ("kept", "keep"), ("miss", "keep"),
    ]  # fmt: skip
    a, b, *_ = plan.entries
    assert (a.ops, a.cast, a.rule, str(a.sources[0].name)) == ((), False, None, "a")
    assert (b.ops, b.cast, b.rule, str(b.sources[0].name)) == (
        (Cast("float16"),),
        True,
        Rename("old", "b", Cast("float16")),
        "old",
    )
    assert b.spec == jax.ShapeDtypeStruct((4,), np.float32) and b.sources[0].spec.dtype == np.float64


@pytest.fixture
def collector() -> Iterator[None]:
    """Python's garbage collector as it was before, whatever the test does to it."""
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("interrupted", [True, False])
def test_the_garbage_collector_rests_while_a_plan_is_made_and_is_then_as_before(on, interrupted):
    """Else each collection walks all objects made so far: half the time of a large plan."""
    seen = []

    def scope(name, spec):
        seen.append(gc.isenabled())
        if interrupted:
            raise KeyboardInterrupt
        return True

    (gc.enable if on else gc.disable)()
    with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
        treeload.plan({"a": ONE}, {"a": ONE}, scope=scope)
    assert seen == [False]
    assert gc.isenabled() is on


def test_a_leaf_is_found_by_any_way_of_writing_its_name():
    plan = treeload.plan({"a/b": {"c": ONE}}, {"a/b": {"c": ONE}})
    assert plan["a\\/b/c"] is plan[("a/b", "c")] is plan[Name(("a/b", "c"))]
    assert "a\\/b/c" in plan and "a/b/c" not in plan and 3 not in plan and "a//b" not in plan
    with pytest.raises(KeyError, match="no leaf 'x'"):
        plan["x"]


def test_coverage_is_the_share_of_elements_that_load():
    assert example().coverage == 8 / 20
    assert treeload.plan({}, {}).coverage == 1.0
    assert treeload.plan({"a": np.zeros((0,))}, {}).coverage == 1.0
    tied = np.zeros(4, np.float32)
    assert treeload.plan({"a": tied, "b": tied, "c": ONE}, {"a": ONE, "b": ONE}).coverage == 0.5


def test_the_summary_says_it_in_one_line():
    assert example().summary() == (
        "2 of 5 leaves load (40.0 % of 20 elements); 1 zeroed; 2 kept; 2 forgiven; 1 problem"
    )
    assert (
        treeload.plan({"a": ONE}, {"a": ONE}).summary()
        == "1 of 1 leaf loads (100 % of 4 elements); no problems"
    )
    pending = treeload.plan({"a": ONE}, {"a": ONE, "bias": ONE}, policy=Policy(absent_is_zero=BIAS))
    assert "1 to check by value; no problems" in pending.summary()
    assert repr(pending) == f"<Plan: {pending.summary()}>"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((123,), "123"),
        ((12_300,), "12.3 k"),
        ((8_600, 10_000), "86.0 M"),
        ((10**5, 10**5), "10.0 G"),
        ((9_999,), "9,999"),
    ],
)
def test_numbers_of_elements_are_readable(shape, said):
    assert f"of {said} elements" in treeload.plan({"a": jax.ShapeDtypeStruct(shape, np.int8)}, {}).summary()


def test_a_share_that_is_not_all_never_prints_as_all():
    dst = {"a": jax.ShapeDtypeStruct((10**6,), np.int8), "b": jax.ShapeDtypeStruct((1,), np.int8)}
    assert "99.9 %" in treeload.plan(dst, {"a": jax.ShapeDtypeStruct((10**6,), np.int8)}).summary()


def test_errors_are_the_findings_that_are_not_forgiven():
    plan = example()
    assert [(f.kind, f.verdict) for f in plan.findings] == [
        ("missing", "keep"), ("missing", "error"), ("unexpected", "ignore"),
    ]  # fmt: skip
    assert [str(f.name) for f in plan.errors] == ["miss"] and not plan.ok
    assert str(plan.errors[0]) == "missing miss: the source has nothing here"


def test_to_dict_holds_all_and_survives_json():
    plan = example()
    data = plan.to_dict()
    assert json.loads(plan.to_json()) == data and json.loads(plan.to_json(indent=2)) == data
    assert set(data) == {
        "summary", "ok", "coverage", "sources", "versions", "entries", "findings", "pending", "unused",
    }  # fmt: skip
    assert len(data["entries"]) == 5 and len(data["findings"]) == 3 and len(data["unused"]) == 1
    assert set(data["entries"][0]) == {name for name in Entry.__dataclass_fields__ if name != "value"}
    assert set(data["findings"][0]) == {*Finding.__dataclass_fields__, "remedy"}
    for finding, told in zip(plan.findings, data["findings"], strict=True):
        assert told["remedy"] == finding.remedy
        assert told["remedies"] == [
            {"before": way.before, "code": way.code, "after": way.after} for way in finding.remedies
        ]
    assert data["findings"][0]["remedies"] == [
        {"before": "to keep the destination's own:", "code": 'Policy(missing={"kept": "keep"})', "after": ""}
    ]
    b = data["entries"][1]
    assert b["ops"] == ["Cast('float16')"] and b["sources"][0]["spec"] == {
        "shape": [4], "dtype": "float64", "bytes": 32,
    }  # fmt: skip
    assert data["unused"][0]["at"] == "extra" and "ignored" in data["unused"][0]["why"]


def test_to_dict_neither_groups_nor_cuts():
    dst = {"layers": [{"w": np.zeros(1)} for _ in range(500)]}
    data = treeload.plan(dst, {}).to_dict()
    assert len(data["findings"]) == len(data["entries"]) == 500


def test_to_dict_takes_keys_words_and_pending_checks():
    key = jax.random.key(0)
    plan = treeload.plan(
        {"k": key, "s": "x"}, {"k": key, "s": ONE, "bias": ONE}, policy=Policy(absent_is_zero=BIAS)
    )
    data = json.loads(plan.to_json())
    assert data["pending"] == ["bias"] and data["findings"][0]["expected"] == "a static"
    assert data["entries"][0]["spec"]["dtype"] == "key<fry>"


def test_findings_and_entries_are_plain_data():
    plan = example()
    assert pickle.loads(pickle.dumps(plan.findings)) == plan.findings
    assert hash(plan.findings[0]) == hash(pickle.loads(pickle.dumps(plan.findings[0])))
    with pytest.raises(AttributeError, match="cannot assign"):
        plan.findings[0].kind = "other"


def test_html_and_text_say_the_summary():
    plan = example()
    assert " ".join(str(plan).split()).startswith(plan.summary())
    assert plan.summary() in plan._repr_html_() and plan.summary() in plan.to_html()
    assert "problem" in plan._repr_html_() and "<script" not in plan._repr_html_()


def test_raise_for_errors_carries_every_finding_and_the_plan():
    with pytest.raises(LoadError) as caught:
        example().raise_for_errors()
    assert [str(f.name) for f in caught.value.findings] == ["miss"] and isinstance(
        caught.value.plan, treeload.Plan
    )
    assert treeload.plan({}, {}).raise_for_errors() is None  # type: ignore[func-returns-value]


def test_require_gives_the_plan_back_where_it_holds():
    plan = example()
    assert plan.require() is plan.require(coverage=0.4) is plan
    assert plan.require(kept=["kept", "miss"]) is plan.require(coverage=0.1, kept="*") is plan
    assert treeload.plan({"a": ONE}, {"a": ONE}).require(coverage=1.0, kept=())


@pytest.mark.parametrize("coverage", [90, 1.5, -0.1, "90%", float("nan"), True])
def test_a_coverage_that_is_no_share_is_refused(coverage: Any) -> None:
    with pytest.raises(TypeError, match=r"coverage is a share from 0 to 1, such as 0\.9; not "):
        treeload.plan({"a": ONE}, {"a": ONE}).require(coverage=coverage)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"coverage": 0.41}, "40.0 % .* load, 41.0 % are required"),
        ({"kept": ()}, "2 leaves are kept beyond those allowed: kept, miss"),
        ({"kept": "kept"}, "1 leaf is kept beyond those allowed: miss"),
        ({"coverage": 1, "kept": Name(("kept",))}, "100 % are required; 1 leaf is"),
    ],
)
def test_require_raises_where_less_is_loaded_or_more_is_kept(asked, said):
    plan = example()
    with pytest.raises(LoadError, match=said) as caught:
        plan.require(**asked)
    assert caught.value.plan is plan and caught.value.findings == plan.errors


def test_require_knows_a_tied_leaf_by_any_name_and_shortens_long_lists():
    shared = np.zeros(1)
    plan = treeload.plan({"a": shared, "b": shared}, {}, policy=Policy(missing="keep"))
    assert plan.require(kept="b") is plan
    many = treeload.plan([np.zeros(1) for _ in range(12)], {}, policy=Policy(missing="keep"))
    with pytest.raises(LoadError, match="9 and 2 more"):
        many.require(kept=())


@pytest.mark.parametrize(
    ("kept", "said"),
    [("a//b", "empty segment"), (["a{"], "lone '{'"), (3, "kept is a pattern or several; not 3")],
)
def test_require_refuses_patterns_that_cannot_mean_anything(kept, said):
    with pytest.raises(RuleError, match=said):
        example().require(kept=kept)


def test_a_plan_loads_again_with_what_the_trees_then_hold():
    src = {"w": np.ones(2)}
    plan = treeload.plan({"w": np.zeros(2)}, src)
    first = plan.load()
    src["w"][:] = 5
    assert first["w"].tolist() == [1, 1] and plan.load()["w"].tolist() == [5, 5]


def test_verify_is_the_plan_itself_where_nothing_is_pending():
    plan = example()
    assert plan.verify() is plan


def test_verify_keeps_what_was_known_and_raises_nothing():
    plan = treeload.plan(
        {"w": ONE, "m": jnp.ones(1)}, {"w": ONE, "bias": ONE}, policy=Policy(absent_is_zero=BIAS)
    )
    verified = plan.verify()
    assert [f.kind for f in verified.findings] == ["missing", "absent"]
    assert [e.name for e in verified.entries] == [e.name for e in plan.entries]


def test_verify_clears_the_marks_of_what_needed_values():
    shared = np.zeros(4, np.float32)
    plan = treeload.plan({"a": shared, "b": shared}, {"a": ONE, "b": ONE.copy()})
    assert plan["a"].needs_values and not plan.verify()["a"].needs_values


def test_what_crosses_a_process_of_its_error_is_the_text():
    with pytest.raises(LoadError) as caught:
        example().load()
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, treeload.TreeloadError) and str(again) == str(caught.value)


def test_a_terminal_prints_it_in_the_same_words():
    printed = io.StringIO()
    rich.console.Console(width=80, file=printed, highlight=False).print(example())
    assert printed.getvalue().rstrip() == str(example())


def test_its_mask_and_labels_say_what_changes():
    plan = example()
    assert plan.mask() == {"a": True, "b": True, "bias": True, "kept": False, "miss": False}
    assert plan.labels(loaded="slow", kept="fast")["kept"] == "fast"


@pytest.mark.parametrize("noted", [True, False])
def test_a_load_error_comes_back_from_a_pickle_with_its_findings_and_without_its_plan(noted):
    with pytest.raises(LoadError) as raised:
        example().raise_for_errors()
    if noted:
        raised.value.add_note("at night")
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (type(copy), str(copy)) == (LoadError, str(raised.value))
    assert copy.findings == raised.value.findings and copy.plan is None
    assert getattr(copy, "__notes__", []) == (["at night"] if noted else [])
