"""Wrong arguments are a TypeError that says what was given and what to write (C4), also inside jit (C7)."""

from __future__ import annotations

import functools
import inspect
import io
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import From, Policy
from treeload._sources import options


class MyModel(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.Linear(2, 2, rngs=rngs)


def tree() -> dict[str, Any]:
    return {"w": jnp.zeros(2)}


def function() -> None:
    raise AssertionError("it is never called")


NO_TREES = {
    "a class": (nnx.Linear, r"the class Linear.*Linear\(\.\.\.\)"),
    "a class of one's own": (MyModel, r"the class MyModel.*eval_shape"),
    "a function": (function, "the function function.*what it returns"),
    "a method": (MyModel(nnx.Rngs(0)).eval, "the function eval"),
    "a jitted function": (jax.jit(function), "the function function"),
    "None": (None, "is None: give a model"),
    "False": (False, "is False"),
    "a GraphDef": (nnx.graphdef(nnx.Linear(2, 2, rngs=nnx.Rngs(0))), r"GraphDef.*nnx\.split"),
    "a Linen module": (nn.Dense(3), r"Linen module Dense.*module\.init"),
    "a structure": (jax.tree.structure({"a": 1}), "structure of a tree"),
    "an object": (object(), "object, which is no tree"),
}
no_trees = pytest.mark.parametrize(("given", "says"), NO_TREES.values(), ids=NO_TREES)


@no_trees
@pytest.mark.parametrize("verb", ["plan", "load", "update"])
def test_a_destination_that_is_no_tree_is_said(given: Any, says: str, verb: str) -> None:
    with pytest.raises(TypeError, match=f"{verb}'s destination (?s:.*){says}"):
        getattr(treeload, verb)(given, tree())


@no_trees
def test_a_tree_that_is_only_read_is_looked_at_too(given: Any, says: str, tmp_path: Path) -> None:
    for verb, act in {
        "state": treeload.state,
        "names": treeload.names,
        "save": lambda x: treeload.save(tmp_path / "ckpt", x),
        "export": lambda x: treeload.export(tmp_path / "ckpt", x),
    }.items():
        with pytest.raises(TypeError, match=f"{verb}'s tree (?s:.*){says}"):
            act(given)
    assert not list(tmp_path.iterdir())


@no_trees
def test_a_source_that_is_none_is_said(given: Any, says: str) -> None:
    for verb, act in {
        "plan": lambda x: treeload.plan(tree(), x),
        "load": lambda x: treeload.load(tree(), treeload.From(x)),
        "update": lambda x: treeload.update(nnx.Param(jnp.zeros(2)), x),
        "inspect": treeload.inspect,
        "diff": lambda x: treeload.diff(tree(), x),
        "average": lambda x: treeload.average([tree(), x]),
        "initializer": lambda x: treeload.initializer(x, "w"),
    }.items():
        with pytest.raises(TypeError, match=f"{verb}'s source (?s:.*){says.partition(':')[0]}"):
            act(given)


@no_trees
def test_resume_looks_at_its_destination_before_it_looks_for_checkpoints(
    given: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=f"resume's destination (?s:.*){says}"):
        treeload.resume(given, tmp_path / "none", otherwise=function)


@pytest.mark.parametrize("path", ["ckpts/vit", Path("ckpts/vit"), b"ckpts"])
def test_swapped_arguments_are_said(path: Any) -> None:
    for verb in ("plan", "load", "update"):
        with pytest.raises(TypeError, match=rf"{verb}\(destination, source\).*path first.*tree comes first"):
            getattr(treeload, verb)(path, tree())
    for verb in ("save", "export"):
        with pytest.raises(TypeError, match=rf"{verb}\(path, tree\) was given a dict first"):
            getattr(treeload, verb)(tree(), path)


def test_a_path_or_a_source_is_no_destination() -> None:
    with pytest.raises(TypeError, match="destination is a path"):
        treeload.plan("a", "b")
    with pytest.raises(TypeError, match=r"was given a From first.*load\(tree, From"):
        treeload.load(treeload.From("a"), tree())
    for verb in (treeload.names, treeload.state):
        with pytest.raises(TypeError, match="inspect"):
            verb("ckpts/vit")
    with pytest.raises(TypeError, match="an empty text"):
        treeload.plan(tree(), "")


@pytest.mark.parametrize("module", [nnx.Dropout(0.1), eqx.nn.Identity(), nnx.Module()])
def test_a_module_without_parameters_is_said(module: Any) -> None:
    with pytest.raises(TypeError, match=f"{type(module).__name__}, has no parameters"):
        treeload.plan(module, tree())


@pytest.mark.parametrize(
    "good", [tree(), jnp.zeros(2), 1.5, True, [], {}, {"f": len}, nnx.Param(jnp.zeros(2))]
)
def test_what_is_a_tree_is_not_refused(good: Any) -> None:
    assert treeload.plan(good, good).ok
    treeload.names(good)


@pytest.mark.parametrize("number", [20, 1.5, True, From(20)])
def test_a_number_is_no_source_of_a_whole_tree(number: Any) -> None:
    for verb in ("plan", "load"):
        with pytest.raises(TypeError, match=f"{verb}'s source is the number .*: give a path as str or Path"):
            getattr(treeload, verb)(tree(), number)
    assert treeload.plan({"step": 0, "w": 1.0}, [From(3, into="step"), From(4.0, into="w")]).ok


@pytest.mark.parametrize(
    ("given", "says"),
    [(None, "None"), (b"a", "bytes"), (io.BytesIO(), "an open file"), (20, "a int"), ({}, "a dict")],
)
def test_what_is_opened_is_a_path(given: Any, says: str) -> None:
    for verb in (treeload.open, treeload.verify, treeload.digest):
        with pytest.raises(TypeError, match=rf"{verb.__name__}\(path\) takes .* not {says}: give it as str"):
            verb(given)
    for write in (treeload.save, treeload.export):
        with pytest.raises(TypeError, match="path"):
            write(given, tree())


# Options that there are not.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"strict": False}, r"no strict=: what may be missing is said by name, policy=Policy\(missing=\{"),
        ({"partial": True}, r"no partial=: what may be missing"),
        ({"missing": "keep"}, r"no missing=: it is said by the policy, policy=Policy\(missing=\.\.\.\)"),
        ({"subtree": "a"}, r"no subtree=: it is said of the source, From\(src, subtree=\.\.\.\)"),
        ({"rename": {}}, r"no rename=: .* rules=\[Rename"),
        ({"filter": "a"}, "no filter=: .*scope="),
        ({"rule": ()}, "no rule=: it is said by the policy"),
        ({"polcy": ()}, r"no polcy=: did you mean policy=\?"),
        ({"zzz": 1}, "no zzz=: it has rules=, policy=, scope=, history=, init=, donate="),
        ({"step": 15}, r"no step=: a step is opened by its own path, such as 'mgr/15'"),
        ({"init": None, "strict": True}, "no strict="),
    ],
)
def test_an_option_that_there_is_not_says_what_to_write(options: Any, says: str) -> None:
    with pytest.raises(TypeError, match=rf"^load\(\) has {says}"):
        treeload.load(tree(), {"other": 1}, **options)
    with pytest.raises(TypeError, match=rf"^update\(\) has {says}"):
        treeload.update(nnx.Param(jnp.zeros(2)), tree(), **options)


