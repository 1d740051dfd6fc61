"""How long a server is waited for, and by what whoever waits is let go.

A server is a stranger: it may send nothing, or one byte a minute, as long as it likes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for, and how often it is asked again.

    Attributes:
        connect: seconds until a connection stands.
        answer: seconds until an answer has begun, and that it may lag behind ``slowest`` after that.
        slowest: bytes a second; an answer that comes more slowly is given up.
        tries: how often what failed is tried; more often where much of it came.
        pause: seconds before the second try; twice as many before each further one, 10 at most.
        stranger: seconds in all, tries and pauses included, that a server may lag behind ``slowest`` as long
            as it has sent little.
        prompt: seconds that a question may take of which these do not count.
        proven: bytes after which a server is no stranger.
    """

    connect: float = 10.0
    answer: float = 30.0
    slowest: int = 4096
    tries: int = 6
    pause: float = 0.5
    stranger: float = 4.0
    prompt: float = 0.5
    proven: int = 64 << 10


PATIENCE = Patience()
"""What every request has. Tests replace it."""


class Stop:
    """By which whoever waits for a server is let go: pauses end, and connections are cut."""

    def __init__(self) -> None:
        self._event, self._sockets, self._lock = threading.Event(), set[socket.socket](), threading.Lock()

    def now(self) -> None:
        with self._lock:
            self._event.set()
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> bool:
        """Whether it was said to stop, by then."""
        return self._event.wait(seconds)

    @contextmanager
    def cuts(self, sock: socket.socket) -> Iterator[None]:
        """As long as it lasts, ``now`` cuts this connection.

        Raises:
            ConnectionAbortedError: it was said to stop before.
        """
        with self._lock:
            if self._event.is_set():
                raise ConnectionAbortedError("nobody waits for it any more")
            self._sockets.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)


class Waiting:
    """How long one question, asked again where it fails, is waited for.

    Args:
        seconds: in all; infinity for a server that is known to send what it is asked for.
    """

    def __init__(self, seconds: float) -> None:
        self._begun, self._seconds = time.monotonic(), seconds
        self.taken = 0
        """Bytes that came, of heads and bodies."""

    @property
    def lag(self) -> float:
        """The seconds that it took longer than it may for so many bytes."""
        return time.monotonic() - self._begun - self.taken / PATIENCE.slowest

    @property
    def left(self) -> float:
        """The seconds that are left for all of the question."""
        return self._seconds - self.lag

    def at_most(self, seconds: float) -> float:
        """So many seconds, or what is left.

        Raises:
            TimeoutError: nothing is left.
        """
        left = self.left
        if left <= 0:
            raise TimeoutError(f"it has sent hardly anything in {PATIENCE.stranger:g} seconds")
        return min(seconds, left)
