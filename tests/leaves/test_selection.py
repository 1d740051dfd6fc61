"""Which part of a tree is meant, however it is said."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Name, RuleError
from treeload._leaves.selection import Within, compile_patterns
from treeload._leaves.spec import spec_of

SPEC = jax.ShapeDtypeStruct((2,), np.float32)
NAMES = st.lists(st.text("ab/*", max_size=3), max_size=3).map(tuple)


def holds(scope: Any, *keys: str) -> bool:
    within = Within.of(scope)
    assert within is not None
    return within.holds(keys, SPEC)


@given(NAMES, NAMES)
def test_a_name_means_itself_alone(name: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert holds(Name(name), *other) is (name == other)
    assert holds([Name(name)], *other) is (name == other)


@given(st.lists(NAMES, max_size=4), NAMES)
def test_several_mean_each_of_them(names: list[tuple[str, ...]], other: tuple[str, ...]) -> None:
    for scope in ([Name(name) for name in names], tuple(map(Name, names)), map(Name, names)):
        assert holds(scope, *other) is (other in names)


@given(NAMES)
def test_a_predicate_is_asked_with_the_name_and_the_spec(name: tuple[str, ...]) -> None:
    asked: list[Any] = []

    def asks(*arguments: Any) -> Any:
        asked.append(arguments)
        return "yes"

    within = Within.of(asks)
    assert within is not None and within.holds(name, SPEC) is True
    ((given_name, given_spec),) = asked
    assert type(given_name) is Name and given_name == name
    assert (given_spec.shape, given_spec.dtype) == (SPEC.shape, SPEC.dtype)


def test_a_predicate_sees_no_placement() -> None:
    placed = spec_of(jnp.zeros(2))
    assert placed.sharding is not None
    seen: list[Any] = []

    def sees(name: Any, spec: Any) -> Any:
        seen.append(spec)

    within = Within.of(sees)
    assert within is not None and within.holds(("a",), placed) is False
    assert seen[0].sharding is None


def test_no_scope_leaves_nothing_out_and_an_empty_one_everything() -> None:
    assert Within.of(None) is None
    assert not holds((), "a") and not holds([], "a")


@pytest.mark.parametrize(
    ("given_", "texts"),
    [
        ("a/**", ["a/**"]),
        (Name(("a*", "b")), [r"a\*/b"]),
        (("a", "b"), ["a", "b"]),  # a plain tuple is several
        (re.compile("a.*"), ["a.*"]),
        ([re.compile("a"), "b", Name(("c",))], ["a", "b", "c"]),
        (iter(["a"]), ["a"]),
    ],
)
def test_one_pattern_is_told_from_several(given_: Any, texts: list[str]) -> None:
    assert [pattern.text for pattern in compile_patterns(given_, "here")] == texts


@pytest.mark.parametrize("given_", [3, None, 1.5, object])
def test_what_is_no_pattern_is_refused_by_what_took_it(given_: Any) -> None:
    with pytest.raises(RuleError, match="^freeze takes patterns; not "):
        compile_patterns(given_, "freeze takes patterns")


@pytest.mark.parametrize("scope", [3, "a//b", ["a", 3], True])
def test_a_scope_that_cannot_mean_anything_is_a_rule_error(scope: Any) -> None:
    with pytest.raises(RuleError):
        Within.of(scope)