def test_an_update_has_no_sharding() -> None:
    with pytest.raises(TypeError, match=r"^update\(\) has no sharding=: values go to where"):
        treeload.update(nnx.Param(jnp.zeros(2)), np.ones(2, np.float32), sharding=None)
    assert treeload.load(tree(), {"w": np.ones(2, np.float32)}, sharding=None)["w"].sum() == 2


def test_a_from_says_what_it_has_not_and_keeps_its_signature() -> None:
    with pytest.raises(TypeError, match=r"^From\(\) has no step=: .* path, such as 'run/15'$"):
        From("run", step=15)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no subtre=: did you mean subtree=\?"):
        From(src={}, subtre="a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no policy=: a policy is given to plan, load or update"):
        From({}, policy=Policy())  # type: ignore[call-arg]
    assert list(inspect.signature(From).parameters)[:3] == ["src", "subtree", "into"]


def test_the_words_know_every_setting_of_a_policy_and_every_option_of_a_from() -> None:
    assert {*options.OF_POLICY, "version"} == {*inspect.signature(Policy).parameters}
    assert {*options.OF_SOURCE, "src", "rules"} == {*inspect.signature(From).parameters}


# What makes the leaves that are kept and abstract.


@pytest.mark.parametrize(
    ("init", "says"),
    [
        (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "not a Linear"),
        (nn.Dense(3), "not a Dense"),
        (eqx.nn.Linear(2, 3, key=jax.random.key(0)), "Linear asks for some .*'x'.*init=lambda"),
        ({"w": 1}, "not a dict"),
        (lambda key: key, r"<lambda> asks for some \(missing a required argument: 'key'\)"),
    ],
)
def test_init_is_a_function_that_makes_the_tree(init: Any, says: str) -> None:
    plan = treeload.plan(nnx.Param(jnp.zeros(2)), np.ones(2, np.float32))
    for carry_out in (plan.load, plan.update):
        with pytest.raises(TypeError, match=f"^init is .*{says}"):
            carry_out(init=init)


