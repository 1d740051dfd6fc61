"""Arrays inside of what JAX does not know as a tree (A10), and arrays that it cannot hold (A15): said."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import treeload
from treeload import SaveError
from treeload._trees.hidden import why_altered, why_hidden


def array(fill: float = 0.0) -> np.ndarray[Any, Any]:
    return np.full(2, fill, np.float32)


@dataclasses.dataclass
class Layer:
    w: Any


class Plain:
    def __init__(self, held: Any) -> None:
        self.held = held


class Slots:
    __slots__ = ("w",)

    def __init__(self, w: Any) -> None:
        self.w = w


class OwnDict(dict[str, Any]):
    pass


class OwnList(list[Any]):
    pass


class Callable_:
    """As a layer of Penzai: it can be called, and is no function."""

    def __init__(self, w: Any) -> None:
        self.w = w

    def __call__(self, x: Any) -> Any:
        return x


class Tensor:
    """As PyTorch's: an array with a dtype of its own."""

    shape, dtype = (2,), "torch.float32"

    def __array__(self, *_: Any, **__: Any) -> Any:
        return array()


def matrix() -> Any:
    with warnings.catch_warnings(action="ignore"):  # NumPy's, that nobody should use it
        return np.matrix([1.0])


HIDDEN = {
    "dataclass": (lambda: Layer(array()), "register_dataclass"),
    "object": (lambda: Plain(array()), "register_pytree_with_keys"),
    "deep": (lambda: Plain({"a": [Plain(jnp.zeros(2))]}), r"x\.held\['a'\]\[0\]\.held"),
    "slots": (lambda: Slots(array()), r"x\.w"),
    "spec": (lambda: Plain(jax.ShapeDtypeStruct((2,), np.float32)), "register"),
    "ref": (lambda: Plain(jax.new_ref(jnp.zeros(2))), "register"),
    "dict": (lambda: OwnDict(w=array()), r"dict\(x\)"),
    "proxy": (lambda: types.MappingProxyType({"w": array()}), r"dict\(x\)"),
    "UserDict": (lambda: collections.UserDict(w=array()), r"dict\(x\)"),
    "list": (lambda: OwnList([array()]), "register"),
    "set": (lambda: {Plain(array())}, r"list\(x\)"),
    "callable": (lambda: Callable_(array()), "register"),
    "tensor": (Tensor, r"np\.asarray"),
    "bound": (lambda: nn.Dense(2).bind({"params": {"kernel": jnp.zeros((1, 2))}}), "register"),
}
LOST = {
    "text": (lambda: np.array(["a", "b"]), "text"),
    "objects": (lambda: np.array([None, 1]), "objects"),
    "dates": (lambda: np.array(["2020"], "datetime64[D]"), "dates"),
    "durations": (lambda: np.array([1], "timedelta64[s]"), "durations"),
    "a date": (lambda: np.datetime64("2020"), "dates"),
    "records": (lambda: np.zeros(2, [("a", "f4")]), "records"),
    "bytes": (lambda: np.array([b"a"]), "bytes"),
    "masked": (lambda: np.ma.masked_array([1.0, 2.0], [True, False]), "mask"),
    "matrix": (lambda: matrix(), "matrix"),
}
BOTH = HIDDEN | LOST
each = pytest.mark.parametrize(("make", "says"), BOTH.values(), ids=BOTH)


@each
def test_a_destination_that_holds_it_is_refused_by_name(make: Any, says: str) -> None:
    with pytest.raises(TypeError, match=f"destination(?s:.*)deep/er: (?s:.*){says}"):
        treeload.plan({"deep": {"er": make()}, "w": array()}, {"w": array()})


@each
def test_a_source_that_holds_it_is_refused_by_name_or_read_as_the_dict_that_it_is(
    make: Any, says: str
) -> None:
    dst, src = {"x": {"w": array()}}, {"x": make()}
    if says == r"dict\(x\)":
        assert treeload.load(dst, src)["x"]["w"].tolist() == [0, 0]
        return
    with pytest.raises(TypeError, match=f"source(?s:.*)x: (?s:.*){says}"):
        treeload.plan(dst, src)


