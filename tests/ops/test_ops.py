"""Ops know the spec of their result, and undo what they did."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Apply, Cast, Name, Reshape, RuleError, Transpose, TreeloadError
from treeload._leaves.spec import spec_of, without_sharding
from treeload._ops.expression import Derived, Leaf, chain, derive, evaluate, ops_of
from treeload._ops.op import Op, as_ops

SMALL = "int4 uint4 float8_e4m3fn float8_e5m2 bfloat16".split()
DTYPES = [*SMALL, *"bool int8 uint8 int32 uint32 float16 float32 complex64".split()]
WIDE = "int64 uint64 float64 complex128".split()  # only NumPy has them here


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """A NumPy or a JAX array of any dtype and up to three axes, zero sizes among them."""
    name = draw(st.sampled_from([*DTYPES, *WIDE]))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    array = (np.arange(math.prod(shape)) % 7).reshape(shape).astype(dtype_of(name))
    return jnp.asarray(array) if name in DTYPES and draw(st.booleans()) else array


def transposes(rank: int) -> st.SearchStrategy[Op]:
    permutations = st.permutations(range(rank)).flatmap(
        lambda axes: st.tuples(*(st.sampled_from([axis, axis - rank]) for axis in axes))
    )
    return st.one_of(st.just(Transpose()), permutations.map(Transpose))


@st.composite
def reshapes(draw: st.DrawFn, shape: tuple[int, ...]) -> Op:
    total = math.prod(shape)
    if total == 0:
        new = draw(st.permutations([*shape, *draw(st.lists(st.integers(0, 3), max_size=2))]))
    else:
        new, rest = [], total
        for _ in range(draw(st.integers(0, 2))):
            new.append(draw(st.sampled_from([size for size in range(1, rest + 1) if rest % size == 0])))
            rest //= new[-1]
        new.append(rest)
    if new and math.prod(new[1:]) > 0 and draw(st.booleans()):
        new[0] = -1
    return Reshape(tuple(new), source=draw(st.sampled_from([None, shape])))


def casts(array: Any) -> st.SearchStrategy[Op]:
    # Complex to real is a cast that NumPy and JAX warn of.
    names = [name for name in (*DTYPES, *WIDE) if array.dtype.kind != "c" or "complex" in name]
    return st.sampled_from(names).map(dtype_of).map(Cast)


APPLIES = [
    Apply(lambda x: x, lambda x: x),
    Apply(lambda x: x[None], lambda x: x[0]),
    Apply(lambda x: x[..., None], lambda x: x[..., 0]),
    Apply(lambda x: x.reshape(-1)),
    Apply(lambda x: x.astype(bool)),
]


@st.composite
def steps(draw: st.DrawFn) -> tuple[Op, Any]:
    array = draw(arrays())
    op = draw(
        st.one_of(transposes(array.ndim), reshapes(array.shape), casts(array), st.sampled_from(APPLIES))
    )
    return op, array


def same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


# --- laws -------------------------------------------------------------------------------------------


@given(steps())
def test_what_an_op_infers_is_the_spec_of_what_it_gives(step: tuple[Op, Any]) -> None:
    op, array = step
    assert without_sharding(op.infer(spec_of(array))) == without_sharding(spec_of(op.apply(array)))


@given(steps())
def test_a_leaf_stays_where_it_lies(step: tuple[Op, Any]) -> None:
    op, array = step
    result = op.apply(array)
    if isinstance(op, Apply):
        assert isinstance(result, jax.Array) == (str(array.dtype) not in WIDE)
    elif isinstance(array, jax.Array) and str(result.dtype) not in WIDE:
        assert isinstance(result, jax.Array)
    else:
        assert isinstance(result, np.ndarray)


@given(steps())
def test_an_inverse_undoes_the_op_bit_for_bit(step: tuple[Op, Any]) -> None:
    op, array = step
    for inverse in (op.inverse(), op.inverse(spec_of(array))):
        if inverse is not None:
            given_ = op.apply(array)
            assert without_sharding(inverse.infer(op.infer(spec_of(array)))) == without_sharding(
                spec_of(array)
            )
            assert same(inverse.apply(given_), array)


@given(steps())
def test_what_can_be_undone_from_a_known_spec_is_undone(step: tuple[Op, Any]) -> None:
    op, array = step
    if isinstance(op, (Transpose, Reshape)):
        assert op.inverse(spec_of(array)) is not None


@given(steps())
def test_an_op_prints_as_code_that_makes_it_and_equals_what_it_makes(step: tuple[Op, Any]) -> None:
    op, _ = step
    if not isinstance(op, Apply):
        again = eval(repr(op))
        assert again == op
        assert hash(again) == hash(op)


@given(arrays(), st.data())
def test_a_chain_of_ops_knows_its_result(array: Any, data: st.DataObject) -> None:
    first = data.draw(transposes(array.ndim))
    second = data.draw(reshapes(first.apply(array).shape))
    leaf = Leaf(0, Name(("x",)), spec_of(array))
    value = chain(leaf, (first, second))
    assert without_sharding(value.spec) == without_sharding(spec_of(second.apply(first.apply(array))))
    assert ops_of(value) == (first, second)
    assert list(value.leaves()) == [leaf]


def every_value(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Each value of a dtype of at most 16 bits, NaN left out."""
    if dtype.kind == "b":
        return np.array([False, True])
    if jax.dtypes.issubdtype(dtype, np.integer):
        info = ml_dtypes.iinfo(dtype)
        return np.arange(int(info.min), int(info.max) + 1).astype(dtype)
    values = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
    with np.errstate(invalid="ignore"):  # some NaNs complain of being compared
        return values[values == values]