@pytest.mark.parametrize(
    "init", [tree, jax.jit(tree), eqx.filter_jit(tree), functools.partial(dict, w=jnp.zeros(2)), dict]
)
def test_whatever_is_called_without_arguments_may_be_init(init: Any) -> None:
    assert treeload.plan(tree(), {"w": np.ones(2, np.float32)}).load(init=init)["w"].sum() == 2


# C7: inside of jit.


@pytest.mark.parametrize(
    "act",
    [
        lambda x: treeload.load({"w": x}, {"w": np.zeros(2, np.float32)}),
        lambda x: treeload.load(tree(), {"w": x}),
        lambda x: treeload.load({"v": nnx.Param(x)}, {"v": np.zeros(2, np.float32)}),
        lambda x: treeload.plan([(x,)], [(x,)]),
        lambda x: treeload.update(nnx.Param(x), np.zeros(2, np.float32)),
        lambda x: treeload.save("never", {"w": x}),
        lambda x: treeload.diff(tree(), {"w": x}),
        lambda x: treeload.average([{"w": x}]),
        lambda x: treeload.export("never", {"w": x}),
    ],
)
@pytest.mark.parametrize("transform", [jax.jit, jax.eval_shape, jax.vmap, jax.grad], ids=lambda f: f.__name__)
def test_what_is_traced_is_said(act: Any, transform: Any) -> None:
    def run(x: Any) -> Any:
        act(x)
        return x.sum()

    traced = functools.partial(jax.eval_shape, run) if transform is jax.eval_shape else transform(run)
    with pytest.raises(TypeError, match="outside of jit"):
        traced(jnp.zeros((2, 2)) if transform is jax.vmap else jnp.zeros(2))


def test_in_jit_it_is_said_what_to_do_outside() -> None:
    for verb, act in {
        "save": lambda x: treeload.save("never", {"w": x}),
        "export": lambda x: treeload.export("never", {"w": x}),
    }.items():
        with pytest.raises(TypeError, match=f"return it from the function, and {verb} outside of jit"):
            jax.jit(act)(jnp.zeros(2))
    with pytest.raises(TypeError, match="load outside of jit first, then pass the loaded tree in"):
        jax.jit(lambda x: treeload.load({"w": x}, tree()))(jnp.zeros(2))


def test_names_and_states_are_given_inside_of_jit_too() -> None:
    @jax.jit
    def total(params: Any) -> Any:
        assert treeload.names(params) == ("w",)
        return treeload.state(params)["w"].sum()

    assert total({"w": jnp.ones(3)}) == 3


def test_what_a_jitted_function_does_not_trace_loads_inside_of_it() -> None:
    @jax.jit
    def run(x: Any) -> Any:
        return x + treeload.load({"w": np.zeros(2, np.float32)}, {"w": np.ones(2, np.float32)})["w"]

    assert run(jnp.zeros(2)).tolist() == [1, 1]
