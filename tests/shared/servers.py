"""Web servers on the loopback: with ranges and without, cut in the middle, lying; they count what they send.

A server serves a directory. What it does otherwise than a good one is a function of the request, which writes
the answer itself and says whether it has.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")


@dataclass
class WebServer:
    """What a server on the loopback is asked and sends.

    Attributes:
        directory: what it serves.
        ranges: whether it gives parts of files.
        misbehave: writes an answer of its own, and says whether it has.
        tag: the ETag of every file.
        url: where it is.
        requests: path and range of each request, in order.
        most_at_once: requests that were under way at one time.
    """

    directory: Path
    ranges: bool = True
    misbehave: Callable[[Request], bool] = lambda request: False
    tag: str = '"one"'
    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    most_at_once: int = 0
    _sent: int = 0
    _now: int = 0
    _idle: threading.Condition = field(default_factory=threading.Condition)

    @property
    def sent(self) -> int:
        """Bytes of bodies, once no request is under way: who asked may have them before they count."""
        with self._idle:
            self._idle.wait_for(lambda: self._now == 0, timeout=5)
            return self._sent

    def forget(self) -> None:
        """Counts from here on."""
        with self._idle:
            self._idle.wait_for(lambda: self._now == 0, timeout=5)
            self.requests.clear()
            self._sent = self.most_at_once = 0

    def enter(self, request: tuple[str, str | None]) -> None:
        with self._idle:
            self.requests.append(request)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)

    def leave(self, sent: int) -> None:
        with self._idle:
            self._now -= 1
            self._sent += sent
            self._idle.notify_all()


class Request(BaseHTTPRequestHandler):
    """One request; what a good server does with it is ``answer``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms between its head and its body
    served: WebServer
    wrote = 0

    def do_GET(self) -> None:
        self.wrote = 0
        self.served.enter((self.path, self.headers.get("Range")))
        try:
            if not self.served.misbehave(self):
                self.answer()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.served.leave(self.wrote)

    @property
    def file(self) -> Path:
        return self.served.directory / unquote(urlsplit(self.path).path).lstrip("/")

    def range(self) -> tuple[int, int, int] | None:
        """From, to, and of how many; None where no part was asked for."""
        size = self.file.stat().st_size
        match = _RANGE.fullmatch(self.headers.get("Range") or "")
        return None if match is None else (int(match[1]), min(int(match[2]) + 1, size), size)

    def head(self, status: int, length: int | None, **headers: str) -> bool:
        """Sends a head; true, as whatever misbehaves says of what it has answered."""
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        return True

    def body(self, content: bytes) -> None:
        self.wfile.write(content)
        self.wrote += len(content)

    def cut(self) -> None:
        """The connection ends here."""
        self.wfile.flush()
        self.close_connection = True

    def answer(self) -> None:
        if not self.file.is_file():
            self.head(404, 0)
            return
        wanted = self.range() if self.served.ranges else None
        if wanted is None:
            self.head(200, self.file.stat().st_size, ETag=self.served.tag)
            self.send(0, self.file.stat().st_size)
            return
        start, stop, size = wanted
        if start >= size:
            self.head(416, 0, Content_Range=f"bytes */{size}")
            return
        self.head(206, stop - start, Content_Range=f"bytes {start}-{stop - 1}/{size}", ETag=self.served.tag)
        self.send(start, stop)

    def send(self, start: int, stop: int) -> None:
        descriptor = os.open(self.file, os.O_RDONLY)
        try:
            while start < stop and (part := os.pread(descriptor, min(1 << 20, stop - start), start)):
                self.body(part)
                start += len(part)
        finally:
            os.close(descriptor)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(directory: Path, **how: object) -> Iterator[WebServer]:
    """A server of ``directory`` on the loopback, as long as it lasts."""
    served = WebServer(directory, **how)  # type: ignore[arg-type]
    handler = type("Handler", (Request,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
