"""Tests to build on: ``check_names`` for a model that changes, and for those who write a ``Source`` a suite.

``check_names`` keeps a file of a model's names and shapes. ``SourceConformance`` is the conformance suite
that every format of treeload passes:

    class TestMyFormat(treeload.testing.SourceConformance):
        def make(self, directory, leaves):
            path = directory / "weights.mine"
            my_format.write(path, {str(name): array for name, array in leaves.items()})
            return MySource(path)

Owns laws that hold for every source. Malformed files are a format's own affair and its own tests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from treeload._checkpoints import golden
from treeload._checkpoints.history import History
from treeload._errors import SourceError
from treeload._leaves.spec import spec_of, without_sharding
from treeload._naming.name import Name
from treeload._sources import given
from treeload._sources.source import Source
from treeload._trees.tree import PyTree

_DTYPES = ("float32", "float16", "bfloat16", "float64", "int8", "int32", "int64", "uint8", "uint32", "bool")


def _example_leaves(dtypes: tuple[str, ...]) -> dict[Name, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    leaves: dict[Name, np.ndarray[Any, Any]] = {}
    for dtype in dtypes:
        np_dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
        values = rng.integers(0, 2 if dtype == "bool" else 100, (3, 5))
        leaves[Name(("dtypes", dtype))] = values.astype(np_dtype)
    leaves[Name(("layers", "0", "kernel"))] = rng.normal(size=(7, 3)).astype(np.float32)
    leaves[Name(("layers", "10", "kernel"))] = rng.normal(size=(7, 3)).astype(np.float32)
    leaves[Name(("layers", "2", "kernel"))] = rng.normal(size=(1,)).astype(np.float32)
    leaves[Name(("step",))] = np.asarray(7, np.int32)
    return leaves


class SourceConformance:
    """Subclass this in a test file and write ``make``; pytest then runs the laws against your source.

    Attributes:
        dtypes: the dtypes that the format can hold.
    """

    dtypes: tuple[str, ...] = _DTYPES

    def make(self, directory: Path, leaves: Mapping[Name, np.ndarray[Any, Any]]) -> Source:
        """Writes ``leaves`` below ``directory``, an empty folder; the source that reads them."""
        raise NotImplementedError("write make() in your subclass")

    @pytest.fixture
    def leaves(self) -> dict[Name, np.ndarray[Any, Any]]:
        return _example_leaves(self.dtypes)

    @pytest.fixture
    def source(self, tmp_path: Path, leaves: dict[Name, np.ndarray[Any, Any]]) -> Source:
        return self.make(tmp_path, leaves)

    def test_is_a_source_with_a_label(self, source: Source) -> None:
        assert isinstance(source, Source)
        assert source.label and "\n" not in source.label
        assert isinstance(source.metadata, Mapping)

    def test_specs_give_every_name_shape_and_dtype(self, source: Source, leaves: Mapping[Name, Any]) -> None:
        found = {name: (spec.shape, spec.dtype) for name, spec in source.specs().items()}
        assert found == {name: (array.shape, array.dtype) for name, array in leaves.items()}
        assert all(isinstance(name, Name) for name in source.specs())
        assert all(isinstance(spec, jax.ShapeDtypeStruct) for spec in source.specs().values())

    def test_reads_every_leaf_bit_for_bit_on_the_host(
        self, source: Source, leaves: Mapping[Name, Any]
    ) -> None:
        got = dict(source.read({name: _request(spec) for name, spec in source.specs().items()}))
        assert set(got) == set(leaves)
        for name, array in leaves.items():
            _assert_same(np.asarray(got[name]), array)

    def test_reads_only_what_is_asked_for(self, source: Source, leaves: Mapping[Name, Any]) -> None:
        name = Name(("layers", "10", "kernel"))
        got = list(source.read({name: _request(source.specs()[name])}))
        assert [found for found, _ in got] == [name]
        _assert_same(np.asarray(got[0][1]), leaves[name])

    def test_reads_nothing_when_asked_for_nothing(self, source: Source) -> None:
        assert list(source.read({})) == []

    def test_reads_again(self, source: Source) -> None:
        requests = {name: _request(spec) for name, spec in source.specs().items()}
        first, second = dict(source.read(requests)), dict(source.read(requests))
        for name in requests:
            _assert_same(np.asarray(first[name]), np.asarray(second[name]))

    def test_places_where_asked(self, source: Source, leaves: Mapping[Name, Any]) -> None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[-1])
        requests = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
            for name, array in leaves.items()
            if jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
        }
        got = dict(source.read(requests))
        assert set(got) == set(requests)
        for name, array in got.items():
            assert isinstance(array, jax.Array)
            assert array.sharding == sharding
            _assert_same(np.asarray(array), leaves[name])

    def test_what_it_yields_is_the_callers_own(self, source: Source, leaves: Mapping[Name, Any]) -> None:
        name = Name(("layers", "0", "kernel"))
        request = {name: _request(source.specs()[name])}
        ((_, array),) = source.read(request)
        if isinstance(array, np.ndarray):
            array = array if array.flags.writeable else array.copy()
            array[...] = -1
        else:
            array = array + 1
        ((_, again),) = source.read(request)
        _assert_same(np.asarray(again), leaves[name])

    def test_refuses_a_name_that_it_has_not(self, source: Source) -> None:
        unknown = Name(("no", "such", "leaf"))
        with pytest.raises((SourceError, KeyError)):
            list(source.read({unknown: spec_of(jnp.zeros(()))}))

    def test_ties_and_absences_are_consistent(self, source: Source) -> None:
        specs = source.specs()
        for alias, canonical in source.ties().items():
            assert alias in specs and canonical in specs
        assert source.numbers() <= set(specs)
        for name, value in source.absent().items():
            assert name not in specs
            assert value is None or value is False


# For those who change a model.


def check_names(path: str | os.PathLike[str], model: PyTree, *, history: History | None = None) -> None:
    """Nothing, where a model's names and shapes are those of the file, or its history says how they changed.

    A test of a few lines that fails when a parameter is renamed, reshaped, brought or dropped and the
    history does not tell: its message holds the ``Version`` to add, written out. The file keeps the names
    of each version, and all of them must still lead to the model. Where it is missing it is written, and
    the test fails once; of a new version it is completed. Commit it.

    Args:
        path: the file, ``tests/names.json`` say.
        model: the model, concrete or abstract; no value is looked at.
        history: its history; None is ``History()``.

    Examples:
        >>> import tempfile, os, jax.numpy as jnp
        >>> path = os.path.join(tempfile.mkdtemp(), "names.json")
        >>> try:
        ...     check_names(path, {"w": jnp.ones((2, 3))})
        ... except AssertionError as error:
        ...     print(str(error).rpartition("' ")[2])
        was not there: it has been written. Commit it, and run the test again.
        >>> check_names(path, {"w": jnp.zeros((2, 3))})

    Raises:
        AssertionError: they are others; with the ``Version`` to add where one was found.
        SourceError: the file is none of this kind.
    """
    __tracebackhide__ = True  # what pytest shows is the message, not these lines
    known = History() if history is None else history
    where = Path(os.fspath(path))
    walked = given.destination(model, {}, "check_names")
    today = golden.Recorded(
        known.newest, {Name(name): without_sharding(spec_of(value)) for name, value in walked.leaves()}
    )
    if not where.exists():
        golden.write(where, [today])
        raise AssertionError(
            f"{str(where)!r} was not there: it has been written. Commit it, and run the test again."
        )
    recorded = golden.read(where)
    wrong = golden.difference(recorded, model, known)
    if wrong is not None:
        raise AssertionError(f"{str(where)!r}: {wrong}")
    if recorded[-1].version != known.newest:
        golden.write(where, [*recorded, today])


# What the suite needs.


def _request(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(spec.shape, spec.dtype)


def _assert_same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()
