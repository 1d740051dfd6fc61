"""Checkpoints that TensorFlow wrote, kept in ``tests/data/tensorflow`` with the script that made them."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import treeload
from treeload import SourceError
from treeload._formats.tensorflow.source import TensorflowSource

DATA = Path(__file__).parent.parent / "data" / "tensorflow"


def expected(which: str) -> dict[str, np.ndarray]:
    found = {}
    with np.load(DATA / "values.npz") as file:
        for key in file.files:
            kind, name, dtype, shape = key.split(":")
            sizes = tuple(int(each) for each in shape.strip("()").split(",") if each.strip())
            if kind == which:
                found[name] = file[key].view(np.dtype(getattr(ml_dtypes, dtype, dtype))).reshape(sizes)
    return found


@pytest.mark.parametrize(("which", "leaves"), [("saver", 22), ("objects", 4)])
def test_what_tensorflow_wrote_is_read_bit_for_bit(which: str, leaves: int) -> None:
    source = TensorflowSource(DATA / which)
    found = {str(name): array for name, array in source.read(source.specs())}
    wanted = expected(which)
    assert len(wanted) == leaves and set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name
    assert treeload.verify(DATA / which).ok


def test_several_data_files_and_texts_are_what_they_are() -> None:
    source = treeload.open(DATA / "saver" / "network.040")
    assert source.label.endswith("(TensorFlow, 3 data files)")
    assert source.statics() == {("a_text",)}


def test_the_latest_of_a_manager_is_opened_and_an_earlier_one_by_its_path() -> None:
    assert TensorflowSource(DATA / "objects").step == 2
    latest, first = (
        dict(source.read(source.specs()))[treeload.Name("model/dense/kernel")]
        for source in (treeload.open(DATA / "objects"), treeload.open(DATA / "objects" / "ckpt-1"))
    )
    np.testing.assert_array_equal(latest, first + 1)


def test_a_partitioned_variable_is_refused_by_its_name() -> None:
    with pytest.raises(SourceError, match="'table/embedding': it is a partitioned variable"):
        treeload.open(DATA / "partitioned" / "x")


def test_every_flipped_byte_of_the_index_of_objects_is_found(tmp_path: Path) -> None:
    shutil.copytree(DATA / "objects", tmp_path / "x")
    index = tmp_path / "x" / "ckpt-2.index"
    raw = index.read_bytes()
    for at in range(len(raw) - 48):
        index.write_bytes(raw[:at] + bytes([raw[at] ^ 0x41]) + raw[at + 1 :])
        with pytest.raises(SourceError, match="its checksum is another one"):
            treeload.open(tmp_path / "x")
