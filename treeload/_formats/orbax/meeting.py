"""Several processes that write one checkpoint: what fails in one of them fails in all.

Owns the points at which they wait for each other, and what they tell each other there. A process that has
failed comes to the meeting all the same and says so; else the others would wait for it for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np

from treeload._errors import SaveError


@contextmanager
def together(what: str) -> Iterator[None]:
    """The body, in every process; nobody goes on before all have ended it, and if one failed none does.

    Raises:
        SaveError: it went well here, and not in another process.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001  # whatever it is, it is raised again once it is told
        failure = error
    failed = _tell(failure is not None)
    if failure is not None:
        raise failure
    if failed:
        numbers = ", ".join(map(str, failed))
        raise SaveError(
            f"process {numbers} of {jax.process_count()} could not {what}; its own error says why"
        )


def told_by_first(words: bytes) -> bytes:
    """What the first process says, in all of them; as long as what each of them would have said."""
    if jax.process_count() == 1:
        return words
    from jax.experimental import multihost_utils

    said = multihost_utils.broadcast_one_to_all(np.frombuffer(words, np.uint8))
    return np.asarray(said, np.uint8).tobytes()


def _tell(failed: bool) -> list[int]:
    """The numbers of the processes that say so."""
    if jax.process_count() == 1:
        return [0] if failed else []
    from jax.experimental import multihost_utils

    said = multihost_utils.process_allgather(np.asarray(failed))
    return np.flatnonzero(np.asarray(said)).tolist()
