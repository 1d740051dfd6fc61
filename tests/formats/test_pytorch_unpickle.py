"""The machine that reads pickles as descriptions, against Python's own."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from torch_files import Raw, called, encoded, named, pickled

from treeload._formats.pytorch.described import Keyed, Other
from treeload._formats.pytorch.unpickle import unpickled


def no_storage(said: Any) -> Any:
    raise AssertionError(said)


def described(raw: bytes, **options: Any) -> Any:
    return unpickled(io.BytesIO(raw), no_storage, **options)


def plain(value: Any) -> Any:
    """A description as Python's own value."""
    if isinstance(value, Keyed):
        return dict(zip(map(plain, value.keys), map(plain, value.values), strict=True))
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return value


VALUES: list[Any] = [
    None, True, False, 0, 255, 256, 70_000, -1, -(2**31), 2**63, -(2**200), 2**1000, 1.5, float("inf"),
    "", "text", "ü" * 300, "a" * 70_000, [], [1], list(range(2000)), (), (1,), (1, 2), (1, 2, 3),
    (1, 2, 3, 4), {}, {"a": 1}, {str(number): [number] for number in range(1500)},
    {"a": {"b": ({"c": None},)}}, {1: 2, None: 3}, collections.OrderedDict(a=1, b=[2]),
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("number", range(len(VALUES)))
def test_plain_values_of_every_protocol(number: int, protocol: int) -> None:
    value = VALUES[number]
    assert plain(described(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_described_by_words_or_attributes(protocol: int) -> None:
    def found(value: Any) -> Any:
        return plain(described(pickle.dumps(value, protocol)))

    assert found({1, 2}) == Other("a set")
    assert found(b"\x00\xff" * 200) == b"\x00\xff" * 200
    assert found(argparse.Namespace(a=1, b=[2])) == {"a": 1, "b": [2]}
    assert protocol < 4 or found(frozenset({1})) == Other("a set")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i8", ">i4", "u1", "?", "<c8", ">c16"])
def test_numpy_scalars_come_in_the_machines_order(protocol: int, dtype: str) -> None:
    value = np.ones(1, dtype)[0]
    found = described(pickle.dumps(value, protocol))
    assert found == value and found.dtype == np.dtype(dtype).newbyteorder("=")


def test_what_is_no_number_of_numpys_is_described() -> None:
    for value in (np.str_("text"), np.datetime64("2020-01-01")):
        assert isinstance(described(pickle.dumps(value, 4)), Other)


def test_what_is_shared_is_one_object() -> None:
    shared: list[Any] = []
    found = described(pickle.dumps([shared, shared], 2))
    assert found[0] is found[1]


def test_the_stream_is_left_behind_the_pickle() -> None:
    stream = io.BytesIO(pickled(1) + pickled(2))
    assert [unpickled(stream, no_storage) for _ in range(2)] == [1, 2]


def test_strings_of_python_2() -> None:
    assert described(b"\x80\x02U\x02ab.") == "ab"
    assert described(b"\x80\x02T\x02\x00\x00\x00\xff\xfe.") == "\xff\xfe"


def op(code: str, form: str, number: int) -> bytes:
    return code.encode("latin-1") + struct.pack(form, number)


MALFORMED = {
    "nothing": (b"", "has no end"),
    "no end": (b"\x80\x02N", "has no end"),
    "nothing on the stack": (b".", "takes values that it did not put there"),
    "no mark": (b"t.", "takes values that it did not put there"),
    "a tuple of too few": (b"N\x87.", "takes values that it did not put there"),
    "an unknown opcode": (b"\xff.", "the opcode 0xff"),
    "an object of protocol 0": (b"(i__main__\nX\n.", "the opcode 0x69"),
    "an extension": (b"\x82\x01.", "the opcode 0x82"),
    "a buffer from elsewhere": (b"\x97.", "the opcode 0x97"),
    "a number cut short": (b"J\x01", "ends in the middle of a value"),
    "a text cut short": (op("X", "<I", 100) + b"abc.", "ends in the middle of a value"),
    "a text of 8 exabytes": (op("\x8d", "<Q", 2**63) + b"a.", "a text of 9,223,372,036,854,775,808 bytes"),
    "a text of more than is read": (op("X", "<I", 2**32 - 1) + b"a.", "a text of 4,294,967,295 bytes"),
    "a text of less than nothing": (op("T", "<i", -5) + b".", "of less than nothing"),
    "no text": (op("X", "<I", 2) + b"\xff\xfe.", "can't decode byte"),
    "an integer of 2 GB": (op("\x8b", "<i", 2**31 - 1) + b".", "an integer of 2,147,483,647 bytes"),
    "an integer of less than nothing": (op("\x8b", "<i", -1) + b".", "an integer of -1 bytes"),
    "digits without end": (b"I" + b"1" * 10_000 + b"\n.", "a line without an end"),
    "digits that are none": (b"Ione\n.", "invalid literal"),
    "a line without an end": (b"cos", "a line without an end"),
    "a memo that was never made": (b"h\x05.", "refers to what it never made"),
    "a memo of nothing": (b"q\x05.", "takes values that it did not put there"),
    "a call of a text": (encoded("f") + b")R.", "calls what is no function"),
    "a call of a dtype": (named("torch", "float32").code + b")R.", "calls what is no function"),
    "a call without arguments": (named("torch", "Size").code + b"NR.", "calls what is no function"),
    "other arguments": (called(named("torch", "Size"), 1, 2).code + b".", "other arguments than it takes"),
    "a pair of one": (
        called(named("collections", "OrderedDict"), [["a"]]).code + b".",
        "other arguments than it takes",
    ),
    "no pairs": (called(named("collections", "OrderedDict"), 5).code + b".", "other arguments than it takes"),
    "an object of a function": (named("torch", "Size").code + b")\x81.", "not known as a class"),
    "an object of arguments": (named("argparse", "Namespace").code + b"N\x85\x81.", "made of arguments"),
    "attributes of a list": (b"]}b.", "sets attributes of what has none"),
    "attributes that are none": (named("argparse", "Namespace").code + b")\x81Nb.", "without attributes"),
    "items of a list": (b"]NNs.", "puts items into what is no dict"),
    "a key without a value": (b"}(Nu.", "a key without a value"),
    "an append to a dict": (b"}Na.", "appends to what is no list"),
    "appends to a tuple": (b")(Ne.", "appends to what is no list"),
    "members of a list": (b"](N\x90.", "adds to what is no set"),
    "a global of no name": (b"NN\x93.", "names a global by what is no text"),
    "bytes of another encoding": (
        called(named("_codecs", "encode"), "a", "rot13").code + b".",
        "encoded as what is not Latin-1",
    ),
    "a scalar of objects": (
        called(
            named("numpy.core.multiarray", "scalar"), called(named("numpy", "dtype"), "O8", 0, 1), b"a" * 8
        ).code
        + b".",
        "a NumPy scalar of dtype 'O8'",
    ),
    "a scalar of other bytes": (
        called(
            named("numpy.core.multiarray", "scalar"), called(named("numpy", "dtype"), "f8", 0, 1), b"abc"
        ).code
        + b".",
        "a NumPy scalar of dtype f8 in 3 bytes",
    ),
    "a scalar of nothing": (
        called(named("numpy.core.multiarray", "scalar"), "f8", b"a").code + b".",
        "a NumPy scalar that is none",
    ),
    "a dtype of no order": (
        called(named("numpy", "dtype"), "f8", 0, 1).code + encoded((3, "?", None)) + b"b.",
        "no order of bytes",
    ),
    "a dtype that is none": (
        called(named("numpy", "dtype"), 5, 0, 1).code + b".",
        "a NumPy dtype that is none",
    ),
}


@pytest.mark.parametrize(("raw", "why"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_one_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        described(raw)


RUNS = [
    ("os", "system"),
    ("posix", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("__builtin__", "eval"),
    ("builtins", "getattr"),
    ("builtins", "dict"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch", "Tensor"),
    ("torch", "Size.count"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("torch.storage", "_load_from_bytes"),
    ("collections", "defaultdict"),
    ("numpy", "load"),
    ("numpy", "dtype.__class__"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("subprocess", "Popen"),
    ("argparse", "FileType"),
    ("treeload", "open"),
    ("", ""),
]


@pytest.mark.parametrize("protocol", ["line", "stack"])
@pytest.mark.parametrize(("module", "name"), RUNS, ids=[f"{module}.{name}" for module, name in RUNS])
def test_every_other_global_is_refused_by_name(module: str, name: str, protocol: str) -> None:
    if protocol == "line":
        raw = named(module, name).code
    else:
        raw = encoded(module) + encoded(name) + b"\x93"
    with pytest.raises(ValueError, match="it needs") as caught:
        described(raw + encoded(("touch ran",)) + b"R.")
    assert f"{module}.{name}" in str(caught.value)


# What takes memory or time.


def too_large(raw: bytes) -> None:
    with pytest.raises(ValueError, match="too large for a description"):
        described(raw, budget=1 << 20)


def test_a_pickle_takes_no_more_than_its_budget() -> None:
    too_large(b"}" * 10_000 + b".")
    too_large(b"]" * 10_000 + b".")
    too_large(b"(" * 10_000 + b".")
    too_large(b"N0" * 30_000 + b".")
    too_large(encoded("a" * 700_000) * 2 + b".")
    too_large(b"N" + b"".join(op("r", "<I", number) for number in range(10_000)) + b".")


def test_what_is_copied_again_and_again_is_charged_for_each_time() -> None:
    pairs = encoded([["a", 1]] * 2000)
    too_large(pairs + b"q\x00" + (named("collections", "OrderedDict").code + b"h\x00\x85R0") * 50 + b".")
    sizes = encoded(tuple(range(2000)))
    too_large(sizes + b"q\x00" + (named("torch", "Size").code + b"h\x00\x85R0") * 50 + b".")
    text = encoded("a" * 30_000)
    too_large(
        text
        + b"q\x00"
        + (named("_codecs", "encode").code + b"h\x00" + encoded("latin1") + b"\x86R0") * 50
        + b"."
    )


def test_a_namespace_that_takes_its_own_attributes_does_not_grow_for_ever() -> None:
    start = named("argparse", "Namespace").code + b")\x81" + encoded({"a": 1}) + b"bq\x00"
    too_large(start + b"h\x00b" * 60 + b".")


def test_opcodes_as_they_are_go_through() -> None:
    assert encoded(Raw(b"N")) == b"N"
