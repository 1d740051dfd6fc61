"""Optimizers by what a plan loaded, and by depth: in real, jitted steps of both of Flax's APIs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze
from flax.training.train_state import TrainState

import treeload
from treeload import From, LoadError, Plan, Policy, RuleError, finetune

X, Y = jnp.ones((4, 3)), jnp.array([0, 1, 2, 0])
HEAD = Policy(shape={"head/**": "keep"})
ORDER = ["embed/**", "layers_{i}/**", "head/**"]


class Linen(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(3, name="embed")(x)
        for number in range(2):
            x = nn.tanh(nn.Dense(3, name=f"layers_{number}")(x))
        return nn.Dense(self.classes, name="head")(x)


class Nnx(nnx.Module):
    def __init__(self, classes: int, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(3, 3, rngs=rngs)
        self.layers_0 = nnx.Linear(3, 3, rngs=rngs)
        self.layers_1 = nnx.Linear(3, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.0, rngs=rngs)
        self.head = nnx.Linear(3, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.embed(x)
        for layer in (self.layers_0, self.layers_1):
            x = nnx.tanh(layer(x))
        return self.head(self.dropout(x))


@dataclass
class Training:
    """A pretrained trunk with a new head, and a jitted step of it with any optimizer."""

    plan: Plan
    model: Any
    train: Callable[[optax.GradientTransformation], tuple[dict[str, Any], Any]]

    def moved(self, tx: optax.GradientTransformation) -> dict[str, float]:
        """How far each module's kernel moved in a step."""
        before = treeload.state(self.model)
        after, _ = self.train(tx)
        return {
            name: float(jnp.abs(after[name]["kernel"] - before[name]["kernel"]).max())
            for name in ("embed", "layers_0", "layers_1", "head")
        }

    def moments(self, tx: optax.GradientTransformation) -> list[tuple[int, ...]]:
        """The shapes of the arrays in the optimizer's state after a step."""
        return [leaf.shape for leaf in jax.tree.leaves(self.train(tx)[1]) if leaf.ndim]


