"""What a source is asked for must be what it has, and what a device can hold."""

from __future__ import annotations

from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import SingleDeviceSharding

from treeload import Name
from treeload._errors import SourceError
from treeload._files.request import check_requests
from treeload._leaves.spec import spec_of

DTYPES = [np.dtype(each) for each in (np.float32, np.int8, np.bool_, np.int64, ml_dtypes.bfloat16)]
W = Name(("layer/1", "w"))


def spec(shape: tuple[int, ...], dtype: Any, *, on_device: bool = False) -> jax.ShapeDtypeStruct:
    sharding = SingleDeviceSharding(jax.devices()[0]) if on_device else None
    return jax.ShapeDtypeStruct(shape, np.dtype(dtype), sharding=sharding)


specs = st.builds(spec, st.lists(st.integers(0, 2), max_size=2).map(tuple), st.sampled_from(DTYPES))


@given(st.dictionaries(st.text("ab", max_size=2).map(lambda key: Name((key,))), specs, max_size=4), st.data())
def test_any_of_the_leaves_may_be_asked_for_as_they_are(there: Any, data: st.DataObject) -> None:
    asked = data.draw(st.sets(st.sampled_from(sorted(there)))) if there else set()
    check_requests({name: there[name] for name in asked}, there, "here")


@given(specs, specs)
def test_another_shape_or_dtype_is_refused_and_nothing_else(there: Any, asked: Any) -> None:
    if (there.shape, there.dtype) == (asked.shape, asked.dtype):
        check_requests({W: asked}, {W: there}, "here")
    else:
        with pytest.raises(SourceError, match="and cannot be read as"):
            check_requests({W: asked}, {W: there}, "here")


def test_a_leaf_that_is_not_there_is_named_as_names_print() -> None:
    with pytest.raises(SourceError) as raised:
        check_requests({W: spec((), "f4")}, {Name(("other",)): spec((), "f4")}, "here")
    assert str(raised.value) == rf"here has no leaf {str(W)!r}"


def test_both_specs_are_shown() -> None:
    with pytest.raises(SourceError, match=r"is float32\[2\] and cannot be read as int8\[3\]"):
        check_requests({W: spec((3,), "i1")}, {W: spec((2,), "f4")}, "here")


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64", "complex128"])
def test_64_bits_are_read_on_the_host_and_on_a_device_only_with_x64(dtype: str) -> None:
    there, on_device = spec((2,), dtype), spec((2,), dtype, on_device=True)
    check_requests({W: there}, {W: there}, "here")
    with pytest.raises(SourceError, match=r"only with jax_enable_x64; ask for it without a sharding"):
        check_requests({W: on_device}, {W: there}, "here")
    with jax.enable_x64(True):
        check_requests({W: on_device}, {W: there}, "here")


def test_keys_are_asked_for_on_a_device() -> None:
    keys = spec_of(jax.random.split(jax.random.key(0), 2))
    assert keys.sharding is not None
    check_requests({W: keys}, {W: keys}, "here")


def test_nothing_may_always_be_asked_for() -> None:
    check_requests({}, {}, "here")
