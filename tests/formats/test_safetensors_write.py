"""A safetensors file is written whole, as the format's own library reads it, or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.flax import load_file

from treeload import SaveError
from treeload._formats.safetensors.header import DTYPES
from treeload._formats.safetensors.source import SafetensorsSource
from treeload._formats.safetensors.write import Leaving, write
from treeload._leaves.spec import spec_of, without_sharding


def leaving(**arrays: Any) -> list[Leaving]:
    return [
        (tuple(name.split("__")), without_sharding(spec_of(array)), lambda array=array: array)  # type: ignore[misc]
        for name, array in arrays.items()
    ]


def read(path: Path) -> dict[str, Any]:
    source = SafetensorsSource(path)
    return {str(name): np.asarray(array) for name, array in source.read(source.specs())}


def header(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    found: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return found


@given(
    shapes=st.lists(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), max_size=4),
    dtype=st.sampled_from(sorted({np.dtype(dtype) for dtype in DTYPES.values()}, key=str)),
    data=st.data(),
)
def test_what_is_written_is_read_bit_for_bit(
    tmp_path_factory: Any, shapes: list[tuple[int, ...]], dtype: Any, data: Any
) -> None:
    path = tmp_path_factory.mktemp("x") / "a.safetensors"
    arrays = {
        f"w{i}": (np.arange(np.prod(shape, dtype=int)) % 2).astype(dtype).reshape(shape)
        for i, shape in enumerate(shapes)
    }
    write(path, leaving(**arrays), {})
    found = read(path)
    assert {name: (a.shape, a.dtype, a.tobytes()) for name, a in found.items()} == {
        name: (a.shape, a.dtype, a.tobytes()) for name, a in arrays.items()
    }


def test_the_formats_own_library_reads_it(tmp_path: Path) -> None:
    arrays = {
        "a__w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a__b": np.arange(3).astype(ml_dtypes.bfloat16),
        "step": np.asarray(7, np.int64),
        "f": np.asarray([], np.float16),
    }
    write(tmp_path / "a.safetensors", leaving(**arrays), {"format": "pt", "k": "ü"})
    found = load_file(tmp_path / "a.safetensors")
    assert found["a.w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["a.b"].dtype == jnp.bfloat16
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "k": "ü"}


def test_the_header_ends_on_eight_bytes_and_keeps_the_order(tmp_path: Path) -> None:
    for length in range(1, 9):
        path = tmp_path / f"{length}.safetensors"
        write(path, leaving(**{"z" * length: np.zeros(2), "a": np.zeros(1)}), {})
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
        assert list(header(path)) == ["z" * length, "a"]


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3).T, np.arange(12.0)[::2], jnp.arange(6.0).reshape(2, 3).T]
)
def test_arrays_that_are_not_contiguous_are_written_in_c_order(tmp_path: Path, array: Any) -> None:
    write(tmp_path / "a.safetensors", leaving(w=array), {})
    assert read(tmp_path / "a.safetensors")["w"].tolist() == array.tolist()


def test_arrays_are_asked_for_one_at_a_time_and_in_order(tmp_path: Path) -> None:
    asked: list[int] = []

    def made(number: int) -> Any:
        def make() -> Any:
            asked.append(number)
            return np.zeros(2)

        return make

    leaves = [((str(i),), without_sharding(spec_of(np.zeros(2))), made(i)) for i in range(3)]
    write(tmp_path / "a.safetensors", leaves, {})
    assert asked == [0, 1, 2]


def test_metadata_that_is_no_text_is_written_as_json(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", leaving(w=np.zeros(1)), {"step": 3, "tags": ["a"], "s": "t"})
    assert header(tmp_path / "a.safetensors")["__metadata__"] == {"step": "3", "tags": '["a"]', "s": "t"}


def test_no_metadata_is_no_metadata(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", leaving(w=np.zeros(1)), {})
    assert "__metadata__" not in header(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("leaves", "metadata", "said"),
    [
        ([*leaving(**{"a.b": np.zeros(1)}), *leaving(a__b=np.zeros(1))], {}, r"two leaves are both 'a\.b'"),
        (leaving(w=np.zeros(1, np.longdouble)), {}, "no such dtype"),
        (
            [(("__metadata__",), without_sharding(spec_of(np.zeros(1))), lambda: np.zeros(1))],
            {},
            "keeps its metadata there",
        ),
        (leaving(**{"\ud800": np.zeros(1)}), {}, "no valid text"),
        (leaving(w=np.zeros(1)), {"a": object()}, "metadata 'a' cannot be written"),
        (leaving(w=np.zeros(1)), {"a": np.zeros(2)}, "metadata 'a' cannot be written"),
        (leaving(w=np.zeros(1)), {3: "a"}, "metadata 3 cannot be written.*int"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_before_a_byte_is_written(
    tmp_path: Path, leaves: Any, metadata: Any, said: str
) -> None:
    with pytest.raises(SaveError, match=said):
        write(tmp_path / "deep" / "a.safetensors", leaves, metadata)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_not_replaced_not_even_a_dangling_link(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SaveError, match="exists"):
        write(path, leaving(w=np.zeros(1)), {})
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_file_that_came_while_it_was_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"

    def late() -> Any:
        path.write_text("somebody else's")
        return np.zeros(1)

    with pytest.raises(SaveError, match="could not be written"):
        write(path, [(("w",), without_sharding(spec_of(np.zeros(1))), late)], {})
    assert path.read_text() == "somebody else's"
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space"), ValueError("ours"), KeyboardInterrupt("now")]
)
def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fails() -> Any:
        raise error

    leaves = [*leaving(a=np.zeros(3)), (("b",), without_sharding(spec_of(np.zeros(1))), fails)]
    expected = SaveError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match=re.escape(str(error))):
        write(tmp_path / "a.safetensors", leaves, {})
    assert os.listdir(tmp_path) == []


def test_an_array_that_is_not_what_was_said_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"w was to be float64\[2\] and is float64\[3\]"):
        write(
            tmp_path / "a.safetensors",
            [(("w",), without_sharding(spec_of(np.zeros(2))), lambda: np.zeros(3))],
            {},
        )
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file_is_a_save_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="could not be written"):
        write(tmp_path / "file" / "a.safetensors", leaving(w=np.zeros(1)), {})


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*args: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuses)
    write(tmp_path / "a.safetensors", leaving(w=np.zeros(1)), {})
    assert os.listdir(tmp_path) == ["a.safetensors"]
    with pytest.raises(SaveError, match="exists"):
        write(tmp_path / "a.safetensors", leaving(w=np.zeros(1)), {})
