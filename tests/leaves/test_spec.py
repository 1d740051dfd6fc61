"""What a slot holds, what is known of it unread, and which casts lose what."""

from __future__ import annotations

import enum
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._leaves.casts import CASTINGS, can_cast, cast_loses_kind, overflows
from treeload._leaves.spec import (
    SlotKind,
    elements,
    is_abstract,
    is_key,
    is_numeric,
    kind_of,
    kind_of_type,
    nbytes,
    print_spec,
    spec_of,
    without_sharding,
)

BOOLEAN = ["bool"]
INTEGER = "int2 int4 int8 int16 int32 int64 uint2 uint4 uint8 uint16 uint32 uint64".split()
REAL = (
    "float16 bfloat16 float32 float64 float4_e2m1fn float6_e2m3fn float6_e3m2fn float8_e3m4 float8_e4m3 "
    "float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"
).split()
COMPLEX = ["complex64", "complex128"]
RANKS = {name: rank for rank, names in enumerate((BOOLEAN, INTEGER, REAL, COMPLEX)) for name in names}


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


PAIRS = [(a, b) for a in RANKS for b in RANKS]


# --- casts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("casting", CASTINGS)
def test_a_cast_is_allowed_as_numpy_says_where_it_keeps_the_kind(casting: str) -> None:
    for source, destination in PAIRS:
        a, b = dtype_of(source), dtype_of(destination)
        loses = RANKS[source] > RANKS[destination] or (source == "bool") != (destination == "bool")
        expected = np.can_cast(a, b, casting=casting) and (casting == "unsafe" or not loses)  # type: ignore[arg-type]
        assert can_cast(a, b, casting) == expected, (source, destination)


def test_short_of_unsafe_no_cast_goes_down_a_kind() -> None:
    for casting in set(CASTINGS) - {"unsafe"}:
        for source, destination in PAIRS:
            if RANKS[source] > RANKS[destination]:
                assert not can_cast(dtype_of(source), dtype_of(destination), casting), (source, destination)


def test_short_of_unsafe_a_boolean_becomes_no_number_and_no_number_a_boolean() -> None:
    for casting in set(CASTINGS) - {"unsafe"}:
        for name in [*INTEGER, *REAL, *COMPLEX]:
            assert not can_cast(dtype_of("bool"), dtype_of(name), casting), name
            assert not can_cast(dtype_of(name), dtype_of("bool"), casting), name


def test_there_are_casts_that_numpy_would_make_without_a_word_and_we_do_not() -> None:
    for source, destination in [("float32", "int4"), ("complex64", "bfloat16"), ("bool", "float32")]:
        a, b = dtype_of(source), dtype_of(destination)
        assert np.can_cast(a, b, casting="same_kind")
        assert not can_cast(a, b, "same_kind")


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("float32", "bfloat16"), ("bfloat16", "float32"), ("float32", "float16"), ("float64", "float32"),
        ("float32", "float8_e4m3fn"), ("float8_e5m2", "bfloat16"),
        ("int32", "float32"), ("int64", "int32"), ("int8", "bfloat16"), ("float32", "complex64"),
    ],
)  # fmt: skip
def test_the_default_casting_allows_what_training_does(source: str, destination: str) -> None:
    assert can_cast(dtype_of(source), dtype_of(destination), "same_kind")


@pytest.mark.parametrize("casting", CASTINGS)
def test_every_dtype_becomes_itself(casting: str) -> None:
    assert all(can_cast(dtype_of(name), dtype_of(name), casting) for name in RANKS)


def test_byte_order_counts_only_where_no_cast_is_allowed_at_all() -> None:
    big, little = np.dtype(">f4"), np.dtype("<f4")
    assert [casting for casting in CASTINGS if can_cast(big, little, casting)] == [
        "equiv", "safe", "same_kind", "unsafe"
    ]  # fmt: skip


