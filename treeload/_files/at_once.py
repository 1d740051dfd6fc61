"""The same question of several files: of servers several at once, since each answer is mostly waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")

_THREADS = 8


def at_once(ask: Callable[[_Asked], _Answer], asked: Iterable[_Asked], *, is_far: bool) -> list[_Answer]:
    """The answers, in the order of the questions; the first that raises ends it.

    Args:
        ask: the question.
        asked: of whom.
        is_far: they are on a server; else they are asked one by one.
    """
    asked = tuple(asked)
    if not is_far or len(asked) < 2:
        return [ask(each) for each in asked]
    threads = ThreadPoolExecutor(min(_THREADS, len(asked)), thread_name_prefix="treeload-ask")
    try:
        return list(threads.map(ask, asked))
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
