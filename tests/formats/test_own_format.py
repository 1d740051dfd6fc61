"""A format of one's own: one file that ends in FORMAT, one line in the list, and every verb reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import treeload
from treeload import From, SourceError
from treeload._files.open import look_at, opened, read_bytes
from treeload._files.pieces import Stored
from treeload._files.place import Place
from treeload._files.read import read_stored
from treeload._files.strict_json import parse_json
from treeload._formats import FORMATS
from treeload._leaves.spec import Spec
from treeload._naming.name import Name
from treeload._sources.format import Format
from treeload._sources.source import Source
from treeload.testing import SourceConformance

MAGIC = b"toy1"


def write_toy(path: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Path:
    """``toy1``, a line of JSON (name, shape, dtype of each array), then the arrays."""
    rows = [[str(name), array.shape, array.dtype.name] for name, array in leaves.items()]
    header = str(rows).replace("(", "[").replace(",)", "]").replace(")", "]").replace("'", '"')
    body = b"".join(array.tobytes() for array in leaves.values())
    path.write_bytes(MAGIC + header.encode() + b"\n" + body)
    return path


def recognises(path: Place) -> bool:
    return path.suffix == ".toy"


class ToySource(Source):
    gives_away = True

    def __init__(self, path: Path, *, separator: str = "/") -> None:
        self.label = f"{str(path)!r} (toy)"
        file = look_at(path)
        with opened(file) as descriptor:
            start = read_bytes(descriptor, min(file.size, 1 << 16), 0)
        if not start.startswith(MAGIC):
            raise SourceError(f"{file} does not begin as a toy does")
        header, _, _ = start[len(MAGIC) :].partition(b"\n")
        at = len(MAGIC) + len(header) + 1
        self._stored: dict[Name, Stored] = {}
        for name, shape, dtype in parse_json(header.decode()):
            spec = jax.ShapeDtypeStruct(tuple(shape), np.dtype(getattr(ml_dtypes, dtype, dtype)))
            self._stored[Name(name.split(separator))] = Stored(file, at, spec)
            at += int(np.prod(shape)) * spec.dtype.itemsize

    def specs(self) -> Mapping[Name, Spec]:
        return {name: stored.spec for name, stored in self._stored.items()}

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        return read_stored(self._stored, requests, self.label)


FORMAT = Format(
    name="toy",
    words="toys: a file that ends in .toy",
    recognises=recognises,
    opens=ToySource,
    options=frozenset({"separator"}),
    claims_missing=lambda path: path.name == "made_on_demand.toy",
)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("treeload._formats.FORMATS", (*FORMATS, __name__))  # the one line
    return write_toy(tmp_path / "x.toy", {Name(("layer", "w")): np.arange(6, dtype=np.float32).reshape(2, 3)})


class TestToy(SourceConformance):
    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        return ToySource(write_toy(directory / "x.toy", leaves))


def test_the_verbs_read_it(toy: Path) -> None:
    dst = {"layer": {"w": jnp.zeros((2, 3))}}
    assert isinstance(treeload.open(toy), ToySource)
    assert treeload.plan(dst, toy).ok
    np.testing.assert_array_equal(treeload.load(dst, toy)["layer"]["w"], np.arange(6).reshape(2, 3))
    assert "layer/w  float32[2,3]" in str(treeload.inspect(toy))


def test_it_is_asked_with_the_options_that_it_has(toy: Path) -> None:
    plan = treeload.plan({"layer/w": jnp.zeros((2, 3))}, From(toy, separator="."))
    assert plan.ok


def test_an_option_that_it_has_not_is_refused(toy: Path) -> None:
    with pytest.raises(SourceError, match="x.toy' is no Orbax checkpoint, so it has no item 'ema'"):
        treeload.plan({"layer": {"w": jnp.zeros((2, 3))}}, From(toy, item="ema"))


def test_it_answers_for_a_path_that_does_not_exist_where_it_says_so(toy: Path) -> None:
    with pytest.raises(SourceError, match="cannot open .*made_on_demand.toy"):
        treeload.open(toy.with_name("made_on_demand.toy"))
    with pytest.raises(SourceError, match="does not exist; .* holds x.toy"):
        treeload.open(toy.with_name("y.toy"))


def test_its_words_are_among_those_that_are_known(toy: Path) -> None:
    toy.with_name("noise").write_bytes(b"\x07\x01\xff\x00" * 8)
    with pytest.raises(SourceError, match="toys: a file that ends in .toy"):
        treeload.open(toy.with_name("noise"))
