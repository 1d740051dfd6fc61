"""A plan carried out: all of it or nothing, and what comes out belongs to the user."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

import treeload
from treeload import (
    BIAS,
    Apply,
    Concat,
    LoadError,
    Policy,
    Rename,
    Reshape,
    SourceError,
    Stack,
    Transpose,
    TreeloadError,
)
from treeload._leaves.spec import Spec, without_sharding
from treeload._loading import progress
from treeload._naming.name import Name
from treeload._sources.source import Source


class Held(Source):
    """Arrays by name, given away as they are. Notes what was asked for; can be told to misbehave."""

    label = "held arrays"

    def __init__(self, **arrays: Any) -> None:
        self.arrays = {Name.parse(name.replace("__", "/")): array for name, array in arrays.items()}
        self.asked: list[Mapping[Name, Spec]] = []

    def specs(self) -> Mapping[Name, Spec]:
        return {name: without_sharding(array) for name, array in self.arrays.items()}

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        self.asked.append(dict(requests))
        for name in requests:
            yield name, self.arrays[name]


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


def zeros(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


# What is read.


def test_planning_reads_nothing_and_loading_reads_exactly_the_plan() -> None:
    source = Held(a=ones(2), b=ones(3), old=ones(4))
    policy = Policy(unexpected="ignore", missing="keep")
    plan = treeload.plan({"a": zeros(2), "b": spec(3), "c": zeros(1)}, source, policy=policy)
    assert plan.ok and source.asked == []
    plan.load()
    assert [set(map(str, requests)) for requests in source.asked] == [{"a", "b"}]


def test_requests_repeat_the_leafs_own_spec_and_say_where_it_is_wanted() -> None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[-1])
    there, too = jax.device_put((zeros(2), zeros(2)), sharding)
    source = Held(a=ones(2), b=ones(2).astype(np.float16), c=ones(2))
    treeload.load({"a": there, "b": too, "c": jnp.zeros(2)}, source)
    (requests,) = source.asked
    assert {str(name): (request.dtype, request.sharding) for name, request in requests.items()} == {
        "a": (np.float32, sharding),
        "b": (np.float16, None),  # it is cast on the host first
        "c": (np.float32, None),
    }


def test_a_plan_may_be_loaded_again() -> None:
    dst, src = {"a": zeros(2), "bias": jnp.zeros(2)}, {"a": ones(2), "bias": None}
    plan = treeload.plan(dst, src, policy=Policy(absent_is_zero=BIAS))
    first, second = plan.load(), plan.load()
    assert first["a"] is not second["a"]
    first["a"][:] = 9
    np.testing.assert_array_equal(second["a"], ones(2))
    np.testing.assert_array_equal(plan.load()["a"], ones(2))


def test_what_is_checked_and_loaded_is_the_same_leaf() -> None:
    shared = jnp.zeros(2)
    source = Held(a=ones(2), b=ones(2))
    made = treeload.load({"a": shared, "b": shared}, source)
    np.testing.assert_array_equal(made["b"], ones(2))


class Counted(Held):
    """Makes each array when it is asked for it, and notes how many of them are alive at once.

    They are JAX's: a user's NumPy arrays are copied on their way, and a copy cannot be counted.
    """

    alive = most = 0

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        for name in requests:
            array = jnp.asarray(self.arrays[name])
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(array, self.free)
            yield name, array
            del array

    def free(self) -> None:
        self.alive -= 1


MANY = 20
PARTS = {f"l{number}__{part}": ones(2, 3) for number in range(MANY) for part in range(3)}
STREAMS: dict[str, Any] = {
    "stacked": (Stack("{l}/{i}", "{l}/all"), {"all": zeros(3, 2, 3)}, 3),
    "joined": (Concat([f"{{p}}/{x}" for x in "012"], "{p}/all", axis=0), {"all": zeros(6, 3)}, 3),
    "changed": (Rename("{*p}", "{*p}", Apply(lambda x: x + 1)), dict.fromkeys("012", zeros(2, 3)), 1),
    "cast": ((), {x: np.zeros((2, 3), np.float16) for x in "012"}, 1),
    "copied": ((), {x: zeros(2, 3) for x in "012"}, 1),
}


@pytest.mark.parametrize("how", STREAMS)
def test_a_load_holds_no_more_source_arrays_than_the_leaf_at_hand_needs(how: str) -> None:
    rules, layer, needed = STREAMS[how]
    source = Counted(**PARTS)
    dst = {f"l{number}": {key: array.copy() for key, array in layer.items()} for number in range(MANY)}
    treeload.load(dst, source, rules=rules)
    assert source.most <= needed + 1  # and one that the source has just made


def test_a_leaf_that_feeds_two_is_held_until_the_second_is_made_and_no_longer() -> None:
    source = Counted(**{f"l{number}__w": ones(2) for number in range(MANY)})
    dst = {f"l{number}": {"w": zeros(2), "v": zeros(2)} for number in range(MANY)}
    made = treeload.load(dst, source, rules=[treeload.Tie("{l}/v", "{l}/w")])
    assert all(made[layer]["v"].all() and made[layer]["w"].all() for layer in dst)
    assert source.most <= 2


def test_value_checks_hold_no_more_than_the_leaf_at_hand() -> None:
    source = Counted(**{f"l{number}__bias": zeros(2) for number in range(MANY)})
    dst = {f"l{number}": {"bias": None} for number in range(MANY)}
    assert treeload.plan(dst, source, policy=Policy(absent_is_zero=BIAS)).verify().ok
    assert source.most <= 2


# A source that lies.


class Lying(Held):
    def __init__(self, yields: Callable[[], Iterator[tuple[Any, Any]]], **arrays: Any) -> None:
        super().__init__(**arrays)
        self.yields = yields

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        yield from self.yields()


A, B = Name(("a",)), Name(("b",))


def boom() -> Iterator[tuple[Any, Any]]:
    yield A, ones(2)
    raise ZeroDivisionError("while reading b")


LIES: dict[str, Any] = {
    "another shape": (lambda: iter([(A, ones(2)), (B, ones(3))]), r"'b'.*float32\[2\].*float32\[3\]"),
    "another dtype": (lambda: iter([(A, ones(2)), (B, np.ones(2))]), r"'b'.*float32\[2\].*float64\[2\]"),
    "a name nobody asked for": (lambda: iter([(A, ones(2)), (Name(("c",)), ones(2))]), "'c'.*not asked for"),
    "a name twice": (lambda: iter([(A, ones(2)), (A, ones(2)), (B, ones(2))]), "'a'.*not asked for"),
    "a name too few": (lambda: iter([(A, ones(2))]), "1 of the leaves.*b"),
    "nothing": (lambda: iter([]), "2 of the leaves.*a, b"),
    "no array": (lambda: iter([(A, ones(2)), (B, "text")]), "AttributeError"),
    "no pairs": (lambda: iter([ones(2)]), "could not be read"),
    "an error of its own": (boom, "ZeroDivisionError: while reading b"),
    "not an iterator": (lambda: None, "TypeError"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_source_that_lies_is_a_source_error_and_changes_nothing(lie: str) -> None:
    yields, match = LIES[lie]
    m = nnx.Dict(a=nnx.Param(jnp.zeros(2)), b=nnx.Param(jnp.zeros(2)))
    source = Lying(yields, a=ones(2), b=ones(2))
    assert treeload.plan(m, source).ok
    with pytest.raises(SourceError, match=match):
        treeload.update(m, source)
    with pytest.raises(SourceError, match=f"held arrays|{match}"):
        treeload.load({"a": zeros(2), "b": jnp.zeros(2)}, source)
    assert not m.a[...].any() and not m.b[...].any()


def test_the_cause_of_a_source_error_is_chained() -> None:
    with pytest.raises(SourceError) as caught:
        treeload.load({"a": zeros(2), "b": zeros(2)}, Lying(boom, a=ones(2), b=ones(2)))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_interrupt_is_no_source_error() -> None:
    def interrupted() -> Iterator[tuple[Any, Any]]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        treeload.load({"a": zeros(2)}, Lying(interrupted, a=ones(2)))


def test_a_source_whose_specs_fail_is_a_source_error() -> None:
    class NoSpecs(Held):
        def specs(self) -> Mapping[Name, Spec]:
            raise KeyError("index")

    with pytest.raises(SourceError) as caught:
        treeload.plan({"a": zeros(2)}, NoSpecs())
    assert isinstance(caught.value.__cause__, KeyError)


# What a result is made of.


@pytest.mark.parametrize("like", [zeros(64), jnp.zeros(64), spec(64)], ids=["numpy", "jax", "abstract"])
def test_a_users_source_may_go_on_writing_to_its_arrays(like: Any) -> None:
    memory = np.zeros(64 * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64  # where JAX would take the memory as its own
    array = memory[start : start + 64 * 4].view(np.float32)
    array[:] = 1
    made = treeload.load({"w": like}, Held(w=array))["w"]
    array[:] = 2
    np.testing.assert_array_equal(made, np.ones(64))


def test_kept_numpy_leaves_are_copies() -> None:
    dst = {"a": zeros(2), "b": zeros(2)}
    made = treeload.load(dst, {"a": ones(2)}, policy=Policy(missing="keep"))
    made["b"][:] = 5
    np.testing.assert_array_equal(dst["b"], zeros(2))


def test_a_result_is_writable_where_it_is_numpy() -> None:
    source = ones(2, 3)
    source.flags.writeable = False
    rules = [Rename("a", "a", Transpose()), Rename("r", "r", Reshape(6))]
    made = treeload.load({"a": zeros(3, 2), "r": zeros(6)}, {"a": source, "r": source}, rules=rules)
    made["a"][:] = made["r"][:] = 4
    np.testing.assert_array_equal(source, ones(2, 3))
    made = treeload.load({"a": zeros(3, 2)}, {"a": jnp.ones((2, 3))}, rules=rules[:1])
    made["a"][:] = 4


def test_two_leaves_fed_by_one_are_two_arrays() -> None:
    dst = {"a": zeros(2), "b": zeros(2)}
    for src in (Held(a=ones(2)), {"a": ones(2)}):
        made = treeload.load(dst, src, rules=treeload.Tie("b", "a"))
        assert not np.shares_memory(made["a"], made["b"])


def test_ops_and_casts_are_done_in_order_and_on_the_host() -> None:
    tiny = np.full((2, 3), 6e-8, np.float16)
    made = treeload.load({"a": jnp.zeros((3, 2))}, {"a": tiny}, rules=Rename("a", "a", Transpose()))
    np.testing.assert_array_equal(made["a"], tiny.T.astype(np.float32))


def test_an_op_that_does_not_do_as_it_inferred_is_an_error() -> None:
    calls = iter([lambda x: x, lambda x: x[:1]])
    rule = Rename("a", "a", treeload.Apply(lambda x: next(calls)(x)))
    plan = treeload.plan({"a": zeros(2)}, {"a": ones(2)}, rules=rule)
    with pytest.raises(TreeloadError, match="was to give"):
        plan.load()


@pytest.mark.parametrize(
    ("like", "given"),
    [
        (3, 4),
        (3, np.int8(4)),
        (3, np.asarray(4, np.int64)),
        (3, jnp.asarray(4)),
        (0.5, 0.25),
        (0.5, np.float16(0.25)),
        (0.5, jnp.asarray(0.25)),
        (0.5, 2),
        (True, np.asarray(True)),
        (1j, np.complex64(2)),
        (np.float32(1), 2.0),
        (np.float32(1), np.float32(2)),
        (np.int8(1), 7),
    ],
)
def test_scalars_stay_the_destinations_kind_of_scalar(like: Any, given: Any) -> None:
    made = treeload.load({"n": like}, {"n": given})["n"]
    assert type(made) is type(like) and made == np.asarray(given).item()


@pytest.mark.parametrize(("like", "given"), [(3, 4.0), (3, True), (0.5, 1j), (np.int8(1), 300), (True, 1)])
def test_a_scalar_never_changes_kind_or_overflows(like: Any, given: Any) -> None:
    plan = treeload.plan({"n": like}, {"n": given})
    assert [finding.kind for finding in plan.errors] in (["dtype"], ["structure"])
    with pytest.raises(LoadError, match="(dtype|structure) +n\n"):
        plan.load()


# The destination between plan and load.


def test_what_is_kept_is_what_the_destination_holds_when_it_loads() -> None:
    dst = {"a": zeros(2), "b": zeros(2), "n": 1}
    plan = treeload.plan(dst, {"a": ones(2)}, policy=Policy(missing="keep"))
    dst["b"] = ones(2) * 3
    dst["n"] = 2
    made = plan.load()
    np.testing.assert_array_equal(made["b"], [3, 3])
    assert made["n"] == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda dst: dst.pop("b"),
        lambda dst: dst.update(c=zeros(1)),
        lambda dst: dst.update(b=zeros(3)),
        lambda dst: dst.update(b=np.zeros(2)),
        lambda dst: dst.update(b=None),
        lambda dst: dst.update(b={"x": zeros(2)}),
    ],
)
def test_a_destination_that_changed_since_is_an_error(change: Callable[[Any], Any]) -> None:
    dst = {"a": zeros(2), "b": zeros(2)}
    plan = treeload.plan(dst, {"a": ones(2), "b": ones(2)})
    change(dst)
    with pytest.raises(TreeloadError, match="plan again"):
        plan.load()


def test_an_alias_that_moved_since_is_an_error() -> None:
    """The names and their arrays are the same: which of them are one array is not."""
    first, second = zeros(2), zeros(2)
    dst = {"a": first, "b": second, "c": first}
    plan = treeload.plan(dst, {"a": ones(2), "b": 2 * ones(2)})
    assert plan.load()["c"][0] == 1
    dst["c"] = second
    with pytest.raises(TreeloadError, match="plan again"):
        plan.load()


# Checks of values.


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray, lambda x: jax.device_put(x, jax.devices()[-1])])
@pytest.mark.parametrize(("value", "said"), [(1e-45, "1.4e-45"), (np.nan, "nan"), (-2.0, "2")])
def test_one_element_that_is_not_zero_fails_the_load(place: Any, value: float, said: str) -> None:
    bias = np.zeros(5, np.float32)
    bias[3] = value
    plan = treeload.plan({"bias": None}, {"bias": place(bias)}, policy=Policy(absent_is_zero=BIAS))
    assert plan.ok and [str(name) for name in plan.pending] == ["bias"]
    with pytest.raises(LoadError, match=f"1 of 5 elements.*not zero, the largest {said}") as caught:
        plan.load()
    assert caught.value.findings == plan.verify().errors
    assert plan.verify().pending == ()


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_zeros_of_either_sign_pass(value: float) -> None:
    plan = treeload.plan({"bias": None}, {"bias": np.full(3, value)}, policy=Policy(absent_is_zero=BIAS))
    assert plan.verify().ok and plan.load() == {"bias": None}


def test_all_failed_checks_are_said_at_once() -> None:
    src = {f"l{number}": {"bias": np.full(2, number, np.float32)} for number in range(4)}
    with pytest.raises(LoadError) as caught:
        treeload.load(
            {f"l{number}": {"bias": None} for number in range(4)}, src, policy=Policy(absent_is_zero=BIAS)
        )
    assert [str(finding.name) for finding in caught.value.findings] == ["l1/bias", "l2/bias", "l3/bias"]


def test_a_check_that_cannot_be_read_is_a_source_error() -> None:
    source = Lying(boom, a=ones(2), b=ones(2))
    plan = treeload.plan({"a": None, "b": None}, source, policy=Policy(absent_is_zero=("a", "b")))
    for act in (plan.verify, plan.load):
        with pytest.raises(SourceError, match="could not be read: ZeroDivisionError: while reading b"):
            act()


@pytest.mark.parametrize("at", [0, (1 << 18) - 1, 1 << 18])
def test_ties_are_compared_to_the_last_element(at: int) -> None:
    shared = jnp.zeros((1 << 18) + 1)
    other = np.zeros((1 << 18) + 1, np.float32)
    other[at] = 1e-45
    dst, src = {"a": shared, "b": shared}, {"a": np.zeros_like(other), "b": other}
    with pytest.raises(LoadError) as caught:
        treeload.load(dst, src)
    assert [finding.kind for finding in caught.value.findings] == ["tie"]
    made = treeload.load(dst, src, policy=Policy(tie="first"))
    assert made["a"] is made["b"] and not made["a"].any()
    other[at] = -0.0
    assert treeload.load(dst, src)["a"] is not None


# init=


def test_init_gives_what_is_kept_and_abstract() -> None:
    dst = {"a": spec(2), "b": spec(3), "c": zeros(1)}
    policy = Policy(missing="keep")
    plan = treeload.plan(dst, {"a": ones(2)}, policy=policy)
    assert [finding.kind for finding in plan.errors] == ["abstract"]
    made = plan.load(init=lambda: {"a": jnp.full(2, 7.0), "b": jnp.full(3, 7.0), "c": jnp.full(1, 7.0)})
    np.testing.assert_array_equal(made["a"], ones(2))
    np.testing.assert_array_equal(made["b"], np.full(3, 7))
    np.testing.assert_array_equal(made["c"], zeros(1))
    assert isinstance(made["b"], jax.Array) and not made["b"].committed


def test_what_init_need_not_make_is_never_computed() -> None:
    computed = []

    def counted() -> np.ndarray[Any, Any]:
        computed.append("counted")
        return ones(2)

    def init() -> Any:
        huge = jnp.ones((1 << 22, 1 << 18))  # four terabytes
        return {"huge": huge, "counted": jax.pure_callback(counted, spec(2)), "wanted": jnp.full(2, 3.0)}

    dst = {"huge": zeros(1), "counted": spec(2), "wanted": spec(2)}
    made = treeload.load(dst, {"counted": ones(2)}, policy=Policy(missing="keep"), init=init)
    np.testing.assert_array_equal(made["wanted"], [3, 3])
    assert computed == []


def test_init_is_not_called_where_nothing_is_asked_of_it() -> None:
    def init() -> Any:
        raise AssertionError("called")

    assert treeload.load({"a": spec(2)}, {"a": ones(2)}, init=init)["a"][0] == 1
    made = treeload.load({"a": zeros(2)}, {}, policy=Policy(missing="keep"), init=init)
    assert made["a"][0] == 0


def test_init_goes_where_the_destination_wants_it() -> None:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    dst = {"a": jax.ShapeDtypeStruct((8,), np.float32, sharding=sharding), "b": spec(2)}
    made = treeload.load(
        dst, {}, policy=Policy(missing="keep"), init=lambda: {"a": jnp.arange(8.0), "b": jnp.ones(2)}
    )
    assert made["a"].sharding == sharding
    np.testing.assert_array_equal(made["a"], np.arange(8))


INITS = {
    "another shape": (lambda: {"a": jnp.ones(3)}, r"'a'.*float32\[2\]"),
    "another dtype": (lambda: {"a": jnp.ones(2, jnp.int32)}, r"'a'.*float32\[2\]"),
    "no such name": (lambda: {"b": jnp.ones(2)}, "no array for a"),
    "none there": (lambda: {"a": None}, "no array for a"),
    "a function there": (lambda: {"a": len}, "no array for a"),
    "an error": (lambda: 1 / 0, "ZeroDivisionError"),
    "a choice by value": (lambda: {"a": jnp.ones(2) if jnp.ones(()) > 0 else 0}, "under jit"),
}


@pytest.mark.parametrize("what", INITS)
def test_an_init_that_does_not_fit_is_an_error(what: str) -> None:
    init, match = INITS[what]
    with pytest.raises(TreeloadError, match=match):
        treeload.load({"a": spec(2)}, {}, policy=Policy(missing="keep"), init=init)


def test_init_settles_the_abstract_findings_and_no_others() -> None:
    plan = treeload.plan({"a": spec(2), "b": zeros(2)}, {"b": ones(3)}, policy=Policy(missing="keep"))
    with pytest.raises(LoadError) as caught:
        plan.load(init=lambda: {"a": jnp.ones(2), "b": jnp.ones(2)})
    assert [finding.kind for finding in caught.value.findings] == ["shape"]


def test_init_may_hold_statics_and_boxes() -> None:
    dst = {"a": nn.Partitioned(spec(2), ("x",)), "act": jax.nn.relu}
    init = lambda: {"a": nn.Partitioned(jnp.ones(2), ("x",)), "act": jax.nn.gelu}  # noqa: E731
    made = treeload.load(dst, {}, policy=Policy(missing="keep"), init=init)
    assert made["a"].value[0] == 1 and made["a"].names == ("x",) and made["act"] is jax.nn.relu


def test_init_of_an_nnx_module() -> None:
    def init() -> nnx.Module:
        return nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(3))

    dst = nnx.eval_shape(init)
    made = treeload.load(dst, {"query": nnx.state(init())["query"]}, policy=Policy(missing="keep"), init=init)
    ours, theirs = jax.tree.leaves(made), jax.tree.leaves(init())
    assert len(ours) == len(theirs)
    assert all(
        np.allclose(a, b, atol=1e-6)
        for a, b in zip(ours, theirs, strict=True)
        if hasattr(a, "sharding") and a.dtype == np.float32
    )


def test_init_gives_tied_leaves_once() -> None:
    class Tied(nnx.Module):
        def __init__(self) -> None:
            self.b = nnx.Param(jnp.full(2, 4.0))
            self.a = self.b

    made = treeload.load(nnx.eval_shape(Tied), {}, policy=Policy(missing="keep"), init=Tied)
    assert made.a is made.b and made.a[0] == 4


def test_no_result_holds_a_spec() -> None:
    with pytest.raises(LoadError) as caught:
        treeload.load({"a": spec(2), "b": spec(2)}, {"a": ones(2)}, scope="a")
    assert [(finding.kind, str(finding.name)) for finding in caught.value.findings] == [("abstract", "b")]


# donate=


def test_donate_frees_what_is_replaced() -> None:
    dst: dict[str, Any] = {"a": jnp.zeros(2), "b": jnp.zeros(2), "host": zeros(2)}
    made = treeload.load(dst, {"a": ones(2), "b": ones(2), "host": ones(2)}, donate=True)
    assert dst["a"].is_deleted() and dst["b"].is_deleted()
    assert made["a"][0] == made["b"][0] == made["host"][0] == 1


def test_donate_keeps_what_is_kept() -> None:
    dst = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    made = treeload.load(dst, {"a": ones(2)}, policy=Policy(missing="keep"), donate=True)
    assert dst["a"].is_deleted() and made["b"] is dst["b"] and made["b"][0] == 0


def test_donate_keeps_what_the_source_holds() -> None:
    shared, other = jnp.zeros(2), jnp.zeros(2)
    made = treeload.load({"a": shared, "b": other}, {"a": shared, "b": shared}, donate=True)
    assert not shared.is_deleted() and other.is_deleted()
    assert made["a"] is shared and made["b"][0] == 0


def test_donate_keeps_what_the_source_holds_and_does_not_give() -> None:
    array = jnp.zeros(2)
    src = {"a": ones(2), "unused": array}
    treeload.load({"a": array}, src, policy=Policy(unexpected="ignore"), donate=True)
    assert not array.is_deleted()


def test_donate_of_a_swap_frees_nothing() -> None:
    one, two = jnp.ones(2), jnp.full(2, 2.0)
    made = treeload.load({"a": one, "b": two}, {"a": two, "b": one}, donate=True)
    assert made["a"][0] == 2 and made["b"][0] == 1


def test_donate_frees_a_tied_leaf_once() -> None:
    shared = jnp.zeros(2)
    made = treeload.load({"a": shared, "b": shared}, {"a": ones(2)}, donate=True)
    assert shared.is_deleted() and made["a"] is made["b"] and made["a"][0] == 1


def test_donate_keeps_a_buffer_that_a_kept_leaf_shares() -> None:
    memory = np.zeros(64 * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    array = jax.device_put(memory[start : start + 256].view(np.float32))
    twin = jax.device_put(array, array.sharding)  # the same buffer under another object
    made = treeload.load({"a": array, "b": twin}, {"a": ones(64)}, policy=Policy(missing="keep"), donate=True)
    assert made["b"][0] == 0 and made["a"][0] == 1


@pytest.mark.parametrize(
    ("src", "said"), [({}, "missing +a"), ({"a": np.ones(3)}, "shape +a"), ("boom", "while reading b")]
)
def test_a_load_that_fails_frees_nothing(src: Any, said: str) -> None:
    dst = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    with pytest.raises(TreeloadError, match=said):
        treeload.load(dst, Lying(boom, a=ones(2), b=ones(2)) if src == "boom" else src, donate=True)
    assert not any(array.is_deleted() for array in dst.values())


def test_a_donated_destination_cannot_be_loaded_into_again() -> None:
    dst = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    plan = treeload.plan(dst, {"a": ones(2), "b": ones(2)})
    plan.load(donate=True)
    made = plan.load()  # shapes, dtypes and shardings outlive the values
    assert made["a"][0] == 1


# Progress.


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    said = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **how: Console(file=said, force_terminal=True, width=80))
    return said


def test_a_bar_is_shown_when_asked_for(terminal: io.StringIO) -> None:
    treeload.load({"a": zeros(2), "b": jnp.zeros(2)}, Held(a=ones(2), b=ones(2)), progress=True)
    assert "loading" in terminal.getvalue()


@pytest.mark.parametrize("progress", [None, False])
def test_a_short_load_shows_no_bar(terminal: io.StringIO, progress: bool | None) -> None:
    treeload.load({"a": zeros(2)}, {"a": ones(2)}, progress=progress)
    assert terminal.getvalue() == ""


def test_a_long_load_shows_a_bar_by_itself(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    treeload.load({"a": zeros(2)}, {"a": ones(2)})
    assert "loading" in terminal.getvalue()


def test_nothing_is_written_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    treeload.load({"a": zeros(2)}, {"a": ones(2)})
    assert capsys.readouterr() == ("", "")


def test_a_bar_goes_away_when_the_load_fails(terminal: io.StringIO) -> None:
    with pytest.raises(SourceError, match="while reading b"):
        treeload.load({"a": zeros(2), "b": zeros(2)}, Lying(boom, a=ones(2), b=ones(2)), progress=True)
    treeload.load({"a": zeros(2)}, Held(a=ones(2)), progress=True)  # a second bar is no trouble
