"""Ops that change how much there is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytrees import same

import treeload
from treeload import Pad, Policy, Rename, Resize, RuleError, Slice
from treeload._leaves.spec import spec_of, without_sharding

DTYPES = [
    np.dtype(getattr(ml_dtypes, name, name))
    for name in (
        "float32",
        "float16",
        "bfloat16",
        "float8_e4m3fn",
        "float8_e5m2",
        "int4",
        "int32",
        "uint8",
        "bool",
    )
]
FLOATS = DTYPES[:5]
KINDS = [np.asarray, jnp.asarray]


def numbered(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    return (np.arange(np.prod(shape, dtype=int)) % 7).astype(dtype).reshape(shape)


def holds_its_word(op: Any, array: Any) -> Any:
    said = op.infer(without_sharding(spec_of(array)))
    result = op.apply(array)
    assert (result.shape, result.dtype) == (said.shape, said.dtype)
    assert isinstance(result, jax.Array if isinstance(array, jax.Array) else np.ndarray)
    return result


@st.composite
def arrays(draw: Any, dtypes: Any = DTYPES) -> tuple[Any, int]:
    """An array and one of its axes, which may be counted from the end."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return draw(st.sampled_from(KINDS))(numbered(shape, draw(st.sampled_from(dtypes)))), axis


@given(given=arrays(), more=st.integers(0, 3), fill=st.sampled_from([0, 1]))
def test_padding_appends_the_filling_and_its_inverse_takes_it_off(
    given: tuple[Any, int], more: int, fill: int
) -> None:
    array, axis = given
    op = Pad(array.shape[axis] + more, axis=axis, fill=fill)
    padded = holds_its_word(op, array)
    first, rest = np.split(np.asarray(padded), [array.shape[axis]], axis=axis)
    assert same(first, array)
    assert rest.shape[axis] == more
    assert np.all(rest == np.asarray(fill, array.dtype))
    undo = op.inverse(without_sharding(spec_of(array)))
    assert undo is not None
    assert same(undo.apply(padded), array)


@given(given=arrays(), data=st.data())
def test_a_slice_is_what_numpy_slices(given: tuple[Any, int], data: Any) -> None:
    array, axis = given
    stop = data.draw(st.integers(1, array.shape[axis]))
    start = data.draw(st.integers(0, stop - 1))
    found = holds_its_word(Slice(start, stop, axis=axis), array)
    assert same(found, np.take(np.asarray(array), range(start, stop), axis=axis))


def test_a_slice_with_one_bound_is_the_first_so_many() -> None:
    assert Slice(3) == Slice(0, 3)
    assert Slice(3).inverse() is None


@given(given=arrays(FLOATS), keep=st.integers(0, 2), size=st.integers(1, 5))
def test_resizing_a_line_keeps_its_first_positions_bit_for_bit(
    given: tuple[Any, int], keep: int, size: int
) -> None:
    array, axis = given
    if keep >= array.shape[axis]:
        return
    found = holds_its_word(Resize(keep + size, axis=axis, keep=keep, grid=None), array)
    assert same(
        np.take(np.asarray(found), range(keep), axis=axis), np.take(np.asarray(array), range(keep), axis=axis)
    )


@given(given=arrays(FLOATS), method=st.sampled_from(["bicubic", "linear", "nearest"]))
def test_resizing_to_the_same_size_changes_nothing(given: tuple[Any, int], method: str) -> None:
    array, axis = given
    op = Resize(array.shape[axis], axis=axis, grid=None, method=method)
    assert same(holds_its_word(op, array), array)


def test_a_square_grid_is_resized_as_an_image() -> None:
    positions = np.random.default_rng(0).normal(size=(1, 1 + 9, 4)).astype(np.float32)
    found = Resize(1 + 16, axis=1, keep=1).apply(positions)
    image = jax.image.resize(positions[0, 1:].reshape(3, 3, 4), (4, 4, 4), "bicubic")
    assert same(found[0, 1:], np.asarray(image).reshape(16, 4))
    assert same(found[0, 0], positions[0, 0])


def test_grids_that_are_not_square_are_given() -> None:
    positions = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    found = Resize(8, axis=0, grid=((2, 3), (2, 4)), method="linear").apply(positions)
    image = jax.image.resize(positions.reshape(2, 3, 4), (2, 4, 4), "linear")
    assert same(found, np.asarray(image).reshape(8, 4))


def test_half_precision_is_interpolated_in_single_and_rounded_once() -> None:
    positions = np.random.default_rng(0).normal(size=(16, 4)).astype(ml_dtypes.bfloat16)
    wide = Resize(36, axis=0).apply(positions.astype(np.float32))
    assert same(Resize(36, axis=0).apply(positions), wide.astype(ml_dtypes.bfloat16))


def test_kept_positions_in_double_precision_stay_double() -> None:
    positions = np.random.default_rng(0).normal(size=(5, 2))
    assert same(Resize(10, axis=0, keep=1).apply(positions)[:1], positions[:1])


