"""The ops behind the rules: what joins arrays, and what takes one piece out of an array."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytrees import same

from treeload._errors import RuleError
from treeload._leaves.spec import spec_of, without_sharding
from treeload._ops.op import Op
from treeload._ops.several import ConcatArrays, StackArrays, TakeIndex, TakeRange

DTYPES = [
    np.dtype(getattr(ml_dtypes, name, name))
    for name in (
        "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "int8", "int32", "uint8", "bool",  # noqa: E501
        "complex64",
    )
]  # fmt: skip
KINDS = [np.asarray, jnp.asarray]


def numbered(shape: tuple[int, ...], dtype: Any, start: int = 0) -> np.ndarray[Any, Any]:
    """An array whose elements differ as far as its dtype can tell."""
    return ((np.arange(np.prod(shape, dtype=int)) + start) % 7).astype(dtype).reshape(shape)


def holds_its_word(op: Op, *arrays: Any) -> Any:
    """The op's result, which is what ``infer`` said, on the host or on the device as its inputs are."""
    said = op.infer(*(without_sharding(spec_of(array)) for array in arrays))
    result = op.apply(*arrays)
    assert (result.shape, result.dtype) == (said.shape, said.dtype)
    assert isinstance(result, jax.Array if isinstance(arrays[0], jax.Array) else np.ndarray)
    return result


shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@given(
    shape=shapes,
    dtype=st.sampled_from(DTYPES),
    counts=st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple),
    kind=st.sampled_from(KINDS),
    data=st.data(),
)
def test_what_was_joined_is_found_at_its_index(
    shape: tuple[int, ...], dtype: Any, counts: tuple[int, ...], kind: Any, data: Any
) -> None:
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    total = int(np.prod(counts))
    arrays = [kind(numbered(shape, dtype, start)) for start in range(total)]
    joined = holds_its_word(StackArrays(counts, axis), *arrays)
    for flat, array in enumerate(arrays):
        indices = tuple(map(int, np.unravel_index(flat, counts)))
        assert same(holds_its_word(TakeIndex(indices, axis, counts), joined), array)


@given(shape=shapes, axis=st.integers(-4, 3))
def test_one_index_is_joined_as_numpy_stacks(shape: tuple[int, ...], axis: int) -> None:
    arrays = [numbered(shape, np.float32, start) for start in range(3)]
    spec = spec_of(arrays[0])
    if -len(shape) - 1 <= axis <= len(shape):
        assert same(StackArrays((3,), axis).apply(*arrays), np.stack(arrays, axis=axis))
    else:
        with pytest.raises(RuleError, match=f"axis={axis}"):
            StackArrays((3,), axis).infer(spec, spec, spec)


@given(
    rest=shapes,
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(KINDS),
    data=st.data(),
)
def test_what_was_chained_is_found_as_its_piece(
    rest: tuple[int, ...], sizes: list[int], dtype: Any, kind: Any, data: Any
) -> None:
    axis = data.draw(st.integers(-len(rest) - 1, len(rest)))
    at = axis % (len(rest) + 1)
    arrays = [kind(numbered((*rest[:at], size, *rest[at:]), dtype, size)) for size in sizes]
    chained = holds_its_word(ConcatArrays(axis), *arrays)
    assert same(chained, np.concatenate(list(map(np.asarray, arrays)), axis=axis))
    start = 0
    for size, array in zip(sizes, arrays, strict=True):
        assert same(holds_its_word(TakeRange(axis, start, start + size, sum(sizes)), chained), array)
        start += size


def test_numpy_scalars_are_joined_on_the_host() -> None:
    joined = StackArrays((2,), 0).apply(
        np.float64(1.5), np.float64(2.5)
    )  # what an index of an array may give
    assert same(joined, np.array([1.5, 2.5]))
    assert isinstance(joined, np.ndarray)


def test_thousands_of_jax_arrays_are_joined_in_no_time_worth_a_word() -> None:
    arrays = [jnp.full((2,), float(number)) for number in range(3000)]
    assert same(
        StackArrays((3000,), 0).apply(*arrays), np.repeat(np.arange(3000, dtype=np.float32), 2).reshape(-1, 2)
    )


def test_arrays_committed_to_a_device_are_joined_there() -> None:
    device = jax.devices()[1]
    arrays = [jax.device_put(np.full((2,), number, np.float32), device) for number in range(130)]
    joined = ConcatArrays(0).apply(*arrays)
    assert joined.devices() == {device}
    assert same(joined, np.repeat(np.arange(130, dtype=np.float32), 2))


def test_typed_keys_are_joined_and_taken_apart() -> None:
    keys = [jax.random.key(number) for number in range(3)]
    joined = StackArrays((3,), 0).apply(*keys)
    assert (joined.shape, joined.dtype) == ((3,), keys[0].dtype)
    assert TakeIndex((2,), 0, (3,)).apply(joined) == keys[2]


def spec(*shape: int, dtype: str = "float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.dtype(getattr(ml_dtypes, dtype, dtype)))


@pytest.mark.parametrize(
    ("op", "specs", "said"),
    [
        (StackArrays((2,), 0), (spec(2), spec(3)), r"float32\[2\] and float32\[3\]"),
        (StackArrays((2,), 0), (spec(2), spec(2, dtype="bfloat16")), r"float32\[2\] and bfloat16\[2\]"),
        (ConcatArrays(0), (spec(2, 3), spec(2, 4)), r"float32\[2,3\] and float32\[2,4\]"),
        (ConcatArrays(0), (spec(2), spec(2, dtype="int8")), r"float32\[2\] and int8\[2\]"),
        (ConcatArrays(0), (spec(2), spec(2, 1)), r"float32\[2\] and float32\[2,1\]"),
        (ConcatArrays(2), (spec(2, 3), spec(2, 3)), "no axis 2"),
        (ConcatArrays(0), (spec(), spec()), "no axis 0"),
        (ConcatArrays(0, (2, 2)), (spec(2), spec(3)), r"\(2, 3\) on axis 0, not \(2, 2\)"),
        (TakeRange(0, 0, 2, 6), (spec(5),), "has not 6 on axis 0"),
        (TakeRange(-2, 0, 2, 6), (spec(6),), "no axis -2"),
        (TakeIndex((0,), 0, (3,)), (spec(2, 2),), "not stacked"),
        (TakeIndex((0,), 2, (3,)), (spec(3, 3),), "not stacked"),
    ],
)
def test_what_cannot_be_joined_or_cut_is_said_with_its_spec(
    op: Op, specs: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(RuleError, match=said):
        op.infer(*specs)