def loss(logits: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean()


def linen(frozen_dict: bool = False) -> Training:
    pretrained = Linen(5).init(jax.random.key(0), X)["params"]
    fresh = Linen(3).init(jax.random.key(1), X)["params"]
    plan = treeload.plan(freeze(fresh) if frozen_dict else fresh, pretrained, policy=HEAD)
    params = plan.load()

    def train(tx: optax.GradientTransformation) -> tuple[dict[str, Any], Any]:
        state = TrainState.create(apply_fn=Linen(3).apply, params=params, tx=tx)

        @jax.jit
        def step(state: TrainState) -> TrainState:
            grads = jax.grad(lambda params: loss(state.apply_fn({"params": params}, X)))(state.params)
            return state.apply_gradients(grads=grads)

        state = step(state)
        return treeload.state(state.params), state.opt_state

    return Training(plan, params, train)


def of_nnx() -> Training:
    plan = treeload.plan(Nnx(3, nnx.Rngs(1)), Nnx(5, nnx.Rngs(0)), policy=HEAD)
    loaded = plan.load()

    def train(tx: optax.GradientTransformation) -> tuple[dict[str, Any], Any]:
        model = nnx.clone(loaded)
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

        @nnx.jit
        def step(model: Nnx, optimizer: Any) -> None:
            optimizer.update(model, nnx.grad(lambda model: loss(model(X)))(model))

        step(model, optimizer)
        return treeload.state(model), optimizer.opt_state

    return Training(plan, loaded, train)


BOTH = pytest.mark.parametrize("make", [linen, of_nnx], ids=["linen", "nnx"])


# The trunk loads, only the head is forgiven.


@BOTH
def test_only_the_head_is_new(make: Callable[[], Training]) -> None:
    plan = make().plan
    assert {str(e.name) for e in plan.entries if e.action == "keep"} == {"head/kernel", "head/bias"}
    assert plan.ok


@pytest.mark.parametrize("name", ["embed", "layers_1"])
def test_a_wrong_shape_in_the_trunk_is_still_an_error(name: str) -> None:
    pretrained = Linen(5).init(jax.random.key(0), X)["params"]
    pretrained[name]["kernel"] = jnp.ones((3, 4))
    dst = Linen(3).init(jax.random.key(1), X)["params"]
    with pytest.raises(LoadError) as raised:
        treeload.load(dst, pretrained, policy=HEAD)
    assert [(f.kind, str(f.name)) for f in raised.value.findings] == [("shape", f"{name}/kernel")]
    model = Nnx(3, nnx.Rngs(0))
    with pytest.raises(LoadError, match=f"{name}/kernel"):
        treeload.update(model, pretrained, policy=HEAD)


# Split.


@BOTH
def test_split_trains_what_was_loaded_and_what_was_kept_by_its_own_optimizer(
    make: Callable[[], Training],
) -> None:
    training = make()
    moved = training.moved(
        finetune.split_optimizer(training.plan, loaded=optax.adam(1e-4), kept=optax.adam(1e-2))
    )
    assert moved == pytest.approx({"embed": 1e-4, "layers_0": 1e-4, "layers_1": 1e-4, "head": 1e-2}, rel=0.05)


@BOTH
def test_each_half_has_state_for_its_own_parameters_alone(make: Callable[[], Training]) -> None:
    training = make()
    tx = finetune.split_optimizer(training.plan, loaded=optax.sgd(1e-4, momentum=0.9), kept=optax.sgd(1e-2))
    assert sorted(training.moments(tx)) == [(3,)] * 3 + [(3, 3)] * 3
    state = training.train(tx)[1]
    assert set(state.inner_states) == {"loaded", "kept"}


# Freeze.


@BOTH
def test_frozen_parameters_do_not_move_and_take_no_optimizer_memory(make: Callable[[], Training]) -> None:
    training = make()
    tx = finetune.freeze_loaded(training.plan, optax.adamw(1e-2))
    moved = training.moved(tx)
    assert {name: distance > 0 for name, distance in moved.items()} == {
        "embed": False, "layers_0": False, "layers_1": False, "head": True
    }  # fmt: skip
    assert sorted(training.moments(tx)) == [(3,), (3,), (3, 3), (3, 3)]  # mu and nu of the head
    assert len(training.moments(optax.adamw(1e-2))) == 16


def test_parameters_in_a_frozen_dict_are_the_same_to_every_optimizer() -> None:
    training = linen(frozen_dict=True)
    tx = finetune.layerwise(
        training.plan, finetune.freeze_loaded(training.plan, optax.sgd(1e-2)), order=ORDER
    )
    assert [name for name, distance in training.moved(tx).items() if distance] == ["head"]


def test_a_clip_inside_of_freeze_sees_the_kept_gradients_alone() -> None:
    params = {"trunk": jnp.zeros(1), "head": jnp.zeros(1)}
    plan = treeload.plan(params, {"trunk": jnp.ones(1)}, policy=Policy(missing="keep"))
    tx = finetune.freeze_loaded(plan, optax.chain(optax.clip_by_global_norm(1.0), optax.scale(-1.0)))
    updates, _ = tx.update({"trunk": jnp.full(1, 1e6), "head": jnp.full(1, 0.5)}, tx.init(params))
    assert updates == {"trunk": jnp.zeros(1), "head": jnp.full(1, -0.5)}


# Which parameters.


def test_the_plan_may_be_of_variables_or_of_a_train_state_around_the_parameters() -> None:
    variables = {"params": {"t": jnp.zeros(1), "h": jnp.zeros(1)}, "batch_stats": {"t": jnp.zeros(1)}}
    source = {"params": {"t": jnp.ones(1)}, "batch_stats": {"t": jnp.ones(1)}}
    plan = treeload.plan(variables, source, policy=Policy(missing="keep"))
    around = TrainState.create(apply_fn=lambda: None, params=variables["params"], tx=optax.adam(1.0))
    other = treeload.plan(around, {"params": source["params"]}, policy=Policy(missing="keep"))
    for each in (plan, other):
        tx = finetune.freeze_loaded(each, optax.trace(0.9))
        assert [leaf.shape for leaf in jax.tree.leaves(tx.init(variables["params"]))] == [(1,)]
        tx = finetune.layerwise(each, optax.sgd(1.0), decay=0.5, order=["t"])
        updates, _ = tx.update(variables["params"], tx.init(variables["params"]))
        assert updates.keys() == {"t", "h"}


def test_a_parameter_that_the_plan_does_not_know_is_refused() -> None:
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}

    def step(tx: optax.GradientTransformation) -> None:
        tx.update(params, tx.init(params), params)

    plan = treeload.plan({"a": jnp.zeros(1)}, {"a": jnp.ones(1)})
    for tx in (
        finetune.split_optimizer(plan, loaded=optax.sgd(1.0), kept=optax.sgd(1.0)),
        finetune.layerwise(plan, optax.sgd(1.0), order=["a"]),
    ):
        with pytest.raises(RuleError, match="the optimizer is given b, of which the plan .* knows nothing"):
            step(tx)


