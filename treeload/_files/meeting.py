"""Several processes that do one thing together: what fails in one of them fails in all.

Owns the points at which they wait for each other, and what they tell each other there. A process that has
failed comes to the meeting all the same and says so; else the others would wait for it. They meet at JAX's
coordination service, not on their devices: no computation is begun, and nobody is waited for without end.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from treeload._errors import SaveError, TreeloadError

SECONDS = 1800.0
"""How long a process is waited for at a meeting: all of its reading or writing is done before."""


_numbers = itertools.count()


@contextmanager
def together(what: str, error: type[TreeloadError] = SaveError, *, sign: str = "") -> Iterator[None]:
    """The body, in every process; nobody goes on before all have ended it, and if one failed none does.

    Args:
        what: what the processes do, in words.
        error: what is raised where it went well here, and not in another process.
        sign: what is the same in all of them, if they do the same.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as raised:  # noqa: BLE001  # whatever it is, it is raised again once it is told
        failure = raised
    try:
        said = _exchange({"failed": _words(failure), "sign": sign}, what)
    except TreeloadError:
        if failure is not None:  # the others may have gone for the same reason
            raise failure from None
        raise
    if failure is not None:
        raise failure
    failed = {number: each["failed"] for number, each in enumerate(said) if each["failed"]}
    if failed:
        first = next(iter(failed.values()))
        numbers = ", ".join(map(str, failed))
        raise error(f"process {numbers} of {len(said)} could not {what}: {first}")
    others = [number for number, each in enumerate(said) if each["sign"] != said[0]["sign"]]
    if others:
        numbers = ", ".join(map(str, others))
        raise error(f"process {numbers} of {len(said)} would {what} otherwise than process 0: another plan")


def _words(failure: Exception | None) -> str:
    if failure is None:
        return ""
    return " ".join(f"{type(failure).__name__}: {failure}".split())[:2000]


def _exchange(mine: dict[str, Any], what: str) -> list[dict[str, Any]]:
    """What each process says, in the order of their numbers.

    Raises:
        TreeloadError: one of them does not come.
    """
    if jax.process_count() == 1:
        return [mine]
    client = _client()
    if client is None:  # a job whose processes JAX knows of without its service
        return [json.loads(each) for each in told_by_all(json.dumps(mine).encode())]
    meeting = f"treeload/{next(_numbers)}"
    client.key_value_set(f"{meeting}/{jax.process_index()}", json.dumps(mine))
    said = []
    for number in range(jax.process_count()):
        try:
            said.append(client.blocking_key_value_get(f"{meeting}/{number}", int(SECONDS * 1000)))
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise TreeloadError(
                f"process {number} of {jax.process_count()} did not come to where all meet to {what}: it has "
                f"ended, or it does something else ({reason})"
            ) from error
    return [json.loads(each) for each in said]


def _client() -> Any:
    """The client of JAX's coordination service, which has no public name; None where there is none."""
    from jax._src import distributed

    return getattr(getattr(distributed, "global_state", None), "client", None)


def told_by_first(words: bytes) -> bytes:
    """What the first process says, in all of them; as long as what each of them would have said."""
    if jax.process_count() == 1:
        return words
    from jax.experimental import multihost_utils

    said = multihost_utils.broadcast_one_to_all(np.frombuffer(words, np.uint8))
    return np.asarray(said, np.uint8).tobytes()


def told_by_all(words: bytes) -> list[bytes]:
    """What each process says, in the order of their numbers, in all of them."""
    if jax.process_count() == 1:
        return [words]
    from jax.experimental import multihost_utils

    lengths = np.asarray(multihost_utils.process_allgather(np.asarray(len(words), np.int32)))
    said = np.zeros(int(lengths.max()), np.uint8)
    said[: len(words)] = np.frombuffer(words, np.uint8)
    heard = np.asarray(multihost_utils.process_allgather(said), np.uint8)
    return [row[:length].tobytes() for row, length in zip(heard, lengths.tolist(), strict=True)]
