"""One tree of errors, whose facts are attributes."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import (
    Finding,
    LoadError,
    LockError,
    Name,
    NameCollision,
    RuleError,
    SaveError,
    SourceError,
    TreeloadError,
)
from treeload._findings.kinds import Kind
from treeload._findings.remedy import UseOps
from treeload._plans.as_dict import finding_dict
from treeload.rules import Made, compile_pattern


@pytest.mark.parametrize("error", [LoadError, SourceError, RuleError, NameCollision, SaveError, LockError])
def test_every_error_is_a_treeload_error(error: type[Exception]) -> None:
    assert issubclass(error, TreeloadError)
    assert error.__bases__[0] is TreeloadError


def test_only_a_rule_error_is_a_value_error() -> None:
    assert issubclass(RuleError, ValueError)
    others = (TreeloadError, LoadError, SourceError, NameCollision, SaveError, LockError)
    assert not any(issubclass(other, ValueError) for other in others)


def test_errors_are_called_as_users_write_them() -> None:
    for error in (TreeloadError, LoadError, SourceError, RuleError, NameCollision, SaveError, LockError):
        assert f"{error.__module__}.{error.__qualname__}" == f"treeload.{error.__name__}"


def _raised() -> LoadError:
    with pytest.raises(LoadError) as raised:
        treeload.load({"a": jnp.zeros(2), "b": jnp.zeros(2)}, {"a": jnp.zeros(3)})
    return raised.value


def test_a_load_error_carries_its_plan_and_every_finding_that_is_an_error() -> None:
    error = _raised()
    assert isinstance(error.plan, treeload.Plan)
    assert error.findings == error.plan.errors
    assert {(finding.kind, finding.name) for finding in error.findings} == {
        ("shape", ("a",)),
        ("missing", ("b",)),
    }


def test_a_load_error_that_crosses_a_process_keeps_its_text_and_its_findings() -> None:
    error = _raised()
    error.add_note("while it was cold")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is LoadError
    assert (str(copy), copy.findings) == (str(error), error.findings)
    assert copy.plan is None and copy.__notes__ == ["while it was cold"]


class Mine(treeload.Rule):
    """A rule that no other process could import."""

    patterns = (compile_pattern("b"),)

    def give(self, taken):
        return [Made.of(("b",), (("b",),), self.fail)]

    def fail(self):
        raise RuleError("no")

    def __reduce__(self):
        raise TypeError("cannot pickle a rule of mine")

    def __repr__(self) -> str:
        return "Mine()"


def test_what_does_not_pickle_crosses_as_what_it_prints_as() -> None:
    dst = {"a": jnp.zeros(2), "b": jnp.zeros(2), "c": jnp.zeros(2)}
    rules = [treeload.Rename("a", "a", treeload.Apply(lambda x: x[None])), Mine()]
    with pytest.raises(LoadError) as raised:
        treeload.load(dst, {"a": jnp.zeros(2), "b": jnp.zeros(2)}, rules=rules)
    error = raised.value
    copy = pickle.loads(pickle.dumps(error))
    facts = [finding_dict(finding) for finding in error.findings]
    assert [finding_dict(finding) for finding in copy.findings] == facts
    assert {repr(finding.rule) for finding in copy.findings} == {
        "None", "Mine()", "Rename('a', 'a', Apply(<lambda>))",
    }  # fmt: skip
    (missing,) = (finding for finding in error.findings if finding.kind == "missing")
    assert missing in copy.findings  # what pickles is the very same


def test_a_remedy_that_does_not_pickle_crosses_as_what_it_says() -> None:
    way = UseOps((treeload.Apply(lambda x: x),), ("a",))
    finding = Finding(Kind.SHAPE, Name(("a",)), "error", remedies=(way,))
    (copy,) = pickle.loads(pickle.dumps(LoadError("x", findings=(finding,), plan=_raised().plan))).findings
    assert (copy.remedies[0].before, copy.remedies[0].code) == (way.before, way.code)
    assert copy.remedy == finding.remedy


def test_errors_come_out_of_a_pool_of_processes_with_their_facts(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    cases: list[tuple[type[Exception], Any, tuple[Any, ...]]] = [
        (LoadError, treeload.load, ({"a": np.zeros(2)}, {"a": np.zeros(3)})),
        (SourceError, treeload.open, (tmp_path / "nothing",)),
        (RuleError, treeload.Rename, ("a//b", "c")),
        (NameCollision, treeload.names, ({1: np.zeros(1), "1": np.zeros(1)},)),
        (SaveError, treeload.save, (tmp_path / "there", {"a": np.zeros(1)})),
        (LockError, treeload.check_lock, (treeload.plan({"a": np.zeros(1)}, {"a": np.zeros(1)}), "nothing")),
        (TreeloadError, treeload.average, ([{"a": np.zeros(2)}, {"a": np.zeros(3)}],)),
    ]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for error, verb, arguments in cases:
            found = pool.submit(verb, *arguments).exception(timeout=120)
            assert isinstance(found, error) and len(str(found)) > 20, found
            if verb in (treeload.load, treeload.average):
                assert [finding.kind for finding in found.findings] == ["shape"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "error", [TreeloadError, SourceError, RuleError, NameCollision, SaveError, LockError]
)
def test_other_errors_survive_pickling(error: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(error("text")))
    assert type(copy) is error
    assert str(copy) == "text"