def test_a_cast_that_says_it_can_be_undone_loses_no_value() -> None:
    names = [*SMALL, *"bool int8 uint8 int16 uint16 float16 float8_e8m0fnu float8_e4m3fnuz".split()]
    undone = 0
    for source, destination in itertools.product(names, [*names, *DTYPES, *WIDE]):
        cast = Cast(dtype_of(destination))
        inverse = cast.inverse(jax.ShapeDtypeStruct((1,), dtype_of(source)))
        if inverse is not None:
            values = every_value(dtype_of(source))
            assert same(inverse.apply(cast.apply(values)), values), (source, destination)
            undone += 1
    assert undone > 50


# --- Transpose --------------------------------------------------------------------------------------


def shape(op: Op, *sizes: int) -> tuple[int, ...]:
    return op.infer(jax.ShapeDtypeStruct(sizes, np.float32)).shape


def test_transpose_reverses_all_axes_or_orders_them_as_numpy_does() -> None:
    assert shape(Transpose(), 2, 3, 4) == (4, 3, 2)
    assert shape(Transpose(), 2) == (2,) and shape(Transpose()) == () and shape(Transpose(())) == ()
    assert shape(Transpose(1, 0), 2, 3) == (3, 2)
    assert shape(Transpose(2, 0, 1), 2, 3, 4) == shape(Transpose(-1, 0, 1), 2, 3, 4) == (4, 2, 3)
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(Transpose(2, 0, 1).apply(array), np.transpose(array, (2, 0, 1)))


def test_transpose_takes_axes_in_a_tuple_a_list_or_one_by_one() -> None:
    assert Transpose(1, 0) == Transpose((1, 0)) == Transpose([1, 0]) == Transpose(np.int64(1), 0)  # type: ignore[arg-type]
    assert Transpose() == Transpose(None) != Transpose(1, 0)  # type: ignore[arg-type]
    assert [repr(op) for op in (Transpose(), Transpose(1, 0), Transpose(()))] == [
        "Transpose()", "Transpose(1, 0)", "Transpose(())"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "axes", [(0, 0), (1,), (0, 2), (-3, 0), (0.0, 1), ("0",), (True, 0), (None, 0), ((0, 1), 2)]
)
def test_axes_that_are_no_permutation_are_a_rule_error(axes: tuple[Any, ...]) -> None:
    with pytest.raises(RuleError, match="Transpose"):
        Transpose(*axes)


def test_transpose_of_another_rank_is_a_rule_error() -> None:
    with pytest.raises(RuleError, match=r"Transpose\(1, 0\) is for 2 axes, the leaf is float32\[2,3,4\]"):
        shape(Transpose(1, 0), 2, 3, 4)


# --- Reshape ----------------------------------------------------------------------------------------


