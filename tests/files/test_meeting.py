"""Processes that meet: what each says is heard by all, and nobody is waited for without end."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from treeload._errors import SaveError, SourceError, TreeloadError
from treeload._files import meeting


class Service:
    """A coordination service at which the processes 0, 1 and 3 of four have said what they say."""

    def __init__(self) -> None:
        self.others: dict[int, dict[str, str] | None] = {
            number: {"failed": "", "sign": "s"} for number in (0, 1, 3)
        }
        self.mine: dict[str, str] = {}

    def key_value_set(self, key: str, value: str) -> None:
        assert key not in self.mine and key.endswith("/2")
        self.mine[key] = value

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        assert milliseconds == meeting.SECONDS * 1000
        number = int(key.rpartition("/")[2])
        if number == 2:
            return self.mine[key]
        if self.others[number] is None:
            raise RuntimeError("DEADLINE_EXCEEDED: timed out")
        return json.dumps(self.others[number])

    @property
    def said(self) -> list[Any]:
        return [json.loads(value) for value in self.mine.values()]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """As if this were the third of four processes."""
    found = Service()
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    monkeypatch.setattr(meeting, "_client", lambda: found)
    monkeypatch.setattr(meeting, "_numbers", itertools.count())
    return found


def meet(what: str, *of: Any, sign: str = "s") -> None:
    with meeting.together(what, *of, sign=sign):
        pass


def test_a_failure_is_told_to_the_others_and_is_ones_own_error(service: Service) -> None:
    with pytest.raises(OSError, match="full"), meeting.together("write it"):
        raise OSError("full")
    assert service.said == [{"failed": "OSError: full", "sign": ""}]


def test_a_failure_of_others_is_an_error_here_with_their_words(service: Service) -> None:
    service.others[0] = {"failed": "SourceError: x is damaged", "sign": "s"}
    service.others[3] = {"failed": "KeyError: 1", "sign": "s"}
    with pytest.raises(SaveError, match="process 0, 3 of 4 could not write it: SourceError: x is damaged"):
        meet("write it")


def test_where_all_went_well_all_go_on_and_meet_again(service: Service) -> None:
    for _ in range(3):
        with meeting.together("write it", sign="s"):
            pass
    assert len(service.mine) == 3


def test_who_would_do_something_else_is_named(service: Service) -> None:
    service.others[1] = {"failed": "", "sign": "other"}
    with pytest.raises(SourceError, match="process 1 of 4 would load it otherwise than process 0"):
        meet("load it", SourceError)


def test_who_does_not_come_is_named(service: Service) -> None:
    service.others[1] = None
    with (
        pytest.raises(
            TreeloadError, match=r"process 1 of 4 did not come to where all meet to load it: .*DEADLINE"
        ),
        meeting.together("load it"),
    ):
        pass
    with pytest.raises(OSError, match="full"), meeting.together("load it"):  # one's own failure comes first
        raise OSError("full")


def test_one_process_meets_nobody() -> None:
    with meeting.together("load it"):
        pass
    with pytest.raises(OSError, match="full"), meeting.together("load it"):
        raise OSError("full")
    assert meeting.told_by_all(b"a") == [b"a"] and meeting.told_by_first(b"a") == b"a"


def test_without_the_service_they_meet_on_their_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(value: Any) -> Any:
        return np.stack([np.asarray(value)] * 4)

    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(meeting, "_client", lambda: None)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda words: words)
    with meeting.together("load it"):
        pass
    assert meeting.told_by_all(b"abc") == [b"abc"] * 4
    assert meeting.told_by_first(b"abc") == b"abc"