def test_a_part_of_the_parameters_is_enough() -> None:
    plan = treeload.plan({"a": jnp.zeros(1), "b": jnp.zeros(2)}, {"a": jnp.ones(1), "b": jnp.ones(2)})
    tx = optax.masked(
        finetune.split_optimizer(plan, loaded=optax.trace(0.9), kept=optax.sgd(1.0)), {"a": False, "b": True}
    )
    params = {"a": jnp.zeros(1), "b": jnp.zeros(2)}
    assert [leaf.shape for leaf in jax.tree.leaves(tx.init(params))] == [(2,)]


def test_with_a_filter_the_optimizer_is_for_those_variables_and_no_others() -> None:
    training = of_nnx()
    tx = finetune.freeze_loaded(training.plan, optax.adam(1.0), wrt=nnx.Param)
    nnx.Optimizer(training.model, tx, wrt=nnx.Param)
    narrow = finetune.freeze_loaded(training.plan, optax.adam(1.0), wrt=nnx.PathContains("head"))
    nnx.Optimizer(training.model, narrow, wrt=nnx.PathContains("head"))
    with pytest.raises(RuleError, match="embed/bias"):
        nnx.Optimizer(training.model, narrow, wrt=nnx.Param)


def test_a_shared_module_is_looked_up_by_either_name() -> None:
    class Tied(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.a = self.b = nnx.Linear(1, 1, rngs=rngs)

    model = Tied(nnx.Rngs(0))
    plan = treeload.plan(model, {"b": {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}})
    optimizer = nnx.Optimizer(model, finetune.freeze_loaded(plan, optax.adam(1.0)), wrt=nnx.Param)
    assert not [leaf for leaf in jax.tree.leaves(optimizer.opt_state) if leaf.ndim]


# Layers.


@BOTH
def test_each_depth_moves_by_the_decay_times_the_one_after_it(make: Callable[[], Training]) -> None:
    training = make()
    tx = finetune.layerwise(training.plan, optax.adam(1e-2), decay=0.5, order=ORDER)
    expected = {"embed": 1e-2 / 8, "layers_0": 1e-2 / 4, "layers_1": 1e-2 / 2, "head": 1e-2}
    assert training.moved(tx) == pytest.approx(expected, rel=0.05)
    assert training.moments(tx) == training.moments(optax.adam(1e-2))


@BOTH
def test_what_the_plan_kept_comes_after_the_last_depth(make: Callable[[], Training]) -> None:
    training = make()
    tx = finetune.layerwise(training.plan, optax.adam(1e-2), decay=0.5, order=ORDER[:-1])
    expected = {"embed": 1e-2 / 8, "layers_0": 1e-2 / 4, "layers_1": 1e-2 / 2, "head": 1e-2}
    assert training.moved(tx) == pytest.approx(expected, rel=0.05)


@BOTH
def test_the_order_may_be_a_function_and_the_model_stand_for_the_plan(make: Callable[[], Training]) -> None:
    training = make()
    depth: Mapping[str, int] = {"embed": 0, "layers_0": 2, "layers_1": 3}
    tx = finetune.layerwise(
        training.model, optax.adam(1e-2), decay=0.1, order=lambda name: depth.get(name[0]), others=0.0
    )
    assert training.moved(tx) == pytest.approx(
        {"embed": 1e-5, "layers_0": 1e-3, "layers_1": 1e-2, "head": 0.0}, rel=0.05
    )


def factors(params: Any, order: Any, **how: Any) -> dict[str, float]:
    tx = finetune.layerwise(params, optax.identity(), order=order, **how)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params))
    return dict(zip(treeload.names(params), (float(leaf) for leaf in jax.tree.leaves(updates)), strict=True))


def test_layers_are_sorted_as_numbers() -> None:
    params = {"layers": {str(number): jnp.ones(()) for number in (10, 9, 2)}}
    assert factors(params, ["layers/{i}"], decay=0.5) == {"layers/2": 0.25, "layers/9": 0.5, "layers/10": 1.0}


def test_leaves_of_one_layer_have_one_depth_whatever_else_is_captured() -> None:
    params = {"l0": {"a": jnp.ones(()), "b": {"c": jnp.ones(())}}, "l1": {"a": jnp.ones(())}}
    assert factors(params, ["l{i}/{*rest}"], decay=0.5) == {"l0/a": 0.5, "l0/b/c": 0.5, "l1/a": 1.0}


