"""An interrupt waits until what it would have broken is whole, and is never lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from treeload._files.interrupts import held_back


class Told(Exception):
    """What a handler of the user's raises."""


@pytest.fixture
def told() -> Iterator[list[int]]:
    """What the user's own handler of SIGTERM was called with; it raises."""
    seen: list[int] = []

    def handler(number: int, frame: object) -> None:
        seen.append(number)
        raise Told

    before = signal.signal(signal.SIGTERM, handler)
    yield seen
    signal.signal(signal.SIGTERM, before)


def test_a_ctrl_c_comes_when_the_body_has_ended() -> None:
    done: list[str] = []

    def body() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("the body")

    with pytest.raises(KeyboardInterrupt):
        body()
    assert done == ["the body"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_two_kinds_that_waited_both_come(told: list[int]) -> None:
    def body() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert told == []

    with pytest.raises((KeyboardInterrupt, Told)) as caught:
        body()
    assert told == [signal.SIGTERM]
    assert {type(caught.value), type(caught.value.__context__)} == {KeyboardInterrupt, Told}


def test_an_error_of_the_body_is_not_lost_to_the_interrupt() -> None:
    def body() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            raise OSError("full")

    with pytest.raises(KeyboardInterrupt) as caught:
        body()
    assert isinstance(caught.value.__context__, OSError)


def test_within_another_it_waits_for_the_outer_one(told: list[int]) -> None:
    done: list[str] = []

    def body() -> None:
        with held_back():
            with held_back():
                signal.raise_signal(signal.SIGTERM)
            done.append("the outer one")

    with pytest.raises(Told):
        body()
    assert done == ["the outer one"]


def test_without_a_signal_nothing_is_left_changed(told: list[int]) -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with held_back():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        assert signal.getsignal(signal.SIGSEGV) == before[signal.SIGSEGV]
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


def test_a_signal_that_no_function_handles_is_left_alone() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with held_back():
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_another_thread_than_the_main_one_holds_nothing_back() -> None:
    seen: list[object] = []

    def work() -> None:
        with held_back():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