def test_keys_become_nothing_but_themselves() -> None:
    fry, rbg = jax.random.key(0, impl="threefry2x32").dtype, jax.random.key(0, impl="rbg").dtype
    uint32 = np.dtype("uint32")
    for casting in CASTINGS:
        assert can_cast(fry, fry, casting)
        for a, b in itertools.permutations((fry, rbg, uint32), 2):
            assert not can_cast(a, b, casting)
    assert cast_loses_kind(fry, rbg) and cast_loses_kind(uint32, fry) and not cast_loses_kind(fry, fry)


def test_a_kind_is_lost_downwards_and_between_booleans_and_numbers() -> None:
    for source, destination in PAIRS:
        a, b = RANKS[source], RANKS[destination]
        assert cast_loses_kind(dtype_of(source), dtype_of(destination)) == (b < a or (a == 0) != (b == 0))
        assert cast_loses_kind(dtype_of(source), dtype_of(destination), exact=True) == (a != b)


@pytest.mark.skipif(not hasattr(ml_dtypes, "complex32"), reason="new in ml_dtypes 0.6")
def test_small_complex_dtypes_are_complex() -> None:
    for name in ("complex32", "bcomplex32"):
        assert is_numeric(dtype_of(name))
        assert cast_loses_kind(dtype_of(name), dtype_of("float64"))
        assert not cast_loses_kind(dtype_of("complex64"), dtype_of(name))


# --- what a slot holds ------------------------------------------------------------------------------


class Size(enum.IntEnum):
    BIG = 1


class Foreign:
    """An array of another library: it becomes a NumPy array when asked, and its dtype is no NumPy dtype."""

    shape, dtype = (2,), "float32"

    def __array__(self) -> np.ndarray[Any, Any]:
        raise AssertionError("nothing reads an array to know what it is")


class LikeArray(Foreign):
    dtype = np.dtype("float32")  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.zeros(2), SlotKind.ARRAY),
        (np.zeros((0, 3), ml_dtypes.bfloat16), SlotKind.ARRAY),
        (np.zeros((), ml_dtypes.int4), SlotKind.ARRAY),
        (np.float32(0), SlotKind.ARRAY),
        (np.float64(0), SlotKind.ARRAY),
        (np.bool_(False), SlotKind.ARRAY),
        (ml_dtypes.bfloat16(0), SlotKind.ARRAY),
        (jax.ShapeDtypeStruct((2,), np.float32), SlotKind.ARRAY),
        (LikeArray(), SlotKind.ARRAY),
        (0, SlotKind.SCALAR),
        (0.0, SlotKind.SCALAR),
        (0j, SlotKind.SCALAR),
        (True, SlotKind.SCALAR),
        (None, SlotKind.ABSENT),
        (False, SlotKind.ABSENT),
        ("relu", SlotKind.STATIC),
        (b"x", SlotKind.STATIC),
        (len, SlotKind.STATIC),
        (object(), SlotKind.STATIC),
        (np.float32, SlotKind.STATIC),
        (np.dtype("float32"), SlotKind.STATIC),
        (Size.BIG, SlotKind.STATIC),
        (np.str_("x"), SlotKind.STATIC),
        (np.datetime64(0, "s"), SlotKind.STATIC),
        (np.array(["x"]), SlotKind.STATIC),
        (np.array([object()]), SlotKind.STATIC),
        (np.zeros(2, "f4,f4"), SlotKind.STATIC),
        (Foreign(), SlotKind.STATIC),
    ],
)
def test_what_a_slot_holds(value: Any, kind: SlotKind) -> None:
    assert kind_of(value) is kind
    assert kind_of_type(type(value)) in (kind, None)


@pytest.mark.parametrize("make", [lambda: jnp.zeros(2), lambda: jax.random.key(0), lambda: jnp.zeros((0,))])
def test_jax_arrays_are_arrays(make: Any) -> None:
    assert kind_of(make()) is kind_of_type(type(make())) is SlotKind.ARRAY


def test_tracers_are_arrays() -> None:
    kinds = []
    jax.eval_shape(lambda x: kinds.append(kind_of(x)), jnp.zeros(2))
    assert kinds == [SlotKind.ARRAY]


