"""The header of a file: read back for any tensors, refused where it lies; more is in ``test_safetensors``."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._errors import SourceError
from treeload._files.open import look_at
from treeload._formats.safetensors.header import DTYPES, read_header

TENSORS = st.dictionaries(
    st.text(max_size=6).filter(lambda key: key != "__metadata__"),
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=3)),
    max_size=5,
)


def size_of(code: str, shape: list[int]) -> int:
    return math.prod(shape) * DTYPES[code].itemsize


def entries(tensors: dict[str, tuple[str, list[int]]]) -> dict[str, Any]:
    made, at = {}, 0
    for key, (code, shape) in tensors.items():
        end = at + size_of(code, shape)
        made[key] = {"dtype": code, "shape": shape, "data_offsets": [at, end]}
        at = end
    return made


def header_of(header: str, data: int) -> Any:
    raw = header.encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.safetensors"
        path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(data))
        return read_header(look_at(path))


@given(TENSORS, st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2), st.data())
def test_what_a_header_says_is_read_whatever_its_order_and_spaces(
    tensors: Any, metadata: dict[str, str], data: st.DataObject
) -> None:
    made = entries(tensors)
    order = data.draw(st.permutations([*made, "__metadata__"]))
    text = json.dumps({key: metadata if key == "__metadata__" else made[key] for key in order})
    text += " " * data.draw(st.integers(0, 8))
    header = header_of(text, sum(size_of(*tensor) for tensor in tensors.values()))
    assert header.metadata == metadata and header.data == 8 + len(text)
    assert {
        key: (DTYPES[code], tuple(shape), *made[key]["data_offsets"])
        for key, (code, shape) in tensors.items()
    } == {key: (t.spec.dtype, t.spec.shape, t.start, t.stop) for key, t in header.tensors.items()}


@given(TENSORS, st.integers(-3, 3).filter(bool))
def test_bytes_that_no_tensor_claims_and_tensors_without_bytes_are_refused(tensors: Any, more: int) -> None:
    size = sum(size_of(*tensor) for tensor in tensors.values())
    if size + more >= 0:
        with pytest.raises(SourceError, match="which no tensor claims|it is truncated"):
            header_of(json.dumps(entries(tensors)), size + more)


@given(st.integers(1, 4), st.integers(1, 3))
def test_a_hole_and_an_overlap_are_named_with_both_neighbours(size: int, by: int) -> None:
    made = entries({"a": ("U8", [4]), "b": ("U8", [size])})
    start, stop = made["b"]["data_offsets"]
    for shift, says in ((by, f"'b' leaves a hole of {by} bytes behind 'a'"), (-by, "'b' overlaps 'a'")):
        made["b"]["data_offsets"] = [start + shift, stop + shift]
        with pytest.raises(SourceError, match=says):
            header_of(json.dumps(made), stop + shift)


U8 = '{"dtype":"U8","shape":[],"data_offsets":[0,1]}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", r"does not begin with '\{'"),
        (" {}", r"does not begin with '\{'"),
        ("{} x", "something follows its end at character 2"),
        (f'{{"a":{U8},"a":{U8}}}', "the name 'a' is there twice"),
        (f'{{"a":{U8},}}', "a string is expected"),
        (f'{{"a" {U8}}}', "':' is expected"),
        (f'{{"a":{U8} "b":{U8}}}', "',' is expected"),
        ('{"a":[]}', "is not described by 'dtype', 'shape' and 'data_offsets'"),
        ('{"a":{"dtype":"U8","shape":[]}}', "'a': it has no 'data_offsets'"),
        ('{"a":{"dtype":"U8","dtype":"I8"}}', "the key 'dtype' is there twice"),
        ('{"__metadata__":{"k":"1","k":"2"}}', "the key 'k' of its __metadata__ is there twice"),
        ('{"__metadata__":{"k":1}}', "a string is expected"),
        ('{"__metadata__":{},"__metadata__":{}}', "the name '__metadata__' is there twice"),
        (f'{{"\\ud800":{U8}}}', "is no Unicode text"),
        (U8.replace("U8", "F4").join(['{"a":', "}"]), "packs several values into a byte"),
        (U8.replace('"U8"', "3").join(['{"a":', "}"]), "is not known"),
        (U8.replace("[]", "[true]").join(['{"a":', "}"]), "is no list of at most 64 sizes"),
        (U8.replace("[0,1]", "[1,0]").join(['{"a":', "}"]), "are no range of bytes"),
        (U8.replace("[]", f"[0,{2**62},4]").join(['{"a":', "}"]), "is larger than any array"),
    ],
)
def test_a_header_that_is_none_says_where_it_begins_to_lie(text: str, says: str) -> None:
    with pytest.raises(SourceError, match=f"is no valid safetensors file: .*{says}"):
        header_of(text, 1)
