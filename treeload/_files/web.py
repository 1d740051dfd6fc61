"""Files of a web server, read by ranges: what lies where, and that it stays what it was.

Owns what is asked of a server and what its answers must be. One that gives no ranges is noticed before a body
is read: it is refused with the size that it would take, or downloaded where that was asked for (``whole``).
Answers that break off go on where they broke off. Refuses to own connections and their bounds (``http``).

HTTP ranges: RFC 9110, section 14.
"""

from __future__ import annotations

import math
import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from treeload._errors import SourceError
from treeload._files import http, patience
from treeload._files.http import Answer, asked
from treeload._files.patience import Stop, Waiting
from treeload._files.place import Descriptor, Handle, Refused, Server, Status, changed
from treeload._files.whole import Download
from treeload._naming.printable import printable

_FIRST = 64  # bytes asked for to learn how many there are


_MOST_KEPT = 64 << 10  # first bytes of a file that are kept while it is being opened


_AGAIN = (408, 425, 429, 500, 502, 503, 504)


_GONE = (404, 410)


_REFUSED = (401, 403, 407)


_ANEW = 1.0  # seconds without a question: who asks then tries anew, and a server may have recovered


_FOR_ONE_MORE_TRY = 1 << 20  # bytes after which what breaks off may do so once more


_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19})")


_Result = TypeVar("_Result")


