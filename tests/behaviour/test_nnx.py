"""NNX objects: walked as the graphs they are, made anew by ``load``, filled in place by ``update``."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import treeload
from treeload import LoadError, Policy, SourceError, TreeloadError
from treeload._naming.name import Name
from treeload._sources.source import Source
from treeload._trees.walk import walk


class Block(nnx.Module):
    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(width, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.scale = jnp.ones(width)  # an array and no Variable
        self.bound = nnx.static(3)


class Model(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List([Block(2, rngs=rngs) for _ in range(11)])
        self.heads = nnx.Dict(b=nnx.Linear(2, 1, rngs=rngs), a=nnx.Linear(2, 1, use_bias=False, rngs=rngs))
        self.host = np.ones(2, np.float32)
        self.act = nnx.relu


def model(seed: int = 0) -> Model:
    return Model(rngs=nnx.Rngs(seed))


def arrays(tree: Any) -> list[np.ndarray[Any, Any]]:
    return [
        np.asarray(
            jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        )
        for leaf in jax.tree.leaves(nnx.state(tree) if isinstance(tree, nnx.Module) else tree)
    ]


def same(first: Any, second: Any) -> bool:
    ours, theirs = arrays(first), arrays(second)
    return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))


class Tied(nnx.Module):
    """One Variable under three names, an array under two, and a way back to the root."""

    def __init__(self, fill: float = 0.0) -> None:
        self.embed = nnx.Param(jnp.full((2,), fill))
        self.head = self.embed
        self.inner: nnx.Dict[Any] = nnx.Dict(again=self.embed)
        array = jnp.full((3,), fill)
        self.x = array
        self.y = array
        self.inner.root = self


class Plain(nnx.Module, pytree=False):
    """A Module that JAX does not know as a pytree."""

    def __init__(self, fill: float = 0.0) -> None:
        self.w = nnx.Param(jnp.full((2,), fill))
        self.layers: list[Any] = [nnx.Param(jnp.full((1,), fill)), {"b": nnx.Param(jnp.full((1,), fill))}]
        self.raw = jnp.full((2,), fill)
        self.rate = 0.5
        self.flag = False
        self.none = None
        self.act = nnx.relu


# Names.


def test_names_are_attributes_in_the_order_of_jax_and_lists_count_as_numbers() -> None:
    m = model()
    names = treeload.names(m)
    assert len(names) == len(jax.tree.leaves(m))
    blocks = [name.split("/")[1] for name in names if name.startswith("blocks")]
    assert list(dict.fromkeys(blocks)) == list(map(str, range(11)))
    assert [name for name in names if not name.startswith("blocks")] == [
        "heads/a/kernel",
        "heads/b/bias",
        "heads/b/kernel",
        "host",
    ]
    assert [name for name in names if name.startswith("blocks/10/")] == [
        "blocks/10/dropout/rngs/count",
        "blocks/10/dropout/rngs/key",
        "blocks/10/linear/bias",
        "blocks/10/linear/kernel",
        "blocks/10/norm/bias",
        "blocks/10/norm/mean",
        "blocks/10/norm/scale",
        "blocks/10/norm/var",
        "blocks/10/scale",
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda r: nnx.Linear(2, 3, rngs=r),
        lambda r: nnx.LSTMCell(2, 3, rngs=r),
        lambda r: nnx.MultiHeadAttention(2, 4, rngs=r),
        lambda r: nnx.Sequential(nnx.Linear(2, 2, rngs=r), nnx.relu, nnx.BatchNorm(2, rngs=r)),
        lambda r: nnx.List([nnx.Param(jnp.ones(1)) for _ in range(12)]),
        lambda r: r,
        lambda r: Model(rngs=r),
    ],
)
def test_slots_are_the_leaves_of_jax_in_their_order(make: Callable[[nnx.Rngs], Any]) -> None:
    m = make(nnx.Rngs(0))
    ours = [value for _, value in walk(m).leaves()]
    assert list(map(id, ours)) == list(map(id, jax.tree.leaves(m)))


def test_names_of_a_module_and_of_its_state_are_the_same() -> None:
    m = model()
    assert set(treeload.names(m)) == set(treeload.names(nnx.state(m)))
    assert treeload.plan(m, nnx.state(m)).ok
    assert treeload.plan(nnx.state(m), m).ok
    assert treeload.plan(m, nnx.to_pure_dict(nnx.state(m))).ok


def test_a_submodule_called_value_keeps_its_name() -> None:
    attention = nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0))
    assert {"value/kernel", "value/bias", "query/kernel"} <= set(treeload.names(attention))
    made = treeload.load(attention, nnx.state(nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(1))))
    assert same(made, nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(1)))


def test_a_linear_without_bias_has_an_absent_slot_there() -> None:
    walked = walk(nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0)))
    assert [name for name, _ in walked.leaves()] == [("kernel",)]


def test_numbers_of_a_module_are_its_configuration() -> None:
    assert treeload.names(Plain()) == ("layers/0", "layers/1/b", "raw", "w")
    made = treeload.load(Plain(), {**treeload.state(Plain(1.0)), "rate": 0.1})
    assert made.rate == 0.5


def test_data_that_is_marked_as_such_loads() -> None:
    class Marked(nnx.Module):
        def __init__(self, fill: float) -> None:
            self.trees: Any = nnx.data([jnp.full((2,), fill), {"x": nnx.Param(jnp.full((1,), fill))}])

    assert treeload.names(Marked(0)) == ("trees/0", "trees/1/x")
    for m in (Marked(0.0), treeload.load(Marked(0.0), Marked(1.0))):
        treeload.update(m, Marked(2.0))
        np.testing.assert_array_equal(m.trees[0], [2, 2])
        np.testing.assert_array_equal(m.trees[1]["x"][...], [2])


# Loading makes a new object.


def test_load_makes_a_new_module_and_leaves_the_old_one() -> None:
    old, src, before = model(0), model(1), model(0)
    made = treeload.load(old, src)
    assert type(made) is Model and made is not old
    assert same(made, src) and same(old, before)
    assert isinstance(made.host, np.ndarray) and not np.shares_memory(made.host, src.host)
    assert made.act is old.act and made.blocks[0].bound == 3
    np.testing.assert_array_equal(made.blocks[3].linear(jnp.ones(2)), src.blocks[3].linear(jnp.ones(2)))


def test_nothing_of_a_result_is_shared_with_the_original() -> None:
    old = model()
    made = treeload.load(old, model(1))
    made.blocks[0].linear.kernel[...] = jnp.full((2, 2), 9.0)
    made.blocks[0].linear.kernel.set_metadata(note="mine")
    made.blocks[0].linear.use_bias = None
    made.blocks.append(nnx.Param(jnp.ones(1)))
    made.heads.c = nnx.Param(jnp.ones(1))
    made.host[:] = 7
    assert same(old, model()) and len(old.blocks) == 11 and "c" not in vars(old.heads)
    assert "note" not in old.blocks[0].linear.kernel.get_metadata()
    assert old.blocks[0].linear.use_bias is True


@pytest.mark.parametrize("make", [Tied, Plain, model, lambda: nnx.Rngs(0, params=1)])
def test_a_result_has_the_graph_of_the_destination(make: Callable[[], Any]) -> None:
    m = make()
    made = treeload.load(m, m)
    assert nnx.graphdef(made) == nnx.graphdef(m)
    if isinstance(m, nnx.Module):
        assert same(made, m)


def test_shared_variables_stay_shared() -> None:
    assert treeload.names(Tied()) == ("embed", "x")
    made = treeload.load(Tied(), {"head": jnp.ones(2), "y": jnp.ones(3)})
    assert made.embed is made.head is made.inner.again
    assert made.x is made.y
    assert made.inner.root is made
    np.testing.assert_array_equal(made.embed[...], [1, 1])


def test_a_tied_model_loads_from_any_of_its_names_and_from_a_state() -> None:
    for src in ({"inner": {"again": jnp.ones(2)}, "x": jnp.ones(3)}, nnx.state(Tied(1.0)), Tied(1.0)):
        made = treeload.load(Tied(), src)
        np.testing.assert_array_equal(made.head[...], [1, 1])
    plan = treeload.plan(Tied(), Tied(1.0))
    assert plan["inner/again"] is plan["embed"]
    assert list(map(str, plan["embed"].aliases)) == ["head", "inner/again"]


def test_two_variables_that_hold_one_array_are_two_leaves() -> None:
    array = jnp.zeros(2)
    m = nnx.Dict(a=nnx.Param(array), b=nnx.Param(array))
    assert treeload.names(m) == ("a", "b")
    made = treeload.load(m, {"a": jnp.ones(2), "b": jnp.full(2, 2.0)})
    assert made.a[0] == 1 and made.b[0] == 2


def test_a_variable_shared_by_two_modules_of_a_dict_stays_shared() -> None:
    one = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    tree = {"model": one, "also": nnx.Dict(kernel=one.kernel), "kernel": one.kernel}
    made = treeload.load(tree, {"model": nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(1)))})
    assert made["model"].kernel is made["also"].kernel is made["kernel"] is not one.kernel
    assert same(made["model"], nnx.Linear(2, 2, rngs=nnx.Rngs(1)))
    assert same(one, nnx.Linear(2, 2, rngs=nnx.Rngs(0)))


def test_a_state_keeps_its_kind_and_its_variables_their_metadata() -> None:
    m = nnx.Linear(
        2, 2, kernel_init=nnx.with_metadata(nnx.initializers.zeros_init(), tag="x"), rngs=nnx.Rngs(0)
    )
    old: Any = nnx.state(m)
    made = treeload.load(old, {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
    assert type(made) is nnx.State and type(made["kernel"]) is nnx.Param
    assert made["kernel"].get_metadata("tag") == "x"
    assert treeload.load(m, made).kernel.get_metadata("tag") == "x"
    np.testing.assert_array_equal(old["kernel"][...], np.zeros((2, 2)))
    made["kernel"].set_metadata(tag="y")
    assert old["kernel"].get_metadata("tag") == "x"


def test_hooks_of_variables_are_not_run() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flax would rather have methods than hooks
        variable = nnx.Param(
            jnp.zeros(2), on_get_value=lambda v, x: x + 100, on_set_value=lambda v, x: x + 1000
        )
    np.testing.assert_array_equal(treeload.state({"v": variable})["v"], [0, 0])
    made = treeload.load({"v": variable}, {"v": jnp.ones(2)})["v"]
    np.testing.assert_array_equal(made.get_raw_value(), [1, 1])
    treeload.update(variable, jnp.full(2, 3.0))
    np.testing.assert_array_equal(variable.get_raw_value(), [3, 3])


def test_a_variable_that_holds_a_tree_is_filled_leaf_by_leaf() -> None:
    m = nnx.Dict(v=nnx.Variable({"a": jnp.zeros(2), "n": 0, "act": None}))
    src = {"v": {"a": jnp.ones(2), "n": 4}}
    assert treeload.load(m, src).v.get_raw_value()["n"] == 4
    treeload.update(m, src)
    np.testing.assert_array_equal(m.v.get_raw_value()["a"], [1, 1])
    assert m.v.get_raw_value().keys() == {"a", "n", "act"}


def test_a_mutable_array_is_written_into() -> None:
    m = nnx.Dict(v=nnx.Param(jnp.zeros(2), ref=True))
    reference = m.v.get_raw_value()
    treeload.update(m, {"v": jnp.ones(2)})
    assert m.v.get_raw_value() is reference
    np.testing.assert_array_equal(reference[...], [1, 1])
    made = treeload.load(m, {"v": jnp.full(2, 5.0)})
    np.testing.assert_array_equal(made.v[...], [5, 5])
    np.testing.assert_array_equal(reference[...], [1, 1])


# What a checkpoint may lack.


def test_state_of_generators_and_caches_is_optional() -> None:
    m = model()
    lacking = treeload.state(nnx.state(m, nnx.Not(nnx.RngState)))
    plan = treeload.plan(m, lacking)
    assert plan.ok
    assert plan["blocks/0/dropout/rngs/count"].optional
    assert plan["blocks/0/dropout/rngs/count"].action == "keep"
    assert not plan["blocks/0/norm/mean"].optional
    assert same(plan.load(), m)


@pytest.mark.parametrize("kind", [nnx.Cache, nnx.Intermediate, nnx.RngCount])
def test_optional_variables_load_where_the_source_has_them(kind: Any) -> None:
    metadata = {"tag": "t"} if kind is nnx.RngCount else {}
    m = nnx.Dict(w=nnx.Param(jnp.zeros(1)), c=kind(jnp.zeros(1), **metadata))
    assert treeload.load(m, {"w": jnp.ones(1)}).c[0] == 0
    assert treeload.load(m, {"w": jnp.ones(1), "c": jnp.ones(1)}).c[0] == 1
    assert not treeload.plan(m, {"w": jnp.ones(1), "c": jnp.ones(2)}).ok


def test_batch_statistics_are_not_optional() -> None:
    plan = treeload.plan(nnx.BatchNorm(2, rngs=nnx.Rngs(0)), {"scale": jnp.ones(2), "bias": jnp.ones(2)})
    assert [str(finding) for finding in plan.errors] == [
        "missing mean: the source has nothing here", "missing var: the source has nothing here",
    ]  # fmt: skip


# Abstract modules.


def abstract(make: Callable[[], Any]) -> Any:
    return nnx.clone(shapes_of(make))


@functools.cache  # because Flax cannot do it twice to a Module with such arrays
def shapes_of(make: Callable[[], Any]) -> Any:
    return nnx.eval_shape(make)


def test_an_abstract_module_has_all_the_leaves_of_a_concrete_one() -> None:
    """Flax leaves a dead tracer where an attribute is an array and no Variable; it is a leaf all the same."""
    concrete, shapes = model(), abstract(model)
    assert treeload.names(shapes) == treeload.names(concrete)
    entries = treeload.plan(shapes, concrete).entries
    assert [(e.spec.shape, e.spec.dtype) for e in entries] == [
        (e.spec.shape, e.spec.dtype) for e in treeload.plan(concrete, concrete).entries
    ]


def test_an_abstract_module_becomes_a_whole_one() -> None:
    src = model(1)
    made = treeload.load(abstract(model), src)
    assert all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(made))
    structure: Any = jax.tree.structure(made)
    assert structure == jax.tree.structure(src)
    assert same(made, src)
    assert isinstance(made.blocks[0].scale, jax.Array)


def test_an_abstract_module_can_be_filled_in_place() -> None:
    m, src = abstract(model), model(1)
    treeload.update(m, src)
    assert same(m, src)
    np.testing.assert_array_equal(m.blocks[2].scale, src.blocks[2].scale)


def test_an_array_attribute_that_is_kept_comes_from_init() -> None:
    src = treeload.state(model(1))
    for block in src["blocks"].values():
        del block["scale"]
    policy = Policy(missing={"**/scale": "keep"})
    plan = treeload.plan(abstract(model), src, policy=policy)
    assert {finding.kind for finding in plan.errors} == {"abstract"}
    made = plan.load(init=model)
    np.testing.assert_array_equal(made.blocks[4].scale, np.ones(2))
    assert treeload.names(made) == treeload.names(model())


def test_abstract_modules_without_pytree_and_with_cycles_become_whole() -> None:
    for make in (Plain, Tied):
        made = treeload.load(abstract(make), make(1.0))
        assert treeload.names(made) == treeload.names(make())
        assert all(np.all(np.asarray(leaf) == 1) for leaf in jax.tree.leaves(treeload.state(made)))


def test_a_refused_update_leaves_an_abstract_module_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    m = abstract(model)
    before = [(name, type(value)) for name, value in vars(m.blocks[0]).items()]
    flags = dict(m.blocks[0]._pytree__nodes)
    monkeypatch.setattr(nnx.Param, "set_raw_value", refuse_after(5, nnx.Param.set_raw_value))
    with pytest.raises(TreeloadError, match="refused"):
        treeload.update(m, model(1))
    assert [(name, type(value)) for name, value in vars(m.blocks[0]).items()] == before
    assert dict(m.blocks[0]._pytree__nodes) == flags
    assert isinstance(m.blocks[0].linear.kernel.get_raw_value(), jax.ShapeDtypeStruct)


# Updating in place.


def refuse_after(count: int, original: Callable[..., None]) -> Callable[..., None]:
    """``original`` that works so many times, fails once, and then works again."""
    left = iter([True] * count + [False])

    def refusing(self: Any, value: Any, **how: Any) -> None:
        if not next(left, True):
            raise RuntimeError("no more")
        original(self, value, **how)

    return refusing


def test_update_writes_into_the_very_objects() -> None:
    m, src = model(0), model(1)
    kernel, block = m.blocks[0].linear.kernel, m.blocks[0]
    assert treeload.update(m, src) is None  # type: ignore[func-returns-value]
    assert m.blocks[0] is block and block.linear.kernel is kernel
    assert same(m, src)
    assert m.host is not src.host


def test_update_of_shared_variables_and_cycles() -> None:
    m = Tied()
    embed = m.embed
    treeload.update(m, {"embed": jnp.ones(2), "x": jnp.ones(3)})
    assert m.embed is m.head is m.inner.again is embed
    assert m.x is m.y and m.inner.root is m
    np.testing.assert_array_equal(m.head[...], [1, 1])
    np.testing.assert_array_equal(m.y, [1, 1, 1])


def test_update_of_a_module_that_is_no_pytree() -> None:
    m = Plain()
    treeload.update(m, Plain(1.0))
    assert m.w[0] == 1 and m.layers[0][0] == 1 and m.layers[1]["b"][0] == 1 and m.raw[0] == 1
    assert m.rate == 0.5 and m.flag is False and m.none is None


def test_update_leaves_what_is_kept_as_it_is() -> None:
    m = model()
    assert m.blocks[0].linear.bias is not None
    host, bias = m.host, m.blocks[0].linear.bias.get_raw_value()
    treeload.update(m, {}, policy=Policy(missing="keep"))
    assert m.host is host and m.blocks[0].linear.bias.get_raw_value() is bias
    treeload.update(m, treeload.state(model(1)), scope="heads/**")
    assert m.blocks[0].linear.bias.get_raw_value() is bias
    assert same(m.heads.a, model(1).heads.a)


def test_update_reaches_an_optimizer_and_its_step() -> None:
    def trained(steps: int) -> tuple[nnx.Module, nnx.Optimizer[Any]]:
        m = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(m, optax.adam(0.1), wrt=nnx.Param)
        for _ in range(steps):
            optimizer.update(m, jax.tree.map(jnp.ones_like, nnx.state(m, nnx.Param)))
        return m, optimizer

    (new, fresh), (old, used) = trained(0), trained(3)
    treeload.update(fresh, nnx.state(used))
    treeload.update(new, old)
    assert fresh.step[...] == 3
    for m, optimizer in ((new, fresh), (old, used)):
        optimizer.update(m, jax.tree.map(jnp.ones_like, nnx.state(m, nnx.Param)))
    assert same(new, old)
    assert set(treeload.names(fresh)) == {
        "step", "opt_state/0/count", "opt_state/0/mu/kernel", "opt_state/0/mu/bias",
        "opt_state/0/nu/kernel", "opt_state/0/nu/bias",
    }  # fmt: skip
    assert treeload.load(fresh, trained(3)[1]).step[...] == 3


@pytest.mark.parametrize(
    "tree", [{"w": jnp.zeros(2)}, [nnx.Param(jnp.zeros(2))], nnx.State({}), jnp.zeros(2)]
)
def test_what_cannot_be_updated_in_place_is_a_type_error(tree: Any) -> None:
    with pytest.raises(TypeError, match="in place"):
        treeload.update(tree, {})


def test_a_variable_can_be_updated() -> None:
    variable = nnx.Param(jnp.zeros(2))
    treeload.update(variable, nnx.Param(jnp.ones(2)))
    np.testing.assert_array_equal(variable[...], [1, 1])


# All or nothing.


@pytest.mark.parametrize("count", [0, 1, 20, 47])
def test_an_assignment_that_fails_in_the_middle_undoes_the_others(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, src = model(0), model(1)
    host, scale = m.host, m.blocks[0].scale
    monkeypatch.setattr(nnx.Variable, "set_raw_value", refuse_after(count, nnx.Variable.set_raw_value))
    with pytest.raises(TreeloadError, match="Model refused.*no more") as caught:
        treeload.update(m, src)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert same(m, model(0)) and m.host is host and m.blocks[0].scale is scale


@pytest.mark.parametrize("count", [0, 1, 3])
def test_variables_alone_are_undone_too(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    m = nnx.List([nnx.Param(jnp.zeros(1)) for _ in range(5)])
    monkeypatch.setattr(nnx.Variable, "set_raw_value", refuse_after(count, nnx.Variable.set_raw_value))
    with pytest.raises(TreeloadError, match="no more"):
        treeload.update(m, [jnp.ones(1)] * 5)
    assert all(param[0] == 0 for param in m)


def test_an_update_under_another_trace_is_refused_and_undone() -> None:
    m = nnx.Dict(v=nnx.Param(jnp.zeros(1), ref=True), w=nnx.Param(jnp.zeros(1)))

    @jax.jit
    def inside(x: jax.Array) -> jax.Array:
        with pytest.raises(TreeloadError, match="refused"):
            treeload.update(nnx.Dict(w=m.w), {"w": np.ones(1, np.float32)})
        return x

    inside(jnp.ones(1))
    assert m.w[0] == 0


@pytest.mark.parametrize(
    ("src", "said"),
    [
        ({"heads": {}}, "missing +blocks"),
        ({"kernel": 1.0}, "unexpected +kernel"),
        ("broken source", "the disk is gone"),
    ],
)
def test_any_error_leaves_the_object_untouched(src: Any, said: str) -> None:
    class Broken(Source):
        def specs(self) -> Any:
            return {Name(name): jax.ShapeDtypeStruct(v.shape, v.dtype) for name, v in walk(model(1)).leaves()}

        def read(self, requests: Any) -> Any:
            for number, (name, spec) in enumerate(requests.items()):
                if number == 30:
                    raise OSError("the disk is gone")
                yield (
                    name,
                    jnp.zeros(spec.shape, spec.dtype)
                    if isinstance(spec.dtype, np.dtype)
                    else jax.random.key(1),
                )

    m = model()
    with pytest.raises((LoadError, SourceError), match=said):
        treeload.update(m, Broken() if src == "broken source" else src)
    assert same(m, model())


def test_a_value_check_that_fails_changes_nothing() -> None:
    m = nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0))
    src = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    with pytest.raises(LoadError) as caught:
        treeload.update(m, src, policy=Policy(absent_is_zero=treeload.BIAS))
    assert [finding.kind for finding in caught.value.findings] == ["absent"]
    assert same(m, nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0)))
    treeload.update(m, {**src, "bias": -jnp.zeros(2)}, policy=Policy(absent_is_zero=treeload.BIAS))
    assert m.bias is None and m.kernel[0, 0] == 1


def test_donate_frees_what_was_replaced_and_no_more() -> None:
    m, src = model(), model(1)
    assert m.heads.b.bias is not None
    kernel, bias = m.heads.b.kernel.get_raw_value(), m.heads.b.bias.get_raw_value()
    treeload.update(m.heads.b, {"kernel": src.heads.b.kernel}, policy=Policy(missing="keep"), donate=True)
    assert kernel.is_deleted() and not bias.is_deleted()
    assert same(m.heads.b.kernel, src.heads.b.kernel)


@pytest.mark.parametrize("wrap", [dict, nnx.Dict])
def test_typed_keys_survive_donation_of_keys_that_share_their_memory(wrap: Any) -> None:
    key = jax.random.key(3)
    twin = jax.random.wrap_key_data(jax.random.key_data(key))
    made = treeload.load(wrap(k=key), {"k": twin}, donate=True)
    assert made is not None
    jax.random.bits(twin)
    jax.random.bits(made["k"])