def test_reshape_keeps_the_elements_in_c_order() -> None:
    assert shape(Reshape(2, 3), 6) == shape(Reshape((2, 3)), 3, 2) == shape(Reshape([2, -1]), 6) == (2, 3)  # type: ignore[arg-type]
    assert shape(Reshape(()), 1, 1) == shape(Reshape(), 1) == ()
    assert shape(Reshape(1)) == (1,)
    assert shape(Reshape(-1, 3), 0, 3) == (0, 3) and shape(Reshape(0, 5), 3, 0) == (0, 5)
    np.testing.assert_array_equal(Reshape(3, 2).apply(np.arange(6).reshape(2, 3)), [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize("new", [(4,), (-1, 4), (7, -1), (0,), (0, -1), (), (2, 3, 0)])
def test_a_reshape_to_another_number_of_elements_is_a_rule_error(new: tuple[int, ...]) -> None:
    with pytest.raises(RuleError, match=r"does not fit the 6 elements of float32\[6\]"):
        shape(Reshape(new), 6)


@pytest.mark.parametrize("new", [(-2,), (-1, -1), (2.0,), ("2",), (True,), (None,)])
def test_sizes_that_cannot_be_are_a_rule_error(new: tuple[Any, ...]) -> None:
    with pytest.raises(RuleError, match="Reshape"):
        Reshape(*new)


def test_a_reshape_that_knows_where_it_came_from_knows_the_way_back() -> None:
    assert Reshape(2, 3).inverse() is None
    assert Reshape(2, 3, source=(6,)).inverse() == Reshape(6, source=(2, 3))
    assert Reshape(2, -1, source=(6,)).inverse() == Reshape(6)
    assert Reshape(2, 3).inverse(jax.ShapeDtypeStruct((6,), np.float32)) == Reshape(6)
    with pytest.raises(RuleError, match=r"is for \[6\], the leaf is float32\[3,2\]"):
        shape(Reshape(2, 3, source=(6,)), 3, 2)
    assert repr(Reshape(2, 3, source=(6,))) == "Reshape(2, 3, source=(6,))"
    assert repr(Reshape(())) == "Reshape(())"


# --- Cast -------------------------------------------------------------------------------------------


def test_cast_takes_a_dtype_however_it_is_written() -> None:
    for dtype in (jnp.bfloat16, ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)):
        assert Cast(dtype) == Cast("bfloat16")
    assert repr(Cast(jnp.bfloat16)) == "Cast('bfloat16')"


@pytest.mark.parametrize("dtype", [None, "float31", 3, "str", object, "datetime64[s]", "f4,f4", b"", (), [1]])
def test_what_is_no_dtype_of_jax_is_a_rule_error(dtype: Any) -> None:
    with pytest.raises(RuleError, match="Cast takes a dtype"):
        Cast(dtype)


def test_a_cast_to_64_bits_is_made_in_64_bits() -> None:
    result = Cast("float64").apply(jnp.asarray([0.1, 16777217.0]))
    assert isinstance(result, np.ndarray) and result.dtype == np.float64
    assert Cast("int64").apply(jnp.asarray([2**31 - 1])).dtype == np.int64


@pytest.mark.parametrize(
    ("source", "destination"),
    [("int4", "uint4"), ("uint2", "int4"), ("float6_e2m3fn", "int4"), ("float8_e4m3fn", "float8_e8m0fnu")],
)
def test_a_cast_that_numpy_has_no_direct_way_for_is_made(source: str, destination: str) -> None:
    array = np.ones(3, dtype_of(source))
    result = Cast(dtype_of(destination)).apply(array)
    assert result.dtype == dtype_of(destination)
    np.testing.assert_array_equal(result.astype(np.float32), [1, 1, 1])


def test_a_cast_of_keys_is_a_rule_error() -> None:
    with pytest.raises(RuleError, match="PRNG keys"):
        Cast("float32").infer(spec_of(jax.random.key(0)))


def test_a_cast_is_undone_only_where_it_made_the_leaf_wider() -> None:
    assert Cast("float32").inverse() is None
    spec = jax.ShapeDtypeStruct((2,), ml_dtypes.bfloat16)
    assert Cast("float32").inverse(spec) == Cast("bfloat16") == Cast("bfloat16").inverse(spec)
    assert Cast("float16").inverse(spec) is None


# --- Apply ------------------------------------------------------------------------------------------


def test_apply_runs_any_function_that_jax_can_trace() -> None:
    op = Apply(lambda x: jnp.flip(x, 0)[:1] * 2)
    assert without_sharding(op.infer(spec_of(np.zeros((3, 2), np.float16)))) == jax.ShapeDtypeStruct(
        (1, 2), np.float16
    )
    np.testing.assert_array_equal(op.apply(np.arange(3)), [4])


def test_apply_takes_several_arrays_where_a_rule_joins_leaves() -> None:
    op, x = Apply(lambda a, b: a + b), np.ones(2, np.float32)
    value = derive(op, *(Leaf(0, Name((key,)), spec_of(x)) for key in "ab"))
    assert value.spec.shape == (2,) and [leaf.name for leaf in value.leaves()] == [("a",), ("b",)]
    np.testing.assert_array_equal(op.apply(x, x), [2, 2])


def test_apply_loses_nothing_of_64_bits() -> None:
    op = Apply(lambda x: x + 1)
    for array in (np.array([2**40]), np.array([0.1])):
        assert op.infer(spec_of(array)).dtype == array.dtype
        np.testing.assert_array_equal(op.apply(array), array + 1)


def test_apply_takes_keys() -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    assert without_sharding(Apply(lambda k: k[:2]).infer(spec_of(keys))) == without_sharding(
        spec_of(keys[:2])
    )
    assert Reshape(2, 2).infer(spec_of(keys)).shape == Reshape(2, 2).apply(keys).shape == (2, 2)


def test_a_function_that_fails_or_gives_no_single_array_is_a_rule_error() -> None:
    with pytest.raises(RuleError, match=r"fails for float32\[2\]: ZeroDivisionError: ") as raised:
        Apply(lambda x: 1 // 0).infer(jax.ShapeDtypeStruct((2,), np.float32))
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    with pytest.raises(RuleError, match="gives a tuple, not one array"):
        Apply(lambda x: (x, x)).infer(jax.ShapeDtypeStruct((2,), np.float32))
    with pytest.raises(RuleError, match="fails for"):
        Apply(lambda x: np.asarray(x)).infer(jax.ShapeDtypeStruct((2,), np.float32))  # reads values


@pytest.mark.parametrize("arguments", [(3,), (None,), (len, 3)])
def test_apply_takes_functions_only(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(RuleError, match="Apply takes functions"):
        Apply(*arguments)


def test_apply_knows_the_way_back_if_it_is_told() -> None:
    assert Apply(jnp.exp).inverse() is None
    assert Apply(jnp.exp, jnp.log).inverse() == Apply(jnp.log, jnp.exp)


def test_apply_prints_the_functions_name() -> None:
    class Twice:
        def __call__(self, x: Any) -> Any:
            return x * 2

        def __repr__(self) -> str:
            return "Twice()"

    assert repr(Apply(jnp.exp)) == "Apply(exp)"
    assert repr(Apply(Twice())) == "Apply(Twice())"


# --- expressions ------------------------------------------------------------------------------------


def test_what_is_no_op_is_a_rule_error_that_says_what_to_write() -> None:
    assert as_ops((Transpose(), Cast("int8")), "Rename") == (Transpose(), Cast("int8"))
    with pytest.raises(RuleError, match=r"Rename takes ops such as Transpose\(\).*; write Transpose\(\)$"):
        as_ops((Transpose,), "Rename")
    for other in (None, "Transpose", len, 3):
        with pytest.raises(RuleError, match="Rename takes ops"):
            as_ops((other,), "Rename")


def test_an_expression_knows_its_leaves_and_each_of_its_steps_once() -> None:
    class StackArrays(Op):
        def infer(self, *specs: Any) -> Any:
            return jax.ShapeDtypeStruct((len(specs), *specs[0].shape), specs[0].dtype)

        def apply(self, *arrays: Any) -> Any:
            return np.stack(arrays)

    assert StackArrays().inverse() is None
    leaves = [Leaf(0, Name((key,)), jax.ShapeDtypeStruct((2, 3), np.float32)) for key in "abc"]
    join = StackArrays()
    value = derive(join, *(chain(leaf, (Transpose(),)) for leaf in leaves))
    assert isinstance(value, Derived) and value.spec.shape == (3, 3, 2)
    assert list(value.leaves()) == leaves
    assert ops_of(value) == (Transpose(), join)
    mixed = derive(join, leaves[0], chain(leaves[1], (Reshape(2, 3),)), chain(leaves[2], (Cast("float32"),)))
    assert ops_of(mixed) == (Reshape(2, 3), Cast("float32"), join)
    assert ops_of(leaves[0]) == ()
    assert list(leaves[0].leaves()) == [leaves[0]]


def test_an_expression_stands_for_what_its_ops_give() -> None:
    leaf = Leaf(0, Name(("a",)), jax.ShapeDtypeStruct((2, 3), np.float32))
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = evaluate(chain(leaf, (Transpose(), Cast("int8"))), {leaf: array})
    assert result.dtype == np.int8
    np.testing.assert_array_equal(result, [[0, 3], [1, 4], [2, 5]])


def test_an_op_that_gives_something_else_than_it_inferred_is_found_out() -> None:
    calls: list[int] = []

    def unstable(x: Any) -> Any:
        calls.append(1)
        return x if len(calls) == 1 else x[:1]

    leaf = Leaf(0, Name(("a", "b")), jax.ShapeDtypeStruct((2,), np.float32))
    value = chain(leaf, (Apply(unstable),))
    with pytest.raises(TreeloadError, match=r"was to give float32\[2\] and gave float32\[1\] for a/b"):
        evaluate(value, {leaf: np.zeros(2, np.float32)})


def test_an_op_takes_nothing_from_the_destination_unless_it_says_so() -> None:
    assert not Transpose().onto_destination
    with pytest.raises(NotImplementedError, match="takes nothing from the destination"):
        Transpose().apply_onto(np.zeros(2), np.zeros(2))


def test_an_expression_that_cannot_be_is_refused_when_it_is_made() -> None:
    leaf = Leaf(0, Name(("a",)), jax.ShapeDtypeStruct((2, 3), np.float32))
    with pytest.raises(RuleError, match=r"Transpose\(1, 0\) is for 2 axes"):
        chain(leaf, (Reshape(6), Transpose(1, 0)))
