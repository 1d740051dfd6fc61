"""One tree of errors, whose facts are attributes."""

from __future__ import annotations

import pickle

import jax.numpy as jnp
import pytest

import treeload
from treeload import LoadError, LockError, NameCollision, RuleError, SaveError, SourceError, TreeloadError


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


def test_a_load_error_that_crosses_a_process_keeps_its_text() -> None:
    error = _raised()
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, TreeloadError)
    assert str(copy) == str(error)


@pytest.mark.parametrize(
    "error", [TreeloadError, SourceError, RuleError, NameCollision, SaveError, LockError]
)
def test_other_errors_survive_pickling(error: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(error("text")))
    assert type(copy) is error
    assert str(copy) == "text"
