"""What a tree of Orbax cannot say is recorded beside it, and not believed when it is read."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._errors import SourceError
from treeload._files.digests import digest
from treeload._formats.orbax.record import FORMAT, Record, read_dtype
from treeload._leaves.spec import is_key


def test_a_checkpoint_of_others_has_no_record() -> None:
    record = Record.read(None, "here")
    assert not record.is_present and record.version == {}
    assert not any(
        (record.aliases, record.absent, record.empty, record.encoded, record.scalars, record.digests)
    )


def test_a_record_that_says_nothing_but_its_format_and_no_digests_is_one() -> None:
    record = Record.read({"format": FORMAT, "digests": {}}, "here")
    assert record.is_present and record.aliases == {} and record.scalars == frozenset()


def test_names_are_read_as_they_print() -> None:
    record = Record.read(
        {
            "format": 1,
            "digests": {},
            "aliases": {r"a\/b": "c/d"},
            "absent": {"n": None, "off": False},
            "scalars": {"s": "int"},
        },
        "here",
    )
    assert record.aliases == {("a/b",): ("c", "d")}
    assert record.absent == {("n",): None, ("off",): False}
    assert record.scalars == {("s",)}


def test_empty_arrays_keep_their_shape_dtype_and_kind_of_key() -> None:
    empty = {"w": {"shape": [0, 3], "dtype": "bfloat16"}, "k": {"shape": [0], "impl": "rbg"}}
    record = Record.read({"format": 1, "digests": {}, "empty": empty}, "here")
    w, k = record.empty[("w",)], record.empty[("k",)]  # type: ignore[index]
    assert (w.spec.shape, w.spec.dtype, w.impl) == ((0, 3), ml_dtypes.bfloat16, None)
    assert k.spec.shape == (0,) and is_key(k.spec.dtype) and k.impl == "rbg"


@pytest.mark.parametrize(
    "record",
    [
        3, [], {}, {"format": "1"}, {"format": None}, {"format": 1, "aliases": []},
        {"format": 1, "aliases": {"a//b": "c"}}, {"format": 1, "absent": {"a": 0}},
        {"format": 1, "absent": {"a": True}}, {"format": 1, "empty": {"a": {"shape": [2], "dtype": "int8"}}},
        {"format": 1, "empty": {"a": {"shape": [0], "dtype": "str"}}}, {"format": 1, "empty": {"a": 3}},
        {"format": 1, "empty": {"a": {"shape": [0], "impl": "none"}}}, {"format": 1, "encoded": {"a": 1}},
        {"format": 1, "digests": []}, {"format": 1, "scalars": ["a"]}, {"format": 1},
        {"format": 1, "digests": {"a": "0"}, "arrays": {}}, {"format": 1, "digests": {}, "arrays": {"a": 3}},
        {"format": 1, "digests": {}, "arrays": {"a": {"dtype": "int8", "shape": 3}}},
        {"format": 1, "digests": {}, "arrays": []},
    ],
)  # fmt: skip
def test_a_record_that_lies_is_refused(record: Any) -> None:
    with pytest.raises((SourceError, ValueError)) as raised:
        Record.read(record, "here")
    assert type(raised.value).__module__.startswith("treeload")


def test_a_record_of_a_newer_treeload_is_refused_as_such() -> None:
    with pytest.raises(SourceError, match=r"was saved by a newer treeload \(format 2, this one reads 1\)"):
        Record.read({"format": FORMAT + 1, "aliases": 3}, "here")


@pytest.mark.parametrize("name", ["float32", "int4", "bool", "bfloat16", "float8_e4m3fn", "complex64"])
def test_a_dtype_is_read_by_its_name_in_our_byte_order(name: str) -> None:
    assert read_dtype(name) == np.dtype(getattr(ml_dtypes, name, name))
    assert read_dtype(">f4") == np.dtype("float32")


@pytest.mark.parametrize("name", [None, 3, "object", "str", "datetime64[s]"])
def test_what_is_no_dtype_of_an_array_is_a_value_error(name: Any) -> None:
    with pytest.raises(ValueError, match="gives the dtype"):
        read_dtype(name)


@given(st.binary(max_size=64), st.integers(0, 511))
def test_a_digest_is_of_the_bytes_and_finds_every_flipped_bit(content: bytes, at: int) -> None:
    array = np.frombuffer(content, np.uint8)
    assert digest(array) == digest(array.reshape(1, -1).T) == digest(np.repeat(array, 2)[::2])
    if content:
        flipped = array.copy()
        flipped[at // 8 % len(content)] ^= 1 << at % 8
        assert digest(flipped) != digest(array)


def test_a_digest_is_of_the_c_order() -> None:
    array = np.arange(6, dtype=np.int8).reshape(2, 3)
    assert digest(np.asfortranarray(array)) == digest(array) != digest(array.T)
