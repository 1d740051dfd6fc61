"""Source leaves read, checked, handed on once a job has all its own, and let go."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Name, Source, SourceError
from treeload._leaves.spec import Spec, spec_of
from treeload._loading.gather import Job, gather, not_as_said
from treeload._ops.expression import Leaf

SPEC = jax.ShapeDtypeStruct((2,), np.float32)
numbers = st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=5)


class Told(Source):
    """Gives what it is told to give; notes what it was asked for."""

    label = "a told source"

    def __init__(self, give: Any = None, *, gives_away: bool = False) -> None:
        self.give, self.gives_away = give, gives_away
        self.asked: list[dict[Name, Spec]] = []

    def specs(self) -> Mapping[Name, Spec]:
        return {}

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        self.asked.append(dict(requests))
        if self.give is not None:
            yield from self.give
        else:
            yield from ((name, np.full(2, int(name[0]), np.float32)) for name in requests)


def leaf(number: int, source: int = 0) -> Leaf:
    return Leaf(source, Name((str(number),)), SPEC)


def jobs(several: list[list[int]]) -> list[Job]:
    return [Job([leaf(number) for number in some]) for some in several]


@given(numbers)
def test_every_job_that_needs_a_leaf_is_done_once_with_the_arrays_of_its_leaves(
    several: list[list[int]],
) -> None:
    done = dict(gather([Told()], jobs(several)))
    assert sorted(done) == [number for number, some in enumerate(several) if some]
    for number, arrays in done.items():
        assert {int(one.name[0]): array[0] for one, array in arrays.items()} == {
            n: n for n in several[number]
        }


@given(numbers)
def test_every_leaf_is_asked_for_once_and_told_once(several: list[list[int]]) -> None:
    source = Told()
    told: list[Any] = []
    list(gather([source], jobs(several), advance=lambda *what: told.append(what)))
    wanted = {number for some in several for number in some}
    assert [set(asked) for asked in source.asked] == ([{(str(n),) for n in wanted}] if wanted else [])
    assert sorted(told) == [(0, (str(n),)) for n in sorted(wanted)]


def test_a_source_of_which_nothing_is_wanted_is_not_asked() -> None:
    one, two = Told(), Told()
    list(gather([one, two], [Job([leaf(3, source=1)])]))
    assert not one.asked and len(two.asked) == 1


def test_a_job_over_two_sources_is_done_with_the_second() -> None:
    found = list(gather([Told(), Told()], [Job([leaf(1, 1), leaf(2, 0)]), Job([leaf(2, 0)])]))
    assert [number for number, _ in found] == [1, 0]
    assert [float(array[0]) for array in found[1][1].values()] == [1, 2]


def test_a_request_repeats_the_spec_and_says_where_the_array_is_wanted() -> None:
    source = Told()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    list(gather([source], jobs([[0], [1]]), {leaf(1): sharding}))
    assert {str(name): spec.sharding for name, spec in source.asked[0].items()} == {"0": None, "1": sharding}
    assert all((spec.shape, spec.dtype) == (SPEC.shape, SPEC.dtype) for spec in source.asked[0].values())


def test_an_array_goes_with_its_last_job() -> None:
    alive: list[Any] = []

    def give() -> Iterator[tuple[Name, Any]]:
        for name in "01":
            array = np.ones(2, np.float32)
            alive.append(weakref.ref(array))
            yield Name(name), array
            del array

    steps = gather([Told(give(), gives_away=True)], jobs([[0], [0], [1]]))
    for _ in range(2):
        next(steps)[1].clear()
        assert alive[0]() is not None
    next(steps)
    assert alive[0]() is None


@pytest.mark.parametrize("gives_away", [True, False])
def test_an_array_is_copied_unless_its_source_gives_it_away(gives_away: bool) -> None:
    array = np.ones(2, np.float32)
    ((_, arrays),) = gather([Told([(Name("0"), array)], gives_away=gives_away)], jobs([[0]]))
    assert (arrays[leaf(0)] is array) is gives_away


# Sources that do not do as they said.


@pytest.mark.parametrize(
    ("give", "said"),
    [
        ([(Name("9"), np.ones(2))], "a told source gave '9', which was not asked for"),
        ([(Name("0"), np.ones(2, np.float32))] * 2, "gave '0', which was not asked for .any more."),
        ([(Name("0"), np.ones(3, np.float32))], r"'0' in .* was said to be .*32\[2\] and is float32\[3\]"),
        ([(Name("0"), np.ones(2))], r"was said to be float32\[2\] and is float64\[2\]"),
        ([], "did not give 1 of the leaves asked for: 0"),
        ([(Name("0"), None)], "a told source could not be read: AttributeError"),
    ],
)  # fmt: skip
def test_a_source_that_gives_something_else_is_a_source_error(give: Any, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        list(gather([Told(give)], jobs([[0]])))


def test_of_many_leaves_that_were_not_given_five_are_named() -> None:
    with pytest.raises(SourceError, match="7 of the leaves asked for: 0, 1, 2, 3, 4$"):
        list(gather([Told([])], jobs([[number] for number in range(7)])))


def test_both_sides_of_a_lie_are_said() -> None:
    error = not_as_said(Told(), ("a", "c"), SPEC, spec_of(np.ones(3)))
    assert str(error) == "'a/c' in a told source was said to be float32[2] and is float64[3]"