class _Again(Exception):
    """An answer after which the same question may be asked again, after the seconds that the server says."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


@dataclass(frozen=True)
class _Found(Status):
    """What a server said of a file; ``in_parts``: it gives ranges of it."""

    in_parts: bool = True


class WebServer(Server):
    """A server that speaks HTTP.

    Args:
        root: ``https://host``, and a path that goes before all others.
        query: follows each path: keys, where the server gives those in its URLs.
        headers: sent with each request, to this server alone.
        whole: download a file that it does not give in parts.
    """

    def __init__(
        self,
        root: str,
        query: str = "",
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        whole: bool = False,
    ) -> None:
        self._root, self._query, self._headers, self._whole = root, query, dict(headers), whole
        self._forget()

    def _forget(self) -> None:
        self._known: dict[str, _Found | None] = {}
        self._first: dict[str, bytes] = {}
        self._led: dict[str, str] = {}  # where a URL led to, so that it is not asked each time
        self._downloads: dict[str, Download] = {}
        self._taken, self._lag = 0, 0.0  # bytes that it sent, and seconds that it was too slow
        self._answered = 0.0  # when the last question ended, one way or the other

    def __getstate__(self) -> dict[str, Any]:
        keep = ("_root", "_query", "_headers", "_whole")
        return {name: value for name, value in vars(self).items() if name in keep}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    # --- names ---

    def shown(self, path: str) -> str:
        return http.shown(urlsplit(self._url(path)))

    def spelt(self, name: str) -> str:
        return quote(name, safe="")

    def named(self, spelt: str) -> str:
        return unquote(spelt)

    def is_directory(self, path: str) -> bool:
        return not path.strip("/") or path.endswith("/")

    def names(self, path: str) -> list[str]:
        raise SourceError(
            f"{self.shown(path)!r} is a directory of a web server, which does not say what is in it: give "
            "the URL of a file, or of the index of several (model.safetensors.index.json)"
        )

    def _url(self, path: str) -> str:
        return f"{self._root}{path}{f'?{self._query}' if self._query else ''}"

    # --- what lies there ---

    def find(self, path: str) -> Status | None:
        if path not in self._known:
            stop = Stop()
            self._known[path] = self._patiently(path, stop, lambda waiting: self._look(path, stop, waiting))
        return self._known[path]

    def _look(self, path: str, stop: Stop, waiting: Waiting) -> _Found | None:
        with self._asked(path, f"bytes=0-{_FIRST - 1}", stop, waiting) as answer:
            if answer.status in _GONE:
                return None
            if answer.status == 200:
                return self._without_ranges(path, answer)
            start, stop_, size = self._range(path, answer)
            if answer.status == 416 and size == 0:
                return _Found(0, _identity(answer, 0))
            if answer.status != 206 or start != 0 or stop_ != min(size, _FIRST):
                raise self._nonsense(path, answer)
            first = bytearray(stop_)
            _read_fully(answer, memoryview(first))
            self._first[path] = bytes(first)
            return _Found(size, _identity(answer, size))

    def _without_ranges(self, path: str, answer: Answer) -> _Found:
        size, shown = answer.length, self.shown(path)
        if size == 0:
            return _Found(0, _identity(answer, 0))
        if size is None:
            raise SourceError(
                f"{shown!r} cannot be read in parts, and its server does not say how large it is: download it"
            )
        if not self._whole:
            raise SourceError(
                f"{shown!r} cannot be read in parts: its server gives no ranges, so all of it would have to "
                f"be downloaded, {size:,} bytes. treeload.From(..., whole=True) does that"
            )
        return _Found(size, _identity(answer, size), in_parts=False)

    # --- read ---

    @contextmanager
    def opened(self, path: str, known: Status) -> Iterator[Handle]:
        found = self.find(path) if self._whole else None
        if isinstance(found, _Found) and not found.in_parts:
            self._must_be(path, known, found)
            yield Descriptor(self._download(path, known), known)
            return
        handle = _WebHandle(self, path, known)
        try:
            yield handle
        finally:
            handle.stop()

    def _download(self, path: str, known: Status) -> int:
        """A descriptor of all of a file, which is downloaded once."""
        if path not in self._downloads:
            download, stop = Download(known.size, self.shown(path)), Stop()

            def fetch(waiting: Waiting) -> None:
                download.restart()
                with self._asked(path, None, stop, waiting) as answer:
                    if answer.status != 200 or answer.length not in (None, known.size):
                        raise self._nonsense(path, answer)
                    self._must_be(path, known, Status(known.size, _identity(answer, known.size)))
                    answer.allow(known.size)
                    download.take(answer.read_into)

            self._patiently(path, stop, fetch)
            self._downloads[path] = download
        return self._downloads[path].descriptor

    def start_of(self, path: str, known: Status) -> bytes:
        """The first bytes of a file that came with an answer before."""
        found = self._known.get(path)
        return self._first.get(path, b"") if found is not None and found.identity == known.identity else b""

    def keep(self, path: str, more: bytes) -> None:
        """``more`` follows what ``start_of`` gives."""
        self._first[path] = (self._first.get(path, b"") + more)[:_MOST_KEPT]

    def fetch(self, path: str, known: Status, offset: int, views: list[memoryview], stop: Stop) -> None:
        """Fills ``views`` from ``offset`` on, which is within the file, with one request if nothing fails."""
        left, done = list(views), [0]

        def go_on(waiting: Waiting) -> None:
            start, end = offset + done[0], offset + sum(map(len, views))
            with self._asked(path, f"bytes={start}-{end - 1}", stop, waiting) as answer:
                if answer.status in _GONE:
                    raise changed(repr(self.shown(path)), known.size, 0)
                if answer.status == 200:
                    raise self._no_ranges_any_more(path, known, answer)
                first, last, size = self._range(path, answer)
                self._must_be(path, known, Status(size, _identity(answer, size)))
                if answer.status != 206 or first != start or not start < last <= end:
                    raise self._nonsense(path, answer)
                answer.allow(last - start)
                _fill(answer, left, last - start, done)
            if left:
                raise _Again("it sent less than was asked for")

        self._patiently(path, stop, go_on, progress=lambda: done[0])

    def _no_ranges_any_more(self, path: str, known: Status, answer: Answer) -> SourceError:
        now = Status(answer.length or 0, _identity(answer, answer.length or 0))
        if now.identity != known.identity:
            return changed(repr(self.shown(path)), known.size, now.size)
        return SourceError(f"{self.shown(path)!r} gave parts of itself before, and by now gives none")

    # --- again and again ---

    def _patiently(
        self,
        path: str,
        stop: Stop,
        ask: Callable[[Waiting], _Result],
        progress: Callable[[], int] = lambda: 0,
    ) -> _Result:
        """What ``ask`` gives, tried again where it failed for the time being.

        Raises:
            SourceError: it failed too often.
        """
        failures, has = 0, patience.PATIENCE
        if time.monotonic() - self._answered > _ANEW:
            self._lag = 0.0
        is_stranger = self._taken < has.proven
        waiting = Waiting(has.stranger - self._lag if is_stranger else math.inf)
        while True:
            try:
                result = ask(waiting)
            except (_Again, *http.FAILURES) as error:
                failures += 1
                most = _tries(error, has.tries) + progress() // _FOR_ONE_MORE_TRY
                if stop.wait(0.0) or failures >= most or waiting.left <= 0:
                    self._lag += max(waiting.lag, 0.0)
                    self._answered = time.monotonic()
                    raise _unreadable(self.shown(path), error, failures) from error
                pause = min(has.pause * 2 ** (failures - 1), 10.0) * random.uniform(0.5, 1.0)
                asked_for = min(error.seconds, has.answer) if isinstance(error, _Again) else 0.0
                stop.wait(min(max(pause, asked_for), max(waiting.left, 0.0)))
            except ValueError as error:  # a host or a header that cannot be written
                shown = self.shown(path)
                raise SourceError(f"{shown!r} cannot be asked for: {printable(str(error), 200)}") from error
            else:
                self._taken += waiting.taken
                self._lag += max(waiting.lag - has.prompt, 0.0)
                self._answered = time.monotonic()
                return result

    # --- one question ---

    @contextmanager
    def _asked(self, path: str, wanted: str | None, stop: Stop, waiting: Waiting) -> Iterator[Answer]:
        headers = {**self._headers, "Accept-Encoding": "identity", "User-Agent": "treeload"}
        if wanted is not None:
            headers["Range"] = wanted
        url = self._url(path)
        led = self._led.get(path)
        if led is not None:
            headers.pop("Authorization", None)
        with asked(led or url, headers, stop, waiting) as answer:
            if led is not None and answer.status >= 300 and answer.status != 416:
                self._led.pop(path, None)  # such addresses hold for some minutes only
                raise _Again("where it led to holds no more")
            self._check(path, answer)
            if urlsplit(answer.url)[:2] != urlsplit(url)[:2]:
                self._led[path] = answer.url
            yield answer

    def _check(self, path: str, answer: Answer) -> None:
        """Nothing, where an answer is about the file, or says that there is none."""
        if answer.status in _AGAIN:
            waits = answer.header("Retry-After") or ""
            raise _Again(f"it answers {answer.status}", float(waits) if waits.isdecimal() else 0.0)
        if answer.status in _REFUSED:
            raise Refused(
                f"{self.shown(path)!r} is not given to everybody: its server answers {answer.status}; "
                "give it a user and password, or a key, as it asks for them"
            )
        if answer.status not in (200, 206, 416, *_GONE):
            raise SourceError(f"{self.shown(path)!r} cannot be read: its server answers {answer.status}")
        encoding = answer.header("Content-Encoding")
        if encoding not in (None, "", "identity") and answer.status in (200, 206):
            raise SourceError(
                f"{self.shown(path)!r} comes encoded, as {printable(str(encoding), 40)!r}, though it was "
                "asked for as it is"
            )

    def _range(self, path: str, answer: Answer) -> tuple[int, int, int]:
        """What an answer says that it is: from, to, and of how many bytes."""
        match = _CONTENT_RANGE.fullmatch((answer.header("Content-Range") or "").strip())
        if match is None:
            raise self._nonsense(path, answer)
        start, last = (int(match[1]), int(match[2]) + 1) if match[1] else (0, 0)
        size = int(match[3])
        if not start <= last <= size or (
            answer.length is not None and match[1] and answer.length != last - start
        ):
            raise self._nonsense(path, answer)
        return start, last, size

    def _nonsense(self, path: str, answer: Answer) -> SourceError:
        said = printable(answer.header("Content-Range") or "no Content-Range", 80)
        return SourceError(
            f"{self.shown(path)!r} cannot be read: its server answers {answer.status} with {said!r}, which "
            "does not fit what it was asked for"
        )

    def _must_be(self, path: str, known: Status, now: Status) -> None:
        if now.identity != known.identity:
            raise changed(repr(self.shown(path)), known.size, now.size)


class _WebHandle(Handle):
    """A file that is read by ranges; may be read by several threads."""

    threads = 8
    piece = 4 << 20
    is_far = True

    def __init__(self, server: WebServer, path: str, known: Status) -> None:
        self._server, self._path, self._known, self._stop = server, path, known, Stop()

    def read(self, count: int, offset: int) -> bytes:
        count = max(min(count, self._known.size - offset), 0)
        start = self._server.start_of(self._path, self._known)
        found = start[offset : offset + count]
        if len(found) == count:
            return found
        at, all_of_it = offset + len(found), bytearray(count)
        all_of_it[: len(found)] = found
        rest = memoryview(all_of_it)[len(found) :]
        self._server.fetch(self._path, self._known, at, [rest], self._stop)
        if at == len(start):
            self._server.keep(self._path, bytes(rest[:_MOST_KEPT]))
        return bytes(all_of_it)

    def fill(self, buffers: Sequence[memoryview], offset: int) -> int:
        wanted = sum(map(len, buffers))
        if offset + wanted > self._known.size:  # whoever asks knows the size
            return 0
        self._server.fetch(self._path, self._known, offset, list(buffers), self._stop)
        return wanted

    def now(self) -> Status:
        return self._known  # each answer was held against it

    def stop(self) -> None:
        self._stop.now()


# --- again and again ---------------------------------------------------------------------------------


def _unreadable(shown: str, error: Exception, failures: int) -> SourceError:
    reason = printable(" ".join(str(error).split()), 200) or type(error).__name__
    tries = "1 try" if failures == 1 else f"{failures} tries"
    return SourceError(f"{shown!r} cannot be read: {reason}, after {tries}")


def _tries(error: Exception, most: int) -> int:
    """How often what failed so is tried at most: a wrong name or certificate will be wrong again."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return 1
    return min(2, most) if isinstance(error, (socket.gaierror, ConnectionRefusedError)) else most


def _identity(answer: Answer, size: int) -> tuple[int | str | None, ...]:
    tag = answer.header("ETag")
    return (size, tag, None if tag else answer.header("Last-Modified"))


def _read_fully(answer: Answer, view: memoryview) -> None:
    answer.allow(len(view))
    while view:
        count = answer.read_into(view)
        if not count:
            raise _Again("its answer broke off")
        view = view[count:]


def _fill(answer: Answer, views: list[memoryview], count: int, done: list[int]) -> None:
    """Takes ``count`` bytes of the body into ``views``, of which only what is unfilled remains."""
    while count:
        part = views[0][:count]
        got = answer.read_into(part)
        if not got:
            raise _Again("its answer broke off")
        count -= got
        done[0] += got
        views[0] = views[0][got:]
        if not views[0]:
            views.pop(0)