@pytest.mark.parametrize(
    ("op", "array", "said"),
    [
        (Pad(2), np.zeros(3), r"Slice\(2, axis=0\)"),
        (Pad(4, axis=1), np.zeros(3), "no axis 1"),
        (Pad(4, fill=0.5), np.zeros(3, np.int32), "cannot hold 0.5"),
        (Pad(4, fill=300), np.zeros(3, np.uint8), "cannot hold 300"),
        (Slice(4), np.zeros(3), "more than"),
        (Slice(1, axis=-2), np.zeros(3), "no axis -2"),
        (Resize(4, axis=0), np.zeros(4, np.int32), "floats"),
        (Resize(5, axis=0), np.zeros(4), "not both square grids"),
        (Resize(4, axis=0, keep=3), np.zeros(3), "not both square grids"),
        (Resize(6, axis=0, grid=((2, 2), (2, 3))), np.zeros(6), "do not have 6 and 6"),
        (Resize(6, axis=0, grid=((4,), (2, 3))), np.zeros(4), "do not have"),
    ],
)
def test_what_does_not_fit_is_refused_at_plan_time(op: Any, array: Any, said: str) -> None:
    with pytest.raises(RuleError, match=said):
        op.infer(spec_of(array))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Pad(2.5), "Pad takes integers, not 2.5"),  # type: ignore[arg-type]
        (lambda: Pad(True), "Pad takes integers, not True"),
        (lambda: Pad(4, fill="rows"), r"Pad\(fill=...\) is a number or 'destination', not 'rows'"),  # type: ignore[arg-type]
        (lambda: Pad(4, fill=None), r"Pad\(fill=...\) is a number or 'destination', not None"),  # type: ignore[arg-type]
        (lambda: Slice(0), r"Slice\(0, 0\) holds nothing"),
        (lambda: Slice(3, 2), r"Slice\(3, 2\) holds nothing"),
        (lambda: Slice(-1, 2), r"Slice\(-1, 2\) holds nothing"),
        (lambda: Slice(1.0), "Slice takes integers, not 1.0"),  # type: ignore[arg-type]
        (lambda: Resize(3, keep=3), "some positions must be left"),
        (lambda: Resize(0), "some positions must be left"),
        (lambda: Resize(4, keep=-1), "some positions must be left"),
        (lambda: Resize(4, grid="round"), r"grid=...\) is 'square', None or two grid shapes, not 'round'"),  # type: ignore[arg-type]
        (lambda: Resize(4, grid=((2, 2),)), r"grid=...\) is 'square', None or two grid shapes, not \(\("),  # type: ignore[arg-type]
        (lambda: Resize(4, grid=(2, 2)), r"grid=...\) is 'square', None or two grid shapes, not \(2"),  # type: ignore[arg-type]
        (lambda: Resize(4, method="best"), r"Resize\(method=...\).*best"),
    ],
)
def test_what_cannot_mean_anything_is_refused_when_it_is_written(make: Any, said: str) -> None:
    with pytest.raises(RuleError, match=said):
        make()


OPS = [
    Pad(4), Pad(4, axis=-1), Pad(4, fill=-1.5), Pad(4, fill="destination"), Slice(2), Slice(1, 3, axis=-1),
    Resize(4), Resize(5, axis=0, keep=1, grid=None, method="linear", antialias=False),
    Resize(6, axis=0, grid=((2, 2), (2, 3))),
]  # fmt: skip


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_an_op_prints_as_the_code_that_makes_it(op: Any) -> None:
    assert eval(repr(op), vars(treeload)) == op
    assert hash(eval(repr(op), vars(treeload))) == hash(op)


def test_a_vocabulary_is_made_larger_on_the_way() -> None:
    src = {"embed": np.arange(6.0, dtype=np.float32).reshape(3, 2)}
    dst = {"embed": jnp.ones((5, 2))}
    loaded = treeload.load(dst, src, rules=Rename("embed", "embed", Pad(5)))
    assert same(loaded["embed"], np.concatenate([src["embed"], np.zeros((2, 2), np.float32)]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_is_filled_up_with_the_destinations_own_rows(kind: Any) -> None:
    src = {"embed": np.arange(6.0, dtype=np.float32).reshape(3, 2)}
    dst = {"embed": kind(np.full((5, 2), 9.0, np.float32))}
    loaded = treeload.load(dst, src, rules=Rename("embed", "embed", Pad(5, fill="destination")))
    assert same(loaded["embed"], np.concatenate([src["embed"], np.full((2, 2), 9.0, np.float32)]))
    assert isinstance(loaded["embed"], type(dst["embed"]))


def test_a_resize_that_cannot_be_done_is_one_finding() -> None:
    plan = treeload.plan(
        {"p": jnp.zeros((5, 2))}, {"p": jnp.zeros((4, 2))}, rules=Rename("p", "p", Resize(5))
    )
    (finding,) = plan.findings
    assert (finding.kind, str(finding.name)) == ("rule", "p")
    assert "grid=" in finding.message


def test_an_ignored_rule_leaves_its_leaf_missing() -> None:
    dst, src = {"p": jnp.zeros((5, 2))}, {"p": jnp.zeros((4, 2))}
    plan = treeload.plan(dst, src, rules=Rename("p", "p", Resize(5)), policy=Policy(rule="ignore"))
    assert [(finding.kind, finding.verdict) for finding in plan.errors] == [("missing", "error")]
