"""The table of ``docs/formats.md``: each cell is what the format does when it is tried."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
from format_writers import WRITERS, Writer
from servers import serving

import treeload
from treeload._formats import formats, recognising
from treeload._sources.source import Source

PAGE = Path(__file__).parent.parent.parent / "docs" / "formats.md"
BIG = np.random.default_rng(0).random((512, 1024)).astype(np.float32)  # 2 MiB that do not compress
LEAVES = {"big": BIG, "small": np.arange(8, dtype=np.float32)}
LITTLE = BIG.nbytes // 8


def table() -> dict[str, dict[str, str]]:
    """Format → column → cell."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0].strip("`"): dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def bytes_read() -> int:
    """What this process has asked the system to read so far, by whatever library."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


def opened(write: Writer, directory: Path, leaves: Mapping[str, np.ndarray] = LEAVES) -> Source:
    directory.mkdir()
    return treeload.open(write(directory, leaves))


def leaf(source: Source, shape: tuple[int, ...]) -> tuple[treeload.Name, jax.ShapeDtypeStruct]:
    return next((name, spec) for name, spec in source.specs().items() if spec.shape == shape)


def specs_without_reading(write: Writer, directory: Path) -> str:
    opened(write, directory / "first").specs()  # what is imported now is not read again
    (directory / "then").mkdir()
    path = write(directory / "then", LEAVES)
    before = bytes_read()
    assert len(treeload.open(path).specs()) == 2
    return "yes" if bytes_read() - before < LITTLE else "no"


def partial_read(write: Writer, directory: Path) -> str:
    for turn in ("first", "then"):  # as above
        source = opened(write, directory / turn)
        few, all_of_it = (read_alone(source, array) for array in (LEAVES["small"], BIG))
    assert all_of_it > BIG.nbytes * 0.8  # else what is read is not seen
    return "yes" if few < LITTLE else "no"


def read_alone(source: Source, wanted: np.ndarray) -> int:
    """How many bytes were read for one leaf."""
    name, spec = leaf(source, wanted.shape)
    before = bytes_read()
    ((_, array),) = source.read({name: spec})
    np.testing.assert_array_equal(array, wanted)
    return bytes_read() - before


def sharded_read(write: Writer, directory: Path) -> str:
    source = opened(write, directory / "x")
    name, spec = leaf(source, BIG.shape)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:4]), ("x",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    ((_, array),) = source.read({name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=spread)})
    np.testing.assert_array_equal(array, BIG)
    return "yes" if array.sharding == spread else "no"


def digest(write: Writer, directory: Path) -> str:
    if treeload.verify(write(directory, LEAVES)).ok:
        return "its own"
    path = write(directory, LEAVES)
    treeload.digest(path)
    return "beside it" if treeload.verify(path).ok else "no"


def ties(write: Writer, directory: Path) -> str:
    one = np.arange(3, dtype=np.float32)
    return "yes" if opened(write, directory / "x", {"a": one, "b": one}).ties() else "no"


def written_by(name: str, write: Writer, directory: Path) -> str:
    suffix = write(directory, LEAVES).suffix
    verbs: Mapping[str, Callable[..., None]] = {"save": treeload.save, "export": treeload.export}
    found = []
    for verb, does in verbs.items():
        path = directory / f"{verb}{suffix}"
        try:
            does(path, LEAVES)
        except treeload.SaveError:  # called as a file of a format that it does not write
            continue
        told = recognising(path)
        assert told is not None
        found += [f"`{verb}`"] if told.name == name else []
    return ", ".join(found) or "no"


COLUMNS: Mapping[str, Callable[[str, Writer, Path], str]] = {
    "specs without reading": lambda _, write, directory: specs_without_reading(write, directory),
    "partial read": lambda _, write, directory: partial_read(write, directory),
    "sharded read": lambda _, write, directory: sharded_read(write, directory),
    "digest": lambda _, write, directory: digest(write, directory),
    "ties": lambda _, write, directory: ties(write, directory),
    "write": written_by,
}


def test_the_table_has_a_row_for_each_format_in_their_order_and_a_test_for_each_column() -> None:
    assert list(table()) == [each.name for each in formats()]
    assert all(list(row) == list(COLUMNS) for row in table().values())


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", [each.name for each in formats()])
def test_each_cell_is_true(name: str, column: str, tmp_path: Path) -> None:
    assert table()[name][column] == COLUMNS[column](name, WRITERS[name], tmp_path)


@pytest.mark.parametrize("name", [each.name for each in formats()])
def test_each_format_is_told_by_its_bytes_where_it_is_a_file(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path, LEAVES)
    if path.is_file():
        path = path.rename(tmp_path / "4f1b0a77d2")
    told = recognising(path)
    assert told is not None and told.name == name


@pytest.mark.parametrize("name", ["tensorflow", "hdf5", "gguf"])
def test_these_are_read_from_a_web_server_and_a_plan_costs_little_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    path = WRITERS[name](tmp_path, LEAVES)
    with serving(tmp_path) as server:
        asked = path.name if path.exists() else f"{path.name}.index"  # a server is asked for files alone
        source = treeload.open(f"{server.url}/{asked}")
        assert source.specs().keys() == treeload.open(path).specs().keys()
        assert server.sent < LITTLE * 2
        for key, array in source.read(source.specs()):
            np.testing.assert_array_equal(array, LEAVES[key[0]])
