"""Of a source that nothing vouches for a plan's report says so, in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import Name, Source
from treeload._files.digests import Digest
from treeload._reports.trust import unverified


class Stated(Source):
    """A source of these leaves, of which some have a digest."""

    def __init__(self, label: str, *names: str, known: tuple[str, ...] = ()) -> None:
        self.label = label
        self.names = names
        self.leaf_digests = {Name((name,)): Digest("0") for name in known}

    def specs(self) -> Mapping[Name, Any]:
        return {Name((name,)): jax.ShapeDtypeStruct((2,), np.float32) for name in self.names}

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        raise AssertionError("a report reads no array")


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ([Stated("a", "w", known=("w",))], ""),
        ([Stated("a", "w")], "cannot be verified: it holds no digests"),
        ([Stated("a", "w", "v", known=("v",))], "parts of it cannot be verified: no digests"),
        (
            [Stated("a", "w"), Stated("b", "v", known=("v",)), Stated("c\x1b", "u")],
            "cannot be verified, for want of digests: a and c\\x1b",
        ),
        ([], ""),
    ],
    ids=["all", "none", "some", "of several", "no source"],
)
def test_what_cannot_be_verified_is_said(sources: Any, said: str) -> None:
    assert unverified(sources) == said


def test_it_stands_below_where_the_values_come_from() -> None:
    lines = str(treeload.plan({"w": np.zeros(2, np.float32)}, Stated("'a' (test)", "w"))).splitlines()
    assert lines[lines.index("  cannot be verified: it holds no digests") - 1] == "from 'a' (test)"
    assert "verified" not in str(treeload.plan({"w": np.zeros(2)}, {"w": np.ones(2)}))


def test_a_source_that_does_not_say_any_more_what_it_holds_is_no_matter() -> None:
    source = Stated("'a' (test)", "w")
    plan = treeload.plan({"w": np.zeros(2, np.float32)}, source)
    source.names = (3,)  # type: ignore[assignment]
    assert "from 'a' (test)" in str(plan)
