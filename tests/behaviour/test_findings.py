"""The table of findings: each kind, in each direction, through plan, load and update.

What a dry run says is what the load raises; what is refused changes nothing; what is forgiven does what
the verdict says.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import BIAS, From, LoadError, Policy, Rename, Reshape, TreeloadError

ONES, OLD = np.ones(3, np.float32), np.full(3, 7, np.float32)
KEY = jax.random.key(0)


class Case(NamedTuple):
    """One disagreement at ``at``; ``forgiving`` lets it pass, and then ``at`` holds ``then``."""

    kind: str
    dst: Any
    src: Any
    at: str
    forgiving: Policy | None = None
    then: Any = OLD
    rules: Any = ()
    policy: Policy = Policy()
    module: bool = True  # whether an NNX module can hold such a destination


def missing(at="w", **settings):
    return Policy(missing={at: "keep"}, **settings)


def structure(at="w"):
    return Policy(structure={at: "keep"})


CASES = {
    # An array in the destination, nothing in the source.
    "missing, no key": Case("missing", {"w": OLD}, {}, "w", missing()),
    "missing, None": Case("missing", {"w": OLD}, {"w": None}, "w", missing()),
    "missing, False": Case("missing", {"w": OLD}, {"w": False}, "w", missing()),
    "missing, empty dict": Case("missing", {"w": OLD}, {"w": {}}, "w", missing()),
    "missing, empty tuple": Case("missing", {"w": OLD}, {"w": ()}, "w", missing()),
    "missing, a whole subtree": Case("missing", {"h": {"w": OLD}}, {"h": None}, "h/w", missing("h/w")),
    "missing, a number": Case("missing", {"w": 7}, {}, "w", missing(), then=7, module=False),
    "missing, zero size": Case(
        "missing", {"w": np.zeros((0, 3), np.float32)}, {}, "w", missing(), then=np.zeros((0, 3), np.float32)
    ),
    "missing, PRNG key under absent_is_zero": Case(
        "missing",
        {"bias": KEY},
        {},
        "bias",
        missing("bias", absent_is_zero=BIAS),
        then=KEY,
        policy=Policy(absent_is_zero=BIAS),
    ),
    # An array in the source, nothing in the destination.
    "unexpected, no key": Case("unexpected", {}, {"w": ONES}, "w", Policy(unexpected="ignore"), then=None),
    "unexpected, None": Case(
        "unexpected", {"w": None}, {"w": ONES}, "w", Policy(unexpected="ignore"), then=None
    ),
    "unexpected, False": Case(
        "unexpected", {"w": False}, {"w": ONES}, "w", Policy(unexpected="ignore"), then=False
    ),
    "unexpected, empty dict": Case(
        "unexpected", {"w": {}}, {"w": ONES}, "w", Policy(unexpected="ignore"), then={}, module=False
    ),
    "unexpected, a number": Case("unexpected", {}, {"w": 3}, "w", Policy(unexpected="ignore"), then=None),
    "unexpected, PRNG key under absent_is_zero": Case(
        "unexpected",
        {},
        {"bias": KEY},
        "bias",
        Policy(unexpected="ignore", absent_is_zero=BIAS),
        then=None,
        policy=Policy(absent_is_zero=BIAS),
    ),
    # Shapes are never broadcast, squeezed, padded or cut.
    "shape, smaller": Case("shape", {"w": OLD}, {"w": ONES[:2]}, "w", Policy(shape="keep")),
    "shape, larger": Case("shape", {"w": OLD}, {"w": np.ones(4, np.float32)}, "w", Policy(shape="keep")),
    "shape, (1,) into ()": Case(
        "shape", {"w": np.float32(7)}, {"w": ONES[:1]}, "w", Policy(shape="keep"), then=np.float32(7)
    ),
    "shape, () into (1,)": Case(
        "shape", {"w": OLD[:1]}, {"w": np.float32(1)}, "w", Policy(shape="keep"), OLD[:1]
    ),
    "shape, transposed": Case(
        "shape", {"w": np.zeros((2, 3))}, {"w": np.zeros((3, 2))}, "w", Policy(shape="keep"), np.zeros((2, 3))
    ),
    "shape, after a rule": Case(
        "shape",
        {"w": OLD},
        {"v": np.ones(6, np.float32)},
        "w",
        Policy(shape="keep"),
        rules=Rename("v", "w", Reshape(2, 3)),
    ),
    # Casts that lose a kind.
    "dtype, float to int": Case(
        "dtype",
        {"w": np.int32([7])},  # type: ignore[arg-type]
        {"w": ONES[:1]},
        "w",
        Policy(dtype="keep"),
        np.int32([7]),  # type: ignore[arg-type]
    ),
    "dtype, complex to real": Case("dtype", {"w": OLD}, {"w": ONES + 1j}, "w", Policy(dtype="keep")),
    "dtype, complex to bfloat16": Case(
        "dtype",
        {"w": jnp.ones(1, jnp.bfloat16)},
        {"w": np.complex64([1j])},  # type: ignore[call-overload]
        "w",
        Policy(dtype="keep"),
        jnp.ones(1, jnp.bfloat16),
    ),
    "dtype, bool to float": Case("dtype", {"w": OLD}, {"w": ONES > 0}, "w", Policy(dtype="keep")),
    "dtype, float to bool": Case("dtype", {"w": OLD > 9}, {"w": ONES}, "w", Policy(dtype="keep"), OLD > 9),
    "dtype, a narrower float under safe": Case(
        "dtype",
        {"w": OLD},
        {"w": ONES.astype(np.float64)},
        "w",
        Policy(casting="safe", dtype="keep"),
        policy=Policy(casting={"w": "safe"}),
    ),
    "dtype, Python float to int": Case(
        "dtype", {"w": 7}, {"w": 0.5}, "w", Policy(dtype="keep"), then=7, module=False
    ),
    "dtype, False to a number": Case(
        "dtype", {"w": 7}, {"w": False}, "w", Policy(dtype="keep"), then=7, module=False
    ),
    "dtype, a number that overflows": Case(
        "dtype", {"w": np.int8(7)}, {"w": 300}, "w", Policy(dtype="keep"), then=np.int8(7), module=False
    ),
    # Leaf against subtree, array against static, keys against anything else.
    "structure, a leaf for a subtree": Case(
        "structure", {"w": {"a": OLD}}, {"w": ONES}, "w", structure(), {"a": OLD}
    ),
    "structure, a subtree for a leaf": Case(
        "structure", {"w": OLD}, {"w": {"a": ONES, "b": ONES}}, "w", structure()
    ),
    "structure, a static for a subtree": Case(
        "structure", {"w": {"a": OLD}}, {"w": "relu"}, "w", structure(), {"a": OLD}
    ),
    "structure, a subtree for a static": Case(
        "structure", {"w": "relu"}, {"w": {"a": ONES}}, "w", structure(), "relu", module=False
    ),
    "structure, an array for a static": Case(
        "structure", {"w": "relu"}, {"w": ONES}, "w", structure(), "relu", module=False
    ),
    "structure, a static for an array": Case("structure", {"w": OLD}, {"w": "relu"}, "w", structure()),
    "structure, True for an array": Case("structure", {"w": OLD}, {"w": True}, "w", structure()),
    "structure, an array for True": Case(
        "structure", {"w": True}, {"w": ONES}, "w", structure(), then=True, module=False
    ),
    "structure, raw for a typed key": Case(
        "structure", {"w": KEY}, {"w": jax.random.key_data(KEY)}, "w", structure(), then=KEY
    ),
    "structure, a typed key for raw": Case(
        "structure",
        {"w": np.uint32([7, 7])},  # type: ignore[arg-type]
        {"w": KEY},
        "w",
        structure(),
        np.uint32([7, 7]),  # type: ignore[arg-type]
    ),
    "structure, a key of another impl": Case(
        "structure", {"w": KEY}, {"w": jax.random.key(0, impl="rbg")}, "w", structure(), then=KEY
    ),
    # Rules.
    "rule, matched nothing": Case(
        "rule", {"w": OLD}, {"w": ONES}, "z", Policy(rule="ignore"), then=ONES, rules=Rename("y", "z")
    ),
    "rule, could not apply": Case(
        "rule",
        {"w": OLD},
        {"v": ONES},
        "w",
        Policy(rule="ignore", missing="keep"),
        rules=Rename("v", "w", Reshape(2, 2)),
    ),
    "rule, an idle From": Case(
        "rule",
        {"w": OLD},
        [From({"w": ONES}), From({"v": ONES}, subtree="u")],
        "",
        Policy(rule="ignore"),
        ONES,
    ),
    "rule, an idle scope": Case("rule", {"w": OLD}, {"w": ONES}, "v", Policy(rule="ignore")),
    # Two source leaves, one destination leaf.
    "collision, by a rule": Case(
        "collision",
        {"w": OLD},
        {"w": OLD - 3, "v": ONES},
        "w",
        Policy(collision="first"),
        then=ONES,
        rules=Rename("v", "w"),
    ),
    "collision, of two sources": Case(
        "collision",
        {"w": OLD},
        [From({"w": ONES}), From({"w": OLD - 3})],
        "w",
        Policy(collision="first"),
        ONES,
    ),
}
VALUE_CASES = {
    "absent, no key": Case("absent", {}, {"bias": ONES}, "bias", policy=Policy(absent_is_zero=BIAS)),
    "absent, None": Case(
        "absent", {"bias": None}, {"bias": ONES}, "bias", policy=Policy(absent_is_zero=BIAS)
    ),
    "absent, False": Case("absent", {"b": False}, {"b": ONES}, "b", policy=Policy(absent_is_zero=BIAS)),
    "absent, a number": Case("absent", {"b": None}, {"b": 3}, "b", policy=Policy(absent_is_zero=BIAS)),
}


def module(tree: Any) -> Any:
    """The NNX module with these arrays as Params, and a count that every source may lack.

    Without it some would have no leaf at all, which is refused before anything is compared.
    """
    made = _module(tree)
    if isinstance(made, nnx.Module):
        made.rng_count = nnx.RngCount(jnp.uint32(0))  # type: ignore[attr-defined]
    return made


def _module(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return nnx.Param(jnp.asarray(tree)) if hasattr(tree, "shape") else tree
    node = nnx.Module()
    for key, value in tree.items():
        setattr(node, key, _module(value))
    return node


def at(tree: Any, name: str) -> Any:
    for key in filter(None, name.split("/")):
        tree = tree.get(key) if isinstance(tree, dict) else getattr(tree, key, None)
    return tree[...] if isinstance(tree, nnx.Variable) else tree


def same(a: Any, b: Any) -> bool:
    def raw(x):
        return (
            jax.random.key_data(x)
            if hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
            else x
        )

    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(raw(x), raw(y)), a, b))


def options(case: Case, policy: Policy) -> dict[str, Any]:
    return {"rules": case.rules, "policy": policy, "scope": "v" if case.at == "v" else None}


each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_of_values = pytest.mark.parametrize("case", VALUE_CASES.values(), ids=VALUE_CASES)
each_module = pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.module], ids=[n for n, c in CASES.items() if c.module]
)


@each
def test_the_plan_says_it_once_where_it_is_as_an_error(case):
    plan = treeload.plan(case.dst, case.src, **options(case, case.policy))
    found = [(finding.kind, str(finding.name), finding.verdict) for finding in plan.findings]
    if case.kind != "rule" or case.at:
        assert found == [(case.kind, case.at, "error")]
    else:
        assert [kind for kind, _, _ in found] == ["rule"]
    assert not plan.ok and plan.errors == plan.findings and not plan.pending
    assert plan.findings[0].message and plan.findings[0].remedy


@each
def test_the_load_raises_what_the_plan_said(case):
    before = jax.tree.map(lambda leaf: leaf, case.dst)
    plan = treeload.plan(case.dst, case.src, **options(case, case.policy))
    with pytest.raises(LoadError) as caught:
        plan.load()
    assert caught.value.findings == plan.errors and caught.value.plan.findings == plan.findings
    assert case.kind in str(caught.value)
    assert same(case.dst, before)


@each_module
def test_an_update_raises_the_same_and_leaves_the_module_as_it_was(case):
    model = module(case.dst)
    before = jax.tree.map(jnp.copy, nnx.state(model))
    plan = treeload.plan(model, case.src, **options(case, case.policy))
    with pytest.raises(LoadError) as caught:
        treeload.update(model, case.src, **options(case, case.policy))
    assert {finding.kind for finding in caught.value.findings} == {case.kind}
    assert caught.value.findings == plan.errors
    assert same(nnx.state(model), before)


@each
def test_what_is_forgiven_loads_as_the_verdict_says(case):
    assert case.forgiving is not None
    plan = treeload.plan(case.dst, case.src, **options(case, case.forgiving))
    assert plan.ok and {finding.kind for finding in plan.findings} >= {case.kind}
    assert all(finding.verdict in ("keep", "ignore", "first") for finding in plan.findings)
    loaded = plan.load()
    where = "w" if case.kind == "rule" else case.at
    assert same(at(loaded, where), case.then)


@each_module
def test_what_is_forgiven_updates_as_the_verdict_says(case):
    model = module(case.dst)
    how = options(case, case.forgiving)
    assert treeload.update(model, case.src, **how) is None  # type: ignore[func-returns-value]
    where = "w" if case.kind == "rule" else case.at
    assert same(treeload.state(model).get(where, at(model, where)), case.then)


@each_of_values
def test_a_value_check_is_pending_until_verify_or_load(case):
    plan = treeload.plan(case.dst, case.src, **options(case, case.policy))
    assert plan.ok and not plan.findings and [str(name) for name in plan.pending] == [case.at]
    verified = plan.verify()
    assert [(f.kind, str(f.name), f.verdict) for f in verified.findings] == [(case.kind, case.at, "error")]
    assert not verified.ok and not verified.pending
    with pytest.raises(LoadError) as caught:
        plan.load()
    assert caught.value.findings == verified.errors


@each_of_values
def test_an_update_makes_the_value_check_before_it_writes(case):
    model = module(case.dst | {"w": OLD})
    with pytest.raises(LoadError) as caught:
        treeload.update(model, case.src | {"w": ONES}, **options(case, case.policy))
    assert [finding.kind for finding in caught.value.findings] == [case.kind]
    assert same(model.w[...], OLD)


def test_a_kept_abstract_leaf_is_an_error_that_init_settles():
    dst = {"w": jax.ShapeDtypeStruct((3,), np.float32), "v": jax.ShapeDtypeStruct((3,), np.float32)}
    plan = treeload.plan(dst, {"v": ONES}, policy=Policy(missing={"w": "keep"}))
    assert [(f.kind, str(f.name), f.verdict) for f in plan.errors] == [("abstract", "w", "error")]
    with pytest.raises(LoadError) as caught:
        plan.load()
    assert caught.value.findings == plan.errors
    loaded = plan.load(init=lambda: {"w": jnp.full(3, 7.0), "v": jnp.zeros(3)})
    assert same(loaded, {"w": OLD, "v": ONES})


def test_an_abstract_leaf_with_an_error_of_its_own_has_only_that():
    dst = {"w": jax.ShapeDtypeStruct((3,), np.float32)}
    assert [f.kind for f in treeload.plan(dst, {}).findings] == ["missing"]
    assert [f.kind for f in treeload.plan(dst, {"w": {"a": ONES}}).findings] == ["structure"]
    assert [f.kind for f in treeload.plan({"h": dst}, {"h": ONES}).findings] == ["structure"]


def test_everything_is_found_before_anything_is_raised():
    dst = {"a": OLD, "b": OLD.copy(), "c": {"d": OLD.copy()}, "e": np.int32([7])}  # type: ignore[arg-type]
    src = {"b": ONES[:1], "c": ONES, "e": ONES[:1], "x": ONES}
    with pytest.raises(LoadError) as caught:
        treeload.load(dst, src)
    assert [(f.kind, str(f.name)) for f in caught.value.findings] == [
        ("missing", "a"), ("unexpected", "x"), ("shape", "b"), ("dtype", "e"), ("structure", "c"),
    ]  # fmt: skip


def test_findings_of_one_kind_come_in_the_order_of_the_destination():
    dst = {"layers": [{"w": OLD.copy()} for _ in range(12)]}
    names = [str(finding.name) for finding in treeload.plan(dst, {}).findings]
    assert names == [f"layers/{index}/w" for index in range(12)]


def test_a_finding_has_all_its_facts():
    plan = treeload.plan({"enc": {"w": OLD}}, {"v": ONES[:2]}, rules=Rename("v", "enc/w"))
    finding: Any
    (finding,) = plan.findings
    assert (finding.expected.shape, finding.found.shape) == ((3,), (2,))
    assert (str(finding.source.name), finding.source.source) == ("v", "a tree in memory")
    assert finding.rule == Rename("v", "enc/w")
    assert 'Policy(shape={"enc/w": "keep"})' in finding.remedy


@pytest.mark.parametrize(
    ("given", "wanted", "op"),
    [
        ((3, 2), (2, 3), "Transpose()"),
        ((4, 3, 5, 6), (5, 6, 3, 4), "Transpose(2, 3, 1, 0)"),
        ((2, 6), (3, 4), ""),
    ],
)
def test_a_shape_that_a_transposition_would_mend_names_it(given, wanted, op):
    dst, src = {"w": np.zeros(wanted)}, {"w": np.zeros(given)}
    (finding,) = treeload.plan(dst, src).findings
    assert f'Rename("w", "w", {op}); ' in finding.remedy if op else "Rename" not in finding.remedy
    assert ("transposed" in finding.message) == bool(op)
    if op:
        assert treeload.plan(dst, src, rules=eval(finding.remedies[0].code, vars(treeload))).ok


def test_a_transposition_belongs_to_the_rule_that_a_leaf_has_or_to_one_under_the_name_it_has_so_far():
    dst, src = {"w": np.zeros((2, 3))}, {"v": np.zeros((3, 2))}
    (finding,) = treeload.plan(dst, src, rules=Rename("v", "w")).findings
    assert "Transpose() in a Rename; " in finding.remedy
    (finding,) = treeload.plan(dst, {"w": {"value": src["v"]}}).findings  # a box, opened after the rules
    assert "Transpose() in a Rename; " in finding.remedy


def test_a_remedy_names_exactly_the_leaf_also_where_its_key_looks_like_a_pattern():
    dst, src = {"a*": OLD, "b": OLD.copy()}, {"b": ONES}
    (finding,) = treeload.plan(dst, src).findings
    policy = eval(finding.remedy[finding.remedy.index("Policy") :], {"Policy": Policy})
    assert same(treeload.load(dst, src, policy=policy), {"a*": OLD, "b": ONES})


def test_the_remedy_for_a_bias_names_the_policy_that_absence_means_zero():
    (missed,) = treeload.plan({"bias": OLD}, {}).findings
    (explicit,) = treeload.plan({"w": OLD}, {"w": None}).findings
    (unexpected,) = treeload.plan({}, {"bias": ONES}).findings
    (plain,) = treeload.plan({"w": OLD}, {}).findings
    assert all("absent_is_zero" in finding.remedy for finding in (missed, explicit, unexpected))
    assert "absent_is_zero" not in plain.remedy


def test_near_names_point_at_each_other():
    plan = treeload.plan({"head": {"kernel": OLD}}, {"haed": {"kernel": ONES}})
    assert [tuple(map(str, finding.near)) for finding in plan.findings] == [
        ("haed/kernel",),
        ("head/kernel",),
    ]
    (alone,) = treeload.plan({"head": {"kernel": OLD}}, {}).findings
    assert alone.near == ()


def test_a_load_error_survives_a_process_boundary_as_text():
    with pytest.raises(LoadError) as caught:
        treeload.load({"w": OLD}, {})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, TreeloadError) and str(copy) == str(caught.value)


def test_a_source_leaf_with_a_finding_is_not_unexpected_as_well():
    for policy in (Policy(), Policy(shape="keep", dtype="keep", structure="keep")):
        plan = treeload.plan(
            {"a": OLD, "b": np.int32(1), "c": {"d": OLD.copy()}, "e": OLD.copy()},
            {"a": ONES[:1], "b": 0.5, "c": ONES, "e": {"f": ONES}},
            policy=policy,
        )
        assert sorted(finding.kind for finding in plan.findings) == [
            "dtype",
            "shape",
            "structure",
            "structure",
        ]
        assert [str(leaf.name) for leaf in plan.unused] == ["a", "b", "c", "e/f"]


def test_a_structure_finding_is_given_once_however_many_leaves_are_concerned():
    dst = {"block": {str(index): OLD.copy() for index in range(5)}}
    assert len(treeload.plan(dst, {"block": ONES}).findings) == 1
    assert len(treeload.plan({"block": OLD}, {"block": dst["block"]}).findings) == 1
