"""A plan is carried out by one state of its sources, and again where one was replaced meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import Name, Source, SourceError
from treeload._files.digests import Digest

W, BIAS = Name(("w",)), Name(("bias",))
DST = {"w": np.zeros(2, np.float32)}
POLICY = treeload.Policy(absent_is_zero=treeload.BIAS)


class Replaced(Source):
    """A source in whose place others come, one each time that it is read to its second leaf."""

    label = "'s' (test)"
    checks_digests = True

    def __init__(self, *states: tuple[float, float], lacking: bool = False) -> None:
        self.states = states
        self.lacking = lacking
        self.leaf_digests = {W: Digest("0")}

    def specs(self) -> Mapping[Name, Any]:
        return {name: jax.ShapeDtypeStruct((2,), np.float32) for name in (W, BIAS)}

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        for name in requests:
            if name == W and len(self.states) > 1:
                raise SourceError("changed while it was read", changed=True)
            if name == W and self.leaf_digests:
                raise SourceError("'w' is damaged")
            yield name, np.full(2, self.states[0][name == BIAS], np.float32)

    def opened_again(self) -> Source | None:
        return None if self.lacking else Replaced(*self.states[1:])


def test_it_is_read_again_and_values_are_checked_again() -> None:
    plan = treeload.plan(DST, Replaced((1, 0), (2, 0), (3, 0)), policy=POLICY)
    with pytest.raises(SourceError, match="'w' is damaged"):
        plan.load()
    plan = treeload.plan(DST, Replaced((1, 0), (2, 0), (3, 0)), policy=POLICY)
    assert plan.load(check_digests=False)["w"].tolist() == [3, 3]
    plan = treeload.plan(DST, Replaced((1, 0), (2, 5)), policy=POLICY)
    with pytest.raises(treeload.LoadError, match="largest 5"):
        plan.load(check_digests=False)


def test_an_update_is_read_again_too() -> None:
    class Holds(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(np.zeros(2, np.float32))

    module = Holds()
    treeload.update(module, Replaced((1, 0), (2, 0)), policy=POLICY, check_digests=False)
    assert module.w[...].tolist() == [2, 2]
    with pytest.raises(SourceError, match="'w' is damaged"):
        treeload.update(module, Replaced((3, 0)), policy=POLICY)
    assert module.w[...].tolist() == [2, 2]


@pytest.mark.parametrize(
    "source", [Replaced(*[(1, 0)] * 9), Replaced((1, 0), (2, 0), lacking=True)], ids=["always", "lacking"]
)
def test_what_is_replaced_again_and_again_is_given_up(source: Source) -> None:
    with pytest.raises(SourceError, match="changed while it was read") as raised:
        treeload.plan(DST, source, policy=POLICY).load()
    assert raised.value.changed


def test_a_plan_is_made_again_where_its_source_was_replaced_meanwhile() -> None:
    class Once(Replaced):
        asked = 0

        def specs(self) -> Mapping[Name, Any]:
            Once.asked += 1
            if Once.asked == 1:
                raise SourceError("changed while it was read", changed=True)
            return super().specs()

    assert treeload.plan(DST, Once((1, 0)), policy=POLICY).ok
    Once.asked = 0
    assert len(treeload.inspect(Once((1, 0)))) == 2
