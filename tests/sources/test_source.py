"""The seam between treeload and every format: its defaults, and how its errors leave."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import pytest

from treeload import Name, RuleError, Source, SourceError
from treeload._leaves.spec import Spec
from treeload._sources.source import SourceLeaf, as_source_error

SPEC = jax.ShapeDtypeStruct((2,), np.float32)


class Smallest(Source):
    """All that is asked of a source."""

    def specs(self) -> Mapping[Name, Spec]:
        return {Name(("a",)): SPEC}

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        yield from ()


def test_a_source_of_two_methods_has_no_ties_absences_statics_numbers_or_columns() -> None:
    source = Smallest()
    assert (source.ties(), source.absent(), source.statics(), source.numbers(), source.columns()) == (
        {}, {}, frozenset(), frozenset(), None,
    )  # fmt: skip
    assert source.shaped() == source.specs()
    assert not (source.positional or source.counts_numbers or source.gives_away or source.in_memory)


@pytest.mark.parametrize("lacking", ["specs", "read"])
def test_a_source_without_one_of_the_two_methods_cannot_be_made(lacking: str) -> None:
    methods = {name: getattr(Smallest, name) for name in ("specs", "read") if name != lacking}
    with pytest.raises(TypeError, match=lacking):
        type("Less", (Source,), methods)()


def test_only_a_source_in_memory_is_taken_from() -> None:
    with pytest.raises(NotImplementedError, match="Smallest is not in memory: its arrays are read"):
        Smallest().take(("a",))


def test_a_source_prints_its_class_and_its_label() -> None:
    assert repr(Smallest()) == "<Smallest a source>"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_of_a_source_has_what_read_only_views_hold(again: Any) -> None:
    source = Smallest()
    source.metadata, source.label = MappingProxyType({"step": 3}), "mine"
    assert again(source).metadata == {"step": 3} and again(source).label == "mine"
    assert source.metadata["step"] == 3


def test_a_leaf_of_a_source_prints_its_own_name() -> None:
    assert str(SourceLeaf("mine", Name(("a/b", "c")), SPEC)) == "a\\/b/c"


# Errors.


def test_what_goes_well_is_left_alone() -> None:
    with as_source_error("it could not be read"):
        pass


def test_whatever_goes_wrong_is_a_source_error_with_its_cause() -> None:
    cause = OSError("the disk\n  is gone")
    with pytest.raises(SourceError) as caught, as_source_error("'a' could not be read"):
        raise cause
    assert str(caught.value) == "'a' could not be read: OSError: the disk is gone"
    assert caught.value.__cause__ is cause


def test_an_error_without_a_word_says_so_and_a_very_long_one_is_cut() -> None:
    with pytest.raises(SourceError, match="ValueError: no further word"), as_source_error("it failed"):
        raise ValueError
    with pytest.raises(SourceError) as caught, as_source_error("it failed"):
        raise ValueError("x" * 301)
    assert str(caught.value) == f"it failed: ValueError: {'x' * 300} …"


def test_a_lack_of_memory_is_said_in_words() -> None:
    with pytest.raises(SourceError, match="it failed: not enough memory$"), as_source_error("it failed"):
        raise MemoryError


@pytest.mark.parametrize(
    "error", [SourceError("mine"), RuleError("mine"), KeyboardInterrupt(), GeneratorExit()]
)
def test_treeloads_own_errors_and_interrupts_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, as_source_error("it failed"):
        raise error
    assert caught.value is error