def test_half_precision_stays_half_precision() -> None:
    params = {"a": jnp.ones(1, jnp.bfloat16)}
    tx = finetune.layerwise(params, optax.sgd(1.0), order=["a"])
    assert tx.update(params, tx.init(params))[0]["a"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["a"], "order says nothing of b/x"),
        (["a", "b/*", "**"], "a is both 'a' and '\\*\\*' in order"),
        (["a", "b/*", "c"], "no parameter is called 'c'"),
        (["a", "b/{x}"], "captures 'x'; a depth is a number"),
        (["{i}", "{i}/{j}"], "'{i}/{j}' holds more than one capture"),
        ("**", "order is a list of patterns"),
        (["a", "b/{"], "b/"),
        (lambda name: "first", "a depth is an integer"),
        (lambda name: True, "a depth is an integer"),
    ],
)
def test_an_order_that_leaves_a_doubt_is_refused(order: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        finetune.layerwise({"a": jnp.ones(1), "b": {"x": jnp.ones(1)}}, optax.sgd(1.0), order=order)


@pytest.mark.parametrize("decay", [0, -1.0, float("nan")])
def test_a_decay_that_is_not_above_zero_is_refused(decay: float) -> None:
    with pytest.raises(RuleError, match="decay"):
        finetune.layerwise({"a": jnp.ones(1)}, optax.sgd(1.0), decay=decay, order=["a"])


# Recipes that go together.


def test_a_trunk_alone_is_grafted_and_frozen() -> None:
    model = Nnx(3, nnx.Rngs(0))
    trunk = treeload.state(Nnx(5, nnx.Rngs(1)))
    del trunk["head"]
    plan = treeload.plan(model, From(trunk), scope=["embed/**", "layers_*/**"])
    optimizer = nnx.Optimizer(
        plan.load(), finetune.freeze_loaded(plan, optax.sgd(1.0, momentum=0.9)), wrt=nnx.Param
    )
    assert sorted(np.shape(leaf) for leaf in jax.tree.leaves(optimizer.opt_state)) == [(3,), (3, 3)]


# Wrong arguments.


def test_a_plan_that_would_not_load_makes_no_optimizer() -> None:
    failing = treeload.plan({"w": jnp.ones(2)}, {"v": jnp.ones(2)})
    tx = optax.sgd(0.1)
    for make in (
        lambda: finetune.freeze_loaded(failing, tx),
        lambda: finetune.split_optimizer(failing, loaded=tx, kept=tx),
        lambda: finetune.layerwise(failing, tx, order=["w"]),
    ):
        with pytest.raises(treeload.LoadError, match="2 problems"):
            make()


def test_a_plan_that_init_will_settle_makes_one() -> None:
    abstract = {"w": jax.ShapeDtypeStruct((2,), jnp.float32), "head": jax.ShapeDtypeStruct((2,), jnp.float32)}
    plan = treeload.plan(abstract, {"w": jnp.ones(2)}, policy=treeload.Policy(missing={"head": "keep"}))
    assert plan.errors and finetune.freeze_loaded(plan, optax.sgd(0.1))


def test_arguments_in_another_order_are_said() -> None:
    params = {"w": jnp.ones(2)}
    plan, tx = treeload.plan(params, params), optax.sgd(0.1)
    wrong: Any
    for says, wrong in (
        ("takes the Plan first, not a GradientTransf", lambda: finetune.freeze_loaded(tx, plan)),  # type: ignore[arg-type]
        ("takes the Plan first, not a dict", lambda: finetune.freeze_loaded(params, tx)),  # type: ignore[arg-type]
        ("tx is an optax optimizer.*not a tuple", lambda: finetune.freeze_loaded(plan, (1, 2))),  # type: ignore[arg-type]
        ("takes a Plan, not a dict", lambda: finetune.split_optimizer(params, loaded=tx, kept=tx)),  # type: ignore[arg-type]
        ("loaded is an optax", lambda: finetune.split_optimizer(plan, loaded=params, kept=tx)),  # type: ignore[arg-type]
        ("kept is an optax", lambda: finetune.split_optimizer(plan, loaded=tx, kept=params)),  # type: ignore[arg-type]
        ("first, and then the optimizer", lambda: finetune.layerwise(tx, plan, order=["w"])),  # type: ignore[arg-type]
        ("tx is an optax", lambda: finetune.layerwise(plan, params, order=["w"])),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=says):
            wrong()
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"not the nnx\.Optimizer that holds it"):
        finetune.freeze_loaded(plan, nnx.Optimizer(model, tx, wrt=nnx.Param))  # type: ignore[arg-type]
