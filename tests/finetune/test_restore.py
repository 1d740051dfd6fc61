"""Optimizer state by parameter name: through edits of the chain, renames, and both of Flax's APIs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from hypothesis import given, settings
from hypothesis import strategies as st
from pytrees import structure_of

import treeload
from treeload import (
    BIAS,
    Apply,
    Cast,
    Concat,
    From,
    LoadError,
    Policy,
    Rename,
    Resize,
    RuleError,
    Stack,
    Tie,
    Transpose,
    Unstack,
    finetune,
)

PARAMS = {"enc": {"k": jnp.ones((2, 3)), "b": jnp.ones(2)}, "head": {"k": jnp.ones((3, 4))}}
ADAM = optax.adam(0.1)

CHAINS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": lambda: optax.adam(0.1),
    "clipped": lambda: optax.chain(optax.clip(1.0), optax.adam(0.1)),
    "adamw": lambda: optax.adamw(0.1, mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)),
    "amsgrad": lambda: optax.amsgrad(0.1),
    "masked": lambda: optax.masked(optax.adam(0.1), {"enc": True, "head": True}),
    "partition": lambda: optax.partition({"x": optax.adam(0.1), "y": ADAM}, {"enc": "x", "head": "y"}),
    "hyperparams": lambda: optax.inject_hyperparams(optax.adam)(0.1),
    "scheduled": lambda: optax.adam(optax.linear_schedule(1.0, 0.0, 10)),
    "multi_steps": lambda: optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "named": lambda: optax.named_chain(("mu", optax.clip(1.0)), ("nu", optax.adam(0.1))),
    "ema": lambda: optax.chain(optax.adam(0.1), optax.ema(0.9)),
    "finite": lambda: optax.apply_if_finite(optax.adam(0.1), 3),
    "skipping": lambda: optax.chain(optax.zero_nans(), optax.adam(0.1), optax.add_decayed_weights(0.1)),
}  # fmt: skip


def trained(tx: optax.GradientTransformation, params: Any = PARAMS, steps: int = 4) -> Any:
    """The state after some steps, every element of every moment different from the others."""
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(1, steps + 1):
        leaves, structure = jax.tree.flatten(params)
        grads = [
            jnp.arange(1, leaf.size + 1, dtype=leaf.dtype).reshape(leaf.shape) * (step + at)
            for at, leaf in enumerate(leaves)
        ]
        _, state = update(jax.tree.unflatten(structure, grads), state, params)
    return state


def moments(state: Any, kind: str) -> dict[str, np.ndarray]:
    """The moments of one kind by parameter, wherever they are in the state."""
    return {
        parameter: np.asarray(leaf(state, name))
        for name in treeload.names(state)
        for parameter in treeload.names(PARAMS)
        if name.endswith(f"{kind}/{parameter}")
    }


def leaf(state: Any, name: str) -> Any:
    node = treeload.state(state)
    for key in name.split("/"):
        node = node[key]
    return node


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    return ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)


def findings(plan: treeload.Plan, verdict: str = "error") -> list[tuple[str, str]]:
    return [(finding.kind, str(finding.name)) for finding in plan.findings if finding.verdict == verdict]


# Laws.


@pytest.mark.parametrize("chain", CHAINS)
def test_an_unchanged_chain_restores_bit_for_bit(chain: str) -> None:
    state = trained(CHAINS[chain]())
    plan = finetune.plan_optimizer(CHAINS[chain](), PARAMS, state, hyperparams="restore")
    assert not plan.findings and plan.coverage == 1.0
    restored = plan.load()
    assert structure_of(restored) == structure_of(state)
    assert all(map(np.array_equal, jax.tree.leaves(restored), jax.tree.leaves(state)))


@pytest.mark.parametrize("chain", CHAINS)
def test_adams_moments_and_its_count_survive_every_edit_of_the_chain_and_come_back(chain: str) -> None:
    state = trained(ADAM)
    plan = finetune.plan_optimizer(CHAINS[chain](), PARAMS, {"params": PARAMS, "opt_state": state, "step": 4})
    edited = plan.load()
    assert structure_of(edited) == structure_of(CHAINS[chain]().init(PARAMS))
    for kind in ("mu", "nu"):
        assert same(moments(edited, kind), moments(state, kind))
    counts = [
        int(leaf(edited, str(e.name))) for e in plan.entries if e.name[-1] == "count" and e.action == "load"
    ]
    assert counts and set(counts) == {4}
    again = finetune.plan_optimizer(
        ADAM, PARAMS, edited, policy=Policy(collision={"0/count": "first"})
    ).load()
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(state)))


@settings(max_examples=20)
@given(before=st.sampled_from(sorted(CHAINS)), after=st.sampled_from(sorted(CHAINS)))
def test_between_any_two_chains_with_adam_in_them_the_moments_are_kept(before: str, after: str) -> None:
    state = trained(CHAINS[before](), steps=2)
    policy = Policy(collision={"**/count": "first"})
    restored = finetune.restore_optimizer(CHAINS[after](), PARAMS, state, policy=policy)
    for kind in ("mu", "nu"):
        assert same(moments(restored, kind), moments(state, kind))


def test_a_step_after_restoring_is_the_step_that_would_have_been() -> None:
    state = trained(ADAM)
    restored = finetune.restore_optimizer(optax.chain(optax.clip(1e9), ADAM), PARAMS, {"opt_state": state})
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    expected, _ = ADAM.update(grads, state, PARAMS)
    updates, _ = optax.chain(optax.clip(1e9), ADAM).update(grads, restored, PARAMS)
    assert all(map(np.array_equal, jax.tree.leaves(updates), jax.tree.leaves(expected)))


@pytest.mark.parametrize(
    "make",
    [optax.sgd, optax.lion, optax.rmsprop, optax.adagrad, optax.adafactor, optax.adadelta, optax.novograd],
    ids=lambda make: make.__name__,
)  # fmt: skip
def test_other_optimizers_follow_the_same_rule(make: Any) -> None:
    how = {"momentum": 0.9} if make is optax.sgd else {}
    state = trained(make(0.1, **how))
    plan = finetune.plan_optimizer(optax.chain(optax.clip(1.0), make(0.1, **how)), PARAMS, state)
    assert plan.ok and plan.coverage == 1.0
    assert all(map(np.array_equal, jax.tree.leaves(plan.load()), jax.tree.leaves(state)))


# Parameters that were renamed, changed, added, taken away.


def test_moments_follow_renames_by_the_rules_of_the_parameters() -> None:
    params = {"encoder": PARAMS["enc"], "head": PARAMS["head"]}
    rules = [Rename("enc/{*rest}", "encoder/{*rest}")]
    assert treeload.plan(params, PARAMS, rules=rules).ok
    state = trained(ADAM)
    restored = finetune.restore_optimizer(optax.adamw(0.1), params, {"opt_state": state}, rules=rules)
    assert (restored[0].mu["encoder"]["k"] == state[0].mu["enc"]["k"]).all()


def test_a_forgotten_rename_is_an_error() -> None:
    params = {"encoder": PARAMS["enc"], "head": PARAMS["head"]}
    plan = finetune.plan_optimizer(ADAM, params, {"opt_state": trained(ADAM)})
    assert findings(plan) == [
        ("unexpected", f"0/{kind}/enc/{name}") for kind in ("mu", "nu") for name in ("b", "k")
    ]
    with pytest.raises(LoadError, match="0/mu/enc/{b,k}"):
        plan.load()


def test_new_parameters_start_fresh_and_the_plan_says_so() -> None:
    params = {**PARAMS, "new": {"k": jnp.ones(5)}}
    plan = finetune.plan_optimizer(ADAM, params, {"opt_state": trained(ADAM)})
    assert plan.ok
    assert findings(plan, "keep") == [("missing", "0/mu/new/k"), ("missing", "0/nu/new/k")]
    state = plan.load()
    assert (state[0].mu["new"]["k"] == 0).all() and (state[0].mu["enc"]["k"] != 0).all()


def test_moments_of_a_parameter_that_is_gone_need_a_policy_over_its_name() -> None:
    params = {"enc": PARAMS["enc"]}
    source = {"opt_state": trained(ADAM)}
    assert findings(finetune.plan_optimizer(ADAM, params, source)) == [
        ("unexpected", "0/mu/head/k"), ("unexpected", "0/nu/head/k")
    ]  # fmt: skip
    for pattern in ("head/**", "*/*/head/**"):
        assert finetune.plan_optimizer(ADAM, params, source, policy=Policy(unexpected={pattern: "ignore"})).ok


def test_a_moment_that_its_parameters_others_have_and_the_source_lacks_is_missing() -> None:
    state = treeload.state(trained(ADAM))
    del state["0"]["nu"]["enc"]["k"]
    assert findings(finetune.plan_optimizer(ADAM, PARAMS, state)) == [("missing", "0/nu/enc/k")]
    assert finetune.plan_optimizer(ADAM, PARAMS, state, policy=Policy(missing={"enc/k": "keep"})).ok


def test_moments_of_a_bias_that_was_zero_and_is_gone_are_left_behind() -> None:
    params = {"enc": {"k": PARAMS["enc"]["k"]}, "head": PARAMS["head"]}
    source = {"opt_state": trained(ADAM)}
    assert findings(finetune.plan_optimizer(ADAM, params, source))
    assert finetune.plan_optimizer(ADAM, params, source, policy=Policy(absent_is_zero=BIAS)).ok


def test_a_shape_is_checked_and_forgiven_by_the_parameters_name() -> None:
    params = {"enc": PARAMS["enc"], "head": {"k": jnp.ones((3, 7))}}
    source = {"opt_state": trained(ADAM)}
    plan = finetune.plan_optimizer(ADAM, params, source)
    assert findings(plan) == [("shape", "0/mu/head/k"), ("shape", "0/nu/head/k")]
    policy = Policy(shape={"head/**": "keep"})  # the one that the parameters were loaded by
    state = finetune.restore_optimizer(ADAM, params, source, policy=policy)
    assert state[0].mu["head"]["k"].shape == (3, 7) and not state[0].mu["head"]["k"].any()
    wrong = {"enc": {"k": jnp.ones((2, 9)), "b": jnp.ones(2)}, "head": params["head"]}
    assert findings(finetune.plan_optimizer(ADAM, wrong, source, policy=policy)) == [
        ("shape", "0/mu/enc/k"), ("shape", "0/nu/enc/k")
    ]  # fmt: skip


def test_dtypes_are_cast_as_the_policy_allows() -> None:
    tx = optax.adam(0.1, mu_dtype=jnp.bfloat16)
    state = finetune.restore_optimizer(tx, PARAMS, {"opt_state": trained(ADAM)})
    assert state[0].mu["enc"]["k"].dtype == jnp.bfloat16 and state[0].mu["enc"]["k"].any()
    plan = finetune.plan_optimizer(
        tx, PARAMS, {"opt_state": trained(ADAM)}, policy=Policy(casting={"enc/*": "no"})
    )
    assert findings(plan) == [("dtype", "0/mu/enc/b"), ("dtype", "0/mu/enc/k")]


def test_layouts_change_with_the_parameters() -> None:
    old = {f"l{i}": {"q": jnp.ones((2, 3)) * i, "v": jnp.ones((2, 3))} for i in range(2)}
    state = trained(ADAM, old)
    for new, rules in (
        ({"l": {"w": jnp.ones((2, 3, 2)), "v": jnp.ones((2, 2, 3))}},
         [Stack("l{i}/q", "l/w", Transpose()), Stack("l{i}/v", "l/v")]),
        ({f"l{i}": {"w": jnp.ones((4, 3))} for i in range(2)}, [Concat(["{l}/q", "{l}/v"], "{l}/w", axis=0)]),
    ):  # fmt: skip
        restored = finetune.restore_optimizer(ADAM, new, {"opt_state": state}, rules=rules)
        for kind in ("mu", "nu"):
            expected = treeload.load(new, getattr(state[0], kind), rules=rules)
            assert jax.tree.all(jax.tree.map(np.array_equal, getattr(restored[0], kind), expected))
    back = [Unstack("l/w", "l{i}/q", Transpose()), Unstack("l/v", "l{i}/v")]
    stacked = {"l": {"w": jnp.ones((2, 3, 2)), "v": jnp.ones((2, 2, 3))}}
    assert (
        finetune.plan_optimizer(ADAM, old, {"opt_state": trained(ADAM, stacked)}, rules=back).coverage == 1.0
    )


@pytest.mark.parametrize("op", [Apply(lambda x: 2 * x), Resize(3, axis=1, grid=None)])
def test_an_op_that_computes_is_refused_for_moments(op: Any) -> None:
    rules = [Rename("enc/k", "enc/k", op)]
    source = {"opt_state": trained(ADAM)}
    plan = finetune.plan_optimizer(ADAM, PARAMS, source, rules=rules)
    assert findings(plan) == [("rule", "0/mu/enc/k"), ("rule", "0/nu/enc/k")]
    assert "changes the parameter's values" in plan.errors[0].message
    state = finetune.restore_optimizer(
        ADAM, PARAMS, source, rules=rules, policy=Policy(rule={"enc/k": "ignore"})
    )
    assert not state[0].mu["enc"]["k"].any() and state[0].mu["enc"]["b"].any()


def test_a_layout_is_not_applied_to_moments_of_another_shape_than_the_parameter() -> None:
    tx = optax.adafactor(0.1, min_dim_size_to_factor=2)
    params = {"w": jnp.ones((4, 4))}
    plan = finetune.plan_optimizer(tx, params, trained(tx, params), rules=[Rename("w", "w", Transpose())])
    assert {finding.name[-2] for finding in plan.errors} == {"v_row", "v_col", "v"}
    assert "for the parameter, and its v_row has another shape" in plan.errors[0].message
    assert finetune.plan_optimizer(
        tx, params, trained(tx, params), rules=[Rename("w", "w", Cast("float32"))]
    ).ok


def test_rules_of_leaves_without_state_and_ties_do_no_harm() -> None:
    rules = [Rename("batch_stats/{*x}", "stats/{*x}"), Tie("head/k", "enc/k")]
    assert not finetune.plan_optimizer(ADAM, PARAMS, trained(ADAM), rules=rules).findings


# Counts and hyperparameters.


@pytest.mark.parametrize(("count", "expected"), [("restore", 4), ("reset", 0)])
def test_the_count_is_restored_or_reset(count: Any, expected: int) -> None:
    for chain in ("adam", "scheduled", "multi_steps"):
        state = trained(CHAINS[chain](), steps=8 if chain == "multi_steps" else 4)
        restored = finetune.restore_optimizer(CHAINS[chain](), PARAMS, state, count=count)
        counts = [name for name in treeload.names(restored) if name.endswith(("count", "gradient_step"))]
        assert {int(leaf(restored, name)) for name in counts} == {expected}
        assert same(moments(restored, "mu"), moments(state, "mu"))


@pytest.mark.parametrize(("hyperparams", "rate"), [("restore", 0.1), ("reset", 0.5)])
def test_hyperparameters_are_restored_or_those_of_the_code(hyperparams: Any, rate: float) -> None:
    state = trained(optax.inject_hyperparams(optax.adam)(0.1))
    tx = optax.inject_hyperparams(optax.adam)(0.5)
    restored = finetune.restore_optimizer(tx, PARAMS, state, hyperparams=hyperparams)
    assert float(restored.hyperparams["learning_rate"]) == pytest.approx(rate)
    assert int(restored.count) == int(restored.inner_state[0].count) == 4
    plan = finetune.plan_optimizer(tx, PARAMS, state, hyperparams=hyperparams, count="reset")
    assert {str(e.name) for e in plan.entries if e.action == "keep"} >= {"count", "inner_state/0/count"}


def test_each_count_goes_to_its_own() -> None:
    schedule = optax.scale_by_schedule(lambda count: 1.0)
    before = optax.chain(optax.adam(0.1), schedule)
    state = trained(before)
    state = (state[0], state[1]._replace(count=jnp.array(77)))
    after = optax.chain(schedule, optax.clip(1.0), optax.adam(0.1))
    restored = finetune.restore_optimizer(after, PARAMS, state)
    assert int(restored[0].count) == 77 and int(restored[2][0].count) == 4


def test_the_counts_of_two_groups_go_with_their_parameters() -> None:
    def grouped(**groups: str) -> optax.GradientTransformation:
        return optax.partition({label: optax.adam(0.1) for label in groups.values()}, groups)

    state = treeload.state(trained(grouped(enc="x", head="y")))
    for label, count in (("x", 1), ("y", 2)):
        state["inner_states"][label]["inner_state"]["0"]["count"] = jnp.array(count)
    restored = finetune.restore_optimizer(grouped(enc="z", head="x"), PARAMS, state)
    assert int(restored.inner_states["z"].inner_state[0].count) == 1
    assert int(restored.inner_states["x"].inner_state[0].count) == 2
    joined = finetune.plan_optimizer(ADAM, PARAMS, state)
    assert findings(joined) == [("collision", "0/count")]  # which of the two cannot be told


@pytest.mark.parametrize("option", ["count", "hyperparams"])
def test_an_unknown_choice_is_refused(option: str) -> None:
    choice: dict[str, Any] = {option: "keep"}
    with pytest.raises(RuleError, match=f"{option} is 'restore' or 'reset', not 'keep'"):
        finetune.restore_optimizer(ADAM, PARAMS, trained(ADAM), **choice)


# Ambiguity.


def test_two_stored_moments_of_one_kind_are_a_collision() -> None:
    twice = optax.chain(optax.trace(0.9), optax.trace(0.5))
    plan = finetune.plan_optimizer(optax.trace(0.9), PARAMS, trained(twice))
    assert findings(plan) == [("collision", f"trace/{name}") for name in ("enc/b", "enc/k", "head/k")]
    first = finetune.restore_optimizer(
        optax.trace(0.9), PARAMS, trained(twice), policy=Policy(collision="first")
    )
    assert same(moments(first, "trace"), moments(trained(twice)[0], "trace"))


def test_one_stored_moment_that_could_be_two_goes_to_neither() -> None:
    twice = optax.chain(optax.trace(0.9), optax.trace(0.5))
    plan = finetune.plan_optimizer(twice, PARAMS, trained(optax.trace(0.9)))
    assert {kind for kind, _ in findings(plan)} == {"rule"} and len(plan.errors) == 6
    assert "trace of enc/b 2 times" in plan.errors[0].message


def test_two_of_a_kind_that_stay_where_they_are_are_none() -> None:
    twice = optax.chain(optax.trace(0.9), optax.trace(0.5))
    state = trained(twice)
    restored = finetune.restore_optimizer(twice, PARAMS, {"opt_state": state})
    assert all(map(np.array_equal, jax.tree.leaves(restored), jax.tree.leaves(state)))


def test_parameters_that_are_called_like_kinds_and_fields_do_no_harm() -> None:
    params = {
        "mu": {"nu": jnp.ones(1), "count": jnp.ones(2)},
        "nu": jnp.ones(3),
        "k": {"mu": {"nu": jnp.ones(4)}},
    }
    state = trained(ADAM, params)
    restored = finetune.restore_optimizer(optax.chain(optax.clip(1.0), ADAM), params, {"opt_state": state})
    assert all(map(np.array_equal, jax.tree.leaves(restored), jax.tree.leaves(state)))


def test_arrays_without_a_key_stay_where_they_are_or_are_an_error() -> None:
    tx, state = optax.sm3(0.1), trained(optax.sm3(0.1))  # its mu is a list for each parameter
    assert finetune.plan_optimizer(tx, PARAMS, {"opt_state": state}).coverage == 1.0
    plan = finetune.plan_optimizer(optax.chain(optax.clip(1.0), tx), PARAMS, {"opt_state": state})
    assert {kind for kind, _ in findings(plan)} == {"missing", "unexpected"}
    assert {finding.name[-1] for finding in plan.errors} == {"0", "1"}


def test_lists_of_parameters_have_names_like_any_other() -> None:
    params = [jnp.ones(3), {"w": jnp.ones((2, 2))}]
    state = trained(ADAM, params)
    plan = finetune.plan_optimizer(optax.chain(optax.clip(1.0), ADAM), params, state)
    assert not plan.findings and plan.coverage == 1.0


def test_a_single_array_has_no_name_to_follow() -> None:
    with pytest.raises(RuleError, match="single array"):
        finetune.plan_optimizer(ADAM, jnp.ones(2), ADAM.init(jnp.ones(2)))


# Where the state is.


def test_a_source_without_optimizer_state_is_an_error() -> None:
    plan = finetune.plan_optimizer(ADAM, PARAMS, {"params": PARAMS})
    assert findings(plan) == [("rule", "")]
    assert finetune.restore_optimizer(optax.sgd(0.1), PARAMS, {"params": PARAMS}) == optax.sgd(0.1).init(
        PARAMS
    )


def test_a_source_that_gives_nothing_is_said_of_the_state() -> None:
    (none,) = finetune.plan_optimizer(ADAM, PARAMS, {"params": PARAMS}).errors
    assert none.message == "a tree in memory holds no optimizer state: the optimizer starts anew"
    old = {"opt_state": optax.sgd(0.1, momentum=0.9).init(PARAMS)}
    (other,) = finetune.plan_optimizer(ADAM, PARAMS, old).errors
    assert other.message.endswith("keeps trace, and the new state wants mu and nu: nothing carries over")
    assert none.remedies == other.remedies and "tx.init(params)" in other.remedy
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    with pytest.raises(LoadError, match="no optimizer state"):
        finetune.restore_optimizer(optimizer, model, {"model": model})


CALL = r"treeload\.finetune\.restore_optimizer\((.*), src\)"


def train_state(tx: optax.GradientTransformation) -> TrainState:
    return TrainState.create(apply_fn=None, params=PARAMS, tx=tx)


@pytest.mark.parametrize(
    ("src", "helps"),
    [
        ({"params": PARAMS}, False),
        (train_state(optax.sgd(0.1)), False),
        (train_state(optax.sgd(0.1, momentum=0.9)), False),
        (train_state(optax.sgd(optax.linear_schedule(1.0, 0.0, 10), momentum=0.9)), False),
        (train_state(optax.chain(optax.clip(1.0), optax.adamw(0.1))), True),
        (train_state(optax.scale_by_adam()), True),
        (train_state(optax.adafactor(0.1)), False),
    ],
)
def test_the_call_is_offered_where_it_restores_something(src: Any, helps: bool) -> None:
    state = train_state(ADAM)
    assert bool(re.search(CALL, str(treeload.plan(state, src)))) is helps
    if helps:
        assert finetune.restore_optimizer(state.tx, state.params, src)
    else:
        with pytest.raises(LoadError, match="anew|carries over"):
            finetune.restore_optimizer(state.tx, state.params, src)


def test_for_an_nnx_optimizer_the_call_is_offered_with_the_model() -> None:
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    old, optimizer = (
        nnx.Optimizer(model, tx, wrt=nnx.Param) for tx in (ADAM, optax.chain(optax.clip(1.0), ADAM))
    )
    src = {"optimizer": old}
    offered = re.search(CALL, str(treeload.plan({"optimizer": optimizer}, src)))
    assert offered is not None and offered[1] == "optimizer, model"
    assert finetune.restore_optimizer(optimizer, model, src)


def test_one_policy_for_a_whole_kind_and_no_moment_near_to_a_count() -> None:
    new, old = train_state(ADAM), train_state(optax.sgd(0.1, momentum=0.9))
    said = str(treeload.plan(new, old))
    assert 'Policy(unexpected={"opt_state/0/trace/**": "ignore"})' in said
    assert 'Policy(missing={"opt_state/0/**": "keep"})' in said
    count = said[said.index("missing     opt_state/0/count") :]
    assert "near" not in count[: count.index("opt_state/0/mu")]
    policy = Policy(missing={"opt_state/0/**": "keep"}, unexpected={"opt_state/0/trace/**": "ignore"})
    assert treeload.plan(new, old, policy=policy).ok


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((PARAMS, ADAM, {}), "comes first.*a dict was given there"),
        ((ADAM.init(PARAMS), PARAMS, {}), "comes first.*a tuple was given there"),
        ((ADAM, ADAM, {}), r"\(tx, params, source\): an optimizer was given second"),
        ((ADAM, PARAMS, ADAM), "an optimizer was given third"),
    ],
)
def test_arguments_in_another_order_are_said(arguments: Any, says: str) -> None:
    for call in (finetune.plan_optimizer, finetune.restore_optimizer):
        with pytest.raises(TypeError, match=says):
            call(*arguments)
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    with pytest.raises(TypeError, match="a Linear was given there"):
        finetune.plan_optimizer(model, optimizer, {})
    with pytest.raises(TypeError, match=r"\(optimizer, model, source\): an optimizer was given second"):
        finetune.plan_optimizer(optimizer, optimizer, {})


def test_of_several_states_one_must_be_chosen() -> None:
    state = trained(ADAM)
    source = {"gen": {"opt_state": state}, "disc": {"opt_state": trained(ADAM, steps=2)}}
    with pytest.raises(RuleError, match="disc/opt_state, gen/opt_state: say which"):
        finetune.plan_optimizer(ADAM, PARAMS, source)
    for chosen in (
        finetune.restore_optimizer(ADAM, PARAMS, source, subtree="gen"),
        finetune.restore_optimizer(ADAM, PARAMS, source, subtree="gen/opt_state"),
        finetune.restore_optimizer(ADAM, PARAMS, From(source, subtree="gen")),
    ):
        assert int(chosen[0].count) == 4


@pytest.mark.parametrize("how", [{"rules": [Rename("a", "b")]}, {"into": "x"}])
def test_a_from_gives_a_place_and_nothing_else(how: Any) -> None:
    with pytest.raises(RuleError, match="subtree, item, separator and format alone"):
        finetune.plan_optimizer(ADAM, PARAMS, From({}, **how))


def test_a_stored_state_whose_variables_were_no_boxes_is_understood() -> None:
    def boxed(node: Any) -> Any:
        return (
            {key: boxed(child) for key, child in node.items()} if isinstance(node, dict) else {"value": node}
        )

    state = trained(ADAM)
    restored = finetune.restore_optimizer(ADAM, PARAMS, {"opt_state": boxed(treeload.state(state))})
    assert all(map(np.array_equal, jax.tree.leaves(restored), jax.tree.leaves(state)))


# Flax.


def test_a_train_state_continues_from_a_checkpoint_with_another_chain(tmp_path: Path) -> None:
    old = TrainState.create(apply_fn=lambda: None, params=PARAMS, tx=ADAM).replace(
        opt_state=trained(ADAM), step=4
    )
    treeload.save(tmp_path / "run", old)
    tx = optax.chain(optax.clip(1.0), optax.adamw(0.01))
    params = treeload.load(PARAMS, From(tmp_path / "run", subtree="params"))
    opt_state = finetune.restore_optimizer(tx, params, tmp_path / "run")
    new = TrainState.create(apply_fn=lambda: None, params=params, tx=tx).replace(opt_state=opt_state)
    new = jax.jit(lambda state: state.apply_gradients(grads=state.params))(new)
    assert int(new.opt_state[1][0].count) == 5


class Model(nnx.Module):
    def __init__(self, classes: int, rngs: nnx.Rngs) -> None:
        self.trunk = nnx.List([nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.head = nnx.Linear(2, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.trunk:
            x = layer(x)
        return self.head(self.norm(x, use_running_average=True))


@nnx.jit
def step(model: Model, optimizer: Any) -> None:
    optimizer.update(model, nnx.grad(lambda model: (model(jnp.ones((1, 2))) ** 2).sum())(model))


def test_an_nnx_optimizer_continues_from_a_checkpoint_with_another_chain(tmp_path: Path) -> None:
    model = Model(3, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    step(model, optimizer)
    treeload.save(tmp_path / "run", {"model": model, "optimizer": optimizer})

    fresh = nnx.Optimizer(model, optax.chain(optax.clip(1.0), optax.adamw(0.1)), wrt=nnx.Param)
    restored = finetune.restore_optimizer(fresh, model, tmp_path / "run")
    assert isinstance(restored, nnx.Optimizer) and restored is not fresh
    assert int(restored.step[...]) == 1 and int(fresh.step[...]) == 0
    ours, theirs = (
        treeload.state(restored)["opt_state"]["1"]["0"],
        treeload.state(optimizer)["opt_state"]["0"],
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))
    step(model, restored)
    assert int(restored.step[...]) == 2
    reset = finetune.restore_optimizer(fresh, model, tmp_path / "run", count="reset")
    assert int(reset.step[...]) == 0


def test_an_nnx_optimizer_for_a_new_head(tmp_path: Path) -> None:
    old = Model(5, nnx.Rngs(0))
    optimizer = nnx.Optimizer(old, ADAM, wrt=nnx.Param)
    step(old, optimizer)
    treeload.save(tmp_path / "run", {"model": old, "optimizer": optimizer})
    policy = Policy(shape={"head/**": "keep"})
    plan = treeload.plan(Model(3, nnx.Rngs(1)), From(tmp_path / "run", subtree="model"), policy=policy)
    model = plan.load()
    tx = finetune.split_optimizer(plan, loaded=optax.adam(1e-3), kept=optax.adam(1e-2))
    restored = finetune.restore_optimizer(
        nnx.Optimizer(model, tx, wrt=nnx.Param), model, tmp_path / "run", policy=policy
    )
    inner = treeload.state(restored)["opt_state"]["inner_states"]
    assert inner["loaded"]["inner_state"]["0"]["mu"]["trunk"]["0"]["kernel"].any()
    assert not inner["kept"]["inner_state"]["0"]["mu"]["head"]["kernel"].any()
    step(model, restored)


def test_the_states_of_both_apis_are_the_same_to_it() -> None:
    model = Model(3, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    step(model, optimizer)
    params = treeload.state(nnx.state(model, nnx.Param))
    as_dicts = finetune.restore_optimizer(ADAM, params, optimizer)
    as_states = finetune.restore_optimizer(ADAM, nnx.state(model, nnx.Param), {"opt_state": as_dicts})
    assert structure_of(as_states) == structure_of(ADAM.init(nnx.state(model, nnx.Param)))
    assert (as_states[0].mu["head"]["kernel"][...] == as_dicts[0].mu["head"]["kernel"]).all()
    back = finetune.restore_optimizer(nnx.Optimizer(model, ADAM, wrt=nnx.Param), model, as_dicts)
    assert int(back.step[...]) == 0  # there was none
    assert (
        treeload.state(back)["opt_state"]["0"]["mu"]["head"]["bias"] == as_dicts[0].mu["head"]["bias"]
    ).all()


def test_a_module_in_place_of_its_parameters_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="nnx.state"):
        finetune.plan_optimizer(ADAM, Model(3, nnx.Rngs(0)), {})


# How it is made.


def test_planning_reads_nothing_and_makes_nothing() -> None:
    big = jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.float32)  # 4 TB
    stored = {"opt_state": jax.eval_shape(ADAM.init, {"w": big})}
    plan = finetune.plan_optimizer(optax.chain(optax.clip(1.0), ADAM), {"w": big, "new": big}, stored)
    assert plan.ok and len(plan.entries) == 5


def test_moments_lie_where_their_parameters_do() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = {
        "w": jax.device_put(jnp.ones((8, 2)), sharding),
        "new": jax.device_put(jnp.ones((16,)), sharding),
    }
    old = trained(ADAM, {"w": jnp.ones((8, 2))})
    state = finetune.restore_optimizer(optax.adamw(0.1), params, {"opt_state": old})
    assert {leaf.sharding for leaf in (state[0].mu["w"], state[0].nu["w"], state[0].mu["new"])} == {sharding}
    jax.jit(optax.adamw(0.1).update)(params, state, params)
