"""``Plan.mask`` and ``Plan.labels``: trees that optax takes as they are, for pytrees and NNX objects."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict
from flax.training.train_state import TrainState
from hypothesis import given
from hypothesis import strategies as st
from pytrees import structure_of

import treeload
from treeload import BIAS, Plan, Policy, Tie

NEW = Policy(missing="keep", unexpected="ignore")

names = st.text("abc", min_size=1, max_size=2)
trees = st.recursive(
    st.integers(0, 3).map(lambda size: jnp.ones(size)),
    lambda inner: st.one_of(
        st.dictionaries(names, inner, max_size=3),
        st.lists(inner, max_size=3),
        st.tuples(inner, st.none()),
        st.dictionaries(names, inner, max_size=2).map(FrozenDict),
    ),
    max_leaves=8,
)


class Model(nnx.Module):
    def __init__(self, classes: int, rngs: nnx.Rngs) -> None:
        self.trunk = nnx.List([nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(2, classes, use_bias=False, rngs=rngs)
        self.tied = self.head
        self.act = nnx.relu
        self.nothing = None

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.trunk:
            x = self.act(layer(x))
        return self.head(self.norm(x, use_running_average=True))


def model_plan() -> tuple[Model, Plan]:
    model = Model(3, nnx.Rngs(0))
    return model, treeload.plan(model, Model(5, nnx.Rngs(1)), policy=Policy(shape={"head/*": "keep"}))


# Laws.


@given(tree=trees, data=st.data())
def test_a_mask_has_the_destinations_structure_and_says_of_each_leaf_what_the_plan_says(
    tree: Any, data: Any
) -> None:
    printed = treeload.names(tree)
    loaded = data.draw(st.sets(st.sampled_from(printed))) if printed else set()
    plan = treeload.plan(tree, tree, scope=lambda name, spec: str(name) in loaded)
    mask = plan.mask()
    assert structure_of(mask) == structure_of(tree)
    assert jax.tree.leaves(mask) == [name in loaded for name in printed]


@given(tree=trees)
def test_labels_are_the_mask_in_other_words(tree: Any) -> None:
    plan = treeload.plan(tree, {}, policy=Policy(missing="keep", absent_is_zero=("**/b",)))
    labels = jax.tree.leaves(plan.labels(loaded="x", kept="y"))
    assert [label == "x" for label in labels] == jax.tree.leaves(plan.mask())
    assert set(jax.tree.leaves(plan.labels())) <= {"loaded", "kept"}


# Which leaves.


def test_loaded_zeroed_and_tied_leaves_are_true_and_all_else_is_false() -> None:
    dst = {n: jnp.ones(2) for n in ("loaded", "bias", "tied", "new", "wrong")}
    src = {"loaded": jnp.zeros(2), "wrong": jnp.zeros(3)}
    policy = Policy(missing={"new": "keep"}, shape="keep", absent_is_zero=BIAS)
    plan = treeload.plan(dst, src, rules=Tie("tied", "loaded"), policy=policy)
    assert plan.mask() == {"loaded": True, "bias": True, "tied": True, "new": False, "wrong": False}
    assert plan.labels()["tied"] == "loaded" and plan.labels()["wrong"] == "kept"


def test_both_places_of_a_tied_array_are_marked() -> None:
    shared, other = jnp.zeros(2), jnp.zeros(2)
    plan = treeload.plan({"a": shared, "b": {"c": shared}, "d": other}, {"b": {"c": jnp.ones(2)}}, policy=NEW)
    assert plan.mask() == {"a": True, "b": {"c": True}, "d": False}


def test_absent_slots_stay_absent_and_statics_count_as_kept() -> None:
    dst: dict[str, Any] = {"w": jnp.zeros(2), "none": None, "act": jax.nn.relu, "off": False, "empty": {}}
    mask = treeload.plan(dst, {"w": jnp.ones(2)}).mask()
    assert mask == {"w": True, "none": None, "act": False, "off": False, "empty": {}}


def test_boxes_are_marked_as_a_whole() -> None:
    params = {
        "w": nn.Partitioned(jnp.zeros(2), names=("x",)),
        "v": nn.LogicallyPartitioned(jnp.zeros(1), names=("y",)),
    }
    mask = treeload.plan(params, {"w": jnp.ones(2)}, policy=NEW).mask()
    assert mask == {"w": True, "v": False}
    tx = optax.masked(optax.trace(0.9), mask)
    _, state = tx.update(params, tx.init(params))
    assert jax.tree.leaves(state)[0].shape == (2,) and len(jax.tree.leaves(state)) == 1


def test_a_train_state_is_marked_in_its_own_type() -> None:
    params = {"trunk": jnp.zeros(2), "head": jnp.zeros(3)}
    state = TrainState.create(apply_fn=lambda: None, params=FrozenDict(params), tx=optax.identity())
    mask = treeload.plan(state, {"params": {"trunk": jnp.ones(2)}, "step": 3}, policy=NEW).mask()
    assert isinstance(mask, TrainState) and isinstance(mask.params, FrozenDict)
    assert mask.params == FrozenDict({"trunk": True, "head": False})
    assert mask.step is True


def test_other_nodes_keep_their_types() -> None:
    class Pair(NamedTuple):
        left: Any
        right: Any

    mask = treeload.plan(Pair(jnp.zeros(1), [jnp.zeros(2)]), {"left": jnp.ones(1)}, policy=NEW).mask()
    assert mask == Pair(True, [False])


def test_abstract_destinations_have_masks() -> None:
    spec = jax.ShapeDtypeStruct((2,), jnp.float32)
    plan = treeload.plan({"a": spec, "b": spec}, {"a": jnp.ones(2)}, policy=NEW)
    assert plan.mask() == {"a": True, "b": False}
    model = nnx.eval_shape(lambda: Model(3, nnx.Rngs(0)))
    plan = treeload.plan(model, Model(5, nnx.Rngs(1)), policy=Policy(shape={"head/*": "keep"}))
    assert plan.mask(wrt=nnx.Param)["head"]["kernel"] is False


# NNX.


def test_for_an_nnx_module_it_is_the_state_that_the_optimizer_is_given_without_its_variables() -> None:
    model, plan = model_plan()
    mask = plan.mask(wrt=nnx.Param)
    assert isinstance(mask, nnx.State)
    assert structure_of(mask) == structure_of(nnx.as_pure(nnx.state(model, nnx.Param)))
    assert mask["head"] == nnx.State({"kernel": False})
    assert mask["trunk"][0]["kernel"] is True and mask["norm"]["scale"] is True
    assert set(jax.tree.leaves(plan.labels(wrt=nnx.Param))) == {"loaded", "kept"}


def test_the_filter_selects_the_variables() -> None:
    _, plan = model_plan()
    assert list(plan.mask(wrt=nnx.BatchStat)) == ["norm"]
    assert set(plan.mask()) == {"trunk", "norm", "dropout", "head"}
    by_path = plan.mask(wrt=nnx.PathContains("head"))
    assert list(by_path) == ["head"]


def test_a_shared_module_is_marked_once_and_by_any_of_its_names() -> None:
    model = Model(3, nnx.Rngs(0))
    plan = treeload.plan(model, {"tied": {"kernel": jnp.ones((2, 3))}}, policy=NEW)
    mask = plan.mask(wrt=nnx.Param)
    assert mask["head"]["kernel"] is True and "tied" not in mask


def test_modules_in_a_dict_and_states_have_masks_too() -> None:
    models = {"x": nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "y": nnx.Linear(1, 2, rngs=nnx.Rngs(0))}
    source = {"x": {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}}
    mask = treeload.plan(models, source, policy=NEW).mask(wrt=nnx.Param)
    assert mask["x"]["kernel"] is True and mask["y"]["kernel"] is False
    state = nnx.state(Model(3, nnx.Rngs(0)))
    plan = treeload.plan(state, nnx.state(Model(5, nnx.Rngs(0))), policy=Policy(shape={"head/*": "keep"}))
    assert plan.mask(wrt=nnx.Param)["head"]["kernel"] is False
    assert "dropout" in plan.mask() and "dropout" not in plan.mask(wrt=nnx.Param)


def test_a_filter_for_a_tree_without_variables_is_a_type_error() -> None:
    plan = treeload.plan({"w": jnp.zeros(1)}, {"w": jnp.ones(1)})
    with pytest.raises(TypeError, match="wrt= selects NNX variables; a dict holds none"):
        plan.mask(wrt=nnx.Param)


# With optax.


@pytest.mark.parametrize("wrap", ["masked", "partition"])
def test_a_mask_works_in_an_nnx_optimizer_under_jit(wrap: str) -> None:
    model, plan = model_plan()
    if wrap == "masked":
        frozen = optax.masked(optax.set_to_zero(), plan.mask(wrt=nnx.Param))
        tx = optax.chain(
            frozen, optax.masked(optax.adam(0.1), plan.labels(loaded=False, kept=True, wrt=nnx.Param))
        )
    else:
        tx = optax.partition(
            {"loaded": optax.set_to_zero(), "kept": optax.adam(0.1)}, plan.labels(wrt=nnx.Param)
        )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = treeload.state(model)

    @nnx.jit
    def step(model: Model, optimizer: Any) -> None:
        optimizer.update(model, nnx.grad(lambda m: (m(jnp.ones((1, 2))) ** 2).sum())(model))

    step(model, optimizer)
    after = treeload.state(model)
    assert (after["head"]["kernel"] != before["head"]["kernel"]).any()
    assert (after["trunk"]["0"]["kernel"] == before["trunk"]["0"]["kernel"]).all()
    moments = [leaf.shape for leaf in jax.tree.leaves(optimizer.opt_state) if leaf.ndim]
    assert moments == [(2, 3), (2, 3)]  # adam's two, of the head alone


def test_a_mask_works_for_an_equinox_module_without_its_statics() -> None:
    net = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
    source = {"layers": {"0": {"weight": jnp.ones((4, 2)), "bias": jnp.ones(4)}}}
    plan = treeload.plan(net, source, policy=NEW)
    params = eqx.filter(net, eqx.is_array)
    tx = optax.masked(optax.trace(0.9), plan.mask())
    updates, state = tx.update(params, tx.init(params))
    assert sorted(leaf.shape for leaf in jax.tree.leaves(state)) == [(4,), (4, 2)]
    assert structure_of(updates) == structure_of(params)