@each
def test_save_names_it_or_writes_the_dict_that_it_is(make: Any, says: str, tmp_path: Any) -> None:
    if says == r"dict\(x\)":
        treeload.save(tmp_path / "ckpt", {"x": make()})
        assert treeload.load({"x": {"w": array(5)}}, tmp_path / "ckpt")["x"]["w"].tolist() == [0, 0]
        return
    with pytest.raises(SaveError, match=f"x: (?s:.*){says}"):
        treeload.save(tmp_path / "ckpt", {"x": make(), "w": array()})
    assert not (tmp_path / "ckpt").exists()


def test_a_mapping_at_the_root_is_a_source_and_no_destination() -> None:
    assert treeload.load({"w": array()}, OwnDict(w=array(1)))["w"].tolist() == [1, 1]
    with pytest.raises(TypeError, match=r"dict\(x\)"):
        treeload.plan(OwnDict(w=array()), {"w": array()})


def test_all_of_them_are_said_at_once() -> None:
    with pytest.raises(TypeError, match=r"a: (?s:.*)b: (?s:.*)and 2 more"):
        treeload.plan({key: Plain(array()) for key in "abcdefg"}, {})


@pytest.mark.parametrize("held", [matrix(), np.ma.masked_array([1.0])])
def test_a_variable_that_holds_one_is_refused_too(held: Any) -> None:
    with pytest.raises(TypeError, match="would be lost"):
        treeload.plan({"v": nnx.Variable(held)}, {})


@pytest.mark.parametrize(
    "static",
    [
        "text", b"bytes", len, lambda x: x, jax.nn.relu, nn.Dense(3), optax.adam, Plain("config"),
        Plain(None), Plain(np.array(["a"])), OwnDict(lr=0.1), np.dtype("f4"), np.float32, np.str_("x"), types,
        Plain, functools.partial(jnp.add, array()), jax.jit(len), range(3), object(), slice(1),
        frozenset({1}), jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)),
        jax.devices()[0],
        jax.sharding.SingleDeviceSharding(jax.devices()[0]), jax.tree.structure({"a": 1}),
    ],
    ids=lambda static: type(static).__name__,
)  # fmt: skip
def test_what_holds_no_array_is_a_static(static: Any) -> None:
    assert why_hidden(static) == ""
    made = treeload.load({"w": array(), "s": static}, {"w": array(1)})
    assert made["s"] is static


def test_no_property_is_evaluated() -> None:
    class Lazy:
        @property
        def w(self) -> Any:
            raise AssertionError

        def __getattr__(self, name: str) -> Any:
            raise AssertionError

    assert why_hidden(Lazy()) == ""
    assert why_hidden(Plain(Lazy())) == ""


def test_a_ring_and_a_large_object_come_to_an_end() -> None:
    ring = Plain(None)
    ring.held = [ring, ring]
    assert why_hidden(ring) == ""
    assert why_hidden(Plain(list(range(10**6)))) == ""


def test_a_memory_map_is_an_array_like_any_other(tmp_path: Any) -> None:
    np.save(tmp_path / "w.npy", array(3))
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    assert why_altered(mapped) == ""
    assert treeload.load({"w": array()}, {"w": mapped})["w"].tolist() == [3, 3]


# A destination of no leaves.


@pytest.mark.parametrize("dst", [{}, [], {"x": None}, {"act": len}])
def test_a_destination_of_no_leaves_is_never_all_loaded(dst: Any) -> None:
    plan = treeload.plan(dst, {"w": array()})
    assert plan.coverage == 0 and not plan.ok
    assert plan.summary().startswith("the destination has no leaves") and "100 %" not in str(plan)


def test_leaves_of_no_elements_are_counted_as_leaves() -> None:
    none, other = np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    assert treeload.plan({"w": none}, {"w": none}).coverage == 1
    kept = treeload.plan({"w": none, "b": other}, {"w": none}, policy=treeload.Policy(missing="keep"))
    assert kept.coverage == 1 and "1 of 2 leaves load" in kept.summary()
