"""A source of the user's own whose ``specs`` is nonsense: said once, as an error of ours, by every verb."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import Name, Source, SourceError

SPEC = jax.ShapeDtypeStruct((3,), np.float32)
W = Name(("w",))
DST = {"w": np.zeros(3, np.float32), "b": {"c": np.zeros(2, np.float32)}}


class Says(Source):
    """A source whose specs are what is given."""

    label = "'s' (test)"

    def __init__(self, specs: Any) -> None:
        self.said = specs

    def specs(self) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        raise AssertionError("it is never asked")


NONSENSE: Mapping[str, tuple[Any, str]] = {
    "nothing": (None, r"specs\(\) gave a NoneType, not a mapping"),
    "a list": ([W], r"specs\(\) gave a list"),
    "a text as name": ({"w": SPEC}, "has the key 'w', which is no Name"),
    "a number in a name": ({("w", 3): SPEC}, "which is no Name"),
    "no spec": ({W: None}, "says of 'w' that its shape is None"),
    "a text as spec": ({W: "float32[3]"}, "that its shape is None"),
    "a text as shape": ({W: SimpleNamespace(shape="3", dtype=np.dtype("f4"))}, "that its shape is '3'"),
    "a negative size": ({W: jax.ShapeDtypeStruct((-3,), np.float32)}, r"that its shape is \(-3,\)"),
    "a text as dtype": ({W: SimpleNamespace(shape=(3,), dtype="float32")}, "that its dtype is 'float32'"),
    "objects": ({W: SimpleNamespace(shape=(3,), dtype=np.dtype(object))}, r"that its dtype is dtype\('O'\)"),
    "an error": (ZeroDivisionError("oh"), "does not say what it holds: ZeroDivisionError: oh"),
}

VERBS: Mapping[str, Callable[[Source], Any]] = {
    "plan": lambda source: treeload.plan(DST, source),
    "load": lambda source: treeload.load(DST, source, policy=treeload.Policy(missing="keep")),
    "inspect": treeload.inspect,
    "diff": lambda source: treeload.diff(source, DST),
    "average": lambda source: treeload.average([source, source]),
    "a From": lambda source: treeload.plan(DST, treeload.From(source, separator=".")),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize(("said", "word"), NONSENSE.values(), ids=NONSENSE)
def test_specs_that_are_nonsense_are_an_error_of_ours(verb: Any, said: Any, word: str) -> None:
    with pytest.raises(SourceError, match=word) as raised:
        verb(Says(said))
    assert str(raised.value).startswith("'s' (test) does not say what it holds: ")


def test_what_is_said_with_numbers_of_numpy_is_fine() -> None:
    shape = (np.int64(3),)
    source = Says({W: SimpleNamespace(shape=shape, dtype=np.dtype("f4"))})
    assert [str(leaf.name) for leaf in treeload.inspect(source).leaves] == ["w"]


@pytest.mark.parametrize("theirs", ["a\0b", "\0", "0\0", "a"])
@pytest.mark.parametrize("ours", ["a\0b", "\0\0", "a"])
def test_a_key_with_a_nul_is_a_name_like_any_other(ours: str, theirs: str) -> None:
    dst = {"layers": [{ours: np.zeros((2, 3))}, {ours: np.zeros((2, 3))}], "b": np.zeros(4)}
    src = {"blocks": [{theirs: np.ones((3, 2))}, {theirs: np.ones((3, 2))}], "c": np.ones(4)}
    plan = treeload.plan(dst, src)
    rules = plan.suggest()
    assert "\0" not in str(plan) + str(rules)
    assert len(treeload.plan(dst, src, rules=rules).errors) <= len(plan.errors)