@pytest.mark.parametrize("name", RANKS)
def test_every_dtype_of_jax_is_numeric(name: str) -> None:
    assert is_numeric(dtype_of(name))
    assert kind_of_type(dtype_of(name).type) is SlotKind.ARRAY


# --- specs ------------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(RANKS)), st.lists(st.integers(0, 3), max_size=3).map(tuple))
def test_the_spec_of_an_array_is_its_shape_and_dtype(name: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype_of(name))
    spec = spec_of(array)
    assert (spec.shape, spec.dtype, spec.sharding) == (array.shape, array.dtype, None)
    assert elements(spec) == array.size
    assert nbytes(spec) == array.nbytes
    assert not is_abstract(array) and is_abstract(spec)
    assert spec_of(spec) is spec
    assert print_spec(spec) == f"{name}[{','.join(map(str, shape))}]"


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(True, "bool"), (3, "int64"), (2**70, "int64"), (0.5, "float64"), (1j, "complex128")],
)
def test_a_python_number_has_numpys_dtype_for_it(number: complex, dtype: str) -> None:
    assert spec_of(number) == jax.ShapeDtypeStruct((), np.dtype(dtype))


def test_a_numpy_number_has_its_own_dtype() -> None:
    assert spec_of(np.float64(1)) == jax.ShapeDtypeStruct((), np.float64)
    assert spec_of(ml_dtypes.bfloat16(1)) == jax.ShapeDtypeStruct((), ml_dtypes.bfloat16)


def test_the_spec_of_a_jax_array_knows_where_it_lies() -> None:
    array = jax.device_put(jnp.zeros(2), jax.devices()[-1])
    assert spec_of(array).sharding == array.sharding
    assert without_sharding(spec_of(array)) == jax.ShapeDtypeStruct((2,), np.float32)
    assert without_sharding(spec_of(array)).sharding is None


def test_keys_are_keys_and_take_the_bytes_of_their_data() -> None:
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 3)
    assert is_key(keys.dtype) and not is_key(np.dtype("uint32"))
    assert (elements(spec_of(keys)), nbytes(spec_of(keys))) == (3, 24)
    assert nbytes(spec_of(jax.random.key(0, impl="rbg"))) == 16
    assert print_spec(spec_of(keys)) == "key<fry>[3]"


# --- overflow ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INTEGER)
def test_an_integer_overflows_just_outside_what_its_dtype_holds(name: str) -> None:
    dtype = dtype_of(name)
    info = ml_dtypes.iinfo(dtype)
    assert not overflows(int(info.min), dtype) and not overflows(int(info.max), dtype)
    assert overflows(int(info.min) - 1, dtype) and overflows(int(info.max) + 1, dtype)
    assert overflows(10**400, dtype)
    assert not overflows(True, dtype)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1e39, "float32"), (-1e39, "float32"), (1e39, "bfloat16"), (70000.0, "float16"), (70000, "float16"),
        (2**130, "float32"), (-(2**130), "float32"), (10**400, "float64"), (10**400, "bfloat16"),
        (500.0, "float8_e4m3fn"), (2**70, "float8_e4m3fn"), (1e39j, "complex64"), (1e39, "complex64"),
        (2**130, "complex64"),
    ],
)  # fmt: skip
def test_a_number_beyond_a_float_overflows(number: complex, name: str) -> None:
    assert overflows(number, dtype_of(name))


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1e38, "float32"), (1e-50, "float32"), (0.1, "bfloat16"), (65503.9, "float16"), (2**70, "float32"),
        (2**70, "bfloat16"), (2**53 + 1, "float64"), (float("inf"), "float16"), (float("nan"), "float16"),
        (float("-inf"), "bfloat16"), (448.0, "float8_e4m3fn"), (1 + 2j, "complex64"), (2**70, "complex64"),
        (complex("inf"), "complex64"), (True, "float32"),
    ],
)  # fmt: skip
def test_rounding_infinity_and_nan_are_no_overflow(number: complex, name: str) -> None:
    assert not overflows(number, dtype_of(name))
